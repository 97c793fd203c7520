//! What the runtime asks of a translator and what it gets back. Plain data both ways, so that either side can be
//! printed, tested and replaced alone. Nothing here knows how a region was found or how it will be run.

use std::ops::Range;

/// Reads guest code. Returns how many bytes of `buf` could be filled: fewer than asked when the bytes end at a page
/// that is unmapped or not executable.
pub trait GuestCode {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize;

    /// Whether there is a translation that starts at `addr`: one that comes there does well to go on in it.
    fn is_translated(&self, _addr: u64) -> bool {
        false
    }

    /// Whether `addr` lies in the vDSO, where [`VDSO_NOP`] has a meaning.
    fn is_vdso(&self, _addr: u64) -> bool {
        false
    }
}

/// High half of the displacement of the long NOP (`nop dword [rax + disp32]`) that calls the runtime from the vDSO; the low half
/// says for what. Anywhere else it is a NOP.
pub const VDSO_NOP: u32 = 0x7672_0000;

/// How memory must be accessed so that no other observer sees an order x86 forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Ordering {
    /// Nobody else can look (one thread, no memory shared with other processes), or the host itself orders like x86.
    #[default]
    Plain,
    /// Loads acquire, stores release, locked operations full barriers. Accesses that are not aligned may fault (SIGBUS, BUS_ADRALN).
    Tso,
    /// As `Tso`, with plain loads and stores between barriers, and locked operations that look at their alignment: for code
    /// that was seen to make unaligned accesses. A locked operation that is not aligned is then not atomic.
    Fenced,
}

/// How much to translate at once. Tiers differ in this and in what it lets the facts see, never in semantics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Extent {
    /// Exactly one instruction, then a direct exit (EFLAGS.TF, and stepping up to a boundary).
    Single,
    /// Little: most code runs once.
    #[default]
    Cold,
    /// Control came back to `pc` from further on: the whole loop, if it fits.
    Loop,
}

/// A request to translate the code at `pc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub pc: u64,
    pub ordering: Ordering,
    pub extent: Extent,
    /// Some thread has unmasked SSE exceptions: after each instruction that may raise one the code looks for it.
    pub fp_traps: bool,
    /// Some thread flushes denormals by FPCR.FZ, which MIN and MAX must then do on their own (see `enter::fp`).
    pub flushes: bool,
}

impl Request {
    /// A small region at `pc`, for one thread.
    pub fn at(pc: u64) -> Request {
        Request { pc, ordering: Ordering::default(), extent: Extent::default(), fp_traps: false, flushes: false }
    }
}

/// A jump in a translation that leads to a known guest address.
///
/// `site` is a B, BL, B.cond, CBZ/CBNZ or TBZ/TBNZ. Unlinked, it branches to `stub`, which saves the state and reports
/// `target` (thunk `Direct`; the u64 after the BLR). Linked, it branches to the host code of `target`: directly when in
/// reach, else the stub's first word is replaced by a B. A back edge has `inside`: it starts out linked to that word of
/// its own region, and is pointed at its stub only to stop a running thread at a guest instruction boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub site: u32,
    pub stub: u32,
    pub target: u64,
    pub inside: Option<u32>,
}

/// A place other code may jump to. The u64 in the two words before `word` is the guest address, for lookups to compare, with
/// [`crate::abi::WANTS_FLAGS`] set where the code may read flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub guest: u64,
    pub word: u32,
}

/// Host words from `word` up to the next mark belong to the guest instruction at `guest`.
/// A synchronous fault inside them is that instruction's, with nothing of it done yet that cannot be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub word: u32,
    pub guest: u64,
    /// What to do to NZCV as found in the host to get the guest's flags.
    pub flags: FlagForm,
    /// A fault here leaves the guest's state as it was before the instruction at `guest`, but may belong to one of the
    /// [`REPLAY_MOST`] instructions from there on: going back to `guest` and on by single instructions brings it up where it belongs. `flags` is
    /// then `Direct`.
    pub replay: bool,
}

/// See [`Mark::replay`].
pub const REPLAY_MOST: usize = 48;

/// How the guest's CF is found in the host's C at some point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FlagForm {
    #[default]
    Direct,
    /// C is the inverse of CF (after an AArch64 subtraction).
    CarryInverted,
    /// As FCMP left it: unordered is C and V. The guest's are those of UCOMISD: ZF = Z or V, CF = N or V, PF = V, others 0.
    FloatCompare,
}

/// Host code for one region, position-independent, with its tables; to be placed at a multiple of 8 bytes. All offsets are in 32-bit words.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    pub words: Vec<u32>,
    /// Where other code may jump to; the region's own entry is first.
    pub entries: Vec<Entry>,
    /// Return points of calls: reached only through the shadow stack or by the dispatcher. They follow a BL/BLR, so that the
    /// host's return predictor is right, and have no guest address before them. Invalidation must make them trap, like entries.
    pub landings: Vec<Entry>,
    pub exits: Vec<Exit>,
    /// Sorted by `word`.
    pub marks: Vec<Mark>,
    /// Guest bytes this code was made from or depends on; a write to any of them invalidates it.
    pub depends: Vec<Range<u64>>,
}

/// Why a translation could not be made. There is always something to run instead: the runtime raises what the
/// hardware would at `pc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// Not even one byte at `pc` can be fetched: #PF on instruction fetch, at this address.
    #[error("no executable code at {0:#x}")]
    Fetch(u64),
}

/// The translator.
pub trait Engine: Sync {
    /// Translates the region that starts at `request.pc`. Bytes that are no instruction translate to code that traps.
    fn translate(&self, request: Request, code: &dyn GuestCode) -> Result<Translation, TranslateError>;
    /// Takes back a translation that was used, for its memory.
    fn recycle(&self, _t: Translation) {}
    /// What besides the request decides what code comes out: translations are good for an engine that says the same.
    fn options(&self) -> Vec<u8>;
    /// CPUID as this engine implements it: EAX, EBX, ECX, EDX for a leaf and subleaf.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];
}

/// Why translated code ended; stored in `CpuState::exit_reason`, its argument in `exit_arg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum ExitReason {
    /// `exit_arg` = host address of the stub's data; `rip` is set.
    Direct = 1,
    /// Indirect jump to `rip`, not in the lookup table.
    Indirect = 2,
    Syscall = 3,
    /// `exit_arg` = [`Trap`], and its error code in the upper half.
    Trap = 4,
    Stale = 5,
    ReturnMiss = 6,
    /// A synchronous host signal: the state is exact at the faulting instruction; the thread's record has the signal.
    Fault = 7,
    /// A signal handler ended the run: go on at `rip`.
    Resume = 8,
}

/// What an instruction raised (SDM vol. 3, 6.3), as far as user code can raise it. `rip` is the instruction's own address, except
/// for `Breakpoint`, `DebugBreak`, `Overflow`, `SoftInt` and `SingleStep`, which are traps and leave it at the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Trap {
    DivideError = 0,
    SingleStep = 1,
    /// INT1.
    DebugBreak = 0x101,
    Breakpoint = 3,
    Overflow = 4,
    /// Not an instruction, or one this CPU model does not have.
    Undefined = 6,
    /// #GP(0): privileged instruction, misaligned aligned-form access, non-canonical address.
    GeneralProtection = 13,
    /// Unmasked x87 exception.
    X87 = 16,
    AlignmentCheck = 17,
    /// Unmasked SSE exception; MXCSR says which.
    Simd = 19,
    /// INT 0x80, the 32-bit system call gate.
    SoftInt = 0x100,
    /// The instruction is known but not implemented; reported as #UD with a line saying so.
    Unsupported = 0x200,
}

impl Trap {
    pub fn from_raw(v: u64) -> Trap {
        match v & 0xffff_ffff {
            0 => Trap::DivideError,
            1 => Trap::SingleStep,
            3 => Trap::Breakpoint,
            4 => Trap::Overflow,
            13 => Trap::GeneralProtection,
            16 => Trap::X87,
            17 => Trap::AlignmentCheck,
            19 => Trap::Simd,
            0x100 => Trap::SoftInt,
            0x101 => Trap::DebugBreak,
            0x200 => Trap::Unsupported,
            _ => Trap::Undefined,
        }
    }
}

static INSTALLED: std::sync::OnceLock<&'static dyn Engine> = std::sync::OnceLock::new();

/// Makes `engine` the process's translator; the first call wins.
pub fn install(engine: &'static dyn Engine) {
    let _ = INSTALLED.set(engine);
}

/// The process's translator, if one was installed.
pub fn installed() -> Option<&'static dyn Engine> {
    INSTALLED.get().copied()
}

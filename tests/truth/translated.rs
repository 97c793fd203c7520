//! Runs a case through the translator on AArch64, in this process: translates what the guest's program counter points at, runs it,
//! and goes on until the code reaches its end or raises a signal. One thread only: the addresses are fixed and the context is
//! global.
//!
//! It uses the runtime's own way into translated code and its own tables; what it adds is a dispatcher without a cache (every
//! region is translated anew, so that one case cannot hide behind another) and a signal handler that turns a fault back into
//! guest state by the translation's marks.

use super::state::{Case, Fault, Outcome, rest_digest};
use super::{CODE, CODE_SIZE, DATA, DATA_RO, DATA_RW, START, WINDOW, WINDOW_SIZE};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};
use xrun::Translator;
use xrun::facts::Facts;
use xrun::guest::Region;
use xrun::host::HostFeatures;
use xrun::listing::Stage;
use xrun_runtime::code::arena::{self, Arena, NEVER};
use xrun_runtime::engine::{
    self, Engine, ExitReason, Extent, FlagForm, GuestCode, Mark, Request, TranslateError, Translation, Trap,
};
use xrun_runtime::state::{CpuState, Eflags, X87Reg, nzcv};
use xrun_runtime::thread::Thread;
use xrun_runtime::{abi, enter, helpers};

const ARENA: usize = 1 << 20;
/// More exits than any case that ends has.
const MOST_EXITS: u32 = 20_000;
const INT3: u8 = 0xcc;

/// Set by the signal handler: the translation met an unaligned access it cannot make.
static UNALIGNED: AtomicBool = AtomicBool::new(false);

/// How a case is translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// One region an instruction, so that every fact about flags crosses an edge.
    pub single: bool,
    pub ordering: engine::Ordering,
}

impl Mode {
    /// Every way to translate, numbered for the pipe: bit 0 for `single`, the rest for the ordering.
    pub const COUNT: u8 = 4;

    fn extent(self) -> Extent {
        if self.single { Extent::Single } else { Extent::Loop }
    }

    pub fn from_number(n: u8) -> Mode {
        Mode { single: n & 1 != 0, ordering: if n & 2 != 0 { engine::Ordering::Tso } else { engine::Ordering::Plain } }
    }
}

/// The translator, set up to run cases. There is one per process.
pub struct Translated {
    thread: Box<Thread>,
    engine: Translator,
    ordering: engine::Ordering,
    arena: u64,
    used: usize,
    shadow: Vec<u64>,
    /// Lends its lookup tables only.
    tables: Arena,
    /// Regions of the current case: guest entry, host entry.
    regions: Vec<(u64, u64)>,
}

/// What the signal handler needs: the regions of the running case, and where it leaves what happened.
struct Shared {
    inside: AtomicBool,
    live: UnsafeCell<Vec<(u64, Translation)>>,
    cpu: UnsafeCell<*mut CpuState>,
    fault: UnsafeCell<Option<Fault>>,
    /// A fault whose mark says `replay` (see [`xrun_runtime::engine::Mark`]).
    replay: AtomicBool,
}

// SAFETY: one thread uses it, and its signal handler while that thread is inside translated code.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared {
    inside: AtomicBool::new(false),
    live: UnsafeCell::new(Vec::new()),
    cpu: UnsafeCell::new(std::ptr::null_mut()),
    fault: UnsafeCell::new(None),
    replay: AtomicBool::new(false),
};

/// Guest code as the fixed mappings have it.
struct Mapped;

impl GuestCode for Mapped {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        let end = CODE + CODE_SIZE as u64;
        if !(CODE..end).contains(&addr) {
            return 0;
        }
        let n = buf.len().min((end - addr) as usize);
        // SAFETY: inside the code page, which is mapped for ever.
        unsafe { std::ptr::copy_nonoverlapping(addr as *const u8, buf.as_mut_ptr(), n) };
        n
    }
}

fn map(addr: u64, len: usize, prot: i32) -> Result<u64, String> {
    let fixed = if addr == 0 { 0 } else { libc::MAP_FIXED_NOREPLACE };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
    // SAFETY: NOREPLACE, or a place of the kernel's choice: nothing mapped is touched.
    let p = unsafe { libc::mmap(addr as *mut _, len, prot, flags, -1, 0) };
    if p == libc::MAP_FAILED || addr != 0 && p as u64 != addr {
        return Err(format!("cannot map {addr:#x}: {}", std::io::Error::last_os_error()));
    }
    Ok(p as u64)
}

impl Translated {
    /// Maps the fixed addresses and installs the signal handlers.
    ///
    /// # Errors
    /// When an address is taken.
    pub fn new() -> Result<Self, String> {
        // SAFETY: reads the auxiliary vector.
        let host =
            unsafe { HostFeatures::from_hwcap(libc::getauxval(libc::AT_HWCAP), libc::getauxval(libc::AT_HWCAP2)) };
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        map(CODE, CODE_SIZE, rw)?;
        map(DATA, DATA_RW, rw)?;
        map(DATA + DATA_RW as u64, DATA_RO, libc::PROT_READ)?;
        let arena = map(0, ARENA, rw | libc::PROT_EXEC)?;
        xrun::install(host);
        install_handlers();
        Ok(Self {
            thread: Thread::new(CpuState::default()),
            engine: Translator { host },
            ordering: engine::Ordering::Plain,
            arena,
            used: 0,
            shadow: vec![0; 0x4000],
            tables: Arena::new(arena::SIZE).map_err(|e| format!("cannot map the lookup tables: errno {e}"))?,
            regions: Vec::new(),
        })
    }

    /// Runs `case`; once more, from the start, with code for unaligned accesses when it makes one that the host does not take.
    pub fn run(&mut self, case: &Case, mode: Mode) -> Outcome {
        self.ordering = mode.ordering;
        UNALIGNED.store(false, Ordering::Relaxed);
        let o = self.run_once(case, mode);
        if !UNALIGNED.load(Ordering::Relaxed) {
            return o;
        }
        self.ordering = engine::Ordering::Fenced;
        self.run_once(case, mode)
    }

    fn run_once(&mut self, case: &Case, mut mode: Mode) -> Outcome {
        let end = START + case.code.len() as u64;
        self.load(case);
        self.used = 0;
        self.regions.clear();
        // SAFETY: this thread is outside translated code, so the handler does not look.
        unsafe { (*SHARED.live.get()).clear() };
        let mut pc = START;
        let mut special = special(&self.thread.cpu);
        let mut exits = 0;
        let fault = loop {
            if pc == end {
                break None;
            }
            exits += 1;
            if exits > MOST_EXITS {
                break Some(Fault { signal: libc::SIGALRM, code: 0, addr: pc });
            }
            let host = match self.region(pc, mode) {
                Ok(h) => h,
                // Fetching there is a page fault: SEGV_ACCERR where there is memory that may not be executed.
                Err(TranslateError::Fetch(addr)) => {
                    let mapped = (DATA..DATA + (DATA_RW + DATA_RO) as u64).contains(&addr);
                    self.thread.cpu.rip = pc;
                    break Some(Fault { signal: libc::SIGSEGV, code: if mapped { 2 } else { 1 }, addr });
                }
            };
            // SAFETY: see `Shared`. The thread record is set up by `load`; `host` is an entry of code in the arena.
            unsafe {
                *SHARED.cpu.get() = &raw mut self.thread.cpu;
                *SHARED.fault.get() = None;
                SHARED.inside.store(true, Ordering::SeqCst);
                enter::enter(&raw mut self.thread.cpu, host);
                SHARED.inside.store(false, Ordering::SeqCst);
                if SHARED.replay.swap(false, Ordering::SeqCst) {
                    // On by single instructions, to meet the fault again where it belongs.
                    mode.single = true;
                    self.regions.clear();
                    pc = self.thread.cpu.rip;
                    continue;
                }
                if let Some(f) = *SHARED.fault.get() {
                    break Some(f);
                }
            }
            let cpu = &mut self.thread.cpu;
            let reason = cpu.exit_reason;
            pc = cpu.rip;
            if reason == ExitReason::Trap as u64 {
                let trap = Trap::from_raw(cpu.exit_arg);
                let back = std::mem::take(&mut cpu.helper_return);
                // SAFETY: this thread is outside translated code, so the handler does not look.
                let live = unsafe { &*SHARED.live.get() };
                // When a helper raised it, `rip` is still that of the last exit: the call site says where.
                if back != 0
                    && let Some(mark) = mark_at(live, (back & !3) - 4)
                {
                    pc = mark.guest;
                    cpu.rip = pc;
                }
                if trap == Trap::Breakpoint && pc == end + 1 {
                    cpu.rip = end;
                    break None;
                }
                let fault = trap_signal(trap, pc);
                break Some(Fault { code: if trap == Trap::Simd { fp_code(cpu) } else { fault.code }, ..fault });
            }
            if self::special(cpu) != special {
                // What was made so far does not look for exceptions, or for denormals.
                special = self::special(cpu);
                self.regions.clear();
            }
            if reason == ExitReason::Syscall as u64 {
                break Some(Fault { signal: libc::SIGSYS, code: 0, addr: pc });
            }
        };
        self.outcome(case, fault)
    }

    /// The host code of `case`, one line a word, with the guest instructions between.
    pub fn listing(&mut self, case: &Case, mode: Mode) -> String {
        self.run(case, mode);
        let mut s = String::new();
        for (pc, _) in &self.regions {
            let Ok(region) = Region::find(*pc, mode.extent(), &Mapped) else { continue };
            let facts = Facts::of(&region, &Mapped);
            let t = self.engine.lower(&region, &facts, self.request(*pc, mode));
            s += &xrun::listing::region(Stage::Host, &region, &facts, &t);
        }
        s
    }

    fn request(&self, pc: u64, mode: Mode) -> Request {
        let (fp_traps, flushes) = special(&self.thread.cpu);
        Request { pc, ordering: self.ordering, extent: mode.extent(), fp_traps, flushes }
    }

    fn region(&mut self, pc: u64, mode: Mode) -> Result<u64, TranslateError> {
        if let Some(r) = self.regions.iter().find(|r| r.0 == pc) {
            return Ok(r.1);
        }
        let t = self.engine.translate(self.request(pc, mode), &Mapped)?;
        let bytes = t.words.len() * 4;
        assert!(self.used + bytes <= ARENA, "a case fills the arena");
        let base = self.arena + self.used as u64;
        self.used += bytes.next_multiple_of(16);
        // SAFETY: the space is inside the arena and no code in it is running.
        unsafe { std::ptr::copy_nonoverlapping(t.words.as_ptr(), base as *mut u32, t.words.len()) };
        arena::sync(base, bytes);
        let host = base + 4 * u64::from(t.entries[0].word);
        self.regions.push((pc, host));
        // SAFETY: outside translated code.
        unsafe { (*SHARED.live.get()).push((base, t)) };
        Ok(host)
    }

    fn load(&mut self, case: &Case) {
        let s = &case.state;
        // SAFETY: the fixed mappings are writable with these sizes and only this thread uses them.
        unsafe {
            std::ptr::write_bytes(CODE as *mut u8, INT3, CODE_SIZE);
            std::ptr::copy_nonoverlapping(case.code.as_ptr(), START as *mut u8, case.code.len());
            std::ptr::write_bytes(DATA as *mut u8, 0, DATA_RW);
            std::ptr::copy_nonoverlapping(s.mem.as_ptr(), WINDOW as *mut u8, WINDOW_SIZE);
        }
        let cpu = &mut self.thread.cpu;
        let thread = cpu.thread;
        *cpu = CpuState { thread, ..CpuState::default() };
        cpu.gpr = s.gpr;
        cpu.rip = START;
        cpu.set_eflags(Eflags::from_bits_truncate(s.flags as u32));
        cpu.xmm = s.xmm;
        cpu.set_uppers(s.ymm_hi);
        cpu.gs_base = s.gs_base;
        cpu.x87.control = s.fcw;
        cpu.x87.status = s.fsw & !0x3800;
        cpu.x87.top = (s.fsw >> 11 & 7) as u8;
        cpu.x87.in_use = s.in_use;
        for (n, (m, e)) in s.fpr.iter().enumerate() {
            cpu.x87.regs[n] = X87Reg { mantissa: *m, sign_exp: *e, pad: [0; 3] };
        }
        // What a thread gets when it starts to run, with a lookup table in which everything misses.
        cpu.thunks = enter::thunks();
        cpu.helpers = helpers::TABLE.as_ptr() as u64;
        cpu.host_fpcr = 0;
        enter::fp::set_mxcsr(cpu, s.mxcsr);
        cpu.guest_fpsr = 0;
        cpu.lookup = self.tables.all_miss();
        let top = self.shadow.len() - 16;
        self.shadow[top..].fill(0);
        self.shadow[top] = NEVER;
        self.shadow[top + 1] = enter::never();
        cpu.shadow = &raw const self.shadow[top] as u64;
    }

    fn outcome(&mut self, case: &Case, fault: Option<Fault>) -> Outcome {
        let cpu = &mut self.thread.cpu;
        let mut s = case.state.clone();
        s.gpr = cpu.gpr;
        s.rip = cpu.rip;
        s.flags = u64::from(cpu.eflags().bits());
        s.xmm = cpu.xmm;
        s.ymm_hi = cpu.uppers();
        s.mxcsr = cpu.mxcsr | enter::fp::flags_of(cpu.guest_fpsr);
        s.fcw = cpu.x87.control;
        s.fsw = cpu.x87.status & !0x3800 | u16::from(cpu.x87.top & 7) << 11;
        s.in_use = cpu.x87.in_use;
        for (to, r) in s.fpr.iter_mut().zip(&cpu.x87.regs) {
            *to = (r.mantissa, r.sign_exp);
        }
        // SAFETY: mapped with this size for ever.
        let data = unsafe { std::slice::from_raw_parts(DATA as *const u8, DATA_RW) };
        s.mem.copy_from_slice(&data[(WINDOW - DATA) as usize..][..WINDOW_SIZE]);
        Outcome { state: s, fault, rest: rest_digest(data) }
    }
}

/// What MXCSR asks of the code: to look for exceptions, to flush denormals.
fn special(cpu: &CpuState) -> (bool, bool) {
    (cpu.unmasked != 0, enter::fp::flushes(cpu))
}

/// The `si_code` of an unmasked SSE exception (arch/x86/kernel/fpu/core.c, fpu__exception_code).
fn fp_code(cpu: &CpuState) -> i32 {
    let raised = (cpu.mxcsr | enter::fp::flags_of(cpu.guest_fpsr)) & !(cpu.mxcsr >> 7) & 0x3f;
    [(1, 7), (4, 3), (8, 4), (0x12, 5), (0x20, 6)].into_iter().find(|(f, _)| raised & f != 0).map_or(0, |(_, c)| c)
}

/// The mark of host address `pc`.
fn mark_at(live: &[(u64, Translation)], pc: u64) -> Option<Mark> {
    live.iter().find_map(|(base, t)| {
        let word = pc.checked_sub(*base)? / 4;
        let mark = t.marks.iter().rev().find(|m| u64::from(m.word) <= word)?;
        (word < t.words.len() as u64).then_some(*mark)
    })
}

/// What Linux makes of a trap on x86_64 (arch/x86/kernel/traps.c).
fn trap_signal(trap: Trap, rip: u64) -> Fault {
    const SI_KERNEL: i32 = 128;
    let (signal, code, addr) = match trap {
        Trap::DivideError => (libc::SIGFPE, 1, rip),
        Trap::SingleStep => (libc::SIGTRAP, 2, rip),
        Trap::DebugBreak => (libc::SIGTRAP, 1, rip),
        Trap::Breakpoint => (libc::SIGTRAP, SI_KERNEL, 0),
        Trap::Undefined => (libc::SIGILL, 2, rip),
        Trap::AlignmentCheck => (libc::SIGBUS, 1, 0),
        Trap::X87 | Trap::Simd => (libc::SIGFPE, 0, rip),
        Trap::Overflow | Trap::GeneralProtection | Trap::SoftInt => (libc::SIGSEGV, SI_KERNEL, 0),
        Trap::Unsupported => (super::state::UNSUPPORTED, 0, rip),
    };
    Fault { signal, code, addr }
}

fn install_handlers() {
    // SAFETY: installs handlers and an alternate stack that lives for ever.
    unsafe {
        let size = 0x10000;
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let stack = libc::mmap(std::ptr::null_mut(), size, rw, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        let ss = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: size };
        libc::sigaltstack(&ss, std::ptr::null_mut());
        let mut sa: libc::sigaction = std::mem::zeroed();
        sa.sa_sigaction = on_signal as *const () as usize;
        sa.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for s in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            libc::sigaction(s, &sa, std::ptr::null_mut());
        }
    }
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    if !SHARED.inside.load(Ordering::SeqCst) {
        // Not from a case: a bug in this program. Returning with the default action in place ends it as usual.
        eprintln!("signal {signal} outside translated code");
        // SAFETY: resets one signal's action.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: the kernel passed `info` and `uc`; the interrupted thread is inside translated code or a helper it called, so
    // the shared cells are this handler's.
    unsafe {
        let c = &mut (*uc.cast::<libc::ucontext_t>()).uc_mcontext;
        let cpu = &mut **SHARED.cpu.get();
        let live = &*SHARED.live.get();
        let find = |pc: u64| mark_at(live, pc);
        let rip;
        if let Some(mark) = find(c.pc) {
            rip = mark.guest;
            SHARED.replay.store(mark.replay, Ordering::SeqCst);
            for (n, r) in abi::GPR.iter().enumerate() {
                cpu.gpr[n] = c.regs[usize::from(*r)];
            }
            cpu.pf = c.regs[usize::from(abi::PF)];
            cpu.af = c.regs[usize::from(abi::AF)];
            let found = c.pstate as u32 & 0xf000_0000;
            cpu.nzcv = u64::from(match mark.flags {
                FlagForm::Direct => found,
                FlagForm::CarryInverted => found ^ nzcv::C,
                FlagForm::FloatCompare => {
                    let set = |on: bool, bit: u32| if on { bit } else { 0 };
                    let unordered = found & nzcv::V != 0;
                    cpu.pf = u64::from(!unordered);
                    cpu.af = cpu.pf;
                    set(found & nzcv::Z != 0 || unordered, nzcv::Z) | set(found & nzcv::N != 0 || unordered, nzcv::C)
                }
            });
            vectors(c, cpu);
        } else if cpu.helper_return != 0
            && let Some(mark) = find((cpu.helper_return & !3) - 4)
        {
            rip = mark.guest;
            if cpu.helper_return & 1 != 0 {
                eprintln!("a fault in a helper that may not fault, at {:#x}", c.pc);
                libc::abort();
            }
        } else {
            let at = c.pc.wrapping_sub(enter::leave());
            eprintln!(
                "signal {signal} at {:#x} (enter's exit {at:+#x}), address {:#x}",
                c.pc,
                (*info).si_addr() as u64
            );
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        cpu.rip = rip;
        let addr = (*info).si_addr() as u64;
        const BUS_ADRALN: i32 = 1;
        if signal == libc::SIGBUS && (*info).si_code == BUS_ADRALN {
            UNALIGNED.store(true, Ordering::Relaxed);
        }
        let canonical = (addr as i64) << 16 >> 16 == addr as i64;
        let fault = if signal == libc::SIGSEGV && !canonical {
            trap_signal(Trap::GeneralProtection, rip)
        } else {
            Fault { signal, code: (*info).si_code, addr }
        };
        *SHARED.fault.get() = Some(fault);
        c.pc = enter::leave();
        c.regs[usize::from(abi::STATE)] = &raw const *cpu as u64;
        c.sp = cpu.host_sp;
    }
}

/// XMM registers and the sticky flags, from the frame's FPSIMD record (arch/arm64/include/uapi/asm/sigcontext.h).
unsafe fn vectors(c: &mut libc::mcontext_t, cpu: &mut CpuState) {
    const MAGIC: u32 = 0x4650_8001;
    // The records follow `pstate`, 16-byte aligned; libc keeps the field private.
    let mut at = ((&raw const c.pstate as u64 + 8).next_multiple_of(16)) as *const u32;
    // SAFETY: the kernel ends the list of records with a zero magic and size, and always writes an FPSIMD record.
    unsafe {
        while *at != 0 {
            if *at == MAGIC {
                cpu.guest_fpsr = u64::from(*at.add(2));
                let v = at.add(4).cast::<u128>();
                for n in 0..16 {
                    cpu.xmm[n] = v.add(16 + n).read_unaligned();
                }
                return;
            }
            at = at.byte_add(*at.add(1) as usize);
        }
    }
}

//! The lowering context: what a row's function works with. Operand fetch and write-back, partial-register merges, addresses and memory
//! ordering, the static form of the flags, exits: each is done once, here or in a child module, so that a row says only what is particular to its
//! instruction.

mod flags;
mod flow;
mod mem;
mod traps;
mod upper;

pub use flags::Nzcv;

use super::Decline;
use crate::emit::{Addr, Label, Masm, Sz, V, X, ZR};
use crate::facts::zero::Zero;
use crate::facts::{Facts, Fuse};
use crate::guest::{Inst, Region};
use crate::host::HostFeatures;
use flow::Cold;
use iced_x86::{FlowControl, Instruction, OpKind, Register};
use xrun_runtime::abi;
use xrun_runtime::engine::{FlagForm, Mark, Ordering, Translation};

/// Pointer to `CpuState`.
pub const STATE: X = X(abi::STATE);
/// PF source: PF is the even parity of its low byte.
pub const PF: X = X(abi::PF);
/// AF source: AF is bit 4 of it xor [`PF`].
pub const AF: X = X(abi::AF);
/// The link register, free as one more scratch outside calls.
pub const LINK: X = X(abi::LINK);
const SHADOW: X = X(abi::SHADOW);

/// What the bits above an 8- or 16-bit operand hold when it is fetched (up to bit 31; 32- and 64-bit operands are used through
/// W or X registers and need none of it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ext {
    Any,
    Zero,
    Sign,
}

/// Where an operand lives, with its address computed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A guest general register or part of one: host register, lowest bit, size in bytes.
    Reg {
        x: X,
        lsb: u32,
        bytes: u32,
    },
    Mem {
        at: Addr,
        bytes: u32,
    },
    Imm {
        value: u64,
        bytes: u32,
    },
}

impl Place {
    pub fn bytes(self) -> u32 {
        match self {
            Place::Reg { bytes, .. } | Place::Mem { bytes, .. } | Place::Imm { bytes, .. } => bytes,
        }
    }

    pub fn is_mem(self) -> bool {
        matches!(self, Place::Mem { .. })
    }
}

/// Where AF comes from, given the result `r` PF comes from: AF = bit 4 of `a ^ b ^ r`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfFrom {
    /// `a ^ b` is this constant: logic operations (undefined, here 0), `a` added to itself.
    Const(u8),
    /// `r = a + b`.
    AddImm(u64),
    AddReg(X),
    /// `r = a - b`.
    SubImm(u64),
    SubReg(X),
    /// `a ^ b` has been put into [`AF`] already.
    Stored,
}

/// Where PF and AF are. Most results are never asked for either, so they are left where the instruction put its result until that register is
/// about to change or an edge needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pa {
    /// In [`PF`] and [`AF`].
    Stored,
    Lazy {
        r: X,
        af: AfFrom,
        /// What was added to `r` since: the stack pointer goes on moving.
        bias: i32,
    },
}

/// The static state of the flags at a point of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FlagState {
    form: FlagForm,
    pa: Pa,
}

const CANONICAL: FlagState = FlagState { form: FlagForm::Direct, pa: Pa::Stored };

/// See the file's head.
pub struct Cx<'a> {
    pub m: Masm,
    pub region: &'a Region,
    pub facts: &'a Facts,
    pub host: HostFeatures,
    pub ordering: Ordering,
    /// One instruction, run alone: one that repeats leaves after each step, for the trap that TF asks for then (SDM vol. 2, REP).
    pub alone: bool,
    /// Some thread has unmasked SSE exceptions (see `traps`).
    pub fp_traps: bool,
    /// Some thread flushes denormals by FPCR.FZ: what picks an operand by a comparison flushes it too.
    pub flushes: bool,
    /// Index of the instruction being lowered.
    pub at: usize,
    flags: FlagState,
    labels: Vec<Option<Label>>,
    cold: Vec<Cold<'a>>,
    /// The exits, landings and marks so far.
    result: Translation,
    /// Exits by number whose [`xrun_runtime::engine::Exit::inside`] is where the label gets bound.
    inside: Vec<(usize, Label)>,
    pub(crate) tmp: u8,
    short_of_scratch: bool,
    /// While an instruction is lowered that reads the second register for the first.
    renamed: Option<(X, X)>,
    vtmp: u8,
    /// Scratch registers that hold MMX registers during the current instruction.
    pub(crate) mm: [Option<V>; 8],
    /// Instructions after the current one that its lowering has covered.
    pub(crate) skip: usize,
    /// Inside a run: the address of its first instruction, to which a fault goes back (see `sse::run`).
    replay: Option<u64>,
    /// Inside a run: where its instructions follow one by one, and whether anything goes there yet.
    slow: Option<(Label, bool)>,
    /// Registers known to be zero above their low lane before each instruction; empty when nothing is.
    zeros: Vec<Zero>,
    /// Addresses `register + displacement mod 16` known to be multiples of 16 at this point.
    pub(super) aligned: Vec<(X, u8)>,
    /// The instruction whose SSE exceptions are still to be looked for (see `traps`).
    watch: Option<traps::Watch>,
    /// Entries of the routines that set NaN results right, once needed (see `sse::float`).
    pub(super) nan_routines: [Option<Label>; 8],
    /// Entries of the routines for x87 arithmetic, once needed (see `x87::fast`).
    pub(super) x87_routines: [Option<Label>; 3],
    /// What is known of the upper halves of YMM registers at this point.
    uppers: upper::Uppers,
    homes: upper::Homes,
    /// The current instruction needs the scratch vector registers that are homes.
    homes_off: bool,
    /// Code that was put off is being emitted.
    out_of_line: bool,
}

/// Size class of an operand of `bytes`: X for 8, else W.
pub fn sz(bytes: u32) -> Sz {
    if bytes == 8 { Sz::X } else { Sz::W }
}

/// What [`gpr`] says, by register number; a size of 0 for what is no general register.
static GPRS: [(u8, u8, u8); 256] = {
    let mut t = [(0, 0, 0); 256];
    let mut n = 0;
    while n < 16 {
        // Register numbers: AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8L and so on, then sixteen of each larger size.
        let byte = Register::AL as usize + if n < 4 { n } else { n + 4 };
        t[byte] = (abi::GPR[n], 0, 1);
        t[Register::AX as usize + n] = (abi::GPR[n], 0, 2);
        t[Register::EAX as usize + n] = (abi::GPR[n], 0, 4);
        t[Register::RAX as usize + n] = (abi::GPR[n], 0, 8);
        if n < 4 {
            t[Register::AH as usize + n] = (abi::GPR[n], 8, 1);
        }
        n += 1;
    }
    t
};

/// The host register of a guest register, its lowest bit there and its size in bytes. `None` for anything but general registers.
pub fn gpr(r: Register) -> Option<(X, u32, u32)> {
    let (x, lsb, bytes) = GPRS[r as usize & 255];
    (bytes != 0).then_some((X(x), u32::from(lsb), u32::from(bytes)))
}

/// The pinned host register of guest general register `n` (x86 number).
pub fn pinned(n: usize) -> X {
    X(abi::GPR[n])
}

/// Memory that one region's lowering leaves to the next.
#[derive(Default)]
pub struct Buffers {
    m: Masm,
    labels: Vec<Option<Label>>,
    inside: Vec<(usize, Label)>,
    result: Translation,
}

impl Buffers {
    /// Takes the memory of a translation that is not used any more.
    pub fn reuse(&mut self, mut t: Translation) {
        self.m.reuse(std::mem::take(&mut t.words));
        t.entries.clear();
        t.landings.clear();
        t.exits.clear();
        t.marks.clear();
        t.depends.clear();
        self.result = t;
    }
}

impl<'a> Cx<'a> {
    pub fn new(
        region: &'a Region,
        facts: &'a Facts,
        host: HostFeatures,
        ordering: Ordering,
        memory: &mut Buffers,
    ) -> Cx<'a> {
        let mut b = std::mem::take(memory);
        b.labels.clear();
        b.labels.resize(region.insts.len(), None);
        b.inside.clear();
        Cx {
            m: b.m,
            region,
            facts,
            host,
            ordering,
            alone: false,
            fp_traps: false,
            flushes: false,
            at: 0,
            flags: CANONICAL,
            labels: b.labels,
            cold: Vec::with_capacity(16),
            result: b.result,
            inside: b.inside,
            tmp: 0,
            short_of_scratch: false,
            renamed: None,
            vtmp: 0,
            mm: [None; 8],
            skip: 0,
            replay: None,
            slow: None,
            zeros: Vec::new(),
            aligned: Vec::new(),
            watch: None,
            nan_routines: [None; 8],
            x87_routines: [None; 3],
            uppers: upper::Uppers::default(),
            homes: upper::Homes::new(&facts.uppers),
            homes_off: false,
            out_of_line: false,
        }
    }

    /// The words with their tables, but for what the region and the facts know themselves; leaves its memory in `memory`. Nothing when a label is
    /// out of reach: the region was too large for its branches. One instruction always fits.
    pub(crate) fn finish(mut self, memory: &mut Buffers) -> Translation {
        let mut t = std::mem::take(&mut self.result);
        for (at, label) in &self.inside {
            t.exits[*at].inside = self.m.bound(*label);
        }
        match self.m.finish() {
            Ok(words) => t.words = words,
            Err(_) => t = Translation::default(),
        }
        *memory = Buffers { m: self.m, labels: self.labels, inside: self.inside, result: Translation::default() };
        t
    }

    /// Emits by `f`. When that fails nothing of it is left but the flags' change to canonical form at a join.
    pub(crate) fn lower(&mut self, f: impl Fn(&mut Self) -> super::Lowered) -> super::Lowered {
        let done = self.try_lower(&f);
        if self.short_of_scratch && self.leave_homes() {
            return self.try_lower(&f);
        }
        done
    }

    fn try_lower(&mut self, f: &impl Fn(&mut Self) -> super::Lowered) -> super::Lowered {
        let (word, cold, flags, marks) = (self.m.here(), self.cold.len(), self.flags, self.result.marks.len());
        let (at, tmp, uppers, labels) = (self.at, self.tmp, self.uppers, self.m.labels());
        let aligned = self.aligned.len();
        self.short_of_scratch = false;
        self.watch = None;
        let mut done = f(self);
        if self.short_of_scratch {
            done = Err(Decline::Unsupported("too few scratch registers"));
        }
        if done.is_err() {
            self.m.rewind(word);
            self.cold.truncate(cold);
            self.result.marks.truncate(marks);
            self.aligned.truncate(aligned);
            self.flags = flags;
            (self.at, self.tmp, self.uppers) = (at, tmp, uppers);
            for routine in self.nan_routines.iter_mut().chain(&mut self.x87_routines) {
                *routine = routine.filter(|l| l.is_of(labels));
            }
            self.vtmp = 0;
            self.mm = [None; 8];
        }
        done
    }

    /// Lowers the instruction just opened as the facts mark it, alone or with the next. False when it is to be lowered by its row.
    pub(crate) fn lower_fused(&mut self) -> bool {
        use super::fused;
        let at = self.at;
        let i = self.region.insts[at].i;
        let next = self.region.insts.get(at + 1).map(|x| x.i).unwrap_or_default();
        let done = match self.facts.fuse[at] {
            Fuse::Alone | Fuse::Done => return false,
            Fuse::Deferred => return true,
            Fuse::Reads(to, from) => {
                // A copy that was left out, so this must succeed: the rows concerned decline nothing.
                self.renamed = gpr(to).zip(gpr(from)).map(|(to, from)| (to.0, from.0));
                return false;
            }
            Fuse::WithBranch => self.lower(|cx| fused::with_branch(cx, &i, &next)),
            Fuse::SetWiden => self.lower(|cx| fused::set_widen(cx, &i, &next)),
            Fuse::Pair => self.lower(|cx| {
                cx.at += 1;
                cx.keep_pa();
                cx.at -= 1;
                fused::pair(cx, &i, &next)
            }),
        };
        if done.is_ok() {
            self.keep_aligned(at + 1);
            self.leave_run(at + 1);
        }
        done.is_ok()
    }

    /// After instruction `at`: leaves the region if control goes on outside it.
    pub(crate) fn leave_run(&mut self, at: usize) {
        self.leave_run_of(at, &self.region.insts[at]);
    }

    /// The same, after instruction `at`, which is `x`.
    #[inline]
    pub(crate) fn leave_run_of(&mut self, at: usize, x: &Inst) {
        if x.ends_run && matches!(x.flow, FlowControl::Next | FlowControl::ConditionalBranch) {
            self.at_end(x.i.next_ip(), self.facts.live_out[at]);
        }
    }

    /// Opens instruction `at`, which is `x`: binds its label, brings flags to canonical form at joins, frees scratch registers, sets the mark.
    #[inline]
    pub(crate) fn begin(&mut self, at: usize, x: &Inst) {
        if x.join {
            self.join(at);
        }
        self.open_at(at, x.i.ip());
    }

    #[inline(never)]
    fn join(&mut self, at: usize) {
        self.free_scratch(at);
        self.canonical(self.facts.live_in[at]);
        let reached = at == 0 || !self.region.insts[at - 1].ends_run;
        self.join_uppers(reached);
        let l = self.label_of(at);
        self.m.bind(l);
    }

    /// As [`Cx::begin`], at an instruction nothing jumps to, or once more at one that was begun already.
    fn reopen(&mut self, at: usize) {
        self.open_at(at, self.region.insts[at].i.ip());
    }

    #[inline]
    fn open_at(&mut self, at: usize, ip: u64) {
        self.free_scratch(at);
        self.uppers.word = false;
        if !self.aligned.is_empty() {
            self.keep_aligned(at);
        }
        if self.flags.pa != Pa::Stored {
            self.keep_pa();
        }
        self.mark_at(ip);
    }

    /// Goes on to instruction `at` with all scratch registers.
    #[inline]
    fn free_scratch(&mut self, at: usize) {
        self.at = at;
        // MMX registers are held in scratch vector registers.
        if self.vtmp != 0 {
            self.mm = [None; 8];
            self.vtmp = 0;
        }
        self.tmp = 0;
        self.homes_off = false;
        self.renamed = None;
    }

    /// Forgets what was known of addresses whose registers the instruction before may have changed.
    fn keep_aligned(&mut self, at: usize) {
        if self.aligned.is_empty() {
            return;
        }
        let Some(prev) = at.checked_sub(1).map(|p| &self.region.insts[p]).filter(|p| !p.ends_run) else {
            return self.aligned.clear();
        };
        let calls = matches!(prev.flow, FlowControl::Call | FlowControl::IndirectCall);
        if self.region.insts[at].join || calls {
            return self.aligned.clear();
        }
        let written = crate::guest::written_gprs(&prev.i);
        self.aligned.retain(|(x, _)| written & (1 << x.0) == 0);
    }

    /// Host words from here on belong to the current instruction with flags in the current form.
    pub fn mark(&mut self) {
        self.mark_at(self.region.insts[self.at].i.ip());
    }

    #[inline]
    fn mark_at(&mut self, ip: u64) {
        let mark = match self.replay {
            None => Mark { word: self.m.here(), guest: ip, flags: self.flags.form, replay: false },
            Some(guest) => Mark { word: self.m.here(), guest, flags: FlagForm::Direct, replay: true },
        };
        self.result.marks.push(mark);
    }

    /// To be called before each guest memory access: if the form of the flags changed since the last mark, a fault here must know.
    pub(crate) fn access(&mut self) {
        if self.replay.is_none() && self.result.marks.last().is_some_and(|m| m.flags != self.flags.form) {
            self.mark();
        }
    }

    /// From here to [`Cx::end_run`] faults go back to the current instruction. NZCV must be free. Gives the label of the run's instructions one by one.
    pub(super) fn enter_run(&mut self) -> Label {
        self.replay = Some(self.region.insts[self.at].i.ip());
        self.mark();
        let slow = self.m.label();
        self.slow = Some((slow, false));
        slow
    }

    /// Inside a run: where to go for its instructions one by one.
    pub(super) fn slow_run(&mut self) -> Option<Label> {
        let (label, used) = self.slow.as_mut()?;
        *used = true;
        Some(*label)
    }

    /// Goes on to the operands of the instruction at `at` inside a run.
    pub(super) fn step_run(&mut self, at: usize) {
        self.at = at;
        self.tmp = 0;
    }

    /// Scratch vector registers from this one on are free.
    pub(super) fn vtmps_from(&mut self, n: u8) {
        self.vtmp = n;
    }

    /// Ends a run that began at `start` and covers all before `end`, but for the instructions on general registers in between: they follow now.
    /// `slow`: something goes to where it is done one by one.
    pub(super) fn end_run(&mut self, start: usize, end: usize, slow: bool) {
        self.replay = None;
        let (label, used) = self.slow.take().unwrap_or_else(|| (self.m.label(), false));
        let flags = self.flags;
        for k in start + 1..end {
            if crate::facts::fuse::is_simple(&self.region.insts[k].i) {
                self.reopen(k);
                crate::lower_opened(self, k);
            } else {
                self.keep_aligned(k);
            }
        }
        if slow || used {
            let back = self.m.label();
            self.m.bind(back);
            let after = self.flags.form;
            self.cold_at(label, start, flags, move |cx| {
                let uppers = cx.uppers;
                cx.aligned.clear();
                for k in start..end {
                    cx.reopen(k);
                    crate::lower_opened(cx, k);
                }
                // The last one has left the region where that ends behind it.
                if cx.region.insts[end - 1].ends_run {
                    return;
                }
                debug_assert_eq!(cx.flags.form, after);
                cx.restore_uppers(uppers);
                cx.m.b(back);
            });
        }
        self.at = end - 1;
        self.skip = end - start - 1;
    }

    /// What is known of the upper parts of XMM registers before instruction `at`.
    pub(super) fn zero(&self, at: usize) -> Zero {
        self.zeros.get(at).copied().unwrap_or_default()
    }

    /// Tests that the registers in `zeros[0]` are zero above their low lanes, and takes the facts for true from here on; otherwise to the label
    /// returned, for [`Cx::start_again`]. Changes no guest state and no flags.
    pub(crate) fn assume_zeros(&mut self, zeros: Vec<Zero>) -> Label {
        self.mark();
        let Zero { above64, above32 } = zeros[0];
        self.zeros = zeros;
        let (x, y) = (self.tmp(), self.tmp());
        let mut first = true;
        for (set, low) in [(above64 & !above32, false), (above32, true)] {
            let mut regs = (0..16u8).filter(|r| set & 1 << r != 0).map(|r| V(abi::xmm(r)));
            let Some(mut v) = regs.next() else { continue };
            for w in regs {
                self.m.orr_v(V(0), v, w);
                v = V(0);
            }
            let to = if first { x } else { y };
            self.m.umov(3, to, v, 1);
            if !first {
                self.m.orr_lsl(Sz::X, x, x, y, 0);
            }
            first = false;
            if low {
                self.m.umov(3, y, v, 0);
                self.m.lsr(Sz::X, y, y, 32);
                self.m.orr_lsl(Sz::X, x, x, y, 0);
            }
        }
        let otherwise = self.m.label();
        self.m.cbnz(Sz::X, x, otherwise);
        otherwise
    }

    /// The region once more from its first instruction, with nothing known of upper parts.
    pub(crate) fn start_again(&mut self, label: Label) {
        self.m.bind(label);
        self.at = 0;
        self.flags = CANONICAL;
        self.labels.fill(None);
        self.zeros.clear();
        self.aligned.clear();
        self.forget_uppers();
        self.out_of_line = false;
    }

    fn label_of(&mut self, at: usize) -> Label {
        if let Some(l) = self.labels[at] {
            return l;
        }
        let l = self.m.label();
        self.labels[at] = Some(l);
        l
    }

    // ---- scratch -------------------------------------------------------------------------------------------------

    /// A fresh scratch register, valid to the end of this guest instruction. There are ten; an instruction that asks for more is not lowered.
    pub fn tmp(&mut self) -> X {
        let Some(&x) = abi::SCRATCH.get(usize::from(self.tmp)) else {
            self.short_of_scratch = true;
            return X(abi::SCRATCH[0]);
        };
        self.tmp += 1;
        if X(x) == upper::WORD {
            self.uppers.word = false;
        }
        X(x)
    }

    /// Two fresh scratch registers, adjacent and the first one even, as CASP wants them.
    pub fn tmp_pair(&mut self) -> (X, X) {
        self.tmp = (self.tmp + 1) & !1;
        (self.tmp(), self.tmp())
    }

    /// A fresh scratch vector register, valid to the end of this guest instruction. There are sixteen.
    pub fn vtmp(&mut self) -> V {
        let Some(v) = self.scratch_vector(self.vtmp) else {
            self.short_of_scratch = true;
            return V(abi::VSCRATCH[0]);
        };
        self.vtmp += 1;
        v
    }

    /// To be called before scratch registers are used in which NaNs are set right: the instruction must have taken none of them.
    pub fn keep_free_of_fixing(&mut self) {
        self.short_of_scratch |= self.vtmp > self.free_of_fixing();
    }

    /// Before the first instruction: what the region's loop counts on.
    pub(crate) fn open(&mut self) {
        if !self.facts.uppers.is_empty() {
            self.mark();
            self.join_uppers(true);
        }
    }

    /// Two fresh scratch vector registers, adjacent, as TBL wants them.
    pub fn vtmp_pair(&mut self) -> (V, V) {
        loop {
            let a = self.vtmp();
            if self.short_of_scratch || self.scratch_vector(self.vtmp) == Some(V(a.0 + 1)) {
                return (a, self.vtmp());
            }
        }
    }

    /// Emits by `f`, whose scratch vector registers are free again afterwards.
    pub fn with_vtmps(&mut self, f: impl FnOnce(&mut Self)) {
        let kept = self.vtmp;
        f(self);
        self.vtmp = kept;
    }

    // ---- operands ------------------------------------------------------------------------------------------------

    /// Operand `n` of `i`. For memory this computes the address; it must be called before anything the address depends on is written.
    pub fn place(&mut self, i: &Instruction, n: u32) -> Result<Place, Decline> {
        match i.op_kind(n) {
            OpKind::Register => {
                let (x, lsb, bytes) = gpr(i.op_register(n)).ok_or(Decline::Unsupported("register class"))?;
                Ok(Place::Reg { x, lsb, bytes })
            }
            OpKind::Memory => {
                let bytes = i.memory_size().size() as u32;
                let at = self.addr(i, bytes);
                Ok(Place::Mem { at, bytes })
            }
            k if is_immediate(k) => {
                let bytes = self.op0_bytes(i);
                let value = i.immediate(n) & mask(bytes);
                Ok(Place::Imm { value, bytes })
            }
            _ => Err(Decline::Unsupported("operand kind")),
        }
    }

    fn op0_bytes(&self, i: &Instruction) -> u32 {
        match i.op_kind(0) {
            OpKind::Register => i.op_register(0).size() as u32,
            OpKind::Memory => i.memory_size().size() as u32,
            _ => 8,
        }
    }

    /// The operand's value in a register. 32- and 64-bit registers come back as the pinned register itself; everything else in a scratch.
    pub fn get(&mut self, p: Place, ext: Ext) -> X {
        match p {
            Place::Reg { x, lsb: 0, bytes: 4 | 8 } => match self.renamed {
                Some((to, from)) if x == to => from,
                _ => x,
            },
            Place::Reg { x, lsb: 0, .. } if ext == Ext::Any => x,
            Place::Reg { x, lsb, bytes } => {
                let t = self.tmp();
                match ext {
                    Ext::Sign => self.m.sbfx(Sz::W, t, x, lsb, bytes * 8),
                    _ => self.m.ubfx(Sz::W, t, x, lsb, bytes * 8),
                }
                t
            }
            Place::Mem { at, bytes } => {
                let t = self.tmp();
                match ext {
                    Ext::Sign if bytes < 4 => self.load_signed(bytes, Sz::W, t, at),
                    _ => self.load(bytes, t, at),
                }
                t
            }
            Place::Imm { value: 0, .. } => ZR,
            Place::Imm { value, bytes } => {
                let t = self.tmp();
                let v = match (ext, bytes) {
                    (Ext::Sign, 1) => value as i8 as u32 as u64,
                    (Ext::Sign, 2) => value as i16 as u32 as u64,
                    _ => value,
                };
                self.m.mov_imm(t, v);
                t
            }
        }
    }

    /// A register a result for `p` may be computed into: the pinned register for whole 32/64-bit registers, else a scratch. [`Cx::set`] finishes the job.
    pub fn target(&mut self, p: Place) -> X {
        match p {
            Place::Reg { x, lsb: 0, bytes: 4 | 8 } => x,
            _ => self.tmp(),
        }
    }

    /// Writes `v` to the operand: merges 8- and 16-bit parts, zero-extends 32 bits (SDM vol. 1, 3.4.1.1), or stores. When `v` is the pinned
    /// register itself it was written by a W or X instruction already and nothing is emitted.
    pub fn set(&mut self, p: Place, v: X) {
        match p {
            Place::Reg { x, bytes: 8, .. } => {
                if x != v {
                    self.m.mov(Sz::X, x, v);
                }
            }
            Place::Reg { x, bytes: 4, .. } => {
                if x != v {
                    self.m.mov(Sz::W, x, v);
                }
            }
            Place::Reg { x, lsb, bytes } => self.m.bfi(Sz::X, x, v, lsb, bytes * 8),
            Place::Mem { at, bytes } => self.store(bytes, v, at),
            Place::Imm { .. } => {}
        }
    }
}

/// The mask of an operand of `bytes`.
pub fn mask(bytes: u32) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 }
}

fn is_immediate(k: OpKind) -> bool {
    matches!(
        k,
        OpKind::Immediate8
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate32to64
            | OpKind::Immediate64
            | OpKind::Immediate8_2nd
    )
}

//! Runs of SSE instructions and their VEX forms of 128 bits, lowered together on hosts without FEAT_AFP.
//!
//! Alone, a floating-point operation there is four words or five: the operation into a scratch register, two or three to see whether a NaN came
//! out (see [`super::float`]), one to put the result in its place. In a run results are values with names of their own. Copies of registers
//! cost nothing. A value that another one is computed from needs no test (NaN in, NaN out), and the others are tested together.
//! XMM registers keep what they held until the run's end, as far as the run reads it; what it does not read may be overwritten at once.
//!
//! Where a test fires, or an address is not aligned, everything the run began with is still there: the run's instructions follow once more in cold
//! code, one after the other by their own rows. The upper halves that VEX forms clear are cleared at the end.
//!
//! Simple instructions on general registers may stand between: they are lowered after the run. So the run's own addresses must not depend on them.
//!
//! Loads inside a run may fault when results before them are not yet in their registers. Their marks say `replay`: the runtime goes
//! back to the run's first instruction, whose state is intact, and on from there one instruction at a time (see
//! `xrun_runtime::engine::Mark`). So a run holds no store and changes no general register and no flag.
//!
//! Why the results are tested and not FPSR.IOC, which every NaN that differs also raises and which would be two words for any number of results:
//! reading FPSR waits for all older floating-point work, once a loop, on the cores this is for.

use crate::emit::fp::{Fp, Shape};
use crate::emit::simd::Ar;
use crate::emit::{Cond, Masm, V};
use crate::facts::zero::Zero;
use crate::facts::{Fuse, fuse};
use crate::isa::avx::fma;
use crate::isa::cx::{Cx, sz};
use crate::isa::sse::Width;
use crate::isa::sse::float::{FpOp, arithmetic, pick};
use crate::isa::sse::lanes::{self, BitOp, LaneOp, Shift};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use Fp::{D, S};
use Shape::{Packed, Scalar};

/// Most scratch registers for values. Two more are for what one value needs on the way, and the ones above those are the NaN tests'.
const SCRATCH: usize = 9;
/// Values 0-15 are the XMM registers as they were; later ones are nodes.
const FIRST: u8 = 16;
/// Most nodes.
const NODES: usize = 48;
/// Most instructions in one run: the runtime replays this many.
const LONGEST: usize = xrun_runtime::engine::REPLAY_MOST;

type ShiftOp = fn(&mut Masm, Ar, V, V, u32);

#[derive(Clone, Copy)]
enum Kind {
    /// The memory operand of this many bytes; aligned if so.
    Load(u32, bool),
    Zero,
    Binary(FpOp, Shape, Fp, u8, u8),
    Sqrt(Shape, Fp, u8),
    /// Smaller or (`true`) larger.
    Pick(Shape, Fp, u8, u8, bool),
    /// Of multiplicand, multiplier and addend, scalars.
    Fused(fma::Kind, Fp, [u8; 3]),
    Convert(Fp, u8),
    /// From the general register or memory that is the last operand.
    Int(Fp),
    Lanes(LaneOp, Ar, u8, u8),
    /// By a constant.
    Shift(ShiftOp, Ar, u8, u32),
    /// Products of the even lanes of 32 bits.
    MulEven(LaneOp, u8, u8),
    Bits(BitOp, u8, u8),
    /// Four lanes of one value.
    Shuffle(u8, u8),
}

impl Kind {
    /// The values it is made of.
    fn reads(self) -> [Option<u8>; 3] {
        match self {
            Kind::Binary(_, _, _, a, b)
            | Kind::Pick(_, _, a, b, _)
            | Kind::Lanes(_, _, a, b)
            | Kind::MulEven(_, a, b)
            | Kind::Bits(_, a, b) => [Some(a), Some(b), None],
            Kind::Fused(_, _, from) => from.map(Some),
            Kind::Sqrt(_, _, a) | Kind::Convert(_, a) | Kind::Shuffle(_, a) | Kind::Shift(_, _, a, _) => {
                [Some(a), None, None]
            }
            Kind::Load(..) | Kind::Zero | Kind::Int(_) => [None; 3],
        }
    }
}

#[derive(Clone, Copy)]
struct Node {
    kind: Kind,
    /// Its instruction in the region.
    at: usize,
    /// Nodes, as bits, that are NaN only if this one is.
    below: u64,
    /// It may be a NaN other than x86's, in these lanes.
    doubt: Option<(Shape, Fp)>,
}

/// Where the lanes above the low one of a register are from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upper {
    Keep,
    Zero,
    Copy(u8),
    /// From the value itself.
    Whole,
}

/// What an XMM register will hold.
#[derive(Clone, Copy)]
struct Now {
    value: u8,
    upper: Upper,
    /// The precision of the low lane; `None` where the value may be read at any.
    fp: Option<Fp>,
}

#[derive(Clone, Copy, Default)]
struct State {
    now: [Option<Now>; 16],
    /// The instruction that first wrote each register.
    first: [usize; 16],
    /// Nodes to be tested though they end in no register.
    forced: u64,
    /// Host registers of the general registers that instructions in between change.
    written: u32,
    /// Copies of registers.
    copies: usize,
    /// Registers whose upper halves VEX forms clear.
    cleared: u16,
}

struct Run {
    nodes: Vec<Node>,
    s: State,
    zero: Zero,
    /// Registers for values that end nowhere else at once: the first so many.
    scratch: [V; SCRATCH],
    room: usize,
}

fn number(i: &Instruction, op: u32) -> Option<u8> {
    (i.op_kind(op) == OpKind::Register).then(|| i.op_register(op)).filter(|r| r.is_xmm()).map(|r| r.number() as u8)
}

/// The register of the first source, whose lanes a scalar result keeps above its own: in legacy encodings `d`, the destination.
fn first(i: &Instruction, d: u8) -> Option<u8> {
    if Width::of(i) == Width::Legacy { Some(d) } else { number(i, 1) }
}

/// The operand that is the second source, or the only one: the last that is no immediate.
fn second(i: &Instruction) -> u32 {
    let last = i.op_count() - 1;
    if i.op_kind(last) == OpKind::Immediate8 { last - 1 } else { last }
}

/// One word for two registers of lanes; `true`: with its sources the other way round.
fn lanewise(i: &Instruction) -> Option<(LaneOp, Ar, bool)> {
    use Mnemonic::*;
    if let Some((op, ar)) = lanes::of(i.mnemonic()) {
        return Some((op, ar, false));
    }
    Some(match i.mnemonic() {
        Movlhps | Vmovlhps => (Masm::zip1, Ar::D2, false),
        Movhlps | Vmovhlps => (Masm::zip2, Ar::D2, true),
        Shufps | Vshufps => match i.immediate8() {
            0x88 => (Masm::uzp1, Ar::S4, false),
            0xdd => (Masm::uzp2, Ar::S4, false),
            0x44 => (Masm::zip1, Ar::D2, false),
            0xee => (Masm::zip2, Ar::D2, false),
            _ => return None,
        },
        Shufpd | Vshufpd => match i.immediate8() & 3 {
            0 => (Masm::zip1, Ar::D2, false),
            3 => (Masm::zip2, Ar::D2, false),
            _ => return None,
        },
        _ => return None,
    })
}

/// One word for a shift of lanes by a constant that is neither zero nor too large.
fn shift(i: &Instruction) -> Option<(ShiftOp, Ar, u32)> {
    let (kind, ar) = lanes::shift(i.mnemonic())?;
    let op: ShiftOp = match kind {
        Shift::Left => Masm::shl_v,
        Shift::Right => Masm::ushr,
        Shift::Arithmetic => Masm::sshr,
    };
    let by = (i.op_kind(i.op_count() - 1) == OpKind::Immediate8).then(|| u32::from(i.immediate8()))?;
    (by > 0 && by < ar.lane_bits()).then_some((op, ar, by))
}

impl Run {
    /// Adds the instruction at `at`; `None` when it cannot be part of this run.
    fn add(&mut self, i: &Instruction, at: usize) -> Option<()> {
        use Mnemonic as M;
        let d = number(i, 0)?;
        if self.s.first[usize::from(d)] == 0 {
            self.s.first[usize::from(d)] = at + 1;
        }
        if Width::of(i) != Width::Legacy {
            self.s.cleared |= 1 << d;
        }
        if let Some((op, shape, fp)) = arithmetic(i.mnemonic()) {
            let first = first(i, d)?;
            let a = self.read(first, shape, fp)?;
            let b = self.source(i, at, shape, fp)?;
            let below = self.under(a, shape, fp) | self.under(b, shape, fp);
            let k = self.node(Kind::Binary(op, shape, fp, a, b), at, below, Some((shape, fp)))?;
            return self.write(d, first, k, shape, fp);
        }
        if let Some((kind, order, fp)) = fma::scalar(i.mnemonic()) {
            let from =
                [self.read(d, Scalar, fp)?, self.read(number(i, 1)?, Scalar, fp)?, self.source(i, at, Scalar, fp)?];
            let from = order.map(|n| from[n]);
            let below = from.iter().fold(0, |all, &v| all | self.under(v, Scalar, fp));
            let k = self.node(Kind::Fused(kind, fp, from), at, below, Some((Scalar, fp)))?;
            return self.write(d, d, k, Scalar, fp);
        }
        if let Some((shape, fp, max)) = pick(i.mnemonic()) {
            let first = first(i, d)?;
            let a = self.read(first, shape, fp)?;
            let b = self.source(i, at, shape, fp)?;
            // A NaN result is the second operand; one in the first is dropped.
            let below = self.under(b, shape, fp);
            let k = self.node(Kind::Pick(shape, fp, a, b, max), at, below, self.doubt(b).map(|_| (shape, fp)))?;
            return self.write(d, first, k, shape, fp);
        }
        if let Some((op, swapped)) = lanes::bits(i.mnemonic()) {
            let first = first(i, d)?;
            if number(i, second(i)) == Some(first)
                && matches!(i.mnemonic(), M::Pxor | M::Xorps | M::Xorpd | M::Vpxor | M::Vxorps | M::Vxorpd)
            {
                let k = self.node(Kind::Zero, at, 0, None)?;
                return self.set(d, Now { value: k, upper: Upper::Zero, fp: None });
            }
            let a = self.whole(first)?;
            let b = self.source(i, at, Packed, S)?;
            self.force(a);
            self.force(b);
            let (x, y) = if swapped { (b, a) } else { (a, b) };
            let k = self.node(Kind::Bits(op, x, y), at, 0, None)?;
            let and = matches!(i.mnemonic(), M::Andps | M::Andpd | M::Pand | M::Vandps | M::Vandpd | M::Vpand);
            let n = self.now(first).filter(|n| n.upper == Upper::Zero && and);
            return self.set(d, n.map_or(Now { value: k, upper: Upper::Whole, fp: None }, |n| Now { value: k, ..n }));
        }
        if let Some((op, ar, swapped)) = lanewise(i) {
            let a = self.whole(first(i, d)?)?;
            let b = self.source(i, at, Packed, S)?;
            self.force(a);
            self.force(b);
            let (x, y) = if swapped { (b, a) } else { (a, b) };
            let k = self.node(Kind::Lanes(op, ar, x, y), at, 0, None)?;
            return self.set(d, Now { value: k, upper: Upper::Whole, fp: None });
        }
        if let Some((op, ar, by)) = shift(i) {
            let a = self.whole(first(i, d)?)?;
            self.force(a);
            let k = self.node(Kind::Shift(op, ar, a, by), at, 0, None)?;
            return self.set(d, Now { value: k, upper: Upper::Whole, fp: None });
        }
        match i.mnemonic() {
            M::Pmuludq | M::Pmuldq | M::Vpmuludq | M::Vpmuldq => {
                let unsigned = matches!(i.mnemonic(), M::Pmuludq | M::Vpmuludq);
                let op: LaneOp = if unsigned { Masm::umull_v } else { Masm::smull_v };
                let a = self.whole(first(i, d)?)?;
                let b = self.source(i, at, Packed, S)?;
                self.force(a);
                self.force(b);
                let k = self.node(Kind::MulEven(op, a, b), at, 0, None)?;
                self.set(d, Now { value: k, upper: Upper::Whole, fp: None })
            }
            M::Sqrtps | M::Vsqrtps => self.sqrt(d, d, Packed, S, i, at),
            M::Sqrtpd | M::Vsqrtpd => self.sqrt(d, d, Packed, D, i, at),
            M::Sqrtss | M::Vsqrtss => self.sqrt(d, first(i, d)?, Scalar, S, i, at),
            M::Sqrtsd | M::Vsqrtsd => self.sqrt(d, first(i, d)?, Scalar, D, i, at),
            M::Cvtss2sd | M::Cvtsd2ss | M::Vcvtss2sd | M::Vcvtsd2ss => {
                let widens = matches!(i.mnemonic(), M::Cvtss2sd | M::Vcvtss2sd);
                let (from, to) = if widens { (S, D) } else { (D, S) };
                let a = self.source(i, at, Scalar, from)?;
                let doubt = self.doubt(a).map(|_| (Scalar, to));
                let k = self.node(Kind::Convert(from, a), at, self.under(a, Scalar, from), doubt)?;
                self.write(d, first(i, d)?, k, Scalar, to)
            }
            M::Cvtsi2sd | M::Cvtsi2ss | M::Vcvtsi2sd | M::Vcvtsi2ss => {
                let fp = if matches!(i.mnemonic(), M::Cvtsi2sd | M::Vcvtsi2sd) { D } else { S };
                let k = self.node(Kind::Int(fp), at, 0, None)?;
                self.write(d, first(i, d)?, k, Scalar, fp)
            }
            M::Movsd | M::Movss | M::Movq | M::Vmovsd | M::Vmovss | M::Vmovq if i.op1_kind() == OpKind::Memory => {
                let fp = if matches!(i.mnemonic(), M::Movss | M::Vmovss) { S } else { D };
                let k = self.node(Kind::Load(1 << fp.size(), false), at, 0, None)?;
                self.set(d, Now { value: k, upper: Upper::Zero, fp: Some(fp) })
            }
            M::Movaps | M::Movapd | M::Movdqa | M::Vmovaps | M::Vmovapd | M::Vmovdqa => self.copy(d, true, i, at),
            M::Movups | M::Movupd | M::Movdqu | M::Vmovups | M::Vmovupd | M::Vmovdqu => self.copy(d, false, i, at),
            M::Pshufd | M::Vpshufd => {
                let a = self.source(i, at, Packed, S)?;
                self.force(a);
                self.shuffle(d, a, i, at)
            }
            M::Shufps | M::Vshufps => {
                let (a, b) = (self.whole(first(i, d)?)?, self.whole(number(i, second(i))?)?);
                if a != b {
                    return None;
                }
                self.force(a);
                self.shuffle(d, a, i, at)
            }
            _ => None,
        }
    }

    fn sqrt(&mut self, d: u8, first: u8, shape: Shape, fp: Fp, i: &Instruction, at: usize) -> Option<()> {
        let a = self.source(i, at, shape, fp)?;
        let k = self.node(Kind::Sqrt(shape, fp, a), at, self.under(a, shape, fp), Some((shape, fp)))?;
        self.write(d, first, k, shape, fp)
    }

    /// All of a register; `aligned`: memory must be at a multiple of 16.
    fn copy(&mut self, d: u8, aligned: bool, i: &Instruction, at: usize) -> Option<()> {
        if i.op1_kind() == OpKind::Memory {
            let k = self.node(Kind::Load(16, aligned), at, 0, None)?;
            return self.set(d, Now { value: k, upper: Upper::Whole, fp: None });
        }
        let s = number(i, 1)?;
        if s == d {
            return Some(());
        }
        self.s.copies += 1;
        let n = match self.now(s) {
            Some(n) if n.upper == Upper::Keep => Now { upper: Upper::Copy(s), ..n },
            Some(n) => n,
            None if self.zero.above32 & 1 << s != 0 => Now { value: s, upper: Upper::Zero, fp: None },
            None if self.zero.above64 & 1 << s != 0 => Now { value: s, upper: Upper::Zero, fp: Some(D) },
            None => Now { value: s, upper: Upper::Whole, fp: None },
        };
        self.set(d, n)
    }

    fn shuffle(&mut self, d: u8, a: u8, i: &Instruction, at: usize) -> Option<()> {
        let k = self.node(Kind::Shuffle(i.immediate8(), a), at, 0, None)?;
        self.set(d, Now { value: k, upper: Upper::Whole, fp: None })
    }

    fn node(&mut self, kind: Kind, at: usize, below: u64, doubt: Option<(Shape, Fp)>) -> Option<u8> {
        if self.nodes.len() == NODES {
            return None;
        }
        self.nodes.push(Node { kind, at, below, doubt });
        Some(FIRST + self.nodes.len() as u8 - 1)
    }

    fn of(&self, v: u8) -> Option<&Node> {
        self.nodes.get(usize::from(v.checked_sub(FIRST)?))
    }

    fn now(&self, r: u8) -> Option<Now> {
        self.s.now[usize::from(r)]
    }

    /// Whether `v` may be another NaN than x86's, and in which lanes.
    fn doubt(&self, v: u8) -> Option<(Shape, Fp)> {
        self.of(v)?.doubt
    }

    /// `v` and all it covers, for a reader of these lanes whose result is a NaN if `v` is.
    fn under(&self, v: u8, shape: Shape, fp: Fp) -> u64 {
        match self.of(v) {
            Some(Node { doubt: Some((s, f)), below, .. }) if *f == fp && (*s == Scalar || shape == Packed) => {
                1 << (v - FIRST) | below
            }
            _ => 0,
        }
    }

    /// Something is made of `v` that need not be a NaN when it is.
    fn force(&mut self, v: u8) {
        if self.doubt(v).is_some() {
            self.s.forced |= 1 << (v - FIRST);
        }
    }

    /// Register `r` as operand of an operation.
    fn read(&mut self, r: u8, shape: Shape, fp: Fp) -> Option<u8> {
        let v = match shape {
            Scalar => match self.now(r) {
                None => r,
                Some(n) => (n.fp.is_none() || n.fp == Some(fp)).then_some(n.value)?,
            },
            Packed => self.whole(r)?,
        };
        if self.doubt(v).is_some_and(|d| d.1 != fp) {
            self.force(v);
        }
        Some(v)
    }

    /// The value that is all of register `r`: a scalar's is zero above.
    fn whole(&self, r: u8) -> Option<u8> {
        match self.now(r) {
            None => Some(r),
            Some(n) => matches!(n.upper, Upper::Whole | Upper::Zero).then_some(n.value),
        }
    }

    fn source(&mut self, i: &Instruction, at: usize, shape: Shape, fp: Fp) -> Option<u8> {
        match i.op_kind(second(i)) {
            OpKind::Memory => {
                let bytes = if shape == Packed { 16 } else { 1 << fp.size() };
                self.node(Kind::Load(bytes, shape == Packed && Width::of(i) == Width::Legacy), at, 0, None)
            }
            _ => self.read(number(i, second(i))?, shape, fp),
        }
    }

    /// `d` = `value`, a scalar with the lanes above from register `first`.
    fn write(&mut self, d: u8, first: u8, value: u8, shape: Shape, fp: Fp) -> Option<()> {
        if shape == Packed {
            return self.set(d, Now { value, upper: Upper::Whole, fp: None });
        }
        let zero = if fp == D { self.zero.above64 } else { self.zero.above32 };
        let upper = match self.now(first) {
            None if zero & 1 << first != 0 => Upper::Zero,
            None if first != d => Upper::Copy(first),
            None => Upper::Keep,
            // A single written over the low half of a double leaves the other half of it.
            Some(n) if n.fp == Some(D) && fp == S => return None,
            Some(Now { upper: Upper::Whole, value, .. }) if value < FIRST => Upper::Copy(value),
            Some(Now { upper: Upper::Whole, .. }) => return None,
            Some(Now { upper: Upper::Keep, .. }) if first != d => Upper::Copy(first),
            Some(n) => n.upper,
        };
        self.set(d, Now { value, upper, fp: Some(fp) })
    }

    /// Notes what `d` will hold, unless the registers could then not be written one after the other: a register whose new contents come from
    /// another one is written first, so that other one must not be of this kind as well.
    fn set(&mut self, d: u8, n: Now) -> Option<()> {
        self.s.now[usize::from(d)] = Some(n);
        // As bits: the registers each one's new contents come from.
        let from: [u16; 16] = std::array::from_fn(|r| {
            let Some(n) = self.s.now[r] else { return 0 };
            let value = if n.value < FIRST { 1 << n.value } else { 0 };
            let upper = if let Upper::Copy(s) = n.upper { 1 << s } else { 0 };
            (value | upper) & !(1 << r)
        });
        let made = (0..16).filter(|&s| from[s] != 0).fold(0, |m, s| m | 1 << s);
        from.iter().all(|f| f & made == 0).then_some(())
    }

    /// Whether writing register `r` at the end reads register `s` as it was.
    fn reads(&self, r: u8, s: u8) -> bool {
        self.now(r).is_some_and(|n| n.upper == Upper::Copy(s) || n.value == s)
    }

    /// The last node that reads node `k`; the number of nodes if it is needed at the end.
    fn last_use(&self, k: usize) -> Option<usize> {
        let v = FIRST + k as u8;
        if self.s.forced & 1 << k != 0 || self.s.now.iter().flatten().any(|n| n.value == v) {
            return Some(self.nodes.len());
        }
        self.nodes.iter().rposition(|n| n.kind.reads().contains(&Some(v)))
    }

    /// The register a node may be computed into at once: it ends there, with nothing to keep above it, nobody needs what was there, and
    /// no access comes before the instruction that writes it.
    fn direct(&self, k: usize) -> Option<u8> {
        let v = FIRST + k as u8;
        let d = (0..16u8)
            .find(|&r| self.now(r).is_some_and(|n| n.value == v && matches!(n.upper, Upper::Zero | Upper::Whole)))?;
        let used = self.nodes.iter().any(|n| n.kind.reads().contains(&Some(d)));
        let first = self.s.first[usize::from(d)];
        let late =
            self.nodes[k + 1..].iter().any(|n| n.at + 1 < first && matches!(n.kind, Kind::Load(..) | Kind::Int(_)));
        (!used && !late && !(0..16).any(|r| r != d && self.reads(r, d))).then_some(d)
    }

    /// Where each node's value is; `None` when there are too few scratch registers. Nodes nobody needs are computed too, for what they signal.
    fn places(&self) -> Option<Vec<V>> {
        let mut free: u16 = (1 << self.room) - 1;
        let mut held = [0; SCRATCH];
        let mut places = Vec::with_capacity(self.nodes.len());
        for k in 0..self.nodes.len() {
            for (r, until) in held.iter().enumerate().take(self.room) {
                if *until < k {
                    free |= 1 << r;
                }
            }
            if let Some(d) = self.direct(k) {
                places.push(V(xrun_runtime::abi::xmm(d)));
                continue;
            }
            if free == 0 {
                return None;
            }
            let r = free.trailing_zeros() as usize;
            free &= !(1 << r);
            held[r] = self.last_use(k).unwrap_or(k);
            places.push(self.scratch[r]);
        }
        Some(places)
    }
}

/// If a run of at least two instructions that is worth it begins at the current instruction: lowers it, and has the others skipped.
pub fn lower(cx: &mut Cx<'_>) -> bool {
    let i = &cx.region.insts[cx.at].i;
    let vector = i.op0_register().is_xmm() && i.op0_kind() == OpKind::Register;
    vector && !cx.host.afp && cx.nzcv_free() && lower_run(cx)
}

#[inline(never)]
fn lower_run(cx: &mut Cx<'_>) -> bool {
    let (start, insts) = (cx.at, &cx.region.insts);
    let room = SCRATCH.min(usize::from(cx.free_of_fixing()).saturating_sub(1));
    let mut scratch = [V(0); SCRATCH];
    scratch[..room].fill_with(|| cx.vtmp());
    cx.vtmps_from(0);
    let mut run = Run { nodes: Vec::new(), s: State::default(), zero: cx.zero(start), scratch, room };
    // The longest that ends with something to test, and the longest of all.
    let (mut best, mut all) = (None, None);
    let mut end = start;
    while end < insts.len() && end - start < LONGEST {
        let x = &insts[end];
        if end > start && (x.join || insts[end - 1].ends_run) {
            break;
        }
        if end > start
            && fuse::is_simple(&x.i)
            && matches!(cx.facts.fuse[end], Fuse::Alone | Fuse::Deferred | Fuse::Reads(..))
        {
            run.s.written |= crate::guest::written_gprs(&x.i);
            end += 1;
            continue;
        }
        let depends = [x.i.memory_base(), x.i.memory_index(), general(&x.i)]
            .into_iter()
            .filter_map(crate::isa::cx::gpr)
            .any(|(x, ..)| run.s.written & 1 << x.0 != 0);
        let doubts = run.nodes.len();
        if cx.facts.fuse[end] != Fuse::Alone || depends || run.add(&x.i, end).is_none() {
            break;
        }
        end += 1;
        if run.places().is_none() {
            break;
        }
        let snapshot = (run.s, run.nodes.len(), end);
        if run.nodes[doubts..].iter().any(|n| n.doubt.is_some()) {
            best = Some(snapshot);
        }
        all = Some(snapshot);
    }
    let Some((s, nodes, end)) = best.or(all) else { return false };
    run.s = s;
    run.nodes.truncate(nodes);
    let Some(places) = run.places().filter(|_| end - start >= 2) else { return false };
    if best.is_none() {
        // Only copies can be saved.
        let written = (0..16u8).filter(|&r| {
            run.now(r).is_some_and(|n| {
                let direct = n.value >= FIRST && places[usize::from(n.value - FIRST)] == V(xrun_runtime::abi::xmm(r));
                !direct && n.value != r
            })
        });
        if written.count() >= run.s.copies {
            return false;
        }
    }
    emit(cx, &run, &places, start, end);
    true
}

/// The general register that is the last operand.
fn general(i: &Instruction) -> Register {
    match i.op_count().checked_sub(1) {
        Some(last) if i.op_kind(last) == OpKind::Register && i.op_register(last).is_gpr() => i.op_register(last),
        _ => Register::None,
    }
}

fn emit(cx: &mut Cx<'_>, run: &Run, place: &[V], start: usize, end: usize) {
    let slow = cx.enter_run();
    for (k, n) in run.nodes.iter().enumerate() {
        if matches!(n.kind, Kind::Zero) && run.last_use(k).is_none() {
            continue;
        }
        if n.at != cx.at {
            cx.step_run(n.at);
        }
        cx.vtmps_from(run.room as u8);
        compute(cx, n, place[k], place);
    }
    let tested = test(cx, run, place, slow);
    // Registers made of others first, then the rest.
    for others in [true, false] {
        for r in 0..16u8 {
            let Some(n) = run.now(r) else { continue };
            if (0..16).any(|s| s != r && run.reads(r, s)) == others {
                commit(cx, r, n, place);
            }
        }
    }
    cx.end_run(start, end, tested);
    cx.zero_uppers_of(run.s.cleared);
}

/// Goes to `slow` when the result of an operation is a NaN. False when there is nothing to test.
fn test(cx: &mut Cx<'_>, run: &Run, place: &[V], slow: crate::emit::Label) -> bool {
    let nodes = &run.nodes;
    let wanted = |k: usize| {
        nodes[k].doubt.is_some()
            && (run.s.forced & 1 << k != 0 || run.s.now.iter().flatten().any(|n| n.value == FIRST + k as u8))
    };
    let ends: Vec<usize> = (0..nodes.len()).filter(|&k| wanted(k)).collect();
    // What no other tested one was computed from.
    let covered = ends.iter().fold(0, |c, &k| c | nodes[k].below);
    let mut any = false;
    for (fp, t) in [(S, super::float::FIX_T), (D, super::float::FIX_U)] {
        let of =
            |shape: Shape| ends.iter().filter(move |&&k| covered & 1 << k == 0 && nodes[k].doubt == Some((shape, fp)));
        let mut lanes: Vec<V> = of(Scalar).map(|&k| place[k]).collect();
        let mut packed = of(Packed).map(|&k| place[k]);
        if let Some(mut v) = packed.next() {
            // FMAX hands a NaN on, and all of these are quiet.
            for w in packed {
                cx.m.fmax(Packed, fp, t, v, w);
                v = t;
            }
            match fp {
                S => cx.m.fmaxv_s4(t, v),
                D => cx.m.fmaxp_d2(t, v),
            }
            lanes.push(t);
        }
        for two in lanes.chunks(2) {
            cx.m.fcmp(fp, two[0], two[two.len() - 1], false);
            cx.m.b_cond(Cond::Vs, slow);
            any = true;
        }
    }
    any
}

fn commit(cx: &mut Cx<'_>, r: u8, n: Now, place: &[V]) {
    let d = V(xrun_runtime::abi::xmm(r));
    let v = value(n.value, place);
    if let Upper::Copy(s) = n.upper
        && s != r
    {
        cx.m.mov_v(d, V(xrun_runtime::abi::xmm(s)));
        if n.value == s {
            return;
        }
    }
    if v == d {
        return;
    }
    match (n.upper, n.fp) {
        (Upper::Whole, _) => cx.m.mov_v(d, v),
        (Upper::Zero, _) => cx.m.mov_low(d, v),
        (_, Some(fp)) => cx.merge(fp, d, v),
        // A copy of a register that is itself.
        (_, None) => cx.m.mov_v(d, v),
    }
}

fn value(v: u8, place: &[V]) -> V {
    if v < FIRST { V(xrun_runtime::abi::xmm(v)) } else { place[usize::from(v - FIRST)] }
}

fn compute(cx: &mut Cx<'_>, n: &Node, d: V, place: &[V]) {
    let v = |x: u8| value(x, place);
    match n.kind {
        Kind::Load(bytes, aligned) => {
            let i = cx.region.insts[n.at].i;
            let from = cx.vaddr(&i, bytes, aligned);
            cx.load_v(bytes, d, from);
        }
        Kind::Int(fp) => {
            let i = cx.region.insts[n.at].i;
            if let Ok((x, bytes)) = cx.int_src(&i, second(&i)) {
                cx.m.scvtf(fp, d, sz(bytes), x);
            }
        }
        Kind::Zero => cx.m.zero_v(d),
        Kind::Binary(op, shape, fp, a, b) => op(&mut cx.m, shape, fp, d, v(a), v(b)),
        Kind::Sqrt(shape, fp, a) => cx.m.fsqrt(shape, fp, d, v(a)),
        Kind::Fused(kind, fp, from) => kind.scalar(&mut cx.m, fp, d, from.map(v)),
        Kind::Convert(from, a) => cx.m.fcvt(from, d, v(a)),
        Kind::Pick(shape, fp, a, b, max) => {
            let (x, y) = if max { (v(a), v(b)) } else { (v(b), v(a)) };
            if shape == Packed {
                // The mask takes the result's place, which is none of the sources'.
                cx.m.fcmgt(Packed, fp, d, x, y);
                cx.m.bsl(d, v(a), v(b));
            } else {
                cx.m.fcmp(fp, x, y, true);
                cx.m.fcsel(fp, d, v(a), v(b), Cond::Gt);
            }
            cx.flush(shape, fp, d);
        }
        Kind::Lanes(op, ar, a, b) => op(&mut cx.m, ar, d, v(a), v(b)),
        Kind::Shift(op, ar, a, by) => op(&mut cx.m, ar, d, v(a), by),
        Kind::MulEven(op, a, b) => {
            let (x, y) = (cx.vtmp(), cx.vtmp());
            cx.m.xtn(Ar::S2, x, v(a));
            cx.m.xtn(Ar::S2, y, v(b));
            op(&mut cx.m, Ar::S2, d, x, y);
        }
        Kind::Bits(op, a, b) => op(&mut cx.m, d, v(a), v(b)),
        Kind::Shuffle(imm, a) => super::shuffle::shuffle_s(cx, d, v(a), imm),
    }
}

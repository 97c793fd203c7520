//! Runs of VEX-encoded scalar floating-point instructions, lowered together on hosts without FEAT_AFP; as [`crate::isa::sse::run`], but in its older way.
//!
//! Alone, a scalar operation there is four words: the operation into a scratch register, two to see whether a NaN came out (see
//! [`crate::isa::sse::float`]), one to merge the lane. In a run results stay in scratch registers under their own names, and the XMM
//! registers keep what they held until the run's end. So a result that another one is computed from needs no test of its own (NaN in, NaN
//! out), two results are tested by one comparison, registers are merged once, and one that is all zero above its lane is written directly.
//! Where a test fires, the whole run is computed again, step by step, with every NaN set right: its inputs are all still there.
//!
//! Loads inside a run may fault when results before them are not yet in their registers. Their marks say `replay`: the runtime goes
//! back to the run's first instruction, whose state is intact, and on from there one instruction at a time (see
//! `xrun_runtime::engine::Mark`). So a run holds no store and changes no general register and no flag. The upper halves that VEX forms clear are
//! cleared at the end.

use crate::emit::fp::{Fp, Shape};
use crate::emit::{Cond, Masm, V};
use crate::facts::Fuse;
use crate::isa::avx::fma;
use crate::isa::cx::{Cx, sz};
use crate::isa::sse::Width;
use iced_x86::{Instruction, Mnemonic, OpKind};

use Fp::{D, S};

/// Most scratch registers a run takes, which bounds its values. The ones above are the NaN routine's.
const VALUES: u8 = 10;
/// Values 0-15 are the XMM registers as they were; later ones are nodes.
const FIRST: u8 = 16;
/// Most instructions in one run: the runtime replays this many.
const LONGEST: usize = xrun_runtime::engine::REPLAY_MOST;

type FpOp = fn(&mut Masm, Shape, Fp, V, V, V);

#[derive(Clone, Copy)]
enum Kind {
    /// The memory operand of the instruction at this index of the region.
    Load(usize, u32),
    Zero,
    Binary(FpOp, Fp, u8, u8),
    Sqrt(Fp, u8),
    /// Of multiplicand, multiplier and addend.
    Fused(fma::Kind, Fp, [u8; 3]),
    /// Smaller or (`true`) larger.
    Pick(Fp, u8, u8, bool),
    Convert(Fp, u8),
    /// From the general register or memory operand, the last one, of the instruction at this index.
    Int(Fp, usize),
}

impl Kind {
    /// Whether it is computed from value `v`.
    fn reads(self, v: u8) -> bool {
        match self {
            Kind::Binary(_, _, a, b) | Kind::Pick(_, a, b, _) => a == v || b == v,
            Kind::Sqrt(_, a) | Kind::Convert(_, a) => a == v,
            Kind::Fused(_, _, from) => from.contains(&v),
            Kind::Load(..) | Kind::Zero | Kind::Int(..) => false,
        }
    }

    /// The precision and the operands of one whose NaN may have to be set right.
    fn operands(self) -> Option<(Fp, u8, u8, Option<u8>)> {
        match self {
            Kind::Binary(_, fp, a, b) => Some((fp, a, b, None)),
            Kind::Sqrt(fp, a) => Some((fp, a, a, None)),
            Kind::Fused(_, fp, [x, y, z]) => Some((fp, x, y, Some(z))),
            _ => None,
        }
    }
}

/// Where the lanes above the low one of a register are from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upper {
    Keep,
    Zero,
    Copy(u8),
}

/// What an XMM register will hold.
#[derive(Clone, Copy)]
struct Now {
    value: u8,
    upper: Upper,
    /// The precision of the low lane; `None` for a copy of a whole register.
    fp: Option<Fp>,
}

#[derive(Clone, Copy)]
struct Node {
    kind: Kind,
    at: usize,
}

#[derive(Clone, Default)]
struct Run {
    nodes: Vec<Node>,
    now: [Option<Now>; 16],
    /// Nodes, as bits, that are NaN only if this node is.
    below: Vec<u32>,
    /// Nodes whose result may be a NaN other than x86's.
    doubtful: u32,
    /// Registers whose upper halves VEX forms clear.
    cleared: u16,
    /// Most nodes there can be.
    room: u8,
}

fn number(i: &Instruction, op: u32) -> Option<u8> {
    (i.op_kind(op) == OpKind::Register).then(|| i.op_register(op)).filter(|r| r.is_xmm()).map(|r| r.number() as u8)
}

/// The register whose upper lanes the result of a scalar instruction keeps: the first source, in legacy encodings the destination.
fn first(i: &Instruction, d: u8) -> Option<u8> {
    if Width::of(i) == Width::Legacy { Some(d) } else { number(i, 1) }
}

impl Run {
    /// Adds the instruction at `at`; `None` when it cannot be part of this run.
    fn add(&mut self, i: &Instruction, at: usize) -> Option<()> {
        use Mnemonic as M;
        if Width::of(i) == Width::Legacy {
            return None;
        }
        let d = number(i, 0)?;
        self.cleared |= 1 << d;
        let arithmetic: Option<(FpOp, Fp)> = match i.mnemonic() {
            M::Addss | M::Vaddss => Some((Masm::fadd, S)),
            M::Addsd | M::Vaddsd => Some((Masm::fadd, D)),
            M::Subss | M::Vsubss => Some((Masm::fsub, S)),
            M::Subsd | M::Vsubsd => Some((Masm::fsub, D)),
            M::Mulss | M::Vmulss => Some((Masm::fmul, S)),
            M::Mulsd | M::Vmulsd => Some((Masm::fmul, D)),
            M::Divss | M::Vdivss => Some((Masm::fdiv, S)),
            M::Divsd | M::Vdivsd => Some((Masm::fdiv, D)),
            _ => None,
        };
        if let Some((op, fp)) = arithmetic {
            let first = first(i, d)?;
            let a = self.low(first, fp)?;
            let b = self.source(i, at, fp)?;
            let k = self.node(Kind::Binary(op, fp, a, b), at)?;
            self.below[usize::from(k - FIRST)] = self.under(a) | self.under(b);
            self.doubtful |= 1 << (k - FIRST);
            return self.write_low(d, first, k, fp);
        }
        if let Some((kind, order, fp)) = fma::scalar(i.mnemonic()) {
            let from = [self.low(d, fp)?, self.low(number(i, 1)?, fp)?, self.source(i, at, fp)?];
            let from = order.map(|n| from[n]);
            let k = self.node(Kind::Fused(kind, fp, from), at)?;
            self.below[usize::from(k - FIRST)] = from.iter().fold(0, |all, &v| all | self.under(v));
            self.doubtful |= 1 << (k - FIRST);
            return self.write_low(d, d, k, fp);
        }
        match i.mnemonic() {
            M::Sqrtss | M::Sqrtsd | M::Vsqrtss | M::Vsqrtsd => {
                let fp = if matches!(i.mnemonic(), M::Sqrtss | M::Vsqrtss) { S } else { D };
                let a = self.source(i, at, fp)?;
                let k = self.node(Kind::Sqrt(fp, a), at)?;
                self.below[usize::from(k - FIRST)] = self.under(a);
                self.doubtful |= 1 << (k - FIRST);
                self.write_low(d, first(i, d)?, k, fp)
            }
            M::Minss | M::Minsd | M::Maxss | M::Maxsd | M::Vminss | M::Vminsd | M::Vmaxss | M::Vmaxsd => {
                let fp = if matches!(i.mnemonic(), M::Minss | M::Maxss | M::Vminss | M::Vmaxss) { S } else { D };
                let max = matches!(i.mnemonic(), M::Maxss | M::Maxsd | M::Vmaxss | M::Vmaxsd);
                let first = first(i, d)?;
                let a = self.low(first, fp)?;
                let b = self.source(i, at, fp)?;
                let k = self.node(Kind::Pick(fp, a, b, max), at)?;
                // A NaN result is the second operand; one in the first is dropped.
                self.inherit(k, b);
                self.write_low(d, first, k, fp)
            }
            M::Cvtss2sd | M::Cvtsd2ss | M::Vcvtss2sd | M::Vcvtsd2ss => {
                let from = if matches!(i.mnemonic(), M::Cvtss2sd | M::Vcvtss2sd) { S } else { D };
                let a = self.source(i, at, from)?;
                let k = self.node(Kind::Convert(from, a), at)?;
                self.inherit(k, a);
                self.write_low(d, first(i, d)?, k, if from == S { D } else { S })
            }
            M::Cvtsi2sd | M::Cvtsi2ss | M::Vcvtsi2sd | M::Vcvtsi2ss => {
                let fp = if matches!(i.mnemonic(), M::Cvtsi2sd | M::Vcvtsi2sd) { D } else { S };
                let k = self.node(Kind::Int(fp, at), at)?;
                self.write_low(d, first(i, d)?, k, fp)
            }
            M::Movsd | M::Movss | M::Movq | M::Vmovsd | M::Vmovss | M::Vmovq if i.op1_kind() == OpKind::Memory => {
                let fp = if matches!(i.mnemonic(), M::Movss | M::Vmovss) { S } else { D };
                let k = self.node(Kind::Load(at, 1 << fp.size()), at)?;
                self.set(d, Now { value: k, upper: Upper::Zero, fp: Some(fp) })
            }
            M::Movaps
            | M::Movapd
            | M::Movups
            | M::Movupd
            | M::Movdqa
            | M::Movdqu
            | M::Vmovaps
            | M::Vmovapd
            | M::Vmovups
            | M::Vmovupd
            | M::Vmovdqa
            | M::Vmovdqu => {
                let s = number(i, 1)?;
                if s == d {
                    return Some(());
                }
                let n = match self.now[usize::from(s)] {
                    None => Now { value: s, upper: Upper::Copy(s), fp: None },
                    Some(n) => Now { upper: if n.upper == Upper::Keep { Upper::Copy(s) } else { n.upper }, ..n },
                };
                self.set(d, n)
            }
            M::Pxor | M::Xorps | M::Xorpd if number(i, 1) == Some(d) => self.clear(d, at),
            M::Vpxor | M::Vxorps | M::Vxorpd if number(i, 1).is_some() && number(i, 1) == number(i, 2) => {
                self.clear(d, at)
            }
            _ => None,
        }
    }

    fn clear(&mut self, d: u8, at: usize) -> Option<()> {
        let k = self.node(Kind::Zero, at)?;
        self.set(d, Now { value: k, upper: Upper::Zero, fp: None })
    }

    fn node(&mut self, kind: Kind, at: usize) -> Option<u8> {
        if self.nodes.len() == usize::from(self.room) {
            return None;
        }
        self.nodes.push(Node { kind, at });
        self.below.push(0);
        Some(FIRST + self.nodes.len() as u8 - 1)
    }

    /// `k` is a NaN when `a` is, and as doubtful as that.
    fn inherit(&mut self, k: u8, a: u8) {
        self.below[usize::from(k - FIRST)] = self.under(a);
        if a >= FIRST && self.doubtful & 1 << (a - FIRST) != 0 {
            self.doubtful |= 1 << (k - FIRST);
        }
    }

    /// `v` and all it covers.
    fn under(&self, v: u8) -> u32 {
        if v < FIRST { 0 } else { 1 << (v - FIRST) | self.below[usize::from(v - FIRST)] }
    }

    /// The low lane of register `r`, read at precision `fp`.
    fn low(&self, r: u8, fp: Fp) -> Option<u8> {
        match self.now[usize::from(r)] {
            None => Some(r),
            Some(n) => (n.fp.is_none() || n.fp == Some(fp)).then_some(n.value),
        }
    }

    /// The last operand.
    fn source(&mut self, i: &Instruction, at: usize, fp: Fp) -> Option<u8> {
        let last = i.op_count() - 1;
        match i.op_kind(last) {
            OpKind::Memory => self.node(Kind::Load(at, 1 << fp.size()), at),
            _ => self.low(number(i, last)?, fp),
        }
    }

    /// `d` = register `first` with its low lane replaced.
    fn write_low(&mut self, d: u8, first: u8, value: u8, fp: Fp) -> Option<()> {
        let upper = match self.now[usize::from(first)] {
            None if first != d => Upper::Copy(first),
            None => Upper::Keep,
            Some(n) if n.fp != Some(D) && n.upper == Upper::Keep && first != d => Upper::Copy(first),
            Some(n) if n.fp == Some(D) && fp == D && n.upper == Upper::Keep && first != d => Upper::Copy(first),
            // A single written over the low half of a double leaves the other half of it.
            Some(n) if n.fp == Some(D) && fp == S => return None,
            Some(n) => n.upper,
        };
        self.set(d, Now { value, upper, fp: Some(fp) })
    }

    /// Notes what `d` will hold, unless the registers could then not be written one after the other: a register whose new contents come from
    /// another one is written first, so that other one must not be of this kind as well.
    fn set(&mut self, d: u8, n: Now) -> Option<()> {
        self.now[usize::from(d)] = Some(n);
        let chained =
            (0..16).any(|r| (0..16).any(|s| s != r && self.reads(r, s) && (0..16).any(|t| t != s && self.reads(s, t))));
        (!chained).then_some(())
    }

    /// Whether writing register `r` at the end reads register `s` as it was.
    fn reads(&self, r: u8, s: u8) -> bool {
        self.now[usize::from(r)].is_some_and(|n| n.upper == Upper::Copy(s) || n.value == s)
    }

    /// Whether anything is made of node `k`.
    fn needed(&self, k: usize) -> bool {
        let v = FIRST + k as u8;
        self.now.iter().flatten().any(|n| n.value == v) || self.nodes.iter().any(|n| n.kind.reads(v))
    }

    /// The register a node may be computed into at once: it ends there, with nothing to keep above it, and nobody needs what was there.
    fn direct(&self, k: usize) -> Option<u8> {
        let v = FIRST + k as u8;
        let d =
            (0..16u8).find(|&r| self.now[usize::from(r)].is_some_and(|n| n.value == v && n.upper == Upper::Zero))?;
        let used = self.nodes.iter().any(|n| n.kind.reads(d));
        (!used && !(0..16).any(|r| r != d && self.reads(r, d))).then_some(d)
    }
}

/// If a run of at least two instructions, one of them arithmetic, begins at the current instruction: lowers it, and has the others skipped.
pub fn lower(cx: &mut Cx<'_>) -> bool {
    let i = &cx.region.insts[cx.at].i;
    i.op0_register().is_xmm() && i.op0_kind() == OpKind::Register && !cx.host.afp && cx.nzcv_free() && lower_run(cx)
}

#[inline(never)]
fn lower_run(cx: &mut Cx<'_>) -> bool {
    let (start, insts) = (cx.at, &cx.region.insts);
    // Two at least.
    if insts.get(start + 1).is_none_or(|x| x.i.op0_kind() != OpKind::Register || !x.i.op0_register().is_xmm()) {
        return false;
    }
    let room = cx.free_of_fixing().min(VALUES);
    let (mut run, mut end) = (Run { room, ..Run::default() }, start);
    let mut best: Option<(Run, usize)> = None;
    while end < insts.len() && end - start < LONGEST {
        let x = &insts[end];
        if end > start && (x.join || insts[end - 1].ends_run) || cx.facts.fuse[end] != Fuse::Alone {
            break;
        }
        let mut longer = run.clone();
        if longer.add(&x.i, end).is_none() {
            break;
        }
        let worth = longer.doubtful != run.doubtful;
        run = longer;
        end += 1;
        if worth {
            best = Some((run.clone(), end));
        }
    }
    match best {
        Some((run, end)) if end - start >= 2 => {
            emit(cx, run, start, end);
            true
        }
        _ => false,
    }
}

fn emit(cx: &mut Cx<'_>, run: Run, start: usize, end: usize) {
    // Where each node's value is.
    let place: Vec<V> = (0..run.nodes.len())
        .map(|k| run.direct(k).map_or_else(|| cx.vtmp(), |d| V(xrun_runtime::abi::xmm(d))))
        .collect();
    cx.enter_run();
    for (k, n) in run.nodes.iter().enumerate() {
        if matches!(n.kind, Kind::Zero) && !run.needed(k) {
            continue;
        }
        if n.at != cx.at {
            cx.step_run(n.at);
        }
        compute(cx, n, place[k], &place, true);
    }
    // Test the results that no other tested one was computed from, two at a time.
    let ends: Vec<u8> = (0..run.nodes.len() as u8)
        .filter(|&k| run.doubtful & 1 << k != 0 && run.now.iter().flatten().any(|n| n.value == FIRST + k))
        .collect();
    let covered = ends.iter().fold(0, |c, &k| c | run.below[usize::from(k)]);
    let mut tests: Vec<(V, Fp)> = ends
        .iter()
        .filter(|&&k| covered & 1 << k == 0)
        .map(|&k| (place[usize::from(k)], precision(&run.nodes[usize::from(k)])))
        .collect();
    if !tests.is_empty() {
        let back = cx.m.label();
        let (nodes, places) = (run.nodes.clone(), place.clone());
        let routine = |cx: &mut Cx<'_>, fp: Fp, fused: bool| {
            let used =
                nodes.iter().any(|n| n.kind.operands().is_some_and(|(f, .., z)| f == fp && z.is_some() == fused));
            used.then(|| cx.nan_routine(Shape::Scalar, fp, fused))
        };
        let routines = [S, D].map(|fp| [false, true].map(|fused| routine(cx, fp, fused)));
        let cold = cx.cold(move |cx| {
            for (k, n) in nodes.iter().enumerate() {
                compute(cx, n, places[k], &places, false);
                let Some((fp, a, b, z)) = n.kind.operands() else { continue };
                if let Some(routine) = routines[usize::from(fp == D)][usize::from(z.is_some())] {
                    let z = z.map(|z| value(z, &places));
                    cx.fix_with(routine, places[k], value(a, &places), value(b, &places), z);
                }
            }
            cx.m.b(back);
        });
        while let Some((v, fp)) = tests.pop() {
            let other = tests.iter().position(|t| t.1 == fp).map_or(v, |p| tests.swap_remove(p).0);
            cx.m.fcmp(fp, v, other, false);
            cx.m.b_cond(Cond::Vs, cold);
        }
        cx.m.bind(back);
    }
    // Registers made of others first, then the rest.
    for others in [true, false] {
        for r in 0..16u8 {
            let Some(n) = run.now[usize::from(r)] else { continue };
            if (0..16).any(|s| s != r && run.reads(r, s)) == others {
                commit(cx, r, n, &place);
            }
        }
    }
    cx.end_run(start, end, false);
    cx.zero_uppers_of(run.cleared);
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
        (Upper::Zero, _) => cx.m.mov_low(d, v),
        (_, Some(fp)) => cx.merge(fp, d, v),
        // A copy of a register that is itself.
        (_, None) => cx.m.mov_v(d, v),
    }
}

/// The precision of a node's result.
fn precision(n: &Node) -> Fp {
    match n.kind {
        Kind::Binary(_, fp, ..) | Kind::Sqrt(fp, _) | Kind::Pick(fp, ..) | Kind::Int(fp, _) | Kind::Fused(_, fp, _) => {
            fp
        }
        Kind::Convert(S, _) => D,
        Kind::Convert(D, _) => S,
        Kind::Load(..) | Kind::Zero => D,
    }
}

fn value(v: u8, place: &[V]) -> V {
    if v < FIRST { V(xrun_runtime::abi::xmm(v)) } else { place[usize::from(v - FIRST)] }
}

/// Emits one node. `first`: not a repetition, for which loads and integers need not be fetched again.
fn compute(cx: &mut Cx<'_>, n: &Node, d: V, place: &[V], first: bool) {
    let v = |x: u8| value(x, place);
    match n.kind {
        Kind::Load(at, bytes) if first => {
            let i = cx.region.insts[at].i;
            let from = cx.addr(&i, bytes);
            cx.load_v(bytes, d, from);
        }
        Kind::Int(fp, at) if first => {
            let i = cx.region.insts[at].i;
            if let Ok((x, bytes)) = cx.int_src(&i, i.op_count() - 1) {
                cx.m.scvtf(fp, d, sz(bytes), x);
            }
        }
        Kind::Zero if first => cx.m.zero_v(d),
        Kind::Binary(op, fp, a, b) => op(&mut cx.m, Shape::Scalar, fp, d, v(a), v(b)),
        Kind::Sqrt(fp, a) => cx.m.fsqrt(Shape::Scalar, fp, d, v(a)),
        Kind::Fused(kind, fp, [x, y, z]) => kind.scalar(&mut cx.m, fp, d, [v(x), v(y), v(z)]),
        Kind::Convert(from, a) => cx.m.fcvt(from, d, v(a)),
        Kind::Pick(fp, a, b, max) => {
            let (x, y) = if max { (v(a), v(b)) } else { (v(b), v(a)) };
            cx.m.fcmp(fp, x, y, true);
            cx.m.fcsel(fp, d, v(a), v(b), Cond::Gt);
            cx.flush(Shape::Scalar, fp, d);
        }
        _ => {}
    }
}

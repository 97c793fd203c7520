//! String instructions: MOVS STOS LODS CMPS SCAS with REP, REPE, REPNE (SDM vol. 1, 7.3.9; vol. 2, REP), both directions, both address sizes.
//!
//! RSI, RDI and RCX are exact at every access that can fault, so a repeated form simply goes on when it is started again; between steps it can be stopped.
//! Forward REP MOVS and REP STOS move up to 32 bytes at a time inside a page of each operand, so that a fault finds the registers where a byte-wise
//! copy would have them. The stores of one such instruction may be seen out of order, as SDM vol. 3, 9.2.4 allows; they are ordered against all others.

use super::Lowered;
use super::alu::{Arith, Src, compute};
use super::cx::{Cx, Place, STATE, pinned, sz};
use crate::emit::int::Dmb;
use crate::emit::{Addr, Sz, X};
use crate::rows;
use iced_x86::{Instruction, OpKind};
use std::mem::offset_of;
use xrun_runtime::engine::{Ordering, Trap};
use xrun_runtime::state::CpuState;
use xrun_runtime::state::gpr::{RAX, RCX, RDI, RSI};

rows! { "string";
    Movsb => |cx, i| string(cx, i, Op::Movs, 1), Movsw => |cx, i| string(cx, i, Op::Movs, 2), Movsq => |cx, i| string(cx, i, Op::Movs, 8),
    Stosb => |cx, i| string(cx, i, Op::Stos, 1), Stosw => |cx, i| string(cx, i, Op::Stos, 2), Stosd => |cx, i| string(cx, i, Op::Stos, 4),
    Stosq => |cx, i| string(cx, i, Op::Stos, 8),
    Lodsb => |cx, i| string(cx, i, Op::Lods, 1), Lodsw => |cx, i| string(cx, i, Op::Lods, 2), Lodsd => |cx, i| string(cx, i, Op::Lods, 4),
    Lodsq => |cx, i| string(cx, i, Op::Lods, 8),
    Cmpsb => |cx, i| string(cx, i, Op::Cmps, 1), Cmpsw => |cx, i| string(cx, i, Op::Cmps, 2), Cmpsq => |cx, i| string(cx, i, Op::Cmps, 8),
    Scasb => |cx, i| string(cx, i, Op::Scas, 1), Scasw => |cx, i| string(cx, i, Op::Scas, 2), Scasd => |cx, i| string(cx, i, Op::Scas, 4),
    Scasq => |cx, i| string(cx, i, Op::Scas, 8),
    Insb => |cx, i| port(cx, i), Insw => |cx, i| port(cx, i), Insd => |cx, i| port(cx, i),
    Outsb => |cx, i| port(cx, i), Outsw => |cx, i| port(cx, i), Outsd => |cx, i| port(cx, i),
}

/// MOVSD and CMPSD are string instructions or scalar floating-point ones; the caller has seen that `i` is the former.
pub fn movsd(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    string(cx, i, Op::Movs, 4)
}

pub fn cmpsd(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    string(cx, i, Op::Cmps, 4)
}

/// Port input and output need an I/O privilege user code does not have.
fn port(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    cx.trap(Trap::GeneralProtection, i.ip());
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Movs,
    Stos,
    Lods,
    Cmps,
    Scas,
}

impl Op {
    fn reads_source(self) -> bool {
        matches!(self, Op::Movs | Op::Lods | Op::Cmps)
    }

    fn uses_destination(self) -> bool {
        self != Op::Lods
    }

    fn compares(self) -> bool {
        matches!(self, Op::Cmps | Op::Scas)
    }
}

/// What one form of one instruction needs to know.
struct Form {
    op: Op,
    bytes: u32,
    /// Register size of RSI, RDI, RCX: W with an address-size prefix.
    size: Sz,
    /// EFLAGS.DF as 1 or -1.
    df: X,
    /// Scratch for addresses that are not simply RSI and RDI.
    source: X,
    destination: X,
}

fn string(cx: &mut Cx<'_>, i: &Instruction, op: Op, bytes: u32) -> Lowered {
    let narrow = (0..i.op_count()).any(|n| matches!(i.op_kind(n), OpKind::MemorySegESI | OpKind::MemoryESEDI));
    let size = if narrow { Sz::W } else { Sz::X };
    let repeated = i.has_rep_prefix() || i.has_repne_prefix();
    let (rsi, rdi) = (pinned(RSI), pinned(RDI));
    let segment = !matches!(
        i.segment_prefix(),
        iced_x86::Register::None
            | iced_x86::Register::CS
            | iced_x86::Register::DS
            | iced_x86::Register::ES
            | iced_x86::Register::SS
    );
    let df = cx.tmp();
    let source = if narrow || segment { cx.tmp() } else { rsi };
    let destination = if narrow { cx.tmp() } else { rdi };
    let f = Form { op, bytes, size, df, source, destination };
    if repeated {
        let live = cx.live_out();
        cx.canonical(live);
    }
    cx.m.ldr(8, df, Addr::Off(STATE, offset_of!(CpuState, df) as i32));
    match (op.compares(), repeated) {
        (false, false) => step(cx, i, &f),
        (false, true) => repeat(cx, i, &f, segment),
        (true, false) => {
            let (a, b) = compare_step(cx, i, &f);
            let live = cx.live();
            compute(cx, Arith::Sub, bytes, None, a, Src::Reg(b), true, live);
        }
        (true, true) => repeat_compare(cx, i, &f),
    }
    Ok(())
}

/// Puts the addresses into the form's registers where they are not RSI and RDI themselves.
fn addresses(cx: &mut Cx<'_>, i: &Instruction, f: &Form) {
    if f.op.reads_source() && f.source != pinned(RSI) {
        cx.m.mov(f.size, f.source, pinned(RSI));
        let kept = cx.tmp;
        cx.add_segment(i, f.source);
        cx.tmp = kept;
    }
    if f.op.uses_destination() && f.destination != pinned(RDI) {
        cx.m.mov(f.size, f.destination, pinned(RDI));
    }
}

fn advance(cx: &mut Cx<'_>, f: &Form) {
    let log = f.bytes.trailing_zeros();
    if f.op.reads_source() {
        cx.m.add_lsl(f.size, pinned(RSI), pinned(RSI), f.df, log);
    }
    if f.op.uses_destination() {
        cx.m.add_lsl(f.size, pinned(RDI), pinned(RDI), f.df, log);
    }
}

/// One MOVS, STOS or LODS.
fn step(cx: &mut Cx<'_>, i: &Instruction, f: &Form) {
    addresses(cx, i, f);
    let kept = cx.tmp;
    let acc = Place::Reg { x: pinned(RAX), lsb: 0, bytes: f.bytes };
    let v = if f.op == Op::Stos { pinned(RAX) } else { cx.tmp() };
    if f.op != Op::Stos {
        cx.load(f.bytes, v, Addr::Off(f.source, 0));
    }
    if f.op == Op::Lods {
        cx.set(acc, v);
    } else {
        cx.store(f.bytes, v, Addr::Off(f.destination, 0));
    }
    advance(cx, f);
    cx.tmp = kept;
}

/// One CMPS or SCAS up to the comparison: its two operands, zero-extended.
fn compare_step(cx: &mut Cx<'_>, i: &Instruction, f: &Form) -> (X, X) {
    addresses(cx, i, f);
    let (a, b) = (cx.tmp(), cx.tmp());
    if f.op == Op::Cmps {
        cx.load(f.bytes, a, Addr::Off(f.source, 0));
    } else if f.bytes == 8 {
        cx.m.mov(Sz::X, a, pinned(RAX));
    } else {
        cx.m.ubfx(Sz::X, a, pinned(RAX), 0, 8 * f.bytes);
    }
    cx.load(f.bytes, b, Addr::Off(f.destination, 0));
    advance(cx, f);
    (a, b)
}

/// REP MOVS, REP STOS, REP LODS.
fn repeat(cx: &mut Cx<'_>, i: &Instruction, f: &Form, segment: bool) {
    let rcx = pinned(RCX);
    let (again, done) = (cx.m.label(), cx.m.label());
    let wide = !cx.alone && f.op != Op::Lods && f.size == Sz::X && !segment;
    if wide && f.op == Op::Stos {
        let pattern = cx.vtmp();
        cx.m.dup_all(f.bytes, pattern, pinned(RAX));
    }
    if wide && cx.ordering != Ordering::Plain {
        cx.m.dmb(Dmb::Ishst);
    }
    cx.m.bind(again);
    cx.m.cbz(f.size, rcx, done);
    if wide {
        chunks(cx, f, again);
    }
    step(cx, i, f);
    cx.m.sub_imm(f.size, rcx, rcx, 1);
    if cx.alone {
        cx.m.cbz(f.size, rcx, done);
    }
    let l = cx.step_again(again);
    cx.m.b(l);
    cx.m.bind(done);
}

/// All that fits before the end of a page or of the string: blocks, then the halves, quarters and so on of one, down to an element; then back to
/// `again` if that was anything. Falls through for one element: it crosses into the next page, or the operands overlap, or go backward.
fn chunks(cx: &mut Cx<'_>, f: &Form, again: crate::emit::Label) {
    const BLOCK: u32 = 32;
    let (rsi, rdi, rcx) = (pinned(RSI), pinned(RDI), pinned(RCX));
    let log = f.bytes.trailing_zeros();
    let (n, t, u) = (cx.tmp(), cx.tmp(), cx.tmp());
    let single = cx.m.label();
    cx.m.tbnz(f.df, 63, single);
    if f.op == Op::Movs {
        // A destination less than a block above the source reads what it wrote.
        cx.m.sub(Sz::X, t, rdi, rsi);
        cx.m.lsr(Sz::X, t, t, BLOCK.trailing_zeros());
        cx.m.cbz(Sz::X, t, single);
    }
    // n = the least of the bytes left and the bytes left in each page, without comparing: NZCV may be live.
    cx.m.movz(Sz::X, u, 4096, 0);
    page_left(cx, n, rdi, u);
    if f.op == Op::Movs {
        page_left(cx, t, rsi, u);
        least(cx, n, t);
    }
    // The count may be any 64-bit number: only its low part matters once it is known to be small.
    cx.m.lsr(Sz::X, t, rcx, 12);
    let many = cx.m.label();
    cx.m.cbnz(Sz::X, t, many);
    cx.m.lsl(Sz::X, t, rcx, log);
    least(cx, n, t);
    cx.m.bind(many);
    cx.m.lsr(Sz::X, t, n, BLOCK.trailing_zeros());
    let (copy, rest) = (cx.m.label(), cx.m.label());
    let (a, b) = match f.op {
        Op::Movs => (cx.vtmp(), cx.vtmp()),
        // The pattern.
        _ => (crate::emit::V(xrun_runtime::abi::VSCRATCH[0]), crate::emit::V(xrun_runtime::abi::VSCRATCH[0])),
    };
    let ordered = cx.ordering != Ordering::Plain;
    cx.m.cbz(Sz::X, t, rest);
    cx.m.bind(copy);
    cx.m.sub_imm(Sz::X, t, t, 1);
    if f.op == Op::Movs {
        cx.m.ldp_q(a, b, rsi, 0);
        if ordered {
            cx.m.dmb(Dmb::Ishld);
        }
        cx.m.stp_q_post(a, b, rdi, BLOCK as i32);
        cx.m.add_imm(Sz::X, rsi, rsi, BLOCK);
    } else {
        cx.m.stp_q_post(a, b, rdi, BLOCK as i32);
    }
    cx.m.sub_imm(Sz::X, rcx, rcx, BLOCK >> log);
    cx.m.cbnz(Sz::X, t, copy);
    cx.m.bind(rest);
    let mut size = BLOCK / 2;
    while size >= f.bytes {
        let without = cx.m.label();
        cx.m.tbz(n, size.trailing_zeros(), without);
        if f.op == Op::Movs {
            cx.m.ldr_v(size, a, Addr::Off(rsi, 0));
            if ordered {
                cx.m.dmb(Dmb::Ishld);
            }
            cx.m.str_v_post(size, a, rdi, size);
            cx.m.add_imm(Sz::X, rsi, rsi, size);
        } else {
            cx.m.str_v_post(size, a, rdi, size);
        }
        cx.m.sub_imm(Sz::X, rcx, rcx, size >> log);
        cx.m.bind(without);
        size /= 2;
    }
    cx.m.lsr(Sz::X, n, n, log);
    let l = cx.step_again(again);
    cx.m.cbnz(Sz::X, n, l);
    cx.m.bind(single);
}

/// `d` = bytes from `a` to the end of its page; `page` holds 4096.
fn page_left(cx: &mut Cx<'_>, d: X, a: X, page: X) {
    cx.m.ubfx(Sz::X, d, a, 0, 12);
    cx.m.sub(Sz::X, d, page, d);
}

/// `n` = the smaller of two numbers below 2^62, by the sign of their difference.
fn least(cx: &mut Cx<'_>, n: X, other: X) {
    let d = crate::isa::cx::LINK;
    cx.m.sub(Sz::X, d, other, n);
    cx.m.and_asr(Sz::X, d, d, d, 63);
    cx.m.add(Sz::X, n, n, d);
}

/// REPE and REPNE CMPS and SCAS. RCX = 0 on entry leaves the flags; else they are the last comparison's.
fn repeat_compare(cx: &mut Cx<'_>, i: &Instruction, f: &Form) {
    let rcx = pinned(RCX);
    let while_equal = !i.has_repne_prefix();
    let live = cx.live();
    let (again, out, done) = (cx.m.label(), cx.m.label(), cx.m.label());
    cx.m.cbz(f.size, rcx, done);
    cx.m.bind(again);
    let (a, b) = compare_step(cx, i, f);
    cx.m.sub_imm(f.size, rcx, rcx, 1);
    let t = cx.tmp();
    cx.m.eor(sz(f.bytes), t, a, b);
    if while_equal {
        cx.m.cbnz(sz(f.bytes), t, out);
    } else {
        cx.m.cbz(sz(f.bytes), t, out);
    }
    let l = cx.step_again(again);
    cx.m.cbnz(f.size, rcx, l);
    cx.m.bind(out);
    if !live.is_empty() {
        compute(cx, Arith::Sub, f.bytes, None, a, Src::Reg(b), true, live);
        // Both ways meet below in one form.
        cx.canonical(live);
    }
    cx.m.bind(done);
}

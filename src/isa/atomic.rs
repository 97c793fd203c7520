//! Atomic read-modify-write: the emission shared by all LOCK forms, and XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B (SDM vol. 2; vol. 3, 9.1).
//!
//! LSE instructions where the host has them, else LDAXR/STLXR loops. Both stay atomic under every ordering, since signal handlers and threads started
//! later see them. As barriers: an LSE form that writes is a full one, and every exclusive loop with a DMB ISH after it, since it always writes. A CAS that
//! fails does not write: its read may come before an earlier vector store took effect, and later loads with it (Arm ARM, B2.3.6). So it is done
//! once more after a DMB ISH, which puts the second one in order. `tests/ordering` has the proof.

use super::alu::{Arith, Src, compute};
use super::cx::{Cx, Ext, Nzcv, Place, pinned, sz};
use super::{Decline, Lowered};
use crate::emit::int::{Dmb, Lse};
use crate::emit::{Addr, Cond, Label, Sz, X, ZR};
use crate::guest::Flags;
use crate::rows;
use iced_x86::{Instruction, OpKind};
use xrun_runtime::engine::{FlagForm, Ordering, Trap};
use xrun_runtime::state::gpr::{RAX, RBX, RCX, RDX};

rows! { "atomic";
    Xchg => |cx, i| xchg(cx, i),
    Xadd => |cx, i| xadd(cx, i),
    Cmpxchg => |cx, i| cmpxchg(cx, i),
    Cmpxchg8b => |cx, i| cmpxchg8b(cx, i),
    Cmpxchg16b => |cx, i| cmpxchg16b(cx, i),
}

impl<'a> Cx<'a> {
    /// The barrier after an exclusive loop or a failed compare-and-swap.
    fn barrier(&mut self) {
        if self.ordering != Ordering::Plain {
            self.m.dmb(Dmb::Ish);
        }
    }

    /// Atomically replaces the `bytes` at `at` by `op` of them and `s`; the old value, zero-extended, comes back in a scratch register.
    /// NZCV is left alone.
    pub fn atomic(&mut self, op: Lse, bytes: u32, s: X, at: Addr) -> X {
        self.access();
        if self.lse() {
            let n = self.take_addr(at);
            let old = self.tmp();
            // Never XZR as the destination: that form does not acquire (Arm ARM, LDADD).
            self.m.lse(op, bytes, s, old, n);
            return old;
        }
        self.atomic_loop(bytes, at, |cx, new, old| match op {
            Lse::Add => cx.m.add(Sz::X, new, old, s),
            Lse::Clr => cx.m.bic(Sz::X, new, old, s),
            Lse::Eor => cx.m.eor(Sz::X, new, old, s),
            Lse::Set => cx.m.orr(Sz::X, new, old, s),
            Lse::Swp => cx.m.mov(Sz::X, new, s),
        })
    }

    /// As [`Cx::atomic`], for any function: `f(cx, new, old)` emits it, without changing NZCV, PF or AF and without memory accesses.
    pub fn atomic_loop(&mut self, bytes: u32, at: Addr, f: impl FnOnce(&mut Cx<'a>, X, X)) -> X {
        self.access();
        let n = self.take_addr(at);
        let old = self.tmp();
        let kept = self.tmp;
        let new = self.tmp();
        let again = self.m.label();
        self.m.bind(again);
        self.exclusive_load(bytes, old, n);
        f(self, new, old);
        self.exclusive_store(bytes, crate::isa::cx::LINK, new, n, again);
        self.barrier();
        self.tmp = kept;
        old
    }

    /// LDAXR; when unaligned addresses are expected, a plain load for those, which an exclusive one does not take. Uses LINK.
    fn exclusive_load(&mut self, bytes: u32, d: X, n: X) {
        self.if_aligned(
            bytes,
            n,
            |cx| cx.m.ldaxr(bytes, d, n),
            |cx| {
                cx.m.dmb(Dmb::Ish);
                cx.m.ldr(bytes, d, Addr::Off(n, 0));
            },
        );
    }

    /// STLXR and back to `again` when it failed; else as [`Cx::exclusive_load`]. `status` may be LINK.
    fn exclusive_store(&mut self, bytes: u32, status: X, v: X, n: X, again: Label) {
        self.if_aligned(
            bytes,
            n,
            |cx| {
                cx.m.stlxr(bytes, status, v, n);
                cx.m.cbnz(Sz::W, status, again);
            },
            |cx| {
                cx.m.dmb(Dmb::Ish);
                cx.m.str(bytes, v, Addr::Off(n, 0));
            },
        );
    }

    fn if_aligned(&mut self, bytes: u32, n: X, yes: impl FnOnce(&mut Self), no: impl FnOnce(&mut Self)) {
        if self.ordering != Ordering::Fenced || bytes == 1 {
            return yes(self);
        }
        let (odd, done) = (self.m.label(), self.m.label());
        let t = crate::isa::cx::LINK;
        self.m.and_imm(Sz::X, t, n, u64::from(bytes - 1));
        self.m.cbnz(Sz::X, t, odd);
        yes(self);
        self.m.b(done);
        self.m.bind(odd);
        no(self);
        self.m.bind(done);
    }

    /// Stores `new` at `[n]` if the `bytes` there equal the low part of `expected`; what was there comes back zero-extended. NZCV is that of comparing
    /// `expected` with it for 4 and 8 bytes, and only tells EQ from NE for 1 and 2; it changes after the last access.
    fn compare_and_swap(&mut self, bytes: u32, expected: X, new: X, n: X) -> X {
        let (size, narrow) = (sz(bytes), bytes < 4);
        let diff = self.tmp();
        let differ = move |cx: &mut Cx<'_>, old: X| {
            cx.m.eor(size, diff, old, expected);
            if narrow {
                cx.m.lsl(Sz::W, diff, diff, 32 - 8 * bytes);
            }
        };
        let old = if self.lse() {
            let old = self.tmp();
            self.access();
            self.cas_twice(size, diff, move |cx| {
                cx.m.mov(size, old, expected);
                cx.m.casal(bytes, old, new, n);
                // Whether it failed: only cas_twice asks.
                if cx.ordering != Ordering::Plain {
                    differ(cx, old);
                }
            });
            old
        } else {
            // x86 writes the old value back when they differ, so a page that cannot be written faults either way.
            self.atomic_loop(bytes, Addr::Off(n, 0), |cx, v, old| {
                let store = cx.m.label();
                differ(cx, old);
                cx.m.mov(size, v, old);
                cx.m.cbnz(size, diff, store);
                cx.m.mov(size, v, new);
                cx.m.bind(store);
            })
        };
        if narrow {
            self.m.cmp_ext(Sz::W, old, expected, bytes, false);
        } else {
            self.m.subs(size, ZR, expected, old);
        }
        old
    }

    /// Whether LSE instructions are used: [`Ordering::Fenced`] has to look at the alignment first.
    fn lse(&self) -> bool {
        self.host.lse && self.ordering != Ordering::Fenced
    }

    /// A compare-and-swap by `attempt`, which leaves zero in `diff` when it succeeded and keeps NZCV; where order counts one that failed is
    /// done again after a barrier. It needs no third: failing, the second one's read is in order.
    fn cas_twice(&mut self, size: Sz, diff: X, attempt: impl Fn(&mut Cx<'a>) + 'a) {
        attempt(self);
        if self.ordering != Ordering::Plain {
            let back = self.m.label();
            let failed = self.cold(move |cx| {
                cx.m.dmb(Dmb::Ish);
                attempt(cx);
                cx.m.b(back);
            });
            self.m.cbnz(size, diff, failed);
            self.m.bind(back);
        }
    }
}

fn xchg(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (a, b) = (cx.place(i, 0)?, cx.place(i, 1)?);
    // The assembler may put memory on either side.
    let (a, b) = if b.is_mem() { (b, a) } else { (a, b) };
    if let Place::Mem { at, bytes } = a {
        let s = cx.get(b, Ext::Any);
        if bytes >= 4 && cx.lse() {
            cx.access();
            let n = cx.take_addr(at);
            cx.m.lse(Lse::Swp, bytes, s, s, n);
            return Ok(());
        }
        let old = cx.atomic(Lse::Swp, bytes, s, at);
        cx.set(b, old);
        return Ok(());
    }
    let (Place::Reg { x: xa, bytes, .. }, Place::Reg { x: xb, .. }) = (a, b) else {
        return Err(Decline::Unsupported("operand kind"));
    };
    if bytes == 8 && xa == xb {
        return Ok(());
    }
    if bytes >= 4 {
        let t = cx.tmp();
        cx.m.mov(sz(bytes), t, xa);
        cx.m.mov(sz(bytes), xa, xb);
        cx.m.mov(sz(bytes), xb, t);
        return Ok(());
    }
    let t = cx.tmp();
    let (va, vb) = (cx.get(a, Ext::Any), cx.get(b, Ext::Any));
    cx.m.mov(Sz::W, t, va);
    cx.set(a, vb);
    cx.set(b, t);
    Ok(())
}

fn xadd(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (dst, second) = (cx.place(i, 0)?, cx.place(i, 1)?);
    let live = cx.live();
    let bytes = dst.bytes();
    let b = cx.get(second, Ext::Any);
    if let Place::Mem { at, .. } = dst
        && i.has_lock_prefix()
    {
        let old = cx.atomic(Lse::Add, bytes, b, at);
        if !live.is_empty() {
            compute(cx, Arith::Add, bytes, None, old, Src::Reg(b), false, live);
            cx.store_pa(live);
        }
        cx.set(second, old);
        return Ok(());
    }
    let a = cx.get(dst, Ext::Any);
    let (old, r) = (cx.tmp(), cx.tmp());
    cx.m.mov(Sz::X, old, a);
    compute(cx, Arith::Add, bytes, Some(r), old, Src::Reg(b), false, live);
    // The source is about to change: nothing may be left to be derived from it.
    cx.store_pa(live);
    if dst.is_mem() {
        cx.set(dst, r);
        cx.set(second, old);
    } else {
        // With one register in both places the sum is what stays.
        cx.set(second, old);
        cx.set(dst, r);
    }
    Ok(())
}

fn cmpxchg(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (dst, src) = (cx.place(i, 0)?, cx.place(i, 1)?);
    let live = cx.live();
    let bytes = dst.bytes();
    let size = sz(bytes);
    let rax = pinned(RAX);
    let new = cx.get(src, Ext::Any);
    let (old, replace);
    if let Place::Mem { at, .. } = dst {
        // Without LOCK it is atomic too: cheaper than a second way, and never wrong.
        let n = cx.take_addr(at);
        old = cx.compare_and_swap(bytes, rax, new, n);
        replace = None;
    } else {
        let v = cx.get(dst, Ext::Zero);
        old = cx.tmp();
        cx.m.mov(size, old, v);
        if bytes < 4 {
            cx.m.cmp_ext(Sz::W, old, rax, bytes, false);
        } else {
            cx.m.subs(size, ZR, rax, old);
        }
        let t = cx.tmp();
        // Not equal: the register is left alone, its upper half included.
        cx.m.mov(Sz::X, t, v);
        let d = cx.tmp();
        cx.m.mov(size, d, new);
        cx.m.csel(Sz::X, t, d, t, Cond::Eq);
        replace = Some(t);
    }
    // The accumulator afterwards. Equal: RAX is left alone, the upper half included.
    let acc = cx.tmp();
    let late = dst.is_mem() && bytes >= 4;
    if !late {
        cx.m.csel(Sz::X, acc, rax, old, Cond::Eq);
    }
    // The flags are those of comparing the accumulator with the destination. NZCV holds them already, all of them or Z.
    let held = if bytes < 4 { Flags::Z } else { Flags::NZCV };
    cx.set_form(if bytes < 4 { FlagForm::Direct } else { FlagForm::CarryInverted });
    let nzcv = live & Flags::NZCV;
    let rest = if held.contains(nzcv) { live.difference(nzcv) } else { live };
    if !rest.is_empty() {
        compute(cx, Arith::Sub, bytes, None, rax, Src::Reg(old), false, rest);
        // The accumulator is about to change: nothing may be left to be derived from it.
        cx.store_pa(live);
    }
    match (replace, dst) {
        (Some(t), Place::Reg { x, bytes: 4, .. }) => cx.m.mov(Sz::X, x, t),
        (Some(t), _) => cx.set(dst, t),
        (None, _) => {}
    }
    match dst {
        // Compared with itself: equal.
        Place::Reg { x, lsb: 0, .. } if x == rax => {}
        _ if late && bytes == 8 => cx.m.mov(Sz::X, rax, old),
        _ if late => cx.m.csel(Sz::X, rax, rax, old, Cond::Eq),
        _ if bytes < 4 => cx.m.bfi(Sz::X, rax, acc, 0, 8 * bytes),
        _ => cx.m.mov(Sz::X, rax, acc),
    }
    Ok(())
}

/// ZF alone changes: 1 when `diff` is zero. Leaves NZCV's Z telling it.
fn set_z(cx: &mut Cx<'_>, diff: X) {
    if cx.live_out().intersects(Flags::C | Flags::S | Flags::O | Flags::P | Flags::A) {
        let t = cx.tmp();
        cx.m.clz(Sz::X, t, diff);
        cx.insert_flags(&[(t, 6, Nzcv::Z)]);
    } else {
        cx.m.subs_imm(Sz::X, ZR, diff, 0);
        cx.set_form(FlagForm::Direct);
    }
}

fn cmpxchg8b(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if i.op0_kind() != OpKind::Memory {
        return Err(Decline::Undefined);
    }
    let at = cx.addr(i, 8);
    let n = cx.take_addr(at);
    let at = Addr::Off(n, 0);
    let (rax, rbx, rcx, rdx) = (pinned(RAX), pinned(RBX), pinned(RCX), pinned(RDX));
    let (expected, new) = (cx.tmp(), cx.tmp());
    cx.m.mov(Sz::W, expected, rax);
    cx.m.bfi(Sz::X, expected, rdx, 32, 32);
    cx.m.mov(Sz::W, new, rbx);
    cx.m.bfi(Sz::X, new, rcx, 32, 32);
    cx.settle();
    let diff = cx.tmp();
    let old = if cx.lse() {
        let old = cx.tmp();
        cx.access();
        cx.cas_twice(Sz::X, diff, move |cx| {
            cx.m.mov(Sz::X, old, expected);
            cx.m.casal(8, old, new, n);
            cx.m.eor(Sz::X, diff, old, expected);
        });
        old
    } else {
        // NZCV stays the guest's until the store is done: it may fault.
        cx.atomic_loop(8, at, |cx, v, old| {
            let store = cx.m.label();
            cx.m.eor(Sz::X, diff, old, expected);
            cx.m.mov(Sz::X, v, old);
            cx.m.cbnz(Sz::X, diff, store);
            cx.m.mov(Sz::X, v, new);
            cx.m.bind(store);
        })
    };
    // Equal: the halves are left alone, their upper halves included.
    let (done, t) = (cx.m.label(), cx.tmp());
    cx.m.cbz(Sz::X, diff, done);
    cx.m.mov(Sz::W, rax, old);
    cx.m.lsr(Sz::X, t, old, 32);
    cx.m.mov(Sz::X, rdx, t);
    cx.m.bind(done);
    set_z(cx, diff);
    Ok(())
}

fn cmpxchg16b(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    if i.op0_kind() != OpKind::Memory {
        return Err(Decline::Undefined);
    }
    let at = cx.addr(i, 16);
    let n = cx.take_addr(at);
    cx.settle();
    // #GP when not aligned to 16, before anything is touched.
    let t = cx.tmp();
    cx.m.and_imm(Sz::X, t, n, 15);
    let misaligned = cx.trap_label(Trap::GeneralProtection);
    cx.m.cbnz(Sz::X, t, misaligned);
    let (rax, rbx, rcx, rdx) = (pinned(RAX), pinned(RBX), pinned(RCX), pinned(RDX));
    let (lo, hi) = cx.tmp_pair();
    let diff = t;
    if cx.host.lse {
        let (new_lo, new_hi) = cx.tmp_pair();
        cx.cas_twice(Sz::X, diff, move |cx| {
            cx.m.mov(Sz::X, lo, rax);
            cx.m.mov(Sz::X, hi, rdx);
            cx.m.mov(Sz::X, new_lo, rbx);
            cx.m.mov(Sz::X, new_hi, rcx);
            cx.m.caspal(lo, new_lo, n);
            cx.m.eor(Sz::X, diff, lo, rax);
            cx.m.eor(Sz::X, new_lo, hi, rdx);
            cx.m.orr(Sz::X, diff, diff, new_lo);
        });
    } else {
        let (again, store) = (cx.m.label(), cx.m.label());
        let (w_lo, w_hi) = (cx.tmp(), cx.tmp());
        cx.m.bind(again);
        cx.m.ldaxp(lo, hi, n);
        cx.m.eor(Sz::X, diff, lo, rax);
        cx.m.eor(Sz::X, w_hi, hi, rdx);
        cx.m.orr(Sz::X, diff, diff, w_hi);
        // A pair load is only known to be single-copy atomic when the store succeeds: store the old value back if they differ.
        cx.m.mov(Sz::X, w_lo, lo);
        cx.m.mov(Sz::X, w_hi, hi);
        cx.m.cbnz(Sz::X, diff, store);
        cx.m.mov(Sz::X, w_lo, rbx);
        cx.m.mov(Sz::X, w_hi, rcx);
        cx.m.bind(store);
        cx.m.stlxp(crate::isa::cx::LINK, w_lo, w_hi, n);
        cx.m.cbnz(Sz::W, crate::isa::cx::LINK, again);
        cx.barrier();
    }
    // Equal: both moves change nothing.
    cx.m.mov(Sz::X, rax, lo);
    cx.m.mov(Sz::X, rdx, hi);
    set_z(cx, diff);
    Ok(())
}

//! Instructions that leave to the kernel, ask about the machine, order memory or handle flags one by one (SDM vol. 2).

use super::cx::{AF, Cx, Ext, LINK, Nzcv, PF, Place, STATE, pinned, sz};
use super::{Decline, Lowered};
use crate::emit::int::Dmb;
use crate::emit::{Addr, Sz, X, ZR};
use crate::guest::Flags;
use crate::rows;
use iced_x86::{Instruction, OpKind};
use std::mem::offset_of;
use xrun_runtime::engine::{FlagForm, Ordering, Trap, VDSO_NOP};
use xrun_runtime::helpers::Helper;
use xrun_runtime::state::CpuState;
use xrun_runtime::state::gpr::{RAX, RCX, RDI, RDX, RSI};

rows! { "system";
    Syscall => |cx, i| { cx.syscall(i.next_ip()); Ok(()) },
    Int3 => |cx, i| { cx.trap(Trap::Breakpoint, i.next_ip()); Ok(()) },
    Int1 => |cx, i| { cx.trap(Trap::DebugBreak, i.next_ip()); Ok(()) },
    Int => |cx, i| int(cx, i),
    Ud0 => |_, _| Err(Decline::Undefined),
    Ud1 => |_, _| Err(Decline::Undefined),
    Ud2 => |_, _| Err(Decline::Undefined),
    // SYSENTER faults in 64-bit mode on one maker's CPUs and enters a 32-bit kernel path on the other's: nobody uses it.
    Sysenter => |_, _| Err(Decline::Undefined),
    Cpuid => |cx, _| { helper(cx, Helper::Cpuid); Ok(()) },
    Rdtsc => |cx, _| { rdtsc(cx); Ok(()) },
    Rdtscp => |cx, _| rdtscp(cx),
    Rdpid => |cx, i| rdpid(cx, i),
    Rdrand => |cx, i| random(cx, i),
    Rdseed => |cx, i| random(cx, i),
    Rdfsbase => |cx, i| read_base(cx, i, offset_of!(CpuState, fs_base)),
    Rdgsbase => |cx, i| read_base(cx, i, offset_of!(CpuState, gs_base)),
    Wrfsbase => |cx, i| write_base(cx, i, offset_of!(CpuState, fs_base)),
    Wrgsbase => |cx, i| write_base(cx, i, offset_of!(CpuState, gs_base)),
    Serialize => |cx, _| fence(cx, Dmb::Ish),
    Movdiri => |cx, i| movdiri(cx, i),
    Movdir64b => |cx, i| movdir64b(cx, i),
    // A hint.
    Cldemote => |_, _| Ok(()),
    Mfence => |cx, _| fence(cx, Dmb::Ish),
    Lfence => |cx, _| fence(cx, Dmb::Ishld),
    Sfence => |cx, _| fence(cx, Dmb::Ishst),
    Pause => |cx, _| { cx.m.yield_(); Ok(()) },
    Prefetcht0 => |cx, i| prefetch(cx, i, 0), Prefetcht1 => |cx, i| prefetch(cx, i, 2), Prefetcht2 => |cx, i| prefetch(cx, i, 4),
    Prefetchnta => |cx, i| prefetch(cx, i, 1), Prefetchw => |cx, i| prefetch(cx, i, 16), Prefetchwt1 => |cx, i| prefetch(cx, i, 18),
    Prefetch => |cx, i| prefetch(cx, i, 0),
    Clflush => |cx, i| flush(cx, i),
    Clflushopt => |cx, i| flush(cx, i),
    Clwb => |cx, i| flush(cx, i),
    Nop => |cx, i| nop(cx, i),
    Reservednop => |_, _| Ok(()),
    Clc => |cx, _| { carry(cx, false); Ok(()) },
    Stc => |cx, _| { carry(cx, true); Ok(()) },
    Cmc => |cx, _| { complement(cx); Ok(()) },
    Cld => |cx, _| { direction(cx, 1); Ok(()) },
    Std => |cx, _| { direction(cx, -1); Ok(()) },
    Lahf => |cx, _| { lahf(cx); Ok(()) },
    Sahf => |cx, _| { sahf(cx); Ok(()) },
    Hlt => privileged, Cli => privileged, Sti => privileged, In => privileged, Out => privileged, Clts => privileged,
    Rdmsr => privileged, Wrmsr => privileged, Rdpmc => privileged, Invd => privileged, Wbinvd => privileged, Invlpg => privileged,
    Lgdt => privileged, Lidt => privileged, Lldt => privileged, Ltr => privileged, Lmsw => privileged, Swapgs => privileged,
    Wbnoinvd => privileged,
    Sysexit => privileged, Sysret => privileged, Sysexitq => privileged, Sysretq => privileged,
    Xsetbv => |_, _| Err(Decline::Undefined),
}

/// In the vDSO, one NOP with a certain displacement calls the runtime.
fn nop(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let d = i.memory_displacement32();
    if cx.region.vdso && i.op0_kind() == OpKind::Memory && d & 0xffff_0000 == VDSO_NOP {
        cx.m.mov_imm(X(0), u64::from(d & 0xffff));
        cx.m.mov(Sz::X, X(1), pinned(RDI));
        cx.m.mov(Sz::X, X(2), pinned(RSI));
        cx.call_pure(Helper::Vdso);
        cx.m.mov(Sz::X, pinned(RAX), X(0));
        cx.m.ldp(pinned(RCX), pinned(RDX), STATE, offset_of!(CpuState, spill) as i32);
    }
    Ok(())
}

/// #GP(0): what only the kernel may do.
fn privileged(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    cx.trap(Trap::GeneralProtection, i.ip());
    Ok(())
}

/// INT n: user code may use 3 and 4, and 0x80, which Linux opens; any other gate is closed to it.
fn int(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    match i.immediate8() {
        3 => cx.trap(Trap::Breakpoint, i.next_ip()),
        4 => cx.trap(Trap::Overflow, i.next_ip()),
        0x80 => cx.trap(Trap::SoftInt, i.next_ip()),
        // The error code names the gate.
        n => cx.trap_with(Trap::GeneralProtection, i.ip(), u16::from(n) << 3 | 2),
    }
    Ok(())
}

/// Calls a helper that sees the whole state.
fn helper(cx: &mut Cx<'_>, h: Helper) {
    let live = cx.live_out();
    cx.canonical(live);
    cx.call_helper(h);
}

/// The time-stamp counter: the host's counter, scaled to the rate x86 code expects.
fn rdtsc(cx: &mut Cx<'_>) {
    let t = cx.tmp();
    cx.m.mrs_cntvct(t);
    if cx.host.tsc_shift != 0 {
        let by = u32::from(cx.host.tsc_shift);
        cx.m.lsl(Sz::X, t, t, by);
    }
    cx.m.mov(Sz::W, pinned(RAX), t);
    cx.m.lsr(Sz::X, pinned(RDX), t, 32);
}

fn rdtscp(cx: &mut Cx<'_>) -> Lowered {
    cx.call_pure(Helper::TscAux);
    cx.m.mov(Sz::W, pinned(RCX), X(0));
    rdtsc(cx);
    Ok(())
}

fn rdpid(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    cx.call_pure(Helper::TscAux);
    cx.set(dst, X(0));
    Ok(())
}

/// CF = 1, a number was there; the other flags are cleared.
fn random(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let dst = cx.place(i, 0)?;
    cx.call_pure(Helper::Random);
    cx.set(dst, X(0));
    if cx.live().intersects(Flags::NZCV) {
        let t = cx.tmp();
        cx.m.movz(Sz::W, t, 0x2000, 1);
        cx.m.msr_nzcv(t);
        cx.set_form(FlagForm::Direct);
    }
    if cx.live().intersects(Flags::P | Flags::A) {
        cx.m.movz(Sz::W, PF, 1, 0);
        cx.m.movz(Sz::W, AF, 1, 0);
    }
    cx.forget_pa();
    Ok(())
}

fn read_base(cx: &mut Cx<'_>, i: &Instruction, offset: usize) -> Lowered {
    let dst = cx.place(i, 0)?;
    let d = cx.target(dst);
    cx.m.ldr(dst.bytes(), d, Addr::Off(STATE, offset as i32));
    Ok(())
}

/// #GP when the address is not canonical for 48 bits.
fn write_base(cx: &mut Cx<'_>, i: &Instruction, offset: usize) -> Lowered {
    let src = cx.place(i, 0)?;
    let v = cx.get(src, Ext::Any);
    let t = cx.tmp();
    if src.bytes() == 8 {
        let bad = cx.trap_label(Trap::GeneralProtection);
        cx.m.sbfx(Sz::X, t, v, 0, 48);
        cx.m.eor(Sz::X, t, t, v);
        cx.m.cbnz(Sz::X, t, bad);
    }
    cx.m.mov(sz(src.bytes()), t, v);
    cx.m.str(8, t, Addr::Off(STATE, offset as i32));
    Ok(())
}

fn fence(cx: &mut Cx<'_>, kind: Dmb) -> Lowered {
    if cx.ordering != Ordering::Plain {
        cx.m.dmb(kind);
    }
    Ok(())
}

/// MOVDIRI: a store.
fn movdiri(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let (dst, src) = (cx.place(i, 0)?, cx.place(i, 1)?);
    let v = cx.get(src, Ext::Any);
    cx.set(dst, v);
    Ok(())
}

/// MOVDIR64B: 64 bytes to the address in a register, in ES, which has no base; a multiple of 64, else #GP.
fn movdir64b(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let to = i.op0_register();
    let (Some((to, ..)), narrow) = (super::cx::gpr(to), to.size() == 4) else {
        return Err(Decline::Undefined);
    };
    let from = cx.lea(i, true);
    let (d, t) = (cx.tmp(), cx.tmp());
    cx.m.mov(if narrow { Sz::W } else { Sz::X }, d, to);
    let bad = cx.trap_label(Trap::GeneralProtection);
    cx.m.and_imm(Sz::X, t, d, 63);
    cx.m.cbnz(Sz::W, t, bad);
    let parts = [cx.vtmp(), cx.vtmp(), cx.vtmp(), cx.vtmp()];
    for (n, v) in parts.into_iter().enumerate() {
        cx.load_v(16, v, Addr::Off(from, 16 * n as i32));
    }
    for (n, v) in parts.into_iter().enumerate() {
        cx.store_v(16, v, Addr::Off(d, 16 * n as i32));
    }
    Ok(())
}

fn prefetch(cx: &mut Cx<'_>, i: &Instruction, op: u32) -> Lowered {
    if i.op0_kind() != OpKind::Memory {
        return Err(Decline::Undefined);
    }
    let n = cx.lea(i, true);
    cx.m.prfm(op, n);
    Ok(())
}

/// CLFLUSH and its kind read like a load of one byte, faults included, and change nothing a program can see.
fn flush(cx: &mut Cx<'_>, i: &Instruction) -> Lowered {
    let at = cx.addr(i, 1);
    let t = cx.tmp();
    cx.load(1, t, at);
    Ok(())
}

/// CLC, STC.
fn carry(cx: &mut Cx<'_>, set: bool) {
    if !cx.live().contains(Flags::C) {
        return;
    }
    cx.settle();
    if cx.live_out().intersects(Flags::S | Flags::Z | Flags::O) {
        if set {
            let t = cx.tmp();
            cx.m.movz(Sz::W, t, 1, 0);
            cx.insert_flags(&[(t, 0, Nzcv::C)]);
        } else {
            cx.insert_flags(&[(ZR, 0, Nzcv::C)]);
        }
        return;
    }
    if set {
        cx.m.subs(Sz::W, ZR, ZR, ZR);
    } else {
        cx.m.adds(Sz::W, ZR, ZR, ZR);
    }
    cx.set_form(FlagForm::Direct);
}

/// CMC: the other form is the other value.
fn complement(cx: &mut Cx<'_>) {
    cx.settle();
    let other = match cx.form() {
        FlagForm::CarryInverted => FlagForm::Direct,
        _ => FlagForm::CarryInverted,
    };
    cx.set_form(other);
}

fn direction(cx: &mut Cx<'_>, v: i64) {
    let t = cx.tmp();
    cx.m.mov_imm(t, v as u64);
    cx.m.str(8, t, Addr::Off(STATE, offset_of!(CpuState, df) as i32));
}

/// AH = SF ZF 0 AF 0 PF 1 CF.
fn lahf(cx: &mut Cx<'_>) {
    cx.canonical(Flags::all());
    let (r, t) = (cx.tmp(), cx.tmp());
    cx.m.mrs_nzcv(LINK);
    cx.m.lsr(Sz::W, r, LINK, 30);
    cx.m.lsl(Sz::W, r, r, 6);
    cx.m.ubfx(Sz::W, t, LINK, 29, 1);
    cx.m.orr(Sz::W, r, r, t);
    // PF: set for even parity of the low byte.
    cx.m.eor_lsr(Sz::W, t, PF, PF, 4);
    cx.m.eor_lsr(Sz::W, t, t, t, 2);
    cx.m.eor_lsr(Sz::W, t, t, t, 1);
    cx.m.mvn(Sz::W, t, t);
    cx.m.ubfx(Sz::W, t, t, 0, 1);
    cx.m.orr_lsl(Sz::W, r, r, t, 2);
    cx.m.eor(Sz::W, t, PF, AF);
    cx.m.and_imm(Sz::W, t, t, 0x10);
    cx.m.orr(Sz::W, r, r, t);
    cx.m.orr_imm(Sz::W, r, r, 2);
    cx.m.bfi(Sz::X, pinned(RAX), r, 8, 8);
}

/// SF ZF AF PF CF from AH; OF stays.
fn sahf(cx: &mut Cx<'_>) {
    let rax = pinned(RAX);
    let live = cx.live();
    if live.intersects(Flags::NZCV) {
        cx.insert_flags(&[(rax, 15, Nzcv::N), (rax, 14, Nzcv::Z), (rax, 8, Nzcv::C)]);
    }
    if live.intersects(Flags::P | Flags::A) {
        let t = cx.get(Place::Reg { x: rax, lsb: 8, bytes: 1 }, Ext::Zero);
        // One bit has odd parity.
        cx.m.ubfx(Sz::W, PF, t, 2, 1);
        cx.m.eor_imm(Sz::W, PF, PF, 1);
        cx.m.eor(Sz::W, AF, PF, t);
    }
    cx.forget_pa();
}

//! The assembly itself. Register roles are those of [`crate::abi`]; offsets come from the structs, not from typed numbers.
//!
//! Frame of `xrun_enter`, kept at `CpuState::host_sp` while translated code runs: x29, x30, x19-x28, d8-d15 (AAPCS64, 6.1.1 and 6.1.2).

use crate::state::CpuState;
use crate::thread::Thread;
use std::mem::offset_of;

unsafe extern "C" {
    pub fn xrun_enter(cpu: *mut CpuState, host_pc: u64);
    pub fn xrun_window();
    pub fn xrun_window_end();
    pub fn xrun_leave();
    pub fn xrun_direct();
    pub fn xrun_indirect();
    pub fn xrun_syscall();
    pub fn xrun_syscall_again();
    pub fn xrun_call();
    pub fn xrun_call_done();
    pub fn xrun_call_end();
    pub fn xrun_call_leave();
    pub fn xrun_trap();
    pub fn xrun_stale();
    pub fn xrun_return_miss();
    pub fn xrun_never();
    pub fn xrun_helper();
    pub fn xrun_helper_pure();
    pub fn xrun_out();
    pub fn xrun_out_end();
    pub fn xrun_pure_out();
    pub fn xrun_pure_out_end();
}

// The pairs below are spelled out in the order of `abi::GPR`.
const _: () = {
    let want = [19, 20, 21, 22, 23, 24, 25, 26, 27, 29, 12, 13, 14, 15, 16, 17];
    let mut i = 0;
    while i < 16 {
        assert!(crate::abi::GPR[i] == want[i]);
        i += 1;
    }
    assert!(crate::abi::STATE == 28 && crate::abi::SHADOW == 18 && crate::abi::PF == 10 && crate::abi::AF == 11);
    assert!(offset_of!(CpuState, af) == offset_of!(CpuState, pf) + 8);
    assert!(offset_of!(CpuState, other_flags) == offset_of!(CpuState, df) + 8);
    assert!(offset_of!(Thread, cpu) == 0);
};

std::arch::global_asm!(
    r#"
    .macro xrun_gpr op
        \op x19, x20, [x28, #{gpr}]
        \op x21, x22, [x28, #{gpr}+16]
        \op x23, x24, [x28, #{gpr}+32]
        \op x25, x26, [x28, #{gpr}+48]
        \op x27, x29, [x28, #{gpr}+64]
    .endm
    .macro xrun_gpr_volatile op
        \op x12, x13, [x28, #{gpr}+80]
        \op x14, x15, [x28, #{gpr}+96]
        \op x16, x17, [x28, #{gpr}+112]
        \op x10, x11, [x28, #{pf}]
    .endm
    .macro xrun_xmm op
        \op q16, q17, [x28, #{xmm}]
        \op q18, q19, [x28, #{xmm}+32]
        \op q20, q21, [x28, #{xmm}+64]
        \op q22, q23, [x28, #{xmm}+96]
        \op q24, q25, [x28, #{xmm}+128]
        \op q26, q27, [x28, #{xmm}+160]
        \op q28, q29, [x28, #{xmm}+192]
        \op q30, q31, [x28, #{xmm}+224]
    .endm
    // Everything pinned to CpuState. Uses x3.
    .macro xrun_store
        xrun_gpr stp
        xrun_gpr_volatile stp
        mrs x3, nzcv
        str x3, [x28, #{nzcv}]
        str x18, [x28, #{shadow}]
        mrs x3, fpsr
        str x3, [x28, #{fpsr}]
        xrun_xmm stp
    .endm
    // Everything pinned from CpuState, the guest's FPCR included. Uses x3, x4.
    .macro xrun_load
        mrs x3, fpcr
        ldr x4, [x28, #{guest_fpcr}]
        cmp x3, x4
        b.eq 1f
        msr fpcr, x4
    1:  ldr x3, [x28, #{fpsr}]
        msr fpsr, x3
        ldr x18, [x28, #{shadow}]
        ldr x3, [x28, #{nzcv}]
        msr nzcv, x3
        xrun_xmm ldp
        xrun_gpr_volatile ldp
        xrun_gpr ldp
    .endm
    // The host's FPCR, if the guest's differs. Uses x3, x4, NZCV.
    .macro xrun_host_fpcr
        mrs x3, fpcr
        ldr x4, [x28, #{host_fpcr}]
        cmp x3, x4
        b.eq 1f
        msr fpcr, x4
    1:
    .endm

    // Calls helper number x9 with the state and x0 to x2.
    .macro xrun_call_helper
        ldr x5, [x28, #{helpers}]
        ldr x5, [x5, x9, lsl #3]
        mov x3, x2
        mov x2, x1
        mov x1, x0
        mov x0, x28
        blr x5
    .endm

    // To xrun_syscall_slow if the pointer in `reg`, of which `bit` of w8 tells, is no address of the guest's. Uses x1.
    .macro xrun_pointer bit, reg
        tbz w8, #\bit, 1f
        add x1, \reg, #1, lsl #12
        lsr x1, x1, #47
        cbnz x1, xrun_syscall_slow
    1:
    .endm

    .text
    .balign 64
    .global xrun_enter
    .hidden xrun_enter
xrun_enter:
    stp x29, x30, [sp, #-160]!
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x28, x0
    mov x3, sp
    str x3, [x28, #{host_sp}]
    str xzr, [x28, #{reason}]
    .global xrun_window
    .hidden xrun_window
xrun_window:
    ldr w3, [x28, #{pending}]
    cbnz w3, xrun_leave
    xrun_load
    br x1
    .global xrun_window_end
    .hidden xrun_window_end
xrun_window_end:

    .balign 16
    .global xrun_direct
    .hidden xrun_direct
xrun_direct:
    xrun_store
    ldr x0, [x30]
    str x30, [x28, #{arg}]
    mov x5, #{r_direct}
    b xrun_leave_with

    .global xrun_never
    .hidden xrun_never
xrun_never:
    mov x0, #-1
    .global xrun_indirect
    .hidden xrun_indirect
xrun_indirect:
    xrun_store
    mov x5, #{r_indirect}
    b xrun_leave_with

    // A call that the host takes as it is (`CpuState::calls`) is made from here, with nothing stored: the kernel changes no register but
    // x0. NZCV stays as it is up to the end.
    .balign 16
    .global xrun_syscall
    .hidden xrun_syscall
xrun_syscall:
    lsr x1, x19, #{calls_bits}
    cbnz x1, xrun_syscall_slow
    ldr x1, [x28, #{calls}]
    ldr w8, [x1, x19, lsl #2]
    tbnz w8, #{more_bit}, 6f
    // RCX and R11 as SYSCALL leaves them (SDM vol. 2); R11 is put together as `CpuState::eflags` does it. x3 to x5 are arguments already.
2:  mov x20, x0
    ldp x1, x2, [x28, #{df}]
    and w13, w1, #1 << 10
    mrs x1, nzcv
    orr w13, w13, w2
    lsr w2, w1, #30
    bfi w13, w2, #6, #2
    lsr w2, w1, #28
    bfi w13, w2, #11, #1
    bfxil w13, w1, #29, #1
    eor w2, w10, w10, lsr #4
    eor w2, w2, w2, lsr #2
    eon w2, w2, w2, lsr #1
    bfi w13, w2, #2, #1
    eor w2, w10, w11
    and w2, w2, #1 << 4
    orr w13, w13, w2
    mov x0, x26
    mov x1, x25
    mov x2, x21
    // A handler that interrupts from here on, with the call still to be made, goes to xrun_syscall_again.
    .global xrun_call
    .hidden xrun_call
xrun_call:
    ldr w9, [x28, #{pending}]
    cbnz w9, xrun_syscall_again
    svc #0
    // And one that interrupts from here on goes to xrun_call_leave.
    .global xrun_call_done
    .hidden xrun_call_done
xrun_call_done:
    tbnz x0, #63, 5f
4:  mov x19, x0
    ret
5:  add x1, x0, #{efault}
    cbnz x1, 7f
    // Nothing was kept from the kernel when the call began; now something is.
    adrp x1, {protected}
    ldrb w1, [x1, #:lo12:{protected}]
    cbz w1, 4b
    b xrun_syscall_again
7:  add x1, x0, #{eintr}
    cbnz x1, 4b
    .global xrun_call_end
    .hidden xrun_call_end
xrun_call_end:
    // Where a handler sends a thread from between the last two: the result is in x0, and the dispatcher looks at `pending`.
    .global xrun_call_leave
    .hidden xrun_call_leave
xrun_call_leave:
    add x1, x0, #{eintr}
    cbnz x1, 4f
    // The guest must not see that the runtime interrupted a call for its own ends.
    ldr w9, [x28, #{pending}]
    tbnz w9, #{signal_bit}, 4f
    cbnz w9, xrun_syscall_again
4:  mov x19, x0
    mov x0, x20
    xrun_store
    mov x5, #{r_resume}
    b xrun_leave_with
    .global xrun_syscall_again
    .hidden xrun_syscall_again
xrun_syscall_again:
    mov x0, x20
xrun_syscall_slow:
    xrun_store
    mov x5, #{r_syscall}
    b xrun_leave_with
6:  tbz w8, #{direct_bit}, 8f
    tbz w8, #{long_bit}, 7f
    mov x3, x12
    mov x4, x27
    mov x5, x29
7:  tbz w8, #{pointers_bit}, 9f
    // Pointers must lie below the guest's address limit (2^47 less a page), and no page may be kept from the kernel: bit 16 + n of the table's word is
    // set for argument n. Sums past 2^64 name the kernel's memory on either machine.
    adrp x1, {protected}
    ldrb w1, [x1, #:lo12:{protected}]
    cbnz w1, xrun_syscall_slow
    xrun_pointer 16, x26
    xrun_pointer 17, x25
    xrun_pointer 18, x21
    xrun_pointer 19, x12
    xrun_pointer 20, x27
    xrun_pointer 21, x29
9:  uxth w8, w8
    b 2b
    // rt_sigreturn: registers come from the frame, and code at the place it leads to is entered as from the dispatcher.
8:  tbz w8, #{sigreturn_bit}, xrun_syscall_slow
    xrun_store
    str x0, [x28, #{rip}]
    xrun_host_fpcr
    mov x0, x28
    bl xrun_sigreturn
    mov x1, x0
    cbnz x0, xrun_window
    b xrun_leave

    .global xrun_trap
    .hidden xrun_trap
xrun_trap:
    xrun_store
    str x1, [x28, #{arg}]
    mov x5, #{r_trap}
    b xrun_leave_with

    .global xrun_stale
    .hidden xrun_stale
xrun_stale:
    xrun_store
    str x1, [x28, #{arg}]
    mov x5, #{r_stale}
    b xrun_leave_with

    .global xrun_return_miss
    .hidden xrun_return_miss
xrun_return_miss:
    xrun_store
    mov x5, #{r_return}

    // x0 = guest address to continue at, x5 = reason.
xrun_leave_with:
    str x0, [x28, #{rip}]
    str x5, [x28, #{reason}]
    .global xrun_leave
    .hidden xrun_leave
xrun_leave:
    xrun_host_fpcr
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x29, x30, [sp], #160
    ret

    // Between xrun_out or xrun_pure_out and their ends, `pending` was looked at and the thread is about to return to translated
    // code: a handler there must treat it as being at the return address already.
    .balign 16
    .global xrun_helper
    .hidden xrun_helper
xrun_helper:
    xrun_store
    str x30, [x28, #{helper_return}]
    xrun_host_fpcr
    xrun_call_helper
    ldr x3, [x28, #{reason}]
    cbnz x3, xrun_leave
    .global xrun_out
    .hidden xrun_out
xrun_out:
    ldr w3, [x28, #{pending}]
    cbnz w3, 3f
2:  ldr x30, [x28, #{helper_return}]
    xrun_load
    str xzr, [x28, #{helper_return}]
    ret
    .global xrun_out_end
    .hidden xrun_out_end
xrun_out_end:
3:  mov x19, x0
    mov x0, x28
    bl xrun_helper_pending
    mov x0, x19
    b 2b

    .balign 16
    .global xrun_helper_pure
    .hidden xrun_helper_pure
xrun_helper_pure:
    xrun_gpr_volatile stp
    mrs x3, nzcv
    str x3, [x28, #{nzcv}]
    str x18, [x28, #{shadow}]
    xrun_xmm stp
    orr x3, x30, #1
    str x3, [x28, #{helper_return}]
    xrun_call_helper
    .global xrun_pure_out
    .hidden xrun_pure_out
xrun_pure_out:
    ldr w3, [x28, #{pending}]
    cbz w3, 2f
    str x0, [x28, #{spill}]
    mov x0, x28
    bl xrun_helper_pending
    ldr x0, [x28, #{spill}]
2:  ldr x30, [x28, #{helper_return}]
    and x30, x30, #~1
    ldr x18, [x28, #{shadow}]
    ldr x3, [x28, #{nzcv}]
    msr nzcv, x3
    xrun_xmm ldp
    xrun_gpr_volatile ldp
    str xzr, [x28, #{helper_return}]
    ret
    .global xrun_pure_out_end
    .hidden xrun_pure_out_end
xrun_pure_out_end:
    "#,
    gpr = const offset_of!(CpuState, gpr),
    pf = const offset_of!(CpuState, pf),
    nzcv = const offset_of!(CpuState, nzcv),
    rip = const offset_of!(CpuState, rip),
    shadow = const offset_of!(CpuState, shadow),
    df = const offset_of!(CpuState, df),
    calls = const offset_of!(CpuState, calls),
    calls_bits = const crate::abi::CALLS_BITS,
    more_bit = const crate::abi::CALL_MORE.trailing_zeros(),
    direct_bit = const crate::abi::CALL_DIRECT.trailing_zeros(),
    long_bit = const crate::abi::CALL_LONG.trailing_zeros(),
    pointers_bit = const crate::abi::CALL_POINTERS.trailing_zeros(),
    sigreturn_bit = const crate::abi::CALL_SIGRETURN.trailing_zeros(),
    efault = const libc::EFAULT,
    protected = sym crate::memory::PROTECTED,
    eintr = const libc::EINTR,
    signal_bit = const crate::thread::pending::SIGNAL.trailing_zeros(),
    xmm = const offset_of!(CpuState, xmm),
    host_fpcr = const offset_of!(CpuState, host_fpcr),
    guest_fpcr = const offset_of!(CpuState, guest_fpcr),
    fpsr = const offset_of!(CpuState, guest_fpsr),
    host_sp = const offset_of!(CpuState, host_sp),
    reason = const offset_of!(CpuState, exit_reason),
    arg = const offset_of!(CpuState, exit_arg),
    helpers = const offset_of!(CpuState, helpers),
    helper_return = const offset_of!(CpuState, helper_return),
    spill = const offset_of!(CpuState, spill) + 56,
    pending = const offset_of!(Thread, pending),
    r_direct = const crate::engine::ExitReason::Direct as u64,
    r_indirect = const crate::engine::ExitReason::Indirect as u64,
    r_syscall = const crate::engine::ExitReason::Syscall as u64,
    r_trap = const crate::engine::ExitReason::Trap as u64,
    r_resume = const crate::engine::ExitReason::Resume as u64,
    r_stale = const crate::engine::ExitReason::Stale as u64,
    r_return = const crate::engine::ExitReason::ReturnMiss as u64,
);

//! The way into the host kernel: system calls that return the kernel's own value (a result, or a negated errno), never
//! touching the C library's errno, and a form of them that a signal cannot slip past.
//!
//! A blocking call on the guest's behalf must not start once a signal for the guest has been recorded, or the guest would
//! sleep with the signal undelivered. [`syscall_interruptible`] checks the thread's pending word and enters the kernel in a
//! known range of instructions. A host signal handler that interrupts that range moves the pc to its abort label
//! ([`abort_pc`]). The kernel itself rewinds the pc to the SVC when it would restart the call, so the same
//! rule tells "to be restarted" (aborted: [`INTERRUPTED`]) from "ended with EINTR" (pc past the SVC), with the
//! kernel's own rules for each call.
//!
//! On an x86_64 host, where only tests run, the same functions enter that host's kernel and the window does not exist.

use std::sync::atomic::AtomicU32;

/// What [`syscall_interruptible`] returns when the call was not made, or is to be made again after the signal is delivered.
pub const INTERRUPTED: i64 = i64::MIN;

#[cfg(target_arch = "aarch64")]
mod arch {
    // Arguments: x0 = pending, x1 = number, x2-x7 = arguments. Leaf code: no stack, no callee-saved register.
    std::arch::global_asm!(
        ".text",
        ".balign 16",
        ".hidden xrun_svc",
        ".globl xrun_svc",
        ".type xrun_svc, %function",
        "xrun_svc:",
        "mov x9, x0",
        "mov x8, x1",
        "mov x0, x2",
        "mov x1, x3",
        "mov x2, x4",
        "mov x3, x5",
        "mov x4, x6",
        "mov x5, x7",
        ".hidden xrun_svc_check",
        ".globl xrun_svc_check",
        "xrun_svc_check:",
        "ldr w10, [x9]",
        "cbnz w10, xrun_svc_abort",
        "svc #0",
        ".hidden xrun_svc_done",
        ".globl xrun_svc_done",
        "xrun_svc_done:",
        "ret",
        ".hidden xrun_svc_abort",
        ".globl xrun_svc_abort",
        "xrun_svc_abort:",
        "mov x0, #0x8000000000000000",
        "ret",
        ".size xrun_svc, . - xrun_svc",
    );
    unsafe extern "C" {
        pub fn xrun_svc(pending: *const u32, nr: i64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64;
        static xrun_svc_check: u8;
        static xrun_svc_done: u8;
        static xrun_svc_abort: u8;
    }

    pub fn abort_pc(pc: u64) -> Option<u64> {
        let check = &raw const xrun_svc_check as u64;
        let done = &raw const xrun_svc_done as u64;
        (check..done).contains(&pc).then_some(&raw const xrun_svc_abort as u64)
    }

    #[inline]
    pub unsafe fn syscall(nr: i64, a: [u64; 6]) -> i64 {
        let r;
        // SAFETY: the Linux AArch64 convention: number in x8, arguments in x0-x5, only x0 is written. What the call does
        // to memory is the caller's promise.
        unsafe {
            std::arch::asm!("svc #0", in("x8") nr, inlateout("x0") a[0] => r, in("x1") a[1], in("x2") a[2],
                in("x3") a[3], in("x4") a[4], in("x5") a[5], options(nostack));
        }
        r
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::sync::atomic::{AtomicU32, Ordering};

    #[allow(clippy::too_many_arguments)] // As the assembly form has.
    pub unsafe fn xrun_svc(pending: *const u32, nr: i64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64 {
        // SAFETY: the caller passes a live pending word.
        if unsafe { &*pending.cast::<AtomicU32>() }.load(Ordering::Relaxed) != 0 {
            return super::INTERRUPTED;
        }
        // SAFETY: the caller's promise, passed on.
        unsafe { syscall(nr, [a, b, c, d, e, f]) }
    }

    pub fn abort_pc(_pc: u64) -> Option<u64> {
        None
    }

    #[inline]
    pub unsafe fn syscall(nr: i64, a: [u64; 6]) -> i64 {
        let r;
        // SAFETY: the Linux x86_64 convention; RCX and R11 are clobbered. What the call does to memory is the caller's promise.
        unsafe {
            std::arch::asm!("syscall", inlateout("rax") nr => r, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
                in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
        }
        r
    }
}

/// Enters the host kernel. Returns its result, or a negated errno.
///
/// # Safety
/// The call must not do to this process's own memory what Rust code relies on not happening: pointers are the guest's,
/// or to buffers that are large enough and live.
#[inline]
pub unsafe fn syscall(nr: i64, args: [u64; 6]) -> i64 {
    // SAFETY: passed on.
    unsafe { arch::syscall(nr, args) }
}

/// As [`syscall`], but not entered while `pending` is not zero, and given up when a signal handler says so: then
/// [`INTERRUPTED`], with nothing done.
///
/// # Safety
/// As for [`syscall`].
#[inline]
pub unsafe fn syscall_interruptible(pending: &AtomicU32, nr: i64, a: [u64; 6]) -> i64 {
    // SAFETY: `pending` is live for the call; the rest is passed on.
    unsafe { arch::xrun_svc(pending.as_ptr(), nr, a[0], a[1], a[2], a[3], a[4], a[5]) }
}

/// For a host signal handler that has just set a thread's pending word: if the interrupted `pc` lies between the check of that
/// word and kernel entry, the pc to continue at instead, so that the call is given up.
pub fn abort_pc(pc: u64) -> Option<u64> {
    arch::abort_pc(pc)
}

/// The errno of a kernel result, if it is one.
pub fn errno(r: i64) -> Option<i32> {
    (-4095..0).contains(&r).then(|| -r as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn results_and_errors() {
        // SAFETY: getpid and close take no pointers.
        unsafe {
            assert_eq!(syscall(libc::SYS_getpid, [0; 6]), i64::from(std::process::id()));
            assert_eq!(syscall(libc::SYS_close, [u64::MAX, 0, 0, 0, 0, 0]), -i64::from(libc::EBADF));
            let pending = AtomicU32::new(0);
            assert_eq!(syscall_interruptible(&pending, libc::SYS_getpid, [0; 6]), i64::from(std::process::id()));
            *pending.as_ptr() = 1;
            assert_eq!(syscall_interruptible(&pending, libc::SYS_getpid, [0; 6]), INTERRUPTED);
            assert_eq!(errno(INTERRUPTED), None);
        }
    }

    /// A signal that lands anywhere in the window gives the call up; one outside does not.
    #[cfg(target_arch = "aarch64")]
    #[test]
    fn window() {
        let entry = arch::xrun_svc as *const () as u64;
        let hits: Vec<u64> = (0..16).map(|i| entry + 4 * i).filter(|&pc| abort_pc(pc).is_some()).collect();
        // ldr, cbnz, svc: the three instructions after the eight moves.
        assert_eq!(hits, [entry + 32, entry + 36, entry + 40]);
    }
}

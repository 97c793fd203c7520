//! Reading and writing guest memory from Rust: a fault ends the copy instead of the process.
//!
//! The copy loops are assembly between known labels; the host's fault handler asks [`resume`] with the faulting host pc and
//! continues at the address it gives. Nothing else in the runtime may touch a guest pointer that the guest could have
//! made wrong.

use std::arch::global_asm;
use std::mem::MaybeUninit;

use zerocopy::{FromBytes, Immutable, IntoBytes};

// Each routine: (dst, src, len) -> bytes not copied. Reads fault on `src`, writes on `dst`: the same words twice, told apart by where they are.
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".macro xrun_guest_copy name",
    ".globl \\name",
    ".hidden \\name",
    "\\name:",
    "cmp x2, #16",
    "b.lo 4f",
    "cmp x2, #128",
    "b.lo 0f",
    "2: ldp q0, q1, [x1], #64",
    "ldp q2, q3, [x1, #-32]",
    "ldp q4, q5, [x1], #64",
    "ldp q6, q7, [x1, #-32]",
    "stp q0, q1, [x0], #64",
    "stp q2, q3, [x0, #-32]",
    "stp q4, q5, [x0], #64",
    "stp q6, q7, [x0, #-32]",
    "sub x2, x2, #128",
    "cmp x2, #128",
    "b.hs 2b",
    // What is left, by the bits of its size.
    "0: tbz x2, #6, 1f",
    "ldp q0, q1, [x1], #64",
    "ldp q2, q3, [x1, #-32]",
    "stp q0, q1, [x0], #64",
    "stp q2, q3, [x0, #-32]",
    "1: tbz x2, #5, 1f",
    "ldp q0, q1, [x1], #32",
    "stp q0, q1, [x0], #32",
    "1: tbz x2, #4, 1f",
    "ldr q0, [x1], #16",
    "str q0, [x0], #16",
    "1: tst x2, #15",
    "b.eq 1f",
    "4: tbz x2, #3, 3f",
    "ldr x3, [x1], #8",
    "str x3, [x0], #8",
    "3: tbz x2, #2, 3f",
    "ldr w3, [x1], #4",
    "str w3, [x0], #4",
    "3: tbz x2, #1, 3f",
    "ldrh w3, [x1], #2",
    "strh w3, [x0], #2",
    "3: tbz x2, #0, 1f",
    "ldrb w3, [x1]",
    "strb w3, [x0]",
    "1: mov x2, #0",
    "b xrun_guest_copy_done",
    ".endm",
    ".text",
    ".balign 16",
    "xrun_guest_copy xrun_guest_read",
    "xrun_guest_copy xrun_guest_write",
    "xrun_guest_copy_done:",
    "mov x0, x2",
    "ret",
);

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".text",
    ".balign 16",
    ".globl xrun_guest_read",
    ".hidden xrun_guest_read",
    "xrun_guest_read:",
    "mov rcx, rdx",
    "rep movsb",
    "jmp xrun_guest_copy_done",
    ".globl xrun_guest_write",
    ".hidden xrun_guest_write",
    "xrun_guest_write:",
    "mov rcx, rdx",
    "rep movsb",
    "xrun_guest_copy_done:",
    "mov rax, rcx",
    "ret",
);

unsafe extern "C" {
    fn xrun_guest_read(dst: *mut u8, src: *const u8, len: usize) -> usize;
    fn xrun_guest_write(dst: *mut u8, src: *const u8, len: usize) -> usize;
    safe static xrun_guest_copy_done: u8;
}

/// The guest address was not accessible: EFAULT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad guest address {0:#x}")]
pub struct BadAddress(pub u64);

/// Which copy routine a host pc lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    FromGuest,
    ToGuest,
}

/// If a fault at host `pc` is one of a guest copy: which, and the pc to continue at to end it early.
/// Takes no lock: safe in a signal handler whatever was interrupted.
pub fn resume(pc: u64) -> Option<(Copying, u64)> {
    let read = xrun_guest_read as *const () as u64;
    let write = xrun_guest_write as *const () as u64;
    let done = &raw const xrun_guest_copy_done as u64;
    if (read..write).contains(&pc) {
        Some((Copying::FromGuest, done))
    } else if (write..done).contains(&pc) {
        Some((Copying::ToGuest, done))
    } else {
        None
    }
}

/// Copies from the guest; the number of bytes that could be read. When not all, the tail of `buf` is unspecified and the
/// count is what was read rounded down to a multiple of 128.
pub fn read_some(addr: u64, buf: &mut [u8]) -> usize {
    // SAFETY: `buf` is ours; a fault on the guest's side leaves through `resume`.
    let left = unsafe { xrun_guest_read(buf.as_mut_ptr(), addr as *const u8, buf.len()) };
    buf.len() - left
}

/// Copies from the guest, all or [`BadAddress`].
pub fn read(addr: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
    if read_some(addr, buf) == buf.len() { Ok(()) } else { Err(BadAddress(addr)) }
}

/// Copies to the guest, all or [`BadAddress`]; on an error a part may have been written.
pub fn write(addr: u64, buf: &[u8]) -> Result<(), BadAddress> {
    // SAFETY: only guest addresses are passed; a fault leaves through `resume`.
    let left = unsafe { xrun_guest_write(addr as *mut u8, buf.as_ptr(), buf.len()) };
    if left == 0 { Ok(()) } else { Err(BadAddress(addr)) }
}

/// Reads a plain value.
pub fn get<T: FromBytes>(addr: u64) -> Result<T, BadAddress> {
    let mut v = MaybeUninit::<T>::uninit();
    get_into(addr, &mut v)?;
    // SAFETY: it was filled.
    Ok(unsafe { v.assume_init() })
}

/// Reads a plain value to its place: for those too large to be moved.
pub fn get_into<T: FromBytes>(addr: u64, place: &mut MaybeUninit<T>) -> Result<&mut T, BadAddress> {
    // SAFETY: there is room for the bytes copied; a fault on the guest's side leaves through `resume`.
    let left = unsafe { xrun_guest_read(place.as_mut_ptr().cast(), addr as *const u8, size_of::<T>()) };
    // SAFETY: all bytes were written, and any are a `T`.
    if left == 0 { Ok(unsafe { place.assume_init_mut() }) } else { Err(BadAddress(addr)) }
}

/// Writes a plain value.
pub fn put<T: IntoBytes + Immutable>(addr: u64, v: &T) -> Result<(), BadAddress> {
    write(addr, v.as_bytes())
}

/// A NUL-terminated string, without its NUL. `None` in `Ok` when there is no NUL in `max` bytes.
pub fn get_str(addr: u64, max: usize) -> Result<Option<Vec<u8>>, BadAddress> {
    let mut out = Vec::new();
    let mut at = addr;
    let mut chunk = [0u8; 256];
    while out.len() < max {
        // Never past the end of the page that the string may end in.
        let to_page_end = 4096 - (at % 4096) as usize;
        let n = to_page_end.min(chunk.len()).min(max - out.len());
        read(at, &mut chunk[..n])?;
        if let Some(i) = chunk[..n].iter().position(|&b| b == 0) {
            out.extend_from_slice(&chunk[..i]);
            return Ok(Some(out));
        }
        out.extend_from_slice(&chunk[..n]);
        at += n as u64;
    }
    Ok(None)
}

/// A fault handler for tests of this crate: knows [`resume`] only.
#[cfg(test)]
pub fn catch_faults_in_tests() {
    extern "C" fn handler(sig: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes the interrupted thread's ucontext to an SA_SIGINFO handler.
        let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
        #[cfg(target_arch = "x86_64")]
        let pc = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
        #[cfg(target_arch = "aarch64")]
        let pc = &mut context.uc_mcontext.pc;
        // Signed on x86_64, unsigned on AArch64.
        #[allow(clippy::unnecessary_cast)]
        let at = *pc as u64;
        match resume(at) {
            Some((_, to)) => *pc = to as _,
            // SAFETY: gives the signal its default action; the fault repeats and ends the process.
            None => unsafe {
                libc::signal(sig, libc::SIG_DFL);
            },
        }
    }
    // SAFETY: an all-zero sigaction is valid; the handler only edits the context it is given.
    unsafe {
        let mut sa: libc::sigaction = std::mem::zeroed();
        sa.sa_sigaction = handler as *const () as usize;
        sa.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for sig in [libc::SIGSEGV, libc::SIGBUS] {
            libc::sigaction(sig, &sa, std::ptr::null_mut());
        }
    }
}

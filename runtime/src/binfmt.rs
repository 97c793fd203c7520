//! What the kernel says to the interpreter of a binfmt_misc entry, in the auxiliary vector
//! (Documentation/admin-guide/binfmt-misc.rst; fs/binfmt_misc.c, load_misc_binary):
//!
//! - flag P: AT_FLAGS has its bit 0, and the arguments are xrun, the program's path, its argv[0], the rest;
//! - flag O, which C implies: AT_EXECFD is the program, already opened and checked, whether or not xrun could open its path;
//! - AT_EXECFN is the name that was given to execve: a script's own, where the path is its interpreter's.
//!
//! Credentials (flag C) are the process's own by then, AT_SECURE included, so nothing is left to do for them.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::image::{host_auxv, host_auxv_entry, stack::at};

/// Whether the kernel passed argv[0] on (flag P).
pub fn preserved_argv0() -> bool {
    const AT_FLAGS_PRESERVE_ARGV0: u64 = 1;
    host_auxv(at::FLAGS) & AT_FLAGS_PRESERVE_ARGV0 != 0
}

fn program_fd() -> Option<RawFd> {
    host_auxv_entry(at::EXECFD).and_then(|fd| RawFd::try_from(fd).ok())
}

/// The program to run, opened by the kernel (flag O); given away once.
pub fn take_program() -> Option<File> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let fd = program_fd().filter(|_| !TAKEN.swap(true, Ordering::Relaxed))?;
    // SAFETY: the kernel opened it for this process, and nobody else is told.
    Some(unsafe { File::from_raw_fd(fd) })
}

/// Whether the kernel started this process for an x86_64 program. It will do so for the next one too, and better than xrun by
/// itself: set-id bits count, and neither /proc nor xrun's own path is needed.
pub fn started() -> bool {
    preserved_argv0() || program_fd().is_some()
}

/// The name given to execve, when the kernel started this process.
pub fn execfn() -> Option<&'static [u8]> {
    let at = host_auxv_entry(at::EXECFN).filter(|&at| started() && at != 0)?;
    // SAFETY: the kernel put a NUL-terminated string there, above the stack, where it stays.
    Some(unsafe { CStr::from_ptr(at as *const libc::c_char) }.to_bytes())
}

//! What the process inherited and Rust's own start-up code changes before `main`: it ignores SIGPIPE and opens /dev/null where
//! standard descriptors are closed. The guest must find both as they were, so they are noted first and put back.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::signal::host;

const PIPE_IGNORED: u32 = 1 << 8;

/// Bits 0 to 2: that descriptor was closed. [`PIPE_IGNORED`].
static INHERITED: AtomicU32 = AtomicU32::new(0);

/// Runs before `main` and before Rust's start-up.
extern "C" fn note() {
    let mut bits = 0;
    for fd in 0..3 {
        // SAFETY: asks about a descriptor.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            bits |= 1 << fd;
        }
    }
    if host::handler_of(libc::SIGPIPE) == libc::SIG_IGN as u64 {
        bits |= PIPE_IGNORED;
    }
    INHERITED.store(bits, Ordering::Relaxed);
}

#[used]
// SAFETY: the section holds pointers to functions of this type, which the C library calls once each.
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

/// Puts back what was noted. Before the guest's files are opened.
pub fn restore() {
    let bits = INHERITED.load(Ordering::Relaxed);
    for fd in 0..3 {
        if bits & 1 << fd != 0 {
            // SAFETY: this is the /dev/null that Rust opened; nothing else knows it.
            unsafe { libc::close(fd) };
        }
    }
    if bits & PIPE_IGNORED == 0 {
        let _ = host::set_action(libc::SIGPIPE, host::Action::Default, 0);
    }
}

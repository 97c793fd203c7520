//! Signal masks of calls that wait. The signal calls themselves are [`crate::signal`]'s.

use super::errno::{Answer, Errno};
use super::user;
use crate::signal::host::host_mask;
use crate::thread::Thread;

/// Reads the mask a waiting call is to have, as the host's; `None` for a null pointer.
pub fn read_mask(addr: u64, size: u64) -> Result<Option<u64>, Errno> {
    if addr == 0 {
        return Ok(None);
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    Ok(Some(host_mask(user::read::<u64>(addr)?)))
}

/// After a call that waited with `mask` in place of the thread's: that mask decides what is delivered now.
pub fn waited(t: &mut Thread, mask: Option<u64>, answer: Answer) -> Answer {
    if mask.is_some() && answer == Err(Errno(libc::EINTR)) {
        t.signal.waiting = mask;
    }
    answer
}

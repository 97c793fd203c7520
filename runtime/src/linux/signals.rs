//! Signal masks of calls that wait. The signal calls themselves are [`crate::signal`]'s.

use super::errno::Errno;
use super::user;
use crate::signal::host::host_mask;

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

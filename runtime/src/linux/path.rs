//! File names that lead somewhere else for the guest than for the host: `-L DIR`, and links of /proc that would lead to xrun.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use super::errno::{Answer, Errno};
use super::{kernel, procfs, user};
use crate::config;
use crate::thread::Thread;

/// Makes a host call with a path among its arguments, for calls that only look a file up.
///
/// `path` says which argument it is. A link of /proc that would lead to xrun's own file leads to the guest's;
/// an absolute path at which there is nothing is looked for under the prefix.
pub fn lookup(t: &Thread, nr: i64, args: [u64; 6], path: usize) -> Answer {
    look(t, nr, args, path, true)
}

/// As [`lookup`], for calls that do not follow a link at the end of the path.
pub fn lookup_link(t: &Thread, nr: i64, args: [u64; 6], path: usize) -> Answer {
    look(t, nr, args, path, false)
}

fn look(t: &Thread, nr: i64, mut args: [u64; 6], path: usize, follow: bool) -> Answer {
    let Some(name) = absolute(args[path])? else {
        return kernel(t, nr, args);
    };
    if follow && let Some(target) = procfs::link(&name) {
        let target = c_path(target)?;
        args[path] = target.as_ptr() as u64;
        return kernel(t, nr, args);
    }
    let first = kernel(t, nr, args);
    if first == Err(Errno::ENOENT)
        && let Some(other) = under_prefix(&name)
    {
        args[path] = other.as_ptr() as u64;
        return match kernel(t, nr, args) {
            Err(Errno::ENOENT) => first,
            second => second,
        };
    }
    first
}

/// The path at a guest address if it is absolute and could mean something else than what it says; `None` for all others,
/// bad addresses included, which the kernel judges best.
pub fn absolute(addr: u64) -> Result<Option<Vec<u8>>, Errno> {
    if addr >= user::TASK_SIZE {
        return Err(Errno::EFAULT);
    }
    match user::read::<u8>(addr) {
        Ok(b'/') => {}
        _ => return Ok(None),
    }
    // Most paths are told apart by their first bytes; a path that ends just before a bad page takes the long way.
    const PROC: &[u8; 6] = b"/proc/";
    if config::get().prefix.is_none() && user::read::<[u8; 6]>(addr).is_ok_and(|head| head != *PROC) {
        return Ok(None);
    }
    let name = user::read_path(addr)?;
    let special = config::get().prefix.is_some() || name.starts_with(PROC);
    Ok(special.then_some(name))
}

/// `name` under the `-L` directory; `None` without one or when `name` already is in it.
pub fn under_prefix(name: &[u8]) -> Option<CString> {
    let prefix = config::get().prefix.as_ref()?.as_os_str().as_bytes();
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    if !name.starts_with(b"/") || name.starts_with(prefix) {
        return None;
    }
    CString::new([prefix, name].concat()).ok()
}

/// A path for the kernel.
pub fn c_path(name: Vec<u8>) -> Result<CString, Errno> {
    CString::new(name).map_err(|_| Errno::EINVAL)
}

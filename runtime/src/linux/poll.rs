//! Waiting for descriptors: poll and select are ppoll and pselect6 on AArch64, and x86_64 packs struct epoll_event.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::errno::{Answer, Errno};
use super::{kernel, signals, user};
use crate::thread::Thread;

/// A host struct timespec: seconds, nanoseconds.
type Timespec = [i64; 2];

fn from_ms(ms: i32) -> Option<Timespec> {
    (ms >= 0).then(|| [i64::from(ms / 1000), i64::from(ms % 1000) * 1_000_000])
}

fn addr_of(ts: &mut Option<Timespec>) -> u64 {
    ts.as_mut().map_or(0, |v| v.as_mut_ptr() as u64)
}

pub fn poll(t: &mut Thread, a: [u64; 6]) -> Answer {
    let mut ts = from_ms(a[2] as i32);
    kernel(t, libc::SYS_ppoll, [a[0], a[1] & 0xffff_ffff, addr_of(&mut ts), 0, 8, 0])
}

pub fn ppoll(t: &mut Thread, a: [u64; 6]) -> Answer {
    let mask = signals::read_mask(a[3], a[4])?;
    let at = mask.as_ref().map_or(0, |m| (&raw const *m) as u64);
    let r = kernel(t, libc::SYS_ppoll, [a[0], a[1], a[2], at, 8, 0]);
    signals::waited(t, mask, r)
}

/// The time left is written back, as the kernel does unless the personality says otherwise.
pub fn select(t: &mut Thread, a: [u64; 6]) -> Answer {
    let mut ts = None;
    if a[4] != 0 {
        let [s, us] = user::read::<[i64; 2]>(a[4])?;
        // The kernel carries whole seconds over first, then refuses what is negative (fs/select.c, kern_select).
        let (s, us) = (s.wrapping_add(us / 1_000_000), us % 1_000_000);
        if s < 0 || us < 0 {
            return Err(Errno::EINVAL);
        }
        ts = Some([s, us * 1000]);
    }
    let r = kernel(t, libc::SYS_pselect6, [a[0], a[1], a[2], a[3], addr_of(&mut ts), 0]);
    if let Some([s, ns]) = ts
        && r != Err(Errno::RESTART)
    {
        // A timeout in read-only memory is no error.
        let _ = user::write(a[4], &[s, ns / 1000]);
    }
    r
}

/// The sixth argument points to a mask's address and size.
pub fn pselect6(t: &mut Thread, a: [u64; 6]) -> Answer {
    if a[5] == 0 {
        return kernel(t, libc::SYS_pselect6, a);
    }
    let [at, size] = user::read::<[u64; 2]>(a[5])?;
    let mask = signals::read_mask(at, size)?;
    let host = [mask.as_ref().map_or(0, |m| (&raw const *m) as u64), 8];
    let r = kernel(t, libc::SYS_pselect6, [a[0], a[1], a[2], a[3], a[4], host.as_ptr() as u64]);
    signals::waited(t, mask, r)
}

/// struct epoll_event of x86_64: packed (linux/eventpoll.h).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C, packed)]
struct EpollEvent {
    events: u32,
    data: u64,
}

pub fn epoll_create(t: &mut Thread, a: [u64; 6]) -> Answer {
    if a[0] as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    kernel(t, libc::SYS_epoll_create1, [0; 6])
}

pub fn epoll_ctl(t: &mut Thread, a: [u64; 6]) -> Answer {
    let mut host = libc::epoll_event { events: 0, u64: 0 };
    if a[1] as i32 != libc::EPOLL_CTL_DEL {
        let guest = user::read::<EpollEvent>(a[3])?;
        (host.events, host.u64) = (guest.events, guest.data);
    }
    kernel(t, libc::SYS_epoll_ctl, [a[0], a[1], a[2], (&raw mut host) as u64, 0, 0])
}

/// Waits with `nr`'s own arguments after the count in `rest`.
fn wait(t: &Thread, nr: i64, fd: u64, out: u64, max: u64, rest: [u64; 3]) -> Answer {
    /// More than these at once is never needed: what is ready stays ready for the next call.
    const MOST: i32 = 1024;
    let max = max as i32;
    if max <= 0 || max > i32::MAX / size_of::<EpollEvent>() as i32 {
        return Err(Errno::EINVAL);
    }
    let n = max.min(MOST);
    let mut host = vec![libc::epoll_event { events: 0, u64: 0 }; n as usize];
    let args = [fd, host.as_mut_ptr() as u64, n as u64, rest[0], rest[1], rest[2]];
    let got = kernel(t, nr, args)?;
    let guest: Vec<EpollEvent> =
        host[..got as usize].iter().map(|e| EpollEvent { events: e.events, data: e.u64 }).collect();
    user::write_bytes(out, guest.as_slice().as_bytes())?;
    Ok(got)
}

pub fn epoll_wait(t: &mut Thread, a: [u64; 6]) -> Answer {
    wait(t, libc::SYS_epoll_pwait, a[0], a[1], a[2], [a[3], 0, 8])
}

pub fn epoll_pwait(t: &mut Thread, a: [u64; 6]) -> Answer {
    let mask = signals::read_mask(a[4], a[5])?;
    let at = mask.as_ref().map_or(0, |m| (&raw const *m) as u64);
    let r = wait(t, libc::SYS_epoll_pwait, a[0], a[1], a[2], [a[3], at, 8]);
    signals::waited(t, mask, r)
}

pub fn epoll_pwait2(t: &mut Thread, a: [u64; 6]) -> Answer {
    let mask = signals::read_mask(a[4], a[5])?;
    let at = mask.as_ref().map_or(0, |m| (&raw const *m) as u64);
    let r = wait(t, libc::SYS_epoll_pwait2, a[0], a[1], a[2], [a[3], at, 8]);
    signals::waited(t, mask, r)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        assert_eq!(size_of::<EpollEvent>(), 12);
        assert_eq!(size_of::<libc::epoll_event>(), if cfg!(target_arch = "x86_64") { 12 } else { 16 });
    }

    #[test]
    fn milliseconds() {
        assert_eq!(from_ms(-1), None);
        assert_eq!(from_ms(1500), Some([1, 500_000_000]));
    }
}

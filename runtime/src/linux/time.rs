//! Time calls that AArch64 has only in their newer forms.

use super::errno::{Answer, Errno};
use super::{kernel, quick, user};
use crate::thread::Thread;

const AT_FDCWD: u64 = libc::AT_FDCWD as u64;

pub fn time(_: &mut Thread, a: [u64; 6]) -> Answer {
    let mut now = [0i64; 2];
    quick(libc::SYS_gettimeofday, [now.as_mut_ptr() as u64, 0, 0, 0, 0, 0])?;
    user::write_opt(a[0], &now[0])?;
    Ok(now[0])
}

/// Seconds left of an earlier alarm, rounded as the kernel does (kernel/time/itimer.c): to nearest, never from some to none.
pub fn alarm(_: &mut Thread, a: [u64; 6]) -> Answer {
    // struct itimerval: interval and value, each seconds and microseconds.
    let new = [0i64, 0, i64::from((a[0] as u32).min(i32::MAX as u32)), 0];
    let mut old = [0i64; 4];
    let args = [libc::ITIMER_REAL as u64, new.as_ptr() as u64, old.as_mut_ptr() as u64, 0, 0, 0];
    quick(libc::SYS_setitimer, args)?;
    let [_, _, seconds, micros] = old;
    let up = (seconds == 0 && micros != 0) || micros >= 500_000;
    Ok(seconds + i64::from(up))
}

/// ppoll of nothing for ever has pause's rules for restarting.
pub fn pause(t: &mut Thread, _: [u64; 6]) -> Answer {
    kernel(t, libc::SYS_ppoll, [0; 6])
}

fn set_times(t: &Thread, dir: u64, path: u64, times: Option<[i64; 4]>) -> Answer {
    let at = times.as_ref().map_or(0, |v| v.as_ptr() as u64);
    kernel(t, libc::SYS_utimensat, [dir, path, at, 0, 0, 0])
}

pub fn utime(t: &mut Thread, a: [u64; 6]) -> Answer {
    let times = if a[1] == 0 { None } else { Some(user::read::<[i64; 2]>(a[1])?) };
    set_times(t, AT_FDCWD, a[0], times.map(|[access, change]| [access, 0, change, 0]))
}

pub fn utimes(t: &mut Thread, a: [u64; 6]) -> Answer {
    futimesat(t, [AT_FDCWD, a[0], a[1], 0, 0, 0])
}

pub fn futimesat(t: &mut Thread, a: [u64; 6]) -> Answer {
    if a[2] == 0 {
        return set_times(t, a[0], a[1], None);
    }
    let [s0, us0, s1, us1] = user::read::<[i64; 4]>(a[2])?;
    if !(0..1_000_000).contains(&us0) || !(0..1_000_000).contains(&us1) {
        return Err(Errno::EINVAL);
    }
    set_times(t, a[0], a[1], Some([s0, us0 * 1000, s1, us1 * 1000]))
}

//! System V IPC. Only struct semid64_ds differs: x86_64 has a spare word after each of its times (asm/sembuf.h).

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::errno::Answer;
use super::{kernel, user};
use crate::thread::Thread;

/// struct ipc64_perm, the same on both machines, as words: only its size matters here.
type Perm = [u64; 6];

/// struct semid64_ds of x86_64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SemidX86 {
    perm: Perm,
    otime: i64,
    unused1: u64,
    ctime: i64,
    unused2: u64,
    nsems: u64,
    unused34: [u64; 2],
}

/// struct semid64_ds of asm-generic, for 64-bit machines.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SemidGeneric {
    perm: Perm,
    otime: i64,
    ctime: i64,
    nsems: u64,
    unused: [u64; 2],
}

pub fn semctl(t: &mut Thread, a: [u64; 6]) -> Answer {
    // From linux/ipc.h and linux/sem.h.
    const IPC_SET: i32 = 1;
    const IPC_STAT: i32 = 2;
    const SEM_STAT: i32 = 18;
    const SEM_STAT_ANY: i32 = 20;
    if cfg!(target_arch = "x86_64") {
        return kernel(t, libc::SYS_semctl, a);
    }
    let with = |host: &mut SemidGeneric| kernel(t, libc::SYS_semctl, [a[0], a[1], a[2], (&raw mut *host) as u64, 0, 0]);
    let mut host = SemidGeneric::default();
    match a[2] as i32 {
        IPC_SET => {
            host.perm = user::read::<SemidX86>(a[3])?.perm;
            with(&mut host)
        }
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => {
            let r = with(&mut host)?;
            let guest = SemidX86 {
                perm: host.perm,
                otime: host.otime,
                ctime: host.ctime,
                nsems: host.nsems,
                ..SemidX86::default()
            };
            user::write(a[3], &guest)?;
            Ok(r)
        }
        _ => kernel(t, libc::SYS_semctl, a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        assert_eq!(size_of::<SemidX86>(), 104);
        assert_eq!(size_of::<SemidGeneric>(), 88);
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(size_of::<libc::semid_ds>(), size_of::<SemidX86>());
            assert_eq!(size_of::<libc::ipc_perm>(), size_of::<Perm>());
            assert_eq!(std::mem::offset_of!(libc::semid_ds, sem_ctime), std::mem::offset_of!(SemidX86, ctime));
            assert_eq!(std::mem::offset_of!(libc::semid_ds, sem_nsems), std::mem::offset_of!(SemidX86, nsems));
        }
        #[cfg(target_arch = "aarch64")]
        {
            assert_eq!(size_of::<libc::semid_ds>(), size_of::<SemidGeneric>());
            assert_eq!(size_of::<libc::ipc_perm>(), size_of::<Perm>());
        }
    }
}

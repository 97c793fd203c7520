//! Calls about the machine and the process as a whole: uname, prctl, arch_prctl, personality.

use super::errno::{Answer, Errno};
use super::{kernel, quick, user};
use crate::thread::Thread;

/// struct new_utsname: six fields of 65 bytes; the fifth is the machine.
pub fn uname(_: &mut Thread, a: [u64; 6]) -> Answer {
    const FIELD: usize = 65;
    const MACHINE: usize = 4 * FIELD;
    let mut names = [0u8; 6 * FIELD];
    quick(libc::SYS_uname, [names.as_mut_ptr() as u64, 0, 0, 0, 0, 0])?;
    names[MACHINE..MACHINE + FIELD].fill(0);
    names[MACHINE..MACHINE + 6].copy_from_slice(b"x86_64");
    user::write(a[0], &names)?;
    Ok(0)
}

pub fn personality(t: &mut Thread, a: [u64; 6]) -> Answer {
    let old = kernel(t, libc::SYS_personality, a)?;
    let new = a[0] as u32;
    if new != 0xffff_ffff {
        crate::memory::set_read_implies_exec(new & libc::READ_IMPLIES_EXEC as u32 != 0);
    }
    Ok(old)
}

/// Without a local descriptor table: reading gives none. The kernel returns the error as an unsigned int (arch/x86/kernel/ldt.c).
pub fn modify_ldt(_: &mut Thread, a: [u64; 6]) -> Answer {
    const READ: u32 = 0;
    const READ_DEFAULT: u32 = 2;
    match a[0] as u32 {
        READ | READ_DEFAULT => Ok(0),
        _ => Ok(i64::from(-libc::ENOSYS as u32)),
    }
}

/// Port access needs a processor with ports.
pub fn not_permitted(_: &mut Thread, _: [u64; 6]) -> Answer {
    Err(Errno(libc::EPERM))
}

/// As on a processor without protection keys.
pub fn pkey_alloc(_: &mut Thread, a: [u64; 6]) -> Answer {
    if a[0] != 0 || a[1] & !3 != 0 { Err(Errno::EINVAL) } else { Err(Errno(libc::ENOSPC)) }
}

pub fn pkey_free(_: &mut Thread, _: [u64; 6]) -> Answer {
    Err(Errno::EINVAL)
}

/// Only the kernel's own return path makes this call; made by hand there is nothing to restart.
pub fn restart_syscall(_: &mut Thread, _: [u64; 6]) -> Answer {
    Err(Errno(libc::EINTR))
}

pub fn arch_prctl(t: &mut Thread, a: [u64; 6]) -> Answer {
    // arch/x86/include/uapi/asm/prctl.h
    const SET_GS: u64 = 0x1001;
    const SET_FS: u64 = 0x1002;
    const GET_FS: u64 = 0x1003;
    const GET_GS: u64 = 0x1004;
    const GET_CPUID: u64 = 0x1011;
    const SET_CPUID: u64 = 0x1012;
    const GET_XCOMP_SUPP: u64 = 0x1021;
    const GET_XCOMP_PERM: u64 = 0x1022;
    match a[0] & 0xffff_ffff {
        SET_FS | SET_GS if a[1] >= user::TASK_SIZE => return Err(Errno(libc::EPERM)),
        SET_FS => t.cpu.fs_base = a[1],
        SET_GS => t.cpu.gs_base = a[1],
        GET_FS => user::write(a[1], &t.cpu.fs_base)?,
        GET_GS => user::write(a[1], &t.cpu.gs_base)?,
        GET_CPUID => return Ok(1),
        SET_CPUID => return Err(Errno(libc::ENODEV)),
        GET_XCOMP_SUPP | GET_XCOMP_PERM => {
            // XCR0 as CPUID leaf 0DH reports it; without XSAVE, what FXSAVE holds.
            let xcr0 = crate::engine::installed().map_or(0, |e| e.cpuid(0xd, 0)[0]);
            user::write(a[1], &u64::from(xcr0 | 3))?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// The guest's PR_SET_TSC setting; RDTSC is never made to fault, so only "enabled" can be set.
const TSC_ENABLED: u32 = 1;

pub fn prctl(t: &mut Thread, a: [u64; 6]) -> Answer {
    const GET_TSC: i32 = 25;
    const SET_TSC: i32 = 26;
    const GET_MDWE: i32 = 66;
    const GET_AUXV: i32 = 0x4155_5856;
    /// Options that mean the same for the guest's process as for the host's.
    #[rustfmt::skip]
    const SAME: &[i32] = &[
        1, 2, 3, 4, 7, 8, 13, 14, 15, 16, 23, 24, 27, 28, 29, 30, 31, 32, 33, 34, 36, 37, 38, 39, 41, 42, 47, 52, 53, 57, 58,
        62, 67, 68, 77, 78, 0x5356_4d41,
    ];
    let option = a[0] as i32;
    match option {
        libc::PR_GET_SECCOMP => Ok(0),
        GET_TSC => {
            user::write(a[1], &TSC_ENABLED)?;
            Ok(0)
        }
        SET_TSC if a[1] as u32 == TSC_ENABLED => Ok(0),
        libc::PR_GET_TID_ADDRESS => {
            user::write(a[1], &t.clear_child_tid)?;
            Ok(0)
        }
        GET_MDWE => Ok(0),
        GET_AUXV if a[3] == 0 && a[4] == 0 => {
            let auxv = super::procfs::auxv();
            user::write_bytes(a[1], &auxv[..auxv.len().min(a[2] as usize)])?;
            Ok(auxv.len() as i64)
        }
        _ if SAME.contains(&option) => kernel(t, libc::SYS_prctl, a),
        _ => Err(Errno::EINVAL),
    }
}

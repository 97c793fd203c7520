//! /proc as the guest must see it: files that would show xrun in the guest's place.
//!
//! The kernel itself is told where the guest's arguments, environment and auxiliary vector lie ([`announce`]), so that every process sees
//! them. What it cannot be told is answered here, to the guest alone: `exe` leads to the guest's file; maps and cpuinfo, and the
//! others where the kernel did not listen, are memory files of the right content. Files that tell the truth as they are (status, stat, comm,
//! fd/, task/) are the kernel's own.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::errno::{Answer, Errno};
use super::{quick, user};

/// The part of `path` below /proc/self/, when it names this process.
fn own(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"/proc/")?;
    let slash = rest.iter().position(|&b| b == b'/')?;
    let (who, file) = (&rest[..slash], &rest[slash + 1..]);
    let mine = who == b"self" || who == b"thread-self" || who == std::process::id().to_string().as_bytes();
    if !mine {
        return None;
    }
    // /proc/self/task/TID/x shows the same files.
    if let Some(task) = file.strip_prefix(b"task/")
        && let Some(slash) = task.iter().position(|&b| b == b'/')
    {
        return Some(&task[slash + 1..]);
    }
    Some(file)
}

/// Whether /proc is mounted where the guest looks for it.
fn is_there() -> bool {
    quick(libc::SYS_faccessat, [libc::AT_FDCWD as u64, c"/proc/self".as_ptr() as u64, libc::F_OK as u64, 0, 0, 0])
        .is_ok()
}

/// Where a link of /proc that the kernel points at xrun leads for the guest.
pub fn link(path: &[u8]) -> Option<Vec<u8>> {
    if own(path) != Some(b"exe") || !is_there() {
        return None;
    }
    Some(crate::image::process()?.exe.as_os_str().as_bytes().to_vec())
}

/// The content of a /proc file that differs for the guest.
pub fn content(path: &[u8]) -> Option<Vec<u8>> {
    if path == b"/proc/cpuinfo" {
        return is_there().then(|| cpuinfo().into_bytes());
    }
    let process = crate::image::process()?;
    // The kernel reads these from the program's memory each time, so a program may have changed them.
    let memory = |r: &std::ops::Range<u64>| user::read_vec(r.start, (r.end - r.start) as usize).ok();
    match own(path).filter(|_| is_there())? {
        b"cmdline" | b"environ" | b"auxv" if ANNOUNCED.load(Ordering::Relaxed) => None,
        b"maps" => Some(crate::memory::maps_text().into_bytes()),
        b"cmdline" => memory(&process.args),
        b"environ" => memory(&process.env),
        b"auxv" => Some(auxv()),
        _ => None,
    }
}

/// Whether the kernel knows ([`announce`]).
static ANNOUNCED: AtomicBool = AtomicBool::new(false);

/// The kernel's struct prctl_mm_map (include/uapi/linux/prctl.h).
#[repr(C)]
#[derive(Debug)]
struct MmMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Tells the kernel where the guest's argument and environment strings and its auxiliary vector lie (prctl(2), PR_SET_MM_MAP), for what
/// /proc/PID/cmdline, environ and auxv show to every process. Takes no privilege; where there is no /proc to learn the other addresses from, or
/// the kernel was built without it (CONFIG_CHECKPOINT_RESTORE), xrun's own stay.
pub fn announce() {
    const PR_SET_MM: u64 = 35;
    const PR_SET_MM_MAP: u64 = 14;
    let Some(process) = crate::image::process() else { return };
    let Ok(stat) = std::fs::read("/proc/self/stat") else { return };
    let Ok(brk) = quick(libc::SYS_brk, [0; 6]) else { return };
    // proc_pid_stat(5) counts from 1, and what follows the name in brackets is number 3.
    let after_name = stat.iter().rposition(|&b| b == b')').map_or(&stat[..], |at| &stat[at + 1..]);
    let fields: Vec<u64> =
        String::from_utf8_lossy(after_name).split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    let field = |n: usize| fields.get(n - 3).copied().unwrap_or(0);
    let map = MmMap {
        start_code: field(26),
        end_code: field(27),
        start_data: field(45),
        end_data: field(46),
        start_brk: field(47),
        brk: brk as u64,
        start_stack: field(28),
        arg_start: process.args.start,
        arg_end: process.args.end,
        env_start: process.env.start,
        env_end: process.env.end,
        auxv: process.auxv.as_ptr() as u64,
        auxv_size: size_of_val(&process.auxv[..]) as u32,
        exe_fd: u32::MAX,
    };
    let done =
        quick(libc::SYS_prctl, [PR_SET_MM, PR_SET_MM_MAP, &raw const map as u64, size_of::<MmMap>() as u64, 0, 0]);
    ANNOUNCED.store(done.is_ok(), Ordering::Relaxed);
}

/// The auxiliary vector as it lies in memory.
pub fn auxv() -> Vec<u8> {
    let words = crate::image::process().map_or(&[][..], |p| &p.auxv);
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Opens a file of known content, read from its start.
pub fn open(content: &[u8], cloexec: bool) -> Answer {
    let flags = if cloexec { libc::MFD_CLOEXEC } else { 0 };
    let fd = quick(libc::SYS_memfd_create, [c"proc".as_ptr() as u64, u64::from(flags), 0, 0, 0, 0])?;
    let mut at = 0;
    while at < content.len() {
        let rest = &content[at..];
        let args = [fd as u64, rest.as_ptr() as u64, rest.len() as u64, at as u64, 0, 0];
        match quick(libc::SYS_pwrite64, args) {
            Ok(n) if n > 0 => at += n as usize,
            other => {
                let _ = quick(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0]);
                return Err(other.err().unwrap_or(Errno(libc::EIO)));
            }
        }
    }
    Ok(fd)
}

/// CPUID feature bits with their names in /proc/cpuinfo: (leaf, subleaf, register as in EAX EBX ECX EDX, bit, name).
const FEATURES: &[(u32, u32, usize, u32, &str)] = &[
    (1, 0, 3, 0, "fpu"),
    (1, 0, 3, 4, "tsc"),
    (1, 0, 3, 8, "cx8"),
    (1, 0, 3, 15, "cmov"),
    (1, 0, 3, 19, "clflush"),
    (1, 0, 3, 23, "mmx"),
    (1, 0, 3, 24, "fxsr"),
    (1, 0, 3, 25, "sse"),
    (1, 0, 3, 26, "sse2"),
    (0x8000_0001, 0, 3, 11, "syscall"),
    (0x8000_0001, 0, 3, 20, "nx"),
    (0x8000_0001, 0, 3, 27, "rdtscp"),
    (0x8000_0001, 0, 3, 29, "lm"),
    (1, 0, 2, 0, "pni"),
    (1, 0, 2, 1, "pclmulqdq"),
    (1, 0, 2, 9, "ssse3"),
    (1, 0, 2, 12, "fma"),
    (1, 0, 2, 13, "cx16"),
    (1, 0, 2, 19, "sse4_1"),
    (1, 0, 2, 20, "sse4_2"),
    (1, 0, 2, 22, "movbe"),
    (1, 0, 2, 23, "popcnt"),
    (1, 0, 2, 25, "aes"),
    (1, 0, 2, 26, "xsave"),
    (1, 0, 2, 28, "avx"),
    (1, 0, 2, 29, "f16c"),
    (1, 0, 2, 30, "rdrand"),
    (7, 0, 2, 8, "gfni"),
    (7, 0, 2, 9, "vaes"),
    (7, 0, 2, 10, "vpclmulqdq"),
    (0xd, 1, 0, 0, "xsaveopt"),
    (0xd, 1, 0, 1, "xsavec"),
    (0xd, 1, 0, 2, "xgetbv1"),
    (0x8000_0001, 0, 2, 0, "lahf_lm"),
    (0x8000_0001, 0, 2, 5, "abm"),
    (7, 0, 1, 0, "fsgsbase"),
    (7, 0, 1, 3, "bmi1"),
    (7, 0, 1, 5, "avx2"),
    (7, 0, 1, 8, "bmi2"),
    (7, 0, 1, 9, "erms"),
    (7, 0, 1, 18, "rdseed"),
    (7, 0, 1, 19, "adx"),
    (7, 0, 1, 29, "sha_ni"),
    (7, 1, 0, 4, "avx_vnni"),
];

/// /proc/cpuinfo of the CPU that CPUID describes, once for each processor this process may use.
fn cpuinfo() -> String {
    let Some(engine) = crate::engine::installed() else {
        return String::new();
    };
    let words = |r: [u32; 4], order: [usize; 4], n: usize| -> Vec<u8> {
        order[..n].iter().flat_map(|&i| r[i].to_le_bytes()).collect()
    };
    let vendor = words(engine.cpuid(0, 0), [1, 3, 2, 0], 3);
    let mut brand = Vec::new();
    for leaf in 0x8000_0002..=0x8000_0004u32 {
        brand.extend(words(engine.cpuid(leaf, 0), [0, 1, 2, 3], 4));
    }
    let text = |b: &[u8]| {
        let end = b.iter().position(|&c| c == 0).unwrap_or(b.len());
        String::from_utf8_lossy(&b[..end]).trim().to_owned()
    };
    // SDM vol. 2, CPUID, "Version Information": extended family and model count in these cases only.
    let sig = engine.cpuid(1, 0)[0];
    let (mut family, mut model) = (sig >> 8 & 15, sig >> 4 & 15);
    if family == 6 || family == 15 {
        model |= (sig >> 16 & 15) << 4;
    }
    if family == 15 {
        family += sig >> 20 & 255;
    }
    let mut flags = String::new();
    for &(leaf, sub, reg, bit, name) in FEATURES {
        if engine.cpuid(leaf, sub)[reg] >> bit & 1 == 1 {
            flags.push_str(if flags.is_empty() { "" } else { " " });
            flags.push_str(name);
        }
    }
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let mut out = String::new();
    for n in 0..count {
        let _ = write!(
            out,
            "processor\t: {n}\nvendor_id\t: {}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {}\nstepping\t: {}\n\
             physical id\t: 0\nsiblings\t: {count}\ncore id\t\t: {n}\ncpu cores\t: {count}\napicid\t\t: {n}\nfpu\t\t: yes\n\
             fpu_exception\t: yes\ncpuid level\t: {}\nwp\t\t: yes\nflags\t\t: {flags}\nclflush size\t: 64\n\
             cache_alignment\t: 64\naddress sizes\t: 48 bits physical, 47 bits virtual\n\n",
            text(&vendor),
            text(&brand),
            sig & 15,
            engine.cpuid(0, 0)[0],
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files() {
        assert_eq!(own(b"/proc/self/exe"), Some(&b"exe"[..]));
        let by_pid = format!("/proc/{}/maps", std::process::id());
        assert_eq!(own(by_pid.as_bytes()), Some(&b"maps"[..]));
        assert_eq!(own(b"/proc/self/task/12/maps"), Some(&b"maps"[..]));
        assert_eq!(own(b"/proc/1/exe"), (std::process::id() == 1).then_some(&b"exe"[..]));
        assert_eq!(own(b"/proc/self"), None);
        assert_eq!(own(b"/etc/passwd"), None);
    }
}

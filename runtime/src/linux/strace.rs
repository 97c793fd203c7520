//! `--strace`: one line per system call, as strace(1) writes them, from the kinds in the table. A line is written in one piece when the call
//! returns; calls that do not return are written before.
//!
//! The lines go to a copy of standard error out of the guest's reach: it may redirect or close its own.

use std::fmt::Write;
use std::sync::atomic::{AtomicI32, Ordering};

use super::errno::{Answer, Errno};
use super::table::{Arg, How, Row};
use super::{names, quick, user};
use crate::config;
use crate::thread::Thread;

/// Bytes of a string or buffer that are shown.
const SHOWN: usize = 32;
static FD: AtomicI32 = AtomicI32::new(-1);
/// The number asked for: high, so that the guest's descriptors are what they would be.
const WISH: u64 = 900;

/// The descriptor the lines go to, made at the first use.
pub fn fd() -> Option<u64> {
    if !config::get().strace {
        return None;
    }
    let mut fd = FD.load(Ordering::Relaxed);
    if fd < 0 {
        fd = match config::get().strace_fd {
            Some(handed_on) => handed_on,
            None => {
                let args = [2, libc::F_DUPFD_CLOEXEC as u64, WISH, 0, 0, 0];
                quick(libc::SYS_fcntl, args).unwrap_or(2) as i32
            }
        };
        FD.store(fd, Ordering::Relaxed);
    }
    Some(fd as u64)
}

/// Whether a descriptor number of the guest's is the one the lines go to.
pub fn owns(guest_fd: u64) -> bool {
    fd().is_some_and(|fd| fd != 2 && fd == (guest_fd & 0xffff_ffff))
}

/// Before xrun is executed again.
pub fn keep_over_exec() {
    flag(0);
}

/// After that has failed.
pub fn not_over_exec() {
    flag(libc::FD_CLOEXEC);
}

fn flag(flags: i32) {
    if let Some(fd) = fd().filter(|&fd| fd != 2) {
        let _ = quick(libc::SYS_fcntl, [fd, libc::F_SETFD as u64, flags as u64, 0, 0, 0]);
    }
}

fn line(t: &Thread, text: &str) {
    let Some(fd) = fd() else { return };
    let mut out = String::new();
    let pid = i64::from(std::process::id());
    if i64::from(t.tid) != pid || pid != i64::from(first_pid()) {
        let _ = write!(out, "[pid {}] ", t.tid);
    }
    out.push_str(text);
    out.push('\n');
    let _ = quick(libc::SYS_write, [fd, out.as_ptr() as u64, out.len() as u64, 0, 0, 0]);
}

/// The process that was traced first in this one's ancestry, as far as fork goes.
fn first_pid() -> i32 {
    static FIRST: AtomicI32 = AtomicI32::new(0);
    let now = std::process::id() as i32;
    match FIRST.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => now,
        Err(first) => first,
    }
}

fn returns_here(name: &str) -> bool {
    !matches!(name, "exit" | "exit_group" | "execve" | "execveat" | "rt_sigreturn" | "vfork")
}

/// Called before a system call is made.
pub fn before(t: &Thread, row: Option<&Row>, args: &[u64; 6]) {
    let Some(row) = row else { return };
    if !returns_here(row.name) {
        line(t, &format!("{} ...", call(row, args, None)));
    }
}

/// Called when it is done.
pub fn after(t: &Thread, number: u64, row: Option<&Row>, args: &[u64; 6], answer: Answer) {
    let Some(row) = row else {
        return line(t, &format!("syscall_{number:#x}(...) = -1 ENOSYS (not a system call of x86_64)"));
    };
    if matches!(row.name, "exit" | "rt_sigreturn") {
        return;
    }
    let mut text = call(row, args, answer.ok());
    match answer {
        Ok(v) if shown_in_hex(row) => {
            let _ = write!(text, " = {v:#x}");
        }
        Ok(v) => {
            let _ = write!(text, " = {v}");
        }
        Err(Errno::RESTART) => text.push_str(" = ? ERESTARTSYS (to be made again)"),
        Err(e) => {
            let _ = write!(text, " = -1 {}", e.name());
            match row.how {
                How::Missing(why) => {
                    let _ = write!(text, " (not supported: {why})");
                }
                How::Partial(_, why) if e == Errno::EINVAL || e == Errno::ENOSYS => {
                    let _ = write!(text, " (supported in part: {why})");
                }
                _ => {
                    let _ = write!(text, " ({})", describe(e));
                }
            }
        }
    }
    line(t, &text);
}

fn shown_in_hex(row: &Row) -> bool {
    matches!(row.name, "mmap" | "brk" | "mremap" | "shmat")
}

fn describe(e: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(e.0).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// A signal that is delivered to the guest.
pub fn signal(t: &Thread, signo: i32, code: i32, detail: &str) {
    if config::get().strace {
        let name = names::signal(signo as u64);
        let sep = if detail.is_empty() { "" } else { ", " };
        line(t, &format!("--- {name} {{si_signo={name}, si_code={code}{sep}{detail}}} ---"));
    }
}

/// A line of another kind: a process killed, a handler entered.
pub fn note(t: &Thread, text: &str) {
    if config::get().strace {
        line(t, text);
    }
}

fn call(row: &Row, args: &[u64; 6], result: Option<i64>) -> String {
    let mut out = format!("{}(", row.name);
    for (i, &arg) in row.args.iter().enumerate() {
        // The mode of an open that creates nothing is not there.
        if i == 3 && matches!(arg, Arg::Mode) && !creates(args[2])
            || i == 2 && matches!(arg, Arg::Mode) && row.name == "open" && !creates(args[1])
        {
            break;
        }
        if i > 0 {
            out.push_str(", ");
        }
        argument(&mut out, arg, args[i], args, result);
    }
    out.push(')');
    out
}

fn creates(flags: u64) -> bool {
    flags & 0o100 != 0 || flags & 0o20000000 != 0
}

fn argument(out: &mut String, arg: Arg, v: u64, args: &[u64; 6], result: Option<i64>) {
    let _ = match arg {
        Arg::Fd | Arg::Int => write!(out, "{}", v as i32),
        Arg::Dfd if v as i32 == libc::AT_FDCWD => write!(out, "AT_FDCWD"),
        Arg::Dfd => write!(out, "{}", v as i32),
        Arg::Uint => write!(out, "{}", v as u32),
        Arg::Len => write!(out, "{v}"),
        Arg::Off => write!(out, "{}", v as i64),
        Arg::Mode => write!(out, "{:#03o}", v as u32 & 0o177777).map(|()| fix_octal(out)),
        Arg::Sig => write!(out, "{}", names::signal(v)),
        Arg::Flags(n) => write!(out, "{}", names::bits(n, v & 0xffff_ffff)),
        Arg::Enum(n) => write!(out, "{}", names::one(n, v & 0xffff_ffff)),
        Arg::OFlags => write!(out, "{}", names::open_flags(v)),
        _ if v == 0 => write!(out, "NULL"),
        Arg::Path | Arg::Str => {
            match user::read_str(v, 4096, Errno(libc::ENAMETOOLONG)) {
                Ok(s) => quoted(out, &s, usize::MAX, false),
                Err(_) => hex(out, v),
            }
            Ok(())
        }
        Arg::In(n) => {
            buffer(out, v, args[n as usize]);
            Ok(())
        }
        Arg::Out(_) => {
            match result {
                Some(n) if n >= 0 => buffer(out, v, n as u64),
                _ => hex(out, v),
            }
            Ok(())
        }
        Arg::IovIn(n) => {
            iovec(out, v, args[n as usize], u64::MAX);
            Ok(())
        }
        Arg::IovOut(n) => {
            iovec(out, v, args[n as usize], result.unwrap_or(0).max(0) as u64);
            Ok(())
        }
        Arg::FdPair => match (result, user::read::<[i32; 2]>(v)) {
            (Some(0), Ok([a, b])) => write!(out, "[{a}, {b}]"),
            _ => write!(out, "{v:#x}"),
        },
        Arg::Wstatus => match (result, user::read::<u32>(v)) {
            (Some(n), Ok(s)) if n > 0 => write!(out, "[{}]", wait_status(s)),
            _ => write!(out, "{v:#x}"),
        },
        Arg::Ts => match user::read::<[i64; 2]>(v) {
            Ok([s, ns]) => write!(out, "{{tv_sec={s}, tv_nsec={ns}}}"),
            Err(_) => write!(out, "{v:#x}"),
        },
        Arg::Tv => match user::read::<[i64; 2]>(v) {
            Ok([s, us]) => write!(out, "{{tv_sec={s}, tv_usec={us}}}"),
            Err(_) => write!(out, "{v:#x}"),
        },
        Arg::SigSet => match user::read::<u64>(v) {
            Ok(set) => write!(out, "{}", signal_set(set)),
            Err(_) => write!(out, "{v:#x}"),
        },
        Arg::StatOut => match (result, user::read::<super::stat::Stat>(v)) {
            (Some(0), Ok(s)) => write!(out, "{{st_mode={:#o}, st_size={}, ...}}", s.mode, s.size),
            _ => write!(out, "{v:#x}"),
        },
        Arg::SockAddr(n) => {
            match user::read_vec(v, args[n as usize].min(128) as usize) {
                Ok(b) => socket_address(out, &b),
                Err(_) => hex(out, v),
            }
            Ok(())
        }
        Arg::Strv => {
            strings(out, v);
            Ok(())
        }
        Arg::Envp => {
            let n = (0..1 << 16).take_while(|i| user::read::<u64>(v + 8 * i).is_ok_and(|p| p != 0)).count();
            write!(out, "{v:#x} /* {n} vars */")
        }
        Arg::Hex | Arg::Addr | Arg::Ptr | Arg::Msg => write!(out, "{v:#x}"),
    };
}

fn hex(out: &mut String, v: u64) {
    let _ = write!(out, "{v:#x}");
}

/// `0o644` as C writes it.
fn fix_octal(out: &mut String) {
    if let Some(at) = out.rfind("0o") {
        out.replace_range(at..at + 2, "0");
    }
}

fn buffer(out: &mut String, at: u64, len: u64) {
    let n = len.min(SHOWN as u64) as usize;
    match user::read_vec(at, n) {
        Ok(b) => quoted(out, &b, n, len > SHOWN as u64),
        Err(_) => hex(out, at),
    }
}

fn iovec(out: &mut String, at: u64, count: u64, mut bytes: u64) {
    out.push('[');
    for k in 0..count.min(8) {
        if k > 0 {
            out.push_str(", ");
        }
        let Ok([base, len]) = user::read::<[u64; 2]>(at.wrapping_add(16 * k)) else {
            hex(out, at);
            break;
        };
        out.push_str("{iov_base=");
        buffer(out, base, len.min(bytes));
        let _ = write!(out, ", iov_len={len}}}");
        bytes = bytes.saturating_sub(len);
    }
    out.push_str(if count > 8 { ", ...]" } else { "]" });
}

fn strings(out: &mut String, at: u64) {
    out.push('[');
    for k in 0..64 {
        match user::read::<u64>(at + 8 * k) {
            Ok(0) => break,
            Ok(p) => {
                if k > 0 {
                    out.push_str(", ");
                }
                match user::read_str(p, 4096, Errno::EINVAL) {
                    Ok(s) => quoted(out, &s[..s.len().min(256)], usize::MAX, s.len() > 256),
                    Err(_) => hex(out, p),
                }
            }
            Err(_) => {
                hex(out, at);
                break;
            }
        }
    }
    out.push(']');
}

fn quoted(out: &mut String, bytes: &[u8], most: usize, more: bool) {
    out.push('"');
    for &b in &bytes[..bytes.len().min(most)] {
        let _ = match b {
            b'"' | b'\\' => write!(out, "\\{}", b as char),
            b'\n' => write!(out, "\\n"),
            b'\t' => write!(out, "\\t"),
            b'\r' => write!(out, "\\r"),
            0x20..=0x7e => write!(out, "{}", b as char),
            0 => write!(out, "\\0"),
            _ => write!(out, "\\x{b:02x}"),
        };
    }
    out.push_str(if more { "\"..." } else { "\"" });
}

fn wait_status(s: u32) -> String {
    match (s & 0x7f, s >> 8 & 0xff) {
        (0, code) => format!("{{WIFEXITED(s) && WEXITSTATUS(s) == {code}}}"),
        (0x7f, sig) => format!("{{WIFSTOPPED(s) && WSTOPSIG(s) == {}}}", names::signal(u64::from(sig))),
        (sig, _) => format!("{{WIFSIGNALED(s) && WTERMSIG(s) == {}}}", names::signal(u64::from(sig))),
    }
}

fn signal_set(set: u64) -> String {
    let list = |set: u64| {
        let all: Vec<String> = (1..=64)
            .filter(|n| set >> (n - 1) & 1 == 1)
            .map(|n| names::signal(n).trim_start_matches("SIG").to_owned())
            .collect();
        format!("[{}]", all.join(" "))
    };
    if set.count_ones() > 32 { format!("~{}", list(!set)) } else { list(set) }
}

fn socket_address(out: &mut String, b: &[u8]) {
    let family = b.get(..2).map_or(0, |f| u16::from_le_bytes([f[0], f[1]]));
    let _ = match (i32::from(family), b.len()) {
        (libc::AF_UNIX, _) => {
            let path = &b[2..];
            let (at, path) = match path {
                [0, rest @ ..] => ("@", rest),
                _ => ("", path.split(|&c| c == 0).next().unwrap_or_default()),
            };
            let _ = write!(out, "{{sa_family=AF_UNIX, sun_path={at}");
            quoted(out, path, usize::MAX, false);
            write!(out, "}}")
        }
        (libc::AF_INET, 8..) => {
            let port = u16::from_be_bytes([b[2], b[3]]);
            write!(out, "{{sa_family=AF_INET, sin_port={port}, sin_addr={}.{}.{}.{}}}", b[4], b[5], b[6], b[7])
        }
        (n, _) => write!(out, "{{sa_family={}, ...}}", names::one(names::AF, n as u64)),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::table::row;

    #[test]
    fn lines() {
        let r = |n: u64| row(n).unwrap();
        let at = libc::AT_FDCWD as u64;
        assert_eq!(call(r(3), &[5, 0, 0, 0, 0, 0], Some(0)), "close(5)");
        assert_eq!(
            call(r(9), &[0, 4096, 3, 0x22, u64::MAX, 0], None),
            "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, NULL)"
        );
        assert_eq!(call(r(257), &[at, 0, 0o2000000, 0, 0, 0], None), "openat(AT_FDCWD, NULL, O_RDONLY|O_CLOEXEC)");
        assert_eq!(call(r(90), &[0, 0o644, 0, 0, 0, 0], None), "chmod(NULL, 0644)");
        assert_eq!(wait_status(0x100), "{WIFEXITED(s) && WEXITSTATUS(s) == 1}");
        assert_eq!(signal_set(1 << 16), "[CHLD]");
        assert_eq!(signal_set(!0), "~[]");
    }
}

//! execve: amd64 programs run under xrun again, AArch64 ones by themselves, scripts by what their first line names, with no help
//! from binfmt_misc. What can fail is found out before anything is given up, with the kernel's error numbers.
//!
//! Where the kernel itself started this program, by binfmt_misc, the next one is left to it as well: only the kernel can give a
//! set-id program its credentials, and execute what may not be read.

use std::ffi::CString;

use super::errno::{Answer, Errno};
use super::{kernel, path, procfs, quick, strace, user};
use crate::thread::Thread;
use crate::{binfmt, config, store};

const AT_FDCWD: u64 = libc::AT_FDCWD as u64;
const AT_EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;
/// As many `#!` lines lead to one another as the kernel follows (fs/exec.c, exec_binprm).
const SCRIPTS: usize = 5;
/// How much of a file the kernel looks at to tell its kind (BINPRM_BUF_SIZE).
const HEAD: usize = 256;

pub fn execve(t: &mut Thread, a: [u64; 6]) -> Answer {
    exec(t, AT_FDCWD, a[0], a[1], a[2], 0)
}

pub fn execveat(t: &mut Thread, a: [u64; 6]) -> Answer {
    exec(t, a[0], a[1], a[2], a[3], a[4])
}

/// A pointer array's elements, without the null that ends it. A null array is an empty one.
fn pointers(mut at: u64) -> Result<Vec<u64>, Errno> {
    /// MAX_ARG_STRINGS is larger still; the kernel's limit on bytes is met first.
    const MOST: usize = 1 << 22;
    let mut out = Vec::new();
    while at != 0 {
        match user::read::<u64>(at)? {
            0 => break,
            p => out.push(p),
        }
        if out.len() > MOST {
            return Err(Errno(libc::E2BIG));
        }
        at += 8;
    }
    Ok(out)
}

/// What a file that can be executed is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Amd64,
    Arm64,
    /// The interpreter of the first line and its one argument.
    Script(Vec<u8>, Option<Vec<u8>>),
    /// Left to the kernel, which may know it.
    Other,
}

fn exec(t: &mut Thread, dir: u64, name: u64, argv: u64, envp: u64, flags: u64) -> Answer {
    let file = resolve(t, dir, name, flags)?;
    if !t.vfork_child {
        store::save();
    }
    if binfmt::started() {
        match direct(t, &file, argv, envp) {
            // No program, or the entry is gone.
            Err(Errno(libc::ENOEXEC)) => {}
            answer => return answer,
        }
    }
    let settled = inspect(&file, 0)?;
    let guest_argv = pointers(argv)?;
    let mut words: Vec<CString> = Vec::new();
    // The guest's own strings go to the kernel where they lie, so that their errors are the kernel's.
    let tail = guest_argv.get(1..).unwrap_or_default();
    let program = match settled {
        Final::Amd64 => {
            let again = again();
            words.extend(again.words.iter().cloned());
            words.push(c"--argv0".into());
            match guest_argv.first() {
                Some(&first) => words.push(arg(first)?),
                // As the kernel since 5.18: a program always has an argv[0].
                None => words.push(c"".into()),
            }
            words.push(c"--".into());
            words.push(file.clone());
            again.file.clone()
        }
        Final::Arm64(front) => {
            let emulator = &config::get().emulator;
            let Some(first) = emulator.first() else {
                return direct(t, &file, argv, envp);
            };
            words.extend(emulator.iter().cloned());
            if front.is_empty() {
                words.push(file.clone());
            } else {
                words.extend(front);
                words.push(file.clone());
            }
            searched(first)
        }
        Final::Kernel => return direct(t, &file, argv, envp),
    };
    strace::keep_over_exec();
    let mut all: Vec<u64> = words.iter().map(|w| w.as_ptr() as u64).collect();
    all.extend_from_slice(tail);
    all.push(0);
    let r = kernel(t, libc::SYS_execve, [program.as_ptr() as u64, all.as_ptr() as u64, envp, 0, 0, 0]);
    strace::not_over_exec();
    r
}

/// How xrun is started again with the options it has.
struct Again {
    file: CString,
    words: Vec<CString>,
}

fn again() -> Again {
    use std::os::unix::ffi::OsStrExt;
    let config = config::get();
    let text = |s: &[u8]| CString::new(s).unwrap_or_default();
    let mut words = config.emulator.clone();
    let file = match words.first() {
        Some(emulator) => {
            let emulator = searched(emulator);
            words.push(own_path());
            emulator
        }
        None => {
            words.push(c"xrun".into());
            own_file()
        }
    };
    if !config.cache {
        words.push(c"--no-cache".into());
    }
    if let Some(dir) = &config.prefix {
        words.extend([c"-L".into(), text(dir.as_os_str().as_bytes())]);
    }
    if let Some(fd) = strace::fd() {
        words.extend([c"--strace".into(), c"--strace-fd".into(), text(fd.to_string().as_bytes())]);
    }
    if !config.emulator.is_empty() {
        let joined: Vec<&[u8]> = config.emulator.iter().map(|w| w.as_bytes()).collect();
        words.extend([c"--emulator".into(), text(&joined.join(&b' '))]);
    }
    Again { file, words }
}

/// A command's file, looked for in PATH as a shell does.
fn searched(command: &CString) -> CString {
    use std::os::unix::ffi::OsStrExt;
    if command.as_bytes().contains(&b'/') {
        return command.clone();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter_map(|dir| CString::new([dir.as_os_str().as_bytes(), b"/", command.as_bytes()].concat()).ok())
        .find(|file| exists(file).is_ok())
        .unwrap_or_else(|| command.clone())
}

/// The link leads to this file whatever happened to its name, in other mount namespaces too.
fn own_file() -> CString {
    let link = c"/proc/self/exe";
    if exists(&link.into()).is_ok() { link.into() } else { own_path() }
}

/// The name this process was executed by, as far as it is known.
fn own_path() -> CString {
    use std::os::unix::ffi::OsStrExt;
    let path = std::env::current_exe().unwrap_or_else(|_| std::env::args_os().next().unwrap_or_default().into());
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// Lets the kernel execute the file itself.
fn direct(t: &Thread, file: &CString, argv: u64, envp: u64) -> Answer {
    kernel(t, libc::SYS_execve, [file.as_ptr() as u64, argv, envp, 0, 0, 0])
}

fn arg(at: u64) -> Result<CString, Errno> {
    // MAX_ARG_STRLEN: 32 pages.
    let s = user::read_str(at, 32 * 4096, Errno(libc::E2BIG))?;
    CString::new(s).map_err(|_| Errno::EINVAL)
}

/// The file's path, which must work from the new program's point of view too.
fn resolve(t: &Thread, dir: u64, name: u64, flags: u64) -> Result<CString, Errno> {
    let nofollow = libc::AT_SYMLINK_NOFOLLOW as u64;
    if flags & !(AT_EMPTY_PATH | nofollow) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = user::read_path(name)?;
    if name.is_empty() {
        if flags & AT_EMPTY_PATH == 0 {
            return Err(Errno::ENOENT);
        }
        return of_descriptor(dir);
    }
    if let Some(target) = procfs::link(&name) {
        return path::c_path(target);
    }
    let relative_to_fd = dir as i32 != libc::AT_FDCWD && name[0] != b'/';
    if relative_to_fd || flags & nofollow != 0 {
        let c = path::c_path(name)?;
        let follow = if flags & nofollow != 0 { libc::O_NOFOLLOW } else { 0 };
        let open = (libc::O_PATH | libc::O_CLOEXEC | follow) as u64;
        let fd = kernel(t, libc::SYS_openat, [dir, c.as_ptr() as u64, open, 0, 0, 0])?;
        // O_PATH with O_NOFOLLOW opens the link itself; exec refuses it.
        if flags & nofollow != 0 && is_link(fd as u64) {
            close(fd);
            return Err(Errno(libc::ELOOP));
        }
        let path = of_descriptor(fd as u64);
        close(fd);
        return path;
    }
    // Under the prefix, when there is nothing at the path itself.
    let own = path::c_path(name.clone())?;
    if exists(&own) == Err(Errno::ENOENT)
        && let Some(other) = path::under_prefix(&name)
        && exists(&other).is_ok()
    {
        return Ok(other);
    }
    // exec of /dev/fd/N: the descriptor may close on exec, the file stays.
    if let Some(n) = descriptor_path(&name) {
        return of_descriptor(n);
    }
    Ok(own)
}

fn descriptor_path(name: &[u8]) -> Option<u64> {
    let n = name.strip_prefix(b"/dev/fd/").or_else(|| name.strip_prefix(b"/proc/self/fd/"))?;
    std::str::from_utf8(n).ok()?.parse::<u32>().ok().map(u64::from)
}

fn exists(p: &CString) -> Answer {
    quick(libc::SYS_faccessat, [AT_FDCWD, p.as_ptr() as u64, libc::F_OK as u64, 0, 0, 0])
}

fn close(fd: i64) {
    let _ = quick(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0]);
}

fn is_link(fd: u64) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let at = format!("/proc/self/fd/{fd}");
    std::fs::metadata(&at).is_err()
        || std::fs::symlink_metadata(std::fs::read_link(&at).unwrap_or_default())
            .is_ok_and(|m| m.file_type().is_symlink() && !m.file_type().is_socket())
}

/// A path for an open file: its own, when that still leads to it, else one through a copy of the descriptor that stays open.
fn of_descriptor(fd: u64) -> Result<CString, Errno> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let link = format!("/proc/self/fd/{fd}");
    let here = std::fs::metadata(&link).map_err(|_| Errno(libc::EBADF))?;
    let target = std::fs::read_link(&link).map_err(|_| Errno(libc::EBADF))?;
    if let Ok(there) = std::fs::metadata(&target)
        && (there.dev(), there.ino()) == (here.dev(), here.ino())
    {
        return path::c_path(target.as_os_str().as_bytes().to_vec());
    }
    let copy = quick(libc::SYS_dup, [fd, 0, 0, 0, 0, 0])?;
    CString::new(format!("/proc/self/fd/{copy}")).map_err(|_| Errno::EINVAL)
}

/// What runs in the end.
enum Final {
    Amd64,
    /// The words a chain of scripts puts before the file's name; none for a program.
    Arm64(Vec<CString>),
    Kernel,
}

fn inspect(file: &CString, depth: usize) -> Result<Final, Errno> {
    if depth > SCRIPTS {
        return Err(Errno(libc::ELOOP));
    }
    match kind(file)? {
        Kind::Amd64 => Ok(Final::Amd64),
        Kind::Arm64 => Ok(Final::Arm64(Vec::new())),
        Kind::Other => Ok(Final::Kernel),
        Kind::Script(interpreter, argument) => {
            let mut at = path::c_path(interpreter.clone())?;
            if exists(&at) == Err(Errno::ENOENT)
                && let Some(other) = path::under_prefix(&interpreter)
            {
                at = other;
            }
            match inspect(&at, depth + 1)? {
                Final::Arm64(mut front) => {
                    front.push(at);
                    front.extend(argument.map(path::c_path).transpose()?);
                    Ok(Final::Arm64(front))
                }
                other => Ok(other),
            }
        }
    }
}

/// Opens, checks and classifies a file as exec does: EACCES for what is no regular file or has no execute permission.
fn kind(file: &CString) -> Result<Kind, Errno> {
    let open = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
    let fd = quick(libc::SYS_openat, [AT_FDCWD, file.as_ptr() as u64, open, 0, 0, 0])?;
    let r = kind_of(fd as u64, file);
    close(fd);
    r
}

fn kind_of(fd: u64, file: &CString) -> Result<Kind, Errno> {
    use std::mem::MaybeUninit;
    let mut st = MaybeUninit::<libc::stat>::zeroed();
    quick(libc::SYS_fstat, [fd, st.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    // SAFETY: zeroed integers, filled by the kernel.
    let st = unsafe { st.assume_init() };
    if st.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno(libc::EACCES));
    }
    let eaccess = libc::AT_EACCESS as u64;
    let x = [AT_FDCWD, file.as_ptr() as u64, libc::X_OK as u64, eaccess, 0, 0];
    match quick(libc::SYS_faccessat2, x) {
        Ok(_) => {}
        // Kernels before 5.8: by the real ids, which is the same but for set-id programs.
        Err(Errno::ENOSYS) => {
            quick(libc::SYS_faccessat, x).map_err(|_| Errno(libc::EACCES))?;
        }
        Err(_) => return Err(Errno(libc::EACCES)),
    }
    let mut head = [0u8; HEAD];
    let n = quick(libc::SYS_pread64, [fd, head.as_mut_ptr() as u64, HEAD as u64, 0, 0, 0])?;
    classify(&head[..n as usize])
}

fn classify(head: &[u8]) -> Result<Kind, Errno> {
    let enoexec = Errno(libc::ENOEXEC);
    if let Some(line) = head.strip_prefix(b"#!") {
        return script(line, head.len() == HEAD).ok_or(enoexec);
    }
    let Some(ident) = head.strip_prefix(b"\x7fELF") else {
        return Ok(Kind::Other);
    };
    // e_ident: class, data; then e_type at 16 and e_machine at 18 (System V ABI, ELF header).
    if head.len() < 64 {
        return Err(enoexec);
    }
    let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    const ELFCLASS64: u8 = 2;
    const ELFDATA2LSB: u8 = 1;
    if ident[0] != ELFCLASS64 || ident[1] != ELFDATA2LSB {
        return Ok(Kind::Other);
    }
    const ET_EXEC: u16 = 2;
    const ET_DYN: u16 = 3;
    const EM_X86_64: u16 = 62;
    const EM_AARCH64: u16 = 183;
    match (half(16), half(18)) {
        (ET_EXEC | ET_DYN, EM_X86_64) => Ok(Kind::Amd64),
        (ET_EXEC | ET_DYN, EM_AARCH64) => Ok(Kind::Arm64),
        (ET_EXEC | ET_DYN, _) => Ok(Kind::Other),
        _ => Err(enoexec),
    }
}

/// The first line after `#!`, by fs/binfmt_script.c: blanks around the interpreter and around all of the rest, which is one argument.
fn script(line: &[u8], cut: bool) -> Option<Kind> {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let end = line.iter().position(|&b| b == b'\n');
    let text = &line[..end.unwrap_or(line.len())];
    let text = &text[text.iter().position(|b| !blank(b))?..];
    let stop = |b: &u8| blank(b) || *b == 0;
    let name_end = text.iter().position(stop);
    // Without an end in sight the name may have been cut off.
    if end.is_none() && name_end.is_none() && cut {
        return None;
    }
    let (name, rest) = text.split_at(name_end.unwrap_or(text.len()));
    if name.is_empty() {
        return None;
    }
    let rest = rest.split(|&b| b == 0).next().unwrap_or_default();
    let argument = match (rest.iter().position(|b| !blank(b)), rest.iter().rposition(|b| !blank(b))) {
        (Some(a), Some(b)) => Some(rest[a..=b].to_vec()),
        _ => None,
    };
    Some(Kind::Script(name.to_vec(), argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        let s = |text: &str| classify(text.as_bytes());
        let script = |i: &str, a: Option<&str>| Ok(Kind::Script(i.into(), a.map(Into::into)));
        assert_eq!(s("#!/bin/sh\n"), script("/bin/sh", None));
        assert_eq!(s("#! /bin/sh -e  \nx"), script("/bin/sh", Some("-e")));
        assert_eq!(s("#!/usr/bin/env perl -w\n"), script("/usr/bin/env", Some("perl -w")));
        assert_eq!(s("#!/bin/sh"), script("/bin/sh", None));
        assert_eq!(s("#!\n"), Err(Errno(libc::ENOEXEC)));
        assert_eq!(s("#!   \n"), Err(Errno(libc::ENOEXEC)));
        let long = format!("#!/{}", "x".repeat(300));
        assert_eq!(classify(&long.as_bytes()[..HEAD]), Err(Errno(libc::ENOEXEC)));
        assert_eq!(s("hello"), Ok(Kind::Other));
        assert_eq!(s(""), Ok(Kind::Other));
    }

    #[test]
    fn elf_kinds() {
        let mut h = [0u8; 64];
        h[..6].copy_from_slice(b"\x7fELF\x02\x01");
        h[16] = 3;
        h[18] = 62;
        assert_eq!(classify(&h), Ok(Kind::Amd64));
        h[18] = 183;
        assert_eq!(classify(&h), Ok(Kind::Arm64));
        h[16] = 1;
        assert_eq!(classify(&h), Err(Errno(libc::ENOEXEC)));
        h[4] = 1;
        assert_eq!(classify(&h), Ok(Kind::Other));
    }
}

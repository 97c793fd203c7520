//! The directory of kept translations: where it is, whose it must be, and how files come into it and go.
//!
//! Only what belongs to the user who runs the program and what nobody else can write is read: the directory, each file, and never through a
//! symbolic link. A file is written under another name and then takes its place, so whoever maps it has all of one or all of the other; a lock on the
//! directory keeps two writers from each dropping what the other adds. Knows nothing of what is in the files.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How names of kept files end.
const SUFFIX: &str = ".xr";
/// Files with this suffix are being written.
const UNFINISHED: &str = ".new";
/// The key that places are drawn with.
const SECRET: &str = "secret";

/// Where kept translations are: `XRUN_CACHE` names the directory, or says `off`; else as the XDG Base Directory Specification has it,
/// `$XDG_CACHE_HOME/xrun` or `$HOME/.cache/xrun`. `None`: nothing is kept.
pub fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v: &OsString| !v.is_empty());
    let absolute = |p: PathBuf| p.is_absolute().then_some(p);
    match set("XRUN_CACHE") {
        Some(v) if v == "off" => None,
        Some(v) => absolute(v.into()),
        None => match set("XDG_CACHE_HOME") {
            Some(v) => absolute(Path::new(&v).join("xrun")),
            None => absolute(Path::new(&set("HOME")?).join(".cache/xrun")),
        },
    }
}

/// An open directory that may be trusted.
#[derive(Debug)]
pub struct Dir(OwnedFd);

fn c_string(s: &OsStr) -> io::Result<CString> {
    CString::new(s.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(r: i32) -> io::Result<i32> {
    if r == -1 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

/// Whether what `fd` is belongs to this user and only this user can write it; with the metadata.
fn own(fd: i32, kind: u32) -> io::Result<libc::stat> {
    // SAFETY: an all-zero stat is a valid value, and outlives the call; geteuid only asks.
    let (st, me) = unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd, &mut st))?;
        (st, libc::geteuid())
    };
    if st.st_uid == me && st.st_mode & libc::S_IFMT == kind && st.st_mode & 0o022 == 0 {
        Ok(st)
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

impl Dir {
    /// Opens the directory at `path`.
    pub fn open(path: &Path) -> io::Result<Dir> {
        let name = c_string(path.as_os_str())?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: the name ends with NUL; the descriptor is new and this value's.
        let dir = unsafe { OwnedFd::from_raw_fd(check(libc::open(name.as_ptr(), flags))?) };
        own(dir.as_raw_fd(), libc::S_IFDIR)?;
        Ok(Dir(dir))
    }

    /// Opens it, and makes it if it is missing; its parent too if that is allowed.
    pub fn make(path: &Path, parent: bool) -> io::Result<Dir> {
        match Dir::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let make = |p: &Path| fs::DirBuilder::new().mode(0o700).create(p);
                if let Err(e) = make(path) {
                    match (e.kind(), path.parent()) {
                        (io::ErrorKind::NotFound, Some(above)) if parent => {
                            make(above)?;
                            make(path)?;
                        }
                        (io::ErrorKind::AlreadyExists, _) => {}
                        _ => return Err(e),
                    }
                }
                Dir::open(path)
            }
            r => r,
        }
    }

    fn open_at(&self, name: &str, flags: i32) -> io::Result<File> {
        let name = c_string(OsStr::new(name))?;
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the name ends with NUL; the descriptor is new and the File's.
        unsafe { Ok(File::from_raw_fd(check(libc::openat(self.0.as_raw_fd(), name.as_ptr(), flags, 0o600))?)) }
    }

    /// Opens a file to read; its length and inode.
    pub fn read(&self, name: &str) -> io::Result<(File, u64, u64)> {
        let file = self.open_at(name, libc::O_RDONLY)?;
        let st = own(file.as_raw_fd(), libc::S_IFREG)?;
        Ok((file, st.st_size as u64, st.st_ino as u64))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to, dir) = (c_string(OsStr::new(from))?, c_string(OsStr::new(to))?, self.0.as_raw_fd());
        // SAFETY: both names end with NUL.
        check(unsafe { libc::renameat(dir, from.as_ptr(), dir, to.as_ptr()) }).map(|_| ())
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        let name = c_string(name)?;
        // SAFETY: the name ends with NUL.
        check(unsafe { libc::unlinkat(self.0.as_raw_fd(), name.as_ptr(), 0) }).map(|_| ())
    }

    /// Puts a file with these bytes in the place of `name`; its inode. To be called with the [`Lock`].
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<u64> {
        let new = format!("{name}.{}{UNFINISHED}", std::process::id());
        let mut file = self.open_at(&new, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)?;
        let st = own(file.as_raw_fd(), libc::S_IFREG)?;
        let done = file.write_all(bytes).and_then(|()| self.rename(&new, name));
        if done.is_err() {
            let _ = self.remove(OsStr::new(&new));
        }
        done.map(|()| st.st_ino as u64)
    }

    /// Waits until nobody else writes here, a tenth of a second at most: a writer may be stopped.
    pub fn lock(&self) -> io::Result<Lock<'_>> {
        for _ in 0..20 {
            // SAFETY: locks a descriptor of ours.
            match check(unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
                Err(e) => return Err(e),
                Ok(_) => return Ok(Lock(self)),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// 16 random bytes that all this user's processes have, drawn when first asked for.
    pub fn secret(&self) -> io::Result<[u8; 16]> {
        let mut secret = [0; 16];
        match self.read(SECRET) {
            Ok((mut file, 16, _)) => file.read_exact(&mut secret).map(|()| secret),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => {
                let _lock = self.lock()?;
                // Another process may have been first.
                if let Ok((mut file, 16, _)) = self.read(SECRET) {
                    return file.read_exact(&mut secret).map(|()| secret);
                }
                // SAFETY: the buffer is valid for its length.
                if unsafe { libc::getrandom(secret.as_mut_ptr().cast(), secret.len(), 0) } != 16 {
                    return Err(io::Error::last_os_error());
                }
                self.replace(SECRET, &secret).map(|_| secret)
            }
        }
    }
}

/// Holds other writers off.
pub struct Lock<'a>(&'a Dir);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // SAFETY: unlocks a descriptor of ours.
        unsafe { libc::flock(self.0.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

/// The name of the file for `key`.
pub fn name(key: [u64; 2]) -> String {
    format!("{:016x}{:016x}{SUFFIX}", key[0], key[1])
}

/// What is in the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub files: u64,
    pub bytes: u64,
}

struct Kept {
    name: OsString,
    bytes: u64,
    used: SystemTime,
    finished: bool,
}

fn kept(path: &Path) -> io::Result<Vec<Kept>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let finished = name.as_bytes().ends_with(SUFFIX.as_bytes());
        if !finished && !name.as_bytes().ends_with(UNFINISHED.as_bytes()) {
            continue;
        }
        if let Ok(meta) = entry.metadata() {
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            all.push(Kept { name, bytes: meta.len(), used, finished });
        }
    }
    Ok(all)
}

/// What is kept in the directory at `path`.
pub fn usage(path: &Path) -> io::Result<Usage> {
    let all = kept(path)?;
    Ok(Usage { files: all.iter().filter(|k| k.finished).count() as u64, bytes: all.iter().map(|k| k.bytes).sum() })
}

/// Removes all that is kept in the directory at `path`; says how much that was.
pub fn clear(path: &Path) -> io::Result<Usage> {
    let usage = usage(path)?;
    let dir = Dir::open(path)?;
    for k in kept(path)? {
        dir.remove(&k.name)?;
    }
    Ok(usage)
}

/// Removes what was used longest ago until `limit` bytes are left, and what nobody finished within an hour.
pub fn evict(path: &Path, dir: &Dir, limit: u64) -> io::Result<()> {
    let mut all = kept(path)?;
    let mut bytes: u64 = all.iter().map(|k| k.bytes).sum();
    let old = |k: &Kept| k.used.elapsed().is_ok_and(|age| age > Duration::from_secs(3600));
    all.sort_by_key(|k| (k.finished, k.used));
    for k in all {
        if bytes > limit && k.finished || !k.finished && old(&k) {
            dir.remove(&k.name)?;
            bytes -= k.bytes;
        }
    }
    Ok(())
}

/// Says that the file was used now, for [`evict`]; once a day is enough.
pub fn touch(file: &File) {
    let stale = |m: fs::Metadata| m.modified()?.elapsed().map_err(io::Error::other);
    if file.metadata().and_then(stale).is_ok_and(|age| age > Duration::from_secs(24 * 3600)) {
        let _ = file.set_modified(SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that is not there yet.
    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("xrun-dir-{}-{name}", std::process::id())).join("cache");
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn is_made_for_its_user_alone() {
        let path = fresh("made");
        let dir = Dir::make(&path, true).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        let secret = dir.secret().expect("drawn");
        assert_eq!(Dir::make(&path, false).expect("open").secret().expect("read"), secret);
        assert_ne!(Dir::make(&fresh("other"), true).expect("made").secret().expect("drawn"), secret);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).expect("ours");
        assert!(Dir::open(&path).is_err());
        assert!(Dir::make(&path.join("no/such"), false).is_err());
    }

    #[test]
    fn a_file_takes_the_place_of_another() {
        let path = fresh("replaced");
        let dir = Dir::make(&path, true).expect("made");
        let _lock = dir.lock().expect("free");
        assert!(Dir::open(&path).expect("open").lock().is_err(), "locked twice");
        let one = dir.replace("a.xr", b"one").expect("written");
        let (_, len, inode) = dir.read("a.xr").expect("there");
        assert_eq!((len, inode), (3, one));
        let (mut old, ..) = dir.read("a.xr").expect("there");
        dir.replace("a.xr", b"another").expect("written");
        let mut text = String::new();
        old.read_to_string(&mut text).expect("read");
        assert_eq!((text.as_str(), dir.read("a.xr").expect("there").1), ("one", 7));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let path = fresh("evicted");
        let dir = Dir::make(&path, true).expect("made");
        dir.secret().expect("drawn");
        let at = |days: u64| SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        for (name, age) in [("a.xr", 3), ("b.xr", 1), ("c.xr", 2), ("d.xr.1.new", 1)] {
            dir.replace(name, &[1; 8192]).expect("written");
            File::open(path.join(name)).and_then(|f| f.set_modified(at(age))).expect("set");
        }
        touch(&dir.read("a.xr").expect("there").0);
        evict(&path, &dir, 20_000).expect("evicted");
        let mut left: Vec<_> = fs::read_dir(&path).expect("there").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.xr", "b.xr", "secret"]);
        assert_eq!(clear(&path).expect("cleared").files, 2);
        assert_eq!(usage(&path).expect("there"), Usage::default());
    }
}

//! What the command line asked for, process-wide and fixed before the first guest instruction.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// How to run a program.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The program's path as given.
    pub program: PathBuf,
    /// The program's argv[0], when it is not the path.
    pub argv0: Option<Vec<u8>>,
    /// argv[1] and on.
    pub args: Vec<Vec<u8>>,
    /// Prefix for the interpreter and for libraries that are not found at their own paths (`-L DIR`).
    pub prefix: Option<PathBuf>,
    /// Keep translations for the next process (see [`crate::store`]).
    pub cache: bool,
    /// Say at the end how many translations came from there.
    pub cache_report: bool,
    /// Write a line for every system call to standard error.
    pub strace: bool,
    /// The descriptor those lines go to, handed on by the xrun that executed this one.
    pub strace_fd: Option<i32>,
    /// When xrun itself runs under an emulator that the kernel knows nothing of: the words of the command that runs an AArch64 file
    /// (`--emulator "qemu-aarch64 -cpu max"`). execve then goes through it.
    pub emulator: Vec<CString>,
}

static CONFIG: OnceLock<Config> = OnceLock::new();

/// Fixes the configuration; the first call wins.
pub fn set(config: Config) {
    let _ = CONFIG.set(config);
}

/// The configuration; the default one before [`set`].
pub fn get() -> &'static Config {
    CONFIG.get_or_init(Config::default)
}

impl Config {
    /// `path` under the `-L` directory: `None` without one or for a relative path.
    pub fn prefixed(&self, path: &Path) -> Option<PathBuf> {
        Some(self.prefix.as_ref()?.join(path.strip_prefix("/").ok()?))
    }
}

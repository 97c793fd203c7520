//! `xrun cache`: what is kept of translations, and its end.

use std::ffi::OsString;
use std::io::ErrorKind;
use xrun_runtime::store::{self, dir};

/// Runs `xrun cache` with the arguments behind it; the answer is text for the user, an error a line.
pub fn run(args: &[OsString]) -> Result<String, String> {
    let words: Vec<_> = args.iter().filter_map(|a| a.to_str()).collect();
    let path = dir::path();
    match (&words[..], path) {
        (["status" | "clear"], None) => Ok("off: no directory for it (XRUN_CACHE, XDG_CACHE_HOME, HOME)\n".into()),
        (["status"], Some(path)) => {
            let usage = or_nothing(dir::usage(&path)).map_err(|e| format!("{}: {e}", path.display()))?;
            let limit = store::LIMIT >> 20;
            Ok(format!("{}: {}, of {limit} MiB at most\n", path.display(), told(usage)))
        }
        (["clear"], Some(path)) => {
            let usage = or_nothing(dir::clear(&path)).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok(format!("{}: removed {}\n", path.display(), told(usage)))
        }
        _ => Err("usage: xrun cache status | clear | warm PROGRAM [ARGUMENTS]".into()),
    }
}

/// A directory that is not there yet holds nothing.
fn or_nothing(r: std::io::Result<dir::Usage>) -> std::io::Result<dir::Usage> {
    match r {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(dir::Usage::default()),
        r => r,
    }
}

fn told(usage: dir::Usage) -> String {
    let files = if usage.files == 1 { "file" } else { "files" };
    format!("{} {files}, {} KiB", usage.files, usage.bytes >> 10)
}

//! The line that says how a guest died of its own fault. Everything in it is looked up when it happens and may be missing.

use std::fmt::Write;

use super::host::SyncFault;
use crate::memory::{self, access};
use crate::thread::Thread;

fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => "SIGSEGV (segmentation fault)",
        libc::SIGBUS => "SIGBUS (bus error)",
        libc::SIGFPE => "SIGFPE (arithmetic fault)",
        libc::SIGILL => "SIGILL (undefined instruction)",
        libc::SIGTRAP => "SIGTRAP (breakpoint)",
        _ => "signal",
    }
}

/// The file mapped at `addr` and the offset of `addr` in it.
fn module(maps: &str, addr: u64) -> Option<(&str, u64)> {
    maps.lines().find_map(|l| {
        let mut f = l.splitn(6, ' ');
        let (start, end) = f.next()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let offset = u64::from_str_radix(f.nth(1)?, 16).ok()?;
        let path = f.nth(2)?.trim();
        (start <= addr && addr < end && !path.is_empty()).then(|| (path, offset + (addr - start)))
    })
}

/// Writes the line to standard error.
pub fn report(t: &Thread, fault: &SyncFault) {
    let rip = t.cpu.rip;
    let maps = memory::maps_text();
    let mut line = format!("xrun: {} at rip {rip:#x}", name(fault.signo));
    if let Some((path, offset)) = module(&maps, rip) {
        let _ = write!(line, " = {path}+{offset:#x}");
    }
    if matches!(fault.signo, libc::SIGSEGV | libc::SIGBUS) {
        let what = match fault.err {
            e if e & 16 != 0 => "fetching code at",
            e if e & 2 != 0 => "writing",
            _ => "reading",
        };
        if fault.trapno == 14 {
            let _ = write!(line, ", {what} address {:#x}", fault.addr);
        } else {
            line.push_str(", general protection");
        }
    }
    let mut code = [0u8; 8];
    // Up to the end of the page at most: what follows may not be mapped.
    let n = (4096 - (rip % 4096) as usize).min(code.len());
    if memory::prot_at(rip).is_some() && access::read(rip, &mut code[..n]).is_ok() {
        line.push_str(", bytes");
        for b in &code[..n] {
            let _ = write!(line, " {b:02x}");
        }
    }
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_module() {
        let maps = "400000-401000 r-xp 00002000 08:01 5                  /bin/a b\n\
                    7000-8000 rw-p 00000000 00:00 0 \n";
        assert_eq!(module(maps, 0x400123), Some(("/bin/a b", 0x2123)));
        assert_eq!(module(maps, 0x7100), None);
        assert_eq!(module(maps, 0x9000), None);
    }
}

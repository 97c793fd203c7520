//! The shadow stack: for each guest CALL in progress, the guest return address and the host address of the code after the call, so that a
//! guest RET is a host RET the return predictor knows. It is a cache, never the truth: every RET compares, and a wrong
//! or missing entry costs a trip through the dispatcher.
//!
//! Entries are 16 bytes and the stack grows down. CALL pushes with a pre-decrement, RET pops with a post-increment, neither checks bounds:
//! the mapping has an inaccessible page at each end, and the fault handler asks [`Shadow::fault`].

use crate::abi::WANTS_FLAGS;
use crate::code::NEVER;
use crate::memory::host;

const PAGE: u64 = 65536; // the largest page size of an AArch64 kernel
const SIZE: u64 = 1 << 20;
const ENTRY: u64 = 16;
/// How far below the top a matching entry is looked for after a mismatch (longjmp, exceptions unwind several frames).
const DEPTH: u64 = 64;

/// One thread's shadow stack.
#[derive(Debug, Default)]
pub struct Shadow {
    /// Start of the mapping; 0 before there is one.
    map: u64,
}

impl Shadow {
    /// Maps the stack; the error is an errno.
    pub fn new() -> Result<Shadow, i32> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let map = host::mmap(0, SIZE + 2 * PAGE, libc::PROT_NONE, flags, -1, 0)?;
        let s = Shadow { map };
        host::mprotect(map + PAGE, SIZE, libc::PROT_READ | libc::PROT_WRITE)?;
        s.put(s.base(), NEVER, super::never());
        Ok(s)
    }

    /// Address of the bottom entry, which matches no return; the empty stack's pointer.
    pub fn base(&self) -> u64 {
        self.map + PAGE + SIZE - ENTRY
    }

    fn low(&self) -> u64 {
        self.map + PAGE
    }

    fn holds(&self, at: u64) -> bool {
        self.map != 0 && at.is_multiple_of(ENTRY) && at >= self.low() && at <= self.base()
    }

    /// The entry at `at`: (guest, host).
    pub fn get(&self, at: u64) -> Option<(u64, u64)> {
        // SAFETY: `holds` checks that the entry is inside this thread's own mapping.
        self.holds(at).then(|| unsafe { (at as *const (u64, u64)).read() })
    }

    /// Replaces the entry at `at`; does nothing outside the stack.
    pub fn put(&self, at: u64, guest: u64, host: u64) {
        if self.holds(at) {
            // SAFETY: as above.
            unsafe { (at as *mut (u64, u64)).write((guest, host)) };
        }
    }

    /// Pushes an entry as CALL does, if there is room below `pointer`.
    pub fn push(&self, pointer: &mut u64, guest: u64, host: u64) {
        let at = pointer.wrapping_sub(ENTRY);
        if self.holds(at) {
            self.put(at, guest, host);
            *pointer = at;
        }
    }

    /// A RET to `guest` popped an entry that did not match, leaving the pointer at `top`. If one of the next few entries does, returns
    /// the pointer after popping it, and its host address; else the pointer as it was before the RET, because the return was of another kind.
    pub fn resync(&self, top: u64, guest: u64) -> (u64, Option<u64>) {
        let top = top.wrapping_sub(ENTRY);
        if !self.holds(top) {
            return (self.base(), None);
        }
        let mut at = top;
        for _ in 0..DEPTH {
            if at >= self.base() {
                break;
            }
            match self.get(at) {
                Some((g, h)) if g & !WANTS_FLAGS == guest => return (at + ENTRY, Some(h)),
                _ => at += ENTRY,
            }
        }
        (top, None)
    }

    /// If `addr` is in one of the guard pages: the pointer to go on with. On overflow the newer half of the entries is kept. `pointer` is
    /// the stack pointer at the fault.
    pub fn fault(&self, addr: u64, pointer: u64) -> Option<u64> {
        if self.map == 0 || addr < self.map || addr >= self.low() + SIZE + PAGE {
            return None;
        }
        if addr >= self.low() + SIZE {
            return Some(self.base());
        }
        if addr < self.low() {
            let pointer = pointer.clamp(self.low(), self.base());
            let kept = (SIZE / 2).min(self.base() - pointer) / ENTRY * ENTRY;
            // SAFETY: both ranges are inside the mapping: the kept entries start at `pointer`, and end up just above the bottom entry.
            unsafe { std::ptr::copy(pointer as *const u8, (self.base() - kept) as *mut u8, kept as usize) };
            return Some(self.base() - kept);
        }
        None
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        if self.map != 0 {
            let _ = host::munmap(self.map, SIZE + 2 * PAGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(s: &Shadow, top: &mut u64, guest: u64) {
        *top -= ENTRY;
        s.put(*top, guest, guest + 1);
    }

    #[test]
    fn finds_the_frame_a_longjmp_returned_to() {
        let s = Shadow::new().unwrap();
        let mut top = s.base();
        for g in [10, 20, 30, 40] {
            push(&s, &mut top, g);
        }
        // A RET to 20 popped 40.
        assert_eq!(s.resync(top + ENTRY, 20), (s.base() - ENTRY, Some(21)));
        // A RET to nowhere known pops nothing.
        assert_eq!(s.resync(top + ENTRY, 99), (top, None));
        // At the bottom.
        assert_eq!(s.resync(s.base() + ENTRY, 99), (s.base(), None));
    }

    #[test]
    fn overflow_keeps_the_newer_half() {
        let s = Shadow::new().unwrap();
        let mut top = s.base();
        let n = SIZE / ENTRY - 1;
        for g in 0..n {
            push(&s, &mut top, g);
        }
        assert_eq!(top, s.low());
        let p = s.fault(top - ENTRY, top).unwrap();
        assert_eq!(s.get(p), Some((n - 1, n)));
        assert_eq!(p, s.base() - SIZE / 2);
        assert_eq!(s.fault(s.base() + ENTRY, 0), Some(s.base()));
        assert_eq!(s.fault(s.base(), 0), None);
    }
}

//! Locked operations on addresses that are not aligned ("split locks", SDM vol. 3, 9.1.2.1), which AArch64 has no instruction for: carried out in
//! the fault handler.
//!
//! An access inside one aligned 8-byte word is one compare-and-swap and as atomic as any. One that straddles two words is atomic
//! against all others that come here (one lock), and each of its words changes only from the value that was read; what another thread's
//! aligned access can see, unlike on x86, is the moment between the two.

use crate::memory::{self, vmas::Prot};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// An atomic access as decoded from its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub op: Op,
    pub bytes: u32,
    pub s: u8,
    pub t: u8,
    pub n: u8,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Add,
    Clear,
    Eor,
    Set,
    Swap,
    /// `s` = what is compared, and the old value afterwards; `t` = the new value.
    CompareSwap,
    LoadExclusive,
    /// `s` = status.
    StoreExclusive,
}

/// Decodes the forms the translator emits (Arm ARM, C4.1 "Loads and stores"): LDADDAL and its like, SWPAL, CASAL, LDAXR, STLXR.
pub fn decode(word: u32) -> Option<Access> {
    let op = match word & 0x3fe0_fc00 {
        0x38e0_0000 => Op::Add,
        0x38e0_1000 => Op::Clear,
        0x38e0_2000 => Op::Eor,
        0x38e0_3000 => Op::Set,
        0x38e0_8000 => Op::Swap,
        0x08e0_fc00 => Op::CompareSwap,
        0x0800_fc00 => Op::StoreExclusive,
        0x0840_fc00 => Op::LoadExclusive,
        _ => return None,
    };
    let (n, t, s) = ((word >> 5 & 31) as u8, (word & 31) as u8, (word >> 16 & 31) as u8);
    Some(Access { op, bytes: 1 << (word >> 30), s, t, n })
}

/// What an unaligned LDAXR read, for its STLXR to compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exclusive {
    addr: u64,
    value: u64,
    valid: bool,
}

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;

static LOCK: AtomicBool = AtomicBool::new(false);

/// Held for a few instructions, by signal handlers, which nothing interrupts.
struct Held;

impl Held {
    fn new() -> Held {
        while LOCK.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::hint::spin_loop();
        }
        Held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        LOCK.store(false, Ordering::Release);
    }
}

/// Whether all of the access can be made; else SEGV_MAPERR or SEGV_ACCERR.
fn check(addr: u64, bytes: u32, want: Prot) -> Result<(), i32> {
    for at in [addr, addr + u64::from(bytes) - 1] {
        match memory::prot_at(at) {
            None => return Err(SEGV_MAPERR),
            Some(p) if !p.contains(want) => return Err(SEGV_ACCERR),
            Some(_) => {}
        }
        // The host's page may be write-protected for the code on it.
        if want.contains(Prot::WRITE) {
            memory::on_fault(at);
        }
    }
    Ok(())
}

/// Carries out `a` with the interrupted thread's registers (x0-x30), `addr` being the address it faulted at. The error is the
/// `si_code` of the SIGSEGV it should raise.
pub fn carry_out(a: Access, regs: &mut [u64; 31], exclusive: &mut Exclusive, addr: u64) -> Result<(), i32> {
    let Access { op, bytes, s, t, n } = a;
    let addr = regs.get(n as usize).copied().unwrap_or(addr);
    let read_only = op == Op::LoadExclusive;
    check(addr, bytes, if read_only { Prot::READ } else { Prot::READ | Prot::WRITE })?;
    let mask = u64::MAX >> (64 - 8 * bytes);
    let get = |regs: &[u64; 31], r: u8| regs.get(r as usize).copied().unwrap_or(0);
    let (vs, vt) = (get(regs, s) & mask, get(regs, t) & mask);
    let held = Held::new();
    // What writes nothing would otherwise read before the thread's earlier stores took effect.
    fence(Ordering::SeqCst);
    match op {
        Op::LoadExclusive => {
            let value = update(addr, bytes, |v| v);
            *exclusive = Exclusive { addr, value, valid: true };
            put(regs, t, value);
        }
        Op::StoreExclusive => {
            let e = std::mem::take(exclusive);
            let mut stored = false;
            if e.valid && e.addr == addr {
                update(addr, bytes, |v| {
                    stored = v == e.value;
                    if stored { vt } else { v }
                });
            }
            put(regs, s, u64::from(!stored));
        }
        Op::CompareSwap => {
            let old = update(addr, bytes, |v| if v == vs { vt } else { v });
            put(regs, s, old);
        }
        _ => {
            let old = update(addr, bytes, |v| match op {
                Op::Add => v.wrapping_add(vs) & mask,
                Op::Clear => v & !vs,
                Op::Eor => v ^ vs,
                Op::Set => v | vs,
                _ => vs,
            });
            put(regs, t, old);
        }
    }
    drop(held);
    fence(Ordering::SeqCst);
    Ok(())
}

fn put(regs: &mut [u64; 31], r: u8, v: u64) {
    if let Some(x) = regs.get_mut(r as usize) {
        *x = v;
    }
}

/// Replaces the `bytes` at `addr` by `f` of them; returns what they were.
fn update(addr: u64, bytes: u32, mut f: impl FnMut(u64) -> u64) -> u64 {
    let (low, shift) = (addr & !7, 8 * (addr & 7) as u32);
    // SAFETY: `check` found the access mapped with the rights it needs; an aligned word that overlaps it lies on the same page.
    let word = |at: u64| unsafe { AtomicU64::from_ptr(at as *mut u64) };
    let mask = u128::from(u64::MAX >> (64 - 8 * bytes)) << shift;
    let two = shift + 8 * bytes > 64;
    loop {
        let w0 = word(low).load(Ordering::SeqCst);
        let w1 = if two { word(low + 8).load(Ordering::SeqCst) } else { 0 };
        let w = u128::from(w0) | u128::from(w1) << 64;
        let old = ((w & mask) >> shift) as u64;
        let new = f(old);
        if new == old {
            return old;
        }
        let w = w & !mask | u128::from(new) << shift & mask;
        let (n0, n1) = (w as u64, (w >> 64) as u64);
        let swap = |at, from, to| word(at).compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if n0 != w0 && !swap(low, w0, n0) {
            continue;
        }
        if two && n1 != w1 && !swap(low + 8, w1, n1) {
            // Take the first half back, unless somebody has built on it.
            if n0 != w0 {
                swap(low, n0, w0);
            }
            continue;
        }
        return old;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Words as `aarch64-linux-gnu-as -march=armv8.4-a` gives them.
    #[test]
    fn forms() {
        let access = |op, bytes, s, t, n| Some(Access { op, bytes, s, t, n });
        assert_eq!(decode(0xf8e1_0062), access(Op::Add, 8, 1, 2, 3)); // ldaddal x1, x2, [x3]
        assert_eq!(decode(0x88e1_fc62), access(Op::CompareSwap, 4, 1, 2, 3)); // casal w1, w2, [x3]
        assert_eq!(decode(0x4801_fc62), access(Op::StoreExclusive, 2, 1, 2, 3)); // stlxrh w1, w2, [x3]
        assert_eq!(decode(0x885f_fc62), access(Op::LoadExclusive, 4, 31, 2, 3)); // ldaxr w2, [x3]
        // ldr, ldar, stlr
        for w in [0xf940_0061, 0x88df_fc61, 0xc89f_fc61] {
            assert_eq!(decode(w), None);
        }
    }

    #[test]
    fn every_offset_and_size() {
        for bytes in [2u32, 4, 8] {
            for at in 0..8usize {
                let mut m = [0x1111_1111_1111_1111u64, 0x2222_2222_2222_2222];
                let base = m.as_mut_ptr().cast::<u8>();
                // SAFETY: inside `m`.
                let want = |i: usize| unsafe { base.add(i).read() };
                let before: Vec<u8> = (0..16).map(want).collect();
                let old = update(base as u64 + at as u64, bytes, |v| v ^ 0xaabb_ccdd_eeff_0011);
                let after: Vec<u8> = (0..16).map(want).collect();
                let x = 0xaabb_ccdd_eeff_0011u64.to_le_bytes();
                for i in 0..16 {
                    let inside = i >= at && i < at + bytes as usize;
                    assert_eq!(after[i], before[i] ^ if inside { x[i - at] } else { 0 });
                    if inside {
                        assert_eq!(old.to_le_bytes()[i - at], before[i]);
                    }
                }
            }
        }
    }
}

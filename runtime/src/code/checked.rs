//! Code on pages that are written all the time: instead of watching the page, each region compares, whenever it is entered, the guest bytes it
//! was made from with a copy. Pure functions; which pages are treated so is the parent module's to say.
//!
//! A check sees a change at the next entry, x86 at the next instruction. It makes a difference only to a region that writes to its own bytes: what another
//! writes is followed by an entry, returns included. So a region that was seen to change is checked again if it writes nothing, else its page is watched
//! from then on (`code::changed`).
//!
//! The check uses x0-x4 and x8, which are scratch at every entry, and no flags: 4 words to count it, 1 a range, 4 for each 8 bytes (in a loop
//! of 6 from 64 bytes on). What is counted is how long pages are checked: those that did not change meanwhile are watched again (`code::watch_again`).

use super::branch;
use crate::abi::{SHADOW, STATE, Thunk};
use crate::engine::{Entry, Exit, FlagForm, Mark, Translation};
use crate::signal::a64;
use crate::state::CpuState;
use std::mem::offset_of;

/// After so many checks by a thread it is looked which pages need them: a few milliseconds' worth.
pub const ROUNDS: u64 = 1 << 20;

const NOP: u32 = 0xd503_201f;
const DC_ZVA: u32 = 0xd50b_7420;

/// More than this is not compared at every entry: such code is run once and translated again.
pub const LIMIT: usize = 2048;

/// Whether translated code with these words may write guest memory, itself or by a helper.
fn writes(words: &[u32]) -> bool {
    let own = |w: u32| [STATE, SHADOW].map(u32::from).contains(&(w >> 5 & 31));
    words.iter().any(|&w| match w >> 25 & 5 {
        // Loads and stores.
        4 => w == load_thunk(Thunk::Helper) || w == load_thunk(Thunk::HelperPure) || !own(w) && a64::writes(w),
        _ => w == DC_ZVA | w & 31,
    })
}

/// `ldr x8, [x28, #thunk]`.
fn load_thunk(t: Thunk) -> u32 {
    let offset = (offset_of!(CpuState, thunks) + 8 * t as usize) as u32;
    0xf940_0000 | offset / 8 << 10 | u32::from(STATE) << 5 | 8
}

/// `ldr x<r>` of the word pair at word `to`, from word `from`.
fn load_literal(r: u32, from: usize, to: usize) -> u32 {
    0x5800_0000 | back(from, to) << 5 | r
}

/// The field of a branch or load at word `from` that leads back to word `to`. In reach: the limit is far below that.
fn back(from: usize, to: usize) -> u32 {
    (to.wrapping_sub(from) & 0x7_ffff) as u32
}

/// The bytes of `held` as they are compared: eights, then what is left in parts of 4, 2 and 1; log2 of the size, and offset.
fn tail(held: &[u8]) -> impl Iterator<Item = (u32, usize)> {
    let (mut at, len) = (held.len() & !7, held.len());
    [2, 1, 0].into_iter().filter(move |size| len & 1 << size != 0).map(move |size| {
        let part = (size, at);
        at += 1 << size;
        part
    })
}

/// Puts a check of `bytes` (guest addresses and what was there when `t` was made) before `t`. False when they are too many, or `t` has no entry; it
/// is as it was then.
///
/// The result's only entry is the check; back edges and returns lead to stubs, so that they too come by a check. Before it lie what it compares with and
/// where it goes when there is a difference.
pub fn add_check(t: &mut Translation, bytes: &[(u64, &[u8])]) -> bool {
    let Some(&own) = t.entries.first() else { return false };
    let size = bytes.iter().map(|b| b.1.len()).sum::<usize>();
    let (body, Some(tag)) = (own.word as usize, own.word.checked_sub(2)) else { return false };
    if size > LIMIT || t.words.len() < body {
        return false;
    }
    let mut w: Vec<u32> = Vec::with_capacity(t.words.len() + size + 24 * (bytes.len() + t.landings.len() + 1));
    let quad = |v: u64| [v as u32, (v >> 32) as u32];
    let number = |b: &[u8]| b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    w.extend(quad(own.guest));
    for (start, held) in bytes {
        w.extend(quad(*start));
        for eight in held.chunks_exact(8) {
            w.extend(quad(number(eight)));
        }
        for (size, at) in tail(held) {
            w.extend(quad(number(&held[at..at + (1 << size)])));
        }
    }
    let miss = w.len();
    // ldr x0, guest; mov x1, #writes; ldr x8, thunk; br x8
    w.extend([
        load_literal(0, miss, 0),
        0xd280_0001 | u32::from(writes(&t.words[body..])) << 5,
        load_thunk(Thunk::Stale),
        0xd61f_0100,
    ]);
    // The address in front of the entry, with its mark of wanted flags.
    w.extend_from_slice(&t.words[tag as usize..body]);
    let entry = w.len() as u32;
    let counter = (offset_of!(CpuState, checks) / 8) as u32;
    let field = counter << 10 | u32::from(STATE) << 5 | 2;
    w.extend([0xf940_0000 | field, 0xd100_0442, 0xf900_0000 | field]); // ldr x2, [x28, #checks]; sub x2, x2, #1; str x2, [x28, #checks]
    w.push(0xb400_0002 | back(w.len(), miss) << 5); // cbz x2, miss
    let mut literal = 2;
    for (_, held) in bytes {
        w.push(load_literal(0, w.len(), literal)); // ldr x0, start
        literal += 2;
        // x3 is what is there.
        let differs = |w: &mut Vec<u32>| {
            w.push(0xcb04_0063); // sub x3, x3, x4
            w.push(0xb500_0003 | back(w.len(), miss) << 5); // cbnz x3, miss
        };
        let eights = held.len() / 8;
        let looped = if eights >= 8 { eights } else { 0 };
        if looped != 0 {
            w.push(0x1000_0001 | back(w.len(), literal) << 5); // adr x1, copy
            w.extend([0xd280_0002 | (eights as u32) << 5, 0xf840_8403, 0xf840_8424]); // mov x2, #eights; ldr x3, [x0], #8; ldr x4, [x1], #8
            differs(&mut w);
            w.extend([0xd100_0442, 0xb5ff_ff62]); // sub x2, x2, #1; cbnz x2, .-20
            literal += 2 * eights;
        }
        for (size, at) in (looped..eights).map(|n| (3, 8 * n)).chain(tail(held)) {
            let offset = (at - 8 * looped) as u32;
            w.push(size << 30 | 0x3940_0003 | offset >> size << 10); // ldr x3, [x0, #offset], or less of it
            w.push(load_literal(4, w.len(), literal));
            differs(&mut w);
            literal += 2;
        }
    }
    // At a multiple of 4 only: the quads in it are read by plain loads.
    let shift = (w.len() - body) as u32;
    w.extend_from_slice(&t.words[body..]);
    let jump = |word: u32, from: u32, to: u32| branch::retarget(word, i64::from(to) - i64::from(from)).unwrap_or(word);
    for e in &mut t.exits {
        (e.site, e.stub) = (e.site + shift, e.stub + shift);
        if e.inside.take().is_some() {
            w[e.site as usize] = jump(w[e.site as usize], e.site, e.stub);
        }
    }
    // What follows a call may have been rewritten by what was called: a return goes on by the check of its own address.
    for l in &mut t.landings {
        if w.len() % 2 == 1 {
            w.push(NOP);
        }
        l.word += shift;
        let (site, stub) = (l.word, w.len() as u32);
        w[site as usize] = jump(0x1400_0000, site, stub);
        w.extend([load_thunk(Thunk::Direct), 0xd63f_0100]); // blr x8
        w.extend(quad(l.guest));
        t.exits.push(Exit { site, stub, target: l.guest, inside: None });
    }
    for m in &mut t.marks {
        m.word += shift;
    }
    t.marks.insert(0, Mark { word: entry, guest: own.guest, flags: FlagForm::Direct, replay: false });
    t.entries.clear();
    t.entries.push(Entry { guest: own.guest, word: entry });
    t.words = w;
    true
}

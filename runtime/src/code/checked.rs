//! Code on pages that are written all the time: instead of watching the page, each region compares, whenever it is entered, the guest bytes it
//! was made from with a copy. For code among data: a page whose code was seen to change is watched again (`code::changed`). Pure functions; which pages are treated so is the parent module's to say.
//!
//! The check uses x0-x4 and x8, which are scratch at every entry, and no flags: 4 words a range to set up, 4 for each 8 bytes (in a loop
//! of 6 from 64 bytes on).

use super::branch;
use crate::abi::{STATE, Thunk};
use crate::engine::{Entry, Exit, FlagForm, Mark, Translation};
use crate::state::CpuState;
use std::mem::offset_of;
use std::ops::Range;

/// More than this is not compared at every entry: such code is run once and translated again.
pub const LIMIT: usize = 2048;

fn mov(words: &mut Vec<u32>, d: u32, v: u64) {
    for i in 0..4 {
        let op = if i == 0 { 0xd280_0000 } else { 0xf280_0000 };
        words.push(op | i << 21 | ((v >> (16 * i)) as u32 & 0xffff) << 5 | d);
    }
}

/// `ldr x8, [x28, #thunk]`.
fn load_thunk(t: Thunk) -> u32 {
    let offset = (offset_of!(CpuState, thunks) + 8 * t as usize) as u32;
    0xf940_0000 | offset / 8 << 10 | u32::from(STATE) << 5 | 8
}

/// `t` with a check of `bytes` (guest ranges and what they held when `t` was made) before it. `None` when they are too many, or `t` has no entry.
///
/// The result's only entry is the check; back edges and returns lead to stubs, so that they too come by a check.
pub fn with_check(t: &Translation, bytes: &[(Range<u64>, Vec<u8>)]) -> Option<Translation> {
    let own = t.entries.first()?;
    if bytes.iter().map(|b| b.1.len()).sum::<usize>() > LIMIT {
        return None;
    }
    // The address in front of the entry, with its mark of wanted flags.
    let tag = t.words.get(own.word.checked_sub(2)? as usize..own.word as usize)?;
    let mut w: Vec<u32> = tag.to_vec();
    let entry = w.len() as u32;
    let mut misses = Vec::new();
    let mut copies = Vec::new();
    for (range, held) in bytes {
        mov(&mut w, 0, range.start);
        copies.push((w.len(), held));
        w.push(0x1000_0001); // adr x1, copy
        let mut compare = |w: &mut Vec<u32>, size: u32, step: u32| {
            for r in [0, 1] {
                w.push(size << 30 | 0x3840_0400 | step << 12 | r << 5 | (3 + r)); // ldr x3, [x0], #step; ldr x4, [x1], #step
            }
            w.push(0xcb04_0063); // sub x3, x3, x4
            misses.push(w.len());
            w.push(0xb500_0003); // cbnz x3, miss
        };
        let (eights, rest) = (held.len() / 8, held.len() % 8);
        if eights >= 8 {
            w.push(0xd280_0002 | (eights as u32) << 5); // mov x2, #eights
            compare(&mut w, 3, 8);
            w.push(0xd100_0442); // sub x2, x2, #1
            w.push(branch::retarget(0xb500_0002, -5)?); // cbnz x2
        } else {
            (0..eights).for_each(|_| compare(&mut w, 3, 8));
        }
        for size in [2, 1, 0] {
            if rest & 1 << size != 0 {
                compare(&mut w, size, 1 << size);
            }
        }
    }
    let go_on = w.len();
    w.push(0);
    let miss = w.len();
    mov(&mut w, 0, own.guest);
    w.push(load_thunk(Thunk::Stale));
    w.push(0xd61f_0100); // br x8
    for (at, held) in copies {
        let delta = 4 * (w.len() - at) as u32;
        w[at] |= delta >> 2 << 5;
        w.extend(held.chunks(4).map(|c| {
            let mut b = [0; 4];
            b[..c.len()].copy_from_slice(c);
            u32::from_le_bytes(b)
        }));
    }
    if w.len() % 2 == 1 {
        w.push(0);
    }
    let shift = w.len() as u32;
    w[go_on] = branch::b(i64::from(shift + own.word) - go_on as i64)?;
    for at in misses {
        w[at] = branch::retarget(w[at], miss as i64 - at as i64)?;
    }
    w.extend_from_slice(&t.words);
    let mut exits = t.exits.clone();
    for e in &mut exits {
        (e.site, e.stub) = (e.site + shift, e.stub + shift);
        if e.inside.take().is_some() {
            let site = &mut w[e.site as usize];
            *site = branch::retarget(*site, i64::from(e.stub) - i64::from(e.site))?;
        }
    }
    // What follows a call may have been rewritten by what was called: a return goes on by the check of its own address.
    for l in &t.landings {
        if w.len() % 2 == 1 {
            w.push(0);
        }
        let (site, stub) = (l.word + shift, w.len() as u32);
        w[site as usize] = branch::b(i64::from(stub) - i64::from(site))?;
        w.extend([load_thunk(Thunk::Direct), 0xd63f_0100, l.guest as u32, (l.guest >> 32) as u32]); // blr x8
        exits.push(Exit { site, stub, target: l.guest, inside: None });
    }
    let mut marks = vec![Mark { word: entry, guest: own.guest, flags: FlagForm::Direct, replay: false }];
    marks.extend(t.marks.iter().map(|m| Mark { word: m.word + shift, ..*m }));
    Some(Translation {
        words: w,
        entries: vec![Entry { guest: own.guest, word: entry }],
        landings: t.landings.iter().map(|l| Entry { word: l.word + shift, ..*l }).collect(),
        exits,
        marks,
        depends: t.depends.clone(),
    })
}

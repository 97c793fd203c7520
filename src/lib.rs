//! xrun's translator: guest bytes in, AArch64 words and side tables out. Pure: no operating system, no `unsafe`, same output on every machine.
//!
//! # Architecture
//! ```text
//! bytes -> guest::region -> facts -> isa rows (through Cx) -> emit (words) -> Translation
//! ```
//! | module | what it owns | must not know |
//! |---|---|---|
//! | [`guest`] | what x86 says: decoding, regions, flags | AArch64 |
//! | [`facts`] | what may be assumed: flag liveness | how anything is lowered |
//! | [`isa`] | the meaning of each instruction | who runs the code |
//! | [`emit`] | how AArch64 says it | x86 |
//! | [`inspect`] | `xrun explain`, `xrun dump` | the runtime of programs |
//! | [`listing`] | a region as text | anything but the structs it prints |
//! | [`host`] | what the host CPU can do | how that was found out |
//! | [`cache`] | `xrun cache` | what is in the files |
//! | [`cli`] | the arguments of the command | what running means |
//!
//! # Invariants
//! - At every direct edge between regions NZCV holds SF ZF CF OF with C = CF, and x10, x11 hold PF and AF, as far as the successor may
//!   read them. Indirect edges bring no flags on their fast path, which matches only places that read none; the miss path brings all flags and tries again.
//! - Facts change how short code is, never what it means.
//! - A guest instruction changes no guest state before its last access that can fault; marks give its address for any host word.
//! - Every loop inside a region goes through an [`Exit`](xrun_runtime::engine::Exit) with `inside` set, so a running thread can be stopped
//!   at an instruction boundary without polling.
//! - Every guest memory access is emitted by [`isa::Cx`]'s load and store methods, the one place that knows ordering.
#![forbid(unsafe_code)]

pub mod binfmt;
pub mod cache;
pub mod cli;
pub mod emit;
pub mod facts;
pub mod guest;
pub mod host;
pub mod inspect;
pub mod isa;
pub mod listing;

use facts::Fuse;
use guest::{Fetcher, Inst, Region};
use host::HostFeatures;
use isa::cx::Buffers;
use isa::{Cx, Decline};
use std::sync::Mutex;
use xrun_runtime::abi;
use xrun_runtime::engine::{self, Engine, Entry, Extent, GuestCode, Request, TranslateError, Translation, Trap};

/// The engine: translates for one kind of host.
#[derive(Clone, Copy, Debug)]
pub struct Translator {
    pub host: HostFeatures,
}

impl Translator {
    /// Lowers a region that was found, with its facts.
    pub fn lower(&self, region: &Region, facts: &facts::Facts, request: Request) -> Translation {
        self.lower_in(region, facts, request, &mut Buffers::default())
    }

    fn lower_in(&self, region: &Region, facts: &facts::Facts, request: Request, memory: &mut Buffers) -> Translation {
        let mut cx = Cx::new(region, facts, self.host, request.ordering, memory);
        cx.alone = request.extent == Extent::Single;
        cx.fp_traps = request.fp_traps;
        cx.flushes = request.flushes;
        let wants_flags = if facts.live_in[0].is_empty() { 0 } else { abi::WANTS_FLAGS };
        cx.m.quad(region.entry | wants_flags);
        let entry = cx.m.here();
        cx.open();
        // Only loops win what looking for this costs. With FEAT_AFP there is nothing to merge.
        let looked = request.extent == Extent::Loop && !request.fp_traps && !self.host.afp && facts.uppers.is_empty();
        if let Some(zeros) = looked.then(|| facts::zero::find(region)).flatten() {
            let otherwise = cx.assume_zeros(zeros);
            lower_all(&mut cx);
            cx.start_again(otherwise);
        }
        lower_all(&mut cx);
        let mut t = cx.finish(memory);
        t.entries.push(Entry { guest: region.entry, word: entry });
        t.depends.extend_from_slice(&region.depends);
        t.depends.extend_from_slice(&facts.depends);
        t
    }
}

/// Lowers the whole region once.
fn lower_all(cx: &mut Cx<'_>) {
    let (insts, fuse) = (&cx.region.insts[..], &cx.facts.fuse[..]);
    let mut next = 0;
    while let (Some(x), Some(&how)) = (insts.get(next), fuse.get(next)) {
        let at = next;
        next += 1;
        if how == Fuse::Done {
            continue;
        }
        cx.begin(at, x);
        let runs = !x.general && !cx.fp_traps;
        if runs && isa::sse::run::lower(cx) {
            next += std::mem::take(&mut cx.skip);
            cx.leave_run(next - 1);
        } else if how == Fuse::Alone || !cx.lower_fused() {
            lower_one(cx, at, x);
            next += std::mem::take(&mut cx.skip);
            // Fused, but refused as that: each alone.
            if how != Fuse::Alone
                && next == at + 1
                && let (Some(x), Some(Fuse::Done)) = (insts.get(next), fuse.get(next))
            {
                cx.begin(next, x);
                lower_one(cx, next, x);
            }
        }
    }
    cx.finish_cold();
}

/// Lowers instruction `at`, which was opened, fused or by its row.
pub(crate) fn lower_opened(cx: &mut Cx<'_>, at: usize) {
    if !cx.lower_fused() {
        lower_one(cx, at, &cx.region.insts[at]);
    }
}

/// Lowers instruction `at`, which is `x`, by its row, on its own.
fn lower_one(cx: &mut Cx<'_>, at: usize, x: &Inst) {
    let i = &x.i;
    let done = if x.too_long {
        cx.trap(Trap::GeneralProtection, i.ip());
        Ok(())
    } else if i.is_invalid() {
        Err(Decline::Undefined)
    } else {
        let lower = if x.general { isa::row(i.mnemonic()).map(|r| r.lower) } else { isa::lowering(i) };
        match lower {
            Some(lower) if cx.fp_traps => cx.lower(|cx| cx.with_fp_traps(i, lower)),
            Some(lower) => cx.lower(|cx| lower(cx, i)),
            None => Err(Decline::Unsupported("no row")),
        }
    };
    match done {
        Err(Decline::Undefined) => cx.trap(Trap::Undefined, i.ip()),
        Err(Decline::Unsupported(_)) => cx.trap(Trap::Unsupported, i.ip()),
        Ok(()) if cx.skip == 0 => cx.leave_run_of(at, x),
        Ok(()) => cx.leave_run(at + cx.skip),
    }
}

/// What one translation allocated, for the next.
#[derive(Default)]
struct Workspace {
    region: Region,
    facts: facts::Facts,
    buffers: Buffers,
}

/// A thread that finds it taken does without.
static SPARE: Mutex<Option<Box<Workspace>>> = Mutex::new(None);

fn spare() -> Option<Box<Workspace>> {
    SPARE.try_lock().ok()?.take()
}

impl Engine for Translator {
    fn translate(&self, request: Request, code: &dyn GuestCode) -> Result<Translation, TranslateError> {
        let mut w = spare().unwrap_or_default();
        let mut fetcher = Fetcher::new(code);
        w.region.find_again(request.pc, request.extent, &mut fetcher)?;
        w.facts.find_again(&w.region, &mut fetcher);
        let t = self.lower_in(&w.region, &w.facts, request, &mut w.buffers);
        if let Ok(mut spare) = SPARE.try_lock() {
            *spare = Some(w);
        }
        if t.words.is_empty() && request.extent != Extent::Single {
            return self.translate(Request { extent: Extent::Single, ..request }, code);
        }
        Ok(t)
    }

    fn recycle(&self, t: Translation) {
        if let Ok(mut spare) = SPARE.try_lock()
            && let Some(w) = spare.as_mut()
        {
            w.buffers.reuse(t);
        }
    }

    fn options(&self) -> Vec<u8> {
        format!("{:?}", self.host).into_bytes()
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        isa::cpuid::cpuid(leaf, subleaf)
    }
}

/// Makes a translator for `host` the process's engine.
pub fn install(host: HostFeatures) {
    xrun_runtime::enter::fp::use_alternate_fp(host.afp);
    engine::install(Box::leak(Box::new(Translator { host })));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::testing::Bytes;
    use xrun_runtime::engine::{Extent, Ordering};

    #[test]
    fn translates_a_loop() {
        // mov ecx, 10; l: add eax, ecx; sub ecx, 1; jne l; ret
        let code = Bytes(0x40_1000, vec![0xb9, 10, 0, 0, 0, 0x01, 0xc8, 0x83, 0xe9, 1, 0x75, 0xf9, 0xc3]);
        for (_, host) in HostFeatures::ALL {
            let request = Request { ordering: Ordering::Plain, extent: Extent::Cold, ..Request::at(0x40_1000) };
            let t = Translator { host }.translate(request, &code).unwrap();
            assert_eq!(t.entries[0], Entry { guest: 0x40_1000, word: 2 });
            let back: Vec<_> = t.exits.iter().filter(|e| e.inside.is_some()).collect();
            assert_eq!(back.len(), 1);
            assert_eq!(back[0].target, 0x40_1005);
            // movz, add, subs, b.ne; flags of the add are dead.
            assert_eq!(back[0].site, back[0].inside.unwrap() + 2);
        }
    }
}

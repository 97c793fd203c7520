//! Every form of every instruction that has a row, translated with ordering: along every path through the words, no access to guest memory
//! without its ordering. Guest memory is what is not reached through x28 (the thread's state), x18 (the shadow stack) or what the state points to.
//!
//! A plain load needs a DMB that waits for loads between it and the next access; a plain store one that waits for stores since the store before. The
//! one exception are the stores of one string instruction among themselves, which x86 does not order (SDM vol. 3, 9.2.4): of them pairs of
//! vector registers only need such a barrier before the first.

use super::truth::{forms, values};
use super::word::{At, Barrier, Op, Order, Test, decode};
use fastrand::Rng;
use iced_x86::{FlowControl, Instruction, Mnemonic};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use xrun::Translator;
use xrun::host::HostFeatures;
use xrun_runtime::abi;
use xrun_runtime::engine::{Engine, Extent, GuestCode, Ordering, Request, Translation};
use xrun_runtime::helpers::{Helper, xsave};

const CODE: u64 = 0x40_1000;

struct Bytes(Vec<u8>);

impl GuestCode for Bytes {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        let Some(from) = addr.checked_sub(CODE).and_then(|o| self.0.get(o as usize..)) else { return 0 };
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        n
    }
}

/// What is known at a point of the words.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    word: usize,
    /// Registers that point into the thread's state or to tables of the host's.
    host: u32,
    /// A plain load that nothing has waited for.
    loaded: bool,
    /// A barrier waits for stores since the last one.
    fenced: bool,
    /// Such a barrier was part of this guest instruction.
    within: bool,
    /// An exclusive store that no full barrier follows yet.
    exclusive: bool,
    /// Whether the exclusive store wrote is in this register.
    status: Option<u8>,
    /// What this guest instruction found its address to be.
    odd: Option<bool>,
    guest: u64,
    /// What x9 and x0 were last set to.
    helper: u16,
    argument: u16,
}

struct Walk<'a> {
    t: &'a Translation,
    /// Words that are not instructions begin here.
    literals: usize,
    stubs: BTreeSet<usize>,
    seen: HashSet<State>,
    accesses: usize,
    wrong: BTreeMap<usize, String>,
}

impl Walk<'_> {
    fn is_host(s: &State, n: u8) -> bool {
        n == abi::STATE || n == abi::SHADOW || s.host >> n & 1 == 1
    }

    fn say(&mut self, word: usize, what: &str) {
        let w = self.t.words[word];
        self.wrong
            .entry(word)
            .or_insert_with(|| format!("  word {word}: {}: {what}", xrun::listing::host_word(w, word as u32)));
    }

    /// An access to guest memory with this state before it.
    fn access(&mut self, s: &State) {
        self.accesses += 1;
        if s.loaded {
            self.say(s.word, "after a plain load that nothing waits for");
        }
        if s.exclusive {
            self.say(s.word, "after an exclusive store that no full barrier follows");
        }
    }

    /// The guest instruction a word belongs to.
    fn guest(&self, word: usize) -> u64 {
        let after = self.t.marks.partition_point(|m| m.word as usize <= word);
        after.checked_sub(1).map_or(0, |n| self.t.marks[n].guest)
    }

    /// Whether the word before looks at the low bits of an address.
    fn tests_alignment(&self, word: usize) -> bool {
        let w = self.t.words[word - 1];
        w & 0xffff_801f == 0x9240_001e && (w >> 10 & 31) < 3
    }

    fn end(&mut self, s: &State) {
        if s.loaded || s.exclusive {
            self.say(s.word, "leaves before the barrier");
        }
    }

    fn run(&mut self) {
        let start = State {
            word: self.t.entries[0].word as usize,
            host: 0,
            loaded: false,
            fenced: false,
            within: false,
            exclusive: false,
            status: None,
            odd: None,
            guest: 0,
            helper: 0,
            argument: 0,
        };
        let mut open = vec![start];
        while let Some(mut s) = open.pop() {
            if !self.seen.insert(s) {
                continue;
            }
            assert!(s.word < self.literals, "runs into data at {}", s.word);
            let w = self.t.words[s.word];
            let guest = self.guest(s.word);
            if guest != s.guest {
                s = State { within: false, odd: None, guest, ..s };
            }
            let op = match decode(w) {
                Ok(op) => op,
                Err(e) => {
                    self.say(s.word, &e);
                    continue;
                }
            };
            let before = s;
            let next = |s: &State| State { word: s.word + 1, ..*s };
            let to = |s: &State, by: i64| State { word: (s.word as i64 + by) as usize, ..*s };
            let set = |s: &mut State, n: u8, host: bool| {
                if n != 31 {
                    s.host = s.host & !(1 << n) | u32::from(host) << n;
                }
            };
            match op {
                Op::Nothing => {}
                Op::Other => {
                    // ADD of registers or of a constant, and MOV, carry pointers on; MOVZ names a helper in W9.
                    let (d, n, m) = ((w & 31) as u8, (w >> 5 & 31) as u8, (w >> 16 & 31) as u8);
                    let add = w & 0xff00_0000 == 0x8b00_0000 || w & 0xff80_0000 == 0x9100_0000;
                    let of_registers = w & 0xff00_0000 == 0x8b00_0000;
                    let mov = w & 0xffe0_ffe0 == 0xaa00_03e0;
                    let from = add && n != 31 && Self::is_host(&s, n)
                        || (mov || of_registers) && m != 31 && Self::is_host(&s, m);
                    let scalar = w >> 25 & 7 != 7;
                    if scalar {
                        set(&mut s, d, from);
                    }
                    if w & 0xffe0_001f == 0x5280_0009 {
                        s.helper = (w >> 5 & 0xffff) as u16;
                    }
                    if w & 0x7fe0_001f == 0x5280_0000 {
                        s.argument = (w >> 5 & 0xffff) as u16;
                    }
                }
                Op::Literal { t, v, .. } => {
                    if !v {
                        set(&mut s, t, false);
                    }
                }
                Op::Barrier(b) => {
                    s.loaded &= matches!(b, Barrier::Store | Barrier::Instruction);
                    s.fenced |= matches!(b, Barrier::Store | Barrier::Full);
                    s.exclusive &= b != Barrier::Full;
                    s.within |= s.fenced;
                }
                Op::Branch { to: by, test: Test::Zero { t: 30, nonzero: true, .. }, .. }
                    if self.tests_alignment(s.word) =>
                {
                    if s.odd != Some(true) {
                        open.push(State { odd: Some(false), ..next(&s) });
                    }
                    if s.odd != Some(false) {
                        open.push(State { odd: Some(true), ..to(&s, by) });
                    }
                    continue;
                }
                Op::Branch { to: by, test: Test::Zero { t, nonzero: true, .. }, .. } if s.status == Some(t) => {
                    // Taken, nothing was stored.
                    open.push(State { status: None, ..next(&s) });
                    open.push(State { status: None, exclusive: false, ..to(&s, by) });
                    continue;
                }
                Op::Branch { to: by, test, link } => {
                    if test != Test::Always || link {
                        open.push(next(&s));
                    }
                    open.push(to(&s, by));
                    continue;
                }
                Op::Indirect { link, .. } => {
                    if self.stubs.contains(&s.word) || !link {
                        self.end(&before);
                        continue;
                    }
                    // A helper, or a call of guest code: back with the scratch registers changed.
                    let image = s.helper == Helper::X87MemoryImage as u16
                        || s.helper == Helper::Xsave as u16 && u64::from(s.argument) != xsave::READ_XCR;
                    if image {
                        self.access(&before);
                        if !s.fenced {
                            self.say(s.word, "a helper that stores, without a barrier");
                        }
                    }
                    s = State { host: 0, loaded: image, fenced: false, within: false, helper: 0, ..s };
                }
                Op::Load { t, t2, at, order, exclusive, v, .. } => {
                    let host = Self::is_host(&s, at.base());
                    // The lookup table and the thunks are the host's; what guest registers hold is the guest's.
                    let points = host && at.base() == abi::STATE && matches!(at, At::Offset(_, off) if is_table(off));
                    if !host {
                        self.access(&before);
                        s.loaded = order == Order::Plain;
                        if exclusive && order == Order::Plain {
                            self.say(s.word, "an exclusive load that does not acquire");
                        }
                    }
                    if !v {
                        for t in [Some(t), t2].into_iter().flatten() {
                            set(&mut s, t, points);
                        }
                    }
                }
                Op::Store { at, order, status, v, .. } => {
                    if !Self::is_host(&s, at.base()) {
                        self.access(&before);
                        let string = v && matches!(at, At::Post(..));
                        if order == Order::Plain && !s.fenced && !(string && s.within) {
                            self.say(s.word, "a plain store without a barrier since the store before");
                        }
                        s.fenced = false;
                        if let Some(status) = status {
                            if order != Order::Release {
                                self.say(s.word, "an exclusive store that does not release");
                            }
                            (s.exclusive, s.status) = (true, Some(status));
                            set(&mut s, status, false);
                        }
                    }
                }
                Op::Lse { t, acquire, release, .. } => {
                    self.access(&before);
                    if !acquire || !release || t == 31 {
                        self.say(s.word, "an atomic operation that is no full barrier");
                    }
                    s.fenced = true;
                    set(&mut s, t, false);
                }
                Op::Cas { s: old, acquire, release, pair, .. } => {
                    self.access(&before);
                    if !acquire || !release {
                        self.say(s.word, "a compare-and-swap that is no full barrier");
                    }
                    s.fenced = false;
                    for k in 0..=u8::from(pair) {
                        set(&mut s, old + k, false);
                    }
                }
            }
            open.push(next(&s));
        }
    }
}

/// Whether the state's field at `off` points to something of the host's.
fn is_table(off: i64) -> bool {
    use std::mem::offset_of;
    use xrun_runtime::state::CpuState;
    off == offset_of!(CpuState, lookup) as i64
        || off >= offset_of!(CpuState, thunks) as i64 && off < offset_of!(CpuState, thunks) as i64 + 64
}

/// Looks at a translation: how many accesses to guest memory there are on its paths, and what is wrong.
fn walk(t: &Translation) -> (usize, String) {
    let mut literals = t.words.len();
    let mut data: BTreeSet<usize> = BTreeSet::new();
    for e in &t.exits {
        data.extend([e.stub as usize + 2, e.stub as usize + 3]);
    }
    for (n, &w) in t.words.iter().enumerate().skip(t.entries[0].word as usize) {
        if n < literals
            && !data.contains(&n)
            && let Ok(Op::Literal { to, .. }) = decode(w)
        {
            literals = literals.min((n as i64 + to) as usize);
        }
    }
    let stubs = t.exits.iter().map(|e| e.stub as usize + 1).collect();
    let mut walk = Walk { t, literals, stubs, seen: HashSet::new(), accesses: 0, wrong: BTreeMap::new() };
    walk.run();
    (walk.accesses, walk.wrong.into_values().collect::<Vec<_>>().join("\n"))
}

/// Instructions whose memory operand is not accessed, or only by way of a prefetch.
fn only_names_memory(i: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(i.mnemonic(), Lea | Nop | Reservednop | Prefetch | Prefetchw | Prefetchwt1 | Prefetchnta)
        || matches!(i.mnemonic(), Prefetcht0 | Prefetcht1 | Prefetcht2 | Invlpg)
        || i.code().op_code().must_be_cpl0()
}

fn has_memory(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| {
        use iced_x86::OpKind::*;
        matches!(
            i.op_kind(n),
            Memory | MemorySegRSI | MemorySegESI | MemoryESRDI | MemoryESEDI | MemorySegRDI | MemorySegEDI
        )
    }) || i.is_stack_instruction()
}

#[test]
fn every_form_uses_its_ordering() {
    let mut rng = Rng::with_seed(0x5eed);
    let all: Vec<_> = forms::all().into_iter().filter(|&c| forms::has_row(c)).collect();
    let straight: Vec<_> = all.iter().copied().filter(|c| c.flow_control() == FlowControl::Next).collect();
    let (mut wrong, mut with_memory, mut checked) = (Vec::new(), 0, 0);
    for &code in &all {
        let (mut drawn, mut tries) = (0, 0);
        // Each form alone and among others, with several operands.
        while drawn < 6 && tries < 60 {
            tries += 1;
            let mut state = values::state(&mut rng);
            let mut draw =
                |code, rng: &mut Rng| forms::build(code, rng, &mut forms::Pointers::Free(&mut state), CODE + 0x100);
            let Some(i) = draw(code, &mut rng) else { continue };
            let mut sequence = vec![i];
            if drawn >= 3 && code.flow_control() == FlowControl::Next {
                sequence.extend(draw(straight[rng.usize(..straight.len())], &mut rng));
                sequence.extend(draw(code, &mut rng));
            }
            let mut bytes = Vec::new();
            let encoded =
                sequence.iter().all(|i| forms::encode(i, CODE + bytes.len() as u64).map(|b| bytes.extend(b)).is_some());
            if !encoded {
                continue;
            }
            drawn += 1;
            bytes.extend([0x0f, 0x0b]);
            for (host, features) in HostFeatures::ALL {
                for ordering in [Ordering::Tso, Ordering::Fenced] {
                    let alone = sequence.len() == 1;
                    let extent = if alone { Extent::Single } else { Extent::Loop };
                    let request = Request { ordering, extent, ..Request::at(CODE) };
                    let t =
                        Translator { host: features }.translate(request, &Bytes(bytes.clone())).expect("there is code");
                    let (accesses, mut bad) = walk(&t);
                    checked += 1;
                    // An address known to be misaligned where it must not be: #GP, and no access.
                    let size = i.memory_size().size() as u64;
                    let faults = i.is_ip_rel_memory_operand()
                        && matches!(size, 16 | 32)
                        && !i.memory_displacement64().is_multiple_of(size);
                    let declined = accesses == 0 && (faults || t.marks.len() == 1 && t.words.len() < 16);
                    if alone && has_memory(&i) && !only_names_memory(&i) && !declined {
                        with_memory += 1;
                        if accesses == 0 {
                            bad += "no access to guest memory";
                        }
                    }
                    if !bad.is_empty() {
                        wrong.push(format!("{i} ({host}, {ordering:?}, {} instructions)\n{bad}", sequence.len()));
                    }
                }
            }
        }
    }
    let shown = wrong.iter().take(30).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {checked} wrong:\n{shown}", wrong.len());
    assert!(with_memory > 10_000, "only {with_memory} translations with memory");
}

//! One thread of AArch64 words, run for every value each of its loads may return: what it did to memory, in program order, with the
//! dependencies the memory model looks at. Private memory (the translated thread's own state) is simply memory.
//!
//! An exclusive store always succeeds: a failed one only repeats what came before it.

use super::alu;
use super::word::{At, Barrier, Lse, Op, Order, Test, decode};
use std::collections::{BTreeMap, BTreeSet};

/// Where x28 points: memory nobody else sees, all zero but for [`Program::state`].
pub const STATE_AT: u64 = 0x7f00_0000_0000;
const STATE_SIZE: u64 = 0x10_0000;
/// More instructions than any program here runs.
const LONGEST: u32 = 2000;

#[derive(Clone, Debug)]
pub struct Program {
    pub words: Vec<u32>,
    pub entry: usize,
    /// Words that end the program when reached.
    pub stop: BTreeSet<usize>,
    pub x: [u64; 32],
    pub v: [u128; 32],
    /// Bytes of the private memory, by offset.
    pub state: BTreeMap<u64, u8>,
}

impl Program {
    /// Words from first to last.
    pub fn new(words: Vec<u32>) -> Program {
        let stop = BTreeSet::from([words.len()]);
        Program { words, entry: 0, stop, x: [0; 32], v: [0; 32], state: BTreeMap::new() }
    }
}

/// A value and the reads it was computed from, as bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Val<T> {
    pub v: T,
    pub from: u64,
}

/// One single-copy atomic access to shared memory.
#[derive(Clone, Debug)]
pub struct Event {
    pub write: bool,
    pub at: u64,
    pub bytes: u32,
    pub value: u64,
    /// Which instruction of the run.
    pub instr: u32,
    pub order: Order,
    /// Reads its address, its data, and the branches before it depend on.
    pub addr: u64,
    pub data: u64,
    pub ctrl: u64,
    /// Of a write: the read it makes an atomic pair with, and whether one instruction does both.
    pub rmw: Option<(usize, bool)>,
    /// An atomic read whose result goes nowhere.
    pub no_result: bool,
}

#[derive(Clone, Debug)]
pub struct Trace {
    pub events: Vec<Event>,
    /// With the reads whose branches or addresses came before.
    pub barriers: Vec<(u32, Barrier, u64)>,
    pub x: [u64; 32],
    pub v: [u128; 32],
}

/// Which values a read may return.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Domain {
    pub init: BTreeMap<u64, u8>,
    /// Start of each cell, its size, and the values it takes. All accesses consist of whole cells.
    pub cells: BTreeMap<u64, (u32, BTreeSet<u64>)>,
}

pub fn slice(value: u64, at: u64, cell: u64, bytes: u32) -> u64 {
    (value >> (8 * (cell - at))) & (u64::MAX >> (64 - 8 * bytes))
}

impl Domain {
    pub fn init_of(&self, at: u64, bytes: u32) -> u64 {
        (0..u64::from(bytes)).map(|n| u64::from(*self.init.get(&(at + n)).unwrap_or(&0)) << (8 * n)).sum()
    }

    fn choices(&self, at: u64, bytes: u32) -> Vec<u64> {
        let mut all = vec![0u64];
        let mut next = at;
        while next < at + u64::from(bytes) {
            let Some((size, values)) = self.cells.get(&next) else { return vec![self.init_of(at, bytes)] };
            all = all.iter().flat_map(|a| values.iter().map(move |v| a | v << (8 * (next - at)))).collect();
            next += u64::from(*size);
        }
        all
    }

    /// With the accesses of `traces`.
    pub fn grown<'a>(&self, traces: impl Iterator<Item = &'a Trace> + Clone) -> Domain {
        let mut edges: BTreeSet<u64> = BTreeSet::new();
        let mut covered: BTreeSet<(u64, u64)> = BTreeSet::new();
        for e in traces.clone().flat_map(|t| &t.events) {
            edges.extend([e.at, e.at + u64::from(e.bytes)]);
            covered.insert((e.at, e.at + u64::from(e.bytes)));
        }
        let edges: Vec<u64> = edges.into_iter().collect();
        let mut cells: BTreeMap<u64, (u32, BTreeSet<u64>)> = BTreeMap::new();
        for w in edges.windows(2) {
            if covered.iter().any(|c| c.0 <= w[0] && w[1] <= c.1) {
                let bytes = (w[1] - w[0]) as u32;
                cells.insert(w[0], (bytes, BTreeSet::from([self.init_of(w[0], bytes)])));
            }
        }
        for e in traces.flat_map(|t| &t.events).filter(|e| e.write) {
            for (at, (bytes, values)) in cells.range_mut(e.at..e.at + u64::from(e.bytes)) {
                values.insert(slice(e.value, e.at, *at, *bytes));
            }
        }
        Domain { init: self.init.clone(), cells }
    }
}

#[derive(Clone)]
pub struct Machine<'a> {
    p: &'a Program,
    pub pc: usize,
    pub x: [Val<u64>; 32],
    pub v: [Val<u128>; 32],
    pub nzcv: Val<u8>,
    state: BTreeMap<u64, u8>,
    ctrl: u64,
    instr: u32,
    events: Vec<Event>,
    barriers: Vec<(u32, Barrier, u64)>,
    /// Events of the last exclusive load.
    monitor: Vec<usize>,
}

/// All runs of `p`.
pub fn explore(p: &Program, domain: &Domain) -> Vec<Trace> {
    let start = Machine {
        p,
        pc: p.entry,
        x: p.x.map(|v| Val { v, from: 0 }),
        v: p.v.map(|v| Val { v, from: 0 }),
        nzcv: Val::default(),
        state: p.state.clone(),
        ctrl: 0,
        instr: 0,
        events: Vec::new(),
        barriers: Vec::new(),
        monitor: Vec::new(),
    };
    let (mut open, mut done) = (vec![start], Vec::new());
    while let Some(mut m) = open.pop() {
        loop {
            if p.stop.contains(&m.pc) {
                let (x, v) = (m.x.map(|r| r.v), m.v.map(|r| r.v));
                done.push(Trace { events: m.events, barriers: m.barriers, x, v });
                break;
            }
            assert!(m.instr < LONGEST, "a program that does not end");
            let mut others = m.step(domain);
            open.append(&mut others);
        }
    }
    done
}

/// The single-copy atomic parts of `count` elements of `bytes` at `at` (Arm ARM, B2.2.1).
fn parts(at: u64, bytes: u32, count: u32) -> Vec<(u64, u32)> {
    let mut all = Vec::new();
    for n in 0..count {
        let at = at + u64::from(n * bytes);
        let unit = bytes.min(8);
        if at.is_multiple_of(u64::from(unit)) {
            all.extend((0..bytes / unit).map(|k| (at + u64::from(k * unit), unit)));
        } else {
            all.extend((0..bytes).map(|k| (at + u64::from(k), 1)));
        }
    }
    all
}

fn private(at: u64) -> bool {
    (STATE_AT..STATE_AT + STATE_SIZE).contains(&at)
}

impl<'a> Machine<'a> {
    pub fn get(&self, n: u8) -> Val<u64> {
        if n == 31 { Val::default() } else { self.x[usize::from(n)] }
    }

    pub fn set(&mut self, n: u8, v: u64, from: u64) {
        if n != 31 {
            self.x[usize::from(n)] = Val { v, from };
        }
    }

    /// The word at `at` of the program, for literals.
    fn literal(&self, at: i64, bytes: u32) -> u128 {
        (0..bytes / 4).map(|n| u128::from(self.p.words[(at + i64::from(n)) as usize]) << (32 * n)).sum()
    }

    fn address(&mut self, at: At) -> Val<u64> {
        let base = self.x[usize::from(at.base())];
        match at {
            At::Offset(_, off) => Val { v: base.v.wrapping_add(off as u64), from: base.from },
            At::Index(_, m, option, shift) => {
                let m = self.get(m);
                let i = match option {
                    2 => m.v & 0xffff_ffff,
                    6 => m.v as i32 as u64,
                    _ => m.v,
                };
                Val { v: base.v.wrapping_add(i << shift), from: base.from | m.from }
            }
            At::Pre(n, off) => {
                self.x[usize::from(n)].v = base.v.wrapping_add(off as u64);
                self.x[usize::from(n)]
            }
            At::Post(n, off) => {
                self.x[usize::from(n)].v = base.v.wrapping_add(off as u64);
                base
            }
        }
    }

    /// Executes one instruction; a load that may return several values leaves the others' machines.
    fn step(&mut self, domain: &Domain) -> Vec<Machine<'a>> {
        let w = *self.p.words.get(self.pc).unwrap_or_else(|| panic!("ran off the end at {}", self.pc));
        let op = decode(w).unwrap_or_else(|e| panic!("word {}: {e}", self.pc));
        let here = self.pc as i64;
        self.pc += 1;
        self.instr += 1;
        match op {
            Op::Nothing => {}
            Op::Other => alu::execute(self, w, here).unwrap_or_else(|e| panic!("word {here}: {w:08x}: {e}")),
            Op::Barrier(b) => {
                let before = self.events.iter().fold(self.ctrl, |a, e| a | e.addr);
                self.barriers.push((self.instr, b, before));
            }
            Op::Branch { to, test, link } => {
                assert!(!link, "word {here}: a call");
                let (taken, from) = match test {
                    Test::Always => (true, 0),
                    Test::Flags(c) => (alu::holds(c, self.nzcv.v), self.nzcv.from),
                    Test::Zero { t, wide, nonzero } => {
                        let x = self.get(t);
                        let v = if wide { x.v } else { x.v & 0xffff_ffff };
                        ((v != 0) == nonzero, x.from)
                    }
                    Test::Bit { t, bit, set } => ((self.get(t).v >> bit & 1 == 1) == set, self.get(t).from),
                };
                self.ctrl |= from;
                if taken {
                    self.pc = (here + to) as usize;
                }
            }
            Op::Indirect { .. } => panic!("word {here}: an indirect branch"),
            Op::Literal { bytes, t, to, v } => {
                let value = self.literal(here + to, bytes);
                if v {
                    self.v[usize::from(t)] = Val { v: value, from: 0 };
                } else {
                    self.set(t, value as u64, 0);
                }
            }
            Op::Load { bytes, t, t2, at, order, exclusive, sign, v } => {
                let a = self.address(at);
                return self.load(domain, a, bytes, &[Some(t), t2], order, exclusive, sign, v);
            }
            Op::Store { bytes, t, t2, at, order, status, v } => {
                let mut data = Vec::new();
                for t in [Some(t), t2].into_iter().flatten() {
                    let x = self.get(t);
                    let d = if v { self.v[usize::from(t)] } else { Val { v: u128::from(x.v), from: x.from } };
                    data.push(d);
                }
                let a = self.address(at);
                let pairs = status.map(|s| {
                    self.set(s, 0, 0);
                    std::mem::take(&mut self.monitor)
                });
                self.store(a, bytes, &data, order, pairs, false);
            }
            Op::Lse { op, bytes, s, t, n, acquire, release } => {
                let a = self.x[usize::from(n)];
                let s = self.get(s);
                return self.each(domain, a, bytes, 1, |m, old, reads| {
                    let f = |o: u64| match op {
                        Lse::Add => o.wrapping_add(s.v),
                        Lse::Clr => o & !s.v,
                        Lse::Eor => o ^ s.v,
                        Lse::Set => o | s.v,
                        Lse::Swp => s.v,
                    };
                    // The forms that throw the result away do not acquire, and DMB LD does not wait for them (Arm ARM, LDADD).
                    for &e in reads {
                        m.events[e].order = if acquire && t != 31 { Order::Acquire } else { Order::Plain };
                        m.events[e].no_result = t == 31;
                    }
                    let from = bits(reads);
                    let old = old[0] as u64;
                    m.set(t, old, from);
                    let data = [Val { v: u128::from(f(old)), from: s.from | from }];
                    let order = if release { Order::Release } else { Order::Plain };
                    m.store(a, bytes, &data, order, Some(reads.to_vec()), true);
                });
            }
            Op::Cas { bytes, s, t, n, acquire, release, pair } => {
                let a = self.x[usize::from(n)];
                let count = if pair { 2 } else { 1 };
                let mask = u64::MAX >> (64 - 8 * bytes);
                let registers = |r: u8| (0..count).map(move |k| r + k as u8);
                let expected: Vec<u64> = registers(s).map(|r| self.get(r).v & mask).collect();
                let new: Vec<Val<u64>> = registers(t).map(|r| self.get(r)).collect();
                return self.each(domain, a, bytes, count, |m, old, reads| {
                    let olds: Vec<u64> = old.iter().map(|&o| o as u64).collect();
                    for &e in reads {
                        m.events[e].order = if acquire { Order::Acquire } else { Order::Plain };
                    }
                    for (r, o) in registers(s).zip(&olds) {
                        m.set(r, *o, bits(reads));
                    }
                    // One that fails need not write (Arm ARM, CAS).
                    if olds == expected {
                        let data: Vec<_> = new.iter().map(|d| Val { v: u128::from(d.v), from: d.from }).collect();
                        let order = if release { Order::Release } else { Order::Plain };
                        m.store(a, bytes, &data, order, Some(reads.to_vec()), true);
                    }
                });
            }
        }
        Vec::new()
    }

    fn load(
        &mut self,
        domain: &Domain,
        a: Val<u64>,
        bytes: u32,
        targets: &[Option<u8>; 2],
        order: Order,
        exclusive: bool,
        sign: Option<u32>,
        v: bool,
    ) -> Vec<Machine<'a>> {
        let count = targets.iter().flatten().count() as u32;
        assert!(
            order == Order::Plain || private(a.v) || a.v.is_multiple_of(u64::from(bytes * count)),
            "an ordered access that is not aligned"
        );
        self.each(domain, a, bytes, count, |m, value, reads| {
            for &e in reads {
                m.events[e].order = order;
            }
            if exclusive {
                m.monitor = reads.to_vec();
            }
            for (k, t) in targets.iter().flatten().enumerate() {
                let from = bits(reads);
                if v {
                    m.v[usize::from(*t)] = Val { v: value[k], from };
                    continue;
                }
                let mut x = value[k] as u64;
                if let Some(to) = sign {
                    let up = 64 - 8 * bytes;
                    x = ((x << up) as i64 >> up) as u64;
                    x = if to == 32 { x & 0xffff_ffff } else { x };
                }
                m.set(*t, x, from);
            }
        })
    }

    /// Reads `count` elements: `f` gets them and the events made, once for all values there may be.
    fn each(
        &mut self,
        domain: &Domain,
        a: Val<u64>,
        bytes: u32,
        count: u32,
        f: impl Fn(&mut Machine<'a>, &[u128], &[usize]),
    ) -> Vec<Machine<'a>> {
        if private(a.v) {
            let byte = |n: u32| u128::from(*self.state.get(&(a.v - STATE_AT + u64::from(n))).unwrap_or(&0));
            let element = |k: u32| (0..bytes).map(|n| byte(k * bytes + n) << (8 * n)).sum();
            let values: Vec<u128> = (0..count).map(element).collect();
            f(self, &values, &[]);
            return Vec::new();
        }
        let parts = parts(a.v, bytes, count);
        let mut all: Vec<Vec<u64>> = vec![Vec::new()];
        for &(at, n) in &parts {
            let choices = domain.choices(at, n);
            all = all.iter().flat_map(|v| choices.iter().map(move |c| [v.as_slice(), &[*c]].concat())).collect();
        }
        let before = self.clone();
        let mut others = Vec::new();
        for (k, values) in all.iter().enumerate() {
            let mut other = before.clone();
            let mut reads = Vec::new();
            let mut elements = vec![0u128; count as usize];
            for (&(at, n), &value) in parts.iter().zip(values) {
                let offset = (at - a.v) as u32;
                elements[(offset / bytes) as usize] |= u128::from(value) << (8 * (offset % bytes));
                reads.push(other.events.len());
                let (instr, ctrl) = (other.instr, other.ctrl);
                other.events.push(Event {
                    write: false,
                    at,
                    bytes: n,
                    value,
                    instr,
                    order: Order::Plain,
                    addr: a.from,
                    data: 0,
                    ctrl,
                    rmw: None,
                    no_result: false,
                });
            }
            f(&mut other, &elements, &reads);
            if k == 0 { *self = other } else { others.push(other) }
        }
        others
    }

    fn store(
        &mut self,
        a: Val<u64>,
        bytes: u32,
        data: &[Val<u128>],
        order: Order,
        pairs: Option<Vec<usize>>,
        one_instruction: bool,
    ) {
        if private(a.v) {
            for (k, d) in data.iter().enumerate() {
                for n in 0..bytes {
                    let to = a.v - STATE_AT + u64::from(k as u32 * bytes + n);
                    self.state.insert(to, (d.v >> (8 * n)) as u8);
                }
            }
            return;
        }
        let aligned = a.v.is_multiple_of(u64::from(bytes * data.len() as u32));
        assert!(order == Order::Plain || aligned, "an ordered access that is not aligned");
        for (k, d) in data.iter().enumerate() {
            let base = a.v + u64::from(k as u32 * bytes);
            for (at, n) in parts(base, bytes, 1) {
                let value = (d.v >> (8 * (at - base))) as u64 & (u64::MAX >> (64 - 8 * n));
                let (instr, ctrl) = (self.instr, self.ctrl);
                let rmw = pairs.as_ref().map(|reads| {
                    let same = |&&r: &&usize| self.events[r].at == at && self.events[r].bytes == n;
                    (*reads.iter().find(same).expect("an exclusive store to where the load was"), one_instruction)
                });
                self.events.push(Event {
                    write: true,
                    at,
                    bytes: n,
                    value,
                    instr,
                    order,
                    addr: a.from,
                    data: d.from,
                    ctrl,
                    rmw,
                    no_result: false,
                });
            }
        }
    }
}

fn bits(events: &[usize]) -> u64 {
    events.iter().fold(0, |a, e| a | 1 << e)
}

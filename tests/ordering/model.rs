//! The Armv8 memory model (Arm ARM, B2.3): given what each thread may have done, which outcomes some execution allows.
//!
//! An execution says from which write each read reads and in which order the writes to a place took effect. It is allowed when
//! - accesses of one thread to one place look in order (internal visibility requirement),
//! - the order "observed by another thread, or ordered within a thread" has no cycle (external visibility requirement),
//! - nothing of another thread comes between the two halves of an atomic pair (atomicity).
//!
//! Accesses of different sizes: an event is one single-copy atomic access; reads-from and coherence are told apart for each cell, the largest pieces that
//! all accesses consist of; an event observes another if it does so in any cell.

use super::run::{Domain, Event, Program, Trace, explore, slice};
use super::word::{Barrier, Order};
use std::collections::{BTreeMap, BTreeSet};

/// What of an execution is looked at.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// General register of a thread.
    X(usize, u8),
    /// Low or high half of a vector register of a thread.
    V(usize, u8, usize),
    /// Memory at the end.
    Memory(u64, u32),
}

#[derive(Clone, Debug, Default)]
pub struct Litmus {
    pub threads: Vec<Program>,
    pub init: BTreeMap<u64, u8>,
    pub looks: Vec<Look>,
}

pub type Outcomes = BTreeSet<Vec<u64>>;

impl Litmus {
    /// Every outcome the model allows.
    pub fn outcomes(&self) -> Outcomes {
        let mut domain = Domain { init: self.init.clone(), cells: BTreeMap::new() };
        let mut round = 0;
        let traces = loop {
            let traces: Vec<Vec<Trace>> = self.threads.iter().map(|p| explore(p, &domain)).collect();
            let grown = domain.grown(traces.iter().flatten());
            // A value takes at most one write of each instruction to come about.
            let longest = |t: &Vec<Trace>| t.iter().map(|t| t.events.iter().filter(|e| e.write).count()).max();
            let writes: usize = traces.iter().filter_map(longest).sum();
            if grown == domain || round > writes + 2 {
                break traces;
            }
            domain = grown;
            round += 1;
        };
        let ready: Vec<Vec<(Trace, Vec<u64>)>> = traces
            .into_iter()
            .map(|of| {
                of.into_iter()
                    .map(|t| {
                        let inside = locally_ordered(&t, &domain);
                        (t, inside)
                    })
                    .collect()
            })
            .collect();
        let mut all = Outcomes::new();
        let mut pick = vec![0; ready.len()];
        loop {
            let threads: Vec<&(Trace, Vec<u64>)> = pick.iter().zip(&ready).map(|(&n, t)| &t[n]).collect();
            Execution::new(&threads, &domain).outcomes(&self.looks, &mut all);
            let Some(t) = (0..pick.len()).find(|&t| pick[t] + 1 < ready[t].len()) else { return all };
            pick[t] += 1;
            pick[..t].fill(0);
        }
    }
}

fn overlap(a: &Event, b: &Event) -> bool {
    a.at < b.at + u64::from(b.bytes) && b.at < a.at + u64::from(a.bytes)
}

/// Program order of two events; the read of an atomic instruction comes before its write.
fn before(a: &Event, b: &Event) -> bool {
    a.instr < b.instr || a.instr == b.instr && !a.write && b.write
}

/// Locally-ordered-before (Arm ARM, B2.3.3), as one row of bits for each event.
fn locally_ordered(t: &Trace, domain: &Domain) -> Vec<u64> {
    let e = &t.events;
    assert!(e.len() <= 20, "too many events in one thread");
    let mut lob = vec![0u64; e.len()];
    let acquires = |x: &Event| !x.write && matches!(x.order, Order::Acquire | Order::AcquirePc);
    let releases = |x: &Event| x.write && x.order == Order::Release;
    let between = |kind: Barrier, a: &Event, b: &Event| {
        t.barriers.iter().any(|(at, k, _)| *k == kind && a.instr < *at && *at < b.instr)
    };
    // The write of an atomic instruction that acquires and releases.
    let full_atomic = |w: &Event| w.rmw.is_some_and(|(r, one)| one && releases(w) && e[r].order == Order::Acquire);
    // Local read successors: reads of what is, in their own thread, the last write to a cell.
    let successors = |w: usize| -> Vec<usize> {
        let mut all = Vec::new();
        for (&at, &(bytes, _)) in domain.cells.range(e[w].at..e[w].at + u64::from(e[w].bytes)) {
            let covers = |x: &Event| x.at <= at && at + u64::from(bytes) <= x.at + u64::from(x.bytes);
            for (r, read) in e.iter().enumerate().filter(|(_, x)| !x.write && covers(x) && before(&e[w], x)) {
                if !e.iter().any(|x| x.write && covers(x) && before(&e[w], x) && before(x, read)) {
                    all.push(r);
                }
            }
        }
        all
    };
    let paired: BTreeSet<usize> = (0..e.len()).filter(|&w| e[w].rmw.is_some()).collect();
    for (j, b) in e.iter().enumerate() {
        let depends = |set: u64, i: usize| set >> i & 1 == 1;
        for (i, a) in e.iter().enumerate().filter(|(_, a)| before(a, b)) {
            let ordered =
                // Local write successor.
                b.write && overlap(a, b)
                // Dependency-ordered-before.
                || depends(b.addr, i)
                || b.write && (depends(b.data, i) || depends(b.ctrl, i))
                || b.write && e.iter().any(|x| before(x, b) && x.instr != b.instr && depends(x.addr, i))
                || !b.write && t.barriers.iter().any(|(at, k, from)| {
                    *k == Barrier::Instruction && *at < b.instr && depends(*from, i)
                })
                // Atomic-ordered-before.
                || b.rmw.is_some_and(|(r, _)| r == i)
                // Barrier-ordered-before.
                || between(Barrier::Full, a, b)
                || full_atomic(a)
                || releases(a) && !b.write && b.order == Order::Acquire
                || !a.write && !a.no_result && between(Barrier::Load, a, b)
                || acquires(a)
                || a.write && b.write && between(Barrier::Store, a, b)
                || releases(b);
            if ordered {
                lob[i] |= 1 << j;
            }
        }
        if b.write {
            for r in successors(j) {
                // What the write's address or data depends on comes before a read of it.
                for (i, row) in lob.iter_mut().enumerate() {
                    if depends(b.addr | b.data, i) {
                        *row |= 1 << r;
                    }
                }
                if paired.contains(&j) && acquires(&e[r]) {
                    lob[j] |= 1 << r;
                }
            }
        }
    }
    lob
}

struct Execution<'a> {
    events: Vec<&'a Event>,
    thread: Vec<usize>,
    lob: Vec<u64>,
    traces: Vec<&'a Trace>,
    domain: &'a Domain,
}

/// One way for one cell: who observes whom, and the last value.
struct Way {
    obs: Vec<(usize, usize)>,
    last: u64,
}

impl<'a> Execution<'a> {
    fn new(threads: &[&'a (Trace, Vec<u64>)], domain: &'a Domain) -> Execution<'a> {
        let (mut events, mut thread, mut lob) = (Vec::new(), Vec::new(), Vec::new());
        for (n, (t, inside)) in threads.iter().enumerate() {
            let first = events.len();
            assert!(first + t.events.len() <= 64, "too many events");
            lob.extend(inside.iter().map(|row| row.checked_shl(first as u32).unwrap_or(0)));
            events.extend(&t.events);
            thread.extend(t.events.iter().map(|_| n));
        }
        Execution { events, thread, lob, traces: threads.iter().map(|t| &t.0).collect(), domain }
    }

    fn first_of(&self, e: usize) -> usize {
        self.thread.iter().position(|&t| t == self.thread[e]).unwrap_or(0)
    }

    fn po(&self, a: usize, b: usize) -> bool {
        self.thread[a] == self.thread[b] && before(self.events[a], self.events[b])
    }

    /// All ways for the cell at `at` that satisfy internal visibility and atomicity.
    fn ways(&self, at: u64, bytes: u32) -> Vec<Way> {
        let covers = |x: &Event| x.at <= at && at + u64::from(bytes) <= x.at + u64::from(x.bytes);
        let of = |e: usize| slice(self.events[e].value, self.events[e].at, at, bytes);
        let here: Vec<usize> = (0..self.events.len()).filter(|&e| covers(self.events[e])).collect();
        let (writes, reads): (Vec<usize>, Vec<usize>) = here.iter().partition(|&&e| self.events[e].write);
        let init = self.domain.init_of(at, bytes);
        let mut all = Vec::new();
        for order in self.orders(&writes) {
            // Place in the order, 0 being the initial value; of a read, the place of what it reads.
            let mut place = vec![0usize; self.events.len()];
            for (n, &w) in order.iter().enumerate() {
                place[w] = n + 1;
            }
            sources(&reads, &order, init, &of, &mut place, &mut |place| {
                if !self.coherent(&here, place) || !self.atomic(&writes, place) {
                    return;
                }
                let mut obs = Vec::new();
                for (a, &w) in order.iter().enumerate() {
                    obs.extend(order[a + 1..].iter().map(|&w2| (w, w2)));
                    obs.extend(reads.iter().filter(|&&r| place[r] == a + 1).map(|&r| (w, r)));
                    obs.extend(reads.iter().filter(|&&r| place[r] < a + 1).map(|&r| (r, w)));
                }
                obs.retain(|&(a, b)| self.thread[a] != self.thread[b]);
                all.push(Way { obs, last: order.last().map_or(init, |&w| of(w)) });
            });
        }
        all
    }

    /// Orders of `writes` that keep each thread's.
    fn orders(&self, writes: &[usize]) -> Vec<Vec<usize>> {
        if writes.is_empty() {
            return vec![Vec::new()];
        }
        let mut all = Vec::new();
        for (n, &w) in writes.iter().enumerate() {
            if writes.iter().any(|&x| self.po(x, w)) {
                continue;
            }
            let rest: Vec<usize> = writes.iter().enumerate().filter(|(k, _)| *k != n).map(|(_, &x)| x).collect();
            all.extend(self.orders(&rest).into_iter().map(|o| [&[w], o.as_slice()].concat()));
        }
        all
    }

    /// Internal visibility: with all writes in one order, what each thread does to the cell must not go back in it.
    fn coherent(&self, here: &[usize], place: &[usize]) -> bool {
        here.iter().all(|&a| {
            here.iter()
                .filter(|&&b| self.po(a, b))
                .all(|&b| if self.events[b].write { place[a] < place[b] } else { place[a] <= place[b] })
        })
    }

    fn atomic(&self, writes: &[usize], place: &[usize]) -> bool {
        writes.iter().all(|&w| {
            let Some((r, _)) = self.events[w].rmw else { return true };
            let r = self.first_of(w) + r;
            !writes.iter().any(|&x| self.thread[x] != self.thread[w] && place[r] < place[x] && place[x] < place[w])
        })
    }

    fn outcomes(&self, looks: &[Look], all: &mut Outcomes) {
        // A cell that only ever holds one value says nothing; without it more is allowed, if anything.
        let cells: Vec<(u64, u32)> =
            self.domain.cells.iter().filter(|(_, c)| c.1.len() > 1).map(|(&at, c)| (at, c.0)).collect();
        let ways: Vec<Vec<Way>> = cells.iter().map(|&(at, bytes)| self.ways(at, bytes)).collect();
        if ways.iter().any(Vec::is_empty) {
            return;
        }
        let mut pick = vec![0; ways.len()];
        loop {
            let mut ob = self.lob.clone();
            for (n, way) in pick.iter().zip(&ways) {
                for &(a, b) in &way[*n].obs {
                    ob[a] |= 1 << b;
                }
            }
            if acyclic(&ob) {
                let last: BTreeMap<u64, u64> =
                    pick.iter().zip(&ways).zip(&cells).map(|((n, w), c)| (c.0, w[*n].last)).collect();
                all.insert(looks.iter().map(|l| self.look(*l, &last)).collect());
            }
            let Some(t) = (0..pick.len()).find(|&t| pick[t] + 1 < ways[t].len()) else { return };
            pick[t] += 1;
            pick[..t].fill(0);
        }
    }

    fn look(&self, l: Look, last: &BTreeMap<u64, u64>) -> u64 {
        match l {
            Look::X(t, n) => self.traces[t].x[usize::from(n)],
            Look::V(t, n, half) => (self.traces[t].v[usize::from(n)] >> (64 * half)) as u64,
            Look::Memory(at, bytes) => {
                let mut v = self.domain.init_of(at, bytes);
                for (&cell, &(size, ref values)) in self.domain.cells.range(at..at + u64::from(bytes)) {
                    let by = 8 * (cell - at);
                    let only = values.first().copied().unwrap_or(0);
                    let mask = u64::MAX >> (64 - 8 * size) << by;
                    v = v & !mask | last.get(&cell).copied().unwrap_or(only) << by & mask;
                }
                v & (u64::MAX >> (64 - 8 * bytes))
            }
        }
    }
}

/// Finds for each read the writes in `order` (or the initial value) that it can have read from.
fn sources(
    reads: &[usize],
    order: &[usize],
    init: u64,
    of: &dyn Fn(usize) -> u64,
    place: &mut Vec<usize>,
    found: &mut dyn FnMut(&[usize]),
) {
    let Some((&r, rest)) = reads.split_first() else { return found(place) };
    for k in 0..=order.len() {
        if of(r) == if k == 0 { init } else { of(order[k - 1]) } {
            place[r] = k;
            sources(rest, order, init, of, place, found);
        }
    }
}

/// Whether the order has no cycle: takes away events nothing comes after, until none are left.
fn acyclic(ob: &[u64]) -> bool {
    let mut left: u64 = if ob.len() == 64 { u64::MAX } else { (1 << ob.len()) - 1 };
    while left != 0 {
        let ends = (0..ob.len()).filter(|&e| left >> e & 1 == 1 && ob[e] & left == 0).fold(0, |a, e| a | 1 << e);
        if ends == 0 {
            return false;
        }
        left &= !ends;
    }
    true
}

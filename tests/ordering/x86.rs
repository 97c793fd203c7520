//! x86-TSO (Sewell, Sarkar, Owens, Zappa Nardelli, Myreen: "x86-TSO: a rigorous and usable programmer's model", 2010; SDM vol. 3, 9.2): each
//! processor has a queue of stores that others do not see yet; loads look into the own queue first; locked operations and MFENCE wait
//! until it is empty. All runs are tried.
//!
//! A load may take some bytes from the queue and others from memory, as no manual forbids it: this allows rather more than CPUs do.
//! The parts of one instruction that are not one access (16-byte moves, the stores of a fast string operation: SDM vol. 3, 9.2.4) come in any order.

use super::model::Outcomes;
use std::collections::{BTreeMap, BTreeSet, HashSet};

#[derive(Clone, Copy, Debug)]
pub enum Value {
    Is(u64),
    /// What this load of the thread returned.
    Loaded(usize),
}

#[derive(Clone, Copy, Debug)]
pub enum Update {
    Add(u64),
    Or(u64),
    Swap(u64),
    /// To the second if it is the first.
    Compare(u64, u64),
}

/// One step of a thread. `to`: which of its results the value read is.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Load { at: u64, bytes: u32, to: usize },
    Store { at: u64, bytes: u32, value: Value },
    Locked { at: u64, bytes: u32, update: Update, to: usize },
    Fence,
}

#[derive(Clone, Copy, Debug)]
pub enum See {
    /// A result of a thread.
    Result(usize, usize),
    /// Whether it equals this.
    Equals(usize, usize, u64),
    Memory(u64, u32),
}

#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Per thread: groups, one after the other, of steps in any order.
    pub threads: Vec<Vec<Vec<Step>>>,
    pub init: BTreeMap<u64, u8>,
    pub sees: Vec<See>,
}

/// Memory is kept by the aligned words that are accessed.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    memory: Vec<u64>,
    threads: Vec<Thread>,
}

#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Thread {
    group: usize,
    done: u32,
    queue: Vec<(u64, u32, u64)>,
    results: Vec<u64>,
}

fn mask(bytes: u32) -> u64 {
    u64::MAX >> (64 - 8 * bytes)
}

impl Step {
    /// The word it reads, the word it writes.
    fn words(&self) -> (Option<u64>, Option<u64>) {
        match *self {
            Step::Load { at, .. } => (Some(at & !7), None),
            Step::Store { at, .. } => (None, Some(at & !7)),
            Step::Locked { at, .. } => (Some(at & !7), Some(at & !7)),
            Step::Fence => (None, None),
        }
    }
}

impl State {
    fn read(&self, words: &[u64], thread: Option<usize>, at: u64, bytes: u32) -> u64 {
        assert!(at & 7 <= 8 - u64::from(bytes), "an access across words");
        let word = words.binary_search(&(at & !7)).expect("a word that is accessed");
        let mut v = self.memory[word] >> (8 * (at & 7)) & mask(bytes);
        for &(to, n, value) in thread.iter().flat_map(|&t| &self.threads[t].queue) {
            if to & !7 == at & !7 {
                let (mask, value) = (mask(n) << (8 * (to & 7)), value << (8 * (to & 7)));
                let by = 8 * (at & 7);
                v = (v & !(mask >> by) | (value & mask) >> by) & self::mask(bytes);
            }
        }
        v
    }

    fn write(&mut self, words: &[u64], at: u64, bytes: u32, value: u64) {
        let word = words.binary_search(&(at & !7)).expect("a word that is accessed");
        let by = 8 * (at & 7);
        self.memory[word] = self.memory[word] & !(mask(bytes) << by) | (value & mask(bytes)) << by;
    }

    /// Does `step` of thread `t`, or says that it must wait.
    fn step(&mut self, words: &[u64], t: usize, step: Step) -> bool {
        let empty = self.threads[t].queue.is_empty();
        match step {
            Step::Load { at, bytes, to } => {
                self.threads[t].results[to] = self.read(words, Some(t), at, bytes);
            }
            Step::Store { at, bytes, value } => {
                let v = match value {
                    Value::Is(v) => v,
                    Value::Loaded(r) => self.threads[t].results[r],
                };
                self.threads[t].queue.push((at, bytes, v & mask(bytes)));
            }
            Step::Locked { at, bytes, update, to } => {
                let old = self.read(words, None, at, bytes);
                let new = match update {
                    Update::Add(v) => old.wrapping_add(v),
                    Update::Or(v) => old | v,
                    Update::Swap(v) => v,
                    Update::Compare(from, v) if old == from => v,
                    Update::Compare(..) => old,
                };
                self.write(words, at, bytes, new);
                self.threads[t].results[to] = old;
                return empty;
            }
            Step::Fence => return empty,
        }
        true
    }
}

impl Run {
    /// Without stores nobody can see and loads whose results go nowhere.
    fn needed(&self) -> Vec<Vec<Vec<Step>>> {
        let mut threads = self.threads.clone();
        loop {
            let steps = || threads.iter().flatten().flatten();
            let before = steps().count();
            let mut read: BTreeSet<u64> = steps().filter_map(|s| s.words().0).collect();
            read.extend(self.sees.iter().filter_map(|s| if let See::Memory(at, _) = s { Some(at & !7) } else { None }));
            let mut used: BTreeSet<(usize, usize)> = BTreeSet::new();
            for s in &self.sees {
                if let See::Result(t, n) | See::Equals(t, n, _) = *s {
                    used.insert((t, n));
                }
            }
            for (t, thread) in threads.iter().enumerate() {
                used.extend(thread.iter().flatten().filter_map(|s| match s {
                    Step::Store { value: Value::Loaded(n), .. } => Some((t, *n)),
                    _ => None,
                }));
            }
            for (t, thread) in threads.iter_mut().enumerate() {
                for group in thread.iter_mut() {
                    group.retain(|s| match s {
                        Step::Store { at, .. } => read.contains(&(at & !7)),
                        Step::Load { to, .. } => used.contains(&(t, *to)),
                        _ => true,
                    });
                }
                thread.retain(|g| !g.is_empty());
            }
            if threads.iter().flatten().flatten().count() == before {
                return threads;
            }
        }
    }

    pub fn outcomes(&self) -> Outcomes {
        let threads = self.needed();
        let mut words: BTreeSet<u64> = BTreeSet::new();
        for s in threads.iter().flatten().flatten() {
            let (r, w) = s.words();
            words.extend(r.into_iter().chain(w));
        }
        words.extend(self.sees.iter().filter_map(|s| if let See::Memory(at, _) = s { Some(at & !7) } else { None }));
        let words: Vec<u64> = words.into_iter().collect();
        let byte = |at: u64| u64::from(*self.init.get(&at).unwrap_or(&0));
        let memory = words.iter().map(|w| (0..8).map(|n| byte(w + n) << (8 * n)).sum()).collect();
        let last = |s: &Step| match *s {
            Step::Load { to, .. } | Step::Locked { to, .. } => to + 1,
            _ => 0,
        };
        let results = threads.iter().flatten().flatten().map(last).max().unwrap_or(0);
        let thread = Thread { results: vec![0; results], ..Thread::default() };
        let start = State { memory, threads: vec![thread; threads.len()] };
        let (mut open, mut seen, mut all) = (vec![start], HashSet::new(), Outcomes::new());
        while let Some(s) = open.pop() {
            if !seen.insert(s.clone()) {
                continue;
            }
            let mut ended = true;
            for (t, program) in threads.iter().enumerate() {
                if !s.threads[t].queue.is_empty() {
                    ended = false;
                    let mut next = s.clone();
                    let (at, bytes, value) = next.threads[t].queue.remove(0);
                    next.write(&words, at, bytes, value);
                    open.push(next);
                }
                let Some(group) = program.get(s.threads[t].group) else { continue };
                ended = false;
                for (n, &step) in group.iter().enumerate().filter(|(n, _)| s.threads[t].done >> n & 1 == 0) {
                    let mut next = s.clone();
                    if !next.step(&words, t, step) {
                        continue;
                    }
                    let of = &mut next.threads[t];
                    of.done |= 1 << n;
                    if of.done.count_ones() as usize == group.len() {
                        (of.group, of.done) = (of.group + 1, 0);
                    }
                    open.push(next);
                }
            }
            if ended {
                let see = |l: &See| match *l {
                    See::Result(t, n) => s.threads[t].results[n],
                    See::Equals(t, n, v) => u64::from(s.threads[t].results[n] == v),
                    See::Memory(at, bytes) => s.read(&words, None, at, bytes),
                };
                all.insert(self.sees.iter().map(see).collect());
            }
        }
        all
    }
}

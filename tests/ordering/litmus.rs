//! Litmus tests: small x86 programs of two to four threads, translated, with every kind of access in every place of every shape. What the Armv8 model
//! allows the words must be among what x86-TSO allows the instructions.
//!
//! The order in which one thread's accesses are seen is that thread's own affair, so one thread of a shape is varied and the others stay simple.

use super::model::{Litmus, Look, Outcomes};
use super::run::{Program, STATE_AT};
use super::x86::{Run, See, Step, Update, Value};
use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register as R, RepPrefixKind};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::offset_of;
use xrun::Translator;
use xrun::host::HostFeatures;
use xrun_runtime::abi;
use xrun_runtime::engine::{Engine, Extent, GuestCode, Ordering, Request};
use xrun_runtime::state::CpuState;

const X: u64 = 0x1_0000;
const Y: u64 = 0x1_1000;
/// Each thread has one more place, and one for copies to come from and go to.
const Z: u64 = 0x2_0000;
const COPY: u64 = 0x3_0000;
const CODE: u64 = 0x40_1000;
/// Where in `COPY` the source of the value `v` is: 32 bytes at `64 * v`.
const SOURCES: u64 = 64;
const TARGETS: u64 = 0x400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum St {
    Mov1,
    Mov4,
    Mov8,
    Offset,
    Push,
    Xchg,
    Xadd,
    CmpxchgTaken,
    Cmpxchg8b,
    Movnti,
    Movaps,
    Movups,
    Movd,
    Movq,
    Movlps,
    Stosd,
    Movsd,
    RepStosb,
    RepMovsb,
}

const STORES: &[St] = &[
    St::Mov1,
    St::Mov4,
    St::Mov8,
    St::Offset,
    St::Push,
    St::Xchg,
    St::Xadd,
    St::CmpxchgTaken,
    St::Cmpxchg8b,
    St::Movnti,
    St::Movaps,
    St::Movups,
    St::Movd,
    St::Movq,
    St::Movlps,
    St::Stosd,
    St::Movsd,
    St::RepStosb,
    St::RepMovsb,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ld {
    Mov1,
    Mov4,
    Mov8,
    Offset,
    Or,
    Pop,
    Lodsd,
    Scasd,
    Movsd,
    RepMovsb,
    Movaps,
    Movups,
    Movd,
    Movq,
    Por,
    Xadd,
    CmpxchgFailed,
    Cmpxchg8bFailed,
}

const LOADS: &[Ld] = &[
    Ld::Mov1,
    Ld::Mov4,
    Ld::Mov8,
    Ld::Offset,
    Ld::Or,
    Ld::Pop,
    Ld::Lodsd,
    Ld::Scasd,
    Ld::Movsd,
    Ld::RepMovsb,
    Ld::Movaps,
    Ld::Movups,
    Ld::Movd,
    Ld::Movq,
    Ld::Por,
    Ld::Xadd,
    Ld::CmpxchgFailed,
    Ld::Cmpxchg8bFailed,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    Not,
    Mfence,
    Sfence,
    Lfence,
    LockAdd,
    LockOr0,
    Xchg,
    CmpxchgTaken,
    CmpxchgFailed,
    Cmpxchg16bFailed,
}

const FENCES: &[Fence] = &[
    Fence::Not,
    Fence::Mfence,
    Fence::Sfence,
    Fence::Lfence,
    Fence::LockAdd,
    Fence::LockOr0,
    Fence::Xchg,
    Fence::CmpxchgTaken,
    Fence::CmpxchgFailed,
    Fence::Cmpxchg16bFailed,
];

/// One thread: its instructions, and what they are to x86-TSO.
#[derive(Clone, Default)]
struct Thread {
    number: usize,
    code: Vec<u8>,
    groups: Vec<Vec<Step>>,
    looks: Vec<Look>,
    sees: Vec<See>,
    results: usize,
    init: BTreeMap<u64, u8>,
}

fn host(r: R) -> u8 {
    abi::GPR[r.full_register() as usize - R::RAX as usize]
}

fn mem(base: R, displacement: i64) -> MemoryOperand {
    MemoryOperand::with_base_displ(base, displacement)
}

fn ok(i: Result<Instruction, iced_x86::IcedError>) -> Instruction {
    i.expect("an instruction that exists")
}

fn locked(mut i: Instruction) -> Instruction {
    i.set_has_lock_prefix(true);
    i
}

impl Thread {
    fn new(number: usize) -> Thread {
        Thread { number, ..Thread::default() }
    }

    fn emit(&mut self, i: Instruction) -> &mut Self {
        let mut e = Encoder::new(64);
        e.encode(&i, CODE + self.code.len() as u64).expect("an instruction that can be encoded");
        self.code.extend(e.take_buffer());
        self
    }

    /// A register that holds `at`.
    fn pointer(&mut self, at: u64) -> R {
        self.set(R::R8, at)
    }

    fn set(&mut self, r: R, v: u64) -> R {
        self.emit(ok(Instruction::with2(Code::Mov_r64_imm64, r, v)));
        r
    }

    fn z(&self) -> u64 {
        Z + 0x1000 * self.number as u64
    }

    fn copy(&self) -> u64 {
        COPY + 0x1000 * self.number as u64
    }

    /// Where a source of the value `v` lies.
    fn source(&mut self, v: u64) -> u64 {
        let at = self.copy() + SOURCES * v;
        self.init.insert(at, v as u8);
        at
    }

    fn result(&mut self) -> usize {
        self.results += 1;
        self.results - 1
    }

    fn steps(&mut self, steps: &[Step]) {
        self.groups.push(steps.to_vec());
    }

    /// Result `to` of `bytes` is in general register `r`: kept where nothing else is.
    fn keep(&mut self, r: R, to: usize) {
        let kept = [R::R12, R::R13, R::R14, R::R15][self.looks.len()];
        self.emit(ok(Instruction::with2(Code::Mov_r64_rm64, kept, r)));
        self.looks.push(Look::X(self.number, host(kept)));
        self.sees.push(See::Result(self.number, to));
    }

    fn store(&mut self, kind: St, at: u64, v: u64) {
        let bytes = match kind {
            St::Mov1 => 1,
            St::Mov8 | St::Push | St::Movq | St::Movlps | St::Cmpxchg8b => 8,
            _ => 4,
        };
        let x = R::XMM8 + v as u32;
        let p = self.pointer(at);
        let simple = [Step::Store { at, bytes, value: Value::Is(v) }];
        let d = v as u32;
        match kind {
            St::Mov1 => self.emit(ok(Instruction::with2(Code::Mov_rm8_imm8, mem(p, 0), d))),
            St::Mov4 => self.emit(ok(Instruction::with2(Code::Mov_rm32_imm32, mem(p, 0), d))),
            St::Mov8 => self.emit(ok(Instruction::with2(Code::Mov_rm64_imm32, mem(p, 0), d))),
            St::Offset => {
                let p = self.pointer(at - 64);
                self.emit(ok(Instruction::with2(Code::Mov_rm32_imm32, mem(p, 64), d)))
            }
            St::Push => {
                self.set(R::RSP, at + 8);
                self.emit(ok(Instruction::with1(Code::Pushq_imm8, d)))
            }
            St::Movnti => {
                self.set(R::RAX, v);
                self.emit(ok(Instruction::with2(Code::Movnti_m32_r32, mem(p, 0), R::EAX)))
            }
            St::Movd => self.emit(ok(Instruction::with2(Code::Movd_rm32_xmm, mem(p, 0), x))),
            St::Movq => self.emit(ok(Instruction::with2(Code::Movq_xmmm64_xmm, mem(p, 0), x))),
            St::Movlps => self.emit(ok(Instruction::with2(Code::Movlps_m64_xmm, mem(p, 0), x))),
            St::Stosd => {
                self.set(R::RDI, at);
                self.set(R::RAX, v);
                self.emit(ok(Instruction::with_stosd(64, RepPrefixKind::None)))
            }
            St::Movaps | St::Movups => {
                let code = if kind == St::Movaps { Code::Movaps_xmmm128_xmm } else { Code::Movups_xmmm128_xmm };
                self.emit(ok(Instruction::with2(code, mem(p, 0), x)));
                let high = Step::Store { at: at + 8, bytes: 8, value: Value::Is(0) };
                return self.steps(&[Step::Store { at, bytes: 8, value: Value::Is(v) }, high]);
            }
            St::Movsd => {
                let from = self.source(v);
                self.set(R::RSI, from);
                self.set(R::RDI, at);
                self.emit(ok(Instruction::with_movsd(64, R::None, RepPrefixKind::None)))
            }
            St::RepMovsb | St::RepStosb => {
                let from = self.source(v);
                self.set(R::RSI, from);
                self.set(R::RDI, at);
                self.set(R::RCX, 32);
                let each = if kind == St::RepStosb {
                    self.set(R::RAX, v);
                    self.emit(ok(Instruction::with_stosb(64, RepPrefixKind::Repe)));
                    [0x0101_0101_0101_0101 * v; 4]
                } else {
                    self.emit(ok(Instruction::with_movsb(64, R::None, RepPrefixKind::Repe)));
                    [v, 0, 0, 0]
                };
                let store = |n: usize| Step::Store { at: at + 8 * n as u64, bytes: 8, value: Value::Is(each[n]) };
                return self.steps(&[store(0), store(1), store(2), store(3)]);
            }
            St::Xchg | St::Xadd | St::CmpxchgTaken | St::Cmpxchg8b => {
                let to = self.result();
                self.set(R::RAX, 0);
                self.set(R::RCX, v);
                let update = match kind {
                    St::Xchg => {
                        self.emit(ok(Instruction::with2(Code::Xchg_rm32_r32, mem(p, 0), R::ECX)));
                        Update::Swap(v)
                    }
                    St::Xadd => {
                        self.emit(locked(ok(Instruction::with2(Code::Xadd_rm32_r32, mem(p, 0), R::ECX))));
                        Update::Add(v)
                    }
                    St::CmpxchgTaken => {
                        self.emit(locked(ok(Instruction::with2(Code::Cmpxchg_rm32_r32, mem(p, 0), R::ECX))));
                        Update::Compare(0, v)
                    }
                    _ => {
                        self.set(R::RDX, 0);
                        self.set(R::RCX, 0);
                        self.set(R::RBX, v);
                        self.emit(locked(ok(Instruction::with1(Code::Cmpxchg8b_m64, mem(p, 0)))));
                        Update::Compare(0, v)
                    }
                };
                return self.steps(&[Step::Locked { at, bytes, update, to }]);
            }
        };
        self.steps(&simple);
    }

    fn load(&mut self, kind: Ld, at: u64) {
        let bytes = match kind {
            Ld::Mov1 => 1,
            Ld::Mov8 | Ld::Pop | Ld::Movq | Ld::Cmpxchg8bFailed => 8,
            _ => 4,
        };
        let p = self.pointer(at);
        let to = self.result();
        let simple = [Step::Load { at, bytes, to }];
        let number = self.number;
        match kind {
            Ld::Mov1 => {
                self.emit(ok(Instruction::with2(Code::Movzx_r32_rm8, R::EAX, mem(p, 0))));
            }
            Ld::Mov4 => {
                self.emit(ok(Instruction::with2(Code::Mov_r32_rm32, R::EAX, mem(p, 0))));
            }
            Ld::Mov8 => {
                self.emit(ok(Instruction::with2(Code::Mov_r64_rm64, R::RAX, mem(p, 0))));
            }
            Ld::Offset => {
                let p = self.pointer(at + 64);
                self.emit(ok(Instruction::with2(Code::Mov_r32_rm32, R::EAX, mem(p, -64))));
            }
            Ld::Or => {
                self.set(R::RAX, 0);
                self.emit(ok(Instruction::with2(Code::Or_r32_rm32, R::EAX, mem(p, 0))));
            }
            Ld::Pop => {
                self.set(R::RSP, at);
                self.emit(ok(Instruction::with1(Code::Pop_r64, R::RAX)));
            }
            Ld::Lodsd => {
                self.set(R::RSI, at);
                self.emit(ok(Instruction::with_lodsd(64, R::None, RepPrefixKind::None)));
            }
            Ld::Scasd => {
                self.set(R::RDI, at);
                self.set(R::RAX, 0);
                self.emit(ok(Instruction::with_scasd(64, RepPrefixKind::None)));
                self.steps(&simple);
                self.set(R::RDX, 0);
                self.emit(ok(Instruction::with1(Code::Sete_rm8, R::DL)));
                self.keep(R::RDX, to);
                *self.sees.last_mut().expect("just put there") = See::Equals(number, to, 0);
                return;
            }
            Ld::Movsd | Ld::RepMovsb => {
                let target = self.copy() + TARGETS + 64 * to as u64;
                self.set(R::RSI, at);
                self.set(R::RDI, target);
                self.looks.push(Look::Memory(target, 4));
                self.sees.push(See::Memory(target, 4));
                if kind == Ld::Movsd {
                    self.emit(ok(Instruction::with_movsd(64, R::None, RepPrefixKind::None)));
                    self.steps(&simple);
                    return self.steps(&[Step::Store { at: target, bytes: 4, value: Value::Loaded(to) }]);
                }
                self.set(R::RCX, 32);
                self.emit(ok(Instruction::with_movsb(64, R::None, RepPrefixKind::Repe)));
                let results = [to, self.result(), self.result(), self.result()];
                let part = |base: u64, n: usize| base + 8 * n as u64;
                let load = |n: usize| Step::Load { at: part(at, n), bytes: 8, to: results[n] };
                let store = |n: usize| Step::Store { at: part(target, n), bytes: 8, value: Value::Loaded(results[n]) };
                self.steps(&[0, 1, 2, 3].map(load));
                return self.steps(&[0, 1, 2, 3].map(store));
            }
            Ld::Movaps | Ld::Movups | Ld::Movd | Ld::Movq | Ld::Por => {
                let v = self.looks.len() as u8;
                let x = R::XMM0 + u32::from(v);
                let code = match kind {
                    Ld::Movaps => Code::Movaps_xmm_xmmm128,
                    Ld::Movups => Code::Movups_xmm_xmmm128,
                    Ld::Movd => Code::Movd_xmm_rm32,
                    Ld::Movq => Code::Movq_xmm_xmmm64,
                    _ => Code::Por_xmm_xmmm128,
                };
                self.emit(ok(Instruction::with2(code, x, mem(p, 0))));
                self.looks.push(Look::V(number, abi::xmm(v), 0));
                self.sees.push(See::Result(number, to));
                if matches!(kind, Ld::Movd | Ld::Movq) {
                    return self.steps(&simple);
                }
                let high = Step::Load { at: at + 8, bytes: 8, to: self.result() };
                return self.steps(&[Step::Load { at, bytes: 8, to }, high]);
            }
            Ld::Xadd => {
                self.set(R::RAX, 0);
                self.emit(locked(ok(Instruction::with2(Code::Xadd_rm32_r32, mem(p, 0), R::EAX))));
                self.steps(&[Step::Locked { at, bytes, update: Update::Add(0), to }]);
                return self.keep(R::RAX, to);
            }
            Ld::CmpxchgFailed | Ld::Cmpxchg8bFailed => {
                for (r, v) in [(R::RAX, 77), (R::RDX, 0), (R::RBX, 9), (R::RCX, 0)] {
                    self.set(r, v);
                }
                let i = if kind == Ld::CmpxchgFailed {
                    Instruction::with2(Code::Cmpxchg_rm32_r32, mem(p, 0), R::EBX)
                } else {
                    Instruction::with1(Code::Cmpxchg8b_m64, mem(p, 0))
                };
                self.emit(locked(ok(i)));
                if kind == Ld::Cmpxchg8bFailed {
                    self.emit(ok(Instruction::with2(Code::Shl_rm64_imm8, R::RDX, 32)));
                    self.emit(ok(Instruction::with2(Code::Or_r64_rm64, R::RAX, R::RDX)));
                }
                self.steps(&[Step::Locked { at, bytes, update: Update::Compare(77, 9), to }]);
                return self.keep(R::RAX, to);
            }
        }
        self.steps(&simple);
        self.keep(R::RAX, to);
    }

    fn fence(&mut self, kind: Fence) {
        let (at, bytes) = (self.z(), 4);
        if kind == Fence::Not {
            return;
        }
        let p = self.pointer(at);
        self.set(R::RAX, 0);
        self.set(R::RCX, 1);
        let to = self.result();
        let lock = |update| vec![Step::Locked { at, bytes, update, to }];
        let (i, steps) = match kind {
            Fence::Not => return,
            Fence::Mfence => (Instruction::with(Code::Mfence), vec![Step::Fence]),
            // Between ordinary accesses they order what is in order already.
            Fence::Sfence => (Instruction::with(Code::Sfence), Vec::new()),
            Fence::Lfence => (Instruction::with(Code::Lfence), Vec::new()),
            Fence::LockAdd => (locked(ok(Instruction::with2(Code::Add_rm32_imm8, mem(p, 0), 1))), lock(Update::Add(1))),
            Fence::LockOr0 => (locked(ok(Instruction::with2(Code::Or_rm32_imm8, mem(p, 0), 0))), lock(Update::Or(0))),
            Fence::Xchg => (ok(Instruction::with2(Code::Xchg_rm32_r32, mem(p, 0), R::ECX)), lock(Update::Swap(1))),
            Fence::CmpxchgTaken => {
                let i = ok(Instruction::with2(Code::Cmpxchg_rm32_r32, mem(p, 0), R::ECX));
                (locked(i), lock(Update::Compare(0, 1)))
            }
            Fence::CmpxchgFailed => {
                self.set(R::RAX, 77);
                let i = ok(Instruction::with2(Code::Cmpxchg_rm32_r32, mem(p, 0), R::ECX));
                (locked(i), lock(Update::Compare(77, 1)))
            }
            Fence::Cmpxchg16bFailed => {
                self.set(R::RDX, 77);
                (locked(ok(Instruction::with1(Code::Cmpxchg16b_m128, mem(p, 0)))), lock(Update::Compare(77, 1)))
            }
        };
        self.emit(i);
        if !steps.is_empty() {
            self.steps(&steps);
        }
    }

    /// The translation, with everything in its registers; what the host adds to go on is left out.
    fn translated(&self, host: HostFeatures, ordering: Ordering) -> Result<Program, String> {
        let mut code = self.code.clone();
        let end = CODE + code.len() as u64;
        code.extend([0x0f, 0x0b]);
        let request = Request { ordering, extent: Extent::Loop, ..Request::at(CODE) };
        let t = Translator { host }.translate(request, &Bytes(code)).expect("there is code");
        let stop: BTreeSet<usize> = t.marks.iter().filter(|m| m.guest == end).map(|m| m.word as usize).collect();
        if stop.is_empty() {
            return Err("the translation ends before the program".into());
        }
        let mut p = Program::new(t.words);
        p.entry = t.entries[0].word as usize;
        p.stop = stop;
        p.x[usize::from(abi::STATE)] = STATE_AT;
        p.x[usize::from(abi::SHADOW)] = STATE_AT + 0x8_0000;
        for v in 0..8 {
            p.v[usize::from(abi::xmm(8 + v))] = u128::from(v);
        }
        p.state.insert(offset_of!(CpuState, df) as u64, 1);
        Ok(p)
    }
}

struct Bytes(Vec<u8>);

impl GuestCode for Bytes {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        let Some(from) = addr.checked_sub(CODE).and_then(|o| self.0.get(o as usize..)) else { return 0 };
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        n
    }
}

/// Compares translations with x86-TSO; equal words are judged once.
struct Judge {
    hosts: Vec<(&'static str, HostFeatures)>,
    orderings: Vec<Ordering>,
    known: HashMap<Vec<Vec<u32>>, Outcomes>,
    wrong: Vec<String>,
    judged: usize,
}

impl Judge {
    fn new() -> Judge {
        Judge {
            hosts: HostFeatures::ALL.to_vec(),
            orderings: vec![Ordering::Tso, Ordering::Fenced],
            known: HashMap::new(),
            wrong: Vec::new(),
            judged: 0,
        }
    }

    fn judge(&mut self, name: &dyn Fn() -> String, threads: &[Thread], memory: &[(u64, u32)]) {
        let mut run = Run::default();
        let mut looks: Vec<Look> = threads.iter().flat_map(|t| t.looks.clone()).collect();
        for t in threads {
            run.threads.push(t.groups.clone());
            run.init.extend(t.init.clone());
            run.sees.extend(&t.sees);
        }
        run.sees.extend(memory.iter().map(|m| See::Memory(m.0, m.1)));
        looks.extend(memory.iter().map(|m| Look::Memory(m.0, m.1)));
        let allowed = run.outcomes();
        for &(host, features) in &self.hosts {
            for &ordering in &self.orderings {
                let translated =
                    |t: &Thread| t.translated(features, ordering).unwrap_or_else(|e| panic!("{}: {e}", name()));
                let programs: Vec<Program> = threads.iter().map(translated).collect();
                let words: Vec<Vec<u32>> = programs.iter().map(|p| p.words.clone()).collect();
                let litmus = Litmus { threads: programs, init: run.init.clone(), looks: looks.clone() };
                let got = self.known.entry(words).or_insert_with(|| litmus.outcomes());
                assert!(!got.is_empty(), "{}: no outcome", name());
                self.judged += 1;
                let bad: Vec<_> = got.difference(&allowed).collect();
                if !bad.is_empty() {
                    self.wrong.push(format!("{} ({host}, {ordering:?}): {bad:x?} not in {allowed:x?}", name()));
                }
            }
        }
        self.known.clear();
    }

    #[track_caller]
    fn end(self) {
        let n = self.wrong.len();
        let shown = self.wrong.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.wrong.is_empty(), "{n} of {} wrong:\n{shown}", self.judged);
    }
}

fn thread(number: usize, f: impl FnOnce(&mut Thread)) -> Thread {
    let mut t = Thread::new(number);
    f(&mut t);
    t
}

/// Store, fence, load against the same done with MFENCE: SB, and R, where the other thread's second access is a store.
#[test]
fn store_then_load() {
    let mut j = Judge::new();
    let sb = thread(1, |t| {
        t.store(St::Mov4, Y, 1);
        t.fence(Fence::Mfence);
        t.load(Ld::Mov4, X);
    });
    let r = thread(1, |t| {
        t.store(St::Mov4, Y, 2);
        t.store(St::Mov4, X, 1);
    });
    for &f in FENCES {
        for &s in STORES {
            for &l in LOADS {
                let varied = thread(0, |t| {
                    t.store(s, X, 1);
                    t.fence(f);
                    t.load(l, Y);
                });
                j.judge(&|| format!("SB {s:?} {f:?} {l:?}"), &[varied, sb.clone()], &[]);
                if f == Fence::Not {
                    continue;
                }
                let varied = thread(0, |t| {
                    t.store(s, X, 2);
                    t.fence(f);
                    t.load(l, Y);
                });
                j.judge(&|| format!("R {s:?} {f:?} {l:?}"), &[varied, r.clone()], &[(X, 4)]);
            }
        }
    }
    j.end();
}

/// Two stores: MP's first thread, 2+2W, S's first.
#[test]
fn store_then_store() {
    let mut j = Judge::new();
    let reader = thread(1, |t| {
        t.load(Ld::Mov4, Y);
        t.load(Ld::Mov4, X);
    });
    let writer = thread(1, |t| {
        t.store(St::Mov4, Y, 2);
        t.store(St::Mov4, X, 1);
    });
    let s = thread(1, |t| {
        t.load(Ld::Mov4, Y);
        t.store(St::Mov4, X, 1);
    });
    for &a in STORES {
        for &b in STORES {
            let pair = |x| {
                thread(0, |t| {
                    t.store(a, X, x);
                    t.store(b, Y, 1);
                })
            };
            j.judge(&|| format!("MP {a:?} {b:?}"), &[pair(1), reader.clone()], &[]);
            j.judge(&|| format!("2+2W {a:?} {b:?}"), &[pair(2), writer.clone()], &[(X, 4), (Y, 4)]);
            j.judge(&|| format!("S {a:?} {b:?}"), &[pair(2), s.clone()], &[(X, 4)]);
        }
    }
    j.end();
}

/// Two loads: MP's second thread, IRIW, two of the same place.
#[test]
fn load_then_load() {
    let mut j = Judge::new();
    let writer = thread(1, |t| {
        t.store(St::Mov4, X, 1);
        t.store(St::Mov4, Y, 1);
    });
    let one = |n, at| thread(n, |t| t.store(St::Mov4, at, 1));
    let other = thread(3, |t| {
        t.load(Ld::Mov4, X);
        t.load(Ld::Mov4, Y);
    });
    for &a in LOADS {
        for &b in LOADS {
            let pair = |first, second| {
                thread(0, |t| {
                    t.load(a, first);
                    t.load(b, second);
                })
            };
            j.judge(&|| format!("MP {a:?} {b:?}"), &[pair(Y, X), writer.clone()], &[]);
            j.judge(&|| format!("IRIW {a:?} {b:?}"), &[pair(Y, X), one(1, X), one(2, Y), other.clone()], &[]);
            j.judge(&|| format!("CoRR {a:?} {b:?}"), &[pair(X, X), one(1, X)], &[]);
        }
    }
    j.end();
}

/// A load, then a store: LB, WRC's middle, S's second thread.
#[test]
fn load_then_store() {
    let mut j = Judge::new();
    let lb = thread(1, |t| {
        t.load(Ld::Mov4, Y);
        t.store(St::Mov4, X, 1);
    });
    let wrc = [
        thread(1, |t| t.store(St::Mov4, X, 1)),
        thread(2, |t| {
            t.load(Ld::Mov4, Y);
            t.load(Ld::Mov4, X);
        }),
    ];
    let s = thread(1, |t| {
        t.store(St::Mov4, Y, 2);
        t.store(St::Mov4, X, 1);
    });
    for &a in LOADS {
        for &b in STORES {
            let varied = thread(0, |t| {
                t.load(a, X);
                t.store(b, Y, 1);
            });
            j.judge(&|| format!("LB {a:?} {b:?}"), &[varied.clone(), lb.clone()], &[]);
            j.judge(&|| format!("WRC {a:?} {b:?}"), &[varied.clone(), wrc[0].clone(), wrc[1].clone()], &[]);
            j.judge(&|| format!("S {a:?} {b:?}"), &[varied, s.clone()], &[(Y, 4)]);
        }
    }
    j.end();
}

/// A store, and then a load of the same place, before another load: the own queue is looked into, and no more.
#[test]
fn store_seen_by_its_own_thread() {
    let mut j = Judge::new();
    let other = thread(1, |t| {
        t.store(St::Mov4, Y, 1);
        t.load(Ld::Mov4, Y);
        t.load(Ld::Mov4, X);
    });
    for &s in STORES {
        for &l in LOADS {
            let varied = thread(0, |t| {
                t.store(s, X, 1);
                t.load(l, X);
                t.load(Ld::Mov4, Y);
            });
            j.judge(&|| format!("SB, own store read {s:?} {l:?}"), &[varied, other.clone()], &[]);
        }
    }
    j.end();
}

/// Accesses of different sizes that overlap.
#[test]
fn mixed_sizes() {
    let mut j = Judge::new();
    // MP whose flag is the upper or lower half of what is written, or read, at once.
    for (data, flag) in [(X, X + 4), (X + 4, X), (X + 8, X), (X, X + 8)] {
        for &a in &[Ld::Mov4, Ld::Mov8, Ld::Movaps, Ld::Movq, Ld::Pop] {
            for &b in &[Ld::Mov4, Ld::Mov8, Ld::Movaps, Ld::Movq] {
                let writer = thread(1, |t| {
                    t.store(St::Mov4, data, 1);
                    t.store(St::Mov4, flag, 1);
                });
                let reader = thread(0, |t| {
                    t.load(a, if a == Ld::Movaps { X } else { flag & !7 });
                    t.load(b, if b == Ld::Movaps { X } else { data & !7 });
                });
                j.judge(&|| format!("MP in {data:x} {flag:x}, {a:?} {b:?}"), &[reader, writer], &[]);
            }
        }
    }
    // A narrow store, then a wide load of the same word, and the other way round, in both threads.
    for &s in &[St::Mov1, St::Mov4, St::Movd, St::Xchg] {
        for &l in &[Ld::Mov8, Ld::Movq, Ld::Movaps, Ld::Cmpxchg8bFailed] {
            for f in [Fence::Not, Fence::Mfence, Fence::LockAdd] {
                let one = |n, at| {
                    thread(n, |t| {
                        t.store(s, at, 1);
                        t.fence(f);
                        t.load(l, X);
                    })
                };
                j.judge(&|| format!("SB in one word {s:?} {f:?} {l:?}"), &[one(0, X), one(1, X + 4)], &[]);
            }
        }
    }
    // Whole words against their parts.
    for &wide in &[St::Mov8, St::Push, St::Movq, St::Movaps, St::RepStosb, St::RepMovsb, St::Cmpxchg8b] {
        let writer = thread(0, |t| {
            t.store(wide, X, 1);
            t.store(St::Mov4, Y, 1);
        });
        let reader = thread(1, |t| {
            t.load(Ld::Mov4, Y);
            t.load(Ld::Mov1, X + 4);
            t.load(Ld::Mov1, X);
        });
        j.judge(&|| format!("MP, parts of {wide:?}"), &[writer, reader], &[]);
    }
    j.end();
}

/// The test can fail: without ordering every shape goes wrong, and so do a missing barrier and a failing compare-and-swap that is not
/// tried again.
#[test]
fn unordered_code_is_caught() {
    for (name, first, second) in [("MP", St::Mov4, Ld::Mov4), ("MP vector", St::Movaps, Ld::Movaps)] {
        let mut j = Judge { orderings: vec![Ordering::Plain], ..Judge::new() };
        let writer = thread(1, |t| {
            t.store(first, X, 1);
            t.store(first, Y, 1);
        });
        let reader = thread(0, |t| {
            t.load(second, Y);
            t.load(second, X);
        });
        j.judge(&|| name.into(), &[reader, writer], &[]);
        assert_eq!(j.wrong.len(), j.judged, "{name}");
    }
}

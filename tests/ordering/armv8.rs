//! The checker against what is known of Armv8: the outcomes the architecture manual and the papers on its memory model publish, and
//! the sequences that a model checker of others (herd7 with its aarch64 model) found to hold or to break.

use super::model::{Litmus, Look, Outcomes};
use super::run::Program;
use xrun::emit::int::{Dmb, Lse};
use xrun::emit::{Addr, Masm, Sz, X, ZR};

fn place(name: &str, thread: usize) -> u64 {
    match name {
        "x" => 0x1000,
        "y" => 0x2000,
        "s" => 0x3000,
        // One for each thread.
        "z" => 0x4000 + 0x1000 * thread as u64,
        _ => panic!("place {name}"),
    }
}

/// A thread from a line such as `stlr x; ldapr y`. Plain `ldr` and `str` are also what vector accesses are. What loads return goes to x10, x11, ...
///
/// A store stores 1, or what follows `=`. `.a`, `.d`, `.c`: address, data, or a branch depends on the last load. `casal` succeeds; `casal!` fails,
/// whatever it finds; `swpal?` and `casal?` give their result as loads do. `ldaxr; stlxr` stores what it read and 1 together.
fn thread(text: &str, number: usize, results: &mut Vec<Look>) -> Program {
    let mut m = Masm::new();
    let (at, v, status, spare) = (X(1), X(2), X(3), X(4));
    let mut result = X(9);
    for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let (op, rest) = part.split_once(' ').unwrap_or((part, ""));
        let (name, value) = rest.split_once('=').unwrap_or((rest, "1"));
        let (op, dependency) = op.split_once('.').unwrap_or((op, ""));
        let (op, seen) = op.strip_suffix('?').map_or((op, false), |o| (o, true));
        match op {
            "dmb" => {
                let kind = match name {
                    "ish" => Dmb::Ish,
                    "ishld" => Dmb::Ishld,
                    _ => Dmb::Ishst,
                };
                m.dmb(kind);
                continue;
            }
            "isb" => {
                m.word(0xd503_3fdf);
                continue;
            }
            _ => {}
        }
        m.mov_imm(at, place(name, number));
        m.mov_imm(v, value.parse().expect("a number"));
        match dependency {
            "a" => {
                m.eor(Sz::X, spare, result, result);
                m.add(Sz::X, at, at, spare);
            }
            "d" => {
                m.eor(Sz::X, spare, result, result);
                m.add(Sz::X, v, v, spare);
            }
            "c" => {
                let next = m.label();
                m.cbnz(Sz::X, result, next);
                m.bind(next);
            }
            _ => {}
        }
        let mut take = || {
            result = X(result.0 + 1);
            results.push(Look::X(number, result.0));
            result
        };
        let zero = Addr::Off(at, 0);
        match op {
            "ldr" => m.ldr(4, take(), zero),
            "ldapr" => m.ldapr(4, take(), at),
            "ldar" => m.ldar(4, take(), at),
            "str" => m.str(4, v, zero),
            "stlr" => m.stlr(4, v, at),
            "swpal" => m.lse(Lse::Swp, 4, v, if seen { take() } else { spare }, at),
            "ldaddal" => m.lse(Lse::Add, 4, v, if seen { take() } else { spare }, at),
            "stadd" => m.word(0xb820_001f | u32::from(v.0) << 16 | u32::from(at.0) << 5),
            "casal" | "casal!" => {
                let r = if seen { take() } else { spare };
                m.mov_imm(r, if op == "casal" { 0 } else { 77 });
                m.casal(4, r, v, at);
            }
            "ldaxr" => m.ldaxr(4, take(), at),
            "ldxr" => m.word(0x885f_7c00 | u32::from(at.0) << 5 | u32::from(take().0)),
            "stlxr" => m.stlxr(4, status, v, at),
            "stxr" => m.word(0x8800_7c00 | u32::from(status.0) << 16 | u32::from(at.0) << 5 | u32::from(v.0)),
            _ => panic!("instruction {op}"),
        }
    }
    m.mov(Sz::X, v, ZR);
    Program::new(m.finish().expect("labels are bound"))
}

fn outcomes(text: &str, memory: &str) -> Outcomes {
    let mut t = Litmus::default();
    for (n, line) in text.split('/').enumerate() {
        let p = thread(line, n, &mut t.looks);
        t.threads.push(p);
    }
    t.looks.extend(memory.split_whitespace().map(|name| Look::Memory(place(name, 0), 4)));
    t.outcomes()
}

/// Name; threads; places whose last value counts; the outcome: loads in order, then those; whether the architecture allows it.
const PUBLISHED: &[(&str, &str, &str, &[u64], bool)] = &[
    ("MP", "str x; str y / ldr y; ldr x", "", &[1, 0], true),
    ("MP in order", "str x; str y / ldr y; ldr x", "", &[1, 1], true),
    ("MP+dmb+po", "str x; dmb ish; str y / ldr y; ldr x", "", &[1, 0], true),
    ("MP+po+dmb", "str x; str y / ldr y; dmb ish; ldr x", "", &[1, 0], true),
    ("MP+dmbs", "str x; dmb ish; str y / ldr y; dmb ish; ldr x", "", &[1, 0], false),
    ("MP+dmb.st+dmb.ld", "str x; dmb ishst; str y / ldr y; dmb ishld; ldr x", "", &[1, 0], false),
    ("MP+dmb.ld+dmb.ld", "str x; dmb ishld; str y / ldr y; dmb ishld; ldr x", "", &[1, 0], true),
    ("MP+dmb+addr", "str x; dmb ish; str y / ldr y; ldr.a x", "", &[1, 0], false),
    ("MP+dmb+ctrl", "str x; dmb ish; str y / ldr y; ldr.c x", "", &[1, 0], true),
    ("MP+dmb+ctrl-isb", "str x; dmb ish; str y / ldr y; ldr.c z; isb; ldr x", "", &[1, 0, 0], false),
    ("MP+popl+poap", "str x; stlr y / ldar y; ldr x", "", &[1, 0], false),
    ("MP+popl+poqp", "str x; stlr y / ldapr y; ldr x", "", &[1, 0], false),
    ("MP+stlr first", "stlr x; str y / ldar y; ldr x", "", &[1, 0], true),
    ("SB", "str x; ldr y / str y; ldr x", "", &[0, 0], true),
    ("SB+dmbs", "str x; dmb ish; ldr y / str y; dmb ish; ldr x", "", &[0, 0], false),
    ("SB+dmb.sts", "str x; dmb ishst; ldr y / str y; dmb ishst; ldr x", "", &[0, 0], true),
    ("SB+dmb.lds", "str x; dmb ishld; ldr y / str y; dmb ishld; ldr x", "", &[0, 0], true),
    ("SB+stlr+ldar", "stlr x; ldar y / stlr y; ldar x", "", &[0, 0], false),
    ("SB+stlr+ldapr", "stlr x; ldapr y / stlr y; ldapr x", "", &[0, 0], true),
    ("SB+str+ldar", "str x; ldar y / str y; ldar x", "", &[0, 0], true),
    ("LB", "ldr x; str y / ldr y; str x", "", &[1, 1], true),
    ("LB+datas", "ldr x; str.d y / ldr y; str.d x", "", &[1, 1], false),
    ("LB+addrs", "ldr x; str.a y / ldr y; str.a x", "", &[1, 1], false),
    ("LB+ctrls", "ldr x; str.c y / ldr y; str.c x", "", &[1, 1], false),
    ("LB+data+po", "ldr x; str.d y / ldr y; str x", "", &[1, 1], true),
    ("LB+acqs", "ldapr x; str y / ldapr y; str x", "", &[1, 1], false),
    ("LB+rels", "ldr x; stlr y / ldr y; stlr x", "", &[1, 1], false),
    ("LB+addr-po", "ldr x; ldr.a z; str y / ldr y; ldr.a z; str x", "", &[1, 0, 1, 0], false),
    ("R", "str x; str y / str y=2; ldr x", "y", &[0, 2], true),
    ("R+dmbs", "str x; dmb ish; str y / str y=2; dmb ish; ldr x", "y", &[0, 2], false),
    ("R+dmb.st+dmb", "str x; dmb ishst; str y / str y=2; dmb ish; ldr x", "y", &[0, 2], false),
    ("R+dmb+po", "str x; dmb ish; str y / str y=2; ldr x", "y", &[0, 2], true),
    ("S", "str x=2; str y / ldr y; str x", "x", &[1, 2], true),
    ("S+dmb+data", "str x=2; dmb ish; str y / ldr y; str.d x", "x", &[1, 2], false),
    ("S+dmb+ctrl", "str x=2; dmb ish; str y / ldr y; str.c x", "x", &[1, 2], false),
    ("S+rel+acq", "str x=2; stlr y / ldar y; str x", "x", &[1, 2], false),
    ("2+2W", "str x=2; str y / str y=2; str x", "x y", &[2, 2], true),
    ("2+2W+dmb.sts", "str x=2; dmb ishst; str y / str y=2; dmb ishst; str x", "x y", &[2, 2], false),
    ("2+2W+rels", "str x=2; stlr y / str y=2; stlr x", "x y", &[2, 2], false),
    ("CoRR", "str x / ldr x; ldr x", "", &[1, 0], false),
    ("CoRR two writers", "str x / str x=2 / ldr x; ldr x / ldr x; ldr x", "", &[1, 2, 2, 1], false),
    ("CoWW", "str x; str x=2", "x", &[1], false),
    ("CoRW1", "ldr x; str x", "x", &[1, 1], false),
    ("CoWR", "str x; ldr x / str x=2", "x", &[2, 1], false),
    ("WRC", "str x / ldr x; str y / ldr y; ldr x", "", &[1, 1, 0], true),
    ("WRC+data+addr", "str x / ldr x; str.d y / ldr y; ldr.a x", "", &[1, 1, 0], false),
    ("WRC+po+addr", "str x / ldr x; str y / ldr y; ldr.a x", "", &[1, 1, 0], true),
    ("WRC+dmbs", "str x / ldr x; dmb ish; str y / ldr y; dmb ish; ldr x", "", &[1, 1, 0], false),
    ("IRIW", "str x / str y / ldr x; ldr y / ldr y; ldr x", "", &[1, 0, 1, 0], true),
    ("IRIW+acqs", "str x / str y / ldar x; ldr y / ldar y; ldr x", "", &[1, 0, 1, 0], false),
    ("IRIW+acqpcs", "stlr x / stlr y / ldapr x; ldapr y / ldapr y; ldapr x", "", &[1, 0, 1, 0], false),
    ("IRIW+addrs", "str x / str y / ldr x; ldr.a y / ldr y; ldr.a x", "", &[1, 0, 1, 0], false),
    ("ISA2", "str x; dmb ish; str y / ldr y; str.d s / ldr s; ldr.a x", "", &[1, 1, 0], false),
    // A store may be forwarded to a load of its own thread: PPOCA, and the same stopped by an address (PPOAA).
    ("PPOCA", "str x; dmb ish; str y / ldr y; str.c z; ldr z; ldr.a x", "", &[1, 1, 0], true),
    ("PPOAA", "str x; dmb ish; str y / ldr y; str.a z; ldr z; ldr.a x", "", &[1, 1, 0], false),
    // Atomics.
    ("two adds", "ldaddal x / ldaddal x", "x", &[1], false),
    ("a pair of exclusives lets nothing between", "ldxr x; stxr x / str x=2", "x", &[0, 1], false),
    ("a pair of exclusives, other after", "ldxr x; stxr x / str x=2", "x", &[0, 2], true),
    ("a pair of exclusives, other before", "ldxr x; stxr x / str x=2", "x", &[2, 1], true),
    ("no pair", "ldr x; str x / str x=2", "x", &[0, 1], true),
    ("swap is a full barrier", "swpal x; ldr y / swpal y; ldr x", "", &[0, 0], false),
    ("swap on another place", "str x; swpal z; ldr y / str y; swpal z; ldr x", "", &[0, 0], false),
    ("cas that succeeds", "str x; casal z; ldr y / str y; casal z; ldr x", "", &[0, 0], false),
    ("cas that fails", "str x; casal! z; ldr y / str y; casal! z; ldr x", "", &[0, 0], true),
    ("cas reads one value", "casal? x / casal? x", "x", &[0, 0, 1], false),
    ("add without a result acquires nothing", "str x; stadd y / ldr y; dmb ishld; ldr x", "", &[1, 0], true),
    ("MP, read by an add without a result", "str x; dmb ish; str y / stadd y=2; dmb ishld; ldr x", "y", &[0, 3], true),
    ("MP, read by an add with a result", "str x; dmb ish; str y / ldaddal y=2; ldr x", "y", &[0, 3], false),
];

#[test]
fn published_outcomes() {
    let mut wrong = Vec::new();
    for &(name, threads, memory, outcome, allowed) in PUBLISHED {
        let all = outcomes(threads, memory);
        assert!(!all.is_empty(), "{name}: no outcome at all");
        if all.contains(outcome) != allowed {
            wrong.push(format!(
                "{name}: {outcome:?} should be {}, of {all:?}",
                if allowed { "allowed" } else { "forbidden" }
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Message passing: what the second thread must not see. Its results are the last two.
const MP: &[u64] = &[1, 0];
const BOTH_0: &[u64] = &[0, 0];
const BOTH_1: &[u64] = &[1, 1];

/// Sequences for x86's order, as a checker of others judges them: whether the outcome x86 forbids never occurs. Results of atomics
/// are not looked at. The second thread is the first with x and y exchanged where it is not given.
const SEQUENCES: &[(&str, &str, &str, &[u64], bool)] = &[
    ("MP", "stlr x; stlr y / ldapr y; ldapr x", "", MP, true),
    ("MP with LDAR", "stlr x; stlr y / ldar y; ldar x", "", MP, true),
    ("MP vector store, flag", "stlr x; dmb ishst; str y / ldr y; dmb ishld; ldapr x", "", MP, true),
    ("MP vector store, data", "dmb ishst; str x; stlr y / ldapr y; ldr x; dmb ishld", "", MP, true),
    ("MP vector store without ISHST", "stlr x; str y / ldapr y; ldapr x", "", MP, false),
    ("MP vector load without ISHLD", "stlr x; stlr y / ldr y; ldapr x", "", MP, false),
    ("MP, first store an xchg", "swpal x; stlr y / ldapr y; ldapr x", "", MP, true),
    ("LB", "ldapr x; stlr y", "", BOTH_1, true),
    ("LB vector", "ldr x; dmb ishld; dmb ishst; str y", "", BOTH_1, true),
    ("LB, vector store after LDAPR", "ldapr x; dmb ishst; str y", "", BOTH_1, true),
    ("2+2W", "stlr x=2; stlr y", "x y", &[2, 2], true),
    ("2+2W vector", "dmb ishst; str x=2; dmb ishst; str y", "x y", &[2, 2], true),
    ("SB", "stlr x; ldapr y", "", BOTH_0, false),
    ("SB with MFENCE", "stlr x; dmb ish; ldapr y", "", BOTH_0, true),
    ("SB with MFENCE, vector store", "str x; dmb ish; ldapr y", "", BOTH_0, true),
    ("SB with MFENCE, vector load", "stlr x; dmb ish; ldr y", "", BOTH_0, true),
    ("SB with lock xadd on z", "stlr x; ldaddal z; ldapr y", "", BOTH_0, true),
    ("SB with lock xadd on z, plain load", "stlr x; ldaddal z; ldr y", "", BOTH_0, true),
    ("SB with lock xadd, vector store before", "dmb ishst; str x; ldaddal z; ldapr y", "", BOTH_0, true),
    ("SB with xchg as the store", "swpal x; ldapr y", "", BOTH_0, true),
    ("SB with xchg as the store, vector load", "swpal x; ldr y", "", BOTH_0, true),
    ("SB with cmpxchg as the store, success", "casal x; ldapr y", "", BOTH_0, true),
    ("SB with a cmpxchg on z, success, after STLR", "stlr x; casal z; ldapr y", "", BOTH_0, true),
    ("SB with a cmpxchg on z, failure, after STLR", "stlr x; casal! z; ldapr y", "", BOTH_0, true),
    ("SB with a failing cmpxchg on z after a vector store", "dmb ishst; str x; casal! z; ldapr y", "", BOTH_0, false),
    ("... mended", "dmb ishst; str x; casal! z; dmb ish; ldapr y", "", BOTH_0, true),
    ("SB with LL/SC on z after STLR", "stlr x; ldaxr z; stlxr z; ldapr y", "", &[0, 0, 0, 0], true),
    ("SB with LL/SC on z after a vector store", "str x; ldaxr z; stlxr z; ldapr y", "", &[0, 0, 0, 0], false),
    ("... mended", "str x; ldaxr z; stlxr z; dmb ish; ldapr y", "", &[0, 0, 0, 0], true),
    ("SB with xchg as the store by LL/SC", "ldaxr x; stlxr x; ldapr y", "", &[0, 0, 0, 0], false),
    ("... mended by LDAR", "ldaxr x; stlxr x; ldar y", "", &[0, 0, 0, 0], true),
    ("... mended by DMB ISH", "ldaxr x; stlxr x; dmb ish; ldapr y", "", &[0, 0, 0, 0], true),
];

#[test]
fn sequences_that_hold_or_break() {
    let mut wrong = Vec::new();
    for &(name, threads, memory, outcome, holds) in SEQUENCES {
        let exchanged: String = threads
            .chars()
            .map(|c| {
                if c == 'x' {
                    'y'
                } else if c == 'y' {
                    'x'
                } else {
                    c
                }
            })
            .collect();
        // Names of instructions have an x too.
        let exchanged = exchanged.replace("ldayr", "ldaxr").replace("stlyr", "stlxr");
        let text = if threads.contains('/') { threads.into() } else { format!("{threads} / {exchanged}") };
        let all = outcomes(&text, memory);
        if all.contains(outcome) == holds {
            wrong.push(format!("{name}: {outcome:?} {}, of {all:?}", if holds { "occurs" } else { "does not occur" }));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One more surprise: what a failing compare-and-swap itself reads may be older than a vector store before it. A barrier after it
/// does not help; one before it does, and so does trying again after one.
#[test]
fn failing_compare_and_swap_reads_early() {
    let sees = |first: &str| {
        outcomes(&format!("{first} / stlr y; dmb ish; ldapr x"), "").iter().any(|o| o[0] == 0 && o[o.len() - 1] == 0)
    };
    assert!(sees("dmb ishst; str x; casal!? y"));
    assert!(sees("dmb ishst; str x; casal!? y; dmb ish"));
    assert!(!sees("dmb ishst; str x; dmb ish; casal!? y"));
    assert!(!sees("stlr x; casal!? y"));
    let again = outcomes("dmb ishst; str x; casal! y; dmb ish; casal!? y / stlr y; dmb ish; ldapr x", "");
    assert!(!again.contains(BOTH_0));
}

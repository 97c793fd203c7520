//! The instruction set as a table for people: `xrun isa`, and the page `docs/isa.md` made of it. What is there is read off the rows; what is not is told
//! by the extension it belongs to.

use super::{FAMILIES, row};
use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Mnemonics whose row leaves something out, and what.
#[rustfmt::skip]
const PARTIAL: &[(Mnemonic, &str)] = &[
    (Mnemonic::Jmp, "not to 32-bit code segments"),
    (Mnemonic::Call, "not to 32-bit code segments"),
    (Mnemonic::Retf, "not to 32-bit code segments"),
    (Mnemonic::Iret, "not to 32-bit code segments"),
    (Mnemonic::Iretd, "not to 32-bit code segments"),
    (Mnemonic::Iretq, "not to 32-bit code segments"),
    (Mnemonic::Aesenc, "only on hosts with AES instructions"),
    (Mnemonic::Aesenclast, "only on hosts with AES instructions"),
    (Mnemonic::Aesdec, "only on hosts with AES instructions"),
    (Mnemonic::Aesdeclast, "only on hosts with AES instructions"),
    (Mnemonic::Aesimc, "only on hosts with AES instructions"),
    (Mnemonic::Aeskeygenassist, "only on hosts with AES instructions"),
    (Mnemonic::Gf2p8affineinvqb, "only on hosts with AES instructions"),
    (Mnemonic::Vgf2p8affineinvqb, "only on hosts with AES instructions"),
    (Mnemonic::Pclmulqdq, "only on hosts with PMULL"),
];

/// What a row leaves out, if anything.
pub fn partial(m: Mnemonic) -> Option<&'static str> {
    PARTIAL.iter().find(|(p, _)| *p == m).map(|(_, why)| *why)
}

/// Why `code`'s mnemonic has no row.
fn absent(code: Code) -> &'static str {
    use CpuidFeature as F;
    if matches!(code.encoding(), EncodingKind::EVEX) {
        return "AVX-512 and later: not done";
    }
    if matches!(code.encoding(), EncodingKind::XOP | EncodingKind::D3NOW | EncodingKind::MVEX) {
        return "in no CPU made today";
    }
    match code.cpuid_features().first() {
        Some(
            F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::INTEL8086_ONLY | F::FPU287XL_ONLY,
        ) => "no instruction of 64-bit mode",
        Some(F::VMX | F::SVM | F::SMX | F::SEV_ES | F::SEV_SNP) => "virtual machines: not for programs",
        Some(F::FMA4 | F::TBM | F::SSE4A | F::LWP | F::XOP | F::CYRIX_FPU | F::CYRIX_EMMI | F::MPX) => {
            "in no CPU made today"
        }
        _ if code.is_privileged() => "privileged, and not announced",
        _ if code.encoding() == EncodingKind::VEX => "not done",
        _ => "not announced",
    }
}

/// Mnemonics without a row by the reason, each once, sorted.
fn absentees() -> BTreeMap<&'static str, Vec<String>> {
    let mut seen = vec![false; super::MNEMONICS];
    let mut groups: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for code in Code::values() {
        let m = code.mnemonic();
        if m != Mnemonic::INVALID && row(m).is_none() && !std::mem::replace(&mut seen[m as usize], true) {
            groups.entry(absent(code)).or_default().push(name(m));
        }
    }
    groups.values_mut().for_each(|v| v.sort());
    groups
}

fn name(m: Mnemonic) -> String {
    format!("{m:?}").to_uppercase()
}

/// What `xrun isa` prints: mnemonic, family, state.
pub fn listing() -> String {
    let mut out = String::new();
    for row in FAMILIES.iter().flat_map(|f| *f) {
        let state = partial(row.mnemonic).map_or_else(|| "yes".to_string(), |why| format!("partial: {why}"));
        let _ = writeln!(out, "{:18} {:14} {state}", name(row.mnemonic), row.family);
    }
    for (why, names) in absentees() {
        for n in names {
            let _ = writeln!(out, "{n:18} {:14} no: {why}", "-");
        }
    }
    out
}

/// `docs/isa.md`.
pub fn page() -> String {
    let mut out = String::from(
        "# Instructions\n\nMade by `BLESS=1 cargo test --test isa`; `xrun isa` prints the same as lines. Each family is a file under `src/isa`.\n\n\
         | family | instructions | |\n|---|---|---|\n",
    );
    let mut families: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in FAMILIES.iter().flat_map(|f| *f) {
        families.entry(row.family).or_default().push(name(row.mnemonic));
    }
    for (family, names) in &mut families {
        names.sort();
        let _ = writeln!(out, "| {family} | {} | {} |", names.len(), names.join(" "));
    }
    out += "\n## Partly\n\n| instruction | |\n|---|---|\n";
    for (m, why) in PARTIAL.iter().filter(|(m, _)| row(*m).is_some()) {
        let _ = writeln!(out, "| {} | {why} |", name(*m));
    }
    out += "\n## Not there\n\nThey raise #UD, and xrun says which bytes it met.\n\n| reason | instructions | |\n|---|---|---|\n";
    for (why, names) in absentees() {
        let _ = writeln!(out, "| {why} | {} | {} |", names.len(), names.join(" "));
    }
    out += DIFFERS;
    out
}

const DIFFERS: &str = "
## What differs from the CPU

- Flags in a signal frame: those that nothing reads before they are overwritten are not kept, so a handler that looks at EFLAGS finds older ones there.
- MXCSR.DE is set on hosts with FEAT_AFP only, or when denormals are zeros; an unmasked denormal exception is raised there only.
- An unmasked underflow exception is raised when the result is inexact too.
- Single steps (TF): there is a trap after SYSCALL too, which the CPU leaves out.
- Where an unmasked exception found before an operation keeps the CPU from the operation, flags of it (OE UE PE) may be set all the same, from other lanes.
- With MXCSR.FTZ, a result that is tiny until it is rounded, to the smallest normal number, becomes zero on hosts without FEAT_AFP.
- A fused multiplication of infinity by zero with a quiet NaN to add gives that NaN, but sets MXCSR.IE too, while no exception is unmasked.
- A conversion of a double to 32 bits that is out of range only when it is rounded may set MXCSR.PE beside IE, while no exception is unmasked.
- A branch to an address that is not canonical faults where it leads and not where it is, and bit 63 of a return address does not count.
- MXCSR.DAZ without FTZ, or FTZ without DAZ, have an effect on hosts with FEAT_AFP only. Others have one bit for both (FPCR.FZ), which is set when both
  are; with one of them alone denormal operands count as they are and denormal results stay. Code that looks at each operand or result would be
  several words longer for each, so there is none.
- RCPPS, RSQRTPS and the last place of x87's transcendental functions: each CPU model has its own.
- FOP, FIP and FDP show what was last loaded.
";

//! Which CPUID bit announces an extension, and what the CPU under this process announces.

use iced_x86::{Code, CpuidFeature as F};

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;
const EXTENDED: u32 = 0x8000_0001;
/// Leaf 7, subleaf 1.
const SEVEN_1: u32 = 7 | 1 << 16;

/// The CPUID bit that announces an extension; `None` for what every 64-bit CPU executes.
#[rustfmt::skip]
fn bit(f: F) -> Option<(u32, usize, u32)> {
    Some(match f {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 | F::MULTIBYTENOP | F::PAUSE
        | F::FPU287 | F::FPU387 | F::CPUID => return None,
        // A CPU without it executes ENDBR as a NOP (SDM vol. 1, 17.3).
        F::CET_IBT => return None,
        F::FPU => (1, EDX, 0), F::TSC => (1, EDX, 4), F::CX8 => (1, EDX, 8), F::CMOV => (1, EDX, 15), F::CLFSH => (1, EDX, 19),
        F::MMX => (1, EDX, 23), F::FXSR => (1, EDX, 24), F::SSE => (1, EDX, 25), F::SSE2 => (1, EDX, 26), F::SSE3 => (1, ECX, 0),
        F::PCLMULQDQ => (1, ECX, 1), F::SSSE3 => (1, ECX, 9), F::FMA => (1, ECX, 12), F::CMPXCHG16B => (1, ECX, 13),
        F::SSE4_1 => (1, ECX, 19), F::SSE4_2 => (1, ECX, 20), F::MOVBE => (1, ECX, 22), F::POPCNT => (1, ECX, 23),
        F::AES => (1, ECX, 25), F::XSAVE => (1, ECX, 27), F::AVX => (1, ECX, 28), F::F16C => (1, ECX, 29), F::RDRAND => (1, ECX, 30),
        F::FSGSBASE => (7, EBX, 0), F::BMI1 => (7, EBX, 3), F::AVX2 => (7, EBX, 5), F::BMI2 => (7, EBX, 8),
        F::RDSEED => (7, EBX, 18), F::ADX => (7, EBX, 19), F::CLFLUSHOPT => (7, EBX, 23), F::CLWB => (7, EBX, 24), F::SHA => (7, EBX, 29),
        F::GFNI => (7, ECX, 8), F::VAES => (7, ECX, 9), F::VPCLMULQDQ => (7, ECX, 10), F::RDPID => (7, ECX, 22), F::CLDEMOTE => (7, ECX, 25),
        F::MOVDIRI => (7, ECX, 27), F::MOVDIR64B => (7, ECX, 28), F::SERIALIZE => (7, EDX, 14),
        F::AVX_VNNI => (SEVEN_1, EAX, 4),
        F::LZCNT => (EXTENDED, ECX, 5), F::PREFETCHW => (EXTENDED, ECX, 8), F::SYSCALL => (EXTENDED, EDX, 11), F::RDTSCP => (EXTENDED, EDX, 27),
        // Never announced.
        _ => (0, 0, 32),
    })
}

/// An extension `code` belongs to that the CPU whose CPUID gives these answers does not announce.
pub fn missing(code: Code, cpuid: impl Fn(u32, u32) -> [u32; 4]) -> Option<F> {
    code.cpuid_features().iter().copied().find(|&f| {
        bit(f).is_some_and(|(leaf, register, bit)| {
            let (leaf, subleaf) = if leaf == SEVEN_1 { (7, 1) } else { (leaf, 0) };
            bit == 32 || cpuid(leaf, subleaf)[register] >> bit & 1 == 0
        })
    })
}

/// CPUID of the CPU under this process.
#[cfg(target_arch = "x86_64")]
pub fn native(leaf: u32, subleaf: u32) -> [u32; 4] {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let subleaves = |leaf: u32| __cpuid_count(leaf, 0).eax;
    if leaf > __cpuid(leaf & 0x8000_0000).eax || leaf == 7 && subleaf > subleaves(7) {
        return [0; 4];
    }
    let r = __cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// Whether the CPU under this process is an x86 one of another maker than the translator's CPUID names.
pub fn other_maker() -> bool {
    #[cfg(target_arch = "x86_64")]
    return native(0, 0)[1..] != xrun::isa::cpuid::cpuid(0, 0)[1..];
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Why the CPU under this process cannot say what `code` does in the translator's; `None` where it can.
#[cfg(target_arch = "x86_64")]
pub fn unknown_here(code: Code) -> Option<String> {
    match missing(code, native) {
        Some(f) => Some(format!("{f:?} is not in this CPU")),
        None if super::forms::by_maker(code) && other_maker() => Some("another maker's CPU".into()),
        None => None,
    }
}

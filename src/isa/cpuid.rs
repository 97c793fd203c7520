//! CPUID (SDM vol. 2, CPUID): what this CPU says of itself. A feature is claimed exactly when the instructions it stands for have rows, so the answer cannot
//! drift from what is implemented. The model is a plain x86-64 one without an FSB or a cache of its own: those are a common laptop's, for programs that
//! size buffers by them.

use super::row;
use iced_x86::Mnemonic::{self, *};
use xrun_runtime::helpers::xsave;

/// Register index in the answer.
const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// One feature bit and the instructions that stand for it.
struct Feature {
    leaf: u32,
    /// Of leaf 7.
    subleaf: u32,
    register: usize,
    bit: u32,
    needs: &'static [Mnemonic],
}

const fn feature(leaf: u32, register: usize, bit: u32, needs: &'static [Mnemonic]) -> Feature {
    Feature { leaf, subleaf: 0, register, bit, needs }
}

/// In leaf 7's subleaf 1.
const fn feature_7_1(register: usize, bit: u32, needs: &'static [Mnemonic]) -> Feature {
    Feature { leaf: 7, subleaf: 1, register, bit, needs }
}

const EXTENDED: u32 = 0x8000_0001;

#[rustfmt::skip]
const FEATURES: &[Feature] = &[
    feature(1, EDX, 0, &[Fld, Fst, Fadd, Fsin, Fxam]),                    // FPU
    feature(1, EDX, 4, &[Rdtsc]),                                         // TSC
    feature(1, EDX, 8, &[Cmpxchg8b]),                                     // CX8
    feature(1, EDX, 15, &[Cmove, Cmovg]),                                 // CMOV
    feature(1, EDX, 19, &[Clflush]),                                      // CLFSH
    feature(1, EDX, 23, &[Paddb, Pmaddwd]),                               // MMX
    feature(1, EDX, 24, &[Fxsave, Fxrstor]),                              // FXSR
    feature(1, EDX, 25, &[Addps, Shufps, Ldmxcsr]),                       // SSE
    feature(1, EDX, 26, &[Addpd, Paddq, Cvtsd2si]),                       // SSE2
    feature(1, ECX, 0, &[Addsubpd, Haddps, Lddqu, Movddup]),              // SSE3
    feature(1, ECX, 1, &[Pclmulqdq]),
    feature(1, ECX, 9, &[Pshufb, Palignr, Pmaddubsw, Psignb]),            // SSSE3
    feature(1, ECX, 12, &[Vfmadd132ps, Vfnmsub231sd, Vfmaddsub213pd, Xgetbv]), // FMA
    feature(1, ECX, 13, &[Cmpxchg16b]),
    feature(1, ECX, 19, &[Pblendvb, Roundsd, Ptest, Dpps, Mpsadbw]),      // SSE4.1
    feature(1, ECX, 20, &[Pcmpistri, Pcmpestrm, Pcmpgtq, Crc32]),         // SSE4.2
    feature(1, ECX, 22, &[Movbe]),
    feature(1, ECX, 23, &[Popcnt]),
    feature(1, ECX, 25, &[Aesenc, Aesdeclast, Aesimc, Aeskeygenassist]),
    feature(1, ECX, 26, &[Xsave, Xrstor]),                                // XSAVE
    feature(1, ECX, 27, &[Xsave, Xrstor, Xgetbv]),                        // OSXSAVE
    feature(1, ECX, 28, &[Vaddps, Vperm2f128, Vmaskmovps, Vzeroupper, Xgetbv]), // AVX
    feature(1, ECX, 29, &[Vcvtph2ps, Vcvtps2ph, Xgetbv]),                 // F16C
    feature(1, ECX, 30, &[Rdrand]),
    feature(7, EBX, 0, &[Rdfsbase, Wrgsbase]),                            // FSGSBASE
    feature(7, EBX, 3, &[Andn, Bextr, Blsi, Blsr, Blsmsk, Tzcnt]),        // BMI1
    feature(7, EBX, 5, &[Vpaddw, Vpermd, Vpgatherdd, Vpsllvd, Xgetbv]),   // AVX2
    feature(7, EBX, 8, &[Bzhi, Mulx, Pdep, Pext, Rorx, Sarx]),            // BMI2
    feature(7, EBX, 9, &[Movsb, Stosb]),                                  // ERMS
    feature(7, EBX, 18, &[Rdseed]),
    feature(7, EBX, 19, &[Adcx, Adox]),                                   // ADX
    feature(7, EBX, 23, &[Clflushopt]),
    feature(7, EBX, 24, &[Clwb]),
    feature(7, EBX, 29, &[Sha1rnds4, Sha256rnds2]),                       // SHA
    feature(7, ECX, 8, &[Gf2p8mulb, Gf2p8affineqb, Vgf2p8affineinvqb]),   // GFNI
    feature(7, ECX, 9, &[Vaesenc, Vaesdeclast, Xgetbv]),                  // VAES
    feature(7, ECX, 10, &[Vpclmulqdq, Xgetbv]),
    feature(7, ECX, 22, &[Rdpid]),
    feature(7, ECX, 25, &[Cldemote]),
    feature(7, ECX, 27, &[Movdiri]),
    feature(7, ECX, 28, &[Movdir64b]),
    feature(7, EDX, 14, &[Serialize]),
    feature_7_1(EAX, 4, &[Vpdpbusd, Vpdpwssds]),                          // AVX-VNNI
    feature(EXTENDED, ECX, 0, &[Lahf, Sahf]),
    feature(EXTENDED, ECX, 5, &[Lzcnt]),
    feature(EXTENDED, ECX, 8, &[Prefetchw]),
    feature(EXTENDED, EDX, 11, &[Syscall]),
    feature(EXTENDED, EDX, 27, &[Rdtscp]),
];

/// Highest basic leaf, of extended state. Leaf 0xB describes topology, which there is none of.
const MAX_LEAF: u32 = 0xd;
const MAX_EXTENDED: u32 = 0x8000_0008;
/// Family 6, model 0x3c, stepping 3 (Haswell), the model x86-64-v3 was named after.
const SIGNATURE: u32 = 0x0003_06c3;
const VENDOR: &[u8; 12] = b"GenuineIntel";
const BRAND: &[u8; 48] = b"xrun x86-64 processor\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const LINE: u32 = 64;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// EAX, EBX, ECX, EDX for a leaf and subleaf. A basic leaf past the last is answered as the last (SDM vol. 2, CPUID).
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let leaf = match leaf {
        0..=MAX_LEAF | 0x8000_0000..=MAX_EXTENDED => leaf,
        _ => MAX_LEAF,
    };
    let mut r = [0; 4];
    match leaf {
        0 => r = [MAX_LEAF, word(VENDOR, 0), word(VENDOR, 8), word(VENDOR, 4)],
        // EBX: CLFLUSH line in units of 8 bytes, one logical processor.
        1 => r = [SIGNATURE, (LINE / 8) << 8 | 1 << 16, 0, 0],
        // The caches are described by leaf 4.
        2 => r = [0x00ff_0001, 0, 0, 0],
        4 => r = cache(subleaf),
        // The last subleaf.
        7 if subleaf == 0 => r[EAX] = 1,
        0xd => r = extended_state(subleaf),
        0x8000_0000 => r = [MAX_EXTENDED, 0, 0, 0],
        // Long mode and no-execute, which running at all implies.
        EXTENDED => r[EDX] = 1 << 29 | 1 << 20,
        0x8000_0002..=0x8000_0004 => {
            let from = (leaf - 0x8000_0002) as usize * 16;
            r = [0, 4, 8, 12].map(|n| word(BRAND, from + n));
        }
        // L2: 1 MiB, 8-way, in KiB.
        0x8000_0006 => r[ECX] = 1024 << 16 | 6 << 12 | LINE,
        // 40 physical and 48 linear address bits.
        0x8000_0008 => r[EAX] = 48 << 8 | 40,
        _ => {}
    }
    // Programs ask for other leaves more often.
    if matches!(leaf, 1 | 7 | EXTENDED) {
        for f in FEATURES.iter().filter(|f| f.leaf == leaf && (leaf != 7 || f.subleaf == subleaf)) {
            if f.needs.iter().all(|&m| row(m).is_some()) {
                r[f.register] |= 1 << f.bit;
            }
        }
    }
    r
}

/// Leaf 0xD (SDM vol. 1, 13.2): subleaf 0 the components and the size of all, 1 the instructions there are and the size of the compacted form, 2 AVX state.
fn extended_state(subleaf: u32) -> [u32; 4] {
    const XSAVEOPT_XSAVEC_XGETBV1: u32 = 7;
    let size = xsave::SIZE as u32;
    match subleaf {
        0 => [xsave::XCR0 as u32, size, size, (xsave::XCR0 >> 32) as u32],
        1 => [XSAVEOPT_XSAVEC_XGETBV1, size, 0, 0],
        2 => [xsave::AVX_SIZE as u32, xsave::AVX_OFFSET as u32, 0, 0],
        _ => [0; 4],
    }
}

/// Leaf 4: level 1 data and instruction, level 2, level 3.
fn cache(subleaf: u32) -> [u32; 4] {
    // Type (1 data, 2 instruction, 3 unified), level, ways, size in bytes.
    let (kind, level, ways, size) = match subleaf {
        0 => (1, 1, 8, 32 << 10),
        1 => (2, 1, 8, 32 << 10),
        2 => (3, 2, 8, 1 << 20),
        3 => (3, 3, 16, 8 << 20),
        _ => return [0; 4],
    };
    // Self-initialising; each field but the type and level holds its value minus one.
    [kind | level << 5 | 1 << 8, (ways - 1) << 22 | (LINE - 1), size / (ways * LINE) - 1, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendor_reads_as_it_should() {
        let [_, b, c, d] = cpuid(0, 0);
        let text: Vec<u8> = [b, d, c].into_iter().flat_map(u32::to_le_bytes).collect();
        assert_eq!(text, VENDOR);
    }

    #[test]
    fn a_level_one_cache_is_32_kib() {
        let [_, b, c, _] = cpuid(4, 0);
        assert_eq!(((b >> 22) + 1) * ((b & 0xfff) + 1) * (c + 1), 32 << 10);
    }

    #[test]
    fn no_feature_is_claimed_twice() {
        for (n, f) in FEATURES.iter().enumerate() {
            assert!(
                FEATURES[..n]
                    .iter()
                    .all(|g| (g.leaf, g.subleaf, g.register, g.bit) != (f.leaf, f.subleaf, f.register, f.bit))
            );
        }
    }
}

//! Which A64 instructions write memory, for hosts (emulators, mostly) whose signal frame does not say whether a fault was a
//! write. Looks at one word; the encodings are those of the Arm ARM, C4.1.94 "Loads and Stores".

/// Whether the instruction `word` writes memory, if it accesses any.
pub fn writes(word: u32) -> bool {
    let bit = |n: u32| word >> n & 1 != 0;
    let bits = |hi: u32, lo: u32| word >> lo & ((1 << (hi - lo + 1)) - 1);
    // DC ZVA: a system instruction.
    if word & 0xffff_ffe0 == 0xd50b_7420 {
        return true;
    }
    // op0: x1x0 at bits 28 to 25.
    if !bit(27) || bit(25) {
        return false;
    }
    match bits(29, 24) {
        // Exclusive and ordered; CAS and CASP have bit 21 set without being pairs of exclusives.
        0b001000 => {
            let cas = bit(21) && (bit(23) || !bit(31)) && bits(14, 10) == 0b11111;
            cas || !bit(22)
        }
        // Vector structures.
        0b001100 | 0b001101 => !bit(22),
        // LDAPUR, STLUR: opc 00 stores.
        0b011001 => bits(23, 22) == 0,
        // Literal loads, PRFM.
        0b011000 | 0b011100 => false,
        // Pairs.
        0b101000 | 0b101001 | 0b101100 | 0b101101 => !bit(22),
        // Single registers.
        0b111000 | 0b111100 | 0b111001 | 0b111101 => {
            let vector = bit(26);
            // Atomic operations: all write but LDAPR.
            if !vector && !bit(24) && bit(21) && bits(11, 10) == 0 {
                return word & 0x3fff_fc00 != 0x38bf_c000;
            }
            if vector { !bit(22) } else { bits(23, 22) == 0 }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as GNU as encodes them: STLXR STXP STLR STLLR CAS CASAL CASPAL LDADD SWPAL LDCLRB STP STNP STR STRB STRH STUR ST1
    /// ST4 STLUR DC ZVA.
    const STORES: &[u32] = &[
        0xc801fc62, 0xc8210c82, 0xc89ffc41, 0xc89f7c41, 0xc8a17c62, 0x88e1fc62, 0x4860fc82, 0xf8210062, 0xf8e18062,
        0x38211062, 0xa9000861, 0xac810861, 0xa8000861, 0xf9000041, 0xb8236841, 0x38004c41, 0x78004441, 0xf81f8041,
        0x3d800041, 0x3d000041, 0xfc237841, 0x3c9f8041, 0x4c007041, 0x0d009041, 0x4c9f0041, 0xd91f8041, 0xd50b7421,
    ];
    /// LDXR LDAXP LDAR LDAPR LDAPRB LDP LDPSW LDR LDRSW LDRSB LDRSH LDUR, LDR literal, LD1 LD1R LDAPUR LDAPURSW; ADD.
    const OTHERS: &[u32] = &[
        0xc85f7c41, 0xc87f8861, 0xc8dffc41, 0xf8bfc041, 0x38bfc041, 0xa9400861, 0xad400861, 0x69400861, 0xf9400041,
        0xb9800041, 0x39c00041, 0x78802c41, 0xb8636841, 0x3dc00041, 0x3d400041, 0xfc5f8041, 0x58000001, 0x4c407041,
        0x4d40c441, 0x0d409041, 0xd95f8041, 0x999f8041, 0x8b030041, 0,
    ];

    #[test]
    fn tells_stores_from_loads() {
        for &w in STORES {
            assert!(writes(w), "{w:#010x}");
        }
        for &w in OTHERS {
            assert!(!writes(w), "{w:#010x}");
        }
    }
}

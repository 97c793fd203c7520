//! Ordered accesses that turn out to be unaligned. x86 orders every access; AArch64's acquire and release forms demand alignment (before
//! FEAT_LSE2 of every access, with it of those that cross 16 bytes: Arm ARM, B2.2.1, D1.3.8). Nearly all accesses are aligned, so
//! translated code uses those forms, and the first fault replaces the one instruction by a jump to the form that always works:
//! a plain access with the barrier that vector accesses have (load; DMB ISHLD, and DMB ISHST; store).

use super::branch;

const DMB_ISHLD: u32 = 0xd503_39bf;
const DMB_ISHST: u32 = 0xd503_3abf;
/// Size of the unscaled immediate forms: bits 31-30.
const SIZE: u32 = 3 << 30;

/// The words that do at `stub` what the acquire load or release store `word` does, and then go on at `back`. `None` when `word` is
/// no such instruction, or `back` is out of reach.
pub fn stub(word: u32, stub: u64, back: u64) -> Option<[u32; 3]> {
    let (load, offset) = decode(word)?;
    let registers = word & 0x3ff;
    // LDUR and STUR (Arm ARM, C4.1, "Load/store register (unscaled immediate)").
    let plain = word & SIZE | if load { 0x3840_0000 } else { 0x3800_0000 } | offset << 12 | registers;
    let jump = branch::b((back as i64 - (stub as i64 + 8)) >> 2)?;
    Some(if load { [plain, DMB_ISHLD, jump] } else { [DMB_ISHST, plain, jump] })
}

/// (whether it loads, its nine-bit offset) of LDAR, LDAPR, LDAPUR, STLR or STLUR, of any size, zero-extending.
fn decode(word: u32) -> Option<(bool, u32)> {
    match word & 0x3fff_fc00 {
        0x08df_fc00 | 0x38bf_c000 => return Some((true, 0)),
        0x089f_fc00 => return Some((false, 0)),
        _ => {}
    }
    let offset = word >> 12 & 0x1ff;
    match word & 0x3fe0_0c00 {
        0x1940_0000 => Some((true, offset)),
        0x1900_0000 => Some((false, offset)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words from the assembler: `ldapr x1, [x2]` and so on.
    #[test]
    fn forms() {
        let jump_at = |s: [u32; 3]| branch::b((0x9000 - 0x8008) >> 2) == Some(s[2]);
        let s = |w| stub(w, 0x8000, 0x9000).unwrap();
        // ldapr x1, [x2] -> ldur x1, [x2]
        assert_eq!(s(0xf8bf_c041)[..2], [0xf840_0041, DMB_ISHLD]);
        // ldarh w3, [x4] -> ldurh w3, [x4]
        assert_eq!(s(0x48df_fc83)[..2], [0x7840_0083, DMB_ISHLD]);
        // ldapur w5, [x6, #-4] -> ldur w5, [x6, #-4]
        assert_eq!(s(0x995f_c0c5)[..2], [0xb85f_c0c5, DMB_ISHLD]);
        // stlr x7, [x8] -> stur x7, [x8]
        assert_eq!(s(0xc89f_fd07)[..2], [DMB_ISHST, 0xf800_0107]);
        // stlurb w9, [x10, #255] -> sturb w9, [x10, #255]
        assert_eq!(s(0x190f_f149)[..2], [DMB_ISHST, 0x380f_f149]);
        assert!(jump_at(s(0xf8bf_c041)));
        // ldr, casal, ldaxr, stlxr
        for w in [0xf940_0041, 0xc8e1_fc43, 0xc85f_fc41, 0xc803_fc41] {
            assert_eq!(stub(w, 0x8000, 0x9000), None);
        }
    }
}

//! The host instructions the cache patches: reading and changing the target of a branch (Arm ARM, C4.1 "Branches").

/// `brk #DEAD`: stands at every entry of a region that must not run any more.
pub const DEAD: u32 = brk(0x7801);
/// `brk #TAIL`: stands in for a register branch while a thread is being stopped.
pub const TAIL: u32 = brk(0x7802);

const fn brk(imm: u32) -> u32 {
    0xd420_0000 | imm << 5
}

/// `word` with its target moved to `delta` words from itself; `None` when that is out of the instruction's reach or `word` is no
/// branch to a fixed address.
pub fn retarget(word: u32, delta: i64) -> Option<u32> {
    let field = |bits: u32, shift: u32| {
        let limit = 1i64 << (bits - 1);
        if delta < -limit || delta >= limit {
            return None;
        }
        let mask = ((1u32 << bits) - 1) << shift;
        Some(word & !mask | (delta as u32) << shift & mask)
    };
    if word & 0x7c00_0000 == 0x1400_0000 {
        field(26, 0) // B, BL
    } else if word & 0xff00_0000 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 {
        field(19, 5) // B.cond, CBZ, CBNZ
    } else if word & 0x7e00_0000 == 0x3600_0000 {
        field(14, 5) // TBZ, TBNZ
    } else {
        None
    }
}

/// `b` over `delta` words.
pub fn b(delta: i64) -> Option<u32> {
    retarget(0x1400_0000, delta)
}

/// The register a BR, BLR or RET jumps to.
pub fn register_target(word: u32) -> Option<u32> {
    (word & 0xff9f_fc1f == 0xd61f_0000 && word >> 21 & 3 != 3).then_some(word >> 5 & 31)
}

/// Whether `word` after `before` calls or jumps to a thunk: `ldr x8, [x28, #n]` and a branch to x8.
pub fn is_thunk_call(before: u32, word: u32) -> bool {
    before & 0xffc0_03ff == 0xf940_0388 && register_target(word) == Some(8)
}

/// Whether control never goes on to the next word: B and the register branches.
pub fn ends_straight_line(word: u32) -> bool {
    word & 0xfc00_0000 == 0x1400_0000 || register_target(word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Words as `aarch64-linux-gnu-as` gives them.
    #[test]
    fn fixed_branches_move() {
        assert_eq!(retarget(0x1400_0000, 2), Some(0x1400_0002)); // b .+8
        assert_eq!(retarget(0x9400_0002, -1), Some(0x97ff_ffff)); // bl .-4
        assert_eq!(retarget(0x5400_0040, 4), Some(0x5400_0080)); // b.eq .+8 -> .+16
        assert_eq!(retarget(0xb400_0040, -2), Some(0xb4ff_ffc0)); // cbz x0, .+8 -> .-8
        assert_eq!(retarget(0x3500_0041, 1), Some(0x3500_0021)); // cbnz w1
        assert_eq!(retarget(0xb7f8_0043, 3), Some(0xb7f8_0063)); // tbnz x3, #63
        assert_eq!(retarget(0x3600_0040, 1 << 13), None);
        assert_eq!(retarget(0x5400_0040, 1 << 18), None);
        assert_eq!(retarget(0x1400_0000, -(1 << 25)), Some(0x1600_0000));
        assert_eq!(retarget(0xd503_201f, 1), None); // nop
    }

    #[test]
    fn register_branches_are_known() {
        assert_eq!(register_target(0xd61f_0120), Some(9)); // br x9
        assert_eq!(register_target(0xd63f_0100), Some(8)); // blr x8
        assert_eq!(register_target(0xd65f_03c0), Some(30)); // ret
        assert_eq!(register_target(0xd65f_0060), Some(3)); // ret x3
        assert_eq!(register_target(0xd503_201f), None);
        assert!(is_thunk_call(0xf940_7788, 0xd63f_0100)); // ldr x8, [x28, #232]; blr x8
        assert!(!is_thunk_call(0xf940_7788, 0xd63f_0120));
        assert!(ends_straight_line(0x1400_0000) && !ends_straight_line(0x9400_0000));
    }
}

//! What the tables decode is what iced decodes.

use super::*;
use crate::guest::flags::Traits;
use iced_x86::{Decoder, DecoderOptions};

/// What a scan says of an instruction that was decoded is what that says. True if it says anything.
fn scans(bytes: &[u8; READABLE], i: &Instruction) -> bool {
    let traits = Traits::of(i);
    let Some(s) = scan(bytes) else { return false };
    assert_eq!((s.len, s.traits), (i.len(), traits), "{bytes:02x?}");
    let branch = i.op0_kind() == OpKind::NearBranch64;
    assert_eq!(s.branch, branch.then(|| i.near_branch64().wrapping_sub(i.next_ip()) as i64), "{bytes:02x?}");
    true
}

/// Every opcode with every ModRM, under every combination of prefixes that is taken here and some that are not: what is decoded is what iced
/// decodes, in all bits.
#[test]
fn equals_iced() {
    let before: [&[u8]; 14] = [
        &[],
        &[0x66],
        &[0xf3],
        &[0xf2],
        &[0xf0],
        &[0x66, 0xf3],
        &[0xf2, 0x66],
        &[0x64],
        &[0x65, 0x66],
        &[0x66, 0x66, 0x2e],
        &[0x3e],
        &[0xf0, 0x66],
        &[0x67],
        &[0x64, 0xf0],
    ];
    let (mut taken, mut scanned, mut n) = (0u32, 0u32, 0u64);
    let mut differ = std::collections::BTreeMap::new();
    for prefixes in before {
        for rex in [0, 0x40, 0x41, 0x42, 0x44, 0x48, 0x4d, 0x4f] {
            for opcode in 0..512 {
                for modrm in 0..=255u8 {
                    let mut bytes = prefixes.to_vec();
                    if rex != 0 {
                        bytes.push(rex);
                    }
                    if opcode >= 256 {
                        bytes.push(0x0f);
                    }
                    bytes.extend([opcode as u8, modrm]);
                    while bytes.len() < 32 {
                        n = (n ^ n >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5677);
                        bytes.extend((n ^ n >> 32).to_le_bytes());
                    }
                    let pc = 0x7fff_1234_5678;
                    let mut got = Instruction::default();
                    if decode(bytes.first_chunk().unwrap(), pc, &mut got) {
                        let want = Decoder::with_ip(64, &bytes, pc, DecoderOptions::NONE).decode();
                        taken += 1;
                        scanned += u32::from(scans(bytes.first_chunk().unwrap(), &got));
                        if !got.eq_all_bits(&want) {
                            differ.entry((prefixes, opcode)).or_insert((bytes, got, want));
                        }
                    } else {
                        assert!(scan(bytes.first_chunk().unwrap()).is_none(), "{bytes:02x?}");
                    }
                }
            }
        }
    }
    assert!(differ.is_empty(), "{differ:#02x?}");
    // Most of the commonest opcodes, under every prefix they are taken with.
    assert!(taken > 1_000_000 && scanned > taken / 2, "{taken} {scanned}");
}

/// The same for VEX, in both its forms.
#[test]
fn equals_iced_with_vex() {
    let mut taken = 0;
    let mut check = |start: &[u8], modrm: u8| {
        let mut bytes = start.to_vec();
        bytes.extend([modrm, modrm.wrapping_mul(37), 0x81, 0x42, 0x93, 0x24, 0x75]);
        bytes.resize(32, 0x90);
        let mut got = Instruction::default();
        if decode(bytes.first_chunk().unwrap(), 0x40_1000, &mut got) {
            let want = Decoder::with_ip(64, &bytes, 0x40_1000, DecoderOptions::NONE).decode();
            assert!(got.eq_all_bits(&want), "{:02x?}: {got:?}, iced {want:?}", &bytes[..16]);
            scans(bytes.first_chunk().unwrap(), &got);
            taken += 1;
        }
    };
    for opcode in 0..=255 {
        for modrm in (0..=255).step_by(3) {
            for b in 0..=255 {
                check(&[0xc5, b, opcode], modrm);
                for a in [0xe1, 0x41, 0xe2, 0x02, 0x82, 0xc2, 0xe3] {
                    check(&[0xc4, a, b, opcode], modrm);
                }
            }
        }
    }
    assert!(taken > 100_000, "{taken}");
}

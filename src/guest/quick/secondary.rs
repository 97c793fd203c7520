//! Opcodes after 0F, 0F38 and 0F3A (SDM vol. 2, appendix A.3).

use super::row::class::{B, V, W, X, Y};
use super::row::from::{EXACT, MEM, OPCODE, REG, REL32, RM, RM_REG};
use super::row::*;
use iced_x86::Code;

/// Opcodes after 0F, by mandatory prefix: none, 66, F3, F2.
pub static TWO_BYTES: [[Op; 256]; 4] = two_bytes();
pub const P66: usize = 1;
pub const PF3: usize = 2;
pub const PF2: usize = 3;

const fn two_bytes() -> [[Op; 256]; 4] {
    let mut t = [[NOTHING; 256]; 4];
    // Where 66 is an operand size and not part of the opcode, both tables have the row.
    let mut p = 0;
    while p <= P66 {
        let t = &mut t[p];
        t[0x1f] = group(15);
        let mut n = 0;
        while n < 16 {
            let (cmov, k) = (Code::Cmovo_r16_rm16, n as u16);
            t[0x40 + n] = recode(sized(cmov, &[REG | V, RM | V]), after(cmov, 3 * k));
            n += 1;
        }
        t[0xa3] = sized(Code::Bt_rm16_r16, &[RM | V, REG | V]);
        t[0xab] = lock(sized(Code::Bts_rm16_r16, &[RM | V, REG | V]));
        t[0xaf] = sized(Code::Imul_r16_rm16, &[REG | V, RM | V]);
        t[0xb1] = lock(sized(Code::Cmpxchg_rm16_r16, &[RM | V, REG | V]));
        t[0xb3] = lock(sized(Code::Btr_rm16_r16, &[RM | V, REG | V]));
        t[0xb6] = sized(Code::Movzx_r16_rm8, &[REG | V, RM | B]);
        t[0xb7] = sized(Code::Movzx_r16_rm16, &[REG | V, RM | W]);
        t[0xba] = group(12);
        t[0xbb] = lock(sized(Code::Btc_rm16_r16, &[RM | V, REG | V]));
        t[0xbc] = sized(Code::Bsf_r16_rm16, &[REG | V, RM | V]);
        t[0xbd] = sized(Code::Bsr_r16_rm16, &[REG | V, RM | V]);
        t[0xbe] = sized(Code::Movsx_r16_rm8, &[REG | V, RM | B]);
        t[0xbf] = sized(Code::Movsx_r16_rm16, &[REG | V, RM | W]);
        t[0xc1] = lock(sized(Code::Xadd_rm16_r16, &[RM | V, REG | V]));
        let mut n = 0;
        while n < 8 {
            t[0xc8 + n] = sized(Code::Bswap_r16, &[OPCODE | V]);
            n += 1;
        }
        p += 1;
    }
    let (load, store) = (&[REG | X, RM | X], &[RM | X, REG | X]);
    t[0][0x01] = fixed(Code::Xgetbv, &[EXACT, 0xd0]);
    t[0][0x05] = fixed(Code::Syscall, &[]);
    t[0][0x0b] = fixed(Code::Ud2, &[]);
    t[0][0x31] = fixed(Code::Rdtsc, &[]);
    t[0][0xa2] = fixed(Code::Cpuid, &[]);
    let mut n = 0;
    while n < 16 {
        let k = n as u16;
        t[0][0x80 + n] = recode(fixed(Code::Jo_rel32_64, &[REL32]), after(Code::Jo_rel32_64, 3 * k));
        t[0][0x90 + n] = recode(fixed(Code::Seto_rm8, &[RM | B]), after(Code::Seto_rm8, k));
        n += 1;
    }
    t[0][0x10] = fixed(Code::Movups_xmm_xmmm128, load);
    t[0][0x11] = fixed(Code::Movups_xmmm128_xmm, store);
    t[0][0x12] = fixed(Code::Movlps_xmm_m64, &[REG | X, MEM]);
    t[0][0x13] = fixed(Code::Movlps_m64_xmm, &[MEM, REG | X]);
    t[0][0x16] = fixed(Code::Movhps_xmm_m64, &[REG | X, MEM]);
    t[0][0x17] = fixed(Code::Movhps_m64_xmm, &[MEM, REG | X]);
    t[0][0x28] = fixed(Code::Movaps_xmm_xmmm128, load);
    t[0][0x29] = fixed(Code::Movaps_xmmm128_xmm, store);
    t[0][0x2e] = fixed(Code::Ucomiss_xmm_xmmm32, load);
    t[0][0x2f] = fixed(Code::Comiss_xmm_xmmm32, load);
    t[0][0xae] = group(13);
    t[0][0xc7] = group(18);
    t[0][0xc6] = fixed(Code::Shufps_xmm_xmmm128_imm8, &[REG | X, RM | X, IB]);
    t[P66][0x10] = fixed(Code::Movupd_xmm_xmmm128, load);
    t[P66][0x11] = fixed(Code::Movupd_xmmm128_xmm, store);
    t[P66][0x12] = fixed(Code::Movlpd_xmm_m64, &[REG | X, MEM]);
    t[P66][0x13] = fixed(Code::Movlpd_m64_xmm, &[MEM, REG | X]);
    t[P66][0x16] = fixed(Code::Movhpd_xmm_m64, &[REG | X, MEM]);
    t[P66][0x17] = fixed(Code::Movhpd_m64_xmm, &[MEM, REG | X]);
    t[P66][0x28] = fixed(Code::Movapd_xmm_xmmm128, load);
    t[P66][0x29] = fixed(Code::Movapd_xmmm128_xmm, store);
    t[P66][0x2e] = fixed(Code::Ucomisd_xmm_xmmm64, load);
    t[P66][0x2f] = fixed(Code::Comisd_xmm_xmmm64, load);
    t[P66][0x6e] = wide(Code::Movd_xmm_rm32, &[REG | X, RM | Y]);
    t[P66][0x6f] = fixed(Code::Movdqa_xmm_xmmm128, load);
    t[P66][0x70] = fixed(Code::Pshufd_xmm_xmmm128_imm8, &[REG | X, RM | X, IB]);
    t[P66][0x72] = group(16);
    t[P66][0x73] = group(17);
    t[P66][0x7e] = wide(Code::Movd_rm32_xmm, &[RM | Y, REG | X]);
    t[P66][0x7f] = fixed(Code::Movdqa_xmmm128_xmm, store);
    t[P66][0xc6] = fixed(Code::Shufpd_xmm_xmmm128_imm8, &[REG | X, RM | X, IB]);
    t[P66][0xd6] = fixed(Code::Movq_xmmm64_xmm, store);
    t[P66][0xd7] = wide(Code::Pmovmskb_r32_xmm, &[REG | Y, RM_REG | X]);
    // Packed operations: XMM, XMM or 128 bits of memory.
    let mut n = 0;
    while n < PACKED.len() {
        let (prefix, opcode, code) = PACKED[n];
        t[prefix][opcode] = fixed(code, load);
        n += 1;
    }
    t[PF3][0x10] = fixed(Code::Movss_xmm_xmmm32, load);
    t[PF3][0x11] = fixed(Code::Movss_xmmm32_xmm, store);
    t[PF3][0x1e] = fixed(Code::Endbr64, &[EXACT, 0xfa]);
    t[PF3][0x2a] = wide(Code::Cvtsi2ss_xmm_rm32, &[REG | X, RM | Y]);
    t[PF3][0x2c] = wide(Code::Cvttss2si_r32_xmmm32, &[REG | Y, RM | X]);
    t[PF3][0x6f] = fixed(Code::Movdqu_xmm_xmmm128, load);
    t[PF3][0x7e] = fixed(Code::Movq_xmm_xmmm64, load);
    t[PF3][0x7f] = fixed(Code::Movdqu_xmmm128_xmm, store);
    t[PF3][0xb8] = sized(Code::Popcnt_r16_rm16, &[REG | V, RM | V]);
    t[PF3][0xbc] = sized(Code::Tzcnt_r16_rm16, &[REG | V, RM | V]);
    t[PF3][0xbd] = sized(Code::Lzcnt_r16_rm16, &[REG | V, RM | V]);
    t[PF2][0x10] = fixed(Code::Movsd_xmm_xmmm64, load);
    t[PF2][0x11] = fixed(Code::Movsd_xmmm64_xmm, store);
    t[PF2][0x2a] = wide(Code::Cvtsi2sd_xmm_rm32, &[REG | X, RM | Y]);
    t[PF2][0x2c] = wide(Code::Cvttsd2si_r32_xmmm64, &[REG | Y, RM | X]);
    // Scalar operations: XMM, XMM or the low lane's width of memory.
    let mut n = 0;
    while n < SCALAR.len() {
        let (prefix, opcode, code) = SCALAR[n];
        t[prefix][opcode] = fixed(code, load);
        n += 1;
    }
    let mut n = 0;
    while n < 256 {
        t[P66][n] = with_66(t[P66][n]);
        n += 1;
    }
    t
}

/// Prefix, opcode after 0F, and what it is.
const SCALAR: &[(usize, usize, Code)] = {
    use Code::*;
    &[
        (PF3, 0x51, Sqrtss_xmm_xmmm32),
        (PF3, 0x58, Addss_xmm_xmmm32),
        (PF3, 0x59, Mulss_xmm_xmmm32),
        (PF3, 0x5a, Cvtss2sd_xmm_xmmm32),
        (PF3, 0x5c, Subss_xmm_xmmm32),
        (PF3, 0x5d, Minss_xmm_xmmm32),
        (PF3, 0x5e, Divss_xmm_xmmm32),
        (PF3, 0x5f, Maxss_xmm_xmmm32),
        (PF2, 0x51, Sqrtsd_xmm_xmmm64),
        (PF2, 0x58, Addsd_xmm_xmmm64),
        (PF2, 0x59, Mulsd_xmm_xmmm64),
        (PF2, 0x5a, Cvtsd2ss_xmm_xmmm64),
        (PF2, 0x5c, Subsd_xmm_xmmm64),
        (PF2, 0x5d, Minsd_xmm_xmmm64),
        (PF2, 0x5e, Divsd_xmm_xmmm64),
        (PF2, 0x5f, Maxsd_xmm_xmmm64),
    ]
};

/// The same for packed operations.
const PACKED: &[(usize, usize, Code)] = {
    use Code::*;
    &[
        (0, 0x14, Unpcklps_xmm_xmmm128),
        (0, 0x15, Unpckhps_xmm_xmmm128),
        (0, 0x54, Andps_xmm_xmmm128),
        (0, 0x55, Andnps_xmm_xmmm128),
        (0, 0x56, Orps_xmm_xmmm128),
        (0, 0x57, Xorps_xmm_xmmm128),
        (0, 0x58, Addps_xmm_xmmm128),
        (0, 0x59, Mulps_xmm_xmmm128),
        (0, 0x5c, Subps_xmm_xmmm128),
        (0, 0x5e, Divps_xmm_xmmm128),
        (P66, 0x14, Unpcklpd_xmm_xmmm128),
        (P66, 0x15, Unpckhpd_xmm_xmmm128),
        (P66, 0x54, Andpd_xmm_xmmm128),
        (P66, 0x55, Andnpd_xmm_xmmm128),
        (P66, 0x56, Orpd_xmm_xmmm128),
        (P66, 0x57, Xorpd_xmm_xmmm128),
        (P66, 0x58, Addpd_xmm_xmmm128),
        (P66, 0x59, Mulpd_xmm_xmmm128),
        (P66, 0x5c, Subpd_xmm_xmmm128),
        (P66, 0x5e, Divpd_xmm_xmmm128),
        (P66, 0x60, Punpcklbw_xmm_xmmm128),
        (P66, 0x61, Punpcklwd_xmm_xmmm128),
        (P66, 0x62, Punpckldq_xmm_xmmm128),
        (P66, 0x63, Packsswb_xmm_xmmm128),
        (P66, 0x64, Pcmpgtb_xmm_xmmm128),
        (P66, 0x65, Pcmpgtw_xmm_xmmm128),
        (P66, 0x66, Pcmpgtd_xmm_xmmm128),
        (P66, 0x67, Packuswb_xmm_xmmm128),
        (P66, 0x68, Punpckhbw_xmm_xmmm128),
        (P66, 0x69, Punpckhwd_xmm_xmmm128),
        (P66, 0x6a, Punpckhdq_xmm_xmmm128),
        (P66, 0x6b, Packssdw_xmm_xmmm128),
        (P66, 0x6c, Punpcklqdq_xmm_xmmm128),
        (P66, 0x6d, Punpckhqdq_xmm_xmmm128),
        (P66, 0x74, Pcmpeqb_xmm_xmmm128),
        (P66, 0x75, Pcmpeqw_xmm_xmmm128),
        (P66, 0x76, Pcmpeqd_xmm_xmmm128),
        (P66, 0xd1, Psrlw_xmm_xmmm128),
        (P66, 0xd2, Psrld_xmm_xmmm128),
        (P66, 0xd3, Psrlq_xmm_xmmm128),
        (P66, 0xd4, Paddq_xmm_xmmm128),
        (P66, 0xd5, Pmullw_xmm_xmmm128),
        (P66, 0xd8, Psubusb_xmm_xmmm128),
        (P66, 0xd9, Psubusw_xmm_xmmm128),
        (P66, 0xda, Pminub_xmm_xmmm128),
        (P66, 0xdb, Pand_xmm_xmmm128),
        (P66, 0xdc, Paddusb_xmm_xmmm128),
        (P66, 0xdd, Paddusw_xmm_xmmm128),
        (P66, 0xde, Pmaxub_xmm_xmmm128),
        (P66, 0xdf, Pandn_xmm_xmmm128),
        (P66, 0xe0, Pavgb_xmm_xmmm128),
        (P66, 0xe1, Psraw_xmm_xmmm128),
        (P66, 0xe2, Psrad_xmm_xmmm128),
        (P66, 0xe3, Pavgw_xmm_xmmm128),
        (P66, 0xe4, Pmulhuw_xmm_xmmm128),
        (P66, 0xe5, Pmulhw_xmm_xmmm128),
        (P66, 0xe8, Psubsb_xmm_xmmm128),
        (P66, 0xe9, Psubsw_xmm_xmmm128),
        (P66, 0xea, Pminsw_xmm_xmmm128),
        (P66, 0xeb, Por_xmm_xmmm128),
        (P66, 0xec, Paddsb_xmm_xmmm128),
        (P66, 0xed, Paddsw_xmm_xmmm128),
        (P66, 0xee, Pmaxsw_xmm_xmmm128),
        (P66, 0xef, Pxor_xmm_xmmm128),
        (P66, 0xf1, Psllw_xmm_xmmm128),
        (P66, 0xf2, Pslld_xmm_xmmm128),
        (P66, 0xf3, Psllq_xmm_xmmm128),
        (P66, 0xf4, Pmuludq_xmm_xmmm128),
        (P66, 0xf5, Pmaddwd_xmm_xmmm128),
        (P66, 0xf6, Psadbw_xmm_xmmm128),
        (P66, 0xf8, Psubb_xmm_xmmm128),
        (P66, 0xf9, Psubw_xmm_xmmm128),
        (P66, 0xfa, Psubd_xmm_xmmm128),
        (P66, 0xfb, Psubq_xmm_xmmm128),
        (P66, 0xfc, Paddb_xmm_xmmm128),
        (P66, 0xfd, Paddw_xmm_xmmm128),
        (P66, 0xfe, Paddd_xmm_xmmm128),
    ]
};

/// Opcodes after 0F38 and 0F3A: the few that string functions use.
pub static PSHUFB: Op = with_66(fixed(Code::Pshufb_xmm_xmmm128, &[REG | X, RM | X]));
pub static PTEST: Op = with_66(fixed(Code::Ptest_xmm_xmmm128, &[REG | X, RM | X]));
/// The forms of 12 and 16 that name two registers have codes of their own.
pub static MOVHLPS: Op = fixed(Code::Movhlps_xmm_xmm, &[REG | X, RM_REG | X]);
pub static MOVLHPS: Op = fixed(Code::Movlhps_xmm_xmm, &[REG | X, RM_REG | X]);
pub static MOVBE_LOAD: Op = sized(Code::Movbe_r16_m16, &[REG | V, MEM]);
pub static MOVBE_STORE: Op = sized(Code::Movbe_m16_r16, &[MEM, REG | V]);
pub static PALIGNR: Op = with_66(fixed(Code::Palignr_xmm_xmmm128_imm8, &[REG | X, RM | X, IB]));
pub static PCMPISTRI: Op = with_66(fixed(Code::Pcmpistri_xmm_xmmm128_imm8, &[REG | X, RM | X, IB]));

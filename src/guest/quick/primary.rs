//! Opcodes of one byte, and the groups that a ModRM byte's register field picks from (SDM vol. 2, appendix A.2 and A.4).

use super::row::class::{B, D, Q, V, X, Y};
use super::row::from::{ACC, CL, MEM, OPCODE, REG, REL8, REL32, RM, RM_REG, VVVV};
use super::row::*;
use iced_x86::Code;

/// Opcodes of one byte.
pub static ONE_BYTE: [Op; 256] = one_byte();

const fn one_byte() -> [Op; 256] {
    let mut t = [NOTHING; 256];
    let alu = [
        Code::Add_rm8_r8,
        Code::Or_rm8_r8,
        Code::Adc_rm8_r8,
        Code::Sbb_rm8_r8,
        Code::And_rm8_r8,
        Code::Sub_rm8_r8,
        Code::Xor_rm8_r8,
        Code::Cmp_rm8_r8,
    ];
    let mut n = 0;
    while n < 8 {
        let (c, at) = (alu[n], 8 * n);
        t[at] = lock(fixed(c, &[RM | B, REG | B]));
        t[at + 1] = lock(recode(sized(c, &[RM | V, REG | V]), after(c, 1)));
        t[at + 2] = recode(fixed(c, &[REG | B, RM | B]), after(c, 4));
        t[at + 3] = recode(sized(c, &[REG | V, RM | V]), after(c, 5));
        t[at + 4] = recode(fixed(c, &[ACC | B, IB]), after(c, 8));
        t[at + 5] = recode(sized(c, &[ACC | V, IZ]), after(c, 9));
        // The registers of 50-5F and B0-BF.
        t[0x50 + n] = fixed(Code::Push_r64, &[OPCODE | Q]);
        t[0x58 + n] = fixed(Code::Pop_r64, &[OPCODE | Q]);
        t[0xb0 + n] = fixed(Code::Mov_r8_imm8, &[OPCODE | B, IB]);
        t[0xb8 + n] = sized(Code::Mov_r16_imm16, &[OPCODE | V, IV]);
        n += 1;
    }
    t[0x38].lock = false;
    t[0x39].lock = false;
    t[0x63] = wide(Code::Movsxd_r32_rm32, &[REG | Y, RM | D]);
    t[0x68] = fixed(Code::Pushq_imm32, &[IZ_Q]);
    t[0x69] = sized(Code::Imul_r16_rm16_imm16, &[REG | V, RM | V, IZ]);
    t[0x6a] = fixed(Code::Pushq_imm8, &[IB_Q]);
    t[0x6b] = sized(Code::Imul_r16_rm16_imm8, &[REG | V, RM | V, IB_V]);
    let mut n = 0;
    while n < 16 {
        t[0x70 + n] = recode(fixed(Code::Jo_rel8_64, &[REL8]), after(Code::Jo_rel8_64, 3 * n as u16));
        n += 1;
    }
    t[0x80] = group(0);
    t[0x81] = group(1);
    t[0x83] = group(2);
    t[0x84] = fixed(Code::Test_rm8_r8, &[RM | B, REG | B]);
    t[0x85] = sized(Code::Test_rm16_r16, &[RM | V, REG | V]);
    t[0x86] = lock(fixed(Code::Xchg_rm8_r8, &[RM | B, REG | B]));
    t[0x87] = lock(sized(Code::Xchg_rm16_r16, &[RM | V, REG | V]));
    t[0x88] = fixed(Code::Mov_rm8_r8, &[RM | B, REG | B]);
    t[0x89] = sized(Code::Mov_rm16_r16, &[RM | V, REG | V]);
    t[0x8a] = fixed(Code::Mov_r8_rm8, &[REG | B, RM | B]);
    t[0x8b] = sized(Code::Mov_r16_rm16, &[REG | V, RM | V]);
    t[0x8d] = sized(Code::Lea_r16_m, &[REG | V, MEM]);
    // 90 is NOP, PAUSE or XCHG with R8, by its prefixes: see the parent.
    let mut n = 1;
    while n < 8 {
        t[0x90 + n] = sized(Code::Xchg_r16_AX, &[OPCODE | V, ACC | V]);
        n += 1;
    }
    t[0x98] = sized(Code::Cbw, &[]);
    t[0x99] = sized(Code::Cwd, &[]);
    t[0xa4] = fixed(Code::Movsb_m8_m8, &[TO, FROM]);
    t[0xa5] = sized(Code::Movsw_m16_m16, &[TO, FROM]);
    t[0xaa] = fixed(Code::Stosb_m8_AL, &[TO, ACC | B]);
    t[0xab] = sized(Code::Stosw_m16_AX, &[TO, ACC | V]);
    t[0xa8] = fixed(Code::Test_AL_imm8, &[ACC | B, IB]);
    t[0xa9] = sized(Code::Test_AX_imm16, &[ACC | V, IZ]);
    t[0xc0] = group(3);
    t[0xc1] = group(4);
    t[0xc3] = fixed(Code::Retnq, &[]);
    t[0xc6] = group(10);
    t[0xc7] = group(11);
    t[0xc9] = fixed(Code::Leaveq, &[]);
    t[0xd0] = group(19);
    t[0xd1] = group(5);
    t[0xd2] = group(20);
    t[0xd3] = group(6);
    t[0xe8] = fixed(Code::Call_rel32_64, &[REL32]);
    t[0xe9] = fixed(Code::Jmp_rel32_64, &[REL32]);
    t[0xeb] = fixed(Code::Jmp_rel8_64, &[REL8]);
    t[0xf4] = fixed(Code::Hlt, &[]);
    t[0xf6] = group(7);
    t[0xf7] = group(8);
    t[0xfe] = group(21);
    t[0xff] = group(9);
    t
}

pub const GROUPS: usize = 32;
/// Rows by the ModRM's register field.
pub static GROUP_ROWS: [[Op; 8]; GROUPS] = groups();

const fn groups() -> [[Op; 8]; GROUPS] {
    let mut g = [[NOTHING; 8]; GROUPS];
    let mut n = 0;
    while n < 8 {
        // ADD OR ADC SBB AND SUB XOR CMP stand behind one another.
        let k = n as u16;
        g[0][n] = lock(recode(fixed(Code::Add_rm8_imm8, &[RM | B, IB]), after(Code::Add_rm8_imm8, k)));
        g[1][n] = lock(recode(sized(Code::Add_rm16_imm16, &[RM | V, IZ]), after(Code::Add_rm16_imm16, 3 * k)));
        g[2][n] = lock(recode(sized(Code::Add_rm16_imm8, &[RM | V, IB_V]), after(Code::Add_rm16_imm8, 3 * k)));
        n += 1;
    }
    let mut n = 0;
    while n < 3 {
        g[n][7].lock = false;
        n += 1;
    }
    // ROL ROR RCL RCR SHL SHR SAL SAR, by a constant, by one, by CL.
    let mut n = 0;
    while n < 8 {
        let k = n as u16;
        if n != 6 {
            g[3][n] = recode(fixed(Code::Rol_rm8_imm8, &[RM | B, IB]), after(Code::Rol_rm8_imm8, k));
            g[19][n] = recode(fixed(Code::Rol_rm8_1, &[RM | B, ONE]), after(Code::Rol_rm8_1, k));
            g[20][n] = recode(fixed(Code::Rol_rm8_CL, &[RM | B, CL]), after(Code::Rol_rm8_CL, k));
            g[4][n] = recode(sized(Code::Rol_rm16_imm8, &[RM | V, IB]), after(Code::Rol_rm16_imm8, 3 * k));
            g[5][n] = recode(sized(Code::Rol_rm16_1, &[RM | V, ONE]), after(Code::Rol_rm16_1, 3 * k));
            g[6][n] = recode(sized(Code::Rol_rm16_CL, &[RM | V, CL]), after(Code::Rol_rm16_CL, 3 * k));
        }
        n += 1;
    }
    g[7][0] = fixed(Code::Test_rm8_imm8, &[RM | B, IB]);
    g[7][2] = lock(fixed(Code::Not_rm8, &[RM | B]));
    g[7][3] = lock(fixed(Code::Neg_rm8, &[RM | B]));
    g[8][0] = sized(Code::Test_rm16_imm16, &[RM | V, IZ]);
    g[8][2] = lock(sized(Code::Not_rm16, &[RM | V]));
    g[8][3] = lock(sized(Code::Neg_rm16, &[RM | V]));
    g[8][4] = sized(Code::Mul_rm16, &[RM | V]);
    g[8][5] = sized(Code::Imul_rm16, &[RM | V]);
    g[8][6] = sized(Code::Div_rm16, &[RM | V]);
    g[8][7] = sized(Code::Idiv_rm16, &[RM | V]);
    g[21][0] = lock(fixed(Code::Inc_rm8, &[RM | B]));
    g[21][1] = lock(fixed(Code::Dec_rm8, &[RM | B]));
    g[9][0] = lock(sized(Code::Inc_rm16, &[RM | V]));
    g[9][1] = lock(sized(Code::Dec_rm16, &[RM | V]));
    g[9][2] = fixed(Code::Call_rm64, &[RM | Q]);
    g[9][4] = fixed(Code::Jmp_rm64, &[RM | Q]);
    g[9][6] = fixed(Code::Push_rm64, &[RM | Q]);
    g[10][0] = fixed(Code::Mov_rm8_imm8, &[RM | B, IB]);
    g[11][0] = sized(Code::Mov_rm16_imm16, &[RM | V, IZ]);
    g[12][4] = sized(Code::Bt_rm16_imm8, &[RM | V, IB]);
    g[12][5] = lock(sized(Code::Bts_rm16_imm8, &[RM | V, IB]));
    g[12][6] = lock(sized(Code::Btr_rm16_imm8, &[RM | V, IB]));
    g[12][7] = lock(sized(Code::Btc_rm16_imm8, &[RM | V, IB]));
    g[13][0] = fixed(Code::Fxsave_m512byte, &[MEM]);
    g[13][1] = fixed(Code::Fxrstor_m512byte, &[MEM]);
    g[13][2] = fixed(Code::Ldmxcsr_m32, &[MEM]);
    g[13][3] = fixed(Code::Stmxcsr_m32, &[MEM]);
    g[13][4] = fixed(Code::Xsave_mem, &[MEM]);
    g[13][5] = fixed(Code::Xrstor_mem, &[MEM]);
    g[18][4] = fixed(Code::Xsavec_mem, &[MEM]);
    g[15][0] = sized(Code::Nop_rm16, &[RM | V]);
    let shift = &[RM_REG | X, IB];
    g[16][2] = fixed(Code::Psrld_xmm_imm8, shift);
    g[16][4] = fixed(Code::Psrad_xmm_imm8, shift);
    g[16][6] = fixed(Code::Pslld_xmm_imm8, shift);
    g[17][2] = fixed(Code::Psrlq_xmm_imm8, shift);
    g[17][3] = fixed(Code::Psrldq_xmm_imm8, shift);
    g[17][6] = fixed(Code::Psllq_xmm_imm8, shift);
    g[17][7] = fixed(Code::Pslldq_xmm_imm8, shift);
    // Only after 66.
    let mut n = 0;
    while n < 8 {
        g[16][n] = with_66(g[16][n]);
        g[17][n] = with_66(g[17][n]);
        n += 1;
    }
    g[14][1] = wide(Code::VEX_Blsr_r32_rm32, &[VVVV | Y, RM | Y]);
    g[14][2] = wide(Code::VEX_Blsmsk_r32_rm32, &[VVVV | Y, RM | Y]);
    g[14][3] = wide(Code::VEX_Blsi_r32_rm32, &[VVVV | Y, RM | Y]);
    g
}

//! Opcodes after a VEX prefix (SDM vol. 2, 2.3.5 and appendix A.3).

use super::row::class::{D, L, X, Y};
use super::row::from::{REG, RM, RM_REG, VVVV};
use super::row::*;
use super::secondary::{P66, PF2, PF3};
use iced_x86::Code;

/// Opcodes after VEX, by map (0F and 0F38) and mandatory prefix.
pub static VEX: [[[Op; 256]; 4]; 2] = vex();

const fn vex() -> [[[Op; 256]; 4]; 2] {
    let mut t = [[[NOTHING; 256]; 4]; 2];
    let (load, store, three) = (&[REG | L, RM | L], &[RM | L, REG | L], &[REG | L, VVVV | L, RM | L]);
    t[0][0][0x10] = long(Code::VEX_Vmovups_xmm_xmmm128, load);
    t[0][0][0x11] = long(Code::VEX_Vmovups_xmmm128_xmm, store);
    t[0][0][0x28] = long(Code::VEX_Vmovaps_xmm_xmmm128, load);
    t[0][0][0x29] = long(Code::VEX_Vmovaps_xmmm128_xmm, store);
    t[0][0][0x57] = long(Code::VEX_Vxorps_xmm_xmm_xmmm128, three);
    t[0][0][0x77] = fixed(Code::VEX_Vzeroupper, &[]);
    t[0][P66][0x64] = long(Code::VEX_Vpcmpgtb_xmm_xmm_xmmm128, three);
    t[0][P66][0x65] = long(Code::VEX_Vpcmpgtw_xmm_xmm_xmmm128, three);
    t[0][P66][0x66] = long(Code::VEX_Vpcmpgtd_xmm_xmm_xmmm128, three);
    t[0][P66][0x6e] = wide(Code::VEX_Vmovd_xmm_rm32, &[REG | X, RM | Y]);
    t[0][P66][0x6f] = long(Code::VEX_Vmovdqa_xmm_xmmm128, load);
    t[0][P66][0x74] = long(Code::VEX_Vpcmpeqb_xmm_xmm_xmmm128, three);
    t[0][P66][0x75] = long(Code::VEX_Vpcmpeqw_xmm_xmm_xmmm128, three);
    t[0][P66][0x76] = long(Code::VEX_Vpcmpeqd_xmm_xmm_xmmm128, three);
    t[0][P66][0x7e] = wide(Code::VEX_Vmovd_rm32_xmm, &[RM | Y, REG | X]);
    t[0][P66][0x7f] = long(Code::VEX_Vmovdqa_xmmm128_xmm, store);
    t[0][P66][0xd6] = fixed(Code::VEX_Vmovq_xmmm64_xmm, &[RM | X, REG | X]);
    t[0][P66][0xd7] = longer(Code::VEX_Vpmovmskb_r32_xmm, 2, &[REG | D, RM_REG | L]);
    t[0][P66][0xda] = long(Code::VEX_Vpminub_xmm_xmm_xmmm128, three);
    t[0][P66][0xdb] = long(Code::VEX_Vpand_xmm_xmm_xmmm128, three);
    t[0][P66][0xdf] = long(Code::VEX_Vpandn_xmm_xmm_xmmm128, three);
    t[0][P66][0xeb] = long(Code::VEX_Vpor_xmm_xmm_xmmm128, three);
    t[0][P66][0xef] = long(Code::VEX_Vpxor_xmm_xmm_xmmm128, three);
    t[0][P66][0xf8] = long(Code::VEX_Vpsubb_xmm_xmm_xmmm128, three);
    t[0][P66][0xfc] = long(Code::VEX_Vpaddb_xmm_xmm_xmmm128, three);
    t[0][PF3][0x6f] = long(Code::VEX_Vmovdqu_xmm_xmmm128, load);
    t[0][PF3][0x7e] = fixed(Code::VEX_Vmovq_xmm_xmmm64, &[REG | X, RM | X]);
    t[0][PF3][0x7f] = long(Code::VEX_Vmovdqu_xmmm128_xmm, store);
    t[1][0][0xf2] = wide(Code::VEX_Andn_r32_r32_rm32, &[REG | Y, VVVV | Y, RM | Y]);
    t[1][0][0xf3] = group(14);
    t[1][0][0xf5] = wide(Code::VEX_Bzhi_r32_rm32_r32, &[REG | Y, RM | Y, VVVV | Y]);
    t[1][P66][0x17] = long(Code::VEX_Vptest_xmm_xmmm128, load);
    t[1][P66][0x3b] = long(Code::VEX_Vpminud_xmm_xmm_xmmm128, three);
    t[1][P66][0x58] = long(Code::VEX_Vpbroadcastd_xmm_xmmm32, &[REG | L, RM | X]);
    t[1][P66][0x59] = long(Code::VEX_Vpbroadcastq_xmm_xmmm64, &[REG | L, RM | X]);
    t[1][P66][0x78] = long(Code::VEX_Vpbroadcastb_xmm_xmmm8, &[REG | L, RM | X]);
    t[1][P66][0x79] = long(Code::VEX_Vpbroadcastw_xmm_xmmm16, &[REG | L, RM | X]);
    t[1][P66][0xf7] = wide(Code::VEX_Shlx_r32_rm32_r32, &[REG | Y, RM | Y, VVVV | Y]);
    t[1][PF3][0xf7] = wide(Code::VEX_Sarx_r32_rm32_r32, &[REG | Y, RM | Y, VVVV | Y]);
    t[1][PF2][0xf7] = wide(Code::VEX_Shrx_r32_rm32_r32, &[REG | Y, RM | Y, VVVV | Y]);
    t
}

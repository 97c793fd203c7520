//! Decodes the commonest encodings, from tables that are constants. Most code is decoded once and run once or a few times, so that decoding is a good part
//! of its price, and iced's own tables are built at first use, which costs more than a small program. What these tables do not
//! hold, and every combination of prefixes that is out of the ordinary, is left to iced. What is decoded here is equal to iced's result in
//! every bit: the tests below compare all opcodes with all prefixes and operand forms.
//!
//! A row says how the operands are encoded (SDM vol. 2, appendix A.2 and A.3: G is the register and E the register or memory operand of a ModRM byte, and so on).

use iced_x86::{Code, CodeSize, Instruction, OpKind, Register};

/// Bytes that must be readable at the instruction, so that no operand needs a check of its own.
pub const READABLE: usize = 24;
/// The longest x86 instruction (SDM vol. 2, 2.3.11).
const MAX_LEN: usize = 15;

/// Register files by operand class.
static REGS: [[Register; 16]; 8] = {
    use Register::*;
    [
        [AL, CL, DL, BL, AH, CH, DH, BH, R8L, R9L, R10L, R11L, R12L, R13L, R14L, R15L],
        [AL, CL, DL, BL, SPL, BPL, SIL, DIL, R8L, R9L, R10L, R11L, R12L, R13L, R14L, R15L],
        [AX, CX, DX, BX, SP, BP, SI, DI, R8W, R9W, R10W, R11W, R12W, R13W, R14W, R15W],
        [EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, R8D, R9D, R10D, R11D, R12D, R13D, R14D, R15D],
        [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15],
        [XMM0, XMM1, XMM2, XMM3, XMM4, XMM5, XMM6, XMM7, XMM8, XMM9, XMM10, XMM11, XMM12, XMM13, XMM14, XMM15],
        [YMM0, YMM1, YMM2, YMM3, YMM4, YMM5, YMM6, YMM7, YMM8, YMM9, YMM10, YMM11, YMM12, YMM13, YMM14, YMM15],
        [None; 16],
    ]
};
/// Index of the byte registers without REX; the ones with it follow, then 16, 32 and 64 bits, then XMM, YMM.
const BYTES: usize = 0;
const WORDS: usize = 2;
const XMMS: usize = 5;

/// Operand classes: how wide a register is.
mod class {
    /// Byte.
    pub const B: u8 = 0;
    /// 16, 32 or 64 bits by operand size.
    pub const V: u8 = 1;
    /// 32 or 64 bits by REX.W.
    pub const Y: u8 = 2;
    pub const W: u8 = 3;
    pub const D: u8 = 4;
    pub const Q: u8 = 5;
    pub const X: u8 = 6;
    /// XMM or YMM by VEX.L.
    pub const L: u8 = 7;
}

/// Where an operand comes from, in the high four bits; its class in the low ones.
mod from {
    pub const REG: u8 = 0x10;
    pub const RM: u8 = 0x20;
    /// The same, memory only, or register only.
    pub const MEM: u8 = 0x30;
    pub const RM_REG: u8 = 0x40;
    /// Low bits of the opcode.
    pub const OPCODE: u8 = 0x50;
    pub const ACC: u8 = 0x60;
    /// See [`super::imm`].
    pub const IMM: u8 = 0x70;
    pub const CL: u8 = 0x80;
    pub const REL8: u8 = 0x90;
    pub const REL32: u8 = 0xa0;
    /// `[rdi]` (0) or `[rsi]` (1) of a string instruction.
    pub const STRING: u8 = 0xb0;
    /// The register in VEX.vvvv.
    pub const VVVV: u8 = 0xc0;
    /// Not an operand: the row is one of eight, by the ModRM's register field.
    pub const GROUP: u8 = 0xe0;
    /// Not an operand: the ModRM byte must be the next argument.
    pub const EXACT: u8 = 0xf0;
}

/// Kinds of immediates.
mod imm {
    pub const BYTE: u8 = 0;
    /// A byte sign-extended to the operand size.
    pub const BYTE_V: u8 = 1;
    pub const BYTE_Q: u8 = 2;
    /// 16 or 32 bits, sign-extended to the operand size.
    pub const Z: u8 = 3;
    pub const Z_Q: u8 = 4;
    /// All of the operand size.
    pub const FULL: u8 = 5;
    pub const ONE: u8 = 6;
}

use class::{B, D, L, Q, V, W, X, Y};
use from::{ACC, CL, EXACT, GROUP, MEM, OPCODE, REG, REL8, REL32, RM, RM_REG, VVVV};
const TO: u8 = from::STRING;
const FROM: u8 = from::STRING | 1;
const IB: u8 = from::IMM | imm::BYTE;
const IB_V: u8 = from::IMM | imm::BYTE_V;
const IB_Q: u8 = from::IMM | imm::BYTE_Q;
const IZ: u8 = from::IMM | imm::Z;
const IZ_Q: u8 = from::IMM | imm::Z_Q;
const IV: u8 = from::IMM | imm::FULL;
const ONE: u8 = from::IMM | imm::ONE;

/// How the code depends on the operand size.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Not at all; neither 66 nor REX.W may stand before.
    Fixed,
    /// This code, the next or the one after, for 16, 32 and 64 bits.
    Size,
    /// This code, or the next with REX.W or VEX.W.
    Wide,
    /// This code, or the one so many further with VEX.L.
    Long(u8),
}

/// The commonest operands, which are set without asking for each where it comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    RegRm,
    RmReg,
    /// The ModRM's register or memory operand, and another.
    RmAny,
    Any,
}

#[derive(Clone, Copy)]
struct Op {
    /// [`Code`]; 0 where there is no row. The number of a group.
    code: u16,
    step: Step,
    shape: Shape,
    modrm: bool,
    /// LOCK is allowed when the operand is in memory.
    lock: bool,
    args: [u8; 3],
}

const NOTHING: Op = Op { code: 0, step: Step::Fixed, shape: Shape::Any, modrm: false, lock: false, args: [0; 3] };

const fn op(code: Code, step: Step, args: &[u8]) -> Op {
    let mut o = Op { code: code as u16, step, ..NOTHING };
    let mut n = 0;
    while n < args.len() {
        o.args[n] = args[n];
        o.modrm |= matches!(args[n] & 0xf0, REG | RM | MEM | RM_REG | EXACT) && (n == 0 || o.args[0] != EXACT);
        n += 1;
    }
    o.shape = match (o.args[0] & 0xf0, o.args[1] & 0xf0) {
        (REG, RM) => Shape::RegRm,
        (RM, REG) => Shape::RmReg,
        (RM, second) if second != 0 => Shape::RmAny,
        _ => Shape::Any,
    };
    o
}

const fn fixed(code: Code, args: &[u8]) -> Op {
    op(code, Step::Fixed, args)
}

const fn sized(code: Code, args: &[u8]) -> Op {
    op(code, Step::Size, args)
}

const fn wide(code: Code, args: &[u8]) -> Op {
    op(code, Step::Wide, args)
}

const fn long(code: Code, args: &[u8]) -> Op {
    op(code, Step::Long(1), args)
}

const fn lock(o: Op) -> Op {
    Op { lock: true, ..o }
}

const fn group(n: u16) -> Op {
    Op { code: n, modrm: true, args: [GROUP, 0, 0], ..NOTHING }
}

const fn after(c: Code, n: u16) -> u16 {
    c as u16 + n
}

/// The row of another code with the same operands.
const fn recode(o: Op, code: u16) -> Op {
    Op { code, ..o }
}

const GROUPS: usize = 32;
/// Rows by the ModRM's register field.
static GROUP_ROWS: [[Op; 8]; GROUPS] = groups();

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
    g[14][1] = wide(Code::VEX_Blsr_r32_rm32, &[VVVV | Y, RM | Y]);
    g[14][2] = wide(Code::VEX_Blsmsk_r32_rm32, &[VVVV | Y, RM | Y]);
    g[14][3] = wide(Code::VEX_Blsi_r32_rm32, &[VVVV | Y, RM | Y]);
    g
}

/// Opcodes of one byte.
static ONE_BYTE: [Op; 256] = one_byte();

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
    t[0x90] = sized(Code::Nopw, &[]);
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
    t[0xd1] = group(5);
    t[0xd3] = group(6);
    t[0xe8] = fixed(Code::Call_rel32_64, &[REL32]);
    t[0xe9] = fixed(Code::Jmp_rel32_64, &[REL32]);
    t[0xeb] = fixed(Code::Jmp_rel8_64, &[REL8]);
    t[0xf4] = fixed(Code::Hlt, &[]);
    t[0xf6] = group(7);
    t[0xf7] = group(8);
    t[0xff] = group(9);
    t
}

/// Opcodes after 0F, by mandatory prefix: none, 66, F3, F2.
static TWO_BYTES: [[Op; 256]; 4] = two_bytes();
const P66: usize = 1;
const PF3: usize = 2;
const PF2: usize = 3;

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
    t[P66][0x6e] = wide(Code::Movd_xmm_rm32, &[REG | X, RM | Y]);
    t[P66][0x6f] = fixed(Code::Movdqa_xmm_xmmm128, load);
    t[P66][0x70] = fixed(Code::Pshufd_xmm_xmmm128_imm8, &[REG | X, RM | X, IB]);
    t[P66][0x72] = group(16);
    t[P66][0x73] = group(17);
    t[P66][0x7e] = wide(Code::Movd_rm32_xmm, &[RM | Y, REG | X]);
    t[P66][0x7f] = fixed(Code::Movdqa_xmmm128_xmm, store);
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
    t[PF2][0x58] = fixed(Code::Addsd_xmm_xmmm64, load);
    t[PF2][0x59] = fixed(Code::Mulsd_xmm_xmmm64, load);
    t[PF2][0x5c] = fixed(Code::Subsd_xmm_xmmm64, load);
    t[PF2][0x5e] = fixed(Code::Divsd_xmm_xmmm64, load);
    t
}

/// Prefix, opcode after 0F, and what it is.
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

/// Opcodes after 0F38 and 0F3A with 66: the few that string functions use.
static PSHUFB: Op = fixed(Code::Pshufb_xmm_xmmm128, &[REG | X, RM | X]);
static PTEST: Op = fixed(Code::Ptest_xmm_xmmm128, &[REG | X, RM | X]);
static PALIGNR: Op = fixed(Code::Palignr_xmm_xmmm128_imm8, &[REG | X, RM | X, IB]);
static PCMPISTRI: Op = fixed(Code::Pcmpistri_xmm_xmmm128_imm8, &[REG | X, RM | X, IB]);
static PAUSE: Op = fixed(Code::Pause, &[]);
static NO_ROW: Op = NOTHING;

/// Opcodes after VEX, by map (0F and 0F38) and mandatory prefix.
static VEX: [[[Op; 256]; 4]; 2] = vex();

const fn vex() -> [[[Op; 256]; 4]; 2] {
    let mut t = [[[NOTHING; 256]; 4]; 2];
    let (load, store, three) = (&[REG | L, RM | L], &[RM | L, REG | L], &[REG | L, VVVV | L, RM | L]);
    t[0][0][0x10] = long(Code::VEX_Vmovups_xmm_xmmm128, load);
    t[0][0][0x11] = long(Code::VEX_Vmovups_xmmm128_xmm, store);
    t[0][0][0x28] = long(Code::VEX_Vmovaps_xmm_xmmm128, load);
    t[0][0][0x29] = long(Code::VEX_Vmovaps_xmmm128_xmm, store);
    t[0][0][0x57] = long(Code::VEX_Vxorps_xmm_xmm_xmmm128, three);
    t[0][0][0x77] = fixed(Code::VEX_Vzeroupper, &[]);
    t[0][P66][0x6e] = wide(Code::VEX_Vmovd_xmm_rm32, &[REG | X, RM | Y]);
    t[0][P66][0x6f] = long(Code::VEX_Vmovdqa_xmm_xmmm128, load);
    t[0][P66][0x74] = long(Code::VEX_Vpcmpeqb_xmm_xmm_xmmm128, three);
    t[0][P66][0x75] = long(Code::VEX_Vpcmpeqw_xmm_xmm_xmmm128, three);
    t[0][P66][0x76] = long(Code::VEX_Vpcmpeqd_xmm_xmm_xmmm128, three);
    t[0][P66][0x7e] = wide(Code::VEX_Vmovd_rm32_xmm, &[RM | Y, REG | X]);
    t[0][P66][0x7f] = long(Code::VEX_Vmovdqa_xmmm128_xmm, store);
    t[0][P66][0xd6] = fixed(Code::VEX_Vmovq_xmmm64_xmm, &[RM | X, REG | X]);
    t[0][P66][0xd7] = op(Code::VEX_Vpmovmskb_r32_xmm, Step::Long(2), &[REG | D, RM_REG | L]);
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
    t[1][P66][0x78] = long(Code::VEX_Vpbroadcastb_xmm_xmmm8, &[REG | L, RM | X]);
    t[1][P66][0xf7] = wide(Code::VEX_Shlx_r32_rm32_r32, &[REG | Y, RM | Y, VVVV | Y]);
    t[1][PF3][0xf7] = wide(Code::VEX_Sarx_r32_rm32_r32, &[REG | Y, RM | Y, VVVV | Y]);
    t[1][PF2][0xf7] = wide(Code::VEX_Shrx_r32_rm32_r32, &[REG | Y, RM | Y, VVVV | Y]);
    t
}

/// The bits of a VEX prefix (SDM vol. 2, 2.3.5), those that are stored inverted put right.
struct Vex {
    long: bool,
    vvvv: usize,
}

/// What a byte is before the opcode: 0 nothing, or one of these constants; [`SEG`] has the segment's index in its low bits.
static PREFIX: [u8; 256] = {
    let mut t = [0; 256];
    let mut n = 0x40;
    while n < 0x50 {
        t[n] = REX;
        n += 1;
    }
    t[0x66] = SIZE;
    t[0x67] = ADDRESS;
    t[0xf0] = LOCK;
    t[0xf2] = REPNE;
    t[0xf3] = REP;
    t[0x2e] = SEG | 1;
    t[0x3e] = SEG | 3;
    t[0x64] = SEG | 4;
    t[0x65] = SEG | 5;
    t
};
const REX: u8 = 0x80;
const SEG: u8 = 0x40;
const SIZE: u8 = 8;
const ADDRESS: u8 = 9;
const LOCK: u8 = 0x10;
const REPNE: u8 = 0x20;
const REP: u8 = 0x28;
const SEGMENTS: [Register; 6] = [Register::ES, Register::CS, Register::SS, Register::DS, Register::FS, Register::GS];

/// Register files by operand class, for every way the sizes can be: see [`sizes`].
static FILES: [[u8; 8]; 16] = {
    let mut t = [[0; 8]; 16];
    let mut n = 0;
    while n < 16 {
        let (rex, size, long) = (n & 1, n >> 1 & 3, n >> 3);
        let (words, xmm) = (WORDS as u8, XMMS as u8);
        let wide = (size == 2) as u8;
        t[n] = [
            (BYTES + rex) as u8,
            words + size as u8,
            words + 1 + wide,
            words,
            words + 1,
            words + 2,
            xmm,
            xmm + long as u8,
        ];
        n += 1;
    }
    t
};

/// Index into [`FILES`]: whether there is a REX prefix, the operand size (0, 1, 2: 16, 32, 64 bits), VEX.L.
fn sizes(rex: u8, size: usize, long: bool) -> usize {
    usize::from(rex != 0) | size << 1 | usize::from(long) << 3
}

/// The ModRM byte, and what follows from it and the prefixes.
#[derive(Clone, Copy)]
struct Form {
    mode: u8,
    reg: usize,
    rm: usize,
    vvvv: usize,
    /// Low bits of the opcode, with REX.B.
    low: usize,
    /// 0, 1, 2: 16, 32, 64 bits.
    size: usize,
    files: &'static [u8; 8],
}

impl Form {
    /// Register `n` of the file of an argument's class.
    fn register(&self, arg: u8, n: usize) -> Register {
        REGS[usize::from(self.files[usize::from(arg & 7)] & 7)][n & 15]
    }
}

/// What stands before the opcode.
#[derive(Clone, Copy, Default)]
struct Prefixes {
    rex: u8,
    size: bool,
    address: bool,
    rep: u8,
    locked: bool,
    segment: u8,
}

/// Reads prefixes from `byte` on; the opcode's first byte comes back. `None` for combinations left to iced.
#[inline(never)]
fn prefixes(b: &mut Bytes<'_>, mut byte: u8) -> Option<(Prefixes, u8)> {
    let mut p = Prefixes::default();
    while b.at <= 8 {
        match PREFIX[usize::from(byte)] {
            0 => return Some((p, byte)),
            REX => {
                p.rex = byte;
                return Some((p, b.u8()));
            }
            SIZE => p.size = true,
            ADDRESS => p.address = true,
            LOCK => p.locked = true,
            REP | REPNE if p.rep == 0 => p.rep = byte,
            s if s & SEG != 0 && p.segment == 0 => p.segment = s,
            _ => return None,
        }
        byte = b.u8();
    }
    None
}

struct Bytes<'a> {
    b: &'a [u8; READABLE],
    at: usize,
}

impl Bytes<'_> {
    fn u8(&mut self) -> u8 {
        let v = self.b[self.at & 15];
        self.at += 1;
        v
    }

    fn i8(&mut self) -> i8 {
        self.u8() as i8
    }

    fn u16(&mut self) -> u16 {
        let s = &self.b[self.at & 15..];
        self.at += 2;
        u16::from_le_bytes([s[0], s[1]])
    }

    fn u32(&mut self) -> u32 {
        let s = &self.b[self.at & 15..];
        self.at += 4;
        u32::from_le_bytes([s[0], s[1], s[2], s[3]])
    }

    fn u64(&mut self) -> u64 {
        let s = &self.b[self.at & 15..];
        self.at += 8;
        u64::from_le_bytes([s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]])
    }
}

/// Decodes the instruction at `pc` whose bytes are at the start of `bytes`. False, with `i` undefined, when it is not one for the tables.
pub fn decode(bytes: &[u8; READABLE], pc: u64, i: &mut Instruction) -> bool {
    let mut b = Bytes { b: bytes, at: 0 };
    *i = Instruction::default();
    let mut byte = b.u8();
    let mut p = Prefixes::default();
    match PREFIX[usize::from(byte)] {
        0 => {}
        REX => {
            p.rex = byte;
            byte = b.u8();
        }
        _ => match prefixes(&mut b, byte) {
            Some((found, opcode)) => (p, byte) = (found, opcode),
            None => return false,
        },
    }
    let mut vex = Vex { long: false, vvvv: 0 };
    // 66 may be a part of the opcode.
    let mut size_is_opcode = false;
    let mut op = match byte {
        0x0f => {
            byte = b.u8();
            let table = match std::mem::take(&mut p.rep) {
                0xf3 => PF3,
                0xf2 => PF2,
                _ => {
                    size_is_opcode = p.size;
                    usize::from(p.size)
                }
            };
            if byte == 0x38 || byte == 0x3a {
                let third = b.u8();
                match (table, byte, third) {
                    (P66, 0x38, 0x00) => &PSHUFB,
                    (P66, 0x38, 0x17) => &PTEST,
                    (P66, 0x3a, 0x0f) => &PALIGNR,
                    (P66, 0x3a, 0x63) => &PCMPISTRI,
                    _ => &NO_ROW,
                }
            } else {
                &TWO_BYTES[table][usize::from(byte)]
            }
        }
        0xc4 | 0xc5 => {
            if p.rex != 0 || p.size || p.address || p.locked || p.rep != 0 {
                return false;
            }
            let first = b.u8();
            // The shorter form has R in the same place, and X, B, W and the map's number left out.
            let (last, map, low) =
                if byte == 0xc5 { (first & 0x7f, 1, 0) } else { (b.u8(), first & 31, !first >> 5 & 3) };
            p.rex = 0x40 | (!first >> 5) & 4 | low | (last >> 4) & 8;
            vex = Vex { long: last & 4 != 0, vvvv: usize::from(!last >> 3 & 15) };
            byte = b.u8();
            if map != 1 && map != 2 {
                return false;
            }
            // The mandatory prefixes are numbered as here.
            &VEX[usize::from(map) - 1][usize::from(last & 3)][usize::from(byte)]
        }
        0x90 if p.rep == 0xf3 && !p.size => {
            p.rep = 0;
            &PAUSE
        }
        // XCHG with R8.
        0x90 if p.rex & 1 != 0 => &NO_ROW,
        _ => &ONE_BYTE[usize::from(byte)],
    };
    let rex = p.rex;
    let w = rex & 8 != 0;
    // REP belongs to string instructions; an address size without an address (the linker makes such calls) is nothing.
    if p.rep != 0 && (p.rep != 0xf3 || op.args[0] != TO) || p.address && op.args[0] != REL32 {
        return false;
    }
    let mut m = 0;
    if op.modrm {
        m = b.u8();
        if op.args[0] == GROUP {
            op = &GROUP_ROWS[usize::from(op.code) % GROUPS][usize::from(m >> 3 & 7)];
        }
    }
    if op.code == 0 {
        return false;
    }
    let size = if w { 2 } else { usize::from(!p.size) };
    let code = match op.step {
        Step::Size if !vex.long => op.code + size as u16,
        Step::Long(further) if !w => op.code + u16::from(further) * u16::from(vex.long),
        _ if vex.long => return false,
        Step::Fixed | Step::Long(_) if w => return false,
        Step::Fixed | Step::Wide if p.size && !size_is_opcode => return false,
        Step::Wide => op.code + u16::from(w),
        _ => op.code,
    };
    let form = Form {
        mode: m >> 6,
        reg: usize::from(m >> 3 & 7 | (rex & 4) << 1),
        rm: usize::from(m & 7 | (rex & 1) << 3),
        vvvv: vex.vvvv,
        low: usize::from(byte & 7 | (rex & 1) << 3),
        size,
        files: &FILES[sizes(rex, size, vex.long) & 15],
    };
    let Ok(code) = Code::try_from(usize::from(code)) else { return false };
    i.set_code(code);
    i.set_code_size(CodeSize::Code64);
    if p.segment != 0 {
        i.set_segment_prefix(SEGMENTS[usize::from(p.segment & 7) % SEGMENTS.len()]);
    }
    if p.locked {
        if !op.lock || form.mode == 3 {
            return false;
        }
        i.set_has_lock_prefix(true);
    }
    if p.rep != 0 {
        i.set_has_rep_prefix(true);
    }
    let [x, y, z] = op.args;
    let in_memory = form.mode != 3;
    let rip = op.modrm && x != EXACT && in_memory && memory(i, &mut b, &form, rex);
    match op.shape {
        Shape::RegRm => {
            i.set_op0_register(form.register(x, form.reg));
            if in_memory {
                i.set_op1_kind(OpKind::Memory);
            } else {
                i.set_op1_register(form.register(y, form.rm));
            }
        }
        Shape::RmReg => {
            i.set_op1_register(form.register(y, form.reg));
            if in_memory {
                i.set_op0_kind(OpKind::Memory);
            } else {
                i.set_op0_register(form.register(x, form.rm));
            }
        }
        Shape::RmAny => {
            if in_memory {
                i.set_op0_kind(OpKind::Memory);
            } else {
                i.set_op0_register(form.register(x, form.rm));
            }
            if !arg::<1>(i, y, &mut b, &form) {
                return false;
            }
        }
        Shape::Any if x == EXACT => {
            if m != y {
                return false;
            }
        }
        Shape::Any => {
            if x != 0 && !arg::<0>(i, x, &mut b, &form) || y != 0 && !arg::<1>(i, y, &mut b, &form) {
                return false;
            }
        }
    }
    if z != 0 && !arg::<2>(i, z, &mut b, &form) {
        return false;
    }
    if b.at > MAX_LEN || vex.vvvv != 0 && ![x, y, z].iter().any(|a| a & 0xf0 == VVVV) {
        return false;
    }
    i.set_len(b.at);
    let next = pc.wrapping_add(b.at as u64);
    i.set_next_ip(next);
    if rip {
        i.set_memory_displacement64(next.wrapping_add(i.memory_displacement64()));
    } else if matches!(x, REL8 | REL32) {
        i.set_near_branch64(next.wrapping_add(i.near_branch64()));
    }
    true
}

/// The memory operand (SDM vol. 2, 2.1.5). True if it is relative to the next instruction's address.
fn memory(i: &mut Instruction, b: &mut Bytes<'_>, form: &Form, rex: u8) -> bool {
    let addresses = &REGS[WORDS + 2];
    let mut base = form.rm;
    if form.rm & 7 == 4 {
        let sib = b.u8();
        i.set_memory_index_scale(1 << (sib >> 6));
        let index = usize::from(sib >> 3 & 7 | (rex & 2) << 2);
        if index != 4 {
            i.set_memory_index(addresses[index & 15]);
        }
        base = usize::from(sib & 7 | (rex & 1) << 3);
        if form.mode == 0 && base & 7 == 5 {
            i.set_memory_displ_size(8);
            i.set_memory_displacement64(b.u32() as i32 as u64);
            return false;
        }
    } else if form.mode == 0 && form.rm & 7 == 5 {
        i.set_memory_base(Register::RIP);
        i.set_memory_displ_size(8);
        i.set_memory_displacement64(b.u32() as i32 as u64);
        return true;
    }
    i.set_memory_base(addresses[base & 15]);
    match form.mode {
        1 => {
            i.set_memory_displ_size(1);
            i.set_memory_displacement64(b.i8() as u64);
        }
        2 => {
            i.set_memory_displ_size(8);
            i.set_memory_displacement64(b.u32() as i32 as u64);
        }
        _ => {}
    }
    false
}

fn set_register<const N: u32>(i: &mut Instruction, r: Register) {
    match N {
        0 => i.set_op0_register(r),
        1 => i.set_op1_register(r),
        _ => i.set_op2_register(r),
    }
}

fn set_kind<const N: u32>(i: &mut Instruction, k: OpKind) {
    match N {
        0 => i.set_op0_kind(k),
        1 => i.set_op1_kind(k),
        _ => i.set_op2_kind(k),
    }
}

/// Operand `N`. False when the form is not allowed.
fn arg<const N: u32>(i: &mut Instruction, arg: u8, b: &mut Bytes<'_>, form: &Form) -> bool {
    match arg & 0xf0 {
        REG => set_register::<N>(i, form.register(arg, form.reg)),
        RM | RM_REG if form.mode == 3 => set_register::<N>(i, form.register(arg, form.rm)),
        RM => set_kind::<N>(i, OpKind::Memory),
        MEM if form.mode != 3 => set_kind::<N>(i, OpKind::Memory),
        VVVV => set_register::<N>(i, form.register(arg, form.vvvv)),
        OPCODE => set_register::<N>(i, form.register(arg, form.low)),
        ACC => set_register::<N>(i, form.register(arg, 0)),
        CL => set_register::<N>(i, Register::CL),
        from::STRING => {
            let kind = if arg == TO { OpKind::MemoryESRDI } else { OpKind::MemorySegRSI };
            set_kind::<N>(i, kind);
        }
        REL8 => {
            set_kind::<N>(i, OpKind::NearBranch64);
            i.set_near_branch64(b.i8() as u64);
        }
        REL32 => {
            set_kind::<N>(i, OpKind::NearBranch64);
            i.set_near_branch64(b.u32() as i32 as u64);
        }
        from::IMM => immediate::<N>(i, arg & 15, b, form.size),
        _ => return false,
    }
    true
}

fn immediate<const N: u32>(i: &mut Instruction, kind: u8, b: &mut Bytes<'_>, size: usize) {
    match (kind, size) {
        (imm::BYTE, _) => {
            set_kind::<N>(i, OpKind::Immediate8);
            i.set_immediate8(b.u8());
        }
        (imm::ONE, _) => {
            set_kind::<N>(i, OpKind::Immediate8);
            i.set_immediate8(1);
        }
        (imm::BYTE_V, 0) => {
            set_kind::<N>(i, OpKind::Immediate8to16);
            i.set_immediate8(b.u8());
        }
        (imm::BYTE_V, 1) => {
            set_kind::<N>(i, OpKind::Immediate8to32);
            i.set_immediate8(b.u8());
        }
        (imm::BYTE_V | imm::BYTE_Q, _) => {
            set_kind::<N>(i, OpKind::Immediate8to64);
            i.set_immediate8(b.u8());
        }
        (imm::Z | imm::FULL, 0) => {
            set_kind::<N>(i, OpKind::Immediate16);
            i.set_immediate16(b.u16());
        }
        (imm::Z | imm::FULL, 1) => {
            set_kind::<N>(i, OpKind::Immediate32);
            i.set_immediate32(b.u32());
        }
        (imm::FULL, _) => {
            set_kind::<N>(i, OpKind::Immediate64);
            i.set_immediate64(b.u64());
        }
        _ => {
            set_kind::<N>(i, OpKind::Immediate32to64);
            i.set_immediate32(b.u32());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

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
        let (mut taken, mut n) = (0u32, 0u64);
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
                            if !got.eq_all_bits(&want) {
                                differ.entry((prefixes, opcode)).or_insert((bytes, got, want));
                            }
                            taken += 1;
                        }
                    }
                }
            }
        }
        assert!(differ.is_empty(), "{differ:#02x?}");
        // Most of the commonest opcodes, under every prefix they are taken with.
        assert!(taken > 1_000_000, "{taken}");
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
}

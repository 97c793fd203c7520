//! A row of the tables: an encoding's code and how its operands are found.

use iced_x86::Code;

/// Operand classes: how wide a register is.
pub mod class {
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
pub mod from {
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
pub mod imm {
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

use from::{EXACT, GROUP, MEM, OPCODE, REG, REL8, REL32, RM, RM_REG, VVVV};
pub const TO: u8 = from::STRING;
pub const FROM: u8 = from::STRING | 1;
pub const IB: u8 = from::IMM | imm::BYTE;
pub const IB_V: u8 = from::IMM | imm::BYTE_V;
pub const IB_Q: u8 = from::IMM | imm::BYTE_Q;
pub const IZ: u8 = from::IMM | imm::Z;
pub const IZ_Q: u8 = from::IMM | imm::Z_Q;
pub const IV: u8 = from::IMM | imm::FULL;
pub const ONE: u8 = from::IMM | imm::ONE;

/// What is added to a row's code, a hexadecimal digit for each [`choice`]; [`NO`]: it is none of this row.
pub type Steps = u32;
pub const NO: u32 = 15;
/// Always the same; neither 66 nor REX.W may stand before.
const FIXED: Steps = 0xffff_fff0;
/// This code, the next or the one after, for 16, 32 and 64 bits.
const SIZE: Steps = 0xffff_2021;
/// This code, or the next with REX.W or VEX.W.
const WIDE: Steps = 0xffff_ff10;

/// The number of a digit in [`Steps`]: REX.W or VEX.W, 66, VEX.L.
pub fn choice(w: bool, size: bool, long: bool) -> u32 {
    u32::from(w) | u32::from(size) << 1 | u32::from(long) << 2
}

/// The commonest operands, which are set without asking for each where it comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    RegRm,
    RmReg,
    RegMem,
    /// The ModRM's register or memory operand, and another.
    RmAny,
    /// The opcode's register alone.
    Opcode,
    Rel8,
    Rel32,
    Any,
}

/// Whether a ModRM byte follows the opcode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ModRm {
    No,
    Yes,
    /// And it must be this one.
    Exact,
    /// And its register field is a part of the opcode.
    Group,
}

#[derive(Clone, Copy)]
pub struct Op {
    pub steps: Steps,
    /// [`Code`]; 0 where there is no row. The number of a group.
    pub code: u16,
    pub shape: Shape,
    pub modrm: ModRm,
    /// LOCK is allowed when the operand is in memory.
    pub lock: bool,
    /// How many bytes of constants there are: an index into [`CONSTANTS`].
    pub constant: u8,
    pub args: [u8; 3],
}

/// Bytes of constants after the opcode and the memory operand, for operands of 16, 32 and 64 bits.
pub static CONSTANTS: [[u8; 4]; 4] = [[0, 0, 0, 0], [1, 1, 1, 0], [2, 4, 4, 0], [2, 4, 8, 0]];

/// The index of an argument's constant into [`CONSTANTS`].
const fn constant(arg: u8) -> u8 {
    match arg {
        IB | IB_V | IB_Q | REL8 => 1,
        IZ => 2,
        // Of 32 bits; there is no form for 16.
        IZ_Q | REL32 => 2,
        IV => 3,
        _ => 0,
    }
}

pub const NOTHING: Op =
    Op { steps: FIXED, code: 0, shape: Shape::Any, modrm: ModRm::No, lock: false, constant: 0, args: [0; 3] };

const fn op(code: Code, steps: Steps, args: &[u8]) -> Op {
    let mut o = Op { code: code as u16, steps, ..NOTHING };
    let mut n = 0;
    while n < args.len() {
        o.args[n] = args[n];
        if matches!(args[n] & 0xf0, REG | RM | MEM | RM_REG) && o.args[0] != EXACT {
            o.modrm = ModRm::Yes;
        }
        if o.args[0] != EXACT && constant(args[n]) != 0 {
            o.constant = constant(args[n]);
        }
        n += 1;
    }
    if o.args[0] == EXACT {
        o.modrm = ModRm::Exact;
    }
    o.shape = match (o.args[0] & 0xf0, o.args[1] & 0xf0) {
        (REG, RM) => Shape::RegRm,
        (RM, REG) => Shape::RmReg,
        (REG, MEM) => Shape::RegMem,
        (RM, second) if second != 0 => Shape::RmAny,
        (OPCODE, 0) => Shape::Opcode,
        (REL8, _) => Shape::Rel8,
        (REL32, _) => Shape::Rel32,
        _ => Shape::Any,
    };
    o
}

pub const fn fixed(code: Code, args: &[u8]) -> Op {
    op(code, FIXED, args)
}

pub const fn sized(code: Code, args: &[u8]) -> Op {
    op(code, SIZE, args)
}

pub const fn wide(code: Code, args: &[u8]) -> Op {
    op(code, WIDE, args)
}

/// This code, or the next with VEX.L.
pub const fn long(code: Code, args: &[u8]) -> Op {
    longer(code, 1, args)
}

/// This code, or the one so many further with VEX.L.
pub const fn longer(code: Code, further: u32, args: &[u8]) -> Op {
    op(code, 0xfff0_fff0 | further << 16, args)
}

/// The same row where 66 is a part of the opcode. Where it is an operand size still, nothing changes.
pub const fn with_66(o: Op) -> Op {
    if o.steps == SIZE { o } else { Op { steps: o.steps << 8 | 0xff, ..o } }
}

pub const fn lock(o: Op) -> Op {
    Op { lock: true, ..o }
}

pub const fn group(n: u16) -> Op {
    Op { code: n, modrm: ModRm::Group, args: [GROUP, 0, 0], ..NOTHING }
}

pub const fn after(c: Code, n: u16) -> u16 {
    c as u16 + n
}

/// The row of another code with the same operands.
pub const fn recode(o: Op, code: u16) -> Op {
    Op { code, ..o }
}

/// Whether VEX.vvvv names an operand.
pub fn takes_vvvv(o: &Op) -> bool {
    o.args.iter().any(|a| a & 0xf0 == VVVV)
}

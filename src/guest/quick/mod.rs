//! Decodes the commonest encodings, from tables that are constants. Most code is decoded once and run once or a few times, so that decoding is a good part
//! of its price, and iced's own tables are built at first use, which costs more than a small program. What these tables do not
//! hold, and every combination of prefixes that is out of the ordinary, is left to iced. What is decoded here is equal to iced's result in
//! every bit: the tests compare all opcodes with all prefixes and operand forms.
//!
//! A row says how the operands are encoded (SDM vol. 2, appendix A.2 and A.3: G is the register and E the register or memory operand of a ModRM
//! byte, and so on).

mod primary;
mod row;
mod secondary;
#[cfg(test)]
mod tests;
mod vex;

use super::flags::Traits;
use iced_x86::{Code, CodeSize, Instruction, OpKind, Register};
use primary::{GROUP_ROWS, GROUPS, ONE_BYTE};
use row::from::{self, ACC, CL, MEM, OPCODE, REG, REL32, RM, RM_REG, VVVV};
use row::{CONSTANTS, ModRm, NO, Op, Shape, TO, choice, fixed, imm, sized, takes_vvvv};
use secondary::{
    MOVBE_LOAD, MOVBE_STORE, MOVHLPS, MOVLHPS, P66, PALIGNR, PCMPISTRI, PF2, PF3, PSHUFB, PTEST, TWO_BYTES,
};
use vex::VEX;

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
    memory: bool,
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
    size: bool,
    /// Any of those that follow is there.
    rare: bool,
    address: bool,
    rep: u8,
    locked: bool,
    segment: u8,
}

/// Reads prefixes from the first byte on. What comes back besides: REX or 0, the opcode's first byte, and how many bytes that were. `None` for combinations
/// left to iced.
#[inline(never)]
fn prefixes(bytes: &[u8; READABLE]) -> Option<(Prefixes, u8, u8, usize)> {
    let mut p = Prefixes::default();
    for at in 0..9 {
        let byte = bytes[at];
        match PREFIX[usize::from(byte)] {
            0 => return Some((p, 0, byte, at + 1)),
            REX => return Some((p, byte, bytes[at + 1], at + 2)),
            SIZE => p.size = true,
            other => {
                p.rare = true;
                match other {
                    ADDRESS => p.address = true,
                    LOCK => p.locked = true,
                    REP | REPNE if p.rep == 0 => p.rep = byte,
                    s if s & SEG != 0 && p.segment == 0 => p.segment = s,
                    _ => return None,
                }
            }
        }
    }
    None
}

fn i8_at(b: &[u8; READABLE], at: usize) -> i8 {
    b[at & 15] as i8
}

fn u16_at(b: &[u8; READABLE], at: usize) -> u16 {
    let s = &b[at & 15..];
    u16::from_le_bytes([s[0], s[1]])
}

fn u32_at(b: &[u8; READABLE], at: usize) -> u32 {
    let s = &b[at & 15..];
    u32::from_le_bytes([s[0], s[1], s[2], s[3]])
}

fn i32_at(b: &[u8; READABLE], at: usize) -> i32 {
    u32_at(b, at) as i32
}

fn u64_at(b: &[u8; READABLE], at: usize) -> u64 {
    let s = &b[at & 15..];
    u64::from_le_bytes([s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]])
}

/// An instruction up to its ModRM byte.
struct Opened {
    op: &'static Op,
    code: Code,
    prefixes: Prefixes,
    rex: u8,
    /// VEX.L and VEX.vvvv.
    long: bool,
    vvvv: u8,
    /// 0, 1, 2: 16, 32, 64 bits.
    size: usize,
    /// The opcode's last byte.
    byte: u8,
    modrm: u8,
    /// It has a memory operand.
    memory: bool,
    /// How many bytes that were.
    at: usize,
}

/// Where opcodes other than those of the first table are: after 0F and VEX, and 90. With 66 as a part of the opcode it is no operand size.
struct Escape {
    op: &'static Op,
    rex: u8,
    long: bool,
    vvvv: u8,
    byte: u8,
    at: usize,
}

static NOP: Op = sized(Code::Nopw, &[]);
static PAUSE: Op = fixed(Code::Pause, &[]);

/// Finds the row of an opcode that the first table does not have, whose first byte, `byte`, ends before `at`.
#[inline(never)]
fn escape(b: &[u8; READABLE], p: &mut Prefixes, rex: u8, byte: u8, mut at: usize) -> Option<Escape> {
    let next = |at: &mut usize| {
        *at += 1;
        b[(*at - 1) & 15]
    };
    match byte {
        0x0f => {
            let table = match std::mem::take(&mut p.rep) {
                0xf3 => PF3,
                0xf2 => PF2,
                _ => usize::from(p.size),
            };
            let mut byte = next(&mut at);
            let op = if byte == 0x38 || byte == 0x3a {
                let map = byte;
                byte = next(&mut at);
                match (table, map, byte) {
                    (P66, 0x38, 0x00) => &PSHUFB,
                    (P66, 0x38, 0x17) => &PTEST,
                    (0 | P66, 0x38, 0xf0) => &MOVBE_LOAD,
                    (0 | P66, 0x38, 0xf1) => &MOVBE_STORE,
                    (P66, 0x3a, 0x0f) => &PALIGNR,
                    (P66, 0x3a, 0x63) => &PCMPISTRI,
                    _ => return None,
                }
            } else {
                match (table, byte) {
                    (0, 0x12) if b[at & 15] >= 0xc0 => &MOVHLPS,
                    (0, 0x16) if b[at & 15] >= 0xc0 => &MOVLHPS,
                    _ => &TWO_BYTES[table][usize::from(byte)],
                }
            };
            Some(Escape { op, rex, long: false, vvvv: 0, byte, at })
        }
        0xc4 | 0xc5 => {
            if rex != 0 || p.size || p.address || p.locked || p.rep != 0 {
                return None;
            }
            let first = next(&mut at);
            // The shorter form has R in the same place, and X, B, W and the map's number left out.
            let (last, map, low) =
                if byte == 0xc5 { (first & 0x7f, 1, 0) } else { (next(&mut at), first & 31, !first >> 5 & 3) };
            if map != 1 && map != 2 {
                return None;
            }
            let byte = next(&mut at);
            // The mandatory prefixes are numbered as here.
            let op = &VEX[usize::from(map) - 1][usize::from(last & 3)][usize::from(byte)];
            let rex = 0x40 | (!first >> 5) & 4 | low | (last >> 4) & 8;
            Some(Escape { op, rex, long: last & 4 != 0, vvvv: !last >> 3 & 15, byte, at })
        }
        0x90 => {
            let op = match p.rep {
                0xf3 if !p.size => {
                    p.rep = 0;
                    &PAUSE
                }
                // Else XCHG with R8.
                _ if rex & 1 == 0 => &NOP,
                _ => return None,
            };
            Some(Escape { op, rex, long: false, vvvv: 0, byte, at })
        }
        _ => None,
    }
}

/// Reads prefixes, opcode and ModRM byte. `None` when the instruction is not one for the tables.
#[inline(always)]
fn open(b: &[u8; READABLE]) -> Option<Opened> {
    let (mut rex, mut byte, mut at, mut p) = (0, b[0], 1, Prefixes::default());
    match PREFIX[usize::from(byte)] {
        0 => {}
        REX => (rex, byte, at) = (byte, b[1], 2),
        _ => (p, rex, byte, at) = prefixes(b)?,
    }
    let (mut op, mut long, mut vvvv) = (&ONE_BYTE[usize::from(byte)], false, 0);
    let is_group = op.modrm == ModRm::Group;
    if op.code == 0 && !is_group {
        let e = escape(b, &mut p, rex, byte, at)?;
        (op, rex, long, vvvv, byte, at) = (e.op, e.rex, e.long, e.vvvv, e.byte, e.at);
    }
    let mut modrm = 0xc0;
    if op.modrm != ModRm::No {
        modrm = b[at & 15];
        at += 1;
        match op.modrm {
            ModRm::Group => op = &GROUP_ROWS[usize::from(op.code) % GROUPS][usize::from(modrm >> 3 & 7)],
            ModRm::Exact if modrm != op.args[1] => return None,
            _ => {}
        }
    }
    let memory = modrm < 0xc0 && op.modrm == ModRm::Yes;
    if p.rare {
        // REP belongs to string instructions; an address size without an address (the linker makes such calls) is nothing.
        let rep = p.rep != 0 && (p.rep != 0xf3 || op.args[0] != TO);
        if rep || p.address && op.args[0] != REL32 || p.locked && !(op.lock && memory) {
            return None;
        }
    }
    let w = rex & 8 != 0;
    let step = op.steps >> (4 * choice(w, p.size, long)) & 15;
    if op.code == 0 || step == NO || vvvv != 0 && !takes_vvvv(op) {
        return None;
    }
    let code = Code::try_from(usize::from(op.code) + step as usize).ok()?;
    let size = if w { 2 } else { usize::from(!p.size) };
    Some(Opened { op, code, prefixes: p, rex, long, vvvv, size, byte, modrm, memory, at })
}

/// What [`scan`] finds.
pub struct Scanned {
    pub len: usize,
    pub traits: Traits,
    /// How far from its end a direct branch goes.
    pub branch: Option<i64>,
}

/// The length of the instruction at the start of `b`, and what its code says of it, where that is all that is asked. `None` when more of the
/// instruction has to
/// be looked at, or it is not one for the tables.
pub fn scan(b: &[u8; READABLE]) -> Option<Scanned> {
    let o = open(b)?;
    let traits = Traits::noted(o.code)?;
    let mut at = o.at;
    match o.op.shape {
        Shape::Rel8 => return Some(Scanned { len: at + 1, traits, branch: Some(i8_at(b, at).into()) }),
        Shape::Rel32 => {
            let found = Scanned { len: at + 4, traits, branch: Some(i32_at(b, at).into()) };
            return (at + 4 <= MAX_LEN).then_some(found);
        }
        Shape::RegMem if !o.memory => return None,
        Shape::Any if !forms_allowed(&o) => return None,
        _ => {}
    }
    if o.memory {
        let (mode, rm) = (o.modrm >> 6, o.modrm & 7);
        let base = if rm == 4 {
            at += 1;
            b[(at - 1) & 15] & 7
        } else {
            rm
        };
        at += match mode {
            0 if base == 5 => 4,
            0 => 0,
            1 => 1,
            _ => 4,
        };
    }
    at += usize::from(CONSTANTS[usize::from(o.op.constant & 3)][o.size & 3]);
    (at <= MAX_LEN && o.prefixes.rep == 0).then_some(Scanned { len: at, traits, branch: None })
}

/// Whether operands that must be in memory are, and those that must not are not.
fn forms_allowed(o: &Opened) -> bool {
    o.op.modrm != ModRm::Yes
        || o.op.args.iter().all(|a| match a & 0xf0 {
            MEM => o.memory,
            RM_REG => !o.memory,
            _ => true,
        })
}

/// Decodes the instruction at `pc` whose bytes are at the start of `bytes`. False, with `i` undefined, when it is not one for the tables.
pub fn decode(bytes: &[u8; READABLE], pc: u64, i: &mut Instruction) -> bool {
    let Some(o) = open(bytes) else { return false };
    *i = Instruction::default();
    i.set_code_size(CodeSize::Code64);
    i.set_code(o.code);
    let form = Form {
        memory: o.memory,
        reg: usize::from(o.modrm >> 3 & 7 | (o.rex & 4) << 1),
        rm: usize::from(o.modrm & 7 | (o.rex & 1) << 3),
        vvvv: usize::from(o.vvvv),
        low: usize::from(o.byte & 7 | (o.rex & 1) << 3),
        size: o.size,
        files: &FILES[sizes(o.rex, o.size, o.long) & 15],
    };
    if o.prefixes.rare {
        if o.prefixes.segment != 0 {
            i.set_segment_prefix(SEGMENTS[usize::from(o.prefixes.segment & 7) % SEGMENTS.len()]);
        }
        i.set_has_lock_prefix(o.prefixes.locked);
        i.set_has_rep_prefix(o.prefixes.rep != 0);
    }
    let (mut at, mut rip) = (o.at, false);
    if o.memory {
        (at, rip) = memory(i, bytes, at, o.modrm, o.rex);
    }
    let [x, y, z] = o.op.args;
    let mut branch = false;
    match o.op.shape {
        Shape::RegRm => {
            i.set_op0_register(form.register(x, form.reg));
            if o.memory {
                i.set_op1_kind(OpKind::Memory);
            } else {
                i.set_op1_register(form.register(y, form.rm));
            }
        }
        Shape::RmReg => {
            i.set_op1_register(form.register(y, form.reg));
            if o.memory {
                i.set_op0_kind(OpKind::Memory);
            } else {
                i.set_op0_register(form.register(x, form.rm));
            }
        }
        Shape::RegMem => {
            if !o.memory {
                return false;
            }
            i.set_op0_register(form.register(x, form.reg));
            i.set_op1_kind(OpKind::Memory);
        }
        Shape::Opcode => i.set_op0_register(form.register(x, form.low)),
        Shape::Rel8 | Shape::Rel32 => {
            i.set_op0_kind(OpKind::NearBranch64);
            let short = o.op.shape == Shape::Rel8;
            i.set_near_branch64(if short { i8_at(bytes, at) as u64 } else { i32_at(bytes, at) as u64 });
            at += if short { 1 } else { 4 };
            branch = true;
        }
        Shape::RmAny => {
            if o.memory {
                i.set_op0_kind(OpKind::Memory);
            } else {
                i.set_op0_register(form.register(x, form.rm));
            }
            at = arg::<1>(i, y, bytes, at, &form);
        }
        Shape::Any => {
            if !forms_allowed(&o) {
                return false;
            }
            if o.op.modrm != ModRm::Exact && x != 0 {
                at = arg::<0>(i, x, bytes, at, &form);
                if y != 0 {
                    at = arg::<1>(i, y, bytes, at, &form);
                }
            }
        }
    }
    if z != 0 {
        at = arg::<2>(i, z, bytes, at, &form);
    }
    if at > MAX_LEN {
        return false;
    }
    i.set_len(at);
    let next = pc.wrapping_add(at as u64);
    i.set_next_ip(next);
    if rip {
        i.set_memory_displacement64(next.wrapping_add(i.memory_displacement64()));
    } else if branch {
        i.set_near_branch64(next.wrapping_add(i.near_branch64()));
    }
    true
}

/// The memory operand, encoded from `at` on (SDM vol. 2, 2.1.5). Gives where it ends, and whether it is relative to the next instruction's address.
fn memory(i: &mut Instruction, b: &[u8; READABLE], mut at: usize, modrm: u8, rex: u8) -> (usize, bool) {
    let addresses = &REGS[WORDS + 2];
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let mut base = rm;
    if rm == 4 {
        let sib = b[at & 15];
        at += 1;
        i.set_memory_index_scale(1 << (sib >> 6));
        let index = usize::from(sib >> 3 & 7 | (rex & 2) << 2);
        if index != 4 {
            i.set_memory_index(addresses[index & 15]);
        }
        base = sib & 7;
    }
    if mode == 0 && base == 5 {
        // Without SIB relative to RIP, with one an address alone.
        let relative = rm == 5;
        if relative {
            i.set_memory_base(Register::RIP);
        }
        i.set_memory_displ_size(8);
        i.set_memory_displacement64(i32_at(b, at) as u64);
        return (at + 4, relative);
    }
    i.set_memory_base(addresses[usize::from(base | (rex & 1) << 3) & 15]);
    match mode {
        0 => (at, false),
        1 => {
            i.set_memory_displ_size(1);
            i.set_memory_displacement64(i8_at(b, at) as u64);
            (at + 1, false)
        }
        _ => {
            i.set_memory_displ_size(8);
            i.set_memory_displacement64(i32_at(b, at) as u64);
            (at + 4, false)
        }
    }
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

/// Operand `N`, whose constant, if it is one, is at `at`; gives where that ends.
fn arg<const N: u32>(i: &mut Instruction, arg: u8, b: &[u8; READABLE], at: usize, form: &Form) -> usize {
    match arg & 0xf0 {
        REG => set_register::<N>(i, form.register(arg, form.reg)),
        RM | RM_REG | MEM if form.memory => set_kind::<N>(i, OpKind::Memory),
        RM | RM_REG => set_register::<N>(i, form.register(arg, form.rm)),
        VVVV => set_register::<N>(i, form.register(arg, form.vvvv)),
        OPCODE => set_register::<N>(i, form.register(arg, form.low)),
        ACC => set_register::<N>(i, form.register(arg, 0)),
        CL => set_register::<N>(i, Register::CL),
        from::STRING => {
            let kind = if arg == TO { OpKind::MemoryESRDI } else { OpKind::MemorySegRSI };
            set_kind::<N>(i, kind);
        }
        from::IMM => return immediate::<N>(i, arg & 15, b, at, form.size),
        _ => {}
    }
    at
}

fn immediate<const N: u32>(i: &mut Instruction, kind: u8, b: &[u8; READABLE], at: usize, size: usize) -> usize {
    let op_kind = match (kind, size) {
        (imm::BYTE | imm::ONE, _) => OpKind::Immediate8,
        (imm::BYTE_V, 0) => OpKind::Immediate8to16,
        (imm::BYTE_V, 1) => OpKind::Immediate8to32,
        (imm::BYTE_V | imm::BYTE_Q, _) => OpKind::Immediate8to64,
        (imm::Z | imm::FULL, 0) => OpKind::Immediate16,
        (imm::Z | imm::FULL, 1) => OpKind::Immediate32,
        (imm::FULL, _) => OpKind::Immediate64,
        _ => OpKind::Immediate32to64,
    };
    set_kind::<N>(i, op_kind);
    match op_kind {
        OpKind::Immediate16 => {
            i.set_immediate16(u16_at(b, at));
            at + 2
        }
        OpKind::Immediate64 => {
            i.set_immediate64(u64_at(b, at));
            at + 8
        }
        OpKind::Immediate32 | OpKind::Immediate32to64 => {
            i.set_immediate32(u32_at(b, at));
            at + 4
        }
        _ if kind == imm::ONE => {
            i.set_immediate8(1);
            at
        }
        _ => {
            i.set_immediate8(i8_at(b, at) as u8);
            at + 1
        }
    }
}

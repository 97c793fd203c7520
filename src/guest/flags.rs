//! Status flags as sets, and which of them an instruction reads, certainly overwrites, or may change; with the rest of what is asked of every instruction
//! before it is lowered, since nearly always its code alone answers all of it.

use bitflags::bitflags;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use iced_x86::{
    Code, CpuidFeature, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
    RflagsBits,
};

bitflags! {
    /// The six status flags (SDM vol. 1, 3.4.3.1). Bit order is our own.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
    pub struct Flags: u8 {
        const C = 1;
        const P = 2;
        const A = 4;
        const Z = 8;
        const S = 16;
        const O = 32;
        /// The four that have a place in NZCV.
        const NZCV = 1 | 8 | 16 | 32;
    }
}

/// What one instruction does to the status flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlagEffect {
    pub reads: Flags,
    /// Written in every case, or left undefined: earlier values are dead.
    pub kills: Flags,
    /// Written in some or all cases.
    pub writes: Flags,
}

fn from_iced(bits: u32) -> Flags {
    let mut f = Flags::empty();
    f.set(Flags::C, bits & RflagsBits::CF != 0);
    f.set(Flags::P, bits & RflagsBits::PF != 0);
    f.set(Flags::A, bits & RflagsBits::AF != 0);
    f.set(Flags::Z, bits & RflagsBits::ZF != 0);
    f.set(Flags::S, bits & RflagsBits::SF != 0);
    f.set(Flags::O, bits & RflagsBits::OF != 0);
    f
}

/// What an instruction may be to its neighbours, by its mnemonic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    #[default]
    Other,
    Move,
    /// TEST, CMP, BT.
    Compare,
    /// SETcc.
    Set,
    /// PUSH, POP.
    Stack,
    /// DIV, IDIV.
    Divide,
    /// NOP with a ModRM byte or without.
    Nop,
}

impl Role {
    fn of(i: &Instruction) -> Role {
        use Mnemonic::*;
        match i.mnemonic() {
            Mov => Role::Move,
            Test | Cmp | Bt => Role::Compare,
            Push | Pop => Role::Stack,
            Div | Idiv => Role::Divide,
            Nop => Role::Nop,
            Seto | Setno | Setb | Setae | Sete | Setne | Setbe | Seta | Sets | Setns | Setp | Setnp | Setl | Setge
            | Setle | Setg => Role::Set,
            _ => Role::Other,
        }
    }
}

/// What is asked of every instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Traits {
    pub flags: FlagEffect,
    pub flow: FlowControl,
    pub role: Role,
    /// It is of an extension without vector or MMX registers.
    pub general: bool,
}

/// Traits by instruction code, found once. 0: not yet; else reads, kills, writes, a byte each, flow and role, four and three bits, [`GENERAL`] and [`NOTED`].
static KNOWN: [AtomicU32; CODES] = [const { AtomicU32::new(0) }; CODES];
const CODES: usize = 5120;
const NOTED: u32 = 1 << 31;
const GENERAL: u32 = 1 << 23;
/// By number.
const FLOWS: [FlowControl; 10] = {
    use FlowControl::*;
    [
        Next,
        UnconditionalBranch,
        IndirectBranch,
        ConditionalBranch,
        Return,
        Call,
        IndirectCall,
        Interrupt,
        XbeginXabortXend,
        Exception,
    ]
};
const ROLES: [Role; 8] = {
    use Role::*;
    [Other, Move, Compare, Set, Stack, Divide, Nop, Other]
};

impl Traits {
    #[inline]
    pub fn of(i: &Instruction) -> Traits {
        Traits::noted(i.code()).unwrap_or_else(|| Traits::find_and_note(i))
    }

    /// Those of every instruction with this code, if they are known and its code alone decides them.
    #[inline]
    pub fn noted(code: Code) -> Option<Traits> {
        let v = KNOWN.get(code as usize)?.load(Relaxed);
        if v & NOTED == 0 {
            return None;
        }
        let flags = |n: u32| Flags::from_bits_retain((v >> n) as u8 & 0x3f);
        Some(Traits {
            flags: FlagEffect { reads: flags(0), kills: flags(8), writes: flags(16) },
            flow: FLOWS[((v >> 24 & 15) as usize).min(FLOWS.len() - 1)],
            role: ROLES[(v >> 28 & 7) as usize],
            general: v & GENERAL != 0,
        })
    }

    #[inline(never)]
    fn find_and_note(i: &Instruction) -> Traits {
        use CpuidFeature as F;
        let general = i.code().cpuid_features().iter().all(|f| {
            matches!(
                f,
                F::INTEL8086
                    | F::INTEL186
                    | F::INTEL286
                    | F::INTEL386
                    | F::INTEL486
                    | F::X64
                    | F::CMOV
                    | F::MULTIBYTENOP
                    | F::CET_IBT
                    | F::BMI1
                    | F::BMI2
            )
        });
        let t = Traits { flags: FlagEffect::of(i), flow: i.flow_control(), role: Role::of(i), general };
        let Some(slot) = KNOWN.get(i.code() as usize) else { return t };
        // A shift's effect depends on its immediate, a string compare's on its prefix.
        let shift = is_shift(i.mnemonic());
        let by_code = !shift || i.op_kind(i.op_count() - 1) != OpKind::Immediate8;
        if by_code && !i.has_rep_prefix() && !i.has_repne_prefix() && !i.is_string_instruction() {
            let bits = |f: Flags, n: u32| u32::from(f.bits()) << n;
            let effect = bits(t.flags.reads, 0) | bits(t.flags.kills, 8) | bits(t.flags.writes, 16);
            let general = if general { GENERAL } else { 0 };
            slot.store(NOTED | general | effect | (t.flow as u32) << 24 | (t.role as u32) << 28, Relaxed);
        }
        t
    }
}

/// Shifts and rotations with a count.
fn is_shift(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(m, Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd)
}

impl FlagEffect {
    /// The effect of `i`. An instruction that leaves to the kernel, or traps, reads all flags: they become visible there.
    pub fn of(i: &Instruction) -> FlagEffect {
        let reads = from_iced(i.rflags_read());
        let writes = from_iced(i.rflags_modified());
        match i.mnemonic() {
            Mnemonic::Syscall
            | Mnemonic::Int
            | Mnemonic::Int3
            | Mnemonic::Int1
            | Mnemonic::Ud2
            | Mnemonic::Ud1
            | Mnemonic::Ud0
            | Mnemonic::INVALID
            | Mnemonic::Hlt
            | Mnemonic::Sysenter
            | Mnemonic::Into => FlagEffect { reads: Flags::all(), kills: Flags::empty(), writes: Flags::empty() },
            // A count of zero leaves all flags as they were (SDM vol. 2, SAL and others).
            m if is_shift(m)
                && i.op_kind(i.op_count() - 1) == OpKind::Register
                && i.op_register(i.op_count() - 1) == Register::CL =>
            {
                FlagEffect { reads, kills: Flags::empty(), writes }
            }
            // Likewise RCX = 0 on entry to a repeated compare.
            Mnemonic::Cmpsb
            | Mnemonic::Cmpsw
            | Mnemonic::Cmpsd
            | Mnemonic::Cmpsq
            | Mnemonic::Scasb
            | Mnemonic::Scasw
            | Mnemonic::Scasd
            | Mnemonic::Scasq
                if i.has_rep_prefix() || i.has_repne_prefix() =>
            {
                FlagEffect { reads, kills: Flags::empty(), writes }
            }
            _ => FlagEffect { reads, kills: writes, writes },
        }
    }
}

/// Host registers (by [`xrun_runtime::abi::GPR`]) of the guest general registers `i` writes, as a bit set.
pub fn written_gprs(i: &Instruction) -> u32 {
    use Mnemonic::*;
    let host = |r: Register| 1u32 << xrun_runtime::abi::GPR[r.full_register().number()];
    let op0 = || {
        let r = i.op0_register();
        if r.is_gpr() { host(r) } else { 0 }
    };
    // The commonest write their first operand, and the stack pointer if they use the stack.
    match i.mnemonic() {
        Mov | Movzx | Movsx | Movsxd | Lea | Add | Sub | And | Or | Xor | Inc | Dec | Neg | Not => return op0(),
        Adc | Sbb | Shl | Shr | Sar | Rol | Ror | Rcl | Rcr | Bswap | Bts | Btr | Btc => return op0(),
        Movaps | Movups | Movapd | Movupd | Movdqa | Movdqu | Movd | Movq | Pxor | Xorps => return op0(),
        Imul if i.op_count() > 1 => return op0(),
        Cmp | Test | Bt | Nop | Endbr64 => return 0,
        Push | Ret | Call => return host(Register::RSP),
        Cqo | Cdq => return host(Register::RDX),
        Cdqe | Cwde => return host(Register::RAX),
        Pop => return host(Register::RSP) | op0(),
        _ if i.is_jcc_short_or_near() || i.is_jmp_short_or_near() => return 0,
        _ if Role::of(i) == Role::Set => return op0(),
        _ => {}
    }
    written_by_operands(i)
}

/// The same, of any instruction.
fn written_by_operands(i: &Instruction) -> u32 {
    let host = |r: Register| 1u32 << xrun_runtime::abi::GPR[r.full_register().number()];
    let mut factory = InstructionInfoFactory::new();
    let mut set = 0;
    for r in factory.info(i).used_registers() {
        let writes =
            matches!(r.access(), OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite);
        if writes && r.register().is_gpr() {
            set |= host(r.register());
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_what_was_found() {
        for (n, flow) in FLOWS.into_iter().enumerate() {
            assert_eq!(flow as usize, n);
        }
        for code in [
            Code::Setb_rm8,
            Code::Ud2,
            Code::Jb_rel8_64,
            Code::Adc_rm32_r32,
            Code::Pop_r64,
            Code::Nopw,
            Code::Bt_rm16_r16,
        ] {
            let mut i = Instruction::default();
            i.set_code(code);
            assert_eq!(Traits::find_and_note(&i), Traits::noted(code).unwrap());
        }
    }

    /// What the commonest are said to write is what iced says, and which name general registers only.
    #[test]
    fn short_cuts_agree_with_iced() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..300_000 {
            let mut bytes = [0; 16];
            random.fill(&mut bytes);
            if random.bool() {
                bytes[0] = [0x48, 0x0f, 0x66, 0xc5][random.usize(0..4)];
            }
            if random.bool() {
                bytes[1] = 0x0f;
            }
            let i = iced_x86::Decoder::new(64, &bytes, iced_x86::DecoderOptions::NONE).decode();
            if i.is_invalid() {
                continue;
            }
            assert_eq!(written_gprs(&i), written_by_operands(&i), "{i:?} {bytes:02x?}");
            let vector = |r: Register| r.is_vector_register() || r.is_mm();
            let named = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && vector(i.op_register(n)));
            assert!(!(named && Traits::of(&i).general), "{i:?} {bytes:02x?}");
        }
    }
}

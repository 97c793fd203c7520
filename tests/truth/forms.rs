//! Single instructions from iced's encoding tables, so that no form is forgotten: every opcode the 64-bit mode has, with
//! every kind of operand it takes. What is left out is named in [`excluded`], with its reason.

use super::state::State;
use super::values;
use super::{CODE, DATA, DATA_RW, START, WINDOW};
use fastrand::Rng;
use iced_x86::{
    Code, CpuidFeature, Encoder, EncodingKind, Instruction, Mnemonic, OpCodeOperandKind as K, OpKind, Register,
};

/// Why a form is not compared with the CPU; `None` for one that is.
pub fn excluded(code: Code) -> Option<&'static str> {
    use Mnemonic::*;
    let oc = code.op_code();
    if !oc.is_instruction() || !oc.mode64() {
        return Some("not an instruction of 64-bit mode");
    }
    if !matches!(oc.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
        return Some("not in x86-64-v3");
    }
    for f in code.cpuid_features() {
        if !matches!(
            f,
            CpuidFeature::INTEL8086
                | CpuidFeature::INTEL186
                | CpuidFeature::INTEL286
                | CpuidFeature::INTEL386
                | CpuidFeature::INTEL486
                | CpuidFeature::X64
                | CpuidFeature::CMOV
                | CpuidFeature::CMPXCHG16B
                | CpuidFeature::CX8
                | CpuidFeature::FPU
                | CpuidFeature::FPU287
                | CpuidFeature::FPU387
                | CpuidFeature::FXSR
                | CpuidFeature::MMX
                | CpuidFeature::MULTIBYTENOP
                | CpuidFeature::PAUSE
                | CpuidFeature::POPCNT
                | CpuidFeature::PREFETCHW
                | CpuidFeature::CLFSH
                | CpuidFeature::SSE
                | CpuidFeature::SSE2
                | CpuidFeature::SSE3
                | CpuidFeature::SSSE3
                | CpuidFeature::SSE4_1
                | CpuidFeature::SSE4_2
                | CpuidFeature::LZCNT
                | CpuidFeature::BMI1
                | CpuidFeature::BMI2
                | CpuidFeature::MOVBE
                | CpuidFeature::ADX
                | CpuidFeature::AES
                | CpuidFeature::PCLMULQDQ
                | CpuidFeature::SHA
                | CpuidFeature::AVX
                | CpuidFeature::AVX2
                | CpuidFeature::FMA
                | CpuidFeature::F16C
                | CpuidFeature::VAES
                | CpuidFeature::VPCLMULQDQ
                | CpuidFeature::CLFLUSHOPT
                | CpuidFeature::CLWB
                | CpuidFeature::GFNI
                | CpuidFeature::AVX_VNNI
                | CpuidFeature::CET_IBT
        ) {
            return Some("an extension beyond x86-64-v3");
        }
    }
    if oc.must_be_cpl0() || oc.is_privileged() || oc.is_input_output() {
        return Some("privileged: #GP for a user program, tested as one case each");
    }
    Some(match code.mnemonic() {
        Syscall | Sysenter | Sysexit | Sysret | Int | Int1 | Into => "enters the kernel",
        Cpuid | Rdtsc | Rdtscp | Rdpmc | Rdrand | Rdseed | Rdpid | Xgetbv => {
            "answers differ from one machine or moment to the next"
        }
        Sgdt | Sidt | Sldt | Str | Smsw | Lar | Lsl | Verr | Verw => "descriptor tables are the kernel's",
        Iret | Iretd | Iretq | Retf => "far control transfer: needs a code segment",
        Call | Jmp if oc.op_kinds().iter().any(|k| matches!(k, K::farbr2_2 | K::farbr4_2)) => {
            "far control transfer: needs a code segment"
        }
        Call | Jmp if matches!(oc.op0_kind(), K::mem) => "far control transfer: needs a code segment",
        Lfs | Lgs | Lss | Lds | Les => "loads a segment register",
        Mov if oc.op0_kind() == K::seg_reg => "loads a segment register",
        Pop if matches!(oc.op0_kind(), K::fs | K::gs) => "loads a segment register",
        Rcpss | Rcpps | Rsqrtss | Rsqrtps | Vrcpss | Vrcpps | Vrsqrtss | Vrsqrtps => {
            "approximations: each CPU model has its own table"
        }
        Fsin | Fcos | Fsincos | Fptan | Fpatan | F2xm1 | Fyl2x | Fyl2xp1 => {
            "transcendental: CPU models differ in the last place"
        }
        Fxsave | Fxsave64 | Xsave | Xsave64 | Xsaveopt | Xsaveopt64 | Xsavec | Xsavec64 | Xrstor | Xrstor64
        | Fnsave | Fnstenv => "stores instruction pointers that CPU models keep differently",
        Bswap if oc.op0_kind() == K::r16_opcode => "undefined on a 16-bit register (SDM vol. 2, BSWAP)",
        Reservednop if format!("{code:?}").ends_with("_0F0D") => "a prefetch of a register: #UD or nothing, by maker",
        Ud0 | Ud1 => "CPU models differ in how many bytes they read before #UD",
        Jmpe | Loadall | Umov | Fstdw | Fstsg | Fnstdw | Fnstsg | Fneni | Feni | Fndisi | Fdisi | Fnsetpm | Fsetpm
        | Frstpm => "not in any current CPU",
        _ => return None,
    })
}

/// Every form that is compared.
pub fn all() -> Vec<Code> {
    Code::values().filter(|&c| excluded(c).is_none()).collect()
}

/// How memory operands get their registers.
pub enum Pointers<'a> {
    /// Any register; the state is changed so that the operand has the wanted address.
    Free(&'a mut State),
    /// Only these registers, whose values are known addresses and stay put.
    Fixed { base: &'a [(usize, u64)] },
}

const GPR8: [Register; 16] = [
    Register::AL,
    Register::CL,
    Register::DL,
    Register::BL,
    Register::SPL,
    Register::BPL,
    Register::SIL,
    Register::DIL,
    Register::R8L,
    Register::R9L,
    Register::R10L,
    Register::R11L,
    Register::R12L,
    Register::R13L,
    Register::R14L,
    Register::R15L,
];

pub fn gpr(n: usize, bits: u32) -> Register {
    match bits {
        8 => GPR8[n],
        16 => Register::AX + n as u32,
        32 => Register::EAX + n as u32,
        _ => Register::RAX + n as u32,
    }
}

/// An instruction of form `code` with random operands, or `None` when the draw cannot be encoded (draw again).
/// Near branches go to `target`.
pub fn build(code: Code, rng: &mut Rng, pointers: &mut Pointers<'_>, target: u64) -> Option<Instruction> {
    let oc = code.op_code();
    let mut i = Instruction::default();
    i.set_code(code);
    let mut immediates = 0;
    let mut memory = None;
    let mut vsib = None;
    for op in 0..oc.op_count() {
        let kind = oc.op_kind(op);
        let reg_or_mem = |rng: &mut Rng| rng.bool();
        let n = rng.usize(..16);
        let mm = Register::MM0 + rng.u32(..8);
        let xmm = Register::XMM0 + n as u32;
        let ymm = Register::YMM0 + n as u32;
        let r8 = |rng: &mut Rng| if rng.u8(..4) == 0 { Register::AH + rng.u32(..4) } else { GPR8[n] };
        let fixed = |i: &mut Instruction, r: Register| set_register(i, op, r);
        match kind {
            K::None => {}
            K::r8_or_mem if reg_or_mem(rng) => memory = Some(op),
            K::r16_or_mem | K::r32_or_mem | K::r64_or_mem if reg_or_mem(rng) => memory = Some(op),
            K::mm_or_mem | K::xmm_or_mem | K::ymm_or_mem if reg_or_mem(rng) => memory = Some(op),
            K::mem => memory = Some(op),
            K::mem_vsib32x | K::mem_vsib32y | K::mem_vsib64x | K::mem_vsib64y => vsib = Some((op, kind)),
            K::r8_or_mem | K::r8_reg | K::r8_opcode => {
                let r = r8(rng);
                fixed(&mut i, r);
            }
            K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode => fixed(&mut i, gpr(n, 16)),
            K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode | K::r32_vvvv => fixed(&mut i, gpr(n, 32)),
            K::r64_or_mem | K::r64_reg | K::r64_rm | K::r64_opcode | K::r64_vvvv => fixed(&mut i, gpr(n, 64)),
            K::mm_or_mem | K::mm_reg | K::mm_rm => fixed(&mut i, mm),
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => fixed(&mut i, xmm),
            K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => fixed(&mut i, ymm),
            K::seg_reg => fixed(&mut i, [Register::ES, Register::CS, Register::SS, Register::DS][rng.usize(..4)]),
            K::fs => fixed(&mut i, Register::FS),
            K::gs => fixed(&mut i, Register::GS),
            K::al => fixed(&mut i, Register::AL),
            K::cl => fixed(&mut i, Register::CL),
            K::ax => fixed(&mut i, Register::AX),
            K::dx => fixed(&mut i, Register::DX),
            K::eax => fixed(&mut i, Register::EAX),
            K::rax => fixed(&mut i, Register::RAX),
            K::st0 => fixed(&mut i, Register::ST0),
            K::sti_opcode => fixed(&mut i, Register::ST0 + rng.u32(..8)),
            K::imm8 => {
                // The second immediate of ENTER is its nesting level: keep it small, deep ones only copy more.
                let v = if immediates > 0 { rng.u8(..4) } else { values::integer(rng) as u8 };
                i.set_op_kind(op, if immediates > 0 { OpKind::Immediate8_2nd } else { OpKind::Immediate8 });
                if immediates > 0 {
                    i.set_immediate8_2nd(v)
                } else {
                    i.set_immediate8(v)
                }
                immediates += 1;
            }
            K::imm8_const_1 => {
                i.set_op_kind(op, OpKind::Immediate8);
                i.set_immediate8(1);
            }
            K::imm8sex16 => {
                i.set_op_kind(op, OpKind::Immediate8to16);
                i.set_immediate8to16(i16::from(values::integer(rng) as i8));
            }
            K::imm8sex32 => {
                i.set_op_kind(op, OpKind::Immediate8to32);
                i.set_immediate8to32(i32::from(values::integer(rng) as i8));
            }
            K::imm8sex64 => {
                i.set_op_kind(op, OpKind::Immediate8to64);
                i.set_immediate8to64(i64::from(values::integer(rng) as i8));
            }
            K::imm16 => {
                i.set_op_kind(op, OpKind::Immediate16);
                // ENTER's frame size and RET's release must leave the stack pointer near the window.
                let v = if matches!(code.mnemonic(), Mnemonic::Enter | Mnemonic::Ret) {
                    rng.u16(..32) * 8
                } else {
                    values::integer(rng) as u16
                };
                i.set_immediate16(v);
                immediates += 1;
            }
            K::imm32 => {
                i.set_op_kind(op, OpKind::Immediate32);
                i.set_immediate32(values::integer(rng) as u32);
            }
            K::imm32sex64 => {
                i.set_op_kind(op, OpKind::Immediate32to64);
                i.set_immediate32to64(i64::from(values::integer(rng) as i32));
            }
            K::imm64 => {
                i.set_op_kind(op, OpKind::Immediate64);
                i.set_immediate64(values::integer(rng));
            }
            K::seg_rSI => i.set_op_kind(op, OpKind::MemorySegRSI),
            K::es_rDI => i.set_op_kind(op, OpKind::MemoryESRDI),
            K::seg_rDI => i.set_op_kind(op, OpKind::MemorySegRDI),
            K::seg_rBX_al => {
                i.set_op_kind(op, OpKind::Memory);
                i.set_memory_base(Register::RBX);
                i.set_memory_index(Register::AL);
                if let Pointers::Free(s) = pointers {
                    s.gpr[3] = WINDOW + rng.u64(..0x200);
                }
            }
            K::mem_offs => {
                i.set_op_kind(op, OpKind::Memory);
                i.set_memory_displ_size(8);
                i.set_memory_displacement64(address(rng, 8));
            }
            K::br64_1 | K::br64_4 => {
                i.set_op_kind(op, OpKind::NearBranch64);
                i.set_near_branch64(target);
            }
            _ => return None,
        }
    }
    if let Some(op) = memory {
        i.set_op_kind(op, OpKind::Memory);
        let size = operand_size(code);
        let at = set_memory(&mut i, rng, pointers, size)?;
        pointed_operand(&i, at, rng, pointers);
    }
    if let Some((op, kind)) = vsib {
        i.set_op_kind(op, OpKind::Memory);
        set_vector_index(&mut i, kind, rng, pointers)?;
    }
    string_operands(&mut i, rng, pointers);
    fixed_operands(&i, rng, pointers);
    if oc.can_use_lock_prefix() && memory == Some(0) && rng.bool() {
        i.set_has_lock_prefix(true);
    }
    Some(i)
}

fn set_register(i: &mut Instruction, op: u32, r: Register) {
    i.set_op_kind(op, OpKind::Register);
    i.set_op_register(op, r);
}

/// Gives a gather its addresses: a base and a register of indices, most of whose lanes lead into the window, and now and then one to where nothing is
/// mapped.
fn set_vector_index(i: &mut Instruction, kind: K, rng: &mut Rng, pointers: &mut Pointers<'_>) -> Option<()> {
    let Pointers::Free(s) = pointers else { return None };
    let (wide, bytes) = match kind {
        K::mem_vsib32x => (false, 4),
        K::mem_vsib32y => (true, 4),
        K::mem_vsib64x => (false, 8),
        _ => (true, 8),
    };
    let n = rng.usize(..16);
    let taken = [i.op0_register().number(), i.op2_register().number()].contains(&n);
    // The same register twice is #UD: once in a while.
    if taken && rng.u8(..8) != 0 {
        return None;
    }
    let scale = rng.u32(..4);
    let (base, disp) = (rng.usize(..16), i64::from(rng.i8(..)));
    s.gpr[base] = (WINDOW + 0x200).wrapping_sub(disp as u64);
    i.set_memory_base(gpr(base, 64));
    i.set_memory_displacement64(disp as u64);
    i.set_memory_displ_size(1);
    i.set_memory_index(if wide { Register::YMM0 } else { Register::XMM0 } + n as u32);
    i.set_memory_index_scale(1 << scale);
    for lane in 0..32 / bytes {
        let mut to = i64::from(rng.i32(-0x1e0..0x1d0)) >> scale;
        if rng.u8(..64) == 0 {
            to = 0x10_0000;
        }
        let half = if lane * bytes < 16 { &mut s.xmm[n] } else { &mut s.ymm_hi[n] };
        let (at, mask) = (lane * bytes % 16 * 8, u128::from(u64::MAX >> (64 - 8 * bytes)));
        *half = *half & !(mask << at) | (to as u128 & mask) << at;
    }
    Some(())
}

fn operand_size(code: Code) -> u64 {
    (code.op_code().memory_size().size() as u64).max(1)
}

/// An address to access `size` bytes at: nearly always inside the window, now and then across its page boundary, at the
/// read-only page's edge, or where nothing is mapped.
fn address(rng: &mut Rng, size: u64) -> u64 {
    let aligned = |rng: &mut Rng| WINDOW + (rng.u64(0x40..0x3c0) & !(size.next_power_of_two().min(64) - 1));
    match rng.u8(..64) {
        0..=31 => aligned(rng),
        32..=53 => WINDOW + rng.u64(0x40..0x380),
        54..=60 => WINDOW + 0x200 - rng.u64(..size + 1),
        61 => DATA + DATA_RW as u64 - rng.u64(..size + 1),
        62 => DATA + DATA_RW as u64 + rng.u64(..0x100),
        _ => DATA - rng.u64(..size + 1),
    }
}

/// Gives `i` a memory operand; returns its address.
fn set_memory(i: &mut Instruction, rng: &mut Rng, pointers: &mut Pointers<'_>, size: u64) -> Option<u64> {
    Some(match pointers {
        Pointers::Free(s) => {
            let to = address(rng, size);
            let gs = rng.u8(..16) == 0;
            let linear = if gs { to.wrapping_sub(s.gs_base) } else { to };
            if gs {
                i.set_segment_prefix(Register::GS);
            }
            match rng.u8(..16) {
                0 | 1 => {
                    i.set_memory_base(Register::RIP);
                    i.set_memory_displ_size(8);
                    i.set_memory_displacement64(linear);
                }
                2 => {
                    // [disp32]
                    i.set_memory_displ_size(4);
                    i.set_memory_displacement64(linear);
                }
                3 => {
                    // 32-bit address size: the sum is cut to 32 bits.
                    let base = rng.usize(..16);
                    let disp = rng.i32(..);
                    s.gpr[base] = (rng.u64(..) << 32) | u64::from((linear as u32).wrapping_sub(disp as u32));
                    i.set_memory_base(gpr(base, 32));
                    i.set_memory_displ_size(4);
                    i.set_memory_displacement64(u64::from(disp as u32));
                }
                4..=9 => {
                    let base = rng.usize(..16);
                    let disp = displacement(rng, i);
                    s.gpr[base] = linear.wrapping_sub(disp as u64);
                    i.set_memory_base(gpr(base, 64));
                }
                10 => {
                    // Index without base.
                    let index = index(rng);
                    let scale = rng.u32(..4);
                    s.gpr[index] = (linear >> scale) & !7;
                    let disp = linear.wrapping_sub(s.gpr[index] << scale);
                    i.set_memory_index(gpr(index, 64));
                    i.set_memory_index_scale(1 << scale);
                    i.set_memory_displ_size(8);
                    i.set_memory_displacement64(disp);
                }
                _ => {
                    let base = rng.usize(..16);
                    let index = index(rng);
                    let scale = rng.u32(..4);
                    if base == index {
                        return None;
                    }
                    let disp = displacement(rng, i);
                    let offset = s.gpr[index] << scale;
                    s.gpr[base] = linear.wrapping_sub(disp as u64).wrapping_sub(offset);
                    i.set_memory_base(gpr(base, 64));
                    i.set_memory_index(gpr(index, 64));
                    i.set_memory_index_scale(1 << scale);
                }
            }
            to
        }
        Pointers::Fixed { base } => {
            let to = address(rng, size);
            let linear = to;
            if rng.u8(..8) == 0 {
                i.set_memory_base(Register::RIP);
                i.set_memory_displ_size(8);
                i.set_memory_displacement64(linear);
                return Some(linear);
            }
            let (n, at) = base[rng.usize(..base.len())];
            i.set_memory_base(gpr(n, 64));
            let mut disp = linear.wrapping_sub(at) as i64;
            if rng.u8(..4) == 0 {
                let (m, v) = base[rng.usize(..base.len())];
                if m != 4 && v < 0x100 {
                    let scale = rng.u32(..4);
                    i.set_memory_index(gpr(m, 64));
                    i.set_memory_index_scale(1 << scale);
                    disp -= (v << scale) as i64;
                }
            }
            i.set_memory_displacement64(disp as u64);
            i.set_memory_displ_size(if disp == i64::from(disp as i8) { 1 } else { 8 });
            i32::try_from(disp).ok()?;
            to
        }
    })
}

/// What the memory operand at `at` must hold for the instruction to mean something.
fn pointed_operand(i: &Instruction, at: u64, rng: &mut Rng, pointers: &mut Pointers<'_>) {
    let Pointers::Free(s) = pointers else { return };
    let offset = at.wrapping_sub(WINDOW) as usize;
    let mut put = |bytes: &[u8]| {
        if let Some(to) = offset.checked_add(bytes.len()).and_then(|end| s.mem.get_mut(offset..end)) {
            to.copy_from_slice(bytes);
        }
    };
    match i.mnemonic() {
        Mnemonic::Jmp | Mnemonic::Call => put(&(CODE + rng.u64(..0x200)).to_le_bytes()),
        Mnemonic::Ldmxcsr => put(&(0x1f80 | u32::from(rng.u8(..4)) << 13 | u32::from(rng.u8(..64))).to_le_bytes()),
        Mnemonic::Fldcw => put(&(0x7f | [0u16, 2, 3][rng.usize(..3)] << 8 | rng.u16(..4) << 10).to_le_bytes()),
        Mnemonic::Fld if i.memory_size() == iced_x86::MemorySize::Float80 => {
            let (m, e) = values::x87(rng);
            put(&m.to_le_bytes());
            let mut wide = m.to_le_bytes().to_vec();
            wide.extend_from_slice(&e.to_le_bytes());
            put(&wide);
        }
        Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b if rng.bool() => {
            let half = if i.mnemonic() == Mnemonic::Cmpxchg8b { 4 } else { 8 };
            let mut wide = s.gpr[0].to_le_bytes()[..half].to_vec();
            wide.extend_from_slice(&s.gpr[2].to_le_bytes()[..half]);
            if let Some(to) = offset.checked_add(wide.len()).and_then(|end| s.mem.get_mut(offset..end)) {
                to.copy_from_slice(&wide);
            }
        }
        Mnemonic::Cmpxchg if rng.bool() => put(&s.gpr[0].to_le_bytes()),
        _ => {}
    }
}

fn index(rng: &mut Rng) -> usize {
    let n = rng.usize(..15);
    if n >= 4 { n + 1 } else { n }
}

fn displacement(rng: &mut Rng, i: &mut Instruction) -> i64 {
    let (disp, size) = match rng.u8(..4) {
        0 => (0, 0),
        1 | 2 => (i64::from(rng.i8(..)), 1),
        _ => (i64::from(rng.i32(..)), 8),
    };
    i.set_memory_displ_size(size);
    i.set_memory_displacement64(disp as u64);
    disp
}

/// String instructions take their addresses and count from fixed registers.
fn string_operands(i: &mut Instruction, rng: &mut Rng, pointers: &mut Pointers<'_>) {
    let implicit = (0..i.op_count())
        .any(|op| matches!(i.op_kind(op), OpKind::MemorySegRSI | OpKind::MemoryESRDI | OpKind::MemorySegRDI));
    if !implicit {
        return;
    }
    let Pointers::Free(s) = pointers else { return };
    let size = operand_size(i.code());
    if (0..i.op_count()).any(|op| i.op_kind(op) == OpKind::MemorySegRDI) {
        // MASKMOV with an all-zero mask: whether it faults at a bad address is the maker's choice (SDM vol. 2, MASKMOVDQU).
        s.gpr[7] = WINDOW + rng.u64(0x40..0x380);
        return;
    }
    s.gpr[6] = address(rng, size);
    s.gpr[7] = if rng.u8(..4) == 0 { s.gpr[6].wrapping_add(rng.u64(..17)).wrapping_sub(8) } else { address(rng, size) };
    let oc = i.code().op_code();
    if (oc.can_use_rep_prefix() || oc.can_use_repne_prefix()) && rng.bool() {
        s.gpr[1] = if rng.u8(..8) == 0 { rng.u64(..0x200) } else { rng.u64(..20) };
        if oc.can_use_repne_prefix() && rng.bool() {
            i.set_has_repne_prefix(true);
        } else {
            i.set_has_repe_prefix(true);
        }
        if rng.bool() {
            // Equal runs, so that REPE and REPNE go some way.
            let byte = rng.u8(..4);
            s.mem.fill(byte);
            let at = rng.usize(..s.mem.len());
            s.mem[at] ^= 1;
            if rng.bool() {
                s.gpr[0] = 0x0101_0101_0101_0101 * u64::from(byte);
            }
        }
    }
    if rng.u8(..8) == 0 {
        for op in 0..i.op_count() {
            let narrow = match i.op_kind(op) {
                OpKind::MemorySegRSI => OpKind::MemorySegESI,
                OpKind::MemoryESRDI => OpKind::MemoryESEDI,
                OpKind::MemorySegRDI => OpKind::MemorySegEDI,
                other => other,
            };
            i.set_op_kind(op, narrow);
        }
    }
}

/// Operands in fixed registers and on the stack, made usable most of the time.
fn fixed_operands(i: &Instruction, rng: &mut Rng, pointers: &mut Pointers<'_>) {
    let Pointers::Free(s) = pointers else { return };
    match i.mnemonic() {
        Mnemonic::Ret => {
            let at = s.gpr[4].wrapping_sub(WINDOW) as usize;
            if at + 8 <= s.mem.len() {
                let to = START + rng.u64(0x20..0x40);
                s.mem[at..at + 8].copy_from_slice(&to.to_le_bytes());
            }
        }
        Mnemonic::Leave | Mnemonic::Enter => s.gpr[5] = WINDOW + (rng.u64(0x40..0x380) & !7),
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => {
            // TF would trap and AC would make the harness's own accesses fault.
            let at = s.gpr[4].wrapping_sub(WINDOW) as usize;
            if at + 8 <= s.mem.len() {
                s.mem[at + 1] &= !0x01;
                s.mem[at + 2] &= !0x04;
            }
        }
        Mnemonic::Jmp | Mnemonic::Call if i.op0_kind() == OpKind::Register => {
            let n = i.op0_register().full_register() as u32 - Register::RAX as u32;
            if n != 4 {
                s.gpr[n as usize] = CODE + rng.u64(..0x200);
            }
        }
        Mnemonic::Div | Mnemonic::Idiv if rng.u8(..4) != 0 => {
            // A high half that mostly leaves the quotient in range.
            let used = |r: Register| {
                (0..i.op_count()).any(|op| i.op_kind(op) == OpKind::Register && i.op_register(op).full_register() == r)
                    || i.memory_base().full_register() == r
                    || i.memory_index().full_register() == r
            };
            if !used(Register::RDX) {
                s.gpr[2] = match rng.u8(..3) {
                    0 => 0,
                    1 => (s.gpr[0] as i64 >> 63) as u64,
                    _ => rng.u64(..16),
                };
            }
            if !used(Register::RAX) && rng.bool() {
                s.gpr[0] &= 0xff;
            }
        }
        Mnemonic::Shld | Mnemonic::Shrd if i.op2_kind() == OpKind::Register && rng.bool() => s.gpr[1] = rng.u64(..40),
        Mnemonic::Shl
        | Mnemonic::Shr
        | Mnemonic::Sar
        | Mnemonic::Sal
        | Mnemonic::Rol
        | Mnemonic::Ror
        | Mnemonic::Rcl
        | Mnemonic::Rcr
            if i.op1_kind() == OpKind::Register
                && i.memory_base().full_register() != Register::RCX
                && i.memory_index().full_register() != Register::RCX
                && rng.bool() =>
        {
            s.gpr[1] = rng.u64(..70);
        }
        // Bit offsets from a register reach far beyond the operand (SDM vol. 2, BT): keep them near it.
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
            if i.op0_kind() == OpKind::Memory && i.op1_kind() == OpKind::Register =>
        {
            let r = i.op1_register().full_register();
            let n = (r as u32 - Register::RAX as u32) as usize;
            if r != i.memory_base().full_register() && r != i.memory_index().full_register() && n != 4 {
                s.gpr[n] = i64::from(rng.i32(-400..400)) as u64;
            }
        }
        _ => {}
    }
}

/// The bytes of `i` at `ip`, or `None` when the combination has no encoding.
pub fn encode(i: &Instruction, ip: u64) -> Option<Vec<u8>> {
    let mut e = Encoder::new(64);
    e.encode(i, ip).ok()?;
    let bytes = e.take_buffer();
    let mut d = iced_x86::Decoder::with_ip(64, &bytes, ip, iced_x86::DecoderOptions::NONE);
    let back = d.decode();
    (back.code() == i.code() && back.len() == bytes.len()).then_some(bytes)
}

/// The family a form is counted and filed under.
pub fn family(code: Code) -> &'static str {
    use Mnemonic::*;
    if by_maker(code) {
        return "makers";
    }
    let features = code.cpuid_features();
    let has = |f: CpuidFeature| features.contains(&f);
    if code.op_code().encoding() == EncodingKind::VEX {
        return if has(CpuidFeature::FMA) {
            "fma"
        } else if has(CpuidFeature::GFNI) {
            "gfni"
        } else if has(CpuidFeature::AVX_VNNI) {
            "vnni"
        } else if has(CpuidFeature::BMI1) || has(CpuidFeature::BMI2) {
            "bmi"
        } else if has(CpuidFeature::AVX2) {
            "avx2"
        } else {
            "avx"
        };
    }
    for (f, name) in [
        (CpuidFeature::MMX, "mmx"),
        (CpuidFeature::SSE, "sse"),
        (CpuidFeature::SSE2, "sse2"),
        (CpuidFeature::SSE3, "sse3"),
        (CpuidFeature::SSSE3, "ssse3"),
        (CpuidFeature::SSE4_1, "sse41"),
        (CpuidFeature::SSE4_2, "sse42"),
        (CpuidFeature::AES, "crypto"),
        (CpuidFeature::PCLMULQDQ, "crypto"),
        (CpuidFeature::SHA, "crypto"),
        (CpuidFeature::GFNI, "gfni"),
        (CpuidFeature::CLFLUSHOPT, "hints"),
        (CpuidFeature::CLWB, "hints"),
        (CpuidFeature::CET_IBT, "hints"),
        (CpuidFeature::FPU, "x87"),
        (CpuidFeature::FPU287, "x87"),
        (CpuidFeature::FPU387, "x87"),
        (CpuidFeature::FXSR, "system"),
    ] {
        if has(f) && !matches!(code.mnemonic(), Crc32 | Popcnt) {
            return name;
        }
    }
    match code.mnemonic() {
        Add | Or | Adc | Sbb | And | Sub | Xor | Cmp | Test | Inc | Dec | Neg | Not | Adcx | Adox => "alu",
        Rol | Ror | Rcl | Rcr | Shl | Sal | Shr | Sar | Shld | Shrd => "shift",
        Mul | Imul | Div | Idiv => "muldiv",
        Bt | Bts | Btr | Btc | Bsf | Bsr | Popcnt | Lzcnt | Tzcnt | Crc32 => "bits",
        Push | Pop | Pushf | Pushfq | Popf | Popfq | Enter | Leave => "stack",
        Movsb | Movsw | Movsd | Movsq | Cmpsb | Cmpsw | Cmpsd | Cmpsq | Stosb | Stosw | Stosd | Stosq | Lodsb
        | Lodsw | Lodsd | Lodsq | Scasb | Scasw | Scasd | Scasq => "string",
        Xchg | Xadd | Cmpxchg | Cmpxchg8b | Cmpxchg16b => "atomic",
        _ if !matches!(code.flow_control(), iced_x86::FlowControl::Next) => "branch",
        Mov | Movzx | Movsx | Movsxd | Lea | Movbe | Bswap | Cbw | Cwde | Cdqe | Cwd | Cdq | Cqo | Xlatb | Nop => "mov",
        _ if code.condition_code() != iced_x86::ConditionCode::None => "mov",
        _ => "system",
    }
}

/// Makers' CPUs differ in which of several NaNs comes out of a sum of products, and in what FSTPNCE, which is in no manual, makes of an empty
/// register. The translator
/// does what the CPUs of the maker do that CPUID names.
pub fn by_maker(code: Code) -> bool {
    use Mnemonic::*;
    matches!(code.mnemonic(), Dpps | Dppd | Vdpps | Vdppd | Fstpnce)
}

/// MIN and MAX of floating-point numbers.
pub fn picks(code: Code) -> bool {
    use Mnemonic::*;
    is_double(code) || matches!(code.mnemonic(), Minps | Minss | Maxps | Maxss | Vminps | Vminss | Vmaxps | Vmaxss)
}

/// Whether `code` is a MIN or MAX of doubles.
pub fn is_double(code: Code) -> bool {
    use Mnemonic::*;
    matches!(code.mnemonic(), Minpd | Minsd | Maxpd | Maxsd | Vminpd | Vminsd | Vmaxpd | Vmaxsd)
}

/// Whether the translator has a row for `code`'s mnemonic. The row may still decline this form.
pub fn has_row(code: Code) -> bool {
    xrun::isa::row(code.mnemonic()).is_some()
}

//! What may differ between two right executions: flags the manual calls undefined, and the few results that are. Every
//! exception to a bit-exact comparison is here, with its reason.

use super::feature::other_maker;
use super::state::{Fault, Outcome, State};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, RflagsBits};

/// EFLAGS bits a user program owns: the status flags, DF, NT, AC and ID. RF and IF are the kernel's.
pub const FLAGS: u64 = 0x8d5 | 1 << 10 | 1 << 14 | 1 << 18 | 1 << 21;

/// The sticky denormal-operand flag: AArch64 notes a denormal operand only when it flushes it (Arm ARM, FPSR.IDC).
const MXCSR_DE: u32 = 1 << 1;

/// The sticky underflow flag: x86 looks for a tiny result after rounding, AArch64 before (unless FPCR.AH says otherwise), so AArch64 may
/// report one more.
const MXCSR_UE: u32 = 1 << 4;

/// The sticky invalid and precision flags: a conversion whose result does not fit 32 bits is invalid and nothing else on x86; the
/// conversion to 64 bits that finds this out may also have been inexact.
const MXCSR_IE: u32 = 1;
const MXCSR_PE: u32 = 1 << 5;

/// All of them.
const MXCSR_STICKY: u32 = 0x3f;

/// C1 in the x87 status word.
const C1: u16 = 1 << 9;

/// Bits whose value no program may rely on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undefined {
    pub flags: u64,
    /// x87 condition codes, as bits of the status word.
    pub fsw: u16,
    /// MXCSR's sticky bits may differ as [`differences`] allows.
    pub mxcsr: bool,
    /// Sticky bits of MXCSR that may be set where the CPU does not set them.
    pub raised: u32,
    /// YMM registers, one bit each, whose upper halves may differ.
    pub uppers: u16,
    /// A vector register, and which bits of each half of it count.
    pub only: Option<(usize, u128)>,
}

impl Undefined {
    pub fn join(self, other: Self) -> Self {
        Self {
            flags: self.flags | other.flags,
            fsw: self.fsw | other.fsw,
            mxcsr: self.mxcsr | other.mxcsr,
            raised: self.raised | other.raised,
            uppers: self.uppers | other.uppers,
            only: self.only.or(other.only),
        }
    }

    /// Whether `i` would read one of these bits.
    pub fn read_by(self, i: &Instruction) -> bool {
        let read = bits(i.rflags_read());
        let whole_fsw = matches!(i.mnemonic(), Mnemonic::Fnstsw | Mnemonic::Fstsw);
        let mxcsr = matches!(i.mnemonic(), Mnemonic::Stmxcsr | Mnemonic::Vstmxcsr);
        read.flags & self.flags != 0 || read.fsw & self.fsw != 0 || whole_fsw && self.fsw != 0 || mxcsr && self.mxcsr
    }

    /// The undefined bits after `i`, when these are undefined before it. `count` is the shift count if it is known.
    pub fn after(self, i: &Instruction, count: Option<u32>) -> Self {
        let mut own = undefined_by(i, count);
        let vector = |r: iced_x86::Register| r.is_vector_register();
        // Of infinity times zero with a quiet NaN to add the CPU makes that NaN (SDM vol. 1, 14.5), and so does AArch64, but as of an invalid
        // operation (Arm ARM, FPMulAdd).
        if i.code().cpuid_features().contains(&iced_x86::CpuidFeature::FMA) {
            own.raised = MXCSR_IE;
        }
        own.mxcsr = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && vector(i.op_register(n)));
        let mut written = bits(i.rflags_modified());
        use Mnemonic::*;
        if matches!(
            i.mnemonic(),
            Fcmovb
                | Fcmovbe
                | Fcmove
                | Fcmovnb
                | Fcmovnbe
                | Fcmovne
                | Fcmovnu
                | Fcmovu
                | Fcomi
                | Fcomip
                | Fucomi
                | Fucomip
        ) {
            // Cleared where a register is empty, else left as it was (SDM vol. 2, FCMOVcc; CPUs do so for FCOMI too).
            written.fsw &= !C1;
        }
        if let Some(masked) = shift_count(i, count) {
            match masked {
                Some(0) => return self,
                // The count may be zero, which leaves the flags as they were.
                None => written = Undefined::default(),
                Some(_) => {}
            }
        }
        Self { flags: self.flags & !written.flags, fsw: self.fsw & !written.fsw, ..self }.join(own)
    }
}

/// What may differ where `i` met a fault in the middle of its work, which it will do again: makers' CPUs differ in how much of the rest they have done.
pub fn half_done(i: &Instruction) -> Undefined {
    let mut u = Undefined::default();
    // A store from an MMX register has set TOP to 0 already on Intel's CPUs, not on AMD's.
    if i.op0_kind() == OpKind::Memory && i.op1_kind() == OpKind::Register && i.op1_register().is_mm() {
        u.fsw |= TOP;
    }
    // A conversion that stores has noted exceptions already on Intel's CPUs, as here; not on AMD's.
    if i.mnemonic() == Mnemonic::Vcvtps2ph && other_maker() {
        u.raised |= MXCSR_STICKY;
    }
    if i.is_vsib() {
        let (to, mask) = (i.op0_register(), i.op2_register());
        // A gather of 128 bits clears the upper halves of its destination and, where its indices are 256 bits, of its mask when it ends (SDM vol. 2,
        // VGATHERDPS, VGATHERQPS); CPUs clear the one with the first lane and leave masks in the other.
        if to.is_xmm() {
            u.uppers |= 1 << to.number();
        }
        if to.is_xmm() && (i.memory_index().is_ymm() || other_maker()) {
            u.uppers |= 1 << mask.number();
        }
        // Before the first lane Intel's CPUs spread each mask lane's sign over the lane (SDM vol. 2, VGATHERDPS), AMD's do not. Only signs mean anything.
        if other_maker() {
            let signs = if i.memory_size().size() == 8 { 1 << 127 | 1 << 63 } else { SIGNS };
            u.only = Some((mask.number(), signs));
        }
    }
    u
}

/// The sign of each lane of 32 bits.
const SIGNS: u128 = 0x8000_0000_8000_0000_8000_0000_8000_0000;

/// The x87 status word's TOP.
const TOP: u16 = 7 << 11;

/// The status flags.
pub const STATUS: u64 = 0x8d5;

/// The status flags `i` overwrites.
pub fn written(i: &Instruction) -> u64 {
    bits(i.rflags_modified()).flags & STATUS
}

/// iced's flag bits as EFLAGS and status word bits.
fn bits(r: u32) -> Undefined {
    let mut u = Undefined::default();
    for (from, to) in [
        (RflagsBits::OF, 1 << 11),
        (RflagsBits::SF, 1 << 7),
        (RflagsBits::ZF, 1 << 6),
        (RflagsBits::AF, 1 << 4),
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 1 << 2),
    ] {
        if r & from != 0 {
            u.flags |= to;
        }
    }
    for (from, to) in
        [(RflagsBits::C0, 1 << 8), (RflagsBits::C1, 1 << 9), (RflagsBits::C2, 1 << 10), (RflagsBits::C3, 1 << 14)]
    {
        if r & from != 0 {
            u.fsw |= to;
        }
    }
    u
}

fn operand_bits(i: &Instruction) -> u32 {
    match i.op0_kind() {
        OpKind::Register => i.op0_register().size() as u32 * 8,
        _ => i.memory_size().size() as u32 * 8,
    }
}

/// For shifts and rotates: the masked count, `Some(None)` when it is in CL and not known; `None` for all others.
fn shift_count(i: &Instruction, cl: Option<u32>) -> Option<Option<u32>> {
    use Mnemonic::*;
    if !matches!(i.mnemonic(), Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd) {
        return None;
    }
    let mask = if operand_bits(i) == 64 { 63 } else { 31 };
    let last = i.op_count() - 1;
    let count = if i.op_kind(last) == OpKind::Register { cl } else { Some(u32::from(i.immediate8())) };
    Some(count.map(|c| c & mask))
}

/// Flags `i` leaves undefined. iced's table is the base; where a count decides, the count is looked at.
fn undefined_by(i: &Instruction, cl: Option<u32>) -> Undefined {
    use Mnemonic::*;
    const CF: u64 = 1;
    const AF: u64 = 1 << 4;
    const OF: u64 = 1 << 11;
    let mut u = bits(i.rflags_undefined());
    let Some(count) = shift_count(i, cl) else { return u };
    let size = operand_bits(i);
    u.flags |= match i.mnemonic() {
        Rol | Ror | Rcl | Rcr => 0,
        _ => AF,
    };
    // OF is defined for a count of one only (SDM vol. 2, SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD); CF is undefined
    // once a SHL or SHR has shifted out more bits than there are.
    match count {
        Some(1) => u.flags &= !OF,
        _ => u.flags |= OF,
    }
    if matches!(i.mnemonic(), Shl | Sal | Shr) && count.is_none_or(|c| c > size) && size < 32 {
        u.flags |= CF;
    }
    u
}

/// Whether the *value* `i` produces is undefined, so that it cannot be compared at all.
pub fn undefined_value(i: &Instruction, cl: Option<u32>) -> bool {
    // A 16-bit double shift by more than 16 (SDM vol. 2, SHLD).
    if matches!(
        i.code(),
        Code::Shld_rm16_r16_imm8 | Code::Shrd_rm16_r16_imm8 | Code::Shld_rm16_r16_CL | Code::Shrd_rm16_r16_CL
    ) {
        return shift_count(i, cl).flatten().is_none_or(|c| c > 16);
    }
    false
}

/// Every difference that counts, one line each: what, expected, got. `start` names the unchanged parts.
pub fn differences(expected: &Outcome, got: &Outcome, undefined: Undefined) -> Vec<String> {
    let mut d = Vec::new();
    let (e, g) = (&expected.state, &got.state);
    // A branch to a non-canonical address is #GP at the branch on the CPU, a fetch that fails at its target here.
    let canonical = |a: u64| (a as i64) << 16 >> 16 == a as i64;
    if !canonical(g.rip) && expected.fault.is_some_and(|f| f.signal == 11 && f.code == 128) {
        return d;
    }
    let show = |f: &Option<Fault>| match f {
        None => "reached the end".to_string(),
        Some(f) => format!("signal {} code {} address {:#x}", f.signal, f.code, f.addr),
    };
    if expected.fault != got.fault
        && !same_bad_address(expected.fault, got.fault)
        && !same_operand(expected.fault, got.fault)
    {
        d.push(format!("end: expected {}, got {}", show(&expected.fault), show(&got.fault)));
    }
    let mut word = |name: &str, e: u64, g: u64| {
        if e != g {
            d.push(format!("{name}: expected {e:#x}, got {g:#x}"));
        }
    };
    word("rip", e.rip, g.rip);
    for n in 0..16 {
        word(super::text::GPR_NAMES[n], e.gpr[n], g.gpr[n]);
    }
    let flags = FLAGS & !undefined.flags;
    if (e.flags ^ g.flags) & flags != 0 {
        d.push(format!(
            "flags: expected {}, got {} (compared: {})",
            super::text::flag_names(e.flags & flags),
            super::text::flag_names(g.flags & flags),
            super::text::flag_names(flags),
        ));
    }
    let ftz = e.mxcsr & FTZ != 0;
    let same = |n: usize, e: u128, g: u128| {
        e == g || ftz && flushed_early(e, g) || undefined.only.is_some_and(|(r, bits)| r == n && (e ^ g) & bits == 0)
    };
    for n in 0..16 {
        if !same(n, e.xmm[n], g.xmm[n]) {
            d.push(format!("xmm{n}: expected {:032x}, got {:032x}", e.xmm[n], g.xmm[n]));
        }
        if !same(n, e.ymm_hi[n], g.ymm_hi[n]) && undefined.uppers >> n & 1 == 0 {
            d.push(format!("ymm{n} upper: expected {:032x}, got {:032x}", e.ymm_hi[n], g.ymm_hi[n]));
        }
    }
    let mut word = |name: &str, e: u64, g: u64| {
        if e != g {
            d.push(format!("{name}: expected {e:#x}, got {g:#x}"));
        }
    };
    let mut mxcsr = !MXCSR_DE;
    if e.mxcsr & MXCSR_UE == 0 {
        mxcsr &= !MXCSR_UE;
    }
    if e.mxcsr & MXCSR_IE != 0 && e.mxcsr & MXCSR_PE == 0 {
        mxcsr &= !MXCSR_PE;
    }
    // An unmasked exception that is found before the operation (IE DE ZE) keeps the CPU from looking for those found after it (OE UE PE), in all
    // lanes (SDM vol. 1,
    // 11.5). The host has noted them.
    if expected.fault.is_some_and(|f| f.signal == libc::SIGFPE) {
        mxcsr &= !(g.mxcsr & !e.mxcsr & 0x38);
    }
    mxcsr &= !(g.mxcsr & !e.mxcsr & undefined.raised);
    word("mxcsr", (e.mxcsr & mxcsr).into(), (g.mxcsr & mxcsr).into());
    word("fcw", e.fcw.into(), g.fcw.into());
    word("fsw", (e.fsw & !undefined.fsw).into(), (g.fsw & !undefined.fsw).into());
    word("x87 registers in use", e.in_use.into(), g.in_use.into());
    // A store across the end of writable memory faults on both, but AArch64 may have written the part before the fault.
    if expected.fault.is_none() || got.fault.is_none() {
        word("memory outside the window (digest)", expected.rest, got.rest);
    }
    for n in 0..8 {
        // What is left in a register that is empty on both sides can be seen by nothing but FXSAVE.
        let empty = (e.in_use | g.in_use) >> n & 1 == 0;
        if e.fpr[n] != g.fpr[n] && !empty {
            let show = |(m, x): (u64, u16)| format!("{x:04x}:{m:016x}");
            d.push(format!("fpr{n}: expected {}, got {}", show(e.fpr[n]), show(g.fpr[n])));
        }
    }
    for at in (0..e.mem.len()).step_by(16) {
        let (a, b) = (&e.mem[at..at + 16], &g.mem[at..at + 16]);
        if a != b {
            d.push(format!("mem+{at:x}: expected {}, got {}", super::text::hex(a), super::text::hex(b)));
        }
    }
    d
}

/// MXCSR.FTZ.
const FTZ: u32 = 1 << 15;

/// Whether the two sides differ in a vector register, and only by results that were flushed before they were rounded.
pub fn differ_by_flushing(expected: &Outcome, got: &Outcome) -> bool {
    let (e, g) = (&expected.state, &got.state);
    let pairs = || e.xmm.iter().zip(&g.xmm).chain(e.ymm_hi.iter().zip(&g.ymm_hi));
    e.mxcsr & FTZ != 0 && pairs().any(|(e, g)| e != g) && pairs().all(|(e, g)| e == g || flushed_early(*e, *g))
}

/// Whether lanes of `e` that are the smallest normal number, where `got` has zero, are all the difference: as x86 looks for a tiny result after rounding
/// and AArch64 before (see [`MXCSR_UE`]), one that is rounded up to that number is flushed there.
fn flushed_early(e: u128, got: u128) -> bool {
    let lanes = |bits: u32, exponent: u32| {
        let mask = u128::MAX >> (128 - bits);
        (0..128 / bits).all(|k| {
            let (e, got) = (e >> (bits * k) & mask, got >> (bits * k) & mask);
            e == got || e & !(1 << (bits - 1)) == 1 << exponent && got == e & 1 << (bits - 1)
        })
    };
    lanes(32, 23) || lanes(64, 52)
}

/// A non-canonical address is #GP or #SS on x86 and says nothing of the address. On AArch64 the top byte of an address is ignored, so the
/// host reports some other one, and an alignment fault may come first; an emulator reports address 0. All are a fault of
/// the same instruction, which `rip` says.
fn same_bad_address(expected: Option<Fault>, got: Option<Fault>) -> bool {
    const SI_KERNEL: i32 = 128;
    let bus_or_segv = |f: Fault| matches!(f.signal, 7 | 11);
    matches!((expected, got), (Some(e), Some(g)) if bus_or_segv(e) && e.code == SI_KERNEL && bus_or_segv(g))
}

/// An operand of 10 to 32 bytes is accessed in parts here, and the part that faults need not be the first: the address is that of
/// another of its bytes.
fn same_operand(expected: Option<Fault>, got: Option<Fault>) -> bool {
    matches!((expected, got), (Some(e), Some(g))
        if e.signal == g.signal && e.code == g.code && e.addr.abs_diff(g.addr) < 32 && e.addr >> 12 == g.addr >> 12)
}

/// Whether `i`, with registers as in `s`, accesses a non-canonical address. The CPU raises #GP or #SS there; AArch64 ignores the top byte of
/// addresses, so the access may find memory.
pub fn non_canonical(i: &Instruction, s: &State) -> bool {
    use Mnemonic::{Bt, Btc, Btr, Bts};
    let canonical = |a: u64| (a as i64) << 16 >> 16 == a as i64;
    if i.is_stack_instruction() && !canonical(s.gpr[4]) {
        return true;
    }
    (0..i.op_count()).any(|op| {
        let memory = !matches!(i.op_kind(op), OpKind::Register) && i.op_kind(op) == OpKind::Memory;
        let address = i.virtual_address(op, 0, |r, _, _| {
            let full = r.full_register();
            Some(if full.is_gpr() { s.gpr[full.number()] & (u64::MAX >> (64 - 8 * r.size())) } else { 0 })
        });
        // A bit offset in a register moves the address on.
        let bits = memory && matches!(i.mnemonic(), Bt | Bts | Btr | Btc) && i.op1_kind() == OpKind::Register;
        memory && (bits || address.is_none_or(|a| !canonical(a)))
    })
}

/// A state with the bits nobody may compare set to zero.
pub fn normal(mut s: State, undefined: Undefined) -> State {
    s.flags &= FLAGS & !undefined.flags;
    s.fsw &= !undefined.fsw;
    s
}

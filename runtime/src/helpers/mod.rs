//! Guest operations too long to emit inline, called from translated code through [`crate::abi::Thunk::Helper`].
//! One table: adding a helper is one line here and one function in the family's file.
//!
//! A helper sees the whole guest state through its first argument. To raise a fault it calls [`raise`] and returns;
//! it must not have changed guest state before that.

use crate::engine::{ExitReason, Trap};
use crate::state::{CpuState, HelperFn};

pub mod f80;
mod integer;
mod reciprocal;
mod segment;
pub mod sse;
mod time;
pub mod x87;
pub mod xsave;

macro_rules! helpers {
    ($($(#[$doc:meta])* $name:ident => $path:path,)*) => {
        /// A helper's index in [`TABLE`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Helper { $($(#[$doc])* $name,)* }

        /// All helpers, in the order of [`Helper`].
        pub static TABLE: &[HelperFn] = &[$($path,)*];

        impl Helper {
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];
        }
    };
}

helpers! {
    /// DIV r/m64: a = divisor; RDX:RAX is the dividend.
    Div64 => integer::div64,
    /// IDIV r/m64: a = divisor; RDX:RAX is the dividend.
    Idiv64 => integer::idiv64,
    /// CPUID: leaf in EAX, subleaf in ECX.
    Cpuid => integer::cpuid,
    /// A vDSO function, pure: a = which, b and c = its first arguments; see [`time::vdso`].
    Vdso => time::vdso,
    /// LDMXCSR: a = the value.
    Ldmxcsr => sse::ldmxcsr,
    /// STMXCSR: returns the value.
    Stmxcsr => sse::stmxcsr,
    /// PCMPxSTRx, pure: operands in spill slots; see [`sse::pcmpstr`].
    Pcmpstr => sse::pcmpstr,
    /// RCP and RSQRT of two singles, pure: a = both, b = 0 or 1.
    Estimate => reciprocal::estimate,
    /// The same of four singles in the first spill slot, to the second; pure.
    Estimate4 => reciprocal::estimate4,
    /// PUSHF: the result is RFLAGS.
    FlagsRead => integer::flags_read,
    /// POPF: a = the value popped, b = 2 when only the low half is replaced, c = the address of the next instruction.
    FlagsWrite => integer::flags_write,
    /// Loads a segment register; see [`segment::load_segment`].
    LoadSegment => segment::load_segment,
    /// LAR, LSL, VERR, VERW, pure; see [`segment::descriptor`].
    Descriptor => segment::descriptor,
    /// Far returns, jumps and calls; see [`segment::far`].
    Far => segment::far,
    /// RDRAND, RDSEED: the result is 64 random bits.
    Random => integer::random,
    /// RDTSCP, RDPID: the result is IA32_TSC_AUX as Linux sets it, node << 12 | cpu.
    TscAux => integer::tsc_aux,
    /// CRC32 on hosts without FEAT_CRC32, pure: a = checksum, b = data, c = bytes of it.
    Crc32c => integer::crc32c,
    /// PDEP, pure: a = source, b = mask.
    Pdep => integer::pdep,
    /// PEXT, pure: a = source, b = mask.
    Pext => integer::pext,
    /// x87 arithmetic between registers, pure; see [`x87::arith`].
    X87Arith => x87::arith,
    /// x87 arithmetic with a memory operand, pure.
    X87ArithMemory => x87::arith_memory,
    X87Compare => x87::compare,
    X87CompareMemory => x87::compare_memory,
    X87CompareFlags => x87::compare_flags,
    X87Load => x87::load,
    X87Store => x87::store,
    X87Register => x87::register,
    X87Implied => x87::implied,
    X87Control => x87::control,
    /// x87 and FXSAVE images in guest memory; not pure.
    X87MemoryImage => x87::memory_image,
    /// XSAVE and its like, XGETBV; not pure. See [`xsave::xsave`].
    Xsave => xsave::xsave,
}

/// Makes the instruction that called the helper raise `trap`: the helper thunk leaves translated code when the helper returns.
/// The guest address comes from the mark of the call site.
pub fn raise(cpu: &mut CpuState, trap: Trap) {
    cpu.exit_reason = ExitReason::Trap as u64;
    cpu.exit_arg = trap as u64;
}

/// As [`raise`], with an error code.
pub fn raise_selector(cpu: &mut CpuState, trap: Trap, error: u16) {
    raise(cpu, trap);
    cpu.exit_arg |= u64::from(error) << 32;
}

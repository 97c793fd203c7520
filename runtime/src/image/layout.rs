//! Where things go in an address space of x86_64 Linux: the constants and the randomisation of arch/x86 and fs/binfmt_elf.c, as
//! plain arithmetic on random bits. Maps nothing.

use crate::memory::host::PAGE;
use crate::memory::space::STACK_GUARD;

/// Random bits, as the kernel would draw them, or none (personality ADDR_NO_RANDOMIZE).
#[derive(Clone, Copy, Debug, Default)]
pub struct Randomness {
    /// mmap_base, and program base: 28 bits each (vm.mmap_rnd_bits).
    pub mmap: u64,
    pub program: u64,
    /// Top of the stack: 22 bits of pages.
    pub stack: u64,
    /// Within the stack's first pages: 13 bits, in bytes.
    pub stack_offset: u64,
    /// Start of brk above the program: up to 1 GiB.
    pub brk: u64,
}

/// The fixed points of one process's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// End of the stack mapping.
    pub stack_top: u64,
    /// Bytes of stack mapped below it.
    pub stack_size: u64,
    pub stack_offset: u64,
    /// Mappings without an address go below here.
    pub mmap_base: u64,
    /// Base of position-independent programs with an interpreter, and of brk for those without.
    pub program_base: u64,
    /// Added to the end of the program to get the start of brk.
    pub brk_offset: u64,
}

/// The stack limit when there is none (RLIM_INFINITY): mapped without reserving memory.
const UNLIMITED_STACK: u64 = 1 << 30;
/// Least stack mapped, whatever the limit says, for arguments and the first frames.
const LEAST_STACK: u64 = 256 << 10;
/// arch/x86/mm/mmap.c: MIN_GAP; the most is 5/6 of the space.
const LEAST_GAP: u64 = 128 << 20;

/// Lays out a space that ends at `end`, with a stack limit of `stack_limit` bytes (`u64::MAX` for none).
pub fn layout(end: u64, stack_limit: u64, random: Option<Randomness>) -> Layout {
    // 47 bits have the kernel's own numbers; smaller hosts get as many bits less.
    let less = 47u32.saturating_sub(64 - end.leading_zeros());
    let pages = |v: u64, bits: u32| (v & ((1u64 << bits.saturating_sub(less)) - 1)) * PAGE;
    let on = random.is_some();
    let r = random.unwrap_or_default();
    let limit = if stack_limit == u64::MAX { UNLIMITED_STACK } else { stack_limit };
    let stack_size = (limit.clamp(LEAST_STACK, end / 8) + PAGE - 1) & !(PAGE - 1);
    let stack_random = if on { ((1u64 << 22u32.saturating_sub(less)) - 1) * PAGE } else { 0 };
    let gap = stack_limit.saturating_add(STACK_GUARD + stack_random).clamp(LEAST_GAP.min(end / 8), end / 6 * 5);
    let gap = gap.max(stack_size + STACK_GUARD + stack_random);
    Layout {
        stack_top: end - pages(r.stack, 22),
        stack_size,
        stack_offset: r.stack_offset % 8192,
        mmap_base: (end - gap - pages(r.mmap, 28)) & !(PAGE - 1),
        program_base: ((end / 3 * 2) & !(PAGE - 1)) + pages(r.program, 28),
        brk_offset: (r.brk % (1 << 30)) & !(PAGE - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::space::TASK_SIZE;

    /// What `setarch -R` shows on x86_64: programs at 0x555555554000, mmap below 0x7ffff7fff000.
    #[test]
    fn without_randomness_as_linux() {
        let l = layout(TASK_SIZE, 8 << 20, None);
        assert_eq!(l.program_base, 0x5555_5555_4000);
        assert_eq!(l.mmap_base, 0x7fff_f7ff_f000);
        assert_eq!(l.stack_top, 0x7fff_ffff_f000);
    }

    #[test]
    fn nothing_overlaps_on_any_host() {
        for bits in [36, 39, 42, 47] {
            let end = (1u64 << bits) - PAGE;
            for limit in [0, 8 << 20, 64 << 30, u64::MAX] {
                for fill in [0, u64::MAX, 0x5555_5555_5555_5555] {
                    let r = Randomness { mmap: fill, program: fill, stack: fill, stack_offset: fill, brk: fill };
                    let l = layout(end, limit, Some(r));
                    assert!(l.stack_top <= end && l.stack_size > 0);
                    assert!(l.mmap_base + STACK_GUARD <= l.stack_top - l.stack_size, "{bits} {limit:x} {l:x?}");
                    assert!(l.program_base < end && l.mmap_base > end / 8);
                    assert!([l.stack_top, l.mmap_base, l.program_base].iter().all(|v| v % PAGE == 0));
                }
            }
        }
    }
}

//! The first stack of a program, byte for byte as the kernel builds it (fs/exec.c: copy_strings; fs/binfmt_elf.c:
//! create_elf_tables). Computed in a buffer; the caller copies it to the guest.

use std::ops::Range;

/// Keys of the auxiliary vector, in x86_64's numbers (which are arm64's too, but for the ones an architecture adds).
pub mod at {
    pub const NULL: u64 = 0;
    pub const EXECFD: u64 = 2;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// What goes on the stack.
#[derive(Debug)]
pub struct Input<'a> {
    /// Path the program was started as (AT_EXECFN).
    pub execfn: &'a [u8],
    pub argv: &'a [Vec<u8>],
    pub envp: &'a [Vec<u8>],
    /// The auxiliary vector without its end; the values of RANDOM, EXECFN and PLATFORM are filled in.
    pub auxv: &'a [(u64, u64)],
    pub random: [u8; 16],
}

/// The stack's contents and where its parts are.
#[derive(Debug, PartialEq, Eq)]
pub struct Stack {
    /// RSP at the first instruction, address of argc; a multiple of 16.
    pub sp: u64,
    /// Everything from `sp` to the top.
    pub bytes: Vec<u8>,
    /// The argument strings and the environment strings, for /proc/self/cmdline and environ.
    pub args: Range<u64>,
    pub env: Range<u64>,
    /// The auxiliary vector as words, with its end.
    pub auxv: Vec<u64>,
}

/// Number of bytes needed, at most.
pub fn size(input: &Input) -> u64 {
    let strings: usize = input.argv.iter().chain(input.envp).map(|s| s.len() + 1 + 8).sum();
    (strings + input.execfn.len() + 1 + input.auxv.len() * 16 + 8192 + 256) as u64
}

/// Builds the stack that ends at `top`; `offset` bytes are left out below the strings (arch_align_stack).
pub fn build<'a>(input: &Input<'a>, top: u64, offset: u64) -> Stack {
    // Filled from the top down, then turned round once.
    let mut p = top - 8;
    let mut strings: Vec<(u64, &'a [u8])> = Vec::new();
    let mut place = |s: &'a [u8], below: u64| {
        let at = below - s.len() as u64 - 1;
        strings.push((at, s));
        at
    };
    p = place(input.execfn, p);
    let execfn = p;
    let env_end = p;
    let mut envp = Vec::with_capacity(input.envp.len());
    for s in input.envp.iter().rev() {
        p = place(s, p);
        envp.push(p);
    }
    let env = p..env_end;
    let mut argv = Vec::with_capacity(input.argv.len());
    for s in input.argv.iter().rev() {
        p = place(s, p);
        argv.push(p);
    }
    let args = p..env.start;
    envp.reverse();
    argv.reverse();
    p = place(b"x86_64", (p - offset) & !15);
    let platform = p;
    p -= 16;
    let random = p;

    let mut words = vec![argv.len() as u64];
    words.extend(&argv);
    words.push(0);
    words.extend(&envp);
    words.push(0);
    let mut auxv = Vec::with_capacity(input.auxv.len() * 2 + 2);
    for &(key, value) in input.auxv {
        let value = match key {
            at::RANDOM => random,
            at::EXECFN => execfn,
            at::PLATFORM => platform,
            _ => value,
        };
        auxv.extend([key, value]);
    }
    auxv.extend([at::NULL, 0]);
    words.extend(&auxv);

    let sp = (p - words.len() as u64 * 8) & !15;
    let mut bytes = vec![0u8; (top - sp) as usize];
    for (i, w) in words.iter().enumerate() {
        bytes[i * 8..i * 8 + 8].copy_from_slice(&w.to_le_bytes());
    }
    for (at, s) in strings {
        let at = (at - sp) as usize;
        bytes[at..at + s.len()].copy_from_slice(s);
    }
    let at = (random - sp) as usize;
    bytes[at..at + 16].copy_from_slice(&input.random);
    Stack { sp, bytes, args, env, auxv }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(s: &Stack, addr: u64) -> u64 {
        let at = (addr - s.sp) as usize;
        u64::from_le_bytes(s.bytes[at..at + 8].try_into().expect("8 bytes"))
    }

    fn text(s: &Stack, addr: u64) -> &[u8] {
        s.bytes[(addr - s.sp) as usize..].split(|&b| b == 0).next().expect("a string")
    }

    /// Reads back what a C runtime would.
    #[test]
    fn as_a_program_sees_it() {
        for n in 0..9usize {
            let argv: Vec<Vec<u8>> = (0..n).map(|i| vec![b'a'; i]).collect();
            let envp = vec![b"A=1".to_vec(), b"BB=22".to_vec()];
            let auxv = [(at::PAGESZ, 4096), (at::RANDOM, 0), (at::EXECFN, 0), (at::PLATFORM, 0)];
            let input = Input { execfn: b"./prog", argv: &argv, envp: &envp, auxv: &auxv, random: [7; 16] };
            let s = build(&input, 0x7fff_ffff_f000, 123 * n as u64);
            assert_eq!(s.sp % 16, 0);
            assert!(s.bytes.len() as u64 <= size(&input));
            assert_eq!(word(&s, s.sp), n as u64);
            let mut p = s.sp + 8;
            for a in &argv {
                assert_eq!(text(&s, word(&s, p)), a);
                p += 8;
            }
            assert_eq!(word(&s, p), 0);
            for e in &envp {
                p += 8;
                assert_eq!(text(&s, word(&s, p)), e);
            }
            p += 8;
            assert_eq!(word(&s, p), 0);
            p += 8;
            let mut seen = Vec::new();
            while word(&s, p) != at::NULL {
                seen.push((word(&s, p), word(&s, p + 8)));
                p += 16;
            }
            assert_eq!(seen[0], (at::PAGESZ, 4096));
            assert_eq!(s.bytes[(seen[1].1 - s.sp) as usize..][..16], [7; 16]);
            assert_eq!(text(&s, seen[2].1), b"./prog");
            assert_eq!(text(&s, seen[3].1), b"x86_64");
            assert_eq!(&s.bytes[(s.env.start - s.sp) as usize..(s.env.end - s.sp) as usize], b"A=1\0BB=22\0");
            // The path is at the very top, then 8 zero bytes.
            assert_eq!(s.bytes[s.bytes.len() - 15..], *b"./prog\0\0\0\0\0\0\0\0\0");
        }
    }
}

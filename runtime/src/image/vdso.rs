//! The vDSO: a small x86_64 shared object in the guest's memory that answers the time calls without a system call.
//!
//! Its functions are x86 code around [`VDSO_NOP`], a long NOP that, inside this object only, the translator turns into a call of
//! [`crate::helpers::Helper::Vdso`]; that asks the host's C library, which asks the host's vDSO. Results come back in RAX (0, or
//! make the system call instead), RCX and RDX, and x86 code stores them, so a bad pointer faults as in any function.
//!
//! The object is built here: ELF header, two program headers, hash table, symbols with version LINUX_2.6, dynamic section,
//! code, as vdso(7) lists them for x86_64. It must not know where it will be mapped.

use crate::engine::VDSO_NOP;

/// Functions behind the NOP; the low half of its displacement.
pub mod function {
    pub const CLOCK_GETTIME: u16 = 0;
    pub const GETTIMEOFDAY: u16 = 1;
    pub const CLOCK_GETRES: u16 = 2;
    pub const GETCPU: u16 = 3;
}

/// Name, code. Each is exported as `__vdso_NAME` and, weakly, as `NAME`.
fn functions() -> [(&'static str, Vec<u8>); 5] {
    let ask = |n: u16| {
        let d = (VDSO_NOP | u32::from(n)).to_le_bytes();
        // nop dword [rax + disp32]
        [0x0f, 0x1f, 0x80, d[0], d[1], d[2], d[3]]
    };
    // mov eax, NR; syscall; ret
    let call = |nr: u8| [0xb8, nr, 0, 0, 0, 0x0f, 0x05, 0xc3];
    const TEST_EAX: [u8; 2] = [0x85, 0xc0];
    const TEST_RSI: [u8; 3] = [0x48, 0x85, 0xf6];
    const TEST_RDI: [u8; 3] = [0x48, 0x85, 0xff];
    // mov [rsi], rcx; mov [rsi+8], rdx
    const STORE_RSI: [u8; 7] = [0x48, 0x89, 0x0e, 0x48, 0x89, 0x56, 0x08];
    const STORE_RDI: [u8; 7] = [0x48, 0x89, 0x0f, 0x48, 0x89, 0x57, 0x08];
    const XOR_EAX: [u8; 2] = [0x31, 0xc0];
    const RET: [u8; 1] = [0xc3];
    // Conditional jumps over the next n bytes.
    let jz = |n: usize| [0x74, n as u8];
    let jnz = |n: usize| [0x75, n as u8];
    let join = |parts: &[&[u8]]| parts.concat();

    let clock_gettime =
        join(&[&ask(function::CLOCK_GETTIME), &TEST_EAX, &jnz(STORE_RSI.len() + 1), &STORE_RSI, &RET, &call(228)]);
    let gettimeofday = join(&[
        // A time zone is the kernel's to say.
        &TEST_RSI,
        &jnz(7 + 3 + 2 + STORE_RDI.len() + 2 + 1),
        &ask(function::GETTIMEOFDAY),
        &TEST_RDI,
        &jz(STORE_RDI.len()),
        &STORE_RDI,
        &XOR_EAX,
        &RET,
        &call(96),
    ]);
    let time = join(&[
        &ask(function::GETTIMEOFDAY),
        &TEST_RDI,
        &jz(3),
        // mov [rdi], rcx
        &STORE_RDI[..3],
        // mov rax, rcx
        &[0x48, 0x89, 0xc8],
        &RET,
    ]);
    let clock_getres = join(&[
        &ask(function::CLOCK_GETRES),
        &TEST_EAX,
        &jnz(3 + 2 + STORE_RSI.len() + 1),
        &TEST_RSI,
        &jz(STORE_RSI.len()),
        &STORE_RSI,
        &RET,
        &call(229),
    ]);
    let getcpu = join(&[
        &ask(function::GETCPU),
        &TEST_RDI,
        &jz(2),
        // mov [rdi], ecx
        &[0x89, 0x0f],
        &TEST_RSI,
        &jz(2),
        // mov [rsi], edx
        &[0x89, 0x16],
        &XOR_EAX,
        &RET,
    ]);
    [
        ("clock_gettime", clock_gettime),
        ("gettimeofday", gettimeofday),
        ("time", time),
        ("clock_getres", clock_getres),
        ("getcpu", getcpu),
    ]
}

/// The System V hash of symbol and version names (gABI, "Hash Table").
fn elf_hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |h, c| {
        let h = (h << 4).wrapping_add(u32::from(c));
        let g = h & 0xf000_0000;
        (h ^ g >> 24) & !g
    })
}

/// Strings as they come, each once; returns offsets.
#[derive(Default)]
struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, s: &str) -> u32 {
        let at = self.0.len() as u32;
        self.0.extend_from_slice(s.as_bytes());
        self.0.push(0);
        at
    }
}

const SONAME: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";
/// Code starts here; everything fits in one page.
const TEXT: usize = 0x800;

/// The object's bytes: at most a page, mapped readable and executable.
pub fn build() -> Vec<u8> {
    let functions = functions();
    let mut text = Vec::new();
    let mut strings = Strings(vec![0]);
    let soname = strings.add(SONAME);
    let version = strings.add(VERSION);
    // Symbol 0 is empty.
    let mut symbols = vec![0u8; 24];
    let mut hashes = vec![0u32];
    for (name, code) in &functions {
        text.resize(text.len().next_multiple_of(16), 0xcc);
        let at = (TEXT + text.len()) as u64;
        text.extend_from_slice(code);
        // STB_GLOBAL or STB_WEAK, STT_FUNC. The section index only has to differ from SHN_UNDEF.
        for (info, name) in [(0x12u8, format!("__vdso_{name}")), (0x22, (*name).to_string())] {
            hashes.push(elf_hash(&name));
            symbols.extend_from_slice(&strings.add(&name).to_le_bytes());
            symbols.extend_from_slice(&[info, 0, 1, 0]);
            symbols.extend_from_slice(&at.to_le_bytes());
            symbols.extend_from_slice(&(code.len() as u64).to_le_bytes());
        }
    }
    let count = hashes.len() as u32;
    // One bucket per symbol: nbucket, nchain, buckets, chains.
    let mut buckets = vec![0u32; count as usize];
    let mut chains = vec![0u32; count as usize];
    for (i, h) in hashes.iter().enumerate().skip(1) {
        let b = &mut buckets[(h % count) as usize];
        chains[i] = *b;
        *b = i as u32;
    }
    let hash: Vec<u8> = [count, count].iter().chain(&buckets).chain(&chains).flat_map(|w| w.to_le_bytes()).collect();
    let mut versym = vec![0u8; 2];
    versym.extend((1..count).flat_map(|_| 2u16.to_le_bytes()));
    let mut verdef = Vec::new();
    for (i, (flags, name, text)) in [(1u16, soname, SONAME), (0, version, VERSION)].into_iter().enumerate() {
        let last = i == 1;
        // Elfxx_Verdef: version 1, flags (VER_FLG_BASE), index, one name, hash, offset of the name, offset of the next.
        for h in [1, flags, i as u16 + 1, 1] {
            verdef.extend_from_slice(&h.to_le_bytes());
        }
        for w in [elf_hash(text), 20, if last { 0 } else { 28 }, name, 0] {
            verdef.extend_from_slice(&w.to_le_bytes());
        }
    }

    let mut b = vec![0u8; 64 + 2 * 56];
    let mut put = |part: &[u8]| {
        b.resize(b.len().next_multiple_of(8), 0);
        let at = b.len() as u64;
        b.extend_from_slice(part);
        at
    };
    let (hash_at, symbols_at) = (put(&hash), put(&symbols));
    let (strings_at, versym_at, verdef_at) = (put(&strings.0), put(&versym), put(&verdef));
    let dynamic: Vec<u8> = [
        (14, u64::from(soname)),      // DT_SONAME
        (4, hash_at),                 // DT_HASH
        (5, strings_at),              // DT_STRTAB
        (6, symbols_at),              // DT_SYMTAB
        (10, strings.0.len() as u64), // DT_STRSZ
        (11, 24),                     // DT_SYMENT
        (0x6fff_fff0, versym_at),     // DT_VERSYM
        (0x6fff_fffc, verdef_at),     // DT_VERDEF
        (0x6fff_fffd, 2),             // DT_VERDEFNUM
        (0, 0),
    ]
    .iter()
    .flat_map(|&(k, v): &(u64, u64)| [k, v])
    .flat_map(u64::to_le_bytes)
    .collect();
    let dynamic_at = put(&dynamic);
    assert!(b.len() <= TEXT, "the tables fit before the code");
    b.resize(TEXT, 0);
    b.extend_from_slice(&text);

    // ELF header: 64-bit, little-endian, ET_DYN, x86_64, no entry, program headers at 64, no sections.
    let size = b.len() as u64;
    let mut head = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 62, 0, 1, 0, 0, 0];
    for v in [0u64, 64, 0] {
        head.extend_from_slice(&v.to_le_bytes());
    }
    head.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD of everything, R X; PT_DYNAMIC, R.
    for (kind, flags, at, len, align) in
        [(1u32, 5u32, 0u64, size, 4096u64), (2, 4, dynamic_at, dynamic.len() as u64, 8)]
    {
        head.extend_from_slice(&kind.to_le_bytes());
        head.extend_from_slice(&flags.to_le_bytes());
        for v in [at, at, at, len, len, align] {
            head.extend_from_slice(&v.to_le_bytes());
        }
    }
    b[..head.len()].copy_from_slice(&head);
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_reads_it() {
        let b = build();
        assert!(b.len() <= 4096);
        let e = crate::image::elf::parse(&b[..]).expect("a good file");
        assert_eq!((e.relocatable, e.segments.len()), (true, 1));
        let word = |at: usize| u32::from_le_bytes(b[at..at + 4].try_into().expect("4 bytes"));
        // Every name is found through the hash table, as a dynamic linker looks.
        let hash = 64 + 2 * 56;
        let n = word(hash) as usize;
        let symbols = (hash + 8 + 8 * n).next_multiple_of(8);
        let strings = (symbols + 24 * n).next_multiple_of(8);
        for (name, code) in functions() {
            for name in [format!("__vdso_{name}"), name.to_string()] {
                let mut i = word(hash + 8 + 4 * (elf_hash(&name) as usize % n)) as usize;
                loop {
                    assert_ne!(i, 0, "{name}");
                    let s = strings + word(symbols + 24 * i) as usize;
                    if b[s..].starts_with(name.as_bytes()) && b[s + name.len()] == 0 {
                        break;
                    }
                    i = word(hash + 8 + 4 * n + 4 * i) as usize;
                }
                let at = word(symbols + 24 * i + 8) as usize;
                assert_eq!(b[at..at + code.len()], code);
            }
        }
    }

    /// The dynamic linker of an x86_64 host loads it and finds the versioned symbols.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_hosts_linker_loads_it() {
        use std::ffi::CString;
        let path = std::env::temp_dir().join(format!("xrun-vdso-{}.so", std::process::id()));
        // A linker wants section headers to be absent or whole; pages of the file must exist.
        let mut b = build();
        b.resize(4096, 0);
        std::fs::write(&path, &b).expect("written");
        let c = |s: &str| CString::new(s).expect("no NUL");
        // SAFETY: loads an object without constructors and looks names up.
        unsafe {
            let h = libc::dlopen(c(path.to_str().expect("UTF-8")).as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!h.is_null(), "{:?}", std::ffi::CStr::from_ptr(libc::dlerror()));
            for (name, code) in functions() {
                let p = libc::dlvsym(h, c(&format!("__vdso_{name}")).as_ptr(), c(VERSION).as_ptr());
                assert!(!p.is_null(), "{name}");
                assert_eq!(std::slice::from_raw_parts(p.cast::<u8>(), code.len()), code);
            }
            assert!(libc::dlvsym(h, c("__vdso_time").as_ptr(), c("LINUX_9").as_ptr()).is_null());
        }
        std::fs::remove_file(path).expect("removed");
    }
}

//! From a path to a process image: opens and checks the program (and its interpreter, and scripts), lays out the address
//! space, maps the segments, builds the first stack. The result is the CPU state at the first instruction.
//!
//! | file | |
//! |---|---|
//! | [`elf`] | bytes to a checked description |
//! | [`layout`] | where things go, with and without randomisation |
//! | [`stack`] | argc, argv, envp, auxv |
//! | [`vdso`] | the time functions in the guest's memory |
//! | [`error`] | what can be wrong, one line each |
//!
//! It must not know how guest code is run. It runs before any guest thread exists.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{Error as IoError, ErrorKind};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub mod elf;
pub mod error;
pub mod layout;
pub mod stack;
pub mod vdso;

use crate::binfmt;
use crate::config::Config;
use crate::memory::host::{self, PAGE};
use crate::memory::space::{Effects, Space, TASK_SIZE};
use crate::memory::vmas::{Kind, Prot};
use crate::memory::{self, access};
use crate::signal;
use crate::state::{CpuState, gpr};
use crate::store;
use elf::{Elf, Segment, Source};
use error::LoadError;
use layout::{Layout, Randomness};
use stack::at;

/// What others may ask about the loaded program (for /proc/self and crash lines).
#[derive(Clone, Debug)]
pub struct Process {
    /// The program's file: absolute, links resolved.
    pub exe: PathBuf,
    /// Where the strings of argv and of the environment lie on the stack.
    pub args: Range<u64>,
    pub env: Range<u64>,
    /// The auxiliary vector, as /proc/self/auxv has it.
    pub auxv: Vec<u64>,
    /// RSP at the first instruction.
    pub stack: u64,
    /// Where the program and its interpreter were mapped.
    pub program: Range<u64>,
    pub interpreter: Option<Range<u64>>,
}

/// A part of a file that was mapped to be executed and not written.
#[derive(Debug)]
pub struct MappedCode {
    pub file: File,
    pub guest: Range<u64>,
    pub offset: u64,
}

/// What [`start`] made.
#[derive(Debug)]
pub struct Loaded {
    /// The registers at the first instruction.
    pub cpu: CpuState,
    pub code: Vec<MappedCode>,
}

static PROCESS: OnceLock<Process> = OnceLock::new();

/// The loaded program; `None` before [`start`].
pub fn process() -> Option<&'static Process> {
    PROCESS.get()
}

/// A program file to load, and how it was asked for.
struct Program {
    path: PathBuf,
    file: File,
    elf: Elf,
    argv: Vec<Vec<u8>>,
}

/// Loads the configured program into this process.
pub fn start(config: &Config) -> Result<Loaded, LoadError> {
    if host::page_size() != PAGE {
        return Err(LoadError::PageSize(host::page_size()));
    }
    let program = find(config)?;
    let interp = interpreter(config, &program)?;
    let envp = environment();
    let mut random = [0u8; 56];
    draw(&mut random);
    let personality = personality();
    if is_randomised()
        && let Some(place) = store::program_place(program.file.as_raw_fd())
    {
        random[24..32].copy_from_slice(&place.to_le_bytes());
    }
    let layout = lay_out(personality, &random);
    memory::with_space(|space| {
        space.end = usable_end();
        space.mmap_base = layout.mmap_base;
        space.read_implies_exec = personality & libc::READ_IMPLIES_EXEC != 0;
        build(space, config, &layout, program, interp, &envp, &random)
    })
}

fn build(
    space: &mut Space,
    config: &Config,
    layout: &Layout,
    program: Program,
    interp: Option<(PathBuf, File, Elf)>,
    envp: &[Vec<u8>],
    random: &[u8; 56],
) -> Result<Loaded, LoadError> {
    let mut stack_prot = Prot::READ | Prot::WRITE;
    stack_prot.set(Prot::EXEC, program.elf.exec_stack);
    let top = place_stack(space, layout, stack_prot)?;

    let hint = if program.elf.interp.is_some() { layout.program_base } else { 0 };
    let bias = map_image(space, &program.path, &program.file, &program.elf, hint)?;
    let span = |e: &Elf, bias: u64| e.span().start.wrapping_add(bias)..e.span().end.wrapping_add(bias);
    let program_span = span(&program.elf, bias);
    // Without an interpreter a relocatable program lies among the mappings, where brk could not grow.
    let brk_base = if program.elf.relocatable && interp.is_none() { layout.program_base } else { program_span.end };
    space.brk_start = brk_base + layout.brk_offset;
    space.brk = space.brk_start;

    let mut code = mapped_code(&program.file, &program.elf, bias);
    let mut entry = program.elf.entry.wrapping_add(bias);
    let mut base = 0;
    let mut interp_span = None;
    if let Some((path, file, elf)) = &interp {
        base = map_image(space, path, file, elf, 0)?;
        code.extend(mapped_code(file, elf, base));
        entry = elf.entry.wrapping_add(base);
        interp_span = Some(span(elf, base));
        // A fixed-address interpreter has no base to report but its own first page.
        if !elf.relocatable {
            base = elf.span().start;
        }
    }

    let vdso = place_vdso(space)?;
    let auxv = auxv(&program.elf, bias, base, vdso);
    let mut at_random = [0; 16];
    at_random.copy_from_slice(&random[..16]);
    let input = stack::Input {
        execfn: binfmt::execfn().unwrap_or(config.program.as_os_str().as_bytes()),
        argv: &program.argv,
        envp,
        auxv: &auxv,
        random: at_random,
    };
    // As the kernel: at most a quarter of the stack.
    let (need, room) = (stack::size(&input), layout.stack_size / 4 * 3);
    if need > room {
        return Err(LoadError::TooBig(need, room));
    }
    let stack = stack::build(&input, top, layout.stack_offset);
    let written = access::write(stack.sp, &stack.bytes);
    debug_assert!(written.is_ok(), "the stack was mapped just now");

    let mut cpu = CpuState { rip: entry, ..CpuState::default() };
    cpu.gpr[gpr::RSP] = stack.sp;
    let _ = PROCESS.set(Process {
        exe: name_of(&program.file, &program.path),
        args: stack.args,
        env: stack.env,
        auxv: stack.auxv,
        stack: stack.sp,
        program: program_span,
        interpreter: interp_span,
    });
    Ok(Loaded { cpu, code })
}

/// What [`store::mapped`] is to hear of an image that was mapped.
fn mapped_code(file: &File, elf: &Elf, bias: u64) -> Vec<MappedCode> {
    let code = |s: &&Segment| s.prot.contains(Prot::EXEC) && !s.prot.contains(Prot::WRITE) && s.filesz != 0;
    let all = elf.segments.iter().filter(code).filter_map(|s| {
        let at = s.vaddr.wrapping_add(bias);
        let (first, end) = (at & !(PAGE - 1), (at + s.filesz + PAGE - 1) & !(PAGE - 1));
        Some(MappedCode { file: file.try_clone().ok()?, guest: first..end, offset: s.offset - at % PAGE })
    });
    all.collect()
}

// ---- finding the program --------------------------------------------------------------------------------------------

/// Opens a file that is to be executed.
fn open(path: &Path) -> Result<File, LoadError> {
    let failed = |error: IoError| LoadError::Open { path: path.into(), error };
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_dir() {
        return Err(LoadError::Directory(path.into()));
    }
    if !meta.is_file() {
        return Err(LoadError::Special(path.into()));
    }
    let mut c = path.as_os_str().as_bytes().to_vec();
    c.push(0);
    // SAFETY: `c` ends with a NUL byte and outlives the call.
    let allowed = unsafe { libc::faccessat(libc::AT_FDCWD, c.as_ptr().cast(), libc::X_OK, libc::AT_EACCESS) } == 0;
    if !allowed || host::on_noexec_mount(file.as_raw_fd()) {
        return Err(LoadError::NotExecutable(path.into()));
    }
    Ok(file)
}

/// Opens the configured program, following `#!` lines to an ELF file.
fn find(config: &Config) -> Result<Program, LoadError> {
    let mut path = config.program.clone();
    let argv0 = config.argv0.clone().unwrap_or_else(|| path.as_os_str().as_bytes().to_vec());
    let mut argv = vec![argv0];
    argv.extend(config.args.iter().cloned());
    let mut script: Option<PathBuf> = None;
    // The kernel follows as many (fs/exec.c: exec_binprm).
    for _ in 0..5 {
        let opened = match binfmt::take_program() {
            Some(file) => Ok(file),
            None => open(&path),
        };
        let file = match (opened, &script) {
            (Err(LoadError::Open { error, .. }), Some(script)) if error.kind() == ErrorKind::NotFound => {
                match config.prefixed(&path).map(|p| (open(&p), p)) {
                    Some((Ok(file), p)) => {
                        path = p;
                        file
                    }
                    _ => return Err(LoadError::NoScriptInterp { script: script.clone(), interp: path }),
                }
            }
            (r, _) => r?,
        };
        let mut head = [0; 256];
        let n = file.read(0, &mut head);
        let Some(line) = elf::script_line(&head[..n]) else {
            let elf = elf::parse(&file).map_err(|error| LoadError::Elf { path: path.clone(), error })?;
            return Ok(Program { path, file, elf, argv });
        };
        let (interp, arg) = line.map_err(|what| LoadError::Script { path: path.clone(), what })?;
        argv[0] = path.as_os_str().as_bytes().to_vec();
        let mut front = vec![interp.clone()];
        front.extend(arg);
        argv.splice(0..0, front);
        script = Some(path);
        path = PathBuf::from(OsString::from_vec(interp));
    }
    Err(LoadError::Script { path: config.program.clone(), what: "too many #! interpreters in a row" })
}

/// Opens the interpreter the program names: at its own path, else under the prefix.
fn interpreter(config: &Config, program: &Program) -> Result<Option<(PathBuf, File, Elf)>, LoadError> {
    let Some(name) = &program.elf.interp else { return Ok(None) };
    let own = PathBuf::from(OsStr::from_bytes(name));
    let mut first_error = None;
    for path in std::iter::once(own.clone()).chain(config.prefixed(&own)) {
        let loaded = open(&path).and_then(|file| {
            let elf = elf::parse(&file).map_err(|error| LoadError::Elf { path: path.clone(), error })?;
            Ok((file, elf))
        });
        match loaded {
            Ok((file, elf)) => return Ok(Some((path, file, elf))),
            Err(LoadError::Open { error, .. }) if error.kind() == ErrorKind::NotFound => {}
            Err(e) => first_error = first_error.or(Some(e)),
        }
    }
    Err(first_error.unwrap_or_else(|| LoadError::NoInterp { path: program.path.clone(), interp: own }))
}

/// The absolute name of an open file, as the kernel tells it; without /proc, as far as its path leads to it.
fn name_of(file: &File, path: &Path) -> PathBuf {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let told = std::fs::read_link(link).or_else(|_| path.canonicalize()).or_else(|_| std::path::absolute(path));
    told.unwrap_or_else(|_| path.into())
}

// ---- mapping --------------------------------------------------------------------------------------------------------

fn os_error(errno: i32) -> IoError {
    IoError::from_raw_os_error(errno)
}

/// Maps the segments of `elf`; returns what is added to its addresses. `hint` is where a relocatable one should start
/// (0: among the mappings).
fn map_image(space: &mut Space, path: &Path, file: &File, elf: &Elf, hint: u64) -> Result<u64, LoadError> {
    let span = elf.span();
    let len = span.end - span.start;
    let failed = |what, r: Range<u64>, errno| LoadError::Map {
        path: path.into(),
        what,
        start: r.start,
        end: r.end,
        error: os_error(errno),
    };
    let mut fx = Effects::default();
    let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // The whole span is taken first, so that segments never land on anything else.
    let start = if elf.relocatable {
        let hint = if hint == 0 { store::place(file.as_raw_fd(), space.end).unwrap_or(0) } else { hint };
        // Room to align the start as the largest segment asks.
        let room = len + elf.align - PAGE;
        let taken = space
            .mmap(&mut fx, hint, room, libc::PROT_NONE, anon, -1, 0)
            .map_err(|e| failed("the program", hint..hint.saturating_add(room), e))?;
        let start = taken + (span.start.wrapping_sub(taken) & (elf.align - 1));
        for gap in [taken..start, start + len..taken + room] {
            if !gap.is_empty() {
                let _ = space.munmap(&mut fx, gap.start, gap.end - gap.start);
            }
        }
        start
    } else {
        let fixed = anon | host::MAP_FIXED_NOREPLACE;
        space
            .mmap(&mut fx, span.start, len, libc::PROT_NONE, fixed, -1, 0)
            .map_err(|e| failed("a fixed-address program", span.clone(), e))?
    };
    let bias = start.wrapping_sub(span.start);
    let mut end = start;
    for s in &elf.segments {
        let at = s.vaddr.wrapping_add(bias);
        let first_page = at & !(PAGE - 1);
        if first_page > end {
            // A hole between segments is unmapped, as the kernel leaves it.
            let _ = space.munmap(&mut fx, end, first_page - end);
        }
        map_segment(space, file, s, at).map_err(|e| failed("a segment", at..at + s.memsz, e))?;
        end = (at + s.memsz + PAGE - 1) & !(PAGE - 1);
    }
    Ok(bias)
}

/// Maps one segment at `at`: bytes of the file, then zeros.
fn map_segment(space: &mut Space, file: &File, s: &Segment, at: u64) -> Result<(), i32> {
    let mut fx = Effects::default();
    let fixed = libc::MAP_PRIVATE | libc::MAP_FIXED;
    let prot = i32::from(s.prot.bits());
    let in_page = at % PAGE;
    let file_end = at + s.filesz;
    let mut zeros_from = at & !(PAGE - 1);
    if s.filesz != 0 {
        let (start, len) = (at - in_page, s.filesz + in_page);
        space.mmap(&mut fx, start, len, prot, fixed, file.as_raw_fd(), s.offset - in_page)?;
        zeros_from = (file_end + PAGE - 1) & !(PAGE - 1);
        // The rest of the last page: the kernel clears it only where the program may write.
        if s.memsz > s.filesz && zeros_from > file_end && s.prot.contains(Prot::WRITE) {
            let zeros = [0u8; PAGE as usize];
            access::write(file_end, &zeros[..(zeros_from - file_end) as usize]).map_err(|_| libc::EFAULT)?;
        }
    }
    let end = (at + s.memsz + PAGE - 1) & !(PAGE - 1);
    if end > zeros_from {
        let anon = fixed | libc::MAP_ANONYMOUS;
        space.mmap(&mut fx, zeros_from, end - zeros_from, prot, anon, -1, 0)?;
    }
    Ok(())
}

/// Maps the stack as near below the wished top as the host's own memory allows; returns its end.
fn place_stack(space: &mut Space, layout: &Layout, prot: Prot) -> Result<u64, LoadError> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    let size = layout.stack_size;
    let base = std::mem::replace(&mut space.mmap_base, layout.stack_top);
    let at = space.mmap(&mut Effects::default(), 0, size, i32::from(prot.bits()), flags, -1, 0);
    space.mmap_base = base;
    let at = at.map_err(|e| LoadError::NoRoom("the stack", os_error(e)))?;
    space.vmas.update(at..at + size, |v| v.kind = Kind::Stack);
    // Where it had to move down, mappings follow.
    space.mmap_base = space.mmap_base.min(at - memory::space::STACK_GUARD);
    Ok(at + size)
}

/// Maps the vDSO among the mappings; returns its address.
fn place_vdso(space: &mut Space) -> Result<u64, LoadError> {
    let failed = |e| LoadError::NoRoom("the vDSO", os_error(e));
    let mut fx = Effects::default();
    let (rw, rx) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ | libc::PROT_EXEC);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let at = space.mmap(&mut fx, 0, PAGE, rw, flags, -1, 0).map_err(failed)?;
    access::write(at, &vdso::build()).map_err(|_| failed(libc::EFAULT))?;
    space.mprotect(&mut fx, at, PAGE, rx).map_err(failed)?;
    space.vmas.update(at..at + PAGE, |v| v.kind = Kind::Vdso);
    Ok(at)
}

// ---- what the host says ---------------------------------------------------------------------------------------------

/// End of the address space both the guest and this host have.
fn usable_end() -> u64 {
    static END: OnceLock<u64> = OnceLock::new();
    *END.get_or_init(|| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        for bits in (32..=47).rev() {
            let end = (1u64 << bits) - PAGE;
            // A page near the end: taken or free, it exists.
            match host::mmap_exactly(end - PAGE, PAGE, libc::PROT_NONE, flags, -1, 0) {
                Ok(()) => {
                    let _ = host::munmap(end - PAGE, PAGE);
                    return end;
                }
                Err(libc::EEXIST) => return end,
                Err(_) => {}
            }
        }
        TASK_SIZE
    })
}

fn lay_out(personality: i32, random: &[u8; 56]) -> Layout {
    let word = |i: usize| {
        let mut b = [0; 8];
        b.copy_from_slice(&random[16 + i * 8..24 + i * 8]);
        u64::from_le_bytes(b)
    };
    let randomness = (personality & libc::ADDR_NO_RANDOMIZE == 0).then(|| Randomness {
        mmap: word(0),
        program: word(1),
        stack: word(2),
        stack_offset: word(3),
        brk: word(4),
    });
    let mut limit = libc::rlimit { rlim_cur: 8 << 20, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    unsafe { libc::getrlimit(libc::RLIMIT_STACK, &mut limit) };
    layout::layout(usable_end(), limit.rlim_cur, randomness)
}

/// Whether addresses are random.
pub(crate) fn is_randomised() -> bool {
    static RANDOMISED: OnceLock<bool> = OnceLock::new();
    *RANDOMISED.get_or_init(|| personality() & libc::ADDR_NO_RANDOMIZE == 0)
}

fn personality() -> i32 {
    // SAFETY: this argument asks without changing anything.
    unsafe { libc::personality(0xffff_ffff) }.max(0)
}

fn draw(random: &mut [u8]) {
    // SAFETY: the buffer is valid for its length. Up to 256 bytes are never cut short once the kernel's pool is ready.
    unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
}

/// The environment, byte for byte, entries without `=` included.
fn environment() -> Vec<Vec<u8>> {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    let mut out = Vec::new();
    // SAFETY: libc keeps `environ` a NULL-terminated array of NUL-terminated strings, and no other thread exists yet.
    unsafe {
        let mut p = environ;
        while !p.is_null() && !(*p).is_null() {
            out.push(CStr::from_ptr(*p).to_bytes().to_vec());
            p = p.add(1);
        }
    }
    out
}

/// A value of the host's own auxiliary vector; 0 when it has none.
pub(crate) fn host_auxv(key: u64) -> u64 {
    // SAFETY: getauxval reads the vector the kernel left.
    unsafe { libc::getauxval(key) }
}

/// As [`host_auxv`], where 0 is a value like others.
pub(crate) fn host_auxv_entry(key: u64) -> Option<u64> {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() = 0 };
    let value = host_auxv(key);
    // getauxval(3): ENOENT when there is none.
    (value != 0 || IoError::last_os_error().raw_os_error() != Some(libc::ENOENT)).then_some(value)
}

/// The auxiliary vector in the kernel's order.
fn auxv(elf: &Elf, bias: u64, base: u64, vdso: u64) -> Vec<(u64, u64)> {
    let cpuid = |leaf| crate::engine::installed().map_or([0; 4], |e| e.cpuid(leaf, 0));
    // CPUID.(7,0):EBX bit 0: user code may use RDFSBASE and its like (HWCAP2_FSGSBASE is bit 1).
    let hwcap2 = u64::from(cpuid(7)[1] & 1) << 1;
    let phdr = if elf.phdr == 0 { 0 } else { elf.phdr.wrapping_add(bias) };
    vec![
        (at::SYSINFO_EHDR, vdso),
        (at::MINSIGSTKSZ, signal::frame::min_stack(signal::Features::of_engine())),
        (at::HWCAP, u64::from(cpuid(1)[3])),
        (at::PAGESZ, PAGE),
        (at::CLKTCK, 100),
        (at::PHDR, phdr),
        (at::PHENT, 56),
        (at::PHNUM, elf.phnum.into()),
        (at::BASE, base),
        (at::FLAGS, 0),
        (at::ENTRY, elf.entry.wrapping_add(bias)),
        (at::UID, host_auxv(at::UID)),
        (at::EUID, host_auxv(at::EUID)),
        (at::GID, host_auxv(at::GID)),
        (at::EGID, host_auxv(at::EGID)),
        (at::SECURE, host_auxv(at::SECURE)),
        (at::RANDOM, 0),
        (at::HWCAP2, hwcap2),
        (at::EXECFN, 0),
        (at::PLATFORM, 0),
    ]
}

/// Reads a file's first bytes and says whose program it is.
pub fn classify(path: &Path) -> std::io::Result<elf::FileKind> {
    let file = File::open(path)?;
    let mut head = [0; 20];
    let n = file.read(0, &mut head);
    Ok(elf::classify(&head[..n]))
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;

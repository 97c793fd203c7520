//! Runs a case on the x86_64 CPU under this process: loads the whole user state, jumps to the code, and takes the whole
//! state back when the code ends or raises a signal. One thread only: the addresses are fixed and the context is global.

use super::state::{Case, Fault, Outcome, State, rest_digest};
use super::{CODE, CODE_SIZE, DATA, DATA_RO, DATA_RW, START, WINDOW, WINDOW_SIZE};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Where the trampoline keeps its own data: below 2 GiB, so that absolute addressing reaches it whatever the guest left
/// in the registers.
const CONTEXT: u64 = super::RECORDER;

/// The trampoline's data; the assembly below addresses the fields as `CONTEXT + offset`.
#[repr(C, align(64))]
struct Context {
    gpr: [u64; 16],    // 0
    flags: u64,        // 128
    target: u64,       // 136
    host_rsp: u64,     // 144
    pad: [u64; 13],    // 152
    stack: [u64; 32],  // 256
    xsave: [u8; 1088], // 512
}

// The XSAVE area (SDM vol. 1, 13.4): legacy region, header at 512, YMM uppers at 576 (CPUID.0DH.2:EBX is 576 on all CPUs
// that have AVX, because no earlier component can precede it).
const XSTATE_BV: usize = 512;
const YMM_HI: usize = 576;

std::arch::global_asm!(
    ".globl xrun_truth_enter",
    "xrun_truth_enter:",
    "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
    "mov [{c} + 144], rsp",
    "mov eax, 7", "xor edx, edx",
    "xrstor64 [{c} + 512]",
    "push qword ptr [{c} + 128]", "popfq",
    "mov rax, [{c} + 0]", "mov rcx, [{c} + 8]", "mov rdx, [{c} + 16]", "mov rbx, [{c} + 24]",
    "mov rsp, [{c} + 32]", "mov rbp, [{c} + 40]", "mov rsi, [{c} + 48]", "mov rdi, [{c} + 56]",
    "mov r8, [{c} + 64]", "mov r9, [{c} + 72]", "mov r10, [{c} + 80]", "mov r11, [{c} + 88]",
    "mov r12, [{c} + 96]", "mov r13, [{c} + 104]", "mov r14, [{c} + 112]", "mov r15, [{c} + 120]",
    "jmp qword ptr [{c} + 136]",
    ".globl xrun_truth_exit",
    "xrun_truth_exit:",
    "mov [{c} + 32], rsp",
    "mov rsp, {c} + 512",
    "pushfq", "pop qword ptr [{c} + 128]",
    "mov [{c} + 0], rax", "mov [{c} + 8], rcx", "mov [{c} + 16], rdx", "mov [{c} + 24], rbx",
    "mov [{c} + 40], rbp", "mov [{c} + 48], rsi", "mov [{c} + 56], rdi",
    "mov [{c} + 64], r8", "mov [{c} + 72], r9", "mov [{c} + 80], r10", "mov [{c} + 88], r11",
    "mov [{c} + 96], r12", "mov [{c} + 104], r13", "mov [{c} + 112], r14", "mov [{c} + 120], r15",
    "mov eax, 7", "xor edx, edx",
    "xsave64 [{c} + 512]",
    "mov rsp, [{c} + 144]",
    // A signal handler resumes here, with the host stack pointer already in place.
    ".globl xrun_truth_recover",
    "xrun_truth_recover:",
    "push 0x202", "popfq",
    "fninit", "push 0x1f80", "ldmxcsr [rsp]", "add rsp, 8", "vzeroupper",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
    "ret",
    c = const CONTEXT,
);

unsafe extern "C" {
    fn xrun_truth_enter();
    fn xrun_truth_exit();
    fn xrun_truth_recover();
}

static FAULT_SIGNAL: AtomicU64 = AtomicU64::new(0);
static FAULT_CODE: AtomicU64 = AtomicU64::new(0);
static FAULT_ADDR: AtomicU64 = AtomicU64::new(0);
static FAULT_RIP: AtomicU64 = AtomicU64::new(0);
/// While a case is traced: the addresses of the instructions that ran, in order, and how many there are.
static TRACING: AtomicBool = AtomicBool::new(false);
static TRACED: [AtomicU64; 4096] = [const { AtomicU64::new(0) }; 4096];
static STEPS: AtomicUsize = AtomicUsize::new(0);
/// Number of the case being run (odd while inside), and what the last timer tick saw.
static RUNNING: AtomicU64 = AtomicU64::new(0);
static LAST_TICK: AtomicU64 = AtomicU64::new(0);

fn context() -> *mut Context {
    CONTEXT as *mut Context
}

/// The native CPU, set up to run cases. There is one per process.
pub struct Native {
    gs_base: u64,
}

impl Native {
    /// Maps the fixed addresses and installs the signal handlers.
    ///
    /// # Errors
    /// When an address is taken or the CPU has no AVX state to save.
    pub fn new() -> Result<Self, String> {
        if !std::arch::is_x86_feature_detected!("avx2") {
            return Err("this CPU has no AVX2; the recorder needs x86-64-v3".into());
        }
        map(CONTEXT, 0x1000, libc::PROT_READ | libc::PROT_WRITE)?;
        map(CODE, CODE_SIZE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;
        map(DATA, DATA_RW, libc::PROT_READ | libc::PROT_WRITE)?;
        map(DATA + DATA_RW as u64, DATA_RO, libc::PROT_READ)?;
        install_handlers();
        // SAFETY: CODE was just mapped writable with CODE_SIZE bytes.
        unsafe { std::ptr::write_bytes(CODE as *mut u8, 0xcc, CODE_SIZE) };
        Ok(Self { gs_base: 0 })
    }

    /// Runs `case` by single steps; the addresses of the instructions that ran, as many as are kept.
    pub fn trace(&mut self, case: &Case) -> Vec<u64> {
        const TF: u64 = 1 << 8;
        let mut case = case.clone();
        case.state.flags |= TF;
        STEPS.store(0, Ordering::Relaxed);
        TRACING.store(true, Ordering::Relaxed);
        self.run(&case);
        TRACING.store(false, Ordering::Relaxed);
        let steps = STEPS.load(Ordering::Relaxed).min(TRACED.len());
        TRACED[..steps].iter().map(|a| a.load(Ordering::Relaxed)).collect()
    }

    /// Runs `case` on the CPU.
    pub fn run(&mut self, case: &Case) -> Outcome {
        assert!(case.code.len() <= super::CODE_MAX);
        let end = START + case.code.len() as u64;
        if case.state.gs_base != self.gs_base {
            self.gs_base = case.state.gs_base;
            // SAFETY: arch_prctl(ARCH_SET_GS) changes only the GS base, which Rust and libc do not use on x86_64 Linux.
            unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1001, self.gs_base) };
        }
        // SAFETY: the addresses were mapped by `new` with these sizes and are used by this thread only; the code page
        // is filled before the jump; the trampoline saves and restores what the ABI asks of a callee, and the
        // signal handlers bring control back to `xrun_truth_recover` with the same stack.
        unsafe {
            let code = CODE as *mut u8;
            let start = START as *mut u8;
            std::ptr::copy_nonoverlapping(case.code.as_ptr(), start, case.code.len());
            // jmp qword ptr [rip]; address
            let mut tail = [0u8; 14];
            tail[..6].copy_from_slice(&[0xff, 0x25, 0, 0, 0, 0]);
            tail[6..].copy_from_slice(&(xrun_truth_exit as *const () as u64).to_le_bytes());
            std::ptr::copy_nonoverlapping(tail.as_ptr(), start.add(case.code.len()), tail.len());

            std::ptr::write_bytes(DATA as *mut u8, 0, DATA_RW);
            std::ptr::copy_nonoverlapping(case.state.mem.as_ptr(), WINDOW as *mut u8, WINDOW_SIZE);
            let c = context();
            (*c).gpr = case.state.gpr;
            (*c).flags = case.state.flags;
            (*c).target = START;
            put_xsave(&mut (*c).xsave, &case.state);
            FAULT_SIGNAL.store(0, Ordering::Relaxed);
            RUNNING.fetch_add(1, Ordering::Relaxed);
            xrun_truth_enter();
            RUNNING.fetch_add(1, Ordering::Relaxed);

            let mut state = case.state.clone();
            let signal = FAULT_SIGNAL.load(Ordering::Relaxed) as i32;
            state.gpr = (*c).gpr;
            state.flags = (*c).flags;
            get_xsave(&(*c).xsave, &mut state);
            let data = std::slice::from_raw_parts(DATA as *const u8, DATA_RW);
            state.mem.copy_from_slice(&data[(WINDOW - DATA) as usize..][..WINDOW_SIZE]);
            let fault = (signal != 0).then(|| Fault {
                signal,
                code: FAULT_CODE.load(Ordering::Relaxed) as i32,
                addr: FAULT_ADDR.load(Ordering::Relaxed),
            });
            state.rip = if signal == 0 { end } else { FAULT_RIP.load(Ordering::Relaxed) };
            std::ptr::write_bytes(code, 0xcc, CODE_SIZE);
            Outcome { state, fault, rest: rest_digest(data) }
        }
    }
}

fn map(addr: u64, len: usize, prot: i32) -> Result<(), String> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: NOREPLACE: nothing mapped is touched.
    let p = unsafe { libc::mmap(addr as *mut _, len, prot, flags, -1, 0) };
    if p as u64 == addr { Ok(()) } else { Err(format!("cannot map {addr:#x}: {}", std::io::Error::last_os_error())) }
}

fn put_xsave(area: &mut [u8; 1088], s: &State) {
    area.fill(0);
    area[0..2].copy_from_slice(&s.fcw.to_le_bytes());
    area[2..4].copy_from_slice(&s.fsw.to_le_bytes());
    area[4] = s.in_use;
    area[24..28].copy_from_slice(&s.mxcsr.to_le_bytes());
    let top = (s.fsw >> 11 & 7) as usize;
    for i in 0..8 {
        let (m, e) = s.fpr[(top + i) & 7];
        area[32 + 16 * i..][..8].copy_from_slice(&m.to_le_bytes());
        area[40 + 16 * i..][..2].copy_from_slice(&e.to_le_bytes());
    }
    for n in 0..16 {
        area[160 + 16 * n..][..16].copy_from_slice(&s.xmm[n].to_le_bytes());
        area[YMM_HI + 16 * n..][..16].copy_from_slice(&s.ymm_hi[n].to_le_bytes());
    }
    area[XSTATE_BV] = 7;
}

fn get_xsave(area: &[u8], s: &mut State) {
    let u16_at = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
    let bytes16 = |at: usize| -> [u8; 16] { area[at..at + 16].try_into().unwrap_or_default() };
    // A component whose bit is clear is in its initial configuration (SDM vol. 1, 13.6).
    let present = area[XSTATE_BV];
    if present & 1 != 0 {
        s.fcw = u16_at(0);
        s.fsw = u16_at(2);
        s.in_use = area[4];
        let top = (s.fsw >> 11 & 7) as usize;
        for i in 0..8 {
            let v = u128::from_le_bytes(bytes16(32 + 16 * i));
            s.fpr[(top + i) & 7] = (v as u64, (v >> 64) as u16);
        }
    } else {
        (s.fcw, s.fsw, s.in_use, s.fpr) = (0x37f, 0, 0, [(0, 0); 8]);
    }
    s.mxcsr = u32::from_le_bytes([area[24], area[25], area[26], area[27]]);
    for n in 0..16 {
        s.xmm[n] = if present & 2 != 0 { u128::from_le_bytes(bytes16(160 + 16 * n)) } else { 0 };
        s.ymm_hi[n] = if present & 4 != 0 { u128::from_le_bytes(bytes16(YMM_HI + 16 * n)) } else { 0 };
    }
}

fn install_handlers() {
    // SAFETY: installs handlers and an alternate stack that lives for ever; the timer only interrupts this process.
    unsafe {
        let stack = libc::mmap(
            std::ptr::null_mut(),
            0x10000,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        let ss = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: 0x10000 };
        libc::sigaltstack(&ss, std::ptr::null_mut());
        let mut sa: libc::sigaction = std::mem::zeroed();
        sa.sa_sigaction = on_signal as *const () as usize;
        sa.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for s in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            libc::sigaction(s, &sa, std::ptr::null_mut());
        }
        sa.sa_sigaction = on_tick as *const () as usize;
        sa.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(libc::SIGALRM, &sa, std::ptr::null_mut());
        let second = libc::timeval { tv_sec: 1, tv_usec: 0 };
        let every = libc::itimerval { it_interval: second, it_value: second };
        libc::setitimer(libc::ITIMER_REAL, &every, std::ptr::null_mut());
    }
}

/// Takes the state out of the signal frame and leaves the case.
unsafe fn leave(signal: i32, code: i32, addr: u64, uc: *mut libc::ucontext_t) {
    use libc::{
        REG_EFL, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RAX, REG_RBP, REG_RBX,
        REG_RCX, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP,
    };
    // SAFETY: the kernel passed `uc`; its FP state is a standard-format XSAVE image, long enough on a CPU with AVX
    // (checked by `Native::new`); CONTEXT is mapped.
    unsafe {
        let c = context();
        let g = &mut (*uc).uc_mcontext.gregs;
        let order = [
            REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11,
            REG_R12, REG_R13, REG_R14, REG_R15,
        ];
        for (n, r) in order.into_iter().enumerate() {
            (*c).gpr[n] = g[r as usize] as u64;
        }
        (*c).flags = g[REG_EFL as usize] as u64;
        let fp = (*uc).uc_mcontext.fpregs.cast::<u8>();
        std::ptr::copy_nonoverlapping(fp, (*c).xsave.as_mut_ptr(), YMM_HI + 256);
        FAULT_RIP.store(g[REG_RIP as usize] as u64, Ordering::Relaxed);
        FAULT_SIGNAL.store(signal as u64, Ordering::Relaxed);
        FAULT_CODE.store(code as u64, Ordering::Relaxed);
        FAULT_ADDR.store(addr, Ordering::Relaxed);
        g[REG_RIP as usize] = xrun_truth_recover as *const () as i64;
        g[REG_RSP as usize] = (*c).host_rsp as i64;
        g[REG_EFL as usize] = 0x202;
    }
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    if RUNNING.load(Ordering::Relaxed) & 1 == 0 {
        // Not from a case: a bug in this program. Returning with the default action in place ends it as usual.
        // SAFETY: resets one signal's action.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    const TRAP_TRACE: i32 = 2;
    // SAFETY: the kernel passed `info` and `uc`.
    unsafe {
        if TRACING.load(Ordering::Relaxed) && signal == libc::SIGTRAP && (*info).si_code == TRAP_TRACE {
            // The trap comes before the instruction at rip. Those of the trampoline step too.
            let rip = (*uc.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
            if (CODE..CODE + CODE_SIZE as u64).contains(&rip) {
                let n = STEPS.fetch_add(1, Ordering::Relaxed);
                if let Some(to) = TRACED.get(n) {
                    to.store(rip, Ordering::Relaxed);
                }
            }
            return;
        }
    }
    // SAFETY: the kernel passed `info` and `uc`.
    unsafe { leave(signal, (*info).si_code, (*info).si_addr() as u64, uc.cast()) }
}

/// A case still running after a whole second is stuck; it ends with SIGALRM.
extern "C" fn on_tick(_: i32, _: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    let now = RUNNING.load(Ordering::Relaxed);
    let stuck = now & 1 == 1 && LAST_TICK.swap(now, Ordering::Relaxed) == now;
    if stuck {
        // SAFETY: the kernel passed `uc`, and the case runs on this thread.
        unsafe { leave(libc::SIGALRM, 0, 0, uc.cast()) }
    }
}

//! Frames against themselves on every host, and against the kernel's own on x86_64.

use super::*;
use crate::state::X87Reg;

fn filled(seed: u64) -> CpuState {
    let mut s = seed;
    let mut next = || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        s ^ s >> 29
    };
    let mut cpu = CpuState::default();
    cpu.gpr.iter_mut().for_each(|g| *g = next());
    let mut wide = || u128::from(next()) << 64 | u128::from(next());
    cpu.xmm.iter_mut().for_each(|v| *v = wide());
    let uppers = std::array::from_fn(|n| if n % 4 == 1 || seed.is_multiple_of(3) { 0 } else { wide() });
    cpu.set_uppers(uppers);
    cpu.rip = next();
    cpu.set_eflags(Eflags::from_bits_truncate(next() as u32) & (Eflags::STATUS | Eflags::DF | Eflags::AC));
    cpu.mxcsr = 0x1fa0;
    for r in &mut cpu.x87.regs {
        *r = X87Reg { mantissa: next(), sign_exp: next() as u16, ..X87Reg::default() };
    }
    cpu.x87 = X87 { control: 0x27f, status: 0x4121, in_use: 0xa5, top: (next() & 7) as u8, ..cpu.x87 };
    cpu
}

static INFO: SigInfo = [10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn call(handler: u64) -> Call<'static> {
    Call {
        signal: 10,
        handler,
        restorer: 0x1122,
        info: &INFO,
        altstack: StackT { sp: 1, flags: 2, pad: 0, size: 3 },
        switch_to: None,
        mask: 0xf00d,
        trapno: 14,
        err: 6,
        cr2: 0xdead,
    }
}

#[test]
fn there_and_back() {
    let stack = vec![0u64; 1024];
    for features in [&Features::AVX, &Features::XSAVE, &Features::FXSAVE] {
        let mut math = Math::default();
        for seed in 0..50 {
            let mut cpu = filled(seed);
            cpu.gpr[gpr::RSP] = stack.as_ptr_range().end as u64 - seed;
            let before = cpu.clone();
            let at = place(&cpu, &call(0x400), features);
            push(&mut cpu, &mut math, &call(0x400), features, at).expect("room");
            assert_eq!((cpu.rip, cpu.gpr[gpr::RDI], cpu.gpr[gpr::RAX]), (0x400, 10, 0));
            // As at any function's first instruction: RSP + 8 is a multiple of 16 (System V ABI, 3.2.2).
            assert_eq!(cpu.gpr[gpr::RSP] % 16, 8);
            assert!(cpu.gpr[gpr::RSP] + 440 + 512 + RED_ZONE <= before.gpr[gpr::RSP]);
            assert!(before.gpr[gpr::RSP] - RED_ZONE - cpu.gpr[gpr::RSP] <= min_stack(features));
            assert_eq!(access::get::<u64>(cpu.gpr[gpr::RSP]), Ok(0x1122));
            assert_eq!(access::get::<u32>(cpu.gpr[gpr::RSI]), Ok(10));
            assert!(!cpu.eflags().contains(Eflags::DF));
            assert_eq!((cpu.xmm[3], cpu.x87.control, cpu.mxcsr), (0, 0x37f, 0x1f80));
            cpu.gpr[gpr::RSP] += 8;
            let r = pop(&mut cpu, features).expect("readable");
            assert_eq!(r, Restored { mask: 0xf00d, altstack: call(0).altstack });
            assert_eq!((cpu.gpr, cpu.rip, cpu.eflags()), (before.gpr, before.rip, before.eflags()));
            assert_eq!((cpu.xmm, cpu.mxcsr), (before.xmm, before.mxcsr));
            if *features == Features::AVX {
                assert_eq!(cpu.uppers(), before.uppers());
            }
            let x = |c: &CpuState| (c.x87.regs, c.x87.control, c.x87.status, c.x87.in_use, c.x87.top);
            assert_eq!(x(&cpu), x(&before));
        }
    }
}

/// What the kernel of an x86_64 host writes, read through the structures above.
#[cfg(target_arch = "x86_64")]
#[test]
fn as_the_kernel_lays_it_out() {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    static SEEN: Mutex<Option<(Frame, [u64; 23], u64, u64, Vec<u8>)>> = Mutex::new(None);
    static DONE: AtomicBool = AtomicBool::new(false);
    extern "C" fn handler(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the frame is the kernel's, on the stack of the interrupted thread.
        unsafe {
            let uc = &*context.cast::<libc::ucontext_t>();
            let frame: Frame = std::ptr::read_unaligned(context.cast::<u8>().sub(8).cast());
            let math = std::slice::from_raw_parts(uc.uc_mcontext.fpregs.cast::<u8>(), 512).to_vec();
            let gregs = uc.uc_mcontext.gregs.map(|g| g as u64);
            *SEEN.lock().expect("free") = Some((frame, gregs, context as u64, info as u64, math));
        }
        DONE.store(true, Ordering::Release);
    }
    // SAFETY: installs a handler that only copies, and raises its signal on this thread.
    unsafe {
        let mut sa: libc::sigaction = std::mem::zeroed();
        sa.sa_sigaction = handler as *const () as usize;
        sa.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGUSR2, &sa, std::ptr::null_mut());
        libc::raise(libc::SIGUSR2);
    }
    assert!(DONE.load(Ordering::Acquire));
    let (frame, gregs, uc, info, math) = SEEN.lock().expect("free").take().expect("handled");
    let at = uc - 8;
    assert_eq!(at % 16, 8);
    assert_eq!(info, at + std::mem::offset_of!(Frame, info) as u64);
    assert_eq!(frame.info[0] as i32, libc::SIGUSR2);
    let c = &frame.uc.context;
    let mine = [c.high[0], c.high[7], c.rdi, c.rsi, c.rbp, c.rbx, c.rdx, c.rax, c.rcx, c.rsp, c.rip, c.flags];
    let kernels = [
        libc::REG_R8,
        libc::REG_R15,
        libc::REG_RDI,
        libc::REG_RSI,
        libc::REG_RBP,
        libc::REG_RBX,
        libc::REG_RDX,
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RSP,
        libc::REG_RIP,
        libc::REG_EFL,
    ];
    assert_eq!(mine, kernels.map(|i| gregs[i as usize]));
    assert_eq!((c.cs, c.ss), (USER_CS, USER_SS));
    assert_eq!(frame.uc.flags, UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS);
    let software = Software::read_from_bytes(&math[std::mem::offset_of!(Legacy, software)..512]).expect("48 bytes");
    assert_eq!(software.magic1, FP_XSTATE_MAGIC1);
    assert_eq!(software.extended_size, software.xstate_size + 4);
    assert_eq!((&math[..2], &math[24..26]), (&[0x7f, 0x03][..], &[0x80, 0x1f][..]));
    assert_eq!(c.fpstate % 64, 0);
    // The kernel's frame lies below the state as ours does.
    let gap = c.fpstate - at;
    let ours = place(&CpuState { gpr: [0x7fff_0000_0000; 16], ..CpuState::default() }, &call(0), &Features::AVX);
    let room = 440..440 + 64 + 16;
    assert!(room.contains(&gap) && room.contains(&(ours.1 - ours.0)));
}

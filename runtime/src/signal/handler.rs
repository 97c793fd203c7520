//! The host signal handler: decides by the interrupted host pc what a signal means. Everything here is async-signal-safe; it takes the code and
//! memory locks, and reads the table of dispositions, only when it interrupted translated code, a helper or the syscall thunk, which hold none.
//!
//! | interrupted | synchronous fault | asynchronous signal |
//! |---|---|---|
//! | translated code | shadow stack guard; write to watched code; else exact guest state, to the dispatcher | queue, stop the thread at the next boundary |
//! | `enter` before its jump | bug | queue, give the entry up |
//! | helper thunk on its way back | bug | queue, stop as if returned |
//! | syscall thunk before or in the host call | bug | go on in the guest's handler; else queue, give the call up |
//! | syscall thunk after it | bug | go on in the guest's handler; else queue, leave with the result |
//! | copy to or from the guest | the copy ends early | queue |
//! | helper | as translated code, at the calling instruction | queue |
//! | other Rust code | bug: said, and the process dies of it | queue |

#[cfg(not(target_arch = "aarch64"))]
pub fn address() -> u64 {
    libc::SIG_DFL as u64
}

#[cfg(target_arch = "aarch64")]
pub use imp::address;

#[cfg(target_arch = "aarch64")]
mod imp {
    use crate::code::arena::probe;
    use crate::code::{self, Trapped};
    use crate::engine::{ExitReason, FlagForm};
    use crate::enter::{self, Place};
    use crate::memory::{self, access};
    use crate::signal::a64;
    use crate::signal::host::{KICK, KICK_VALUE, SYNCHRONOUS, SyncFault, die, host_mask};
    use crate::signal::split;
    use crate::state::{CpuState, gpr, nzcv};
    use crate::thread::{self, Thread, pending};
    use std::sync::atomic::Ordering;
    use zerocopy::{FromBytes, Immutable, KnownLayout};

    /// The kernel's struct ucontext with its struct sigcontext (arch/arm64/include/uapi/asm/sigcontext.h).
    #[repr(C, align(16))]
    struct Context {
        flags: u64,
        link: u64,
        stack: [u64; 3],
        sigmask: u64,
        unused: [u8; 120],
        pad: u64,
        fault_address: u64,
        regs: [u64; 31],
        sp: u64,
        pc: u64,
        pstate: u64,
        pad2: u64,
        records: [u8; 4096],
    }
    const _: () = {
        assert!(std::mem::offset_of!(Context, fault_address) == 176);
        assert!(std::mem::offset_of!(Context, records) == 176 + 288);
    };

    /// What follows the head of the record with the vector registers.
    #[derive(FromBytes, Immutable, KnownLayout)]
    #[repr(C)]
    struct Vectors {
        fpsr: u32,
        fpcr: u32,
        v: [[u64; 2]; 32],
    }

    const FPSIMD: u32 = 0x4650_8001;
    const ESR: u32 = 0x4553_5201;

    impl Context {
        /// The payload of the record with `magic`, after its 8-byte head.
        fn record(&self, magic: u32) -> Option<&[u8]> {
            let mut at = 0;
            while let Some(head) = self.records.get(at..at + 8) {
                let m = u32::from_ne_bytes(head[..4].try_into().ok()?);
                let size = u32::from_ne_bytes(head[4..].try_into().ok()?) as usize;
                if m == magic {
                    return self.records.get(at + 8..at + size);
                }
                if m == 0 || size < 8 {
                    return None;
                }
                at += size;
            }
            None
        }

        /// Stores the pinned registers, as they are in this context of interrupted translated code, to `cpu`.
        fn save(&self, cpu: &mut CpuState) {
            for (g, h) in cpu.gpr.iter_mut().zip(crate::abi::GPR) {
                *g = self.regs[h as usize];
            }
            cpu.nzcv = self.pstate & 0xf000_0000;
            cpu.pf = self.regs[crate::abi::PF as usize];
            cpu.af = self.regs[crate::abi::AF as usize];
            cpu.shadow = self.regs[crate::abi::SHADOW as usize];
            let vectors = self.record(FPSIMD).and_then(|r| Vectors::ref_from_prefix(r).ok());
            if let Some((v, _)) = vectors {
                cpu.guest_fpsr = u64::from(v.fpsr);
                const FIRST: usize = crate::abi::xmm(0) as usize;
                for (x, [low, high]) in cpu.xmm.iter_mut().zip(&v.v[FIRST..]) {
                    *x = u128::from(*low) | u128::from(*high) << 64;
                }
            }
        }

        /// Makes the interrupted `enter` call return, with the state as `cpu` has it.
        fn leave(&mut self, cpu: &mut CpuState, reason: ExitReason) {
            cpu.exit_reason = reason as u64;
            self.regs[crate::abi::STATE as usize] = &raw const *cpu as u64;
            self.sp = cpu.host_sp;
            self.pc = enter::leave();
        }
    }

    pub fn address() -> u64 {
        handler as *const () as u64
    }

    extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes valid, exclusive pointers to both; `Context` is its layout.
        let (info, context) = unsafe { (&*info, &mut *context.cast::<Context>()) };
        // SAFETY: errno is this thread's own.
        let errno = unsafe { &mut *libc::__errno_location() };
        let kept = *errno;
        let thread = thread::current();
        if thread.is_null() {
            // No guest thread here: before the first, after the end of the last instruction of one.
            if SYNCHRONOUS.contains(&signal) && info.si_code > 0 {
                match access::resume(context.pc) {
                    Some((_, to)) => context.pc = to,
                    None => bug(signal, info, context),
                }
            }
        } else {
            // SAFETY: the record belongs to this host thread. Interrupted Rust code may hold references to it; what is written here
            // then is only what it treats as shared: the queue and `pending`.
            handle(unsafe { &mut *thread }, signal, info, context);
        }
        *errno = kept;
    }

    fn handle(t: &mut Thread, signal: i32, info: &libc::siginfo_t, c: &mut Context) {
        if SYNCHRONOUS.contains(&signal) && info.si_code > 0 {
            return synchronous(t, signal, info, c);
        }
        // SAFETY: si_value is at this place for a queued signal and padding otherwise.
        let value = unsafe { info.si_value().sival_ptr } as u64;
        if signal == KICK && info.si_code == -1 && value == KICK_VALUE {
            t.attend(pending::FLUSH);
        } else {
            if at_once(t, info, c) {
                return;
            }
            t.host.put(info);
            t.attend(pending::SIGNAL);
            c.sigmask |= host_mask(!0);
        }
        if code::contains(c.pc) {
            let top = c.regs[crate::abi::SHADOW as usize];
            t.host.stop(&mut t.cpu, c.pc, top);
            return;
        }
        match enter::place(c.pc) {
            Place::Entering => c.pc = enter::leave(),
            Place::HelperOut => {
                let to = if t.cpu.helper_return != 0 { t.cpu.helper_return & !3 } else { c.regs[30] };
                let top = t.cpu.shadow;
                t.host.stop(&mut t.cpu, to, top);
            }
            Place::Calling => c.pc = enter::call_again(),
            Place::Called => c.pc = enter::call_leave(),
            Place::Elsewhere => crate::signal::interrupt_call(&mut c.pc),
        }
    }

    /// A signal that comes with a call made by the syscall thunk, as those do that a thread sends itself, finds the guest between two instructions and its
    /// registers where they belong: it gets its frame here, and the host's way back from the signal, which sets the mask, goes to the guest's handler. False,
    /// with nothing done, where that is not all there is to do.
    fn at_once(t: &mut Thread, info: &libc::siginfo_t, c: &mut Context) -> bool {
        let [rax, rcx] = [gpr::RAX, gpr::RCX].map(|g| c.regs[crate::abi::GPR[g] as usize]);
        const SYSCALL_LEN: u64 = 2;
        const EFAULT: u64 = -libc::EFAULT as u64;
        let (rip, rax) = match enter::place(c.pc) {
            // Not made yet, or rewound by the kernel to be made again.
            Place::Calling => (rcx - SYSCALL_LEN, rax),
            Place::Called if c.regs[0] != EFAULT => (rcx, c.regs[0]),
            _ => return false,
        };
        if t.pending.load(Ordering::Relaxed) != 0 || t.is_stepping() {
            return false;
        }
        c.save(&mut t.cpu);
        t.cpu.gpr[gpr::RAX] = rax;
        t.cpu.rip = rip;
        if !crate::signal::deliver_at_once(t, info) {
            return false;
        }
        c.sigmask = host_mask(t.signal.mask);
        match probe(t.cpu.lookup, t.cpu.rip) {
            Some((_, host)) => (c.regs[1], c.pc) = (host, enter::window()),
            None => c.leave(&mut t.cpu, ExitReason::Resume),
        }
        true
    }

    fn synchronous(t: &mut Thread, signal: i32, info: &libc::siginfo_t, c: &mut Context) {
        // SAFETY: a fault's siginfo has an address.
        let addr = unsafe { info.si_addr() } as u64;
        if code::contains(c.pc) {
            return in_code(t, signal, info.si_code, addr, c);
        }
        if signal == libc::SIGSEGV || signal == libc::SIGBUS {
            if let Some((copying, to)) = access::resume(c.pc) {
                let retry = copying == access::Copying::ToGuest
                    && signal == libc::SIGSEGV
                    && memory::on_fault(addr) == memory::Fault::Retry;
                if !retry {
                    c.pc = to;
                }
                return;
            }
            let back = t.cpu.helper_return;
            if back != 0 && back & 1 == 0 {
                if signal == libc::SIGSEGV && write_to_code(addr) {
                    return;
                }
                if let Some((rip, form)) = code::guest_at(back - 4) {
                    t.cpu.helper_return = 0;
                    t.cpu.rip = rip;
                    apply(&mut t.cpu, form);
                    t.host.fault = memory_fault(signal, info.si_code, addr, c);
                    return c.leave(&mut t.cpu, ExitReason::Fault);
                }
            }
        }
        bug(signal, info, c)
    }

    const BUS_ADRALN: i32 = 1;

    /// Whether the unaligned access at the interrupted pc is taken care of.
    fn mended(t: &mut Thread, c: &mut Context) -> bool {
        match code::mend(c.pc) {
            code::Mended::Yes => true,
            code::Mended::No => false,
            code::Mended::Full => {
                // The instruction alone: translating it makes space.
                let Some((rip, form)) = code::guest_at(c.pc) else { return false };
                c.save(&mut t.cpu);
                t.cpu.rip = rip;
                apply(&mut t.cpu, form);
                t.host.step = if code::replays(c.pc) { crate::engine::REPLAY_MOST as u32 } else { 1 };
                c.leave(&mut t.cpu, ExitReason::Resume);
                true
            }
        }
    }

    /// Whether the fault at `addr` was put right: nearly always a write to a page with code.
    fn write_to_code(addr: u64) -> bool {
        let right = memory::on_fault(addr) == memory::Fault::Retry;
        if right {
            code::note_write(addr);
        }
        right
    }

    /// Whether the interrupted word was an atomic operation on an unaligned address, which is then carried out.
    fn split_lock(t: &mut Thread, c: &mut Context, addr: u64) -> bool {
        // SAFETY: the interrupted pc is in the cache, whose words can be read.
        let word = unsafe { (c.pc as *const u32).read_volatile() };
        let Some(access) = split::decode(word) else { return false };
        match split::carry_out(access, &mut c.regs, &mut t.host.exclusive, addr) {
            Ok(()) => c.pc += 4,
            // The address is bad in another way, which the host looks at later.
            Err(code) => in_code(t, libc::SIGSEGV, code, addr, c),
        }
        true
    }

    /// A synchronous signal at a pc in the code cache.
    fn in_code(t: &mut Thread, signal: i32, si_code: i32, addr: u64, c: &mut Context) {
        match signal {
            libc::SIGTRAP => match code::trapped(c.pc) {
                Trapped::Again => {}
                Trapped::Dead(guest) => {
                    c.save(&mut t.cpu);
                    t.cpu.rip = guest;
                    c.leave(&mut t.cpu, ExitReason::Resume);
                }
                Trapped::Tail(register) => {
                    let to = c.regs[register as usize];
                    c.save(&mut t.cpu);
                    match code::point_at(to) {
                        Some(guest) => t.cpu.rip = guest,
                        // The bottom of the shadow stack, or code that is gone: cannot be told, so continue there.
                        None => {
                            c.pc = to;
                            return;
                        }
                    }
                    c.leave(&mut t.cpu, ExitReason::Resume);
                }
            },
            libc::SIGBUS if si_code == BUS_ADRALN && mended(t, c) => {}
            libc::SIGBUS if si_code == BUS_ADRALN && split_lock(t, c, addr) => {}
            libc::SIGSEGV | libc::SIGBUS => {
                let shadow = &mut c.regs[crate::abi::SHADOW as usize];
                if let Some(p) = t.host.shadow.fault(addr, *shadow) {
                    *shadow = p;
                    return;
                }
                let retry = signal == libc::SIGSEGV && write_to_code(addr);
                if retry && !code::is_dead(c.pc) {
                    return;
                }
                let Some((rip, form)) = code::guest_at(c.pc) else { return unexplained(signal, addr, c) };
                c.save(&mut t.cpu);
                t.cpu.rip = rip;
                apply(&mut t.cpu, form);
                if signal == libc::SIGBUS && si_code == BUS_ADRALN && code::note_unaligned(rip, c.pc) {
                    return c.leave(&mut t.cpu, ExitReason::Resume);
                }
                if code::replays(c.pc) {
                    t.host.step = crate::engine::REPLAY_MOST as u32;
                    c.leave(&mut t.cpu, ExitReason::Resume);
                } else if retry {
                    // The instruction changes the region it is in: do it alone, then go on with new code.
                    t.host.step = 1;
                    c.leave(&mut t.cpu, ExitReason::Resume);
                } else {
                    t.host.fault = memory_fault(signal, si_code, addr, c);
                    c.leave(&mut t.cpu, ExitReason::Fault);
                }
            }
            _ => unexplained(signal, addr, c),
        }
    }

    /// Makes `cpu`'s flags the guest's, given how NZCV held them.
    pub fn apply(cpu: &mut CpuState, form: FlagForm) {
        let f = cpu.nzcv as u32;
        match form {
            FlagForm::Direct => {}
            FlagForm::CarryInverted => cpu.nzcv ^= u64::from(nzcv::C),
            FlagForm::FloatCompare => {
                let v = f & nzcv::V != 0;
                let mut out = 0;
                if v || f & nzcv::Z != 0 {
                    out |= nzcv::Z;
                }
                if v || f & nzcv::N != 0 {
                    out |= nzcv::C;
                }
                cpu.nzcv = u64::from(out);
                cpu.pf = u64::from(!v);
                cpu.af = cpu.pf;
            }
        }
    }

    /// What x86 would say of a memory fault.
    fn memory_fault(signal: i32, si_code: i32, addr: u64, c: &Context) -> SyncFault {
        // Data Abort: WnR is bit 6 of the syndrome, and fault status 0b0011xx says that the page was there (Arm ARM, ESR_EL1).
        let esr = c.record(ESR).and_then(|r| r.get(..8)?.try_into().ok()).map(u64::from_ne_bytes);
        // SAFETY: the pc was executed from a moment ago, so its word can be read.
        let write = esr.map_or_else(|| a64::writes(unsafe { *(c.pc as *const u32) }), |e| e & 1 << 6 != 0);
        if signal == libc::SIGBUS {
            return SyncFault {
                signo: signal,
                code: si_code,
                addr,
                trapno: 14,
                err: 4 | u64::from(write) << 1,
                cr2: addr,
            };
        }
        if addr >= 1 << 47 {
            // Not canonical: #GP, which has no address.
            const SI_KERNEL: i32 = 0x80;
            return SyncFault { signo: signal, code: SI_KERNEL, addr: 0, trapno: 13, err: 0, cr2: 0 };
        }
        const SEGV_ACCERR: i32 = 2;
        let present =
            esr.map_or_else(|| si_code == SEGV_ACCERR && memory::host::is_resident(addr), |e| e >> 2 & 15 == 3);
        let err = 4 | u64::from(write) << 1 | u64::from(present);
        SyncFault { signo: signal, code: si_code, addr, trapno: 14, err, cr2: addr }
    }

    fn unexplained(signal: i32, addr: u64, c: &Context) {
        say(format_args!("signal {signal} in translated code at {:#x}, address {addr:#x}", c.pc));
        die(signal)
    }

    fn bug(signal: i32, info: &libc::siginfo_t, c: &Context) -> ! {
        // SAFETY: the address of a fault; other synchronous signals have the pc there.
        let addr = unsafe { info.si_addr() } as u64;
        say(format_args!("signal {signal} in the runtime at {:#x} (lr {:#x}), address {addr:#x}", c.pc, c.regs[30]));
        die(signal)
    }

    /// One line on stderr, without allocation.
    fn say(what: std::fmt::Arguments<'_>) {
        use std::io::Write;
        let mut buf = [0u8; 256];
        let mut left = &mut buf[..];
        let _ = writeln!(left, "xrun: internal error: {what}");
        let n = 256 - left.len();
        // SAFETY: `buf` holds `n` bytes.
        unsafe { libc::write(2, buf.as_ptr().cast(), n) };
    }
}

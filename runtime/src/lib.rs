//! The machine and the Linux an x86_64 guest sees. All `unsafe`, all of the operating system, all signals are here;
//! the translator is a stranger behind [`engine::Engine`].
//!
//! | module | what it owns |
//! |---|---|
//! | [`state`] | the guest CPU's registers in memory |
//! | [`alloc`] | the allocator of the process |
//! | [`binfmt`] | what the kernel says when binfmt_misc started the process |
//! | [`abi`] | which host register holds what while translated code runs; the thunks |
//! | [`engine`] | the contract with the translator |
//! | [`code`] | the code cache: finding, chaining, invalidating translations |
//! | [`enter`] | the way into translated code and out of it |
//! | [`helpers`] | guest operations called from translated code |
//! | [`thread`] | a guest thread's record and the loop that runs it |
//! | [`linux`] | system calls |
//! | [`signal`] | signals: the host's handlers and what the guest sees |
//! | [`startup`] | what was inherited, put back for the guest |
//! | [`image`] | the loader: from a path to the first instruction |
//! | [`config`] | what the command line asked for |
//! | [`store`] | translations that outlive the process |
//! | [`memory`] | the guest's address space: what is mapped, placement, write-protected code pages, safe access |

pub mod abi;
pub mod alloc;
pub mod binfmt;
pub mod code;
pub mod config;
pub mod engine;
pub mod enter;
pub mod helpers;
pub mod image;
pub mod linux;
pub mod memory;
pub mod signal;
pub mod startup;
pub mod state;
pub mod store;
pub mod thread;

/// Loads the program that `config` names and runs it in this process, which ends as the program does. What keeps it from
/// starting is said in one line on standard error, and the exit code is a shell's: 127 for not found, 126 otherwise.
///
/// A translator must have been [installed](engine::install).
pub fn run(config: config::Config) -> ! {
    startup::restore();
    config::set(config);
    linux::start();
    match image::start(config::get()) {
        Ok(loaded) if cfg!(target_arch = "aarch64") => {
            linux::procfs::announce();
            let mut first = thread::Thread::new(loaded.cpu);
            first.signal = signal::ThreadSignals::inherited();
            thread::run_first(first, loaded.code)
        }
        Ok(_) => {
            eprintln!("xrun: this machine is no AArch64 one; its own kernel may run the program");
            std::process::exit(126)
        }
        Err(e) => {
            eprintln!("xrun: {e}");
            std::process::exit(e.exit_code())
        }
    }
}

/// The host's AT_HWCAP and AT_HWCAP2: what the CPU can do, as the kernel says.
pub fn host_hwcap() -> (u64, u64) {
    (image::host_auxv(libc::AT_HWCAP), image::host_auxv(libc::AT_HWCAP2))
}

/// Ticks of the host's counter a second (Arm ARM, CNTFRQ_EL0); 0 where there is none.
pub fn host_counter_hz() -> u64 {
    #[cfg(target_arch = "aarch64")]
    {
        let hz: u64;
        // SAFETY: reads a register user code may read.
        unsafe { std::arch::asm!("mrs {}, cntfrq_el0", out(reg) hz, options(nomem, nostack, preserves_flags)) };
        hz
    }
    #[cfg(not(target_arch = "aarch64"))]
    0
}

//! What the vDSO's functions ask: the host's clocks, through its C library and so its vDSO. See [`crate::image::vdso`].

use crate::image::vdso::function;
use crate::state::CpuState;

/// Function `n` of the vDSO with its first two arguments: 0 and two words in the first places of `spill`, or 1 when the kernel should be
/// asked.
///
/// # Safety
/// `cpu` is the running thread's state.
pub unsafe extern "C" fn vdso(cpu: *mut CpuState, n: u64, first: u64, second: u64) -> u64 {
    // SAFETY: the thunk passes the running thread's state, which nothing else touches during the call.
    let cpu = unsafe { &mut *cpu };
    let clock = first as libc::clockid_t;
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: each call fills a live structure.
    let answer = unsafe {
        match n as u16 {
            function::CLOCK_GETTIME if libc::clock_gettime(clock, &mut ts) == 0 => Some((ts.tv_sec, ts.tv_nsec)),
            function::GETTIMEOFDAY if libc::clock_gettime(libc::CLOCK_REALTIME, &mut ts) == 0 => {
                Some((ts.tv_sec, ts.tv_nsec / 1000))
            }
            function::CLOCK_GETRES if libc::clock_getres(clock, &mut ts) == 0 => Some((ts.tv_sec, ts.tv_nsec)),
            function::GETCPU => Some(cpu_and_node(second != 0)),
            _ => None,
        }
    };
    let (a, b) = answer.unwrap_or_default();
    (cpu.spill[0], cpu.spill[1]) = (a as u64, b as u64);
    u64::from(answer.is_none())
}

fn cpu_and_node(with_node: bool) -> (i64, i64) {
    if !with_node {
        // SAFETY: no arguments; reads what the kernel keeps in the thread's restartable-sequence area.
        return (i64::from(unsafe { libc::sched_getcpu() }.max(0)), 0);
    }
    let (mut cpu, mut node) = (0u32, 0u32);
    // SAFETY: the kernel fills two live words.
    unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, std::ptr::null::<u8>()) };
    (i64::from(cpu), i64::from(node))
}

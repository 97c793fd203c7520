//! Instructions that leave to the kernel or ask about the machine: SYSCALL, INT3, UD2, CPUID (SDM vol. 2).

use super::cx::Cx;
use super::{Decline, Lowered};
use crate::rows;
use iced_x86::Instruction;
use xrun_runtime::engine::Trap;
use xrun_runtime::helpers::Helper;

rows! { "system";
    Syscall => |cx, i| { cx.exit_syscall(i.next_ip()); Ok(()) },
    Int3 => |cx, i| { cx.trap(Trap::Breakpoint, i.next_ip()); Ok(()) },
    Ud2 => |_, _| Err(Decline::Undefined),
    Cpuid => |cx, i| cpuid(cx, i),
}

fn cpuid(cx: &mut Cx<'_>, _: &Instruction) -> Lowered {
    cx.canonical(cx.live_out());
    cx.call_helper(Helper::Cpuid);
    Ok(())
}

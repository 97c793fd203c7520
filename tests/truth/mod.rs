//! What a real x86 CPU does, and the means to compare a translation with it.
//!
//! A *case* is some guest code and the whole machine state before it; its *outcome* is the state after it and how it
//! ended. [`native`] runs a case on the x86_64 CPU under this process, [`translated`] runs it through the translator on
//! AArch64; [`state`] is what both share, [`text`] its form in `fixtures/oracle`, [`forms`] and [`blocks`] invent cases
//! from the x86 encoding tables, [`feature`] says which of them a CPU has, [`mask`] says what may differ and why. The modules are shared by several test
//! programs, none of which uses all of them.
//!
//! Both sides use the same fixed guest addresses ([`CODE`], [`DATA`]), so a case means the same on both. They need
//! 4 KiB host pages.
#![allow(dead_code)]

pub mod blocks;
pub mod feature;
pub mod forms;
pub mod mask;
#[cfg(target_arch = "x86_64")]
pub mod native;
pub mod state;
pub mod text;
#[cfg(target_arch = "aarch64")]
pub mod translated;
pub mod values;

/// A page of the recorder's own, which is there on the CPU and not in the translator's process.
pub const RECORDER: u64 = 0x0f00_0000;
/// One readable, executable page; the case's code starts at [`START`], all other bytes are INT3.
pub const CODE: u64 = 0x1000_0000;
pub const CODE_SIZE: usize = 0x1000;
pub const START: u64 = CODE + 0x400;
/// Two writable pages, then one read-only page; before and after them nothing is mapped.
pub const DATA: u64 = 0x2000_0000;
pub const DATA_RW: usize = 0x2000;
pub const DATA_RO: usize = 0x1000;
/// The part of [`DATA`] whose bytes belong to a case's state; it lies across a page boundary. The rest starts out zero.
pub const WINDOW: u64 = DATA + 0x0e00;
pub const WINDOW_SIZE: usize = 0x400;
/// Where the stack pointer starts out unless a case says otherwise.
pub const STACK: u64 = WINDOW + 0x200;
/// The longest code of a case, in bytes.
pub const CODE_MAX: usize = 0x800;

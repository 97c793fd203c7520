//! The machine and the Linux an x86_64 guest sees. All `unsafe`, all of the operating system, all signals are here;
//! the translator is a stranger behind [`engine::Engine`].
//!
//! | module | what it owns |
//! |---|---|
//! | [`state`] | the guest CPU's registers in memory |
//! | [`abi`] | which host register holds what while translated code runs; the thunks |
//! | [`engine`] | the contract with the translator |
//! | [`helpers`] | guest operations called from translated code |
//! | [`thread`] | a guest thread's record and the loop that runs it |
//! | [`signal`] | signals: the host's handlers and what the guest sees |
//! | [`memory`] | the guest's address space: what is mapped, placement, write-protected code pages, safe access |

pub mod abi;
pub mod engine;
pub mod helpers;
pub mod memory;
pub mod signal;
pub mod state;
pub mod thread;

//! Memory order, where running shows nothing: an x86 machine under emulation orders everything. So the words the translator emits are judged themselves.
//!
//! | module | what it does |
//! |---|---|
//! | [`word`], [`alu`], [`run`] | decode AArch64 words and run one thread for all values its loads may return |
//! | [`model`] | the Armv8 memory model over such threads, exhaustively |
//! | [`armv8`] | the model against published outcomes |
//! | [`x86`] | x86-TSO, exhaustively |
//! | [`litmus`] | small x86 programs, translated: no outcome that x86 forbids |
//! | [`shape`] | every form of every instruction that accesses memory: no access without its ordering |

mod alu;
mod armv8;
mod litmus;
mod model;
mod run;
mod shape;
#[path = "../truth/mod.rs"]
mod truth;
mod word;
mod x86;

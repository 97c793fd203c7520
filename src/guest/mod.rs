//! What x86 says: decoding, regions, flags. Sole user of iced's decoder. Knows nothing of AArch64 but the names of the pinned registers.

pub mod flags;
mod quick;
pub mod region;
#[cfg(test)]
pub mod testing;

pub use flags::{Flags, Role, written_gprs};
pub use region::{Fetcher, Inst, Region};

//! x87.
pub mod ops;
#[cfg(all(test, target_arch = "x86_64"))]
mod native_tests;

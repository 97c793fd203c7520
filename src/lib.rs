//! xrun's translator: guest bytes in, AArch64 words and side tables out.
#![forbid(unsafe_code)]

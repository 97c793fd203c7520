//! For tests: guest code that is a few bytes.

use xrun_runtime::engine::GuestCode;

/// Bytes, and the address of the first.
pub struct Bytes(pub u64, pub Vec<u8>);

impl GuestCode for Bytes {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        let from = addr.checked_sub(self.0).and_then(|o| self.1.get(o as usize..)).unwrap_or_default();
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        n
    }
}

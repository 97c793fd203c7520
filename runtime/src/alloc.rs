//! The process's allocator. A short run is mostly allocation of small things by the decoder's tables and by translation, most of them freed in
//! the order they came, so size classes with free lists over a bump region do it in about twenty instructions each; what is large is mapped on its
//! own. Knows nothing of who allocates.
//!
//! Memory of a class stays with the class: the most a class ever held at once bounds it. One lock, held for a few instructions, never
//! while anything else is called, and not taken before there is a second thread; [`fork_guard`] holds it across fork.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI8, Ordering};

/// Sizes up to here in steps of 16.
const FINE: usize = 1024;
/// Sizes above `FINE` double from class to class, up to here.
const LARGEST: usize = 32 << 10;
const FINE_CLASSES: usize = FINE / 16;
const CLASSES: usize = FINE_CLASSES + 5;
/// What the bump region grows by.
const CHUNK: usize = 256 << 10;

unsafe extern "C" {
    /// Not 0 while the process has one thread; pthread_create clears it first (glibc manual, "Single-Threaded").
    safe static __libc_single_threaded: AtomicI8;
}

/// See the file's head.
pub struct Allocator {
    locked: AtomicBool,
    heap: UnsafeCell<Heap>,
}

struct Heap {
    /// First free block of each class; a free block starts with the address of the next.
    free: [*mut u8; CLASSES],
    bump: *mut u8,
    left: usize,
}

// SAFETY: `heap` is only reached with `locked` held, or by the only thread.
unsafe impl Sync for Allocator {}

/// The class of a size, and the size of its blocks.
fn class(size: usize) -> (usize, usize) {
    if size <= FINE {
        let c = size.div_ceil(16).max(1);
        (c - 1, c * 16)
    } else {
        let block = size.next_power_of_two();
        (FINE_CLASSES + (block / FINE).trailing_zeros() as usize - 1, block)
    }
}

/// New pages, or null.
fn map(size: usize) -> *mut u8 {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping wherever the kernel likes.
    let p = unsafe { libc::mmap(null_mut(), size, prot, flags, -1, 0) };
    if p == libc::MAP_FAILED { null_mut() } else { p.cast() }
}

/// In a class, as opposed to mapped on its own. Pages are aligned enough for whatever else is asked for here.
fn ours(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= 16
}

impl Allocator {
    pub const fn new() -> Allocator {
        let heap = Heap { free: [null_mut(); CLASSES], bump: null_mut(), left: 0 };
        Allocator { locked: AtomicBool::new(false), heap: UnsafeCell::new(heap) }
    }

    fn lock(&self) {
        while self.locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    fn unlock(&self) {
        self.locked.store(false, Ordering::Release);
    }

    /// Runs `f` with the heap to itself.
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Heap) -> R) -> R {
        // It changes only when this very thread, outside of here, makes a second one.
        let shared = __libc_single_threaded.load(Ordering::Relaxed) == 0;
        if shared {
            self.lock();
        }
        // SAFETY: the lock is held, or no other thread exists; `f` neither allocates nor makes one.
        let r = f(unsafe { &mut *self.heap.get() });
        if shared {
            self.unlock();
        }
        r
    }
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    fn take(&mut self, size: usize) -> *mut u8 {
        let (class, block) = class(size);
        let p = self.free[class];
        if !p.is_null() {
            // SAFETY: a block on a free list is unused and holds the next one's address.
            self.free[class] = unsafe { p.cast::<*mut u8>().read() };
            return p;
        }
        if self.left < block {
            let chunk = map(CHUNK);
            if chunk.is_null() {
                return chunk;
            }
            self.bump = chunk;
            self.left = CHUNK;
        }
        let p = self.bump;
        // SAFETY: `left` bytes from `bump` are unused, and `block` is not more.
        self.bump = unsafe { p.add(block) };
        self.left -= block;
        p
    }

    /// # Safety
    /// `p` came from `take` of a size of the same class and is not used any more.
    unsafe fn give(&mut self, p: *mut u8, size: usize) {
        let (class, _) = class(size);
        // SAFETY: the block is at least 16 bytes, aligned to 16, and ours again.
        unsafe { p.cast::<*mut u8>().write(self.free[class]) };
        self.free[class] = p;
    }
}

// SAFETY: blocks are disjoint, at least as large as asked and aligned to 16; others are pages of their own.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !ours(layout) {
            return if layout.align() <= 4096 { map(layout.size()) } else { null_mut() };
        }
        self.with(|heap| heap.take(layout.size()))
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        if !ours(layout) {
            // SAFETY: `alloc` mapped these pages for this layout, and the caller is done with them.
            unsafe { libc::munmap(p.cast(), layout.size()) };
            return;
        }
        // SAFETY: `p` is the caller's to give back.
        self.with(|heap| unsafe { heap.give(p, layout.size()) });
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        // SAFETY: alignment unchanged; the caller promises that `new` is not too large.
        let to = unsafe { Layout::from_size_align_unchecked(new, layout.align()) };
        match (ours(layout), ours(to)) {
            (false, false) => {
                // SAFETY: these pages are the caller's, who uses only the result from now on.
                let q = unsafe { libc::mremap(p.cast(), layout.size(), new, libc::MREMAP_MAYMOVE) };
                return if q == libc::MAP_FAILED { null_mut() } else { q.cast() };
            }
            (true, true) if class(layout.size()).0 == class(new).0 => return p,
            _ => {}
        }
        // SAFETY: as the caller promises.
        let q = unsafe { self.alloc(to) };
        if !q.is_null() {
            // SAFETY: both are at least this large and do not overlap; `p` is not used after.
            unsafe {
                std::ptr::copy_nonoverlapping(p, q, layout.size().min(new));
                self.dealloc(p, layout);
            }
        }
        q
    }
}

/// The allocator of this process.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

/// Holds the allocator still. Nothing may be allocated or freed by this thread meanwhile.
pub struct ForkGuard(());

/// See [`ForkGuard`].
pub fn fork_guard() -> ForkGuard {
    ALLOCATOR.lock();
    ForkGuard(())
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        ALLOCATOR.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_sizes() {
        for size in 1..=LARGEST {
            let (c, block) = class(size);
            assert!(c < CLASSES && block >= size && block % 16 == 0);
            assert!(size <= 16 || class(size - 1).0 <= c);
        }
        assert_eq!(class(LARGEST).0, CLASSES - 1);
    }

    #[test]
    fn blocks_are_reused_and_disjoint() {
        let a = Allocator::new();
        let layout = |n| Layout::from_size_align(n, 8).unwrap();
        // SAFETY: each block is used within its size and freed once.
        unsafe {
            let p: Vec<_> = (1..2000).map(|n| (a.alloc(layout(n)), n)).collect();
            for &(p, n) in &p {
                std::ptr::write_bytes(p, n as u8, n);
            }
            for &(p, n) in &p {
                assert!(std::slice::from_raw_parts(p, n).iter().all(|b| *b == n as u8));
            }
            let grown = a.realloc(p[99].0, layout(100), 5000);
            assert_eq!(grown.add(99).read(), 100);
            a.dealloc(p[0].0, layout(1));
            assert_eq!(a.alloc(layout(16)), p[0].0);
        }
    }
}

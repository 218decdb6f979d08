//! One region of memory for all buffers of a plan, allocated and touched once.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A huge page of x86-64 and of most aarch64 systems, in bytes. Regions are aligned to it so that
/// the system can back them by huge pages.
const HUGE_PAGE: usize = 2 << 20;

/// Values that buffers within an arena should start at a multiple of: a cache line of f32.
pub const ALIGNMENT: usize = 16;

/// A zeroed region of f32 that is aligned to huge pages and asks for them where the system offers
/// them: fresh 4 KB pages are written at a fraction of the speed of warm memory.
pub struct Arena {
    start: NonNull<f32>,
    len: usize,
    layout: Layout,
}

// SAFETY: the arena owns its memory as a `Vec<f32>` does.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// A region of `len` zeros. As with `Vec`, the process ends if there is no such memory.
    pub fn new(len: usize) -> Arena {
        let bytes = len.max(1).saturating_mul(size_of::<f32>());
        let layout = Layout::from_size_align(bytes, HUGE_PAGE).map(|l| l.pad_to_align());
        let Ok(layout) = layout else { panic!("an arena of {len} values is beyond any memory") };
        // SAFETY: the layout is not of size zero.
        let start = unsafe { alloc(layout) }.cast::<f32>();
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // Before the first touch: pages come into being by it.
        advise_huge_pages(start, layout.size());
        // SAFETY: the region has `layout.size()` bytes and nobody else knows of it.
        unsafe { start.cast::<u8>().write_bytes(0, layout.size()) };
        Arena { start, len, layout }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) };
    }
}

impl Deref for Arena {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised values that live as long as the arena.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// The bytes of `values`, four per value, for buffers of small integers within an arena.
pub fn bytes(values: &[f32]) -> &[u8] {
    // SAFETY: same memory and lifetime; every bit pattern is a valid u8.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// As [`bytes`], to write.
pub fn bytes_mut(values: &mut [f32]) -> &mut [u8] {
    // SAFETY: as above, and every pattern of four bytes is a valid f32.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(start: NonNull<f32>, bytes: usize) {
    /// `MADV_HUGEPAGE` of `sys/mman.h`.
    const MADV_HUGEPAGE: i32 = 14;
    unsafe extern "C" {
        fn madvise(start: *mut f32, bytes: usize, advice: i32) -> i32;
    }
    // SAFETY: the advice changes no contents; a refusal costs speed only.
    let _ = unsafe { madvise(start.as_ptr(), bytes, MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_start: NonNull<f32>, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_is_zeroed_aligned_and_writable() {
        for len in [0, 1, 1000, HUGE_PAGE / 4 + 1] {
            let mut arena = Arena::new(len);
            assert_eq!(arena.len(), len);
            assert_eq!(arena.as_ptr().addr() % HUGE_PAGE, 0);
            assert!(arena.iter().all(|&value| value == 0.0));
            arena.fill(1.0);
            assert_eq!(arena.iter().sum::<f32>(), len as f32);
        }
    }

    #[test]
    fn bytes_are_the_same_memory() {
        let mut values = [0.0; 2];
        bytes_mut(&mut values)[4..].copy_from_slice(&1.5f32.to_le_bytes());
        assert_eq!(values, [0.0, 1.5]);
        assert_eq!(bytes(&values)[..4], [0; 4]);
    }
}

//! Aligned memory that holds zeros at first.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// What every buffer is aligned to, as a CUDA device's are
/// (<https://docs.nvidia.com/cuda/cuda-c-best-practices-guide/>, "A Sequential but Misaligned Access Pattern").
const ALIGNMENT: usize = 256;

/// Memory of one buffer. It is reached by addresses alone, as a device's is: no reference to it outlives a call.
#[derive(Debug)]
pub(super) struct Buffer {
    /// What was taken.
    taken: NonNull<u8>,
    /// Bytes in front of the first place that is aligned.
    skipped: usize,
    layout: Layout,
    bytes: usize,
}

// SAFETY: the memory belongs to the buffer alone.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Takes `bytes` bytes, all 0; `None` if they do not fit.
    pub(super) fn new(bytes: usize) -> Option<Buffer> {
        // Not aligned by the allocator: it would write the zeros, where the system has pages of zeros that take no
        // memory until somebody writes.
        let layout = Layout::from_size_align(bytes.checked_add(ALIGNMENT)?, 1).ok()?;
        // SAFETY: the layout is not empty.
        let taken = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skipped =
            (taken.as_ptr() as usize).next_multiple_of(ALIGNMENT) - taken.as_ptr() as usize;
        Some(Buffer { taken, skipped, layout, bytes })
    }

    /// Bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where it begins.
    pub(super) fn address(&self) -> *mut u8 {
        // SAFETY: fewer bytes than ALIGNMENT are skipped, which were taken besides.
        unsafe { self.taken.as_ptr().add(self.skipped) }
    }

    /// What it holds.
    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: the memory is the buffer's, was written when it was taken, and changes through `&mut` alone.
        unsafe { std::slice::from_raw_parts(self.address(), self.bytes) }
    }

    /// What it holds, to write.
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: it was taken with this layout.
        unsafe { dealloc(self.taken.as_ptr(), self.layout) }
    }
}

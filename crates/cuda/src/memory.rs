//! Handles of memory. A device looks them up at each use, so one that outlived its buffer is found there.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that no other handle of this process has.
pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A range of bytes in a buffer of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Number of the buffer; no two buffers of a process have the same.
    pub(crate) buffer: u64,
    /// First byte in the buffer.
    pub(crate) start: usize,
    /// Bytes.
    pub(crate) bytes: usize,
}

impl Region {
    /// No byte of any buffer, where sizes are asked for before there is memory.
    pub fn none() -> Region {
        Region { buffer: 0, start: 0, bytes: 0 }
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of `range` within it.
    ///
    /// # Panics
    /// The range is not inside.
    pub fn slice(&self, range: Range<usize>) -> Region {
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "bytes {range:?} of a region of {}",
            self.bytes
        );
        Region { buffer: self.buffer, start: self.start + range.start, bytes: range.len() }
    }

    /// Elements `range` of those of `size` bytes each.
    ///
    /// # Panics
    /// As [`Region::slice`].
    pub fn elements(&self, range: Range<usize>, size: usize) -> Region {
        self.slice(range.start * size..range.end * size)
    }

    /// Whether it shares a byte with `other`.
    pub fn meets(&self, other: &Region) -> bool {
        self.buffer == other.buffer
            && self.start < other.start + other.bytes
            && other.start < self.start + self.bytes
    }
}

/// Memory of the host that a device reads and writes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Its number; no two of a process have the same.
    pub(crate) id: u64,
    /// Bytes.
    pub(crate) bytes: usize,
}

impl Pinned {
    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

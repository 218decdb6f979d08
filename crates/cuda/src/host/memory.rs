//! The buffers of one host by their numbers.

use std::collections::BTreeMap;

use super::buffer::Buffer;
use crate::memory::{Pinned, Region, next_number};

/// All memory of one host.
#[derive(Debug, Default)]
pub(super) struct Memory {
    buffers: BTreeMap<u64, Buffer>,
    pinned: BTreeMap<u64, Buffer>,
    used: usize,
}

impl Memory {
    /// Bytes of all buffers.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Takes a buffer; `None` if it does not fit.
    pub(super) fn allocate(&mut self, bytes: usize) -> Option<Region> {
        let (buffer, id) = (Buffer::new(bytes)?, next_number());
        self.buffers.insert(id, buffer);
        self.used += bytes;
        Some(Region { buffer: id, start: 0, bytes })
    }

    /// Gives a buffer back.
    pub(super) fn free(&mut self, region: Region) {
        let buffer = self.buffers.remove(&region.buffer);
        self.used -= buffer.unwrap_or_else(|| lost("region", region.buffer)).bytes();
    }

    /// Whether the buffer of `region` is here.
    pub(super) fn holds(&self, region: &Region) -> bool {
        self.buffers.contains_key(&region.buffer)
    }

    /// Where a region begins.
    ///
    /// # Panics
    /// It is not of this device, was given back, or leaves its buffer.
    pub(super) fn address(&self, region: &Region) -> *mut u8 {
        let buffer =
            self.buffers.get(&region.buffer).unwrap_or_else(|| lost("region", region.buffer));
        let inside =
            region.start.checked_add(region.bytes).is_some_and(|end| end <= buffer.bytes());
        assert!(inside, "{region:?} leaves its buffer of {} bytes", buffer.bytes());
        // SAFETY: the region lies inside.
        unsafe { buffer.address().add(region.start) }
    }

    /// Takes memory that the device reads and writes by itself; `None` if it does not fit.
    pub(super) fn allocate_pinned(&mut self, bytes: usize) -> Option<Pinned> {
        let (buffer, id) = (Buffer::new(bytes)?, next_number());
        self.pinned.insert(id, buffer);
        Some(Pinned { id, bytes })
    }

    /// Gives it back.
    pub(super) fn free_pinned(&mut self, pinned: Pinned) {
        self.pinned.remove(&pinned.id).unwrap_or_else(|| lost("pinned memory", pinned.id));
    }

    /// What it holds.
    pub(super) fn pinned(&self, pinned: Pinned) -> &Buffer {
        self.pinned.get(&pinned.id).unwrap_or_else(|| lost("pinned memory", pinned.id))
    }

    /// What it holds, to write.
    pub(super) fn pinned_mut(&mut self, pinned: Pinned) -> &mut Buffer {
        self.pinned.get_mut(&pinned.id).unwrap_or_else(|| lost("pinned memory", pinned.id))
    }
}

/// Panics about a handle that leads nowhere.
fn lost(what: &str, id: u64) -> ! {
    panic!("{what} {id} is of another device, or was given back")
}

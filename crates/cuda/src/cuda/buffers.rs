//! Buffers in a device's memory, by their numbers.

use std::collections::BTreeMap;

use cudarc::driver::result;
use cudarc::driver::sys::{CUdeviceptr, CUresult};

use super::context::Context;
use super::driver::Checked;
use crate::device::{Properties, Stream};
use crate::error::DeviceError;
use crate::memory::{Region, next_number};

/// Bytes to a multiple of which the driver aligns
/// (<https://docs.nvidia.com/cuda/cuda-c-programming-guide/#device-memory-accesses>).
const ALIGNMENT: usize = 256;

#[derive(Clone, Copy)]
struct Buffer {
    address: CUdeviceptr,
    bytes: usize,
}

/// All buffers of a device.
#[derive(Default)]
pub(super) struct Buffers {
    held: BTreeMap<u64, Buffer>,
}

impl Buffers {
    /// A new one of zeros.
    pub(super) fn allocate(
        &mut self,
        context: &Context,
        properties: &Properties,
        bytes: usize,
    ) -> Result<Region, DeviceError> {
        // The driver has no buffers of no bytes.
        let taken = bytes.max(1).next_multiple_of(ALIGNMENT);
        // SAFETY: the context is current.
        let address = match unsafe { result::malloc_sync(taken) } {
            Err(result::DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                return Err(DeviceError::OutOfMemory {
                    device: properties.name.clone(),
                    wanted: taken,
                    free: free()?,
                    total: properties.memory,
                });
            }
            other => other.of("cuMemAlloc")?,
        };
        let buffer = Buffer { address, bytes };
        let id = next_number();
        self.held.insert(id, buffer);
        // Not on the stream of kernels: work may wait there for long.
        // SAFETY: the memory was taken just now.
        unsafe { result::memset_d8_async(address, 0, taken, context.stream(Stream::Copy)) }
            .of("cuMemsetD8Async")?;
        context.wait_for(Stream::Copy)?;
        Ok(Region { buffer: id, start: 0, bytes })
    }

    /// Bytes of all.
    pub(super) fn taken(&self) -> usize {
        self.held.values().map(|buffer| buffer.bytes).sum()
    }

    /// Whether a buffer is still there.
    pub(super) fn has(&self, buffer: u64) -> bool {
        self.held.contains_key(&buffer)
    }

    /// The address of a region.
    ///
    /// # Panics
    /// Its buffer was given back, is another device's, or ends before it.
    pub(super) fn address(&self, region: Region) -> CUdeviceptr {
        let Some(buffer) = self.held.get(&region.buffer) else {
            panic!("{region:?} is of no buffer of this device");
        };
        let end = region.start.checked_add(region.bytes);
        assert!(end.is_some_and(|end| end <= buffer.bytes), "{region:?} is outside its buffer");
        buffer.address + region.start as u64
    }

    /// Gives the buffer of a region back. Nothing must use it.
    ///
    /// # Panics
    /// As [`Buffers::address`].
    pub(super) fn free(&mut self, region: Region) -> Result<(), DeviceError> {
        let Some(buffer) = self.held.remove(&region.buffer) else {
            panic!("{region:?} is of no buffer of this device");
        };
        // SAFETY: taken by `allocate`, and not named any more.
        unsafe { result::free_sync(buffer.address) }.of("cuMemFree")
    }

    /// Gives all back.
    pub(super) fn free_all(&mut self) {
        for (_, buffer) in std::mem::take(&mut self.held) {
            // SAFETY: taken by `allocate`, and not named any more. An error has no remedy here.
            let _ = unsafe { result::free_sync(buffer.address) };
        }
    }
}

/// Bytes of the current context's device that are free.
pub(super) fn free() -> Result<usize, DeviceError> {
    Ok(result::mem_get_info().of("cuMemGetInfo")?.0)
}

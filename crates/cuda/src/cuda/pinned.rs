//! Memory of the host that the device copies from and to by itself.

use std::collections::BTreeMap;
use std::ptr::NonNull;

use cudarc::driver::result;
use cudarc::driver::sys::{CUdeviceptr, CUevent, CUresult};

use super::context::Context;
use super::driver::Checked;
use crate::device::Stream;
use crate::error::DeviceError;
use crate::memory::{Pinned, next_number};

struct Held {
    address: NonNull<u8>,
    bytes: usize,
    /// When the last copy from or to it is done.
    done: CUevent,
    /// The stream of that copy, until somebody has seen that it is done.
    copied_on: Option<Stream>,
}

/// All such memory of a device.
#[derive(Default)]
pub(super) struct PinnedMemory {
    held: BTreeMap<u64, Held>,
}

// SAFETY: the memory is ours alone; the driver lets any thread use events.
unsafe impl Send for PinnedMemory {}

/// From where to where a copy goes.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Up,
    Down,
}

impl PinnedMemory {
    pub(super) fn allocate(
        &mut self,
        context: &Context,
        bytes: usize,
    ) -> Result<Pinned, DeviceError> {
        let done = context.event(false)?;
        // The driver aligns to pages. It has no buffers of no bytes.
        // SAFETY: the context is current.
        let address = match unsafe { result::malloc_host(bytes.max(1), 0) } {
            Ok(address) => NonNull::new(address.cast::<u8>()),
            Err(error) => {
                destroy(done);
                return Err(error).of("cuMemHostAlloc");
            }
        };
        let Some(address) = address else {
            destroy(done);
            return CUresult::CUDA_ERROR_OUT_OF_MEMORY
                .of("cuMemHostAlloc")
                .map(|()| unreachable!());
        };
        // SAFETY: as many bytes were taken just now.
        unsafe { address.write_bytes(0, bytes) };
        let id = next_number();
        self.held.insert(id, Held { address, bytes, done, copied_on: None });
        Ok(Pinned { id, bytes })
    }

    fn held(&mut self, pinned: Pinned) -> &mut Held {
        match self.held.get_mut(&pinned.id) {
            Some(held) => held,
            None => panic!("{pinned:?} is no memory of this device"),
        }
    }

    /// The bytes, when the last copy is done.
    pub(super) fn bytes(&mut self, pinned: Pinned) -> Result<&mut [u8], DeviceError> {
        let held = self.held(pinned);
        if held.copied_on.is_some() {
            // SAFETY: the event is ours, and was recorded.
            unsafe { result::event::synchronize(held.done) }.of("cuEventSynchronize")?;
            held.copied_on = None;
        }
        // SAFETY: as many bytes were taken, and filled; no copy is under way, and none starts while they are borrowed.
        Ok(unsafe { std::slice::from_raw_parts_mut(held.address.as_ptr(), held.bytes) })
    }

    pub(super) fn is_ready(&mut self, pinned: Pinned) -> Result<bool, DeviceError> {
        let held = self.held(pinned);
        if held.copied_on.is_none() {
            return Ok(true);
        }
        // SAFETY: the event is ours, and was recorded.
        match unsafe { result::event::query(held.done) } {
            Ok(()) => {
                held.copied_on = None;
                Ok(true)
            }
            Err(result::DriverError(CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(error) => Err(error).of("cuEventQuery"),
        }
    }

    /// Starts a copy of `bytes` between it and an address of the device.
    ///
    /// # Safety
    /// There are as many bytes at the address.
    ///
    /// # Panics
    /// It is shorter.
    pub(super) unsafe fn copy(
        &mut self,
        context: &Context,
        (pinned, address, bytes): (Pinned, CUdeviceptr, usize),
        way: Way,
        stream: Stream,
    ) -> Result<(), DeviceError> {
        let held = self.held(pinned);
        assert!(bytes <= held.bytes, "{bytes} bytes are copied of {pinned:?}");
        if held.copied_on.is_some_and(|before| before != stream) {
            // Copies of one memory keep their order.
            // SAFETY: the event is ours.
            unsafe { context.let_wait(stream, held.done) }?;
        }
        let memory = held.address.as_ptr();
        let on = context.stream(stream);
        // SAFETY: both have as many bytes; whoever reads or writes the memory waits for the event first, and it is not
        // given back before.
        unsafe {
            match way {
                Way::Up => {
                    let from = std::slice::from_raw_parts(memory, bytes);
                    result::memcpy_htod_async(address, from, on).of("cuMemcpyHtoDAsync")?;
                }
                Way::Down => {
                    let to = std::slice::from_raw_parts_mut(memory, bytes);
                    result::memcpy_dtoh_async(to, address, on).of("cuMemcpyDtoHAsync")?;
                }
            }
        }
        held.copied_on = Some(stream);
        // SAFETY: the event is ours.
        unsafe { context.record(held.done, stream) }
    }

    /// Gives it back. No copy may be under way.
    pub(super) fn free(&mut self, pinned: Pinned) -> Result<(), DeviceError> {
        match self.held.remove(&pinned.id) {
            Some(held) => give_back(&held),
            None => panic!("{pinned:?} is no memory of this device"),
        }
    }

    pub(super) fn free_all(&mut self) {
        for (_, held) in std::mem::take(&mut self.held) {
            let _ = give_back(&held); // an error has no remedy here
        }
    }
}

fn give_back(held: &Held) -> Result<(), DeviceError> {
    destroy(held.done);
    // SAFETY: taken by `allocate`, and not named any more.
    unsafe { result::free_host(held.address.as_ptr().cast()) }.of("cuMemFreeHost")
}

fn destroy(event: CUevent) {
    // SAFETY: the event is ours, and not named any more. An error has no remedy here.
    let _ = unsafe { result::event::destroy(event) };
}

//! Moments of streams. They are handed out as numbers; those that were given back are used again.

use std::collections::BTreeMap;
use std::time::Duration;

use cudarc::driver::result;
use cudarc::driver::sys::CUevent;

use super::context::Context;
use super::driver::Checked;
use crate::device::{Event, Stream};
use crate::error::DeviceError;
use crate::memory::next_number;

/// The events of a device.
#[derive(Default)]
pub(super) struct Events {
    held: BTreeMap<u64, CUevent>,
    /// Those that can be recorded anew. What waits for one waits for the moment that it told then
    /// (<https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html>, `cuStreamWaitEvent`).
    unused: Vec<CUevent>,
}

// SAFETY: the driver lets any thread use events.
unsafe impl Send for Events {}

impl Events {
    pub(super) fn record(
        &mut self,
        context: &Context,
        stream: Stream,
    ) -> Result<Event, DeviceError> {
        let event = match self.unused.pop() {
            Some(event) => event,
            None => context.event(true)?,
        };
        let number = next_number();
        self.held.insert(number, event);
        // SAFETY: the event is ours.
        unsafe { context.record(event, stream) }?;
        Ok(Event(number))
    }

    /// Lets a stream wait.
    pub(super) fn wait(
        &self,
        context: &Context,
        stream: Stream,
        event: Event,
    ) -> Result<(), DeviceError> {
        // SAFETY: the event is ours.
        unsafe { context.let_wait(stream, self.of(event)) }
    }

    /// The time between two, for which it waits.
    pub(super) fn elapsed(&self, from: Event, to: Event) -> Result<Duration, DeviceError> {
        let (from, to) = (self.of(from), self.of(to));
        // SAFETY: both events are ours, were recorded, and tell times.
        let milliseconds = unsafe {
            result::event::synchronize(from).of("cuEventSynchronize")?;
            result::event::synchronize(to).of("cuEventSynchronize")?;
            result::event::elapsed(from, to).of("cuEventElapsedTime")?
        };
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }

    /// Takes one back.
    ///
    /// # Panics
    /// It is of another device, or was given back.
    pub(super) fn free(&mut self, event: Event) {
        let handle = self.of(event);
        self.held.remove(&event.0);
        self.unused.push(handle);
    }

    fn of(&self, event: Event) -> CUevent {
        match self.held.get(&event.0) {
            Some(handle) => *handle,
            None => panic!("{event:?} is of another device, or was given back"),
        }
    }

    /// Events of the driver.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len() + self.unused.len()
    }

    pub(super) fn free_all(&mut self) {
        let held = std::mem::take(&mut self.held);
        for event in held.into_values().chain(self.unused.drain(..)) {
            // SAFETY: the event is ours, and not named any more. An error has no remedy here.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}

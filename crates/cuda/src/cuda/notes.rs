//! What is noted of starts.

use std::time::Duration;

use cudarc::driver::result;
use cudarc::driver::sys::CUevent;

use super::context::Context;
use super::driver::Checked;
use crate::device::{Noting, Stream, Timing};
use crate::error::DeviceError;
use crate::launch::Cost;

/// The notes of a device.
pub(super) struct Notes {
    pub(super) noting: Noting,
    pub(super) label: usize,
    taken: Vec<Timing>,
    /// Before and behind a start.
    ends: [CUevent; 2],
}

// SAFETY: the driver lets any thread use events.
unsafe impl Send for Notes {}

impl Notes {
    pub(super) fn new(context: &Context) -> Result<Notes, DeviceError> {
        let ends = [context.event(true)?, context.event(true)?];
        Ok(Notes { noting: Noting::Nothing, label: 0, taken: Vec::new(), ends })
    }

    /// Runs a start on [`Stream::Compute`] and notes it. What is captured does not run, and has no time.
    pub(super) fn around(
        &mut self,
        context: &Context,
        (kernel, cost): (&str, Cost),
        is_capturing: bool,
        start: impl FnOnce() -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let time = match self.noting {
            Noting::Nothing => return start(),
            Noting::Times if !is_capturing => Some(time(context, self.ends, start)?),
            _ => {
                start()?;
                None
            }
        };
        self.taken.push(Timing { label: self.label, kernel: kernel.to_owned(), cost, time });
        Ok(())
    }

    pub(super) fn take(&mut self) -> Vec<Timing> {
        std::mem::take(&mut self.taken)
    }

    /// The time of a start.
    pub(super) fn time(
        &self,
        context: &Context,
        start: impl FnOnce() -> Result<(), DeviceError>,
    ) -> Result<Duration, DeviceError> {
        time(context, self.ends, start)
    }

    pub(super) fn free(&mut self) {
        for event in self.ends {
            // SAFETY: the event is ours, and not named any more. An error has no remedy here.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}

/// The time between two events around a start.
fn time(
    context: &Context,
    [before, behind]: [CUevent; 2],
    start: impl FnOnce() -> Result<(), DeviceError>,
) -> Result<Duration, DeviceError> {
    // SAFETY: both events are ours, and tell times.
    unsafe {
        context.record(before, Stream::Compute)?;
        start()?;
        context.record(behind, Stream::Compute)?;
        result::event::synchronize(behind).of("cuEventSynchronize")?;
        let milliseconds = result::event::elapsed(before, behind).of("cuEventElapsedTime")?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

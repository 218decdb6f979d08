//! The engines' times.

use std::time::Duration;

use super::{Cuda, convolutions};
use crate::convolution::Convolution;
use crate::cudnn::{Plan, is_widened};
use crate::error::DeviceError;
use crate::memory::Region;

/// Runs that are timed, behind one that is not; the least time counts.
const TIMED_RUNS: usize = 3;

impl Cuda {
    /// The place of the fastest of several engines, with its time.
    pub(super) fn fastest(
        &mut self,
        convolution: &Convolution,
        plans: &[Plan],
    ) -> Result<(usize, Option<Duration>), DeviceError> {
        let mut places = [0; 4];
        let mut end = 0;
        let scratch = plans.iter().map(|plan| convolutions::scratch(convolution, plan.workspace).1);
        let sizes = convolution.operand_bytes().into_iter().chain([scratch.max().unwrap_or(0)]);
        for (place, bytes) in places.iter_mut().zip(sizes) {
            *place = end;
            end += bytes.next_multiple_of(256);
        }
        let memory = match self.buffers.allocate(&self.context, &self.properties, end) {
            Ok(memory) => memory,
            Err(DeviceError::OutOfMemory { .. }) => {
                tracing::debug!("{convolution}: no memory to time engines");
                return Ok((0, None));
            }
            Err(error) => return Err(error),
        };
        let timed = self.time_all(convolution, plans, (memory, places));
        self.context.wait_for_all()?;
        self.buffers.free(memory)?;
        timed
    }

    fn time_all(
        &self,
        convolution: &Convolution,
        plans: &[Plan],
        (memory, places): (Region, [usize; 4]),
    ) -> Result<(usize, Option<Duration>), DeviceError> {
        let base = self.buffers.address(memory);
        let [input, filters, output, scratch] = places.map(|place| base + place as u64);
        let mut best: Option<(usize, Duration)> = None;
        let mut failure = None;
        for (number, plan) in plans.iter().enumerate() {
            let widened = convolutions::scratch(convolution, plan.workspace).0 as u64;
            let filters = if is_widened(convolution) { scratch + widened } else { filters };
            let run = || {
                // SAFETY: all operands have their bytes, aligned, and nobody else uses them.
                unsafe { self.convolutions.handle().run(plan, [input, filters, output], scratch) }
            };
            // The first run loads the kernel.
            let times: Result<Vec<Duration>, DeviceError> =
                (0..=TIMED_RUNS).map(|_| self.notes.time(&self.context, run)).collect();
            match times {
                Ok(times) => {
                    let time = times[1..].iter().min().copied().unwrap_or(Duration::MAX);
                    if best.is_none_or(|(_, least)| time < least) {
                        best = Some((number, time));
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        match (best, failure) {
            (Some((number, time)), _) => Ok((number, Some(time))),
            (None, Some(error)) => Err(error),
            (None, None) => Ok((0, None)),
        }
    }
}

//! The trait on a GPU.

use std::time::Duration;

use cudarc::driver::result;

use super::driver::Checked;
use super::pinned::Way;
use super::{Cuda, buffers, convolutions, kernels};
use crate::convolution::{Convolution, ConvolutionPlan, Direction, Operands};
use crate::cudnn::{ALIGNMENT, is_widened};
use crate::device::{Device, Event, Graph, Noting, Properties, Stream, Timing};
use crate::error::DeviceError;
use crate::launch::Launch;
use crate::memory::{Pinned, Region};
use crate::ops::layout;

/// Warns of an error that a function without a result had; it comes again with the next call.
fn warn(result: Result<(), DeviceError>) {
    if let Err(error) = result {
        tracing::warn!("{error}");
    }
}

impl Device for Cuda {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_memory(&self) -> Result<usize, DeviceError> {
        self.context.enter()?;
        buffers::free()
    }

    fn taken_memory(&self) -> usize {
        self.buffers.taken()
    }

    fn allocate(&mut self, bytes: usize) -> Result<Region, DeviceError> {
        self.graphs.outside_capture("allocate")?;
        self.context.enter()?;
        self.buffers.allocate(&self.context, &self.properties, bytes)
    }

    fn free(&mut self, region: Region) {
        assert!(!self.graphs.is_capturing(), "memory is given back while something is captured");
        let done = self.context.enter().and_then(|()| self.context.wait_for_all());
        warn(done.and_then(|()| self.buffers.free(region)));
    }

    fn allocate_pinned(&mut self, bytes: usize) -> Result<Pinned, DeviceError> {
        self.graphs.outside_capture("allocate_pinned")?;
        self.context.enter()?;
        self.pinned.allocate(&self.context, bytes)
    }

    fn free_pinned(&mut self, pinned: Pinned) {
        let done = self.context.enter().and_then(|()| self.pinned.bytes(pinned).map(drop));
        warn(done.and_then(|()| self.pinned.free(pinned)));
    }

    fn pinned(&mut self, pinned: Pinned) -> Result<&[u8], DeviceError> {
        self.context.enter()?;
        Ok(self.pinned.bytes(pinned)?)
    }

    fn pinned_mut(&mut self, pinned: Pinned) -> Result<&mut [u8], DeviceError> {
        self.context.enter()?;
        self.pinned.bytes(pinned)
    }

    fn is_ready(&mut self, pinned: Pinned) -> Result<bool, DeviceError> {
        self.context.enter()?;
        self.pinned.is_ready(pinned)
    }

    fn upload(&mut self, from: Pinned, to: Region, stream: Stream) -> Result<(), DeviceError> {
        self.graphs.outside_capture("upload")?;
        self.context.enter()?;
        let copied = (from, self.buffers.address(to), to.bytes);
        // SAFETY: the region lies inside its buffer.
        unsafe { self.pinned.copy(&self.context, copied, Way::Up, stream) }
    }

    fn download(&mut self, from: Region, to: Pinned, stream: Stream) -> Result<(), DeviceError> {
        self.graphs.outside_capture("download")?;
        self.context.enter()?;
        let copied = (to, self.buffers.address(from), from.bytes);
        // SAFETY: the region lies inside its buffer.
        unsafe { self.pinned.copy(&self.context, copied, Way::Down, stream) }
    }

    fn copy(&mut self, from: Region, to: Region) -> Result<(), DeviceError> {
        assert_eq!(from.bytes, to.bytes, "bytes of a copy");
        assert!(!from.meets(&to), "a copy of {from:?} to {to:?}");
        let (source, target) = (self.buffers.address(from), self.buffers.address(to));
        if from.bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        self.graphs.uses([from, to]);
        let stream = self.context.stream(Stream::Compute);
        // SAFETY: both regions lie inside their buffers and have the same length.
        unsafe { result::memcpy_dtod_async(target, source, from.bytes, stream) }
            .of("cuMemcpyDtoDAsync")
    }

    fn clear(&mut self, region: Region) -> Result<(), DeviceError> {
        let address = self.buffers.address(region);
        if region.bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        self.graphs.uses([region]);
        let stream = self.context.stream(Stream::Compute);
        // SAFETY: the region lies inside its buffer.
        unsafe { result::memset_d8_async(address, 0, region.bytes, stream) }.of("cuMemsetD8Async")
    }

    fn record(&mut self, stream: Stream) -> Result<Event, DeviceError> {
        self.graphs.outside_capture("record")?;
        self.context.enter()?;
        self.events.record(&self.context, stream)
    }

    fn wait(&mut self, stream: Stream, event: Event) -> Result<(), DeviceError> {
        self.graphs.outside_capture("wait")?;
        self.context.enter()?;
        self.events.wait(&self.context, stream, event)
    }

    fn elapsed(&mut self, from: Event, to: Event) -> Result<Duration, DeviceError> {
        self.graphs.outside_capture("elapsed")?;
        self.context.enter()?;
        self.events.elapsed(from, to)
    }

    fn free_event(&mut self, event: Event) {
        self.events.free(event);
    }

    fn synchronise(&mut self) -> Result<(), DeviceError> {
        self.graphs.outside_capture("synchronise")?;
        self.context.enter()?;
        self.context.wait_for_all()
    }

    unsafe fn launch(&mut self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        let function = self.kernels.function(launch.kernel);
        let addresses: Vec<u64> =
            launch.regions.iter().map(|region| self.buffers.address(*region)).collect();
        let failed = |_| DeviceError::Call {
            call: "cuLaunchKernel",
            reason: format!("{}: {} blocks", launch.kernel, launch.blocks),
        };
        let blocks = u32::try_from(launch.blocks).map_err(failed)?;
        let threads = u32::try_from(launch.threads).map_err(failed)?;
        if blocks == 0 {
            return Ok(()); // the driver refuses it
        }
        self.context.enter()?;
        let mut arguments = kernels::pack(&addresses, launch.scalars);
        let stream = self.context.stream(Stream::Compute);
        self.graphs.uses(launch.regions.iter().copied());
        let start = || {
            // SAFETY: the caller's.
            unsafe { kernels::start(function, (blocks, threads), &mut arguments, stream) }
        };
        let is_capturing = self.graphs.is_capturing();
        self.notes.around(&self.context, (launch.kernel, launch.cost), is_capturing, start)
    }

    fn plan(&mut self, convolution: &Convolution) -> Result<ConvolutionPlan, DeviceError> {
        self.graphs.outside_capture("plan")?;
        if let Some(plan) = self.convolutions.known(convolution) {
            return Ok(plan);
        }
        self.context.enter()?;
        let (plans, chosen) = self.convolutions.candidates(convolution, &self.properties)?;
        let chosen = match chosen {
            Some(place) => (place, None),
            None => self.fastest(convolution, &plans)?,
        };
        Ok(self.convolutions.take(convolution, plans, chosen))
    }

    fn convolve(&mut self, plan: &ConvolutionPlan, operands: &Operands) -> Result<(), DeviceError> {
        let sizes = plan.convolution;
        let engine = self.convolutions.engine(plan);
        let Operands { input, filters, output, workspace } = *operands;
        let bytes = sizes.operand_bytes().into_iter().chain([plan.workspace]);
        let regions = [input, filters, output, workspace];
        for ((region, bytes), what) in
            regions.into_iter().zip(bytes).zip(["input", "filters", "output", "workspace"])
        {
            assert!(
                region.bytes >= bytes,
                "convolution {sizes}: {} bytes of {bytes} of the {what}",
                region.bytes
            );
            let address = if bytes == 0 { 0 } else { self.buffers.address(region) };
            assert!(
                address.is_multiple_of(ALIGNMENT as u64),
                "convolution {sizes}: the {what} begins at {address:#x}"
            );
        }
        let (written, read) = match sizes.direction {
            Direction::Forward => (output, [input, filters]),
            Direction::InputGradient => (input, [filters, output]),
            Direction::FilterGradient => (filters, [input, output]),
        };
        assert!(read.iter().all(|region| !region.meets(&written)), "convolution {sizes} in place");
        self.context.enter()?;
        self.graphs.uses(regions.into_iter().filter(|region| region.bytes > 0));
        let (narrow, end) = convolutions::scratch(&sizes, engine.workspace);
        let narrow = is_widened(&sizes).then(|| workspace.slice(narrow..end));
        let addresses =
            [input, narrow.unwrap_or(filters), output].map(|region| self.buffers.address(region));
        let scratch = if plan.workspace == 0 { 0 } else { self.buffers.address(workspace) };
        let start = || {
            // SAFETY: the plan is of this device; all operands have their bytes, aligned, inside their buffers.
            unsafe { self.convolutions.handle().run(engine, addresses, scratch) }
        };
        let name = format!("convolution {}", sizes.direction.name());
        let is_capturing = self.graphs.is_capturing();
        self.notes.around(&self.context, (&name, sizes.cost()), is_capturing, start)?;
        match narrow {
            Some(narrow) => {
                let filters = filters.slice(0..sizes.operand_bytes()[1]);
                layout::from_bf16(self, narrow, filters, sizes.accumulate)
            }
            None => Ok(()),
        }
    }

    fn begin_capture(&mut self) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: the stream is of the context, which is current.
        unsafe { self.graphs.begin(self.context.stream(Stream::Compute)) }
    }

    fn end_capture(&mut self) -> Result<Graph, DeviceError> {
        self.context.enter()?;
        // SAFETY: as above.
        unsafe { self.graphs.end(self.context.stream(Stream::Compute)) }
    }

    fn replay(&mut self, graph: &Graph) -> Result<(), DeviceError> {
        self.graphs.outside_capture("replay")?;
        self.context.enter()?;
        // SAFETY: as above.
        unsafe { self.graphs.start(graph, &self.buffers, self.context.stream(Stream::Compute)) }
    }

    fn free_graph(&mut self, graph: Graph) {
        let done = self.context.enter().and_then(|()| self.context.wait_for_all());
        warn(done.and_then(|()| self.graphs.free(graph)));
    }

    fn label(&mut self, label: usize) {
        self.notes.label = label;
    }

    fn note(&mut self, noting: Noting) {
        self.notes.noting = noting;
    }

    fn notes(&mut self) -> Vec<Timing> {
        self.notes.take()
    }
}

//! The state of a run in device memory, and the sums of the update under way.

use bninception_cuda::ops::{layout as order, update};
use bninception_cuda::{Device, Format, Pinned, Region, Stream};
use bninception_model::Weights;

use super::layout::Layout;
use super::plan::UNIT;
use crate::error::EngineError;
use crate::state::ModelState;

/// Vectors of f32 in device memory: trainable ones in the order of the layout, statistics in that of the host.
pub(super) struct State {
    pub weights: Region,
    /// Weights in the format that convolutions multiply: the same memory where that is f32.
    pub filters: Region,
    pub velocity: Region,
    pub gradients: Region,
    /// Sums of gradients and statistics over the micro-batches of an update that has several.
    pub sums: Option<[Region; 2]>,
    /// Running statistics behind the last update.
    pub settled: Region,
    /// Those that a micro-batch leaves. What frozen layers have is there too.
    pub moved: Region,
    /// The moving average of weights and statistics, where the state has one.
    pub average: Option<[Region; 2]>,
    /// Pieces of the weights, through which the optimizer goes.
    pub pieces: Region,
    has_average: bool,
    /// Memory through which vectors travel.
    travel: Pinned,
}

impl State {
    /// Room for a state.
    pub(super) fn new(
        device: &mut dyn Device,
        layout: &Layout,
        statistics: usize,
        format: Format,
    ) -> Result<State, EngineError> {
        let (long, short) = (layout.len() * UNIT, statistics.max(1) * UNIT);
        let pieces = layout.pieces();
        let travel = device.allocate_pinned(long.max(short).max(pieces.len() * UNIT))?;
        let weights = device.allocate(long)?;
        let state = State {
            weights,
            filters: match format {
                Format::F32 => weights,
                Format::Bf16 => device.allocate(layout.len() * format.size())?,
            },
            velocity: device.allocate(long)?,
            gradients: device.allocate(long)?,
            sums: None,
            settled: device.allocate(short)?,
            moved: device.allocate(short)?,
            average: None,
            pieces: device.allocate(pieces.len() * UNIT)?,
            has_average: false,
            travel,
        };
        let bytes = bytemuck::cast_slice(&pieces);
        device.pinned_mut(travel)?[..bytes.len()].copy_from_slice(bytes);
        device.upload(travel, state.pieces, Stream::Compute)?;
        Ok(state)
    }

    /// Bytes of device memory that a state takes.
    pub(super) fn bytes(layout: &Layout, statistics: usize, format: Format) -> usize {
        let (long, short) = (layout.len() * UNIT, statistics * UNIT);
        let filters = if format == Format::F32 { 0 } else { layout.len() * format.size() };
        // Weights, velocity, gradients and average; statistics settled, moved and averaged.
        4 * long + filters + 3 * short + layout.pieces().len() * UNIT
    }

    /// Takes over a state.
    pub(super) fn load(
        &mut self,
        device: &mut dyn Device,
        layout: &Layout,
        state: &ModelState,
    ) -> Result<(), EngineError> {
        self.upload(device, Some(layout), &state.weights.trainable, self.weights)?;
        self.upload(device, Some(layout), &state.velocity, self.velocity)?;
        self.upload(device, None, &state.weights.statistics, self.settled)?;
        device.copy(self.settled, self.moved)?;
        self.has_average = state.ema.is_some();
        if let Some(ema) = &state.ema {
            let [trainable, statistics] = match self.average {
                Some(average) => average,
                None => {
                    [device.allocate(self.weights.bytes())?, device.allocate(self.settled.bytes())?]
                }
            };
            self.average = Some([trainable, statistics]);
            self.upload(device, Some(layout), &ema.trainable, trainable)?;
            self.upload(device, None, &ema.statistics, statistics)?;
        }
        self.round(device)
    }

    /// The moving average, where the state has one.
    pub(super) fn average(&self) -> Option<[Region; 2]> {
        self.average.filter(|_| self.has_average)
    }

    /// Makes the filters of the weights.
    fn round(&self, device: &mut dyn Device) -> Result<(), EngineError> {
        if self.filters != self.weights {
            order::to_bf16(device, self.weights, self.filters)?;
        }
        Ok(())
    }

    /// Copies the state to `to`, in the memory that it has.
    pub(super) fn store(
        &self,
        device: &mut dyn Device,
        layout: &Layout,
        lens: [usize; 2],
        to: &mut ModelState,
    ) -> Result<(), EngineError> {
        let [n_trainable, n_statistics] = lens;
        self.download(device, Some(layout), self.weights, n_trainable, &mut to.weights.trainable)?;
        self.download(device, None, self.settled, n_statistics, &mut to.weights.statistics)?;
        self.download(device, Some(layout), self.velocity, n_trainable, &mut to.velocity)?;
        match self.average() {
            None => to.ema = None,
            Some([trainable, statistics]) => {
                let empty = || Weights { trainable: Vec::new(), statistics: Vec::new() };
                let ema = to.ema.get_or_insert_with(empty);
                let Weights { trainable: weights, statistics: of_batches } = ema;
                self.download(device, Some(layout), trainable, n_trainable, weights)?;
                self.download(device, None, statistics, n_statistics, of_batches)?;
            }
        }
        Ok(())
    }

    /// Copies a vector of the host to the device; in the order of `layout`, or as it is.
    pub(super) fn upload(
        &self,
        device: &mut dyn Device,
        layout: Option<&Layout>,
        from: &[f32],
        to: Region,
    ) -> Result<(), EngineError> {
        if to.bytes() == 0 || from.is_empty() {
            return Ok(());
        }
        let values = &mut device.pinned_mut(self.travel)?[..to.bytes()];
        let values: &mut [f32] = bytemuck::cast_slice_mut(values);
        match layout {
            Some(layout) => layout.to_device(from, values),
            None => values[..from.len()].copy_from_slice(from),
        }
        device.upload(self.travel, to, Stream::Compute)?;
        Ok(())
    }

    /// Copies a vector of the device to `to`, `len` values there, when what was started is done.
    pub(super) fn download(
        &self,
        device: &mut dyn Device,
        layout: Option<&Layout>,
        from: Region,
        len: usize,
        to: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        to.resize(len, 0.0);
        if len == 0 {
            return Ok(());
        }
        device.download(from, self.travel, Stream::Compute)?;
        let values: &[f32] = bytemuck::cast_slice(&device.pinned(self.travel)?[..from.bytes()]);
        match layout {
            Some(layout) => layout.to_host(values, to),
            None => to.copy_from_slice(&values[..len]),
        }
        Ok(())
    }

    /// Room for sums over micro-batches.
    pub(super) fn sums(&mut self, device: &mut dyn Device) -> Result<[Region; 2], EngineError> {
        if let Some(sums) = self.sums {
            return Ok(sums);
        }
        let sums =
            [device.allocate(self.gradients.bytes())?, device.allocate(self.settled.bytes())?];
        self.sums = Some(sums);
        Ok(sums)
    }

    /// Before a micro-batch behind the first: what the first gave begins the sums.
    pub(super) fn begin_sums(&mut self, device: &mut dyn Device) -> Result<(), EngineError> {
        let [gradients, statistics] = self.sums(device)?;
        device.copy(self.gradients, gradients)?;
        device.copy(self.moved, statistics)?;
        Ok(())
    }

    /// Behind it: adds what it gave.
    pub(super) fn add_to_sums(&mut self, device: &mut dyn Device) -> Result<(), EngineError> {
        let [gradients, statistics] = self.sums(device)?;
        update::add(device, self.gradients, gradients)?;
        update::add(device, self.moved, statistics)?;
        Ok(())
    }

    /// Behind the last: the sums take the place of what the last gave.
    pub(super) fn end_sums(&mut self, device: &mut dyn Device) -> Result<(), EngineError> {
        let [gradients, statistics] = self.sums(device)?;
        device.copy(gradients, self.gradients)?;
        device.copy(statistics, self.moved)?;
        Ok(())
    }
}

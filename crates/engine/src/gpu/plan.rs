//! The settings from which plans are made, and what the stages of a running pass share.

use bninception_cuda::{
    Convolution, ConvolutionPlan, Device, Direction, Format, Map, Precision, Region,
};
use bninception_kernels::conv::ConvShape;
use bninception_kernels::map::BLOCK;

use super::layout::Layout;
use crate::error::EngineError;
use crate::lowering::lower::Lowered;
use crate::lowering::memory::Buffer;
use crate::lowering::schedule::{Schedule, Slots};
use crate::lowering::stage::Place;

/// Bytes of the unit in which places of the arena are counted.
pub(super) const UNIT: usize = size_of::<f32>();

/// What does not change from one batch size to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// What convolutions multiply.
    pub precision: Precision,
    /// Whether convolutions repeat bit by bit.
    pub deterministic: bool,
    /// Epsilon of batch norm, where the network has it.
    pub epsilon: f64,
}

impl Settings {
    /// The format of maps.
    pub(super) fn format(&self) -> Format {
        self.precision.format()
    }

    /// Units of the arena for `values` of a map.
    pub(super) fn map_units(&self, values: usize) -> usize {
        (values * self.format().size()).div_ceil(UNIT)
    }

    /// A convolution of `shape` in one direction.
    pub(super) fn convolution(
        &self,
        shape: &ConvShape,
        direction: Direction,
        accumulate: bool,
    ) -> Convolution {
        Convolution {
            direction,
            precision: self.precision,
            batch: shape.batch,
            in_channels: shape.in_channels,
            out_channels: shape.out_channels,
            in_height: shape.in_height,
            in_width: shape.in_width,
            kernel: shape.kernel,
            stride: shape.stride,
            pad: shape.pad,
            accumulate,
            deterministic: self.deterministic,
        }
    }
}

/// The vectors that a pass reads and writes, in device memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vectors {
    /// Weights in f32.
    pub trainable: Region,
    /// Weights in the format that convolutions multiply.
    pub filters: Region,
    /// Running statistics, and those that the pass leaves.
    pub statistics: [Region; 2],
    /// Gradients.
    pub gradients: Region,
    /// Weight of the batch in the running statistics, one number.
    pub bn_momentum: Region,
}

/// Makes a plan: collects its buffers, and asks the device for convolutions.
pub(super) struct Planner<'a> {
    pub device: &'a mut dyn Device,
    pub settings: Settings,
    pub layout: &'a Layout,
    pub batch: usize,
    pub schedule: Schedule,
    /// Scratch, which the stages use one after the other.
    pub workspace: Buffer,
    /// Channels whose moments have a place.
    pub moments: usize,
    /// Whether there is a backward pass.
    pub trains: bool,
}

impl<'a> Planner<'a> {
    /// For `batch` images.
    pub(super) fn new(
        device: &'a mut dyn Device,
        settings: Settings,
        layout: &'a Layout,
        lowered: &Lowered,
        batch: usize,
        trains: bool,
    ) -> Planner<'a> {
        let units = |values| settings.map_units(values);
        let mut schedule =
            Schedule::new(lowered, |map| units(batch * map.channels * map.height * map.width));
        let workspace = schedule.buffers.add(0);
        Planner { device, settings, layout, batch, schedule, workspace, moments: 0, trains }
    }

    /// Chooses the algorithm of a convolution, and takes room for its scratch at `moment`.
    pub(super) fn convolution(
        &mut self,
        convolution: &Convolution,
        moment: usize,
    ) -> Result<ConvolutionPlan, EngineError> {
        let plan = self.device.plan(convolution)?;
        self.scratch(plan.workspace(), moment);
        Ok(plan)
    }

    /// Takes room for `bytes` of scratch at `moment`.
    pub(super) fn scratch(&mut self, bytes: usize, moment: usize) {
        self.schedule.buffers.touch_len(self.workspace, bytes.div_ceil(UNIT), moment);
    }

    /// A buffer of `bytes` in use from `first` to `last`.
    pub(super) fn buffer(&mut self, bytes: usize, first: usize, last: usize) -> Buffer {
        let buffer = self.schedule.buffers.scratch(bytes.div_ceil(UNIT), first);
        self.schedule.buffers.touch(buffer, last);
        buffer
    }

    /// The first of `channels` places for moments.
    pub(super) fn moments(&mut self, channels: usize) -> usize {
        let first = self.moments;
        self.moments += channels;
        first
    }
}

/// What the stages of a running pass share.
pub(super) struct Pass<'a> {
    pub device: &'a mut dyn Device,
    pub settings: Settings,
    pub batch: usize,
    pub slots: &'a Slots,
    /// Channels of the whole map that each place is part of.
    pub widths: &'a [usize],
    /// Memory of all buffers.
    pub arena: Region,
    /// Moments of all channels ([`bninception_cuda::ops::batch_norm`]).
    pub moments: Region,
    pub workspace: Buffer,
    pub vectors: Vectors,
}

impl Pass<'_> {
    /// The memory of a buffer.
    pub(super) fn region(&self, buffer: Buffer) -> Region {
        self.arena.elements(self.slots.places.range(buffer), UNIT)
    }

    /// The activation at a place.
    pub(super) fn value(&self, place: &Place) -> Map {
        self.map(place, self.slots.value(place))
    }

    /// Its gradient.
    pub(super) fn gradient(&self, place: &Place) -> Map {
        self.map(place, self.slots.gradient(place))
    }

    fn map(&self, place: &Place, buffer: Buffer) -> Map {
        Map {
            region: self.region(buffer),
            format: self.settings.format(),
            batch: self.batch,
            height: place.map.height,
            width: place.map.width,
            stride: self.widths[place.id],
            first: place.view.first * BLOCK,
            channels: place.map.channels,
        }
    }
}

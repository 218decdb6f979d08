//! The settings from which plans are made, and what the stages of a running plan share.

use bninception_kernels::conv::Conv;
use bninception_kernels::dtype::Dtype;
use bninception_kernels::element::{Element, region_len};
use bninception_kernels::map::Map;
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;
use bninception_model::batch::Images;

use super::memory::{Buffer, Buffers, Places};
use super::stage::Place;
use crate::executor::Watch;
use crate::norm_merge::NormMerge;
use crate::profile::Clock;

/// What does not change from one batch size to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Instruction set of all kernels.
    pub isa: Isa,
    /// Format of the factors of convolutions.
    pub dtype: Dtype,
    /// Format of maps and of their gradients in memory.
    pub map_dtype: Dtype,
    /// Whether 3x3 convolutions may use Winograd's algorithm.
    pub winograd: bool,
    /// Epsilon of batch norm, where the network has it.
    pub epsilon: f64,
}

impl Settings {
    /// Values of the arena that `batch` images of `map` take.
    pub(super) fn map_len(&self, map: &Map, batch: usize) -> usize {
        region_len(self.map_dtype, map.buffer(batch))
    }
}

/// Brings images into the layout of the convolution that reads them.
pub(super) fn pack_images<E: Element>(conv: &Conv, team: &Team, images: Images<'_>, x: &mut [E]) {
    match images {
        Images::Levels { levels, normaliser } => {
            conv.pack_pixels(team, levels, normaliser.values(), x);
        }
        Images::Values(values) => conv.pack_image(team, values, x),
    }
}

/// Where the maps' activations and their gradients lie, and all other buffers.
pub(super) struct Slots {
    /// Places of all buffers.
    pub places: Places,
    pub values: Vec<Buffer>,
    pub gradients: Vec<Buffer>,
}

impl Slots {
    /// The buffer of the map that `place` is part of.
    pub(super) fn value(&self, place: &Place) -> Buffer {
        self.values[place.id]
    }

    /// The buffer of that map's gradient.
    pub(super) fn gradient(&self, place: &Place) -> Buffer {
        self.gradients[place.id]
    }
}

/// What the stages of a running step share.
pub(super) struct Context<'a> {
    pub team: &'a Team,
    pub settings: &'a Settings,
    pub batch: usize,
    /// Weight of the batch in the running statistics.
    pub bn_momentum: f64,
    pub slots: &'a Slots,
    pub arena: &'a mut [f32],
    pub partial: &'a mut [f64],
    pub clock: Clock<'a>,
    pub watch: Option<Watch<'a>>,
    /// Batch norm with the statistics of all ranks.
    pub merge: Option<NormMerge<'a>>,
}

impl<'a> Context<'a> {
    /// The slices of `buffers`.
    pub(super) fn get<const N: usize>(&mut self, buffers: [Buffer; N]) -> [&mut [f32]; N] {
        self.slots.places.get(self.arena, buffers)
    }

    /// The slices of `buffers` that hold maps.
    pub(super) fn maps<E: Element, const N: usize>(
        &mut self,
        buffers: [Buffer; N],
    ) -> [&mut [E]; N] {
        self.get(buffers).map(E::of_region_mut)
    }
}

/// Collects the buffers of a plan, and the moments of their use.
pub(super) struct Planner<'a> {
    pub team: &'a Team,
    pub settings: Settings,
    pub batch: usize,
    pub buffers: Buffers,
    /// Stages of the network.
    pub n: usize,
    pub values: Vec<Buffer>,
    pub gradients: Vec<Buffer>,
    /// Packed filters and scratch, which the convolutions use one after the other.
    pub packed: Buffer,
    pub workspace: Buffer,
    /// Whether each map's gradient has been written by a reader that runs backward earlier.
    pub written: Vec<bool>,
    /// The map that frozen layers made, which gets no gradient.
    pub frozen: Option<usize>,
}

impl Planner<'_> {
    /// Moment at which stage `row` runs backward.
    pub(super) fn backward_moment(&self, row: usize) -> usize {
        2 * self.n - row
    }

    /// Notes a use of the activation of `place`.
    pub(super) fn touch_value(&mut self, place: &Place, moment: usize) {
        self.buffers.touch(self.values[place.id], moment);
    }

    /// Notes a use of the gradient of `place`.
    pub(super) fn touch_gradient(&mut self, place: &Place, moment: usize) {
        self.buffers.touch(self.gradients[place.id], moment);
    }

    /// Notes the uses of a stage whose gradient needs no activation. Gives as [`Planner::accumulate`].
    pub(super) fn linear(&mut self, input: &Place, output: &Place, row: usize) -> Option<bool> {
        let back = self.backward_moment(row);
        self.touch_value(input, row);
        self.touch_value(output, row);
        self.touch_gradient(output, back);
        self.accumulate(input, back)
    }

    /// Notes that the whole gradient of the map of `place` is written at `moment`, and says whether
    /// it must be added to what is there; `None` if the map gets no gradient. Stages ask in the order in
    /// which they run backward.
    pub(super) fn accumulate(&mut self, place: &Place, moment: usize) -> Option<bool> {
        if self.frozen == Some(place.id) {
            return None;
        }
        self.touch_gradient(place, moment);
        Some(std::mem::replace(&mut self.written[place.id], true))
    }
}

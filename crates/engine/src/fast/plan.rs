//! The settings from which plans are made, and what the stages of a running plan share.

use bninception_kernels::conv::Conv;
use bninception_kernels::dtype::Dtype;
use bninception_kernels::element::{Element, region_len};
use bninception_kernels::map::Map;
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;
use bninception_model::batch::Images;

use crate::executor::Watch;
use crate::lowering::memory::Buffer;
use crate::lowering::schedule::{Schedule, Slots};
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
    pub schedule: Schedule,
    /// Packed filters and scratch, which the convolutions use one after the other.
    pub packed: Buffer,
    pub workspace: Buffer,
}

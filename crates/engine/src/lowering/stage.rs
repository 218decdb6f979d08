//! Stages of the fast engine: one piece of arithmetic over shared maps each, and where the maps lie.

use std::ops::Range;

use bninception_kernels::activation::Activation;
use bninception_kernels::conv::ConvShape;
use bninception_kernels::dtype::Dtype;
use bninception_kernels::element::Element;
use bninception_kernels::lrn::Lrn;
use bninception_kernels::map::{Map, View};
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::pool::MaxPool;
use bninception_kernels::window_average::WindowAverage;

use crate::profile::Row;

/// Most convolutions of one stage: the three 1x1 ones of an Inception module.
pub(crate) const MAX_MEMBERS: usize = 3;

/// A layer's output: channel blocks of one of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index into [`Lowered::maps`](super::lower::Lowered::maps).
    pub id: usize,
    /// Sizes of the layer's own output.
    pub map: Map,
    /// Its blocks within the map.
    pub view: View,
}

impl Place {
    /// The output of `batch` images in the buffer of its map, to read.
    pub(crate) fn of<'a, E: Element>(&self, buffer: &'a [E], batch: usize) -> Planes<'a, E> {
        Planes::new(buffer, &self.map, self.view, batch)
    }

    /// As [`Place::of`], to write.
    pub(crate) fn of_mut<'a, E: Element>(
        &self,
        buffer: &'a mut [E],
        batch: usize,
    ) -> PlanesMut<'a, E> {
        PlanesMut::new(buffer, &self.map, self.view, batch)
    }
}

/// One piece of arithmetic on maps.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Convolutions of one input.
    Conv(ConvStage),
    /// 3x3 maximum pool.
    MaxPool { name: String, pool: MaxPool, input: Place, output: Place },
    /// 3x3 average pool with stride 1.
    AveragePool { name: String, input: Place, output: Place },
    /// Average pool of an auxiliary head.
    WindowAverage { name: String, pool: WindowAverage, input: Place, output: Place },
    /// Turns a map into one of 1x1, for a fully connected layer.
    Flatten { name: String, input: Place, output: Place },
    /// Normalisation across channels.
    Lrn { name: String, lrn: Lrn, input: Place, output: Place },
}

/// Convolutions of one input, run as one convolution. A fully connected layer inside the network is a
/// 1x1 convolution.
#[derive(Clone, Debug)]
pub(crate) struct ConvStage {
    /// Whether the tensors lie in the store of [`Padded`](super::padded::Padded) and not in the caller's vectors.
    pub stored: bool,
    /// Sizes of all members together; the batch is 0 until a plan is made.
    pub shape: ConvShape,
    /// `None` for the image.
    pub input: Option<Place>,
    /// The convolutions, first output channels first.
    pub members: Vec<Member>,
}

impl ConvStage {
    /// Whether batch norm follows the convolutions.
    pub(crate) fn has_norm(&self) -> bool {
        self.members.iter().all(|member| member.norm.is_some())
    }

    /// The name that stands for all members in messages about batch norm.
    pub(crate) fn norm_name(&self) -> &str {
        self.members.first().map_or("", |member| &member.name)
    }
}

/// One convolution with what follows it. Ranges are places in the flat vectors of
/// [`bninception_model::Weights`].
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Index of the convolution's layer.
    pub layer: usize,
    /// The convolution's name.
    pub name: String,
    /// Filters.
    pub weight: Range<usize>,
    /// Bias.
    pub bias: Option<Range<usize>>,
    /// Batch norm.
    pub norm: Option<Norm>,
    /// The nonlinearity.
    pub activation: Activation,
    /// Output of the nonlinearity.
    pub output: Place,
}

/// Batch norm after a convolution.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    /// Scale.
    pub gamma: Range<usize>,
    /// Shift.
    pub beta: Range<usize>,
    /// Running mean.
    pub mean: Range<usize>,
    /// Running variance.
    pub variance: Range<usize>,
}

/// Global average pool, dropout, fully connected layer and loss. Auxiliary heads have maps of 1x1,
/// which the pool leaves unchanged.
#[derive(Clone, Debug)]
pub(crate) struct HeadStage {
    /// The name that profiles show.
    pub name: String,
    /// Weight of the loss.
    pub loss_weight: f64,
    /// What is averaged.
    pub input: Place,
    /// Index of the dropout layer and its probability.
    pub dropout: Option<(usize, f64)>,
    /// Matrix.
    pub weight: Range<usize>,
    /// Bias.
    pub bias: Range<usize>,
    /// Outputs.
    pub classes: usize,
}

impl HeadStage {
    /// Inputs of the fully connected layer.
    pub(crate) fn features(&self) -> usize {
        self.input.map.channels
    }

    /// Its row in a profile, with a map of the format `map_dtype` and no time yet.
    pub(crate) fn row(&self, map_dtype: Dtype) -> Row {
        let map = &self.input.map;
        Row {
            name: self.name.clone(),
            macs: self.features() * self.classes,
            bytes: map.channels * map.height * map.width * map_dtype.size()
                + self.classes * size_of::<f32>(),
            seconds: Default::default(),
        }
    }
}

impl Stage {
    /// The places that it reads and writes, without the images.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        let (input, outputs, members) = match self {
            Stage::Conv(stage) => (stage.input.as_ref(), None, &stage.members[..]),
            Stage::MaxPool { input, output, .. }
            | Stage::AveragePool { input, output, .. }
            | Stage::WindowAverage { input, output, .. }
            | Stage::Flatten { input, output, .. }
            | Stage::Lrn { input, output, .. } => (Some(input), Some(output), &[][..]),
        };
        input.into_iter().chain(outputs).chain(members.iter().map(|member| &member.output))
    }

    /// Its row in a profile, with maps of the format `map_dtype` and no time yet.
    pub(crate) fn row(&self, map_dtype: Dtype) -> Row {
        let values = |place: &Place| place.map.channels * place.map.height * place.map.width;
        let mut values: usize = self.places().map(values).sum();
        let (name, macs) = match self {
            Stage::Conv(stage) => {
                let s = ConvShape { batch: 1, ..stage.shape };
                if stage.input.is_none() {
                    values += s.in_channels * s.in_height * s.in_width;
                }
                let names: Vec<&str> = stage.members.iter().map(|m| m.name.as_str()).collect();
                (names.join(" + "), s.macs())
            }
            Stage::MaxPool { name, .. }
            | Stage::AveragePool { name, .. }
            | Stage::WindowAverage { name, .. }
            | Stage::Flatten { name, .. }
            | Stage::Lrn { name, .. } => (name.clone(), 0),
        };
        Row { name, macs, bytes: values * map_dtype.size(), seconds: Default::default() }
    }
}

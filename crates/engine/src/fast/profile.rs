//! Where the time goes: seconds per stage and phase.

use std::time::Instant;

use bninception_kernels::conv::ConvShape;
use bninception_kernels::dtype::Dtype;

use super::lower::{Head, Place, Stage};

/// A kind of work within a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Weights and images brought into the layout of the kernels.
    Pack,
    /// Convolution, or the fully connected layer and the loss.
    Forward,
    /// Batch norm and nonlinearity, or a pool or normalisation across channels.
    Pointwise,
    /// Gradient of [`Phase::Pointwise`].
    PointwiseBackward,
    /// Gradient of a convolution's input, or of the head.
    InputGradient,
    /// Gradient of the weights.
    WeightGradient,
}

impl Phase {
    /// All phases, in the order of [`Row::seconds`].
    pub const ALL: [Phase; 6] = [
        Phase::Pack,
        Phase::Forward,
        Phase::Pointwise,
        Phase::PointwiseBackward,
        Phase::InputGradient,
        Phase::WeightGradient,
    ];

    /// The name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Pack => "pack",
            Phase::Forward => "forward",
            Phase::Pointwise => "pointwise",
            Phase::PointwiseBackward => "pointwise backward",
            Phase::InputGradient => "input gradient",
            Phase::WeightGradient => "weight gradient",
        }
    }
}

/// Time spent since the engine was made or the profile was reset.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// One row per stage, in the order of the forward pass.
    pub rows: Vec<Row>,
}

/// Time of one stage.
#[derive(Clone, Debug)]
pub struct Row {
    /// The layers of the stage.
    pub name: String,
    /// Multiply-accumulates of one image in one direction; 0 for stages without weights.
    pub macs: usize,
    /// Bytes of one image's values that the stage reads and writes in the forward pass, each counted
    /// once: the maps without their halos. Outputs before batch norm come on top.
    pub bytes: usize,
    /// Seconds in each of [`Phase::ALL`].
    pub seconds: [f64; Phase::ALL.len()],
}

impl Row {
    /// The row of a stage whose maps have the format `map_dtype`, with no time yet.
    pub(super) fn of_stage(stage: &Stage, map_dtype: Dtype) -> Row {
        let values = |place: &Place| place.map.channels * place.map.height * place.map.width;
        let mut values: usize = stage.places().map(values).sum();
        let (name, macs) = match stage {
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

    /// The row of a head that reads a map of the format `map_dtype`, with no time yet.
    pub(super) fn of_head(head: &Head, map_dtype: Dtype) -> Row {
        let map = &head.input.map;
        Row {
            name: head.name.clone(),
            macs: head.features() * head.classes,
            bytes: map.channels * map.height * map.width * map_dtype.size()
                + head.classes * size_of::<f32>(),
            seconds: Default::default(),
        }
    }
}

impl Profile {
    /// Sets all times to zero.
    pub fn reset(&mut self) {
        for row in &mut self.rows {
            row.seconds = Default::default();
        }
    }
}

/// Adds the time between calls to the rows of a profile.
pub(super) struct Clock<'a> {
    profile: &'a mut Profile,
    last: Instant,
}

impl<'a> Clock<'a> {
    pub(super) fn start(profile: &'a mut Profile) -> Clock<'a> {
        Clock { profile, last: Instant::now() }
    }

    /// Gives the time since the last call to `phase` of stage `row`.
    pub(super) fn lap(&mut self, row: usize, phase: Phase) {
        let now = Instant::now();
        self.profile.rows[row].seconds[phase as usize] += (now - self.last).as_secs_f64();
        self.last = now;
    }
}

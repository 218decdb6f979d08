//! Where the time goes: seconds per stage and phase.

use std::time::Instant;

/// A kind of work within a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Copying weights and images into the layout of the kernels.
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
    /// once: the maps without their halos. Outputs before batch norm are not counted.
    pub bytes: usize,
    /// Seconds in each of [`Phase::ALL`].
    pub seconds: [f64; Phase::ALL.len()],
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
pub(crate) struct Clock<'a> {
    profile: &'a mut Profile,
    last: Instant,
}

impl<'a> Clock<'a> {
    pub(crate) fn start(profile: &'a mut Profile) -> Clock<'a> {
        Clock { profile, last: Instant::now() }
    }

    /// Adds the time since the last call to `phase` of stage `row`.
    pub(crate) fn lap(&mut self, row: usize, phase: Phase) {
        let now = Instant::now();
        self.profile.rows[row].seconds[phase as usize] += (now - self.last).as_secs_f64();
        self.last = now;
    }
}

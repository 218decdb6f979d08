//! The one trait behind which networks run.

use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;
use bninception_model::{Network, ParameterTable, Weights};

use crate::error::EngineError;
use crate::profile::Profile;
use crate::sgd::{SgdStep, sgd_step_on};

/// One mini-batch of training.
#[derive(Clone, Copy, Debug)]
pub struct TrainBatch<'a> {
    /// Normalised images, `[n][3][height][width]`.
    pub images: &'a [f32],
    /// Class of each image.
    pub labels: &'a [u32],
    /// Share of the target that is spread evenly over all classes (0 for none).
    pub label_smoothing: f64,
    /// Seed of the run, from which dropout is drawn.
    pub seed: u64,
    /// Number of the step, from which dropout is drawn.
    pub step: u64,
}

/// The layers that a step of training shows, and who sees them.
pub struct Watch<'a> {
    /// Indices of convolutions and fully connected layers with a nonlinearity behind them.
    pub layers: &'a [usize],
    /// Called once for each layer, with its index and what enters its nonlinearity for the whole
    /// batch, `[n][channels][rows][columns]`: the output of batch norm where there is one.
    pub see: &'a mut (dyn FnMut(usize, Vec<f32>) + 'a),
}

/// Runs a network.
///
/// An executor owns no weights: they come in as plain vectors and gradients go out the same way, in
/// the layout of [`bninception_model::ParameterTable`]. State that must survive (weights, running
/// statistics, optimizer) therefore lives in one place, the trainer, and any executor continues
/// what another began. What an executor keeps between calls is memory for the next call, and the
/// form of the weights that [`Executor::prepare_evaluation`] made.
pub trait Executor: Send {
    /// The network that it runs.
    fn network(&self) -> &Network;

    /// One line for the log: engine, number type, instruction set, threads.
    fn describe(&self) -> String;

    /// Forward pass with batch statistics, loss, and backward pass.
    ///
    /// Overwrites `gradients` (trainable layout) with the gradient of the weighted sum of the mean
    /// losses of all heads, moves the running statistics in `weights`, leaves the logits
    /// `[n][classes]` in `logits`, and returns their mean loss over the batch, which is that of the
    /// main head alone and compares with validation. If the loss of an auxiliary head is not finite,
    /// that is returned, so that the caller stops before the gradient reaches the weights.
    ///
    /// # Errors
    /// Buffers of the wrong length, labels out of range, a batch whose variance is undefined.
    fn train(
        &mut self,
        batch: &TrainBatch<'_>,
        weights: &mut Weights,
        gradients: &mut [f32],
        logits: &mut Vec<f32>,
    ) -> Result<f64, EngineError>;

    /// The forward pass of [`Executor::train`] alone: moves the running statistics in `weights` and
    /// does nothing else. With a momentum of 1 they are then those of this batch.
    ///
    /// # Errors
    /// As [`Executor::train`].
    fn move_statistics(&mut self, images: &[f32], weights: &mut Weights)
    -> Result<(), EngineError>;

    /// As [`Executor::train`], with the same bits, showing the inputs of nonlinearities on the way.
    /// Takes time and memory for what is watched.
    ///
    /// # Errors
    /// As [`Executor::train`]; an executor that cannot.
    fn train_watched(
        &mut self,
        _batch: &TrainBatch<'_>,
        _weights: &mut Weights,
        _gradients: &mut [f32],
        _logits: &mut Vec<f32>,
        _watch: Watch<'_>,
    ) -> Result<f64, EngineError> {
        Err(EngineError::Unsupported {
            what: "log.watch".to_owned(),
            engine: "chosen",
            hint: "leave log.watch empty, or use --engine fast or reference",
        })
    }

    /// Takes over `weights` for the calls of [`Executor::evaluate`] that follow.
    ///
    /// # Errors
    /// Weights of another layout.
    fn prepare_evaluation(&mut self, weights: &Weights) -> Result<(), EngineError>;

    /// Forward pass with running statistics over any number of images; fills `logits`.
    ///
    /// # Errors
    /// No weights were prepared, or the images have the wrong length.
    fn evaluate(&mut self, images: &[f32], logits: &mut Vec<f32>) -> Result<(), EngineError>;

    /// Where the time of training steps went; `None` if this executor does not know.
    fn training_profile(&mut self) -> Option<&mut Profile> {
        None
    }

    /// Where the time of evaluation went; `None` if this executor does not know.
    fn evaluation_profile(&mut self) -> Option<&mut Profile> {
        None
    }

    /// Bytes that this executor will hold to train on batches of `batch` images and to evaluate in
    /// between, besides the vectors that its callers own; `None` if it cannot say.
    fn memory_bytes(&self, _batch: usize) -> Option<usize> {
        None
    }

    /// The threads that passes over whole vectors of weights may use.
    fn team(&self) -> &Team;

    /// [`sgd_step_on`] this executor's threads; whether all weights are finite afterwards.
    ///
    /// # Panics
    /// If a vector has another length than the table.
    fn sgd_step(
        &self,
        table: &ParameterTable,
        step: &SgdStep,
        gradients: &[f32],
        velocity: &mut [f32],
        weights: &mut [f32],
    ) -> bool {
        sgd_step_on(self.team(), table, step, gradients, velocity, weights)
    }

    /// Moves an average towards `values` on this executor's threads:
    /// `average <- average + share * (value - average)`.
    ///
    /// # Panics
    /// If the vectors differ in length.
    fn move_average(&self, share: f32, values: &[f32], average: &mut [f32]) {
        bninception_kernels::sgd::average(self.team(), Isa::chosen(), share, values, average);
    }
}

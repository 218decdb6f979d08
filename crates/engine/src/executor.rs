//! The one trait behind which networks run. How it is used: `crates/engine/README.md`.

use std::ops::Range;
use std::time::Duration;

use bninception_cuda::device::Noting;
use bninception_cuda::launch::Cost;
use bninception_kernels::loss::Targets;
use bninception_model::batch::Images;
use bninception_model::{Network, Weights};

use crate::error::EngineError;
use crate::exchange::Exchange;
use crate::metrics::Metrics;
use crate::norm_exchange::NormExchange;
use crate::profile::Profile;
use crate::sgd::SgdStep;
use crate::state::ModelState;

/// One micro-batch of training.
#[derive(Clone, Copy, Debug)]
pub struct TrainBatch<'a> {
    /// The images.
    pub images: Images<'a>,
    /// Class of each image.
    pub labels: &'a [u32],
    /// Share of the target that is spread evenly over all classes (0 for none).
    pub label_smoothing: f64,
    /// Factor on the loss of each class's images, one for each class; 1 for all where there is none. The
    /// batch's loss is divided by its number of images, whatever their weights.
    pub class_weights: Option<&'a [f64]>,
    /// Where images were mixed in pairs, the first with the last and so on inwards: the share of each one's own
    /// label in its target. The other's has the rest.
    pub own_share: Option<f64>,
    /// Seed of the run, from which dropout is drawn.
    pub seed: u64,
    /// Number of the micro-batch in the run, from which dropout is drawn.
    pub number: u64,
    /// Weight of the micro-batch in the running statistics that it would leave, above 0 and at most 1:
    /// PyTorch's sense of momentum. The same for all micro-batches of an update.
    pub bn_momentum: f64,
}

impl<'a> TrainBatch<'a> {
    /// What its images should be taken for.
    pub(crate) fn targets(&self, classes: usize) -> Targets<'a> {
        Targets {
            classes,
            labels: self.labels,
            smoothing: self.label_smoothing,
            class_weights: self.class_weights,
            own_share: self.own_share,
        }
    }
}

/// The layers that a step of training shows, and who sees them.
pub struct Watch<'a> {
    /// Indices of convolutions and fully connected layers with a nonlinearity behind them.
    pub layers: &'a [usize],
    /// Called once for each layer, with its index and what enters its nonlinearity for the whole
    /// micro-batch, `[n][channels][rows][columns]`: the output of batch norm where there is one.
    pub see: &'a mut (dyn FnMut(usize, Vec<f32>) + 'a),
}

/// Who takes part while gradients are computed. The first two look on and change no bit of them.
#[derive(Default)]
pub struct Hooks<'a> {
    /// Layers to show, which costs time and memory for what is watched.
    pub watch: Option<Watch<'a>>,
    /// Told of gradients as soon as they are final: give it with the last micro-batch of an update.
    pub exchange: Option<&'a mut dyn Exchange>,
    /// Batch norm with the statistics of this micro-batch on all ranks, instead of its own alone; for all
    /// micro-batches of a run or for none. Frozen layers exchange nothing.
    ///
    /// With equal numbers of images, R ranks make of an update what one process makes of micro-batches R times as
    /// large, but for rounding (and but for dropout, which each micro-batch draws for itself). With different
    /// numbers they do not: the loss of a rank is the mean over its own images, and ranks weigh the same. Then an
    /// image of a rank with fewer images has the larger weight in the gradient. In the statistics all images
    /// weigh the same.
    ///
    /// The time that ranks wait for each other counts as that of batch norm in a [`Profile`].
    pub norm: Option<&'a mut dyn NormExchange>,
}

/// Told that the gradients of a range of the flat vector are computed, with their values.
pub(crate) type Ready<'a> = dyn FnMut(Range<usize>, &[f32]) + 'a;

/// What came out of one micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchResult {
    /// Mean loss of the logits over the micro-batch in nats, which is that of the main head alone and compares
    /// with validation; if the loss of an auxiliary head is not finite, that, so that the caller stops
    /// before the gradient reaches the weights.
    pub loss: f64,
    /// The images, counted.
    pub metrics: Metrics,
}

impl BatchResult {
    /// Counts the images of `batch` by its `logits`, `[n][classes]`.
    pub(crate) fn new(loss: f64, batch: &TrainBatch<'_>, logits: &[f32]) -> BatchResult {
        let mut metrics = Metrics::default();
        let classes = logits.len() / batch.labels.len();
        metrics.add_batch(logits, &batch.targets(classes));
        BatchResult { loss, metrics }
    }
}

/// What came out of all micro-batches of an update, on all ranks.
#[derive(Clone, Copy, Debug)]
pub struct StepResult {
    /// Micro-batches that took part.
    pub micro_batches: u32,
    /// Mean of their losses ([`BatchResult::loss`]), in nats; not a number if none took part.
    pub loss: f64,
    /// All images, counted.
    pub metrics: Metrics,
}

/// How an update changes the state.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The optimizer's constants. What the network has frozen stays as it is, whatever they say.
    pub sgd: SgdStep<'a>,
    /// Largest Euclidean norm of the gradient; a longer one is scaled down to it. 0 for no limit.
    pub clip_norm: f64,
    /// Whether to tell the norm of the gradient, which takes a pass over it.
    pub tell_norm: bool,
    /// Decay of the moving average, where the state has one.
    pub ema_decay: f64,
}

/// What an update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateResult {
    /// Whether all weights and statistics are finite.
    pub is_finite: bool,
    /// Euclidean norm of the gradient over all parameters, before it is clipped and without weight decay,
    /// if it was asked for or needed. Not finite if and only if a gradient is not.
    pub gradient_norm: Option<f64>,
}

/// The weights that an evaluation runs with.
#[derive(Clone, Copy, Debug)]
pub enum EvaluationWeights<'a> {
    /// Those of the state that the executor holds: the moving average where there is one.
    Held,
    /// Those too, with these statistics in place of their running ones.
    HeldWith(&'a [f32]),
    /// These.
    Given(&'a Weights),
}

/// What the last layer read in an evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// The mean of each channel over all positions, `[n][channels]`.
    pub pooled: Vec<f32>,
    /// The maps that these are means of, `[n][channels][rows][columns]`, where they are wanted.
    pub maps: Option<Vec<f32>>,
}

impl Features {
    /// Empties what there is.
    pub(crate) fn clear(&mut self) {
        self.pooled.clear();
        self.maps.iter_mut().for_each(Vec::clear);
    }
}

/// What became of an update that was started ([`Pipeline`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The state is that behind it.
    Done,
    /// A loss or a gradient was not finite: the state is that in front of it.
    Refused,
    /// A weight or a statistic is not finite behind it.
    Broken,
    /// One before it was refused or broken, so it changed nothing, and its numbers mean nothing.
    Skipped,
}

/// An update that was started and is over.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// What its micro-batch gave.
    pub step: StepResult,
    /// What it did.
    pub update: UpdateResult,
    /// Whether it did.
    pub fate: Fate,
}

/// An executor that computes while its caller goes on: updates of one micro-batch each, on one rank, whose
/// results come later. Gradients and logits that are stored while one is under way may be those of any of them.
/// Behind one that is refused or broken nothing changes any more until
/// [`Executor::gradients`] or [`Executor::load`] is called; the batch of one that was refused gives the same numbers
/// again there.
pub trait Pipeline {
    /// Starts an update as [`Executor::gradients`], [`Executor::exchange`] and [`Executor::update`] make it.
    /// Waits only where too many are under way.
    ///
    /// # Errors
    /// As theirs; device that fails.
    fn start(&mut self, batch: &TrainBatch<'_>, update: &Update<'_>) -> Result<(), EngineError>;

    /// Those that are over and were not told yet, the oldest first. With `wait`, all that were started.
    ///
    /// # Errors
    /// Device that fails.
    fn finished(&mut self, wait: bool) -> Result<Vec<Finished>, EngineError>;

    /// Seconds in which the device had nothing to do since the last call, as far as is known.
    fn idle_seconds(&mut self) -> f64;
}

/// A kernel or convolution that a device started.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// The layers of its stage.
    pub stage: String,
    /// The kernel, or `convolution` with its direction.
    pub kernel: String,
    /// What it moves and computes.
    pub cost: Cost,
    /// How long it took, if that was to be noted.
    pub time: Option<Duration>,
}

/// Memory of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceMemory {
    /// The device's name.
    pub device: String,
    /// Bytes that a run needs: state, gradients, and what training and evaluation take.
    pub needed: usize,
    /// Bytes that the run has taken already.
    pub taken: usize,
    /// Bytes that are free, those that the run has taken already included.
    pub free: usize,
    /// Bytes that the device has.
    pub total: usize,
}

/// Runs a network, and holds the state of a run where it computes.
///
/// Vectors that go in and out have the layout of [`bninception_model::ParameterTable`]; any executor
/// goes on with what another has stored.
pub trait Executor: Send {
    /// The network that it runs.
    fn network(&self) -> &Network;

    /// One line for the log: engine, number type, instruction set, threads.
    fn describe(&self) -> String;

    /// Takes over the state of a run. What was held before is gone, an update under way too.
    ///
    /// # Errors
    /// Vectors of another layout.
    fn load(&mut self, state: ModelState) -> Result<(), EngineError>;

    /// Copies the state behind the last update to `to`, in the memory that it has.
    ///
    /// # Errors
    /// Nothing was loaded.
    fn store(&mut self, to: &mut ModelState) -> Result<(), EngineError>;

    /// Forward pass with batch statistics, loss, and backward pass of one micro-batch: adds the gradient
    /// of the weighted sum of the mean losses of all heads to that of the update under way, and the
    /// running statistics that it would leave to theirs. The state does not change. What the network has
    /// frozen ([`Network::frozen`]) runs as in evaluation, and its gradients are 0.
    ///
    /// With [`Hooks::norm`], a micro-batch may have a single image on maps of one pixel: its variance is defined
    /// if all ranks together have two values.
    ///
    /// # Errors
    /// Nothing was loaded, buffers of the wrong length, labels out of range, a batch whose variance is
    /// undefined, or batch norm cannot be exchanged. An update under way is then given up.
    fn gradients(
        &mut self,
        batch: &TrainBatch<'_>,
        hooks: Hooks<'_>,
    ) -> Result<BatchResult, EngineError>;

    /// Takes part in all exchanges of batch norm of one micro-batch, forward and backward, without an image: for a
    /// rank whose micro-batch was left out, while the others call [`Executor::gradients`] with [`Hooks::norm`].
    /// The statistics are then those of the others alone. Nothing is added to the update under way, and nothing
    /// has to be loaded.
    ///
    /// # Errors
    /// As the others' for batch norm: it cannot be exchanged, or its variance is undefined.
    fn join_norm(&mut self, norm: &mut dyn NormExchange) -> Result<(), EngineError>;

    /// Sums the update under way over ranks, and says what came out of all its micro-batches.
    ///
    /// # Errors
    /// Nothing was loaded, or the exchange fails.
    fn exchange(&mut self, exchange: &mut dyn Exchange) -> Result<StepResult, EngineError>;

    /// Ends the update under way: divides gradients and statistics by the number of micro-batches, clips
    /// the gradient, moves weights, momentum and running statistics, and then the moving average. If not
    /// all weights and statistics are finite, the moving average stays as it was.
    ///
    /// # Errors
    /// No micro-batch took part.
    fn update(&mut self, update: &Update<'_>) -> Result<UpdateResult, EngineError>;

    /// Copies the gradients of the last update, or of that under way, to `to`; they are not clipped.
    ///
    /// # Errors
    /// Nothing was loaded.
    fn store_gradients(&mut self, to: &mut Vec<f32>) -> Result<(), EngineError>;

    /// Copies the logits of the last micro-batch of training, `[n][classes]`, to `to`.
    ///
    /// # Errors
    /// Nothing was loaded.
    fn store_logits(&mut self, to: &mut Vec<f32>) -> Result<(), EngineError>;

    /// The forward pass of [`Executor::gradients`] alone, with the weights that evaluation was prepared
    /// for: fills `to` with the mean and the unbiased variance of this batch for every batch norm, in the
    /// layout of running statistics. Neither the state nor an update under way changes.
    ///
    /// # Errors
    /// No weights were prepared, or as [`Executor::gradients`].
    fn batch_statistics(
        &mut self,
        images: Images<'_>,
        to: &mut Vec<f32>,
    ) -> Result<(), EngineError>;

    /// Chooses the weights for the calls of [`Executor::evaluate`] and [`Executor::batch_statistics`] that
    /// follow, until the next [`Executor::load`] or [`Executor::update`] where they are those held.
    ///
    /// # Errors
    /// Weights or statistics of another layout, or none are held.
    fn prepare_evaluation(&mut self, weights: EvaluationWeights<'_>) -> Result<(), EngineError>;

    /// Forward pass with running statistics over any number of images; fills `logits`.
    ///
    /// # Errors
    /// No weights were prepared, or the images have the wrong length.
    fn evaluate(&mut self, images: Images<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError>;

    /// As [`Executor::evaluate`]; fills `features` with what the last layer read.
    ///
    /// # Errors
    /// As there.
    fn evaluate_features(
        &mut self,
        images: Images<'_>,
        logits: &mut Vec<f32>,
        features: &mut Features,
    ) -> Result<(), EngineError>;

    /// Where the time of training steps went; `None` if this executor does not know.
    fn training_profile(&mut self) -> Option<&mut Profile> {
        None
    }

    /// Where the time of evaluation went; `None` if this executor does not know.
    fn evaluation_profile(&mut self) -> Option<&mut Profile> {
        None
    }

    /// What a device started since the last call, stage by stage; and what it notes from now on. While it notes,
    /// nothing is captured. Empty for executors without a device.
    fn trace(&mut self, _noting: Noting) -> Vec<Traced> {
        Vec::new()
    }

    /// The same executor, if it computes while its caller goes on.
    fn pipeline(&mut self) -> Option<&mut dyn Pipeline> {
        None
    }

    /// Memory of its device for micro-batches of `batch` images in training and evaluation; `None` if it computes in
    /// the memory of the host.
    ///
    /// # Errors
    /// Device that fails.
    fn device_memory(&mut self, _batch: usize) -> Result<Option<DeviceMemory>, EngineError> {
        Ok(None)
    }

    /// Bytes of the host that this executor will take to train on micro-batches of `batch` images and to evaluate in
    /// between, besides the state that it holds and the gradients; `None` if it cannot say.
    fn memory_bytes(&self, _batch: usize) -> Option<usize> {
        None
    }
}

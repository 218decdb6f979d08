//! All settings of a run: the sections of a config, field by field.
//!
//! A field's doc comment gives its unit; `configs/base.toml` gives its value, where that value
//! comes from and, where the paper leaves it open, the reason for our reading.

use bninception_data::{AugmentConfig, Balance, Shuffle};
use bninception_engine::model::AuxOptions;
use serde::{Deserialize, Serialize};

use super::class_weights::ClassWeights;
use super::device_choice::DeviceChoice;
use super::error::ConfigError;

/// All settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Options of the network.
    pub network: NetworkConfig,
    /// Where images come from, their order and their preparation.
    pub data: DataConfig,
    /// Random changes to training images.
    pub augment: AugmentConfig,
    /// Stochastic gradient descent.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time.
    pub schedule: ScheduleConfig,
    /// Length, batches and precision of training.
    pub train: TrainConfig,
    /// When and where checkpoints are written.
    pub checkpoint: CheckpointConfig,
    /// What is written down while training.
    pub log: LogConfig,
    /// What runs the network.
    pub engine: EngineConfig,
}

impl Config {
    /// Every setting as TOML, which [`resolve`](super::resolve()) loads back equal as a file.
    ///
    /// # Errors
    /// An integer above 2^63 - 1, which no resolved config holds.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string(self)?)
    }
}

/// Options of the network: `[network]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Which network. A run that was begun before the key existed has BN-Inception.
    #[serde(default)]
    pub kind: NetworkKind,
    /// Outputs of the last layer; 0 takes the number of classes of the data.
    pub classes: usize,
    /// Nonlinearity behind every convolution.
    pub activation: Activation,
    /// Batch normalisation in front of every nonlinearity.
    pub batch_norm: bool,
    /// Added to the variance in batch normalisation.
    pub bn_epsilon: f64,
    /// Weight of the newest batch in the running statistics, PyTorch's sense of momentum;
    /// TensorFlow and Caffe name 1 minus this.
    pub bn_momentum: f64,
    /// Whether batch norm takes its statistics over the batches of all processes.
    #[serde(default)]
    pub sync_bn: bool,
    /// Local response normalisation behind pool1 and behind conv2.
    pub lrn: bool,
    /// Probability with which dropout zeroes an input of the last layer; 0 leaves it out.
    pub dropout: f64,
    /// Whether convolutions add a bias.
    pub conv_bias: bool,
    /// Output channels of the pool projection of modules 4c and 4d: 96 or 128; BN-Inception only.
    pub pool_proj_4c4d: usize,
    /// Auxiliary heads on the outputs of 4a and 4d, in training only.
    #[serde(default)]
    pub aux: bool,
    /// Weight of each auxiliary loss beside the main one.
    #[serde(default = "default_aux_weight")]
    pub aux_weight: f64,
    /// Probability of dropout in front of an auxiliary classifier; 0 leaves it out.
    #[serde(default = "default_aux_dropout")]
    pub aux_dropout: f64,
    /// Factor on the standard deviation of convolutions' initial filters.
    #[serde(default = "one")]
    pub init_gain: f64,
}

impl NetworkConfig {
    /// Fewest images of a batch that the network can be trained on: batch norm needs two, because the
    /// variance of one value is zero.
    pub fn fewest_images(&self) -> usize {
        if self.batch_norm { 2 } else { 1 }
    }
}

// A run that was begun before these keys existed has no auxiliary heads and a gain of 1; the values
// of the heads are those that it would have had.
fn default_aux_weight() -> f64 {
    AuxOptions::default().weight
}

fn default_aux_dropout() -> f64 {
    AuxOptions::default().dropout
}

/// Which network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// Inception-v2 of the paper's figure 5.
    #[default]
    BnInception,
    /// Inception-v1.
    #[serde(rename = "googlenet")]
    GoogLeNet,
}

/// Nonlinearity of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(0, x)
    Relu,
    /// 1 / (1 + exp(-x))
    Sigmoid,
}

/// Where images come from, their order and their preparation: `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder with `train/CLASS/*` and `val/CLASS/*`, or with `CLASS/*`; empty takes the pictures
    /// that the program draws itself.
    pub dir: String,
    /// Folder of classes to validate on; empty looks for one inside `dir`.
    pub val_dir: String,
    /// Fraction of every class that is set aside for validation when there is no such folder.
    pub val_fraction: f64,
    /// Rows and columns of the network's input, in pixels.
    pub image_size: usize,
    /// Evaluation resizes the short side to `image_size / crop_ratio`, then cuts out the centre.
    pub crop_ratio: f64,
    /// Subtracted from red, green and blue, in units of the full range 0 to 1.
    pub mean: [f64; 3],
    /// Divides red, green and blue after the mean is subtracted, in the same units.
    pub std: [f64; 3],
    /// Whether pictures are turned upright by their EXIF orientation.
    pub exif: bool,
    /// Threads that decode and augment; 0 takes the number of cores. Never changes a result.
    pub workers: usize,
    /// Batches that each worker prepares ahead of the network. Never changes a result.
    pub prefetch: usize,
    /// Whether the listings of the folders of a large data set are kept in the user's cache folder.
    /// Never changes a result.
    pub cache_listings: bool,
    /// How the order of the training images changes from epoch to epoch.
    pub shuffle: Shuffle,
    /// Images in a shard, the unit of `shuffle = "shards"` and `"within-shards"`.
    pub shard_size: usize,
    /// How often the images of each class come in an epoch.
    #[serde(default)]
    pub balance: Balance,
    /// Whether a run looks at the header of every image before its first step, and does not
    /// begin if one cannot be read.
    pub check_headers: bool,
    /// Unreadable training images that a run puts up with, but no more than one in a hundred; it
    /// stops, saved, at the next one.
    pub max_bad: usize,
    /// Largest picture that is decoded, in pixels.
    pub max_pixels: u64,
    /// Largest image file that is read, in bytes. A run that was begun before the key existed has the
    /// limit of that time, which is the default.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u64,
    /// Whether a JPEG is decoded at a half, a quarter or an eighth of its sides in training where the
    /// crop keeps enough pixels. A run that was begun before the key existed goes on without.
    #[serde(default)]
    pub scaled_decoding: bool,
}

fn default_max_bytes() -> u64 {
    bninception_data::DecodeOptions::default().max_bytes
}

/// Stochastic gradient descent: `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Learning rate at the start, before the schedule's factor.
    pub lr: f64,
    /// Weight of the past update in the next one.
    pub momentum: f64,
    /// The gradient of `weight_decay / 2 * |w|^2` is added to that of the loss.
    pub weight_decay: f64,
    /// Nesterov's momentum in place of the classical one.
    pub nesterov: bool,
    /// Largest Euclidean norm of the gradient, to which a longer one is scaled down; 0 for no limit.
    #[serde(default)]
    pub clip_norm: f64,
    /// Factor on the learning rate of classifiers.
    #[serde(default = "one")]
    pub head_lr_factor: f64,
    /// Factor on the learning rate from each part of the network to the one in front of it.
    #[serde(default = "one")]
    pub layer_decay: f64,
}

/// Of a run that was begun before a factor existed.
fn one() -> f64 {
    1.0
}

/// The learning rate over time: `[schedule]`; [`crate::training::schedule`] has the formulas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Shape of the curve.
    pub kind: ScheduleKind,
    /// Factor by which `exponential` lowers the learning rate.
    pub decay: f64,
    /// Epochs in which `exponential` applies that factor once; may be fractional.
    pub decay_epochs: f64,
    /// Whether `exponential` falls in steps, once in `decay_epochs`, and not a little every step.
    pub staircase: bool,
    /// Epochs of linear rise to `optimizer.lr`; may be fractional. 0 where `warmup_fraction` says how long.
    pub warmup_epochs: f64,
    /// The same as a fraction of the run; 0 where `warmup_epochs` says how long.
    #[serde(default)]
    pub warmup_fraction: f64,
    /// The learning rate does not fall below this.
    pub min_lr: f64,
    /// What the number of processes makes of `optimizer.lr`.
    #[serde(default)]
    pub scale_lr: ScaleLr,
}

/// What the number of processes makes of the learning rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleLr {
    /// Nothing.
    #[default]
    None,
    /// As many times the rate, behind a gradual warm-up.
    Linear,
}

impl ScheduleConfig {
    /// Whether the learning rate of an update depends on the length of the run.
    pub fn follows_length(&self) -> bool {
        self.kind == ScheduleKind::Cosine || self.warmup_fraction > 0.0
    }
}

/// Shape of the learning-rate curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// lr * decay^(epoch / decay_epochs)
    Exponential,
    /// Half a cosine from `optimizer.lr` at the end of the warm-up to `min_lr` at the last step.
    Cosine,
    /// `optimizer.lr` throughout.
    Constant,
}

/// Length, batches and precision of training: `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training images; 0 where `steps` says how long.
    pub epochs: u64,
    /// Updates of the parameters; 0 where `epochs` says how long.
    pub steps: u64,
    /// Images in a micro-batch, of which `accumulate` make an update.
    pub batch_size: usize,
    /// Micro-batches in an update.
    #[serde(default = "default_accumulate")]
    pub accumulate: usize,
    /// Processes that train together, each on `accumulate` micro-batches of an update.
    #[serde(default = "default_ranks")]
    pub ranks: usize,
    /// How their gradients are added.
    #[serde(default)]
    pub reduce: Reduce,
    /// Images in a batch of evaluation; 0 takes `batch_size`.
    pub val_batch_size: usize,
    /// Statistics of batch norm for the evaluations of a run. A run that was begun before the key
    /// existed goes on with the moving ones.
    #[serde(default)]
    pub eval_statistics: EvalStatistics,
    /// Checkpoint, or folder of a run, whose weights the run begins with; empty draws them.
    #[serde(default)]
    pub init_from: String,
    /// Parts of the network that stay as they are, such as `stem..inception_4e`; empty for none.
    #[serde(default)]
    pub freeze: String,
    /// Every random choice follows from this number.
    pub seed: u64,
    /// Number format of activations and of convolutions' inputs; parameters stay in f32.
    pub dtype: Dtype,
    /// Threads of the engine; 0 takes the number of cores.
    pub threads: usize,
    /// Decay per step of the moving average of the parameters; 0 keeps none, or leaves it to `ema_epochs`.
    pub ema: f64,
    /// Epochs over which that average reaches; 0 keeps none, or leaves it to `ema`.
    #[serde(default)]
    pub ema_epochs: f64,
    /// Probability that the loss spreads evenly over all classes, taken from the true one.
    pub label_smoothing: f64,
    /// What follows a loss that is not finite.
    pub on_divergence: OnDivergence,
    /// Epochs without a better evaluation after which a run ends; 0 to train to the end.
    #[serde(default)]
    pub patience: u64,
    /// How much the images of each class weigh in the training loss. The last of the section, because
    /// TOML writes tables behind values.
    #[serde(default)]
    pub class_weights: ClassWeights,
}

/// Of checkpoints that know no accumulation.
fn default_accumulate() -> usize {
    1
}

/// Of checkpoints that know no ranks.
fn default_ranks() -> usize {
    1
}

impl TrainConfig {
    /// Micro-batches in an update, of all processes.
    pub fn micro_batches_per_update(&self) -> usize {
        self.ranks * self.accumulate
    }

    /// Images in an update, of all processes.
    pub fn images_per_update(&self) -> usize {
        self.batch_size * self.micro_batches_per_update()
    }

    /// Whether a moving average of the parameters is kept.
    pub fn keeps_average(&self) -> bool {
        self.ema > 0.0 || self.ema_epochs > 0.0
    }

    /// Decay per step of that average in epochs of `steps_per_epoch`: `ema`, or 1 - 1 / n for an average
    /// over the n steps of `ema_epochs`, of which the newest then has the weight 1 / n.
    pub fn average_decay(&self, steps_per_epoch: u64) -> f64 {
        match self.ema_epochs > 0.0 {
            true => (1.0 - 1.0 / (self.ema_epochs * steps_per_epoch as f64)).max(0.0),
            false => self.ema,
        }
    }
}

/// Statistics of batch norm for the evaluations of a run; [`crate::evaluation::statistics`] has the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvalStatistics {
    /// The moving averages of training.
    #[default]
    Moving,
    /// Means over some training mini-batches with the weights that are evaluated.
    Population,
    /// Population statistics where epochs are short or the moving ones are shown to lag.
    Auto,
}

/// Number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// The same, but factors of products have 10 bits of significand. On GPUs only.
    Tf32,
    /// The upper 16 bits of single precision.
    Bf16,
}

impl Dtype {
    /// The name in configs, flags and results.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Tf32 => "tf32",
            Dtype::Bf16 => "bf16",
        }
    }
}

/// How the gradients of several processes are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduce {
    /// From the first process on.
    #[default]
    Ordered,
    /// In an order of the MPI library.
    Fast,
}

/// What follows a loss that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDivergence {
    /// The run ends with an error.
    Stop,
    /// The run goes back to its last checkpoint.
    Rollback,
}

/// When and where checkpoints are written: `[checkpoint]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Folder in which each run gets a folder of its own.
    pub dir: String,
    /// Epochs between two `epoch-NNNN.safetensors`; 0 writes none.
    pub every_epochs: u64,
    /// Steps between two saves of `last.safetensors` inside an epoch; 0 for none.
    pub every_steps: u64,
    /// Minutes between two saves of `last.safetensors` inside an epoch; 0 for none.
    pub every_minutes: u64,
    /// How many `epoch-NNNN.safetensors` are kept, the newest; 0 keeps all.
    pub keep: usize,
    /// What makes an evaluation the best, whose state `best.safetensors` is.
    #[serde(default)]
    pub best_by: BestBy,
    /// Seconds for which a write that fails is tried again before the run ends.
    #[serde(default = "default_retry_seconds")]
    pub retry_seconds: u64,
}

/// What makes an evaluation the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BestBy {
    /// The most images whose class came first.
    #[default]
    Top1,
    /// The highest mean recall of the classes.
    Balanced,
    /// The lowest mean loss.
    Loss,
}

impl BestBy {
    /// What is measured, in words.
    pub fn name(self) -> &'static str {
        match self {
            BestBy::Top1 => "top-1",
            BestBy::Balanced => "balanced accuracy",
            BestBy::Loss => "loss",
        }
    }
}

fn default_retry_seconds() -> u64 {
    60
}

/// What is written down while training: `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Steps between two lines of the log and of `metrics.jsonl`.
    pub every_steps: u64,
    /// Whether the run folder gets event files for TensorBoard.
    pub tensorboard: bool,
    /// Layers whose nonlinearities' inputs are recorded. Never changes a result.
    #[serde(default)]
    pub watch: Vec<String>,
    /// Steps between two such records.
    #[serde(default = "default_watch_every")]
    pub watch_every: u64,
}

fn default_watch_every() -> u64 {
    100
}

/// What runs the network: `[engine]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// The executor.
    pub kind: EngineKind,
    /// Where it computes.
    #[serde(default)]
    pub device: DeviceChoice,
    /// Whether 3x3 convolutions may run by Winograd's method: faster, with a larger rounding error.
    pub winograd: bool,
    /// Whether a GPU takes only algorithms that give the same bits each time.
    #[serde(default = "yes")]
    pub deterministic: bool,
}

/// Of a run that was begun before there were GPUs.
fn yes() -> bool {
    true
}

/// The executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// Our kernels behind a static plan; on a GPU the GPU engine.
    Fast,
    /// Plain candle tensors and candle's autograd: slow, the measure of the other.
    Reference,
}

impl EngineKind {
    /// The name in configs, flags and results.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Fast => "fast",
            EngineKind::Reference => "reference",
        }
    }
}

//! From settings to the objects that do the work.

use std::ops::Range;
use std::sync::Once;

use bninception_data as data;
use bninception_data::DecodeOptions;
use bninception_engine::model::layer::Activation;
use bninception_engine::model::parameters::TensorSpec;
use bninception_engine::model::{
    AuxOptions, BatchNormOptions, Kind, Network, NetworkOptions, ParameterTable,
};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{Dtype, EngineError, Executor, Fast, FastOptions, Normaliser, Reference};

use crate::config::{self, Config, EngineKind, OptimizerConfig};
use crate::device::{self, DeviceName, OnDevice};
use crate::machine::allotment::Allotment;
use crate::terminal::text::counted;

/// Classes of the paper's data set, taken where neither data nor settings say.
const IMAGENET_CLASSES: usize = 1000;

/// Settings of which no network or executor can be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The settings name another number of classes than the data has.
    #[error("network.classes = {asked}, but the data has {}; leave it at 0", counted(*found as u64, "class"))]
    Classes {
        /// `network.classes`.
        asked: usize,
        /// Classes of the data.
        found: usize,
    },
    /// `train.class_weights` does not fit the classes.
    #[error("train.class_weights: {0}")]
    ClassWeights(String),
    /// The network cannot be built, or the executor does not offer it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The number of classes where there is no data to say: that of the settings, else ImageNet's.
pub fn classes_without_data(config: &Config) -> usize {
    match config.network.classes {
        0 => IMAGENET_CLASSES,
        classes => classes,
    }
}

/// The network of `config` for data of `classes` classes.
///
/// # Errors
/// `network.classes` contradicts the data, or an option is out of its range.
pub fn network(config: &Config, classes: usize) -> Result<Network, SetupError> {
    let options = &config.network;
    if options.classes != 0 && options.classes != classes {
        return Err(SetupError::Classes { asked: options.classes, found: classes });
    }
    let batch_norm = BatchNormOptions { epsilon: options.bn_epsilon };
    let aux = AuxOptions { weight: options.aux_weight, dropout: options.aux_dropout };
    let kind = match options.kind {
        config::NetworkKind::BnInception => Kind::BnInception,
        config::NetworkKind::GoogLeNet => Kind::GoogLeNet,
    };
    let options = NetworkOptions {
        classes,
        image_size: config.data.image_size,
        activation: match options.activation {
            config::Activation::Relu => Activation::Relu,
            config::Activation::Sigmoid => Activation::Sigmoid,
        },
        batch_norm: options.batch_norm.then_some(batch_norm),
        lrn: options.lrn,
        dropout: options.dropout,
        conv_bias: options.conv_bias,
        pool_proj_4c4d: options.pool_proj_4c4d,
        aux: options.aux.then_some(aux),
        init_gain: options.init_gain,
    };
    let network = Network::new(kind, options).map_err(EngineError::from)?;
    match config.train.freeze.as_str() {
        "" => Ok(network),
        parts => Ok(network.with_frozen(parts).map_err(EngineError::from)?),
    }
}

/// Factors on the learning rate of each trainable tensor of `network`, in the order of `table`; none where
/// all are 1.
pub fn lr_factors(config: &Config, network: &Network, table: &ParameterTable) -> Vec<f64> {
    let OptimizerConfig { head_lr_factor, layer_decay, .. } = config.optimizer;
    if (head_lr_factor, layer_decay) == (1.0, 1.0) {
        return Vec::new();
    }
    // The head is the last part, and the last module the one in front of it.
    let last_module = network.parts().len() - 2;
    let factor = |spec: &TensorSpec| {
        let is_of_classifier = network.losses.iter().any(|loss| loss.logits == spec.layer);
        match last_module.checked_sub(network.part_of(spec.layer)) {
            _ if is_of_classifier => head_lr_factor,
            Some(distance) => layer_decay.powi(distance as i32),
            // Of an auxiliary head.
            None => 1.0,
        }
    };
    table.trainable.iter().map(factor).collect()
}

/// An executor, and where it computes.
pub struct Placed {
    /// The executor.
    pub executor: Box<dyn Executor>,
    /// Its device; `None` on the processor.
    pub device: Option<DeviceName>,
}

impl Placed {
    /// The engine's name in results.
    pub fn engine(&self, config: &Config) -> &'static str {
        match self.device {
            Some(_) => "gpu",
            None => config.engine.kind.name(),
        }
    }

    /// What the history of a run says of where it was computed.
    pub fn model(&self) -> &str {
        self.device.as_ref().map_or(device::CPU, |device| &device.model)
    }
}

/// The executor that `config` names, where `config` says.
///
/// # Errors
/// A combination that the executor does not offer, or a device that is not there.
pub fn placed(config: &Config, network: Network) -> Result<Placed, SetupError> {
    let found = device::executor(config, &network, threads(config.train.threads))?;
    if let Some(OnDevice { executor, name }) = found {
        return Ok(Placed { executor, device: Some(name) });
    }
    let executor: Box<dyn Executor> = match (config.engine.kind, config.train.dtype) {
        (EngineKind::Reference, config::Dtype::F32) => Box::new(Reference::new(network)),
        (EngineKind::Reference, dtype) => {
            let (what, engine) = (format!("dtype {}", dtype.name()), config.engine.kind.name());
            let hint = "use --dtype f32, or --engine fast";
            return Err(EngineError::Unsupported { what, engine, hint }.into());
        }
        (EngineKind::Fast, config::Dtype::Tf32) => {
            let (what, engine) = ("dtype tf32 on the processor".to_owned(), "fast");
            let hint = "it is a number format of GPUs; use --dtype f32 or bf16";
            return Err(EngineError::Unsupported { what, engine, hint }.into());
        }
        (EngineKind::Fast, _) => Box::new(Fast::new(network, fast_options(config))?),
    };
    Ok(Placed { executor, device: None })
}

/// [`placed`] for who does not ask where.
///
/// # Errors
/// As there.
pub fn executor(config: &Config, network: Network) -> Result<Box<dyn Executor>, SetupError> {
    Ok(placed(config, network)?.executor)
}

/// The choices of the fast engine that `config` makes.
pub fn fast_options(config: &Config) -> FastOptions {
    warn_of_threads(config.train.threads);
    FastOptions {
        threads: threads(config.train.threads),
        winograd: config.engine.winograd,
        dtype: match config.train.dtype {
            config::Dtype::F32 | config::Dtype::Tf32 => Dtype::F32,
            config::Dtype::Bf16 => Dtype::Bf16,
        },
        ..FastOptions::default()
    }
}

/// Threads asked for, or one for each core.
pub fn threads(asked: usize) -> usize {
    match asked {
        0 => Allotment::of_process().cores,
        asked => asked,
    }
}

/// Says once that an engine with more threads than cores is slow: all of them wait for the last at
/// every layer of every step.
fn warn_of_threads(asked: usize) {
    static SAID: Once = Once::new();
    let cores = threads(0);
    if asked > cores {
        SAID.call_once(|| {
            tracing::warn!(
                "train.threads = {asked}, but this process may use {}: the threads will wait for \
                 each other; leave it at 0 for one a core",
                counted(cores as u64, "core")
            );
        });
    }
}

/// How images become the network's input in evaluation.
pub fn preprocessing(config: &Config) -> data::Preprocessing {
    data::Preprocessing {
        image_size: config.data.image_size,
        crop_ratio: config.data.crop_ratio,
        mean: config.data.mean.map(|value| value as f32),
        std: config.data.std.map(|value| value as f32),
        exif: config.data.exif,
        interpolation: match config.augment.interpolation {
            data::Interpolation::Bicubic => data::Filter::Bicubic,
            data::Interpolation::Bilinear | data::Interpolation::Random => data::Filter::Bilinear,
        },
    }
}

/// The network's values of the levels that images have.
pub fn normaliser(config: &Config) -> Normaliser {
    let preprocessing = preprocessing(config);
    Normaliser::new(preprocessing.mean, preprocessing.std)
}

/// The training micro-batches number `batches`, counted over all epochs; those of this process among all.
pub fn train_plan(config: &Config, share: data::Share, batches: Range<u64>) -> data::TrainPlan {
    data::TrainPlan {
        augment: config.augment.clone(),
        shuffle: config.data.shuffle,
        shard_size: config.data.shard_size,
        balance: config.data.balance,
        seed: config.train.seed,
        accumulate: config.train.micro_batches_per_update(),
        share,
        batches,
    }
}

/// The weight of each class in the training loss, for classes with `counts` training images; `None` where
/// all weigh the same.
///
/// # Errors
/// A class without a weight, or a weight of something that is no class.
pub fn class_weights(
    config: &Config,
    classes: &[String],
    counts: &[u64],
) -> Result<Option<Vec<f64>>, SetupError> {
    let shares = config.data.balance.shares(counts);
    let weights = config.train.class_weights.of_classes(classes, &shares);
    weights.map_err(SetupError::ClassWeights)
}

/// Updates of an epoch, and of the whole run, on `n_images` training images.
pub fn steps(config: &Config, n_images: usize) -> (u64, u64) {
    let per_epoch = (n_images / config.train.images_per_update()) as u64;
    match config.train.steps {
        0 => (per_epoch, config.train.epochs * per_epoch),
        steps => (per_epoch, steps),
    }
}

/// The optimizer's constants at learning rate `lr`, with [`lr_factors`].
pub fn sgd<'a>(config: &Config, lr: f64, lr_factors: &'a [f64]) -> SgdStep<'a> {
    SgdStep {
        lr,
        momentum: config.optimizer.momentum,
        weight_decay: config.optimizer.weight_decay,
        nesterov: config.optimizer.nesterov,
        lr_factors,
    }
}

/// Limits and orientation for decoding.
pub fn decode_options(config: &Config) -> DecodeOptions {
    DecodeOptions {
        max_pixels: config.data.max_pixels,
        max_bytes: config.data.max_bytes,
        exif: config.data.exif,
        scaled: config.data.scaled_decoding,
    }
}

/// Batch size, threads and queue of a loader.
pub fn load_options(config: &Config, batch_size: usize) -> data::LoadOptions {
    let workers = threads(config.data.workers);
    data::LoadOptions { batch_size, workers, prefetch: config.data.prefetch }
}

/// Images in a batch of evaluation.
pub fn val_batch_size(config: &Config) -> usize {
    match config.train.val_batch_size {
        0 => config.train.batch_size,
        size => size,
    }
}

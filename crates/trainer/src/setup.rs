//! From settings to the objects that do the work.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::thread::available_parallelism;

use bninception_data as data;
use bninception_data::{
    DataError, DecodeOptions, DemoOptions, Failure, Lister, Sample, ScanOptions, Splits,
};
use bninception_engine::model::layer::Activation;
use bninception_engine::model::{AuxOptions, BatchNormOptions, Kind, Network, NetworkOptions};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{Dtype, EngineError, Executor, Fast, FastOptions, Reference};

use crate::config::{self, Config, EngineKind};
use crate::data_dirs::DataDirs;
use crate::error::Error;
use crate::progress::SharedProgress;
use crate::signals;
use crate::text::counted;

/// Classes of the paper's data set, taken where neither data nor settings say.
const IMAGENET_CLASSES: usize = 1000;

/// Name of the folder inside `checkpoint.dir` that gets the embedded pictures.
const DEMO_FOLDER: &str = "demo-pictures";

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
pub fn network(config: &Config, classes: usize) -> Result<Network, Error> {
    let options = &config.network;
    if options.classes != 0 && options.classes != classes {
        return Err(Error::Usage(format!(
            "network.classes = {}, but the data has {}; leave it at 0",
            options.classes,
            counted(classes as u64, "class")
        )));
    }
    let batch_norm =
        BatchNormOptions { epsilon: options.bn_epsilon, momentum: options.bn_momentum };
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
    Ok(Network::new(kind, options).map_err(EngineError::from)?)
}

/// The executor that `config` names.
///
/// # Errors
/// A combination that the executor does not offer.
pub fn executor(config: &Config, network: Network) -> Result<Box<dyn Executor>, Error> {
    Ok(match (config.engine.kind, config.train.dtype) {
        (EngineKind::Reference, config::Dtype::F32) => Box::new(Reference::new(network)),
        (EngineKind::Reference, dtype) => {
            let (what, engine) = (format!("dtype {}", dtype.name()), config.engine.kind.name());
            let hint = "use --dtype f32, or --engine fast";
            return Err(EngineError::Unsupported { what, engine, hint }.into());
        }
        (EngineKind::Fast, _) => Box::new(Fast::new(network, fast_options(config))?),
    })
}

/// The choices of the fast engine that `config` makes.
pub fn fast_options(config: &Config) -> FastOptions {
    warn_of_threads(config.train.threads);
    FastOptions {
        threads: threads(config.train.threads),
        winograd: config.engine.winograd,
        dtype: match config.train.dtype {
            config::Dtype::F32 => Dtype::F32,
            config::Dtype::Bf16 => Dtype::Bf16,
        },
        ..FastOptions::default()
    }
}

/// Threads asked for, or one for each core.
pub fn threads(asked: usize) -> usize {
    match asked {
        0 => available_parallelism().map_or(1, |cores| cores.get()),
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

/// The training batches of `steps`.
pub fn train_plan(config: &Config, steps: Range<u64>) -> data::TrainPlan {
    data::TrainPlan {
        augment: config.augment.clone(),
        shuffle: config.data.shuffle,
        shard_size: config.data.shard_size,
        seed: config.train.seed,
        steps,
    }
}

/// Updates of an epoch, and of the whole run, on `n_images` training images.
pub fn steps(config: &Config, n_images: usize) -> (u64, u64) {
    let per_epoch = data::loader::batches_per_epoch(n_images, config.train.batch_size);
    match config.train.steps {
        0 => (per_epoch, config.train.epochs * per_epoch),
        steps => (per_epoch, steps),
    }
}

/// The optimizer's constants at learning rate `lr`.
pub fn sgd(config: &Config, lr: f64) -> SgdStep {
    SgdStep {
        lr,
        momentum: config.optimizer.momentum,
        weight_decay: config.optimizer.weight_decay,
        nesterov: config.optimizer.nesterov,
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

/// The folder of images; where `data.dir` is empty that of the embedded pictures inside `parent`, in
/// which they are drawn if they are not there.
///
/// # Errors
/// The pictures cannot be written.
pub fn data_dir(config: &Config, parent: &Path) -> Result<PathBuf, Error> {
    if !config.data.dir.is_empty() {
        return Ok(PathBuf::from(&config.data.dir));
    }
    let dir = parent.join(DEMO_FOLDER);
    let outcome = data::write_demo(&dir, &DemoOptions::default())?;
    if outcome == data::demo::DemoOutcome::Written {
        tracing::info!("drew the embedded pictures: {}", dir.display());
    }
    Ok(dir)
}

/// [`data_dir`] for settings that came with a checkpoint in `run`, which may be a stranger's: the
/// embedded pictures are taken from beside that folder or drawn where this program draws them by
/// default, but never where the checkpoint says.
///
/// # Errors
/// As [`data_dir`].
pub fn stored_data_dir(config: &Config, run: &Path) -> Result<PathBuf, Error> {
    let beside = run.parent().filter(|parent| parent.join(DEMO_FOLDER).is_dir());
    match beside {
        Some(parent) => data_dir(config, parent),
        None => {
            let default = config::resolve(&config::Sources::default())?.config;
            data_dir(config, Path::new(&default.checkpoint.dir))
        }
    }
}

/// Finds the images to train and validate on, and looks at their headers if the settings ask for it.
///
/// # Errors
/// As [`scan`]; an image that cannot be read.
pub fn scan_to_train(config: &Config, dirs: &DataDirs) -> Result<Splits, Error> {
    let stop = || signals::received().is_some();
    let mut lister = lister(config).with_stop(&stop);
    let splits = scan_with(config, dirs, &mut lister)?;
    warn(&splits.notes);
    if config.data.check_headers {
        let options = decode_options(config);
        let samples: Vec<&Sample> = splits.train.iter().chain(&splits.val).collect();
        tracing::debug!("looking at headers of {}", counted(samples.len() as u64, "image"));
        let progress = SharedProgress::new("looking at headers");
        progress.start(samples.len());
        let advance = |done| progress.advance(done);
        let bad = data::check_headers(&lister, &samples, &options, &advance);
        drop(progress);
        let bad = stopped_by_signal(bad)?;
        let n_train = splits.train.len();
        let (train, val): (Vec<Failure>, Vec<Failure>) =
            bad.into_iter().partition(|failure| (failure.index as usize) < n_train);
        for (what, bad, n_images) in
            [("training", train, n_train), ("validation", val, splits.val.len())]
        {
            if !bad.is_empty() {
                return Err(unreadable(&bad, what, n_images));
            }
        }
        lister.mark_sound(&samples, &options);
    }
    keep_listings(&mut lister, &dirs.dir);
    Ok(splits)
}

/// Names the first of the images that cannot be read.
fn unreadable(bad: &[Failure], what: &str, n_images: usize) -> Error {
    const SHOWN: usize = 10;
    let mut lines: Vec<String> =
        bad.iter().take(SHOWN).map(|failure| format!("  {}", failure.error)).collect();
    if bad.len() > SHOWN {
        lines.push(format!("  and {} more", bad.len() - SHOWN));
    }
    let otherwise = match what {
        "training" => "leave them out as they come, up to data.max_bad,",
        _ => "count them as wrong",
    };
    Error::Unusable(format!(
        "{} of {} cannot be read:\n{}\nmend or remove them, or {otherwise} with \
         --set data.check_headers=false",
        bad.len(),
        counted(n_images as u64, &format!("{what} image")),
        lines.join("\n")
    ))
}

/// Finds the training and validation images.
///
/// # Errors
/// The folder is not laid out as class folders of images.
pub fn scan(config: &Config, dirs: &DataDirs) -> Result<Splits, Error> {
    let splits = find(config, dirs)?;
    warn(&splits.notes);
    Ok(splits)
}

/// [`scan`] whose notes are not told.
///
/// # Errors
/// As [`scan`].
pub fn find(config: &Config, dirs: &DataDirs) -> Result<Splits, Error> {
    let stop = || signals::received().is_some();
    let mut lister = lister(config).with_stop(&stop);
    let splits = scan_with(config, dirs, &mut lister)?;
    keep_listings(&mut lister, &dirs.dir);
    Ok(splits)
}

fn scan_with(config: &Config, dirs: &DataDirs, lister: &mut Lister<'_>) -> Result<Splits, Error> {
    let DataDirs { dir, val_dir } = dirs;
    if !dir.is_dir() {
        return Err(Error::Unusable(format!(
            "{} is not a folder; --data-dir expects one with train/CLASS/* and val/CLASS/*, or \
             with CLASS/* alone",
            dir.display()
        )));
    }
    tracing::debug!("looking for images in {}", dir.display());
    lister.load(dir);
    let options = ScanOptions {
        val_dir: val_dir.clone(),
        val_fraction: config.data.val_fraction,
        seed: config.train.seed,
    };
    stopped_by_signal(data::scan_with(lister, dir, &options))
}

/// Tells what a person should know of a folder of images.
pub fn warn(notes: &[String]) {
    for note in notes {
        tracing::warn!("{note}");
    }
}

/// How folders are listed.
pub fn lister<'a>(config: &Config) -> Lister<'a> {
    let cache_dir = if config.data.cache_listings { Lister::default_cache_dir() } else { None };
    Lister::new(threads(config.data.workers)).with_cache(cache_dir)
}

/// What a scan found; a scan that a signal stopped becomes that signal's error.
///
/// # Errors
/// The scan's.
pub fn stopped_by_signal<T>(scanned: Result<T, DataError>) -> Result<T, Error> {
    if let Err(DataError::Stopped) = scanned {
        signals::check()?;
    }
    Ok(scanned?)
}

/// Writes the cache of listings of a large tree. A run goes on without.
pub fn keep_listings(lister: &mut Lister<'_>, dir: &Path) {
    match lister.save(dir, false) {
        Ok(Some(file)) => tracing::debug!("wrote {}", file.display()),
        Ok(None) => {}
        Err(error) => tracing::debug!("no cache of folder listings: {error}"),
    }
}

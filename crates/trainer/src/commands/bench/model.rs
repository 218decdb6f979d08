//! `bench model`.

use std::time::Instant;

use bninception_engine::model::{Network, ParameterTable, summary};
use bninception_engine::{
    Alone, EvaluationWeights, Executor, Hooks, Images, ModelState, Profile, TrainBatch, Update,
    bench,
};
use serde_json::json;

use super::profile_table;
use crate::cli::{BenchMode, BenchModelArgs};
use crate::commands::print;
use crate::config::Config;
use crate::error::Error;
use crate::setup;
use crate::terminal::signals;
use crate::terminal::text::counted;
use crate::training::memory_limit::peak_rss_bytes;

pub(super) fn bench(args: &BenchModelArgs) -> Result<(), Error> {
    signals::listen()?;
    let (config, batch_size) = match args.mode {
        BenchMode::Train => {
            let config = args.config.resolve(None, None)?.config;
            let batch_size = config.train.batch_size;
            (config, batch_size)
        }
        BenchMode::Eval => {
            let config = args.config.clone().for_evaluation()?.resolve(None, None)?.config;
            let batch_size = setup::val_batch_size(&config);
            (config, batch_size)
        }
    };
    let classes = setup::classes_without_data(&config);
    let network = setup::network(&config, classes)?;
    let gflop = gflop(&network, batch_size, args.mode);
    let table = ParameterTable::new(&network);
    let state = ModelState::initial(&network, &table, config.train.seed, false);
    let mut executor = setup::executor(&config, network)?;
    tracing::info!("{}", executor.describe());

    if args.profile {
        profile(executor.as_mut(), args.mode)?; // before the time is spent
    }

    let batch = RandomBatch::new(batch_size, config.data.image_size, classes);
    let mut seconds = match args.mode {
        BenchMode::Train => time_training(executor.as_mut(), &config, state, &batch, args)?,
        BenchMode::Eval => time_evaluation(executor.as_mut(), &config, &state, &batch, args)?,
    };
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let images_per_second = batch_size as f64 / median;
    let mode = match args.mode {
        BenchMode::Train => "train",
        BenchMode::Eval => "eval",
    };
    let (engine, dtype) = (config.engine.kind.name(), config.train.dtype.name());
    let threads = setup::threads(config.train.threads);
    let gflops = gflop / median;
    let profile = if args.profile { Some(profile(executor.as_mut(), args.mode)?) } else { None };
    let peak = bench::peak(&setup::fast_options(&config));
    if args.json {
        let mut result = json!({
            "mode": mode,
            "engine": engine,
            "device": "cpu",
            "dtype": dtype,
            "threads": threads,
            "batch_size": batch_size,
            "image_size": config.data.image_size,
            "step_seconds_median": median,
            "images_per_second": images_per_second,
            "gflops": gflops,
            "peak_gflops": peak,
            "peak_rss_bytes": peak_rss_bytes(),
        });
        if let Some(profile) = profile {
            result["profile"] = profile_table::to_json(profile, batch_size, args.repeats);
        }
        return print::json(&result);
    }
    if let Some(profile) = profile {
        print::text(&profile_table::to_text(profile, batch_size, args.repeats))?;
    }
    let memory = peak_rss_bytes()
        .map_or(String::new(), |bytes| format!(", peak memory {:.2} GB", bytes as f64 / 1e9));
    print::text(&format!(
        "{mode}, {engine} engine, {dtype}, {}, batch {batch_size}, {} px: \
         {images_per_second:.1} img/s, median step {median:.4} s of {}, from {:.4} to {:.4}{memory}, \
         {gflops:.0} GFLOP/s ({:.2} of the peak in {dtype}; Winograd needs fewer)",
        counted(threads as u64, "thread"),
        config.data.image_size,
        seconds.len(),
        seconds[0],
        seconds[seconds.len() - 1],
        gflops / peak,
    ))
}

/// Where the time of the timed steps went.
fn profile(executor: &mut dyn Executor, mode: BenchMode) -> Result<&Profile, Error> {
    let profile = match mode {
        BenchMode::Train => executor.training_profile(),
        BenchMode::Eval => executor.evaluation_profile(),
    };
    let why = "--profile: only the fast engine knows where its time goes; leave out --engine";
    profile.map(|profile| &*profile).ok_or_else(|| Error::Usage(why.to_owned()))
}

/// Billions of operations of a step, two for each multiply-accumulate by the definition; the gradients
/// of weights and inputs cost as much as the outputs, and the images have none.
fn gflop(network: &Network, batch_size: usize, mode: BenchMode) -> f64 {
    let layers = summary::summarise(network);
    let runs = |layer: &&summary::LayerSummary| mode == BenchMode::Train || !layer.auxiliary;
    let macs: usize = layers.iter().filter(runs).map(|layer| layer.macs).sum();
    let first = layers.iter().map(|layer| layer.macs).find(|&macs| macs > 0).unwrap_or(0);
    let macs = match mode {
        BenchMode::Train => 3 * macs - first,
        BenchMode::Eval => macs,
    };
    2.0 * (macs * batch_size) as f64 / 1e9
}

/// Random images and labels, the same in every run.
struct RandomBatch {
    levels: Vec<u8>,
    labels: Vec<u32>,
}

impl RandomBatch {
    fn new(n: usize, size: usize, classes: usize) -> RandomBatch {
        // Steps of the golden ratio fill the levels evenly.
        let level = |index: usize| (index as f64 * 0.618_033_988_749_895).fract() * 256.0;
        RandomBatch {
            levels: (0..n * 3 * size * size).map(|index| level(index) as u8).collect(),
            labels: (0..n).map(|image| (image * 7 % classes) as u32).collect(),
        }
    }
}

fn time_training(
    executor: &mut dyn Executor,
    config: &Config,
    state: ModelState,
    batch: &RandomBatch,
    args: &BenchModelArgs,
) -> Result<Vec<f64>, Error> {
    // Small, so that the same batch over and over does not leave the realm of usual numbers.
    let update = Update {
        sgd: setup::sgd(config, 1e-3, &[]),
        clip_norm: config.optimizer.clip_norm,
        tell_norm: false,
        ema_decay: 0.0,
    };
    let normaliser = setup::normaliser(config);
    let images = Images::Levels { levels: &batch.levels, normaliser: &normaliser };
    let mut seconds = Vec::new();
    executor.load(state)?;
    for step in 0..(args.warmup + args.repeats) as u64 {
        signals::check()?;
        if step == args.warmup as u64
            && let Some(profile) = executor.training_profile()
        {
            profile.reset();
        }
        let input = TrainBatch {
            images,
            labels: &batch.labels,
            label_smoothing: config.train.label_smoothing,
            class_weights: None,
            own_share: None,
            seed: config.train.seed,
            number: step,
            bn_momentum: config.network.bn_momentum,
        };
        let start = Instant::now();
        let loss = executor.gradients(&input, Hooks::default())?.loss;
        executor.exchange(&mut Alone)?;
        let is_finite = executor.update(&update)?.is_finite;
        seconds.push(start.elapsed().as_secs_f64());
        if !loss.is_finite() || !is_finite {
            return Err(Error::Unusable(format!("the loss of step {step} is {loss}")));
        }
    }
    Ok(seconds.split_off(args.warmup))
}

fn time_evaluation(
    executor: &mut dyn Executor,
    config: &Config,
    state: &ModelState,
    batch: &RandomBatch,
    args: &BenchModelArgs,
) -> Result<Vec<f64>, Error> {
    let normaliser = setup::normaliser(config);
    let images = Images::Levels { levels: &batch.levels, normaliser: &normaliser };
    let mut logits = Vec::new();
    let mut seconds = Vec::new();
    executor.prepare_evaluation(EvaluationWeights::Given(&state.weights))?;
    for step in 0..args.warmup + args.repeats {
        signals::check()?;
        if step == args.warmup
            && let Some(profile) = executor.evaluation_profile()
        {
            profile.reset();
        }
        let start = Instant::now();
        executor.evaluate(images, &mut logits)?;
        seconds.push(start.elapsed().as_secs_f64());
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(Error::Unusable("a logit is not finite".to_owned()));
        }
    }
    Ok(seconds.split_off(args.warmup))
}

//! `bench model`.

use std::time::Instant;

use bninception_engine::cuda::device::Noting;
use bninception_engine::model::{Network, ParameterTable, summary};
use bninception_engine::{
    Alone, EvaluationWeights, Executor, Fate, Hooks, Images, ModelState, Normaliser, Profile,
    Traced, TrainBatch, Update, bench,
};
use serde_json::json;

use super::device_profile::{self, Limits};
use super::prediction::Prediction;
use super::profile_table;
use crate::cli::{BenchMode, BenchModelArgs};
use crate::commands::print;
use crate::config::Config;
use crate::device::{CPU, DeviceName};
use crate::error::Error;
use crate::machine::card::Card;
use crate::setup::{self, Placed};
use crate::terminal::signals;
use crate::terminal::text::{bytes, counted};
use crate::training::memory_limit::peak_rss_bytes;

/// Steps that a device is given before it is waited for, where one takes less than [`SHORT`] seconds: as in
/// training, the next is ready when one ends.
const STARTED_AT_ONCE: usize = 8;

/// See [`STARTED_AT_ONCE`].
const SHORT: f64 = 0.1;

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
    let mut placed = setup::placed(&config, network)?;
    tracing::info!("{}", placed.executor.describe());
    if args.profile && placed.device.is_none() {
        profile(placed.executor.as_mut(), args.mode)?; // before the time is spent
    }

    let mut steps = Steps::new(&config, args.mode, batch_size, classes);
    steps.prepare(placed.executor.as_mut(), state)?;
    if let Some(card) = &args.predict {
        return predict(args, card, &placed.device, &mut steps, placed.executor.as_mut());
    }
    let mut seconds = steps.time(placed.executor.as_mut(), args)?;
    seconds.sort_by(f64::total_cmp);
    let traced = match args.profile && placed.device.is_some() {
        true => steps.trace(placed.executor.as_mut(), Noting::Times, args.repeats)?,
        false => Vec::new(),
    };
    let limits = Limits::of_device(placed.device.as_ref(), config.train.dtype);
    let times = Times { seconds, batch_size, gflop, limits };
    match args.json {
        true => print::json(&times.to_json(args, &config, &mut placed, &traced)?),
        false => print::text(&times.to_text(args, &config, &mut placed, &traced)?),
    }
}

/// Lists what a step starts, and how long that would take on a card.
fn predict(
    args: &BenchModelArgs,
    card: &str,
    device: &Option<DeviceName>,
    steps: &mut Steps<'_>,
    executor: &mut dyn Executor,
) -> Result<(), Error> {
    if device.is_none() {
        let why = "--predict tells of what the GPU engine starts; add --device host";
        return Err(Error::Usage(why.to_owned()));
    }
    let Some(card) = Card::by_key(card) else {
        return Err(Error::Usage(format!("--predict {card}: there is no such card")));
    };
    let (dtype, batch_size) = (steps.config.train.dtype, steps.batch_size);
    let limits = Limits::of(card, dtype);
    let traced = steps.trace(executor, Noting::Starts, 1)?;
    let prediction = Prediction::of(&traced, &limits);
    if args.json {
        let mut result = prediction.to_json(&traced, &limits, batch_size);
        result["card"] = json!(card.key);
        result["mode"] = json!(args.mode.name());
        result["dtype"] = json!(dtype.name());
        result["batch_size"] = json!(batch_size);
        result["image_size"] = json!(steps.config.data.image_size);
        return print::json(&result);
    }
    print::text(&format!(
        "{}\n{}, {}, batch {batch_size}, {} px on {}; not measured",
        prediction.to_text(&traced, &limits, batch_size),
        args.mode.name(),
        dtype.name(),
        steps.config.data.image_size,
        card.driver_name
    ))
}

/// What was timed.
struct Times {
    /// Of steps, the shortest first.
    seconds: Vec<f64>,
    batch_size: usize,
    /// Billions of operations of a step.
    gflop: f64,
    /// Of the device, if it is a known card.
    limits: Option<Limits>,
}

impl Times {
    /// Billions of operations a second at the most: measured on the processor, that of the data sheet of a known card.
    fn peak(&self, config: &Config, placed: &Placed) -> Option<f64> {
        match placed.device {
            None => Some(bench::peak(&setup::fast_options(config))),
            Some(_) => self.limits.map(|limits| 1e-9 * limits.rate("convolution")),
        }
    }

    fn median(&self) -> f64 {
        self.seconds[self.seconds.len() / 2]
    }

    fn to_json(
        &self,
        args: &BenchModelArgs,
        config: &Config,
        placed: &mut Placed,
        traced: &[Traced],
    ) -> Result<serde_json::Value, Error> {
        let (median, batch_size) = (self.median(), self.batch_size);
        let mut result = json!({
            "mode": args.mode.name(),
            "engine": placed.engine(config),
            "device": placed.device.as_ref().map_or(CPU.to_owned(), DeviceName::to_string),
            "dtype": config.train.dtype.name(),
            "threads": setup::threads(config.train.threads),
            "batch_size": batch_size,
            "image_size": config.data.image_size,
            "step_seconds_median": median,
            "step_seconds": self.seconds,
            "images_per_second": batch_size as f64 / median,
            "gflops": self.gflop / median,
            "peak_gflops": self.peak(config, placed),
            "peak_rss_bytes": peak_rss_bytes(),
            "peak_device_bytes": device_bytes(placed, batch_size)?,
        });
        if args.profile {
            result["profile"] = match placed.device {
                Some(_) => device_profile::to_json(traced, args.repeats, self.limits.as_ref()),
                None => {
                    let profile = profile(placed.executor.as_mut(), args.mode)?;
                    profile_table::to_json(profile, batch_size, args.repeats)
                }
            };
        }
        Ok(result)
    }

    fn to_text(
        &self,
        args: &BenchModelArgs,
        config: &Config,
        placed: &mut Placed,
        traced: &[Traced],
    ) -> Result<String, Error> {
        let (median, batch_size, seconds) = (self.median(), self.batch_size, &self.seconds);
        let (engine, dtype) = (placed.engine(config), config.train.dtype.name());
        let mut text = String::new();
        if args.profile {
            text = match placed.device {
                Some(_) => device_profile::to_text(traced, args.repeats, self.limits.as_ref()),
                None => {
                    let profile = profile(placed.executor.as_mut(), args.mode)?;
                    profile_table::to_text(profile, batch_size, args.repeats)
                }
            };
            text.push('\n');
        }
        let place = match &placed.device {
            Some(name) => name.to_string(),
            None => counted(setup::threads(config.train.threads) as u64, "thread"),
        };
        let memory = peak_rss_bytes()
            .map_or(String::new(), |bytes| format!(", peak memory {:.2} GB", bytes as f64 / 1e9));
        let of_device = device_bytes(placed, batch_size)?
            .map_or(String::new(), |n| format!(", of the device {}", bytes(n as u64)));
        let gflops = self.gflop / median;
        let of_peak = self.peak(config, placed).map_or(String::new(), |peak| {
            let winograd = if placed.device.is_none() { "; Winograd needs fewer" } else { "" };
            format!(" ({:.2} of the peak in {dtype}{winograd})", gflops / peak)
        });
        text.push_str(&format!(
            "{}, {engine} engine, {dtype}, {place}, batch {batch_size}, {} px: {:.1} img/s, median step {median:.4} s \
             of {}, from {:.4} to {:.4}{memory}{of_device}, {gflops:.0} GFLOP/s{of_peak}",
            args.mode.name(),
            config.data.image_size,
            batch_size as f64 / median,
            seconds.len(),
            seconds[0],
            seconds[seconds.len() - 1],
        ));
        Ok(text)
    }
}

/// Bytes of its device's memory that the executor has taken.
fn device_bytes(placed: &mut Placed, batch: usize) -> Result<Option<usize>, Error> {
    Ok(placed.executor.device_memory(batch)?.map(|memory| memory.taken))
}

/// Where the time of the timed steps went.
fn profile(executor: &mut dyn Executor, mode: BenchMode) -> Result<&Profile, Error> {
    let profile = match mode {
        BenchMode::Train => executor.training_profile(),
        BenchMode::Eval => executor.evaluation_profile(),
    };
    let why =
        "--profile: the reference engine does not know where its time goes; leave out --engine";
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

/// Steps on the same batch over and over.
struct Steps<'a> {
    config: &'a Config,
    mode: BenchMode,
    batch_size: usize,
    batch: RandomBatch,
    normaliser: Normaliser,
    /// Those made.
    n_made: u64,
    logits: Vec<f32>,
}

impl<'a> Steps<'a> {
    fn new(config: &'a Config, mode: BenchMode, batch_size: usize, classes: usize) -> Steps<'a> {
        Steps {
            config,
            mode,
            batch_size,
            batch: RandomBatch::new(batch_size, config.data.image_size, classes),
            normaliser: setup::normaliser(config),
            n_made: 0,
            logits: Vec::new(),
        }
    }

    fn prepare(&self, executor: &mut dyn Executor, state: ModelState) -> Result<(), Error> {
        match self.mode {
            BenchMode::Train => executor.load(state)?,
            BenchMode::Eval => {
                executor.prepare_evaluation(EvaluationWeights::Given(&state.weights))?;
            }
        }
        Ok(())
    }

    /// Seconds of each timed step, or where several short ones are started at once, of their mean.
    fn time(
        &mut self,
        executor: &mut dyn Executor,
        args: &BenchModelArgs,
    ) -> Result<Vec<f64>, Error> {
        let mut last = f64::INFINITY;
        for _ in 0..args.warmup {
            last = self.make(executor, 1)?;
        }
        let reset = |profile: Option<&mut Profile>| profile.into_iter().for_each(Profile::reset);
        match self.mode {
            BenchMode::Train => reset(executor.training_profile()),
            BenchMode::Eval => reset(executor.evaluation_profile()),
        }
        let at_once = match executor.pipeline().is_some() && last < SHORT {
            true => STARTED_AT_ONCE,
            false => 1,
        };
        (0..args.repeats).map(|_| self.make(executor, at_once)).collect()
    }

    /// What a device starts in so many steps.
    fn trace(
        &mut self,
        executor: &mut dyn Executor,
        noting: Noting,
        n: usize,
    ) -> Result<Vec<Traced>, Error> {
        // The first step sets up.
        if self.n_made == 0 && noting == Noting::Times {
            self.make(executor, 1)?;
        }
        executor.trace(noting);
        for _ in 0..n {
            self.make(executor, 1)?;
        }
        Ok(executor.trace(Noting::Nothing))
    }

    /// Makes `n` steps. Gives the mean of their seconds.
    fn make(&mut self, executor: &mut dyn Executor, n: usize) -> Result<f64, Error> {
        let start = Instant::now();
        match self.mode {
            BenchMode::Train => self.train(executor, n)?,
            BenchMode::Eval => self.evaluate(executor, n)?,
        }
        Ok(start.elapsed().as_secs_f64() / n as f64)
    }

    fn train(&mut self, executor: &mut dyn Executor, n: usize) -> Result<(), Error> {
        let Steps { config, batch, normaliser, n_made, .. } = self;
        // Small, so that the same batch over and over does not leave the realm of usual numbers.
        let update = Update {
            sgd: setup::sgd(config, 1e-3, &[]),
            clip_norm: config.optimizer.clip_norm,
            tell_norm: false,
            ema_decay: 0.0,
        };
        for _ in 0..n {
            signals::check()?;
            let input = TrainBatch {
                images: Images::Levels { levels: &batch.levels, normaliser },
                labels: &batch.labels,
                label_smoothing: config.train.label_smoothing,
                class_weights: None,
                own_share: None,
                seed: config.train.seed,
                number: *n_made,
                bn_momentum: config.network.bn_momentum,
            };
            *n_made += 1;
            if let Some(pipeline) = executor.pipeline() {
                pipeline.start(&input, &update)?;
                continue;
            }
            let loss = executor.gradients(&input, Hooks::default())?.loss;
            executor.exchange(&mut Alone)?;
            let is_finite = executor.update(&update)?.is_finite;
            check(*n_made, loss, loss.is_finite() && is_finite)?;
        }
        if let Some(pipeline) = executor.pipeline() {
            for finished in pipeline.finished(true)? {
                check(*n_made, finished.step.loss, finished.fate == Fate::Done)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, executor: &mut dyn Executor, n: usize) -> Result<(), Error> {
        let Steps { batch, normaliser, n_made, logits, .. } = self;
        for _ in 0..n {
            signals::check()?;
            *n_made += 1;
            executor.evaluate(Images::Levels { levels: &batch.levels, normaliser }, logits)?;
            if !logits.iter().all(|logit| logit.is_finite()) {
                return Err(Error::Unusable("a logit is not finite".to_owned()));
            }
        }
        Ok(())
    }
}

fn check(step: u64, loss: f64, is_finite: bool) -> Result<(), Error> {
    match is_finite {
        true => Ok(()),
        false => Err(Error::Unusable(format!("the loss of step {step} is {loss}"))),
    }
}

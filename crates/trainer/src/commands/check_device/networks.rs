//! Whole networks: a device beside the processor, and beside itself.

use std::path::Path;

use bninception_engine::gpu::check::{error, random};
use bninception_engine::model::{Network, ParameterTable, Weights};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{
    Alone, EngineError, EvaluationWeights, Executor, Fate, GpuOptions, Hooks, Images, ModelState,
    Normaliser, TrainBatch, Update, Watch,
};

use super::comparison::{Comparison, differs};
use super::operations::no_device;
use super::record::NetworkRecord;
use crate::config::{Activation, Config, DeviceChoice, Dtype};
use crate::device;
use crate::error::Error;
use crate::file_error::FileError;
use crate::setup;
use crate::terminal::signals;

/// Classes of the networks.
const CLASSES: usize = 10;

/// Updates that are made one after the other.
const UPDATES: usize = 3;

/// Largest relative errors in f32. Rounding itself moves little; its consequences move more: batch norm over the few
/// values of the last maps enlarges what came before, and a ReLU whose input lands on the other side of 0 moves a whole
/// path of the gradient. With sigmoids only the former is left.
struct Limits {
    /// Of logits, losses, and what enters nonlinearities.
    forward: f64,
    /// Of all gradients, and of how weights move in some updates.
    gradient: f64,
}

impl Limits {
    fn of(activation: Activation) -> Limits {
        match activation {
            Activation::Sigmoid => Limits { forward: 1e-3, gradient: 1e-2 },
            Activation::Relu => Limits { forward: 2e-3, gradient: 1e-1 },
        }
    }
}

/// How many times as far from f32 as the processor's bf16 a result may be. TF32 has three bits more, so its errors are
/// an eighth.
fn times_of_bf16(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 0.0,
        Dtype::Tf32 => 0.5,
        Dtype::Bf16 => 2.0,
    }
}

/// Limits from here on say nothing: zeros are 1 away from anything. So it is with gradients in bf16 behind ReLUs.
const SAYS_NOTHING: f64 = 0.9;

/// What is done to the weights.
const UPDATE: Update<'static> = Update {
    sgd: SgdStep { lr: 0.01, momentum: 0.9, weight_decay: 1e-4, nesterov: false, lr_factors: &[] },
    clip_norm: 0.0,
    tell_norm: false,
    ema_decay: 0.0,
};

/// What an executor makes of a batch.
#[derive(Clone, Debug, Default)]
struct Seen {
    logits: Vec<f32>,
    gradients: Vec<f32>,
    losses: Vec<f32>,
    /// Weights behind each update, less those before.
    movement: Vec<f32>,
    statistics: Vec<f32>,
}

/// The batch and the states that all executors are given.
struct Given {
    network: Network,
    table: ParameterTable,
    normaliser: Normaliser,
    levels: Vec<u8>,
    labels: Vec<u32>,
    /// States before each update, and behind the last, as the processor makes them in f32. Each update is compared from
    /// the same state: otherwise what one leaves is enlarged by the next.
    states: Vec<ModelState>,
}

pub(super) fn compare(
    config: &Config,
    out: Option<&Path>,
    tell: &mut dyn FnMut(Comparison) -> Result<(), Error>,
) -> Result<(), Error> {
    if let Some(out) = out {
        std::fs::create_dir_all(out).map_err(FileError::of("create", out))?;
    }
    for activation in [Activation::Sigmoid, Activation::Relu] {
        let mut config = config.clone();
        config.network.activation = activation;
        let limits = Limits::of(activation);
        let name = |what: &str| match activation {
            Activation::Sigmoid => format!("{what}, sigmoid"),
            Activation::Relu => format!("{what}, relu"),
        };
        let on_cpu = |dtype| {
            let mut config = config.clone();
            (config.engine.device, config.train.dtype) = (DeviceChoice::Cpu, dtype);
            config
        };
        let cpu = on_cpu(Dtype::F32);
        let given = Given::new(&cpu)?;
        let expected = given.seen_by(setup::executor(&cpu, given.network.clone())?.as_mut())?;
        let rounded = on_cpu(Dtype::Bf16);
        let rounded = given.seen_by(setup::executor(&rounded, given.network.clone())?.as_mut())?;
        for dtype in [Dtype::F32, Dtype::Tf32, Dtype::Bf16] {
            signals::check()?;
            let mut config = config.clone();
            config.train.dtype = dtype;
            let mut executor = given.on_device(&config, device::options(&config))?;
            let seen = given.seen_by(executor.as_mut())?;
            for (what, values, limit) in [
                ("logits", (|seen| &seen.logits) as fn(&Seen) -> &Vec<f32>, limits.forward),
                ("losses of updates", |seen| &seen.losses, limits.forward),
                ("gradients", |seen| &seen.gradients, limits.gradient),
                ("weights behind updates", |seen| &seen.movement, limits.gradient),
                ("statistics behind updates", |seen| &seen.statistics, limits.forward),
            ] {
                let of_bf16 = error(values(&rounded), values(&expected));
                let limit = times_of_bf16(dtype) * of_bf16 + limit;
                let error = error(values(&seen), values(&expected));
                if limit < SAYS_NOTHING {
                    tell(Comparison { name: name(what), dtype: dtype.name(), error, limit })?;
                }
            }
            if dtype == Dtype::F32 {
                let mut cpu = setup::executor(&cpu, given.network.clone())?;
                for layer in given.layers(executor.as_mut(), cpu.as_mut())? {
                    let limit = limits.forward;
                    let name = name(&format!("input of the nonlinearity of {}", layer.0));
                    tell(Comparison { name, dtype: dtype.name(), error: layer.1, limit })?;
                }
            }
            let own = |what: &str, error| Comparison {
                name: name(what),
                dtype: dtype.name(),
                error,
                limit: 0.0,
            };
            let once = given.updated(executor.as_mut())?;
            let again = given.updated(executor.as_mut())?;
            tell(own("weights again, bit by bit", differs(&again, &once)))?;
            let later = given.updated_by_pipeline(executor.as_mut())?;
            tell(own("weights of updates whose results come later", differs(&later, &once)))?;
            let options = GpuOptions { capture: false, ..device::options(&config) };
            let mut apart = given.on_device(&config, options)?;
            let apart = given.updated(apart.as_mut())?;
            tell(own("weights without captured steps", differs(&apart, &once)))?;
            if let Some(out) = out {
                let file = format!("{}.safetensors", name(dtype.name()).replace(", ", "-"));
                given.record(&seen).save(&out.join(file))?;
            }
        }
    }
    Ok(())
}

impl Given {
    fn new(config: &Config) -> Result<Given, Error> {
        let network = setup::network(config, CLASSES)?;
        let (n, size) = (config.train.batch_size, config.data.image_size);
        let table = ParameterTable::new(&network);
        let mut weights = ModelState::initial(&network, &table, config.train.seed, false).weights;
        // Scales and shifts that are not 1 and 0, so that none can be left out unnoticed.
        for spec in table.trainable.iter().filter(|spec| spec.shape.len() == 1) {
            let noise = random(spec.range.start as u64, spec.range.len());
            let values = weights.trainable[spec.range.clone()].iter_mut();
            values.zip(noise).for_each(|(value, noise)| *value += 0.2 * noise);
        }
        let levels = random(9, n * 3 * size * size);
        let mut given = Given {
            normaliser: setup::normaliser(config),
            levels: levels.into_iter().map(|value| (127.5 * (value + 1.0)) as u8).collect(),
            labels: (0..n).map(|image| (image * 7 % CLASSES) as u32).collect(),
            network,
            table,
            states: vec![ModelState::of(weights)],
        };
        // Statistics that fit: with those of a fresh network, values grow from layer to layer.
        let mut statistics = Vec::new();
        let mut executor = setup::executor(config, given.network.clone())?;
        executor.prepare_evaluation(EvaluationWeights::Given(given.weights()))?;
        executor.batch_statistics(given.images(), &mut statistics)?;
        given.states[0].weights.statistics = statistics;
        for number in 0..UPDATES {
            let mut state = given.states[number].clone();
            executor.load(state.clone())?;
            given.update(executor.as_mut(), number, |_| Ok(()))?;
            executor.store(&mut state)?;
            given.states.push(state);
        }
        Ok(given)
    }

    /// The first weights.
    fn weights(&self) -> &Weights {
        &self.states[0].weights
    }

    /// Makes an update of the state that `executor` holds. `see` is called between gradients and update.
    fn update(
        &self,
        executor: &mut dyn Executor,
        number: usize,
        see: impl FnOnce(&mut dyn Executor) -> Result<(), EngineError>,
    ) -> Result<f64, EngineError> {
        let loss = executor.gradients(&self.batch(number), Hooks::default())?.loss;
        see(executor)?;
        executor.exchange(&mut Alone)?;
        executor.update(&UPDATE)?;
        Ok(loss)
    }

    fn images(&self) -> Images<'_> {
        Images::Levels { levels: &self.levels, normaliser: &self.normaliser }
    }

    fn batch(&self, number: usize) -> TrainBatch<'_> {
        TrainBatch {
            images: self.images(),
            labels: &self.labels,
            label_smoothing: 0.0,
            class_weights: None,
            own_share: None,
            seed: 1,
            number: number as u64,
            bn_momentum: 0.1,
        }
    }

    fn on_device(&self, config: &Config, options: GpuOptions) -> Result<Box<dyn Executor>, Error> {
        let threads = setup::threads(config.train.threads);
        match device::executor_with(config, &self.network, threads, options)? {
            Some(found) => Ok(found.executor),
            None => Err(no_device()),
        }
    }

    fn seen_by(&self, executor: &mut dyn Executor) -> Result<Seen, EngineError> {
        let mut seen = Seen::default();
        executor.prepare_evaluation(EvaluationWeights::Given(self.weights()))?;
        executor.evaluate(self.images(), &mut seen.logits)?;
        for (number, before) in self.states.iter().take(UPDATES).enumerate() {
            executor.load(before.clone())?;
            let loss = self.update(executor, number, |executor| match number {
                0 => executor.store_gradients(&mut seen.gradients),
                _ => Ok(()),
            })?;
            seen.losses.push(loss as f32);
            let mut after = before.clone();
            executor.store(&mut after)?;
            let pairs = after.weights.trainable.iter().zip(&before.weights.trainable);
            seen.movement.extend(pairs.map(|(after, before)| after - before));
            seen.statistics.extend(&after.weights.statistics);
        }
        Ok(seen)
    }

    /// The weights behind all updates.
    fn updated(&self, executor: &mut dyn Executor) -> Result<Vec<f32>, EngineError> {
        let mut state = self.states[0].clone();
        executor.load(state.clone())?;
        for number in 0..UPDATES {
            self.update(executor, number, |_| Ok(()))?;
        }
        executor.store(&mut state)?;
        Ok(state.weights.trainable)
    }

    /// The same with updates whose results come later; nothing if one of them was not made.
    fn updated_by_pipeline(&self, executor: &mut dyn Executor) -> Result<Vec<f32>, EngineError> {
        let mut state = self.states[0].clone();
        executor.load(state.clone())?;
        let Some(pipeline) = executor.pipeline() else { return Ok(Vec::new()) };
        for number in 0..UPDATES {
            pipeline.start(&self.batch(number), &UPDATE)?;
        }
        let finished = pipeline.finished(true)?;
        if finished.len() != UPDATES || finished.iter().any(|told| told.fate != Fate::Done) {
            return Ok(Vec::new());
        }
        executor.store(&mut state)?;
        Ok(state.weights.trainable)
    }

    /// The error of what enters each nonlinearity, from the first on.
    fn layers<'a>(
        &self,
        found: &'a mut dyn Executor,
        expected: &'a mut dyn Executor,
    ) -> Result<Vec<(String, f64)>, EngineError> {
        let layers = self.network.layers.iter().enumerate();
        let watched = layers.filter(|(index, _)| self.network.nonlinearity_input(*index).is_some());
        let watched: Vec<usize> = watched.map(|(index, _)| index).collect();
        let mut all = Vec::new();
        for executor in [found, expected] {
            let mut values: Vec<(usize, Vec<f32>)> = Vec::new();
            executor.load(self.states[0].clone())?;
            let mut see = |index: usize, seen: Vec<f32>| values.push((index, seen));
            let watch = Watch { layers: &watched, see: &mut see };
            let hooks = Hooks { watch: Some(watch), ..Hooks::default() };
            executor.gradients(&self.batch(0), hooks)?;
            values.sort_by_key(|(index, _)| *index);
            all.push(values);
        }
        let pairs = all[0].iter().zip(&all[1]);
        let named = pairs.map(|((index, found), (_, expected))| {
            (self.network.layers[*index].name.clone(), error(found, expected))
        });
        Ok(named.collect())
    }

    fn record<'a>(&'a self, seen: &'a Seen) -> NetworkRecord<'a> {
        let pixels = self.levels.len() / self.labels.len() / 3;
        NetworkRecord {
            table: &self.table,
            images: self.images().to_values(pixels),
            labels: &self.labels,
            weights: self.weights(),
            logits: &seen.logits,
            gradients: &seen.gradients,
        }
    }
}

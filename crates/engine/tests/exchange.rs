//! Updates of several micro-batches: their definition, the same from several ranks, and when gradients are
//! told to be ready.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use std::ops::Range;

use bninception_engine::cuda::Precision;
use bninception_engine::model::layer::Activation;
use bninception_engine::model::{
    AuxOptions, BatchNormOptions, Kind, Network, NetworkOptions, ParameterTable, Weights,
};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{
    Alone, Dtype, EngineError, Exchange, Executor, Fast, FastOptions, Hooks, Images, ModelState,
    Normaliser, Reference, Sums, TrainBatch, Update,
};

mod common;

use common::device::gpu;
use common::ranks::{Receives, Sends};

const UPDATE: Update = Update {
    sgd: SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 1e-4, nesterov: false, lr_factors: &[] },
    clip_norm: 0.5,
    tell_norm: false,
    ema_decay: 0.5,
};

/// Factors on the losses of the classes' images.
const CLASS_WEIGHTS: [f64; 10] = [0.5, 3.0, 1.0, 0.25, 1.0, 2.0, 1.0, 1.5, 1.0, 0.75];

fn network(kind: Kind) -> Network {
    let options = NetworkOptions {
        classes: 10,
        image_size: 39,
        activation: Activation::Relu,
        batch_norm: Some(BatchNormOptions { epsilon: 1e-5 }),
        conv_bias: true,
        dropout: 0.3,
        aux: Some(AuxOptions::default()),
        ..NetworkOptions::default()
    };
    Network::new(kind, options).unwrap()
}

/// Micro-batches of different sizes, as after an image that could not be read.
struct Data {
    normaliser: Normaliser,
    batches: Vec<(Vec<u8>, Vec<u32>)>,
}

impl Data {
    fn new(network: &Network, sizes: &[usize]) -> Data {
        let image = network.layers[0].output.len();
        let batch = |(index, &n): (usize, &usize)| {
            let levels = (0..n * image).map(|i| ((i + 7 * index) * 211 % 256) as u8).collect();
            (levels, (0..n).map(|i| ((3 * i + index) % 10) as u32).collect())
        };
        let normaliser = Normaliser::new([0.5; 3], [0.25; 3]);
        Data { normaliser, batches: sizes.iter().enumerate().map(batch).collect() }
    }

    fn lend(&self) -> Vec<TrainBatch<'_>> {
        let mut batches = Vec::new();
        for (number, (levels, labels)) in self.batches.iter().enumerate() {
            batches.push(TrainBatch {
                images: Images::Levels { levels, normaliser: &self.normaliser },
                labels,
                label_smoothing: 0.1,
                class_weights: Some(&CLASS_WEIGHTS),
                own_share: None,
                seed: 5,
                number: number as u64,
                bn_momentum: 0.1,
            });
        }
        batches
    }
}

type Make<'a> = Box<dyn Fn() -> Box<dyn Executor> + 'a>;

/// All executors; of GoogLeNet, whose padded layers are the fast engine's alone, only that.
fn executors(network: &Network) -> Vec<(&'static str, Make<'_>)> {
    let fast = |dtype| {
        move || -> Box<dyn Executor> {
            let options = FastOptions { threads: 2, dtype, ..FastOptions::default() };
            Box::new(Fast::new(network.clone(), options).unwrap())
        }
    };
    let mut all = vec![("f32", Box::new(fast(Dtype::F32)) as Make<'_>)];
    all.push(("bf16", Box::new(fast(Dtype::Bf16))));
    if network.kind == Kind::BnInception {
        all.push(("device", Box::new(|| Box::new(gpu(network, Precision::F32)))));
        all.push(("reference", Box::new(|| Box::new(Reference::new(network.clone())))));
    }
    all
}

fn initial(network: &Network) -> ModelState {
    ModelState::initial(network, &ParameterTable::new(network), 3, true)
}

#[test]
fn ranks_make_what_one_process_makes_of_as_many_micro_batches() {
    for kind in Kind::ALL {
        let network = network(kind);
        let data = Data::new(&network, &[4, 3, 4]);
        let batches = data.lend();
        for (name, make) in executors(&network) {
            let mut alone = make();
            alone.load(initial(&network)).unwrap();
            let mut ranks: Vec<_> = batches.iter().map(|_| make()).collect();
            // A fourth rank has nothing to give.
            ranks.push(make());
            ranks.iter_mut().for_each(|rank| rank.load(initial(&network)).unwrap());
            for step in 0..2 {
                let expected = common::update(&mut *alone, &batches, &UPDATE);
                let mut sent = Vec::new();
                for (rank, executor) in ranks.iter_mut().enumerate() {
                    if let Some(batch) = batches.get(rank) {
                        executor.gradients(batch, Hooks::default()).unwrap();
                    }
                    let mut sends = Sends::default();
                    executor.exchange(&mut sends).unwrap();
                    sent.extend(sends.0);
                }
                for (rank, executor) in ranks.iter_mut().enumerate() {
                    let what = format!("{kind:?}, {name}, step {step}, rank {rank}");
                    let found = executor.exchange(&mut Receives(sent.clone())).unwrap();
                    assert_eq!(found.micro_batches, 3, "{what}");
                    assert_eq!((found.loss, found.metrics), (expected.loss, expected.metrics));
                    assert!(executor.update(&UPDATE).unwrap().is_finite);
                    let same = common::stored(&mut **executor) == common::stored(&mut *alone);
                    assert!(same, "{what}");
                }
            }
        }
    }
}

#[test]
fn an_update_follows_its_definition() {
    let network = network(Kind::BnInception);
    let data = Data::new(&network, &[4, 3, 4]);
    let batches = data.lend();
    for (name, make) in executors(&network) {
        let start = initial(&network);
        let alone: Vec<common::Step> = batches
            .iter()
            .map(|batch| {
                common::step(&mut *make(), &start.weights, batch, Hooks::default()).unwrap()
            })
            .collect();
        let mean = |of: &dyn Fn(&common::Step) -> &Vec<f32>| -> Vec<f32> {
            let mut sum = of(&alone[0]).clone();
            for step in &alone[1..] {
                sum.iter_mut().zip(of(step)).for_each(|(sum, value)| *sum += value);
            }
            sum.iter().map(|sum| sum / 3.0).collect()
        };
        let mut executor = make();
        executor.load(start.clone()).unwrap();
        for batch in &batches {
            executor.gradients(batch, Hooks::default()).unwrap();
            let held = common::stored(&mut *executor);
            assert!(held == start, "{name}: the state changes in an update alone");
        }
        let result = executor.exchange(&mut Alone).unwrap();
        assert!(executor.update(&UPDATE).unwrap().is_finite);
        let mut gradients = Vec::new();
        executor.store_gradients(&mut gradients).unwrap();
        assert!(gradients == mean(&|step| &step.gradients), "{name}: gradients");
        let found = common::stored(&mut *executor);
        assert!(found.weights.statistics == mean(&|step| &step.statistics), "{name}: statistics");
        let loss = alone.iter().map(|step| step.loss).sum::<f64>() / 3.0;
        assert!((result.loss - loss).abs() < 1e-12, "{name}: loss");
        assert_eq!(result.metrics.images(), 11, "{name}");
        // One step of the optimizer with that gradient, and then the moving average.
        let Weights { trainable, statistics } = found.ema.unwrap();
        let half = |now: &[f32], then: &[f32]| -> Vec<f32> {
            then.iter().zip(now).map(|(then, now)| then + 0.5 * (now - then)).collect()
        };
        assert!(trainable == half(&found.weights.trainable, &start.weights.trainable));
        assert!(statistics == half(&found.weights.statistics, &start.weights.statistics));
        assert!(found.velocity.iter().any(|&velocity| velocity != 0.0));
    }
}

#[test]
fn a_gradient_longer_than_the_limit_is_scaled_to_it() {
    let network = network(Kind::BnInception);
    let data = Data::new(&network, &[4, 3]);
    let batches = data.lend();
    // Without momentum and decay the velocity is the gradient that the weights moved by.
    let sgd =
        SgdStep { lr: 0.1, momentum: 0.0, weight_decay: 0.0, nesterov: false, lr_factors: &[] };
    for (name, make) in executors(&network) {
        let mut executor = make();
        let mut run = |clip_norm: f64, tell_norm: bool, exchange: &mut dyn Exchange| {
            executor.load(initial(&network)).unwrap();
            for batch in &batches {
                executor.gradients(batch, Hooks::default()).unwrap();
            }
            executor.exchange(exchange).unwrap();
            let update = Update { sgd, clip_norm, tell_norm, ema_decay: 0.5 };
            let result = executor.update(&update).unwrap();
            let mut gradients = Vec::new();
            executor.store_gradients(&mut gradients).unwrap();
            (result, gradients, common::stored(&mut *executor))
        };
        let (plain, gradients, plain_state) = run(0.0, false, &mut Alone);
        assert_eq!((plain.is_finite, plain.gradient_norm), (true, None), "{name}");
        assert!(plain_state.velocity == gradients, "{name}");

        let (told, _, state) = run(0.0, true, &mut Alone);
        let expected = gradients.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let norm = told.gradient_norm.unwrap();
        assert!((norm - expected).abs() < 1e-12 * norm, "{name}: {norm} for {expected}");
        assert!(state == plain_state, "{name}: to tell the norm changes the update");

        let (above, _, state) = run(norm * 1.001, false, &mut Alone);
        assert_eq!(above.gradient_norm, Some(norm), "{name}");
        assert!(state == plain_state, "{name}: a limit that is not reached changes the update");

        let (clipped, unclipped, state) = run(norm / 4.0, false, &mut Alone);
        assert_eq!(clipped.gradient_norm, Some(norm), "{name}: the norm before the clipping");
        assert!(unclipped == gradients, "{name}: the gradients that are kept are clipped");
        let quarter: Vec<f32> = gradients.iter().map(|g| g * 0.25).collect();
        assert!(state.velocity == quarter, "{name}");

        // A gradient that is not finite is told, and is not made an update of nothing.
        let (spoilt, _, _) = run(1.0, false, &mut SpoilsGradient);
        assert!(!spoilt.is_finite && !spoilt.gradient_norm.unwrap().is_finite(), "{name}");
    }
}

/// Makes a gradient infinite.
struct SpoilsGradient;

impl Exchange for SpoilsGradient {
    fn ready(&mut self, _: Range<usize>, _: &[f32]) {}

    fn sum(&mut self, sums: Sums<'_>) -> Result<(), EngineError> {
        sums.gradients[7] = f32::INFINITY;
        Ok(())
    }
}

/// Keeps what was announced.
#[derive(Default)]
struct Announced(Vec<(Range<usize>, Vec<f32>)>);

impl Exchange for Announced {
    fn ready(&mut self, range: Range<usize>, gradients: &[f32]) {
        self.0.push((range, gradients.to_vec()));
    }

    fn sum(&mut self, _: Sums<'_>) -> Result<(), EngineError> {
        Ok(())
    }
}

#[test]
fn every_gradient_is_announced_once_from_the_last_layer_on_with_its_sum() {
    for kind in Kind::ALL {
        let network = network(kind);
        let table = ParameterTable::new(&network);
        let data = Data::new(&network, &[3, 3]);
        let batches = data.lend();
        for (name, make) in executors(&network) {
            if name.starts_with("device") {
                continue; // It leaves all of them to the sum.
            }
            let mut executor = make();
            executor.load(initial(&network)).unwrap();
            executor.gradients(&batches[0], Hooks::default()).unwrap();
            let mut announced = Announced::default();
            let hooks = Hooks { exchange: Some(&mut announced), ..Hooks::default() };
            executor.gradients(&batches[1], hooks).unwrap();
            let mut sums = Vec::new();
            executor.store_gradients(&mut sums).unwrap();
            let mut seen = vec![0; table.n_trainable()];
            for (range, values) in &announced.0 {
                seen[range.clone()].iter_mut().for_each(|seen| *seen += 1);
                assert!(sums[range.clone()] == values[..], "{kind:?} {name}: {range:?}");
            }
            assert!(seen.iter().all(|&seen| seen == 1), "{kind:?} {name}");
            if announced.0.len() > 1 {
                // The head of the logits first, the first convolution of all that are not padded last.
                let at = |layer: &str| {
                    let spec = table.trainable.iter().find(|spec| spec.name == layer).unwrap();
                    announced.0.iter().position(|(range, _)| *range == spec.range).unwrap()
                };
                assert!(at("last_linear.weight") < at("inception_5a_1x1.weight"));
                assert!(at("inception_5a_1x1.weight") < at("inception_3a_1x1.weight"));
                assert!(at("inception_3a_1x1.weight") < at("conv1_7x7_s2.weight"));
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_told_and_the_average_stays() {
    let network = network(Kind::BnInception);
    let data = Data::new(&network, &[4]);
    for (name, make) in executors(&network) {
        let mut executor = make();
        let start = initial(&network);
        executor.load(start.clone()).unwrap();
        executor.gradients(&data.lend()[0], Hooks::default()).unwrap();
        struct Spoils;
        impl Exchange for Spoils {
            fn ready(&mut self, _: Range<usize>, _: &[f32]) {}

            fn sum(&mut self, sums: Sums<'_>) -> Result<(), EngineError> {
                sums.statistics[5] = f32::NAN;
                Ok(())
            }
        }
        executor.exchange(&mut Spoils).unwrap();
        assert!(!executor.update(&UPDATE).unwrap().is_finite, "{name}");
        assert!(common::stored(&mut *executor).ema == start.ema, "{name}");
        // What was loaded anew goes on from there.
        executor.load(start).unwrap();
        common::update(&mut *executor, &data.lend(), &UPDATE);
        let weights = common::stored(&mut *executor).weights;
        assert!(weights.statistics.iter().all(|value| value.is_finite()), "{name}");
    }
}

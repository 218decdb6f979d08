//! The GPU engine with the host in the place of a device: the kernels of a GPU, compiled as C, and all that is
//! above them, against the engine of the CPU.
#![allow(clippy::unwrap_used)] // an executor that refuses its input is a failed test

use bninception_engine::cuda::Precision;
use bninception_engine::cuda::device::Noting;
use bninception_engine::model::layer::Activation;
use bninception_engine::model::{
    AuxOptions, Network, NetworkOptions, ParameterTable, Weights, summary,
};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{
    Alone, EngineError, EvaluationWeights, Executor, Features, Gpu, GpuOptions, Hooks, ModelState,
    NormExchange, StepResult, Update, Watch,
};

mod common;

use common::comparison::{
    Batch, CLASSES, Limits, RELU, SIGMOID, compare, error, fast, options, random, step, weights,
};
use common::device::{Levels, UPDATE, bn, googlenet, gpu, with_average, with_options};
use common::stored;

/// Networks with all kinds of layers, with the number of images and limits.
fn cases() -> Vec<(&'static str, Network, usize, Limits)> {
    let aux = Some(AuxOptions::default());
    let sigmoid = Activation::Sigmoid;
    let plain = |options| NetworkOptions { batch_norm: None, conv_bias: true, ..options };
    vec![
        ("32 px", bn(options(32)), 4, RELU),
        ("47 px", bn(options(47)), 5, RELU),
        (
            "wide",
            bn(NetworkOptions { pool_proj_4c4d: 128, conv_bias: true, ..options(64) }),
            3,
            RELU,
        ),
        ("LRN", bn(NetworkOptions { lrn: true, dropout: 0.4, ..options(47) }), 4, RELU),
        ("sigmoid", bn(NetworkOptions { activation: sigmoid, ..options(33) }), 4, SIGMOID),
        ("heads", bn(NetworkOptions { aux, dropout: 0.4, ..options(64) }), 3, RELU),
        ("plain", bn(NetworkOptions { lrn: true, ..plain(options(47)) }), 3, RELU),
        ("no bias", bn(NetworkOptions { batch_norm: None, ..options(33) }), 1, RELU),
        (
            "GoogLeNet",
            googlenet(NetworkOptions { lrn: true, dropout: 0.4, aux, ..plain(options(47)) }),
            3,
            RELU,
        ),
        (
            "GoogLeNet with batch norm",
            googlenet(NetworkOptions { activation: sigmoid, aux, ..options(64) }),
            4,
            SIGMOID,
        ),
    ]
}

/// The bits of a step do not depend on the way that leads to it.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_step_is_that_of_the_cpu_on_all_kinds_of_network() {
    for (what, network, n, limits) in cases() {
        let table = ParameterTable::new(&network);
        let (weights, batch) = (weights(&network), Batch::new(&network, n));
        let expected = step(&mut fast(&network, 2), &weights, &batch);
        let found = step(&mut gpu(&network, Precision::F32), &weights, &batch);
        compare(what, &table, &found, &expected, limits);
        let merge_siblings = false;
        let options =
            GpuOptions { precision: Precision::F32, merge_siblings, ..Default::default() };
        let found = step(&mut with_options(&network, options), &weights, &batch);
        compare(&format!("{what}, apart"), &table, &found, &expected, limits);
    }
}

#[test]
fn frozen_layers_run_as_in_evaluation_and_stay() {
    let aux = Some(AuxOptions::default());
    let plain = NetworkOptions { batch_norm: None, conv_bias: true, lrn: true, ..options(33) };
    let cases = [
        ("stem", bn(options(33)), 3),
        ("stem..inception_4a", bn(NetworkOptions { aux, ..options(33) }), 6),
        ("stem..inception_5b", bn(options(33)), 4),
        ("stem..inception_4c", googlenet(plain), 3),
    ];
    for (range, network, n) in cases {
        let network = network.with_frozen(range).unwrap();
        let table = ParameterTable::new(&network);
        let (weights, batch) = (weights(&network), Batch::new(&network, n));
        let expected = step(&mut fast(&network, 2), &weights, &batch);
        let mut executor = gpu(&network, Precision::F32);
        compare(range, &table, &step(&mut executor, &weights, &batch), &expected, RELU);

        executor.load(ModelState::of(weights.clone())).unwrap();
        for _ in 0..3 {
            common::update(&mut executor, &[batch.lend(), batch.lend(), batch.lend()], &UPDATE);
        }
        let after = stored(&mut executor);
        for spec in table.trainable.iter().filter(|spec| spec.layer <= network.frozen) {
            let of = |values: &[f32]| bits(&values[spec.range.clone()]);
            assert_eq!(of(&after.weights.trainable), of(&weights.trainable), "{}", spec.name);
            assert!(after.velocity[spec.range.clone()].iter().all(|&v| v == 0.0), "{}", spec.name);
        }
        for spec in table.statistics.iter().filter(|spec| spec.layer <= network.frozen) {
            let of = |values: &[f32]| bits(&values[spec.range.clone()]);
            assert_eq!(of(&after.weights.statistics), of(&weights.statistics), "{}", spec.name);
        }
    }
}

#[test]
fn three_updates_are_those_of_the_cpu() {
    let sigmoid = NetworkOptions { activation: Activation::Sigmoid, dropout: 0.3, ..options(33) };
    let network = bn(sigmoid);
    let factors: Vec<f64> = {
        let table = ParameterTable::new(&network);
        (0..table.trainable.len()).map(|index| [1.0, 0.5, 0.0, 2.0][index % 4]).collect()
    };
    let weights = weights(&network);
    let sgd = SgdStep { lr_factors: &factors, nesterov: true, ..UPDATE.sgd };
    for (micro_batches, update) in
        [(1, UPDATE), (1, Update { clip_norm: 0.05, ..UPDATE }), (3, Update { sgd, ..UPDATE })]
    {
        let (mut cpu, mut device) = (fast(&network, 2), gpu(&network, Precision::F32));
        let mut before = with_average(&weights);
        for number in 0..3 {
            let run = |executor: &mut dyn Executor| {
                executor.load(before.clone()).unwrap();
                for micro in 0..micro_batches {
                    let batch = Levels::new(&network, 4, 10 * number + micro);
                    let batch = batch.lend(number * micro_batches + micro);
                    executor.gradients(&batch, Hooks::default()).unwrap();
                }
                let step = executor.exchange(&mut Alone).unwrap();
                let result = executor.update(&update).unwrap();
                assert!(result.is_finite);
                (stored(executor), step, result.gradient_norm.unwrap())
            };
            let (expected, of_cpu, cpu_norm) = run(&mut cpu);
            let (found, step, norm) = run(&mut device);
            let what = format!("update {number}, {micro_batches} micro-batches");
            let near = |part: &str, found: f64, expected: f64, limit: f64| {
                let error = (found - expected).abs() / expected;
                assert!(error < limit, "{what}, {part}: {found} {expected}");
            };
            let loss = |step: &StepResult| step.metrics.loss().unwrap();
            near("loss", step.loss, of_cpu.loss, 1e-5);
            near("loss of the images", loss(&step), loss(&of_cpu), 1e-5);
            near("norm", norm, cpu_norm, 1e-3);
            assert_eq!(step.micro_batches, of_cpu.micro_batches);
            assert_eq!(step.metrics.images(), of_cpu.metrics.images());

            let moved = |state: &ModelState| -> Vec<f32> {
                let pairs = state.weights.trainable.iter().zip(&before.weights.trainable);
                pairs.map(|(a, b)| a - b).collect()
            };
            let averages = [&found, &expected].map(|state| state.ema.clone().unwrap());
            for (part, error) in [
                ("weights", error(&moved(&found), &moved(&expected)) / 100.0),
                ("velocity", error(&found.velocity, &expected.velocity) / 100.0),
                ("statistics", error(&found.weights.statistics, &expected.weights.statistics)),
                ("average of weights", error(&averages[0].trainable, &averages[1].trainable)),
                ("average of statistics", error(&averages[0].statistics, &averages[1].statistics)),
            ] {
                assert!(error < 2e-5, "{what}, {part}: {error:.1e}");
            }
            // From the same state again: what rounding leads to would hide what is wrong.
            before = expected;
        }
    }
}

#[test]
fn bf16_only_rounds() {
    // A network without pools that choose and without sides of ReLUs tells rounding from its consequences.
    let sigmoid = NetworkOptions { activation: Activation::Sigmoid, ..options(64) };
    let network = bn(sigmoid);
    let (weights, batch) = (weights(&network), Batch::new(&network, 8));
    let expected = step(&mut fast(&network, 2), &weights, &batch);
    let found = step(&mut gpu(&network, Precision::Bf16), &weights, &batch);
    let within = |what: &str, found: &[f32], expected: &[f32], limit: f64| {
        let error = error(found, expected);
        assert!(error < limit, "{what}: {error:.1e}");
        // What is computed in bf16 is not what f32 gives.
        assert!(error > 1e-5, "{what}: {error:.1e}");
    };
    within("logits", &found.logits, &expected.logits, 3e-2);
    within("evaluation", &found.evaluation, &expected.evaluation, 3e-2);
    within("statistics", &found.statistics, &expected.statistics, 1e-2);
    // As the CPU's: errors of 2^-9 grow through 31 layers (networks.rs).
    within("gradients", &found.gradients, &expected.gradients, 3e-1);
}

#[test]
fn a_state_comes_back_as_it_went_and_goes_on_elsewhere() {
    let network = googlenet(NetworkOptions { dropout: 0.2, ..options(47) });
    let weights = weights(&network);
    let mut state = with_average(&weights);
    state.velocity = random(9, weights.trainable.len());
    state.velocity.iter_mut().for_each(|value| *value *= 1e-3);
    state.ema.as_mut().unwrap().statistics.iter_mut().for_each(|value| *value *= 1.5);
    for precision in [Precision::F32, Precision::Bf16] {
        let mut executor = gpu(&network, precision);
        executor.load(state.clone()).unwrap();
        assert_eq!(stored(&mut executor), state, "{precision:?}");
    }

    // CPU, device, CPU: the same course as on the CPU alone, but for rounding.
    let batches: Vec<Levels> = (0..3).map(|seed| Levels::new(&network, 4, seed)).collect();
    let mut cpu = fast(&network, 2);
    cpu.load(state.clone()).unwrap();
    for (batch, number) in batches.iter().zip(0..) {
        common::update(&mut cpu, &[batch.lend(number)], &UPDATE);
    }
    let expected = stored(&mut cpu);
    let mut device = gpu(&network, Precision::F32);
    for (batch, number) in batches.iter().zip(0..) {
        let executor: &mut dyn Executor = if number == 1 { &mut device } else { &mut cpu };
        executor.load(state).unwrap();
        common::update(executor, &[batch.lend(number)], &UPDATE);
        state = stored(executor);
    }
    let weights = error(&state.weights.trainable, &expected.weights.trainable);
    let velocity = error(&state.velocity, &expected.velocity);
    assert!(weights < 1e-2 && velocity < 1e-1, "weights {weights:.1e}, velocity {velocity:.1e}");
}

#[test]
fn evaluation_in_parts_has_the_bits_of_the_whole_and_features_are_the_cpus() {
    let network = bn(NetworkOptions { dropout: 0.4, ..options(33) });
    let (weights, batch) = (weights(&network), Batch::new(&network, 9));
    let image = network.layers[0].output.len();
    let (mut cpu, mut device) = (fast(&network, 2), gpu(&network, Precision::F32));
    let mut results = Vec::new();
    for executor in [&mut cpu as &mut dyn Executor, &mut device] {
        executor.prepare_evaluation(EvaluationWeights::Given(&weights)).unwrap();
        let mut features = Features { maps: Some(Vec::new()), ..Features::default() };
        let mut logits = Vec::new();
        executor.evaluate_features(batch.images(), &mut logits, &mut features).unwrap();
        let mut parts = Vec::new();
        for range in [0..4, 4..5, 5..9] {
            let images = batch.images().slice(range.start * image..range.end * image);
            let mut part = Vec::new();
            executor.evaluate(images, &mut part).unwrap();
            parts.extend(part);
        }
        results.push((logits, features, parts));
    }
    let [(expected, of_cpu, _), (logits, features, parts)] = &results[..] else { panic!() };
    assert_eq!(logits, parts, "in parts");
    assert!(error(logits, expected) < 1e-5);
    assert!(error(&features.pooled, &of_cpu.pooled) < 1e-5);
    let maps = |features: &Features| features.maps.clone().unwrap();
    assert!(error(&maps(features), &maps(of_cpu)) < 1e-5);
}

#[test]
fn evaluation_uses_the_weights_that_it_was_prepared_for() {
    let network = bn(options(32));
    let (weights, batch) = (weights(&network), Batch::new(&network, 4));
    let mut other = weights.clone();
    other.trainable.iter_mut().for_each(|weight| *weight *= 0.9);
    let mut state = with_average(&weights);
    state.ema = Some(other.clone());
    let statistics: Vec<f32> = weights.statistics.iter().map(|value| value * 1.1).collect();
    for precision in [Precision::F32, Precision::Bf16] {
        let mut executor = gpu(&network, precision);
        let evaluate = |executor: &mut Gpu, weights: EvaluationWeights<'_>| {
            executor.prepare_evaluation(weights).unwrap();
            let mut logits = Vec::new();
            executor.evaluate(batch.images(), &mut logits).unwrap();
            logits
        };
        let of_other = evaluate(&mut executor, EvaluationWeights::Given(&other));
        let with_statistics = Weights { statistics: statistics.clone(), ..other.clone() };
        let of_both = evaluate(&mut executor, EvaluationWeights::Given(&with_statistics));
        assert_ne!(of_other, of_both);
        executor.load(ModelState::of(weights.clone())).unwrap();
        let held = evaluate(&mut executor, EvaluationWeights::Held);
        assert_eq!(held, evaluate(&mut executor, EvaluationWeights::Given(&weights)));
        executor.load(state.clone()).unwrap();
        assert_eq!(evaluate(&mut executor, EvaluationWeights::Held), of_other);
        let found = evaluate(&mut executor, EvaluationWeights::HeldWith(&statistics));
        assert_eq!(found, of_both);

        common::update(&mut executor, &[batch.lend()], &UPDATE);
        let refused = executor.evaluate(batch.images(), &mut Vec::new());
        assert!(matches!(refused, Err(EngineError::NotPrepared)));
        assert_ne!(evaluate(&mut executor, EvaluationWeights::Held), of_other);
    }
}

#[test]
fn statistics_of_a_batch_are_the_cpus_and_change_nothing() {
    for network in [bn(options(33)), bn(options(33)).with_frozen("stem..inception_3a").unwrap()] {
        let (weights, batch) = (weights(&network), Batch::new(&network, 4));
        let (mut cpu, mut device) = (fast(&network, 2), gpu(&network, Precision::F32));
        let mut found = Vec::new();
        for executor in [&mut cpu as &mut dyn Executor, &mut device] {
            executor.load(with_average(&weights)).unwrap();
            common::update(executor, &[batch.lend()], &UPDATE);
            let before = stored(executor);
            executor.prepare_evaluation(EvaluationWeights::Given(&weights)).unwrap();
            let mut statistics = Vec::new();
            executor.batch_statistics(batch.images(), &mut statistics).unwrap();
            found.push(statistics);
            assert_eq!(stored(executor), before);
            // An update behind it is as one without it.
            common::update(executor, &[batch.lend()], &UPDATE);
        }
        assert!(error(&found[1], &found[0]) < 2e-5);
        let (a, b) = (stored(&mut device), stored(&mut cpu));
        assert!(error(&a.weights.statistics, &b.weights.statistics) < 1e-2);
    }
}

#[test]
fn watched_layers_are_the_cpus_and_change_no_bit() {
    for options in
        [options(33), NetworkOptions { batch_norm: None, conv_bias: true, ..options(33) }]
    {
        let network = bn(options);
        let (weights, batch) = (weights(&network), Batch::new(&network, 4));
        let named = |name: &str| network.layers.iter().position(|l| l.name == name).unwrap();
        let layers =
            [named("conv2_3x3"), named("inception_3a_3x3_reduce"), named("inception_5b_1x1")];
        let watched = |executor: &mut dyn Executor, layers: &[usize]| {
            let mut seen = Vec::new();
            let mut see = |layer: usize, values: Vec<f32>| seen.push((layer, values));
            let watch = (!layers.is_empty()).then_some(Watch { layers, see: &mut see });
            let hooks = Hooks { watch, ..Hooks::default() };
            let step = common::step(executor, &weights, &batch.lend(), hooks).unwrap();
            seen.sort_by_key(|(layer, _)| *layer);
            (step, seen)
        };
        let mut device = gpu(&network, Precision::F32);
        let (step, seen) = watched(&mut device, &layers);
        assert_eq!(step, watched(&mut device, &[]).0);
        let (_, expected) = watched(&mut fast(&network, 2), &layers);
        for ((layer, found), (other, expected)) in seen.iter().zip(&expected) {
            assert_eq!(layer, other);
            assert!(error(found, expected) < 1e-4, "{}", network.layers[*layer].name);
        }
        assert_eq!(seen.len(), layers.len());
    }
}

#[test]
fn steps_behind_the_first_take_no_memory_and_the_need_is_told() {
    let network = bn(NetworkOptions { dropout: 0.4, ..options(64) });
    let (weights, batch) = (weights(&network), Batch::new(&network, 6));
    let levels = Levels::new(&network, 6, 3);
    let mut executor = gpu(&network, Precision::Bf16);
    let before = executor.device_memory(6).unwrap().unwrap();
    executor.load(with_average(&weights)).unwrap();
    let run = |executor: &mut Gpu| {
        common::update(executor, &[levels.lend(0)], &UPDATE);
        let pipeline = executor.pipeline().unwrap();
        pipeline.start(&levels.lend(0), &UPDATE).unwrap();
        pipeline.start(&levels.lend(1), &UPDATE).unwrap();
        pipeline.finished(true).unwrap();
        executor.prepare_evaluation(EvaluationWeights::Held).unwrap();
        executor.evaluate(levels.lend(0).images, &mut Vec::new()).unwrap();
        executor.device_memory(6).unwrap().unwrap()
    };
    let first = run(&mut executor);
    assert_eq!(first, run(&mut executor));
    assert_eq!(first, run(&mut executor));
    assert_eq!((first.needed, first.total), (before.needed, before.total));
    let (needed, taken) = (before.needed as f64, first.taken as f64);
    assert!((taken / needed - 1.0).abs() < 0.02, "told {needed}, took {taken}");
    // A batch twice as large takes about twice as much for its maps.
    let twice = executor.device_memory(12).unwrap().unwrap().needed;
    assert!(twice > before.needed && twice < 2 * before.needed);
    drop(batch);
}

#[test]
fn what_a_step_starts_is_told_stage_by_stage() {
    let network = bn(options(64));
    let (weights, batch) = (weights(&network), Batch::new(&network, 2));
    let mut executor = gpu(&network, Precision::Bf16);
    executor.load(ModelState::of(weights)).unwrap();
    assert!(executor.trace(Noting::Starts).is_empty());
    common::update(&mut executor, &[batch.lend()], &UPDATE);
    let traced = executor.trace(Noting::Nothing);
    assert!(traced.iter().all(|traced| traced.time.is_none()));
    let convolutions = traced.iter().filter(|traced| traced.kernel.starts_with("convolution"));
    let operations: usize = convolutions.map(|traced| traced.cost.operations).sum();
    let macs: usize = summary::summarise(&network).iter().map(|layer| layer.macs).sum();
    // Three directions but for the image's, and the image has 8 channels here instead of 3.
    let ratio = operations as f64 / (2 * 3 * 2 * macs) as f64;
    assert!((0.98..1.1).contains(&ratio), "operations {ratio} times the network's");
    assert!(traced.iter().all(|traced| !traced.stage.is_empty()));
    common::update(&mut executor, &[batch.lend()], &UPDATE);
    assert!(executor.trace(Noting::Nothing).is_empty());
}

#[test]
fn what_is_not_offered_is_said() {
    struct Nobody;
    impl NormExchange for Nobody {
        fn gather(&mut self, _: &[f64], _: &mut Vec<f64>) -> Result<(), EngineError> {
            Ok(())
        }
    }
    let network = bn(options(32));
    let batch = Batch::new(&network, 2);
    let mut executor = gpu(&network, Precision::F32);
    let hooks = || Hooks::default();
    assert!(matches!(executor.gradients(&batch.lend(), hooks()), Err(EngineError::NotLoaded)));
    assert!(matches!(executor.update(&UPDATE), Err(EngineError::NotLoaded)));
    executor.load(ModelState::of(weights(&network))).unwrap();
    assert!(matches!(executor.update(&UPDATE), Err(EngineError::NoGradients)));
    let evaluated = executor.evaluate(batch.images(), &mut Vec::new());
    assert!(matches!(evaluated, Err(EngineError::NotPrepared)));
    let norm = Some(&mut Nobody as &mut dyn NormExchange);
    let refused = executor.gradients(&batch.lend(), Hooks { norm, ..hooks() }).unwrap_err();
    assert!(refused.to_string().contains("network.sync_bn"), "{refused}");
    let mut bad = Batch::new(&network, 2);
    bad.labels[1] = CLASSES as u32;
    assert!(matches!(executor.gradients(&bad.lend(), hooks()), Err(EngineError::Model(_))));
    executor.gradients(&batch.lend(), hooks()).unwrap();
}

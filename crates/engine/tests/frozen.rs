//! Frozen layers run as in evaluation, get no gradient, and stay as they are.
#![allow(clippy::unwrap_used)] // an executor that refuses its input is a failed test

use bninception_engine::model::layer::Activation;
use bninception_engine::model::{
    AuxOptions, Kind, Network, NetworkOptions, ParameterTable, Weights,
};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{
    Alone, Dtype, EvaluationWeights, Executor, Fast, FastOptions, Hooks, ModelState, Reference,
    Update,
};

mod common;

use common::comparison::{Batch, RELU, compare, error, fast, options, random, step, weights};

/// The ranges of both kinds of network that the tests freeze, with the number of images.
fn cases() -> Vec<(&'static str, Network, usize)> {
    let aux = Some(AuxOptions::default());
    let sigmoid = Activation::Sigmoid;
    let bn = |range, options| (range, Network::bn_inception(options).unwrap());
    let google = |range, options: NetworkOptions| {
        let options = NetworkOptions {
            batch_norm: None,
            conv_bias: true,
            lrn: true,
            dropout: 0.4,
            ..options
        };
        (range, Network::new(Kind::GoogLeNet, options).unwrap())
    };
    [
        (bn("stem", options(33)), 3),
        (bn("stem..inception_3b", options(47)), 4),
        // The output is read by an auxiliary head too.
        (bn("stem..inception_4a", NetworkOptions { aux, activation: sigmoid, ..options(33) }), 6),
        (bn("stem..inception_4e", NetworkOptions { dropout: 0.4, ..options(33) }), 5),
        (bn("stem..inception_5b", options(33)), 4),
        // What reads it is a pool; 4b has channels that are no multiple of a block.
        (google("stem..inception_3b", options(33)), 2),
        (google("stem..inception_4c", options(33)), 3),
    ]
    .into_iter()
    .map(|((range, network), n)| (range, network.with_frozen(range).unwrap(), n))
    .collect()
}

#[test]
fn a_step_matches_the_reference() {
    for (range, network, n) in cases() {
        let table = ParameterTable::new(&network);
        let (weights, batch) = (weights(&network), Batch::new(&network, n));
        let expected = step(&mut Reference::in_f64(network.clone()), &weights, &batch);
        for spec in table.trainable.iter().filter(|spec| spec.layer <= network.frozen) {
            let gradient = &expected.gradients[spec.range.clone()];
            assert!(gradient.iter().all(|&g| g == 0.0), "{range}: {}", spec.name);
        }
        for spec in table.statistics.iter().filter(|spec| spec.layer <= network.frozen) {
            let range = spec.range.clone();
            assert_eq!(expected.statistics[range.clone()], weights.statistics[range]);
        }
        for (threads, merge_siblings) in [(1, true), (2, false), (3, true)] {
            let options = FastOptions { threads, merge_siblings, ..FastOptions::default() };
            let mut fast = Fast::new(network.clone(), options).unwrap();
            let what = format!("{range}, {threads} threads, merged {merge_siblings}");
            compare(&what, &table, &step(&mut fast, &weights, &batch), &expected, RELU);
        }
    }
}

#[test]
fn what_is_frozen_does_not_move() {
    let update = Update {
        sgd: SgdStep {
            lr: 0.05,
            momentum: 0.9,
            weight_decay: 0.01,
            nesterov: true,
            lr_factors: &[],
        },
        clip_norm: 0.0,
        tell_norm: true,
        ema_decay: 0.5,
    };
    for (range, network, n) in cases() {
        let table = ParameterTable::new(&network);
        let weights = weights(&network);
        let state = ModelState {
            velocity: random(9, weights.trainable.len()),
            ema: Some(weights.clone()),
            weights,
        };
        let batch = Batch::new(&network, n);
        let mut engines: Vec<Box<dyn Executor>> = vec![Box::new(fast(&network, 2))];
        if range == "stem" {
            engines.push(Box::new(Reference::new(network.clone())));
        }
        for mut engine in engines {
            engine.load(state.clone()).unwrap();
            // Three, because a third of three equal values is not always one of them.
            let batches = [batch.lend(), batch.lend(), batch.lend()];
            common::update(engine.as_mut(), &batches, &update);
            let found = common::stored(engine.as_mut());
            let moved = |range: std::ops::Range<usize>, before: &[f32], after: &[f32]| {
                before[range.clone()] != after[range]
            };
            let averages = |state: &ModelState| state.ema.clone().unwrap();
            for spec in &table.trainable {
                let moves = [
                    moved(spec.range.clone(), &state.weights.trainable, &found.weights.trainable),
                    moved(spec.range.clone(), &state.velocity, &found.velocity),
                    moved(
                        spec.range.clone(),
                        &averages(&state).trainable,
                        &averages(&found).trainable,
                    ),
                ];
                assert_eq!(moves, [spec.layer > network.frozen; 3], "{range}: {}", spec.name);
            }
            for spec in &table.statistics {
                let (before, after) = (&state.weights.statistics, &found.weights.statistics);
                let has_moved = moved(spec.range.clone(), before, after);
                assert_eq!(has_moved, spec.layer > network.frozen, "{range}: {}", spec.name);
            }
        }
    }
}

/// Statistics of a batch are those of the weights that evaluation was prepared for, frozen layers too, and
/// leave the packed weights of training alone.
#[test]
fn statistics_of_other_weights_do_not_disturb_training() {
    let network = Network::bn_inception(options(33)).unwrap();
    let network = network.with_frozen("stem..inception_3b").unwrap();
    let table = ParameterTable::new(&network);
    let (own, batch) = (weights(&network), Batch::new(&network, 4));
    let other = Weights {
        trainable: own.trainable.iter().map(|value| value * 0.75).collect(),
        statistics: own.statistics.iter().map(|value| value * 1.5).collect(),
    };
    let mut reference = Reference::in_f64(network.clone());
    let mut engine = fast(&network, 2);
    let gradients = |engine: &mut Fast| {
        engine.gradients(&batch.lend(), Hooks::default()).unwrap();
        let mut gradients = Vec::new();
        engine.store_gradients(&mut gradients).unwrap();
        engine.exchange(&mut Alone).unwrap();
        engine.update(&common::NO_UPDATE).unwrap();
        gradients
    };
    engine.load(ModelState::of(own.clone())).unwrap();
    let first = gradients(&mut engine);
    engine.prepare_evaluation(EvaluationWeights::Given(&other)).unwrap();
    reference.prepare_evaluation(EvaluationWeights::Given(&other)).unwrap();
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for (executor, to) in [
        (&mut engine as &mut dyn Executor, &mut found),
        (&mut reference as &mut dyn Executor, &mut expected),
    ] {
        executor.batch_statistics(batch.images(), to).unwrap();
    }
    assert!(error(&found, &expected) < 2e-5, "{}", error(&found, &expected));
    for spec in table.statistics.iter().filter(|spec| spec.layer <= network.frozen) {
        let range = spec.range.clone();
        assert_eq!(found[range.clone()], other.statistics[range], "{}", spec.name);
    }
    assert_eq!(gradients(&mut engine), first);
}

/// Behind the last module nothing but the classifier is left.
#[test]
fn a_frozen_trunk_sees_what_evaluation_sees() {
    let network = Network::bn_inception(options(33)).unwrap();
    let network = network.with_frozen("stem..inception_5b").unwrap();
    let (weights, batch) = (weights(&network), Batch::new(&network, 5));
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let options = FastOptions { threads: 2, dtype, ..FastOptions::default() };
        let found = step(&mut Fast::new(network.clone(), options).unwrap(), &weights, &batch);
        assert_eq!(found.logits, found.evaluation, "{dtype:?}");
        assert_eq!(found.statistics, weights.statistics, "{dtype:?}");
    }
}

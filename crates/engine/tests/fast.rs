//! The fast engine against the reference executor, which computes in f64: loss, logits, all
//! gradients, running statistics, evaluation.
#![allow(clippy::unwrap_used)] // an executor that refuses its input is a failed test

use std::ops::Range;

use bninception_engine::model::layer::Activation;
use bninception_engine::model::{
    AuxOptions, BatchNormOptions, Kind, Network, NetworkOptions, ParameterTable, Weights,
};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{
    Dtype, EngineError, EvaluationWeights, Exchange, Executor, Fast, FastOptions, Hooks, Images,
    ModelState, Normaliser, Reference, Sums, TrainBatch, Update,
};

mod common;

use common::comparison::{
    Batch, CLASSES, Outcome, RELU, SIGMOID, compare, error, fast, options, random, step, weights,
};

#[test]
fn all_kinds_of_network_match_the_reference() {
    let sigmoid = Activation::Sigmoid;
    let other = BatchNormOptions { epsilon: 1e-3 };
    let cases = [
        ("32 px", options(32), 4),
        ("33 px", options(33), 3),
        ("47 px", options(47), 5),
        ("64 px", options(64), 4),
        ("wide", NetworkOptions { pool_proj_4c4d: 128, conv_bias: true, ..options(64) }, 3),
        ("LRN", NetworkOptions { lrn: true, dropout: 0.4, ..options(47) }, 4),
        ("sigmoid", NetworkOptions { activation: sigmoid, ..options(33) }, 4),
        ("constants", NetworkOptions { batch_norm: Some(other), ..options(64) }, 4),
        (
            "plain",
            NetworkOptions {
                batch_norm: None,
                conv_bias: true,
                lrn: true,
                dropout: 0.4,
                ..options(47)
            },
            3,
        ),
        ("plain without biases", NetworkOptions { batch_norm: None, ..options(33) }, 1),
        (
            "plain sigmoid",
            NetworkOptions {
                batch_norm: None,
                activation: sigmoid,
                conv_bias: true,
                ..options(64)
            },
            2,
        ),
    ];
    for (what, options, n) in cases {
        matches_reference(what, &Network::bn_inception(options).unwrap(), n);
    }
}

#[test]
fn googlenet_and_auxiliary_heads_match_the_reference() {
    let sigmoid = Activation::Sigmoid;
    let norm = Some(BatchNormOptions { epsilon: 1e-5 });
    let aux = Some(AuxOptions::default());
    let both = NetworkOptions { aux, ..options(64) };
    let wide = NetworkOptions { aux, ..options(128) };
    let cases = [
        // At 128 px the heads' windows are 5x5 on maps of 8x8 and 7x7; below they cover the map.
        ("published", Kind::GoogLeNet, googlenet(wide), 2),
        ("without heads, 33 px", Kind::GoogLeNet, googlenet(options(33)), 2),
        (
            "sigmoid",
            Kind::GoogLeNet,
            NetworkOptions { activation: sigmoid, ..googlenet(both.clone()) },
            3,
        ),
        ("batch norm", Kind::GoogLeNet, NetworkOptions { batch_norm: norm, ..both.clone() }, 4),
        // Six images, because batch norm after the fully connected layers has one value an image.
        ("sigmoid", Kind::BnInception, NetworkOptions { activation: sigmoid, ..both.clone() }, 6),
        ("plain", Kind::BnInception, googlenet(both), 3),
    ];
    for (what, kind, options, n) in cases {
        let what = format!("{kind:?}, {what}");
        matches_reference(&what, &Network::new(kind, options).unwrap(), n);
    }
}

/// With the options of GoogLeNet.
fn googlenet(options: NetworkOptions) -> NetworkOptions {
    NetworkOptions { batch_norm: None, conv_bias: true, lrn: true, dropout: 0.4, ..options }
}

/// Compares the engine, with all choices of algorithms, with the reference on `n` images.
fn matches_reference(what: &str, network: &Network, n: usize) {
    let sigmoid = network.options.activation == Activation::Sigmoid;
    let limits = if sigmoid { SIGMOID } else { RELU };
    let table = ParameterTable::new(network);
    let (weights, batch) = (weights(network), Batch::new(network, n));
    let expected = step(&mut Reference::in_f64(network.clone()), &weights, &batch);
    for winograd in [false, true] {
        for merge_siblings in [false, true] {
            let options =
                FastOptions { threads: 2, winograd, merge_siblings, ..FastOptions::default() };
            let mut fast = Fast::new(network.clone(), options).unwrap();
            let what = format!("{what}, winograd {winograd}, merged {merge_siblings}");
            compare(&what, &table, &step(&mut fast, &weights, &batch), &expected, limits);
        }
    }
}

/// With auxiliary heads and sigmoids.
fn network_with_heads() -> Network {
    let activation = Activation::Sigmoid;
    let options = NetworkOptions { activation, aux: Some(AuxOptions::default()), ..options(64) };
    Network::bn_inception(options).unwrap()
}

/// One step of the engine on `batch`, compared with the reference; what is counted of the images has the
/// loss of the step.
fn labels_match_the_reference(
    what: &str,
    network: &Network,
    engine: &mut Fast,
    batch: &Batch,
) -> Outcome {
    let weights = weights(network);
    let expected = step(&mut Reference::in_f64(network.clone()), &weights, batch);
    let found = step(engine, &weights, batch);
    compare(what, &ParameterTable::new(network), &found, &expected, SIGMOID);
    let result = engine.gradients(&batch.lend(), Hooks::default()).unwrap();
    let counted = result.metrics.loss().unwrap();
    assert!((counted - result.loss).abs() < 1e-9 * counted, "{counted} for {}", result.loss);
    found
}

fn class_weights() -> Vec<f64> {
    (0..CLASSES).map(|class| 0.2 + 0.3 * class as f64).collect()
}

/// With label smoothing and weights of classes; an odd number of images, whose middle one is its own partner.
#[test]
fn mixed_labels_match_the_reference() {
    let network = network_with_heads();
    let mixed = |own_share| Batch {
        own_share,
        class_weights: Some(class_weights()),
        ..Batch::new(&network, 7)
    };
    let mut engine = fast(&network, 2);
    let found = labels_match_the_reference("mixed", &network, &mut engine, &mixed(Some(0.6875)));

    // All of an image itself is not mixed, bit by bit.
    let weights = weights(&network);
    let plain = step(&mut engine, &weights, &mixed(None));
    assert!(plain == step(&mut engine, &weights, &mixed(Some(1.0))) && plain != found);
}

/// With label smoothing.
#[test]
fn weighted_classes_match_the_reference() {
    let network = network_with_heads();
    let batch = Batch { class_weights: Some(class_weights()), ..Batch::new(&network, 6) };
    let mut engine = fast(&network, 2);
    let found = labels_match_the_reference("weighted", &network, &mut engine, &batch);

    // The loss is that of the definition.
    let (smoothing, class_weights) = (f64::from(0.1_f32), class_weights());
    let loss = |(logits, &label): (&[f32], &u32)| {
        let sum: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
        let log = |class: usize| f64::from(logits[class]) - sum.ln();
        let even: f64 = (0..CLASSES).map(log).sum::<f64>() / CLASSES as f64;
        -class_weights[label as usize]
            * ((1.0 - smoothing) * log(label as usize) + smoothing * even)
    };
    let losses = found.logits.chunks(CLASSES).zip(&batch.labels).map(loss);
    let mean = losses.sum::<f64>() / batch.labels.len() as f64;
    assert!((found.loss - mean).abs() < 1e-6 * mean, "{} for {mean}", found.loss);

    // Weights of one keep every bit.
    let weights = weights(&network);
    let plain = Batch::new(&network, 6);
    let even = Batch { class_weights: Some(vec![1.0; CLASSES]), ..Batch::new(&network, 6) };
    let (plain, even) = (step(&mut engine, &weights, &plain), step(&mut engine, &weights, &even));
    assert!(plain == even && plain != found);
}

/// bf16 if nothing amplifies its rounding: each factor is off by up to 2^-9.
#[test]
fn googlenet_in_bf16_matches_the_reference_within_its_rounding() {
    let options = NetworkOptions {
        activation: Activation::Sigmoid,
        aux: Some(AuxOptions::default()),
        ..googlenet(options(64))
    };
    let network = Network::googlenet(options).unwrap();
    let (weights, batch) = (weights(&network), Batch::new(&network, 3));
    let expected = step(&mut Reference::in_f64(network.clone()), &weights, &batch);
    let options = FastOptions { threads: 2, dtype: Dtype::Bf16, ..FastOptions::default() };
    let found = step(&mut Fast::new(network, options).unwrap(), &weights, &batch);
    assert!((found.loss - expected.loss).abs() / expected.loss < 3e-2);
    assert!(error(&found.logits, &expected.logits) < 3e-2);
    assert!(error(&found.evaluation, &expected.evaluation) < 3e-2);
    assert!(error(&found.gradients, &expected.gradients) < 5e-2);
}

#[test]
fn gradients_agree_to_rounding_where_nothing_changes_sides() {
    let network = Network::bn_inception(options(47)).unwrap();
    let weights = weights(&network);
    let draws = (20..26).map(|seed| {
        let mut batch = Batch::new(&network, 5);
        batch.images = random(seed, batch.images.len());
        let expected = step(&mut Reference::in_f64(network.clone()), &weights, &batch);
        let options = FastOptions { threads: 2, winograd: false, ..FastOptions::default() };
        let found = step(&mut Fast::new(network.clone(), options).unwrap(), &weights, &batch);
        error(&found.gradients, &expected.gradients)
    });
    // About every second draw is such a case; which one depends on the instruction set.
    let errors: Vec<f64> = draws.collect();
    assert!(errors.iter().any(|&error| error < 2e-4), "relative errors {errors:?}");
}

#[test]
fn runs_repeat_bit_by_bit_and_threads_agree() {
    repeats(&Network::bn_inception(options(64)).unwrap());
    let options = NetworkOptions { aux: Some(AuxOptions::default()), ..googlenet(options(64)) };
    repeats(&Network::googlenet(options).unwrap());
}

fn repeats(network: &Network) {
    let table = ParameterTable::new(network);
    let (weights, batch) = (weights(network), Batch::new(network, 5));
    let expected = step(&mut fast(network, 1), &weights, &batch);
    for threads in 1..=3 {
        let mut engine = fast(network, threads);
        let first = step(&mut engine, &weights, &batch);
        assert_eq!(first, step(&mut engine, &weights, &batch), "same engine, {threads} threads");
        let other = step(&mut fast(network, threads), &weights, &batch);
        assert_eq!(first, other, "another engine, {threads} threads");
        compare(&format!("{threads} threads"), &table, &first, &expected, RELU);

        let options = FastOptions { threads, dtype: Dtype::Bf16, ..FastOptions::default() };
        let bf16 = || Fast::new(network.clone(), options).unwrap();
        let first = step(&mut bf16(), &weights, &batch);
        assert_eq!(first, step(&mut bf16(), &weights, &batch), "bf16, {threads} threads");
        assert_ne!(first, other, "bf16 is f32");
    }
}

#[test]
fn batch_sizes_may_change_at_any_time() {
    let network = Network::bn_inception(options(32)).unwrap();
    let weights = weights(&network);
    let mut engine = fast(&network, 2);
    for n in [3, 8, 2, 8, 3] {
        let batch = Batch::new(&network, n);
        let expected = step(&mut fast(&network, 2), &weights, &batch);
        assert_eq!(step(&mut engine, &weights, &batch), expected, "batch of {n}");
    }
}

#[test]
fn evaluation_does_not_depend_on_what_is_evaluated_together() {
    let network = Network::bn_inception(options(32)).unwrap();
    let mut engine = fast(&network, 2);
    let images = Batch::new(&network, 70).images;
    let image = network.layers[0].output.len();
    engine.prepare_evaluation(EvaluationWeights::Given(&weights(&network))).unwrap();
    let (mut all, mut logits) = (Vec::new(), Vec::new());
    engine.evaluate(Images::Values(&images), &mut all).unwrap();
    assert_eq!(all.len(), 70 * CLASSES);
    for (images, expected) in images.chunks(9 * image).zip(all.chunks(9 * CLASSES)) {
        engine.evaluate(Images::Values(images), &mut logits).unwrap();
        assert!(error(&logits, expected) < 1e-5);
    }
    engine.evaluate(Images::Values(&[]), &mut logits).unwrap();
    assert!(logits.is_empty());
}

/// At 176 px the first stages run four images at a time where that divides the batch.
#[test]
fn evaluation_in_parts_is_that_of_the_whole() {
    for kind in Kind::ALL {
        let network = Network::new(kind, NetworkOptions { lrn: true, ..options(176) }).unwrap();
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let options = FastOptions { threads: 2, dtype, ..FastOptions::default() };
            let mut engine = Fast::new(network.clone(), options).unwrap();
            let images = Batch::new(&network, 12).images;
            let image = network.layers[0].output.len();
            engine.prepare_evaluation(EvaluationWeights::Given(&weights(&network))).unwrap();
            let (mut all, mut logits) = (Vec::new(), Vec::new());
            engine.evaluate(Images::Values(&images), &mut all).unwrap();
            // Eleven are evaluated at once.
            engine.evaluate(Images::Values(&images[image..]), &mut logits).unwrap();
            assert!(logits == all[CLASSES..], "{kind:?} {dtype:?}");
        }
    }
}

#[test]
fn an_update_is_the_same_on_any_number_of_threads() {
    let network = Network::bn_inception(options(32)).unwrap();
    let (weights, batch) = (weights(&network), Batch::new(&network, 4));
    let mut state = ModelState { ema: Some(weights.clone()), ..ModelState::of(weights) };
    state.velocity = random(9, state.velocity.len());
    for nesterov in [false, true] {
        let sgd = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.01, nesterov, lr_factors: &[] };
        let run = |threads| {
            // Gradients themselves differ with the number of threads: all take those of one.
            let mut engine = fast(&network, threads);
            engine.load(state.clone()).unwrap();
            engine.gradients(&batch.lend(), Hooks::default()).unwrap();
            let mut gradients = Given(random(8, state.velocity.len()));
            engine.exchange(&mut gradients).unwrap();
            // Random values of 10 M have a norm of some 2,000: the update is clipped.
            let update = Update { sgd, clip_norm: 1.0, tell_norm: false, ema_decay: 0.75 };
            let result = engine.update(&update).unwrap();
            assert!(result.is_finite && result.gradient_norm.unwrap() > 100.0);
            (common::stored(&mut engine), result)
        };
        let (plain, result) = run(1);
        let (w, v) = (&state.weights.trainable, &state.velocity);
        assert!(plain.weights.trainable != *w && plain.velocity != *v && plain.ema != state.ema);
        for threads in 2..=3 {
            let (found, found_result) = run(threads);
            assert_eq!(found_result, result, "{threads} threads");
            assert!(found.velocity == plain.velocity, "{threads} threads");
            assert!(found.weights.trainable == plain.weights.trainable, "{threads} threads");
            let ema = |state: &ModelState| state.ema.as_ref().unwrap().trainable.clone();
            assert!(ema(&found) == ema(&plain), "{threads} threads");
        }
    }
}

/// Puts gradients in the place of those computed.
struct Given(Vec<f32>);

impl Exchange for Given {
    fn ready(&mut self, _: Range<usize>, _: &[f32]) {}

    fn sum(&mut self, sums: Sums<'_>) -> Result<(), EngineError> {
        sums.gradients.copy_from_slice(&self.0);
        Ok(())
    }
}

#[test]
fn mistakes_are_refused() {
    let network = Network::bn_inception(options(32)).unwrap();
    let good = weights(&network);
    let mut engine = fast(&network, 1);
    let mut logits = Vec::new();
    let batch = Batch::new(&network, 2);

    let unloaded = engine.gradients(&batch.lend(), Hooks::default());
    assert!(matches!(unloaded, Err(EngineError::NotLoaded)));
    let unloaded = engine.prepare_evaluation(EvaluationWeights::Held);
    assert!(matches!(unloaded, Err(EngineError::NotLoaded)));
    engine.load(ModelState::of(good.clone())).unwrap();
    let unprepared = engine.evaluate(batch.images(), &mut logits);
    assert!(matches!(unprepared, Err(EngineError::NotPrepared)));
    let empty = engine.update(&common::NO_UPDATE);
    assert!(matches!(empty, Err(EngineError::NoGradients)));

    let mut refused = |batch: TrainBatch<'_>, message: &str| {
        let error = engine.gradients(&batch, Hooks::default()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    };
    let images = |images| Images::Values(images);
    refused(TrainBatch { images: images(&batch.images[1..]), ..batch.lend() }, "images");
    refused(TrainBatch { labels: &[0, 10], ..batch.lend() }, "label 10 of image 1");
    let class_weights = Some(&[1.0; 9][..]);
    refused(TrainBatch { class_weights, ..batch.lend() }, "weights of classes");
    refused(TrainBatch { images: images(&[]), labels: &[], ..batch.lend() }, "labels");
    let one = images(&batch.images[..batch.images.len() / 2]);
    refused(TrainBatch { images: one, labels: &[0], ..batch.lend() }, "no variance");

    let short = Weights { trainable: good.trainable[1..].to_vec(), ..good.clone() };
    assert!(engine.prepare_evaluation(EvaluationWeights::Given(&short)).is_err());
    assert!(engine.load(ModelState::of(short.clone())).is_err());
    let ema = Some(short);
    assert!(engine.load(ModelState { ema, ..ModelState::of(good.clone()) }).is_err());
    let velocity = Vec::new();
    assert!(engine.load(ModelState { velocity, ..ModelState::of(good) }).is_err());
}

#[test]
fn the_statistics_of_a_batch_are_those_of_a_step_that_counts_it_alone() {
    let options = NetworkOptions { dropout: 0.4, lrn: true, conv_bias: true, ..options(64) };
    let network = Network::bn_inception(options).unwrap();
    let (weights, batch) = (weights(&network), Batch::new(&network, 3));
    let mut other = weights.clone();
    other.trainable.iter_mut().for_each(|value| *value *= 0.5);
    let alone = TrainBatch { bn_momentum: 1.0, ..batch.lend() };
    for executor in
        [&mut fast(&network, 2) as &mut dyn Executor, &mut Reference::new(network.clone())]
    {
        let what = executor.describe();
        let mut of_step = |weights: &Weights| {
            common::step(executor, weights, &alone, Hooks::default()).unwrap().statistics
        };
        let [expected, of_other] = [&weights, &other].map(&mut of_step);
        assert!(expected != of_other && expected != weights.statistics);
        let unprepared = executor.batch_statistics(batch.images(), &mut Vec::new());
        assert!(matches!(unprepared, Err(EngineError::NotPrepared)), "{what}");
        let found = |executor: &mut dyn Executor, weights: EvaluationWeights<'_>| {
            let mut found = Vec::new();
            executor.prepare_evaluation(weights).unwrap();
            executor.batch_statistics(batch.images(), &mut found).unwrap();
            found
        };
        let state = ModelState::of(weights.clone());
        executor.load(state.clone()).unwrap();
        assert!(found(executor, EvaluationWeights::Held) == expected, "{what}");
        assert!(found(executor, EvaluationWeights::Given(&other)) == of_other, "{what}");
        for images in [&batch.images[1..], &[]] {
            assert!(executor.batch_statistics(Images::Values(images), &mut Vec::new()).is_err());
        }
        assert!(common::stored(executor) == state, "{what}: the state has changed");
        // Those of the moving average, where there is one; what evaluation uses stays as it was.
        let state = ModelState { ema: Some(other.clone()), ..state };
        executor.load(state.clone()).unwrap();
        assert!(found(executor, EvaluationWeights::Held) == of_other, "{what}");
        assert!(found(executor, EvaluationWeights::HeldWith(&expected)) == of_other, "{what}");
        let mut logits = |weights: EvaluationWeights<'_>| {
            let mut logits = Vec::new();
            executor.prepare_evaluation(weights).unwrap();
            executor.evaluate(batch.images(), &mut logits).unwrap();
            logits
        };
        let given = Weights { statistics: of_other.clone(), ..other.clone() };
        let held_with = logits(EvaluationWeights::HeldWith(&of_other));
        assert!(held_with == logits(EvaluationWeights::Given(&given)), "{what}");
        assert!(held_with != logits(EvaluationWeights::Held), "{what}");
        let short = executor.prepare_evaluation(EvaluationWeights::HeldWith(&of_other[1..]));
        assert!(short.is_err(), "{what}");
        assert!(common::stored(executor) == state, "{what}: the state has changed");
        // They are of weights that are no more.
        executor.prepare_evaluation(EvaluationWeights::HeldWith(&of_other)).unwrap();
        common::update(executor, &[batch.lend()], &common::NO_UPDATE);
        let stale = executor.evaluate(batch.images(), &mut Vec::new());
        assert!(matches!(stale, Err(EngineError::NotPrepared)), "{what}");
    }
}

#[test]
fn evaluation_follows_the_state_that_is_held() {
    let network = Network::bn_inception(options(32)).unwrap();
    let (weights, batch) = (weights(&network), Batch::new(&network, 3));
    let mut other = weights.clone();
    other.trainable.iter_mut().for_each(|value| *value *= 0.5);
    for executor in
        [&mut fast(&network, 2) as &mut dyn Executor, &mut Reference::new(network.clone())]
    {
        let evaluate = |executor: &mut dyn Executor, weights: EvaluationWeights<'_>| {
            let mut logits = Vec::new();
            executor.prepare_evaluation(weights).unwrap();
            executor.evaluate(batch.images(), &mut logits).unwrap();
            logits
        };
        let [of_weights, of_other] =
            [&weights, &other].map(|given| evaluate(executor, EvaluationWeights::Given(given)));
        assert!(of_weights != of_other);
        executor.load(ModelState::of(weights.clone())).unwrap();
        assert!(evaluate(executor, EvaluationWeights::Held) == of_weights);
        let ema = Some(other.clone());
        executor.load(ModelState { ema, ..ModelState::of(weights.clone()) }).unwrap();
        // What was prepared is of a state that is no more.
        let stale = executor.evaluate(batch.images(), &mut Vec::new());
        assert!(matches!(stale, Err(EngineError::NotPrepared)));
        assert!(evaluate(executor, EvaluationWeights::Held) == of_other, "the moving average");
        common::update(executor, &[batch.lend()], &common::NO_UPDATE);
        let stale = executor.evaluate(batch.images(), &mut Vec::new());
        assert!(matches!(stale, Err(EngineError::NotPrepared)));
    }
}

#[test]
fn levels_are_the_values_that_they_stand_for() {
    for kind in Kind::ALL {
        let network = Network::new(kind, options(47)).unwrap();
        let weights = weights(&network);
        let normaliser = Normaliser::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let (n, pixels) = (3, 47 * 47);
        let levels: Vec<u8> = (0..n * 3 * pixels).map(|i| (i * 193 % 256) as u8).collect();
        let levels = Images::Levels { levels: &levels, normaliser: &normaliser };
        let values = levels.to_values(pixels);
        let bf16 = FastOptions { dtype: Dtype::Bf16, ..FastOptions::default() };
        let bf16 = Fast::new(network.clone(), bf16).unwrap();
        let executors: [Box<dyn Executor>; 3] = [
            Box::new(fast(&network, 2)),
            Box::new(bf16),
            Box::new(Reference::new(network.clone())),
        ];
        for mut executor in executors {
            let mut run = |images| {
                let labels = &[0, 3, 1];
                let batch = TrainBatch {
                    images,
                    labels,
                    label_smoothing: 0.0,
                    class_weights: None,
                    own_share: None,
                    seed: 1,
                    number: 0,
                    bn_momentum: 0.1,
                };
                let step = common::step(&mut *executor, &weights, &batch, Hooks::default());
                let mut logits = Vec::new();
                executor.prepare_evaluation(EvaluationWeights::Given(&weights)).unwrap();
                executor.evaluate(images, &mut logits).unwrap();
                (step.unwrap(), logits)
            };
            assert!(run(levels) == run(Images::Values(&values)), "{kind:?}");
        }
    }
}

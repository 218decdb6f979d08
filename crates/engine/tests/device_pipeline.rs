//! Steps of the GPU engine that are captured, and updates whose results come later, with the host in the place of a
//! device.
#![allow(clippy::unwrap_used)] // an executor that refuses its input is a failed test

use bninception_engine::cuda::Precision;
use bninception_engine::model::{AuxOptions, NetworkOptions};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{Alone, Executor, Fate, GpuOptions, Hooks, Images, TrainBatch, Update};

mod common;

use common::comparison::{options, random, weights};
use common::device::{Levels, UPDATE, bn, gpu, with_average, with_options};
use common::stored;

#[test]
fn captured_steps_and_steps_of_a_pipeline_have_the_same_bits() {
    for precision in [Precision::F32, Precision::Bf16] {
        let aux = Some(AuxOptions::default());
        let network = bn(NetworkOptions { dropout: 0.4, aux, ..options(32) });
        let weights = weights(&network);
        let batches: Vec<Levels> = [5, 5, 3, 5, 4, 5]
            .into_iter()
            .zip(0..)
            .map(|(n, seed)| Levels::new(&network, n, seed))
            .collect();
        let plain = |capture| {
            let options = GpuOptions { precision, capture, ..GpuOptions::default() };
            let mut executor = with_options(&network, options);
            executor.load(with_average(&weights)).unwrap();
            let mut told = Vec::new();
            for (batch, number) in batches.iter().zip(0..) {
                let step = common::update(&mut executor, &[batch.lend(number)], &UPDATE);
                told.push((step.loss.to_bits(), step.metrics));
            }
            (stored(&mut executor), told)
        };
        let piped = |capture| {
            let options = GpuOptions { precision, capture, ..GpuOptions::default() };
            let mut executor = with_options(&network, options);
            executor.load(with_average(&weights)).unwrap();
            let pipeline = executor.pipeline().unwrap();
            let mut finished = Vec::new();
            for (batch, number) in batches.iter().zip(0..) {
                pipeline.start(&batch.lend(number), &UPDATE).unwrap();
                finished.extend(pipeline.finished(false).unwrap());
            }
            finished.extend(pipeline.finished(true).unwrap());
            assert!(pipeline.finished(true).unwrap().is_empty());
            assert!(finished.iter().all(|update| update.fate == Fate::Done));
            assert!(finished.iter().all(|update| update.update.gradient_norm.is_some()));
            let told = finished.iter().map(|f| (f.step.loss.to_bits(), f.step.metrics));
            let told: Vec<_> = told.collect();
            (stored(&mut executor), told)
        };
        let expected = plain(false);
        assert_eq!(plain(true), expected, "captured, {precision:?}");
        assert_eq!(piped(false), expected, "pipeline, {precision:?}");
        assert_eq!(piped(true), expected, "captured pipeline, {precision:?}");
    }
}

#[test]
fn behind_an_update_that_is_refused_nothing_changes() {
    let network = bn(options(32));
    let weights = weights(&network);
    let batches: Vec<Vec<f32>> = (0..5)
        .map(|number| {
            let mut images = random(number, 4 * network.layers[0].output.len());
            if number == 2 {
                images[77] = f32::NAN;
            }
            images
        })
        .collect();
    let labels = [1, 7, 3, 0];
    let lend = |number: usize| TrainBatch {
        images: Images::Values(&batches[number]),
        labels: &labels,
        label_smoothing: 0.0,
        class_weights: None,
        own_share: None,
        seed: 5,
        number: number as u64,
        bn_momentum: 0.1,
    };
    let mut executor = gpu(&network, Precision::F32);
    executor.load(with_average(&weights)).unwrap();
    for number in 0..2 {
        common::update(&mut executor, &[lend(number)], &UPDATE);
    }
    let before = stored(&mut executor);

    executor.load(with_average(&weights)).unwrap();
    let pipeline = executor.pipeline().unwrap();
    let mut finished = Vec::new();
    for number in 0..5 {
        pipeline.start(&lend(number), &UPDATE).unwrap();
    }
    finished.extend(pipeline.finished(true).unwrap());
    let fates: Vec<Fate> = finished.iter().map(|finished| finished.fate).collect();
    assert_eq!(fates, [Fate::Done, Fate::Done, Fate::Refused, Fate::Skipped, Fate::Skipped]);
    assert!(!finished[2].step.loss.is_finite() && !finished[2].update.is_finite);
    assert_eq!(stored(&mut executor), before, "the state is that in front of it");

    let result = executor.gradients(&lend(2), Hooks::default()).unwrap();
    assert!(result.loss.is_nan(), "the same batch shows the same again");
    // A new update begins with a new state, or with gradients.
    executor.load(before).unwrap();
    let pipeline = executor.pipeline().unwrap();
    pipeline.start(&lend(3), &UPDATE).unwrap();
    assert_eq!(pipeline.finished(true).unwrap()[0].fate, Fate::Done);
}

#[test]
fn a_weight_that_grows_too_large_is_found_in_the_update_that_made_it() {
    let network = bn(options(32));
    let weights = weights(&network);
    let batch = Levels::new(&network, 4, 1);
    let large = Update { sgd: SgdStep { lr: 1e38, ..UPDATE.sgd }, ..UPDATE };
    let mut executor = gpu(&network, Precision::F32);
    executor.load(with_average(&weights)).unwrap();
    let pipeline = executor.pipeline().unwrap();
    pipeline.start(&batch.lend(0), &UPDATE).unwrap();
    pipeline.start(&batch.lend(1), &large).unwrap();
    pipeline.start(&batch.lend(2), &UPDATE).unwrap();
    let fates: Vec<Fate> =
        pipeline.finished(true).unwrap().iter().map(|finished| finished.fate).collect();
    assert_eq!(fates, [Fate::Done, Fate::Broken, Fate::Skipped]);
    let state = stored(&mut executor);
    assert!(state.weights.trainable.iter().any(|weight| !weight.is_finite()));
    let average = state.ema.unwrap();
    assert!(average.trainable.iter().all(|weight| weight.is_finite()), "the average stays");

    executor.load(with_average(&weights)).unwrap();
    executor.gradients(&batch.lend(0), Hooks::default()).unwrap();
    executor.exchange(&mut Alone).unwrap();
    assert!(!executor.update(&large).unwrap().is_finite);
}

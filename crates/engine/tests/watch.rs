//! Watched steps: the inputs of nonlinearities are the same on both executors, and a watched step leaves
//! the same bits as one that is not watched.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use bninception_engine::model::init::initial_weights;
use bninception_engine::model::layer::Activation;
use bninception_engine::model::{
    AuxOptions, BatchNormOptions, Kind, Network, NetworkOptions, ParameterTable, Weights,
};
use bninception_engine::{
    Dtype, Executor, Fast, FastOptions, Hooks, Images, Reference, TrainBatch, Watch,
};

mod common;

const LABELS: [u32; 4] = [7, 0, 4, 1];

/// The results of a step, and what it showed, by layer.
#[derive(Debug, PartialEq)]
struct Outcome {
    step: common::Step,
    seen: Vec<(usize, Vec<f32>)>,
}

fn step(
    mut executor: impl Executor,
    weights: &Weights,
    images: &[f32],
    layers: &[usize],
) -> Outcome {
    let images = Images::Values(images);
    let batch = TrainBatch {
        images,
        labels: &LABELS,
        label_smoothing: 0.0,
        class_weights: None,
        own_share: None,
        seed: 5,
        number: 7,
        bn_momentum: 0.1,
    };
    let mut seen = Vec::new();
    let mut see = |layer: usize, values: Vec<f32>| seen.push((layer, values));
    let watch = (!layers.is_empty()).then_some(Watch { layers, see: &mut see });
    let hooks = Hooks { watch, ..Hooks::default() };
    let step = common::step(&mut executor, weights, &batch, hooks).unwrap();
    seen.sort_by_key(|(layer, _)| *layer);
    Outcome { step, seen }
}

fn error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference =
        squares(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    (difference / squares(&mut expected.iter().map(|&v| f64::from(v)))).sqrt()
}

#[test]
fn both_executors_show_the_same_and_change_nothing() {
    let norm = Some(BatchNormOptions { epsilon: 1e-5 });
    // Of one member and of several, of widened channels, fully connected, and of the image.
    let layers = |branch: &'static str| {
        ["conv1_7x7_s2", "inception_3a_1x1", branch, "aux1_fc", "inception_5b_pool_proj"]
    };
    for (kind, batch_norm, branch) in [
        (Kind::BnInception, norm, "inception_4c_double_3x3_2"),
        (Kind::GoogLeNet, None, "inception_4b_5x5_reduce"),
        (Kind::GoogLeNet, norm, "inception_4c_5x5_reduce"),
    ] {
        let options = NetworkOptions {
            classes: 10,
            image_size: 47,
            activation: Activation::Sigmoid,
            batch_norm,
            conv_bias: true,
            aux: Some(AuxOptions::default()),
            ..NetworkOptions::default()
        };
        let network = Network::new(kind, options).unwrap();
        let weights = initial_weights(&network, &ParameterTable::new(&network), 1);
        let len = LABELS.len() * network.layers[0].output.len();
        let golden = |i: usize| (i as f64 * 0.618_033_988_749_895).fract() * 2.0 - 1.0;
        let images: Vec<f32> = (0..len).map(|i| golden(i) as f32).collect();
        let index =
            |name: &str| network.layers.iter().position(|layer| layer.name == name).unwrap();
        let watched = layers(branch).map(index);

        let reference = || Reference::in_f64(network.clone());
        let expected = step(reference(), &weights, &images, &watched);
        let plain = step(reference(), &weights, &images, &[]);
        assert_eq!(plain, without_seen(&expected), "{kind:?} reference");
        // With batch norm over the four values of a last map of 1x1, rounding to bf16 grows strongly.
        let bf16 = if batch_norm.is_some() { f64::INFINITY } else { 3e-2 };
        for (dtype, limit) in [(Dtype::F32, 1e-4), (Dtype::Bf16, bf16)] {
            let options = FastOptions { threads: 2, dtype, ..FastOptions::default() };
            let fast = || Fast::new(network.clone(), options).unwrap();
            let found = step(fast(), &weights, &images, &watched);
            let plain = step(fast(), &weights, &images, &[]);
            assert_eq!(plain, without_seen(&found), "{kind:?} {dtype:?}");
            for ((layer, found), (same, expected)) in found.seen.iter().zip(&expected.seen) {
                assert_eq!(layer, same);
                let shape = network.layers[*layer].output;
                assert_eq!(found.len(), LABELS.len() * shape.len());
                let error = error(found, expected);
                let name = &network.layers[*layer].name;
                assert!(error < limit, "{kind:?} {dtype:?}, {name}: relative error {error:.1e}");
            }
            assert_eq!(found.seen.len(), watched.len());
        }
    }
}

/// The outcome with nothing seen.
fn without_seen(outcome: &Outcome) -> Outcome {
    Outcome { step: outcome.step.clone(), seen: Vec::new() }
}

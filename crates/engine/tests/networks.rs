//! Parity of every executor with PyTorch in f64 on whole networks of several sizes and options.
//!
//! `fixtures/networks.safetensors` is written by `tools/reference/network_fixture.py`. Weights and
//! images are made here from their names by the same hash, so the fixture stays small.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use bninception_engine::cuda::Precision;
use bninception_engine::model::layer::Activation;
use bninception_engine::model::parameters::{Role, TensorSpec};
use bninception_engine::model::{
    BatchNormOptions, Network, NetworkOptions, ParameterTable, Weights,
};
use bninception_engine::{
    Dtype, EvaluationWeights, Executor, Fast, FastOptions, Hooks, Images, Reference, TrainBatch,
};
use safetensors::SafeTensors;

mod common;

use common::device::gpu;

const FIXTURE: &[u8] = include_bytes!("fixtures/networks.safetensors");
/// Values stored of each gradient and statistic after its norm.
const HEAD: usize = 8;
const CLASSES: usize = 10;
/// The fixture's cases.
const CASES: [&str; 4] = ["plain", "odd_biased_smoothed", "sigmoid", "without_batch_norm"];

/// Largest accepted relative error (norm of the difference over norm of the expected values) of
/// logits, loss and statistics, and of gradients. An absolute floor on gradients covers those that
/// are zero except for rounding: the gradients of biases before batch norm.
struct Limits {
    forward: f64,
    gradient: f64,
    gradient_floor: f64,
}

/// In f64 only the f32 results that an executor gives back are rounded (6e-8 each).
const F64: Limits = Limits { forward: 1e-6, gradient: 1e-6, gradient_floor: 1e-9 };
/// In f32 rounding grows through 31 layers, and a few inputs of ReLUs and pools change sides.
const F32: Limits = Limits { forward: 1e-4, gradient: 2e-2, gradient_floor: 1e-4 };

/// In bf16 every factor is off by up to 2^-9; errors of independent signs grow through 31 layers to
/// 1 % of the logits and, with ReLUs that change sides, 20 % of the gradients of the first layers.
const BF16: Limits = Limits { forward: 3e-2, gradient: 3e-1, gradient_floor: 1e-4 };

#[test]
fn reference_in_f64_matches_pytorch() {
    check(&mut |network| Box::new(Reference::in_f64(network)), &F64);
}

#[test]
fn reference_in_f32_matches_pytorch() {
    check(&mut |network| Box::new(Reference::new(network)), &F32);
}

#[test]
fn fast_without_winograd_matches_pytorch() {
    check(&mut |network| fast(network, false), &F32);
}

#[test]
fn fast_with_winograd_matches_pytorch() {
    check(&mut |network| fast(network, true), &F32);
}

#[test]
fn fast_in_bf16_matches_pytorch_within_its_rounding() {
    for winograd in [false, true] {
        let dtype = Dtype::Bf16;
        let options = FastOptions { threads: 2, winograd, dtype, ..FastOptions::default() };
        let mut make =
            |network| -> Box<dyn Executor> { Box::new(Fast::new(network, options).unwrap()) };
        // With batch norm over the three or four values of a last map of 1x1, a ReLU that changes
        // sides moves the logits by a fifth; `parity.rs` has batch norm in bf16 at 224 px.
        check_cases(&["sigmoid", "without_batch_norm"], &mut make, &BF16);
    }
}

#[test]
fn a_device_matches_pytorch() {
    check(&mut |network| Box::new(gpu(&network, Precision::F32)), &F32);
}

#[test]
fn a_device_in_bf16_matches_pytorch_within_its_rounding() {
    let mut make = |network| -> Box<dyn Executor> { Box::new(gpu(&network, Precision::Bf16)) };
    check_cases(&["sigmoid", "without_batch_norm"], &mut make, &BF16);
}

fn fast(network: Network, winograd: bool) -> Box<dyn Executor> {
    let options = FastOptions { threads: 2, winograd, ..FastOptions::default() };
    Box::new(Fast::new(network, options).unwrap())
}

fn check(make: &mut dyn FnMut(Network) -> Box<dyn Executor>, limits: &Limits) {
    check_cases(&CASES, make, limits);
}

fn check_cases(
    names: &[&str],
    make: &mut dyn FnMut(Network) -> Box<dyn Executor>,
    limits: &Limits,
) {
    let (_, metadata) = SafeTensors::read_metadata(FIXTURE).unwrap();
    let cases = &metadata.metadata().as_ref().unwrap()["cases"];
    let cases: serde_json::Value = serde_json::from_str(cases).unwrap();
    assert_eq!(cases.as_object().unwrap().len(), CASES.len(), "cases of the fixture");
    for name in names {
        check_case(name, &cases[name], make, limits);
    }
}

fn check_case(
    name: &str,
    case: &serde_json::Value,
    make: &mut dyn FnMut(Network) -> Box<dyn Executor>,
    limits: &Limits,
) {
    let flag = |key: &str, default: bool| case[key].as_bool().unwrap_or(default);
    let number = |key: &str| case[key].as_u64().unwrap() as usize;
    let batch_norm = BatchNormOptions { epsilon: 1e-5 };
    let network = Network::bn_inception(NetworkOptions {
        classes: CLASSES,
        image_size: number("image_size"),
        activation: match case["activation"].as_str() {
            Some("sigmoid") => Activation::Sigmoid,
            _ => Activation::Relu,
        },
        batch_norm: flag("batch_norm", true).then_some(batch_norm),
        lrn: flag("lrn", false),
        dropout: 0.0,
        conv_bias: flag("conv_bias", false),
        pool_proj_4c4d: number("pool_proj_4c4d"),
        ..NetworkOptions::default()
    })
    .unwrap();
    let table = ParameterTable::new(&network);
    let weights = hashed_weights(&table);
    let batch = number("batch");
    let pixels = network.layers[0].output.len();
    let images: Vec<f32> =
        uniform("images", batch * pixels).map(|value| (2.0 * value) as f32).collect();
    let labels: Vec<u32> = (0..batch).map(|image| (image * 3 % CLASSES) as u32).collect();

    let mut executor = make(network);
    let expected = |key: &str| values(&format!("{name}/{key}"));
    let mut logits = Vec::new();
    let images = Images::Values(&images);
    executor.prepare_evaluation(EvaluationWeights::Given(&weights)).unwrap();
    executor.evaluate(images, &mut logits).unwrap();
    close(&format!("{name}: eval logits"), &logits, &expected("eval_logits"), limits.forward, 0.0);

    let label_smoothing = case["label_smoothing"].as_f64().unwrap_or(0.0);
    // PyTorch's momentum, with which the fixture was made.
    let batch = TrainBatch {
        images,
        labels: &labels,
        label_smoothing,
        class_weights: None,
        own_share: None,
        seed: 0,
        number: 0,
        bn_momentum: 0.1,
    };
    let step = common::step(&mut *executor, &weights, &batch, Hooks::default()).unwrap();
    let common::Step { loss, logits, gradients, statistics } = step;
    close(&format!("{name}: logits"), &logits, &expected("train_logits"), limits.forward, 0.0);
    close(&format!("{name}: loss"), &[loss as f32], &expected("loss"), limits.forward, 0.0);

    let rows = |kind: &str| case["rows"][kind].as_array().unwrap().clone();
    let row = |specs: &[TensorSpec], flat: &[f32], tensor: &str| {
        let spec = specs.iter().find(|spec| spec.name == tensor).unwrap();
        let tensor = &flat[spec.range.clone()];
        let norm = tensor.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let mut row = vec![norm as f32];
        row.extend(&tensor[..HEAD]);
        row
    };
    let names = rows("gradients");
    assert_eq!(names.len(), table.trainable.len(), "{name}: number of gradients");
    for (tensor, expected) in names.iter().zip(expected("gradients").chunks_exact(1 + HEAD)) {
        let tensor = tensor.as_str().unwrap();
        let found = row(&table.trainable, &gradients, tensor);
        let what = format!("{name}: gradient of {tensor}");
        close(&what, &found, expected, limits.gradient, limits.gradient_floor);
    }
    let names = rows("statistics");
    assert_eq!(names.len(), table.statistics.len(), "{name}: number of statistics");
    if names.is_empty() {
        return;
    }
    for (tensor, expected) in names.iter().zip(expected("statistics").chunks_exact(1 + HEAD)) {
        let tensor = tensor.as_str().unwrap();
        let found = row(&table.statistics, &statistics, tensor);
        close(&format!("{name}: {tensor}"), &found, expected, limits.forward, 0.0);
    }
}

/// The weights that the fixture's script makes; the formulas there and here must agree.
fn hashed_weights(table: &ParameterTable) -> Weights {
    let fill = |specs: &[TensorSpec], flat: &mut [f32]| {
        for spec in specs {
            let fan_in = (spec.range.len() / spec.shape[0]) as f64;
            let values = flat[spec.range.clone()].iter_mut();
            for (value, u) in values.zip(uniform(&spec.name, spec.range.len())) {
                *value = match spec.role {
                    Role::ConvWeight | Role::LinearWeight => u * (6.0 / fan_in).sqrt(),
                    Role::Scale | Role::RunningVar => 1.0 + 0.5 * u,
                    Role::Bias | Role::Shift | Role::RunningMean => 0.25 * u,
                } as f32;
            }
        }
    };
    let mut weights = Weights {
        trainable: vec![0.0; table.n_trainable()],
        statistics: vec![0.0; table.n_statistics()],
    };
    fill(&table.trainable, &mut weights.trainable);
    fill(&table.statistics, &mut weights.statistics);
    weights
}

/// `count` values in [-1, 1): splitmix64 of the FNV-1a hash of `name` plus a counter.
fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let start = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (1..=count as u64).map(move |counter| {
        let mut z = start.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

fn values(name: &str) -> Vec<f64> {
    let file = SafeTensors::deserialize(FIXTURE).unwrap();
    let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(tensor.dtype(), safetensors::Dtype::F64, "{name}");
    tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn close(what: &str, found: &[f32], expected: &[f64], limit: f64, floor: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let size = norm(&mut expected.iter().copied());
    let error = norm(&mut found.iter().zip(expected).map(|(&a, b)| f64::from(a) - b));
    let allowed = limit * size + floor;

    assert!(error <= allowed, "{what}: error {error:.3e}, allowed {allowed:.3e}, size {size:.3e}");
}

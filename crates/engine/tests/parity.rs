//! Parity of every executor with an independent PyTorch BN-Inception, on real images at 224 px:
//! logits, loss, all gradients, running statistics, and three steps of SGD.
//!
//! The fixture (the 608/1056 variant, 48 MB) lies outside the project; the environment variable
//! `BNINCEPTION_SHARED` names the folder that holds `reference/bn_inception_torch`. Without it the
//! tests say so and pass; the fixtures per operation in `crates/model/tests` need nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests; says when it skips

use std::path::PathBuf;

use bninception_engine::cuda::Precision;
use bninception_engine::model::{
    BatchNormOptions, Network, NetworkOptions, ParameterTable, Weights,
};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{
    Alone, Dtype, EvaluationWeights, Executor, Fast, FastOptions, Hooks, Images, ModelState,
    Reference, TrainBatch, Update,
};
use safetensors::SafeTensors;

mod common;

use common::device::gpu;

/// Largest accepted errors, all relative: norm of the difference over norm of the expected values.
struct Limits {
    logits: f64,
    loss: f64,
    gradient_norm: f64,
    gradient_head: f64,
    statistics: f64,
    sgd_losses: [f64; 3],
    weight_norm: f64,
}

/// Limits for f32.
///
/// The fixture holds one f32 run of PyTorch. Rounding alone moves such a run far, because inputs of
/// ReLUs and max pools change sides: PyTorch 2.15 run on the same
/// files as channels_last instead of NCHW differs from the fixture by up to 1.8e-2 in a gradient's
/// head, and its losses of step 2 lie between 4.73 and 4.88 by layout, threads and library (in f64:
/// 4.8625; in the fixture: 4.8452). The limits of heads and of the later losses stand above that
/// spread. `networks.rs` checks what these limits cannot: it compares f64 with f64 within 1e-6.
const F32: Limits = Limits {
    logits: 1e-3,
    loss: 1e-3,
    gradient_norm: 1e-2,
    gradient_head: 3e-2,
    statistics: 1e-4,
    sgd_losses: [1e-3, 2e-3, 6e-2],
    weight_norm: 5e-3,
};

/// Limits for bf16.
///
/// PyTorch 2.15 itself, run on the same files with bf16 autocast, is off by 4.2e-2 in the logits of
/// evaluation and 3.6e-2 in those of training, 3.2e-3 in the loss, up to 2.1e-1 in the norm of a
/// gradient and 3.5e-3 in a statistic; this engine by 3.5e-2, 3.6e-2, 1.9e-3, 1.8e-1 and 4.0e-3 where
/// maps are bf16, and by 3.4e-2, 2.8e-2, 3.7e-3, 1.9e-1 and 3.6e-3 where f32 maps hold the values. The
/// first values of a gradient are mostly noise in all (up to 1.14, 1.14 and 0.98 of their size, half
/// of the tensors above 0.6), so their limit only catches a wrong sign or scale. That values are
/// rounded once and nothing else changes, `bf16.rs` and `maps.rs` among the tests of the kernels show
/// bit by bit.
///
/// Three steps of SGD multiply such differences. Twelve runs of PyTorch with autocast (1 and 2 threads,
/// NCHW and channels_last, oneDNN held to AVX2, AVX-512, AVX-512 BF16 and AMX) end up to 2.3e-2 off in the
/// second loss, 6.3e-2 in the third and 5.2e-3 in the norm of a weight; this engine, by instruction set, up
/// to 2.3e-2, 4.6e-2 and 7.5e-3. These limits catch a wrong step, not a wrong digit.
const BF16: Limits = Limits {
    logits: 6e-2,
    loss: 1e-2,
    gradient_norm: 3e-1,
    gradient_head: 1.5,
    statistics: 5e-3,
    sgd_losses: [1e-2, 4e-2, 1e-1],
    weight_norm: 1.5e-2,
};

#[test]
fn reference_matches_pytorch() {
    check(&mut |network| Box::new(Reference::new(network)), &F32);
}

#[test]
fn fast_matches_pytorch() {
    check(&mut |network| Box::new(Fast::new(network, FastOptions::default()).unwrap()), &F32);
}

#[test]
fn fast_without_winograd_matches_pytorch() {
    let options = FastOptions { winograd: false, ..FastOptions::default() };
    check(&mut |network| Box::new(Fast::new(network, options).unwrap()), &F32);
}

#[test]
fn fast_in_bf16_matches_pytorch_within_its_rounding() {
    let options = FastOptions { dtype: Dtype::Bf16, ..FastOptions::default() };
    check(&mut |network| Box::new(Fast::new(network, options).unwrap()), &BF16);
}

#[test]
fn a_device_matches_pytorch() {
    // Its third loss is 4.538, on the other side of what layouts and libraries make of it. Its gradients lie nearer to
    // those in f64 than the fast engine's, which `networks.rs` and `device.rs` check.
    let limits = Limits { sgd_losses: [1e-3, 2e-3, 1e-1], ..F32 };
    check(&mut |network| Box::new(gpu(&network, Precision::F32)), &limits);
}

#[test]
fn a_device_in_bf16_matches_pytorch_within_its_rounding() {
    check(&mut |network| Box::new(gpu(&network, Precision::Bf16)), &BF16);
}

fn check(make: &mut dyn FnMut(Network) -> Box<dyn Executor>, limits: &Limits) {
    let Some(folder) = std::env::var_os("BNINCEPTION_SHARED") else {
        println!("skipped: BNINCEPTION_SHARED does not name the folder with the fixture");
        return;
    };
    let folder = PathBuf::from(folder).join("reference/bn_inception_torch");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let (weights_file, tensors_file) = (read("weights.safetensors"), read("tensors.safetensors"));
    let weights_file = SafeTensors::deserialize(&weights_file).unwrap();
    let tensors = SafeTensors::deserialize(&tensors_file).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&read("expected.json")).unwrap();

    let network = Network::bn_inception(NetworkOptions {
        batch_norm: Some(BatchNormOptions { epsilon: 1e-5 }),
        conv_bias: true,
        pool_proj_4c4d: 128,
        ..NetworkOptions::default()
    })
    .unwrap();
    let table = ParameterTable::new(&network);
    let mut weights = Weights {
        trainable: vec![0.0; table.n_trainable()],
        statistics: vec![0.0; table.n_statistics()],
    };
    for spec in &table.trainable {
        weights.trainable[spec.range.clone()].copy_from_slice(&values(&weights_file, &spec.name));
    }
    for spec in &table.statistics {
        weights.statistics[spec.range.clone()].copy_from_slice(&values(&weights_file, &spec.name));
    }
    assert_eq!(weights_file.len(), table.trainable.len() + table.statistics.len());

    let mut executor = make(network);
    println!("{}", executor.describe());
    let images = values(&tensors, "input");
    let labels: Vec<u32> = tensors
        .tensor("labels")
        .unwrap()
        .data()
        .chunks_exact(8)
        .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as u32)
        .collect();

    let mut logits = Vec::new();
    let images = Images::Values(&images);
    executor.prepare_evaluation(EvaluationWeights::Given(&weights)).unwrap();
    executor.evaluate(images, &mut logits).unwrap();
    close("evaluation logits", &logits, &values(&tensors, "eval_logits"), limits.logits);

    let mut gradients = Vec::new();
    let mut state = ModelState::of(weights);
    executor.load(state.clone()).unwrap();
    let sgd = &expected["sgd"];
    let number = |key: &str| sgd[key].as_f64().unwrap();
    let step = SgdStep {
        lr: number("lr"),
        momentum: number("momentum"),
        weight_decay: number("weight_decay"),
        nesterov: false,
        lr_factors: &[],
    };
    for (index, expected_loss) in sgd["losses"].as_array().unwrap().iter().enumerate() {
        let batch = TrainBatch {
            images,
            labels: &labels,
            label_smoothing: 0.0,
            class_weights: None,
            own_share: None,
            seed: 0,
            number: index as u64,
            // That of PyTorch, which made the fixture.
            bn_momentum: 0.1,
        };
        let loss = executor.gradients(&batch, Hooks::default()).unwrap().loss;
        executor.store_logits(&mut logits).unwrap();
        executor.store_gradients(&mut gradients).unwrap();
        executor.exchange(&mut Alone).unwrap();
        let update = Update { sgd: step, clip_norm: 0.0, tell_norm: false, ema_decay: 0.0 };
        assert!(executor.update(&update).unwrap().is_finite);
        executor.store(&mut state).unwrap();
        let weights = &state.weights;
        let expected_loss = expected_loss.as_f64().unwrap();
        let error = (loss - expected_loss).abs() / expected_loss;
        println!("step {index}: loss {loss:.6}, expected {expected_loss:.6}");
        assert!(
            error <= limits.sgd_losses[index],
            "loss of step {index}: {loss} for {expected_loss}"
        );
        if index == 0 {
            close("training logits", &logits, &values(&tensors, "train_logits"), limits.logits);
            let train_loss = expected["train_loss"].as_f64().unwrap();
            assert!((loss - train_loss).abs() / train_loss <= limits.loss);
            for spec in &table.trainable {
                let gradient = &gradients[spec.range.clone()];
                check_gradient(&spec.name, gradient, &tensors, &expected, limits);
            }
            for spec in &table.statistics {
                let expected = values(&tensors, &format!("running_after_one_step/{}", spec.name));
                let found = &weights.statistics[spec.range.clone()];
                close(&spec.name, found, &expected, limits.statistics);
            }
        }
    }
    for spec in &table.trainable {
        let expected = expected["weight_norm_after_three_steps"][&spec.name].as_f64().unwrap();
        let found = norm(&state.weights.trainable[spec.range.clone()]);
        let error = (found - expected).abs() / expected;
        assert!(
            error <= limits.weight_norm,
            "{} after three steps: norm {found} for {expected}",
            spec.name
        );
    }
}

fn check_gradient(
    name: &str,
    gradient: &[f32],
    tensors: &SafeTensors<'_>,
    expected: &serde_json::Value,
    limits: &Limits,
) {
    let expected_norm = expected["grad_norm"][name].as_f64().unwrap();
    let found = norm(gradient);
    // Batch norm removes what a bias before it adds, so such gradients are zero except for rounding
    // (1e-6 in the fixture); only their size can be compared.
    if name.ends_with(".bias") && !name.ends_with("_bn.bias") && name != "last_linear.bias" {
        assert!(found < 1e-3 && expected_norm < 1e-3, "{name}: norm {found}, {expected_norm}");
        return;
    }
    let error = (found - expected_norm).abs() / expected_norm;
    assert!(error <= limits.gradient_norm, "gradient of {name}: norm {found} for {expected_norm}");
    let head = values(tensors, &format!("grad_head/{name}"));
    close(&format!("gradient of {name}"), &gradient[..head.len()], &head, limits.gradient_head);
}

fn values(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

fn close(what: &str, found: &[f32], expected: &[f32], limit: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let difference: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    let error = norm(&difference) / norm(expected).max(1e-30);
    assert!(error <= limit, "{what}: relative error {error:.3e}, limit {limit:.0e}");
}

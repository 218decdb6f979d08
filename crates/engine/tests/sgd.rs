//! SGD with momentum and weight decay against PyTorch's, three steps with changing learning rate.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use bninception_engine::model::ParameterTable;
use bninception_engine::model::parameters::{Role, TensorSpec};
use bninception_engine::sgd::{SgdStep, sgd_step};
use bninception_kernels::team::Team;
use safetensors::SafeTensors;

/// Written by `tools/reference/ops_fixtures.py`.
const FIXTURE: &[u8] = include_bytes!("../../model/tests/fixtures/sgd.safetensors");

fn table(n: usize, role: Role) -> ParameterTable {
    let name = "tensor".to_owned();
    let spec = TensorSpec { name, layer: 0, role, shape: vec![n], range: 0..n };
    ParameterTable { trainable: vec![spec], statistics: Vec::new() }
}

fn values(name: &str) -> Vec<f64> {
    let file = SafeTensors::deserialize(FIXTURE).unwrap();
    let tensor = file.tensor(name).unwrap();
    tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
    for (a, b) in found.iter().zip(expected) {
        // Three steps of a few f32 operations each.
        assert!((f64::from(*a) - b).abs() <= 1e-6 * (1.0 + b.abs()), "{what}: {a} for {b}");
    }
}

#[test]
fn matches_pytorch() {
    let (_, metadata) = SafeTensors::read_metadata(FIXTURE).unwrap();
    let cases = &metadata.metadata().as_ref().unwrap()["cases"];
    let cases: serde_json::Value = serde_json::from_str(cases).unwrap();
    for (name, case) in cases.as_object().unwrap() {
        let mut weights = f32s(&values(&format!("{name}/initial")));
        let mut velocity = vec![0.0; weights.len()];
        let n = weights.len();
        let table = table(n, Role::ConvWeight);
        let gradients = f32s(&values(&format!("{name}/gradients")));
        let expected = values(&format!("{name}/parameters"));
        for (index, lr) in case["learning_rates"].as_array().unwrap().iter().enumerate() {
            let step = SgdStep {
                lr: lr.as_f64().unwrap(),
                momentum: case["momentum"].as_f64().unwrap(),
                weight_decay: case["weight_decay"].as_f64().unwrap(),
                nesterov: case["nesterov"].as_bool().unwrap(),
                lr_factors: &[],
            };
            let range = index * n..(index + 1) * n;
            let gradients = &gradients[range.clone()];
            sgd_step(&Team::new(2), &table, &step, 1.0, gradients, &mut velocity, &mut weights);
            let what = format!("{name}, step {index}");
            assert_close(&what, &weights, &expected[range.clone()]);
            if step.momentum > 0.0 {
                let buffers = values(&format!("{name}/momentum_buffers"));
                assert_close(&what, &velocity, &buffers[range]);
            }
        }
    }
}

#[test]
fn batch_norm_and_biases_do_not_decay() {
    let step =
        SgdStep { lr: 0.5, momentum: 0.0, weight_decay: 0.1, nesterov: false, lr_factors: &[] };
    for (role, expected) in [
        (Role::ConvWeight, 1.9),
        (Role::LinearWeight, 1.9),
        (Role::Bias, 2.0),
        (Role::Scale, 2.0),
        (Role::Shift, 2.0),
    ] {
        let mut weights = [2.0];
        let table = table(1, role);
        sgd_step(&Team::new(1), &table, &step, 1.0, &[0.0], &mut [0.0], &mut weights);
        assert!((weights[0] - expected).abs() < 1e-6, "{role:?}: {}", weights[0]);
    }
}

#[test]
fn a_tensor_has_a_rate_of_its_own() {
    let tensor = |index: usize| TensorSpec {
        name: format!("tensor {index}"),
        layer: index + 1,
        role: Role::ConvWeight,
        shape: vec![1],
        range: index..index + 1,
    };
    let table = ParameterTable { trainable: (0..3).map(tensor).collect(), statistics: Vec::new() };
    let mut step = SgdStep {
        lr: 0.5,
        momentum: 0.5,
        weight_decay: 0.1,
        nesterov: false,
        lr_factors: &[0.0, 0.25, 1.0],
    };
    let (mut velocity, mut weights) = ([2.0; 3], [2.0; 3]);
    let gradients = [f32::NAN, 1.0, 1.0];
    assert!(sgd_step(&Team::new(1), &table, &step, 1.0, &gradients, &mut velocity, &mut weights));
    // v = 0.5 * 2 + 1 + 0.1 * 2, and the first tensor is not touched.
    assert_eq!(velocity, [2.0, 2.2, 2.2]);
    assert_eq!(weights, [2.0, 2.0 - 0.125 * 2.2, 2.0 - 0.5 * 2.2]);
    // None are the same as 1 for all.
    step.lr_factors = &[];
    let (mut velocity, mut plain) = ([2.0; 3], [2.0; 3]);
    sgd_step(&Team::new(1), &table, &step, 1.0, &[1.0; 3], &mut velocity, &mut plain);
    assert_eq!(plain, [weights[2]; 3]);
}

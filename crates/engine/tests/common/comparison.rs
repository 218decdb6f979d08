//! All results of a step, and how far those of two executors may lie apart.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // helpers of tests; each test uses some of them

pub use bninception_engine::gpu::check::random;
use bninception_engine::model::init::initial_weights;
use bninception_engine::model::{Network, NetworkOptions, ParameterTable, Weights};
use bninception_engine::{
    EvaluationWeights, Executor, Fast, FastOptions, Hooks, Images, TrainBatch,
};

pub const CLASSES: usize = 10;

/// Largest accepted relative errors: norm of the difference over norm of the expected values.
///
/// The engine computes in f32 and the reference in f64. Rounding itself separates their gradients
/// little; its consequences separate them more. If an input of a ReLU lands on the other side of 0, or a
/// max pool picks the other of two nearly equal values, a whole path of the gradient moves. The
/// reference's own gradients move by up to 6 % if every pixel is changed by one part in 1e6. Where
/// nothing changes sides the two agree to 1e-4, as
/// `gradients_agree_to_rounding_where_nothing_changes_sides` checks.
#[derive(Clone, Copy)]
pub struct Limits {
    pub logits: f64,
    /// Of all gradients as one vector.
    pub gradient: f64,
    /// Of the gradient of each tensor.
    pub tensor: f64,
}

/// ReLU: both effects.
pub const RELU: Limits = Limits { logits: 1e-3, gradient: 1e-1, tensor: 2e-1 };

/// Sigmoid: only the max pools choose.
pub const SIGMOID: Limits = Limits { logits: 1e-4, gradient: 2e-3, tensor: 2e-2 };

/// Initial weights with every bias, scale, shift and statistic moved away from its default, so
/// that none of them can be left out unnoticed.
pub fn weights(network: &Network) -> Weights {
    let table = ParameterTable::new(network);
    let mut weights = initial_weights(network, &table, 1);
    for spec in table.trainable.iter().filter(|spec| spec.shape.len() == 1) {
        let values = &mut weights.trainable[spec.range.clone()];
        let noise = random(spec.range.start as u64, values.len());
        values.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.2 * noise);
    }
    let noise = random(3, weights.statistics.len());
    weights.statistics.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.2 * noise);
    weights
}

/// A batch that can be lent to executors.
pub struct Batch {
    pub images: Vec<f32>,
    pub labels: Vec<u32>,
    pub label_smoothing: f64,
    pub class_weights: Option<Vec<f64>>,
    pub own_share: Option<f64>,
}

impl Batch {
    pub fn new(network: &Network, n: usize) -> Batch {
        let images = random(2, n * network.layers[0].output.len());
        let labels = (0..n).map(|i| (i * 7 % CLASSES) as u32).collect();
        Batch { images, labels, label_smoothing: 0.1, class_weights: None, own_share: None }
    }

    pub fn images(&self) -> Images<'_> {
        Images::Values(&self.images)
    }

    pub fn lend(&self) -> TrainBatch<'_> {
        TrainBatch {
            images: self.images(),
            labels: &self.labels,
            label_smoothing: self.label_smoothing,
            class_weights: self.class_weights.as_deref(),
            own_share: self.own_share,
            seed: 5,
            number: 7,
            bn_momentum: 0.3,
        }
    }
}

/// All results of one step.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub loss: f64,
    pub logits: Vec<f32>,
    pub gradients: Vec<f32>,
    pub statistics: Vec<f32>,
    pub evaluation: Vec<f32>,
}

pub fn step(executor: &mut dyn Executor, weights: &Weights, batch: &Batch) -> Outcome {
    let mut evaluation = Vec::new();
    executor.prepare_evaluation(EvaluationWeights::Given(weights)).unwrap();
    executor.evaluate(batch.images(), &mut evaluation).unwrap();
    let step = super::step(executor, weights, &batch.lend(), Hooks::default()).unwrap();
    let super::Step { loss, logits, gradients, statistics } = step;
    Outcome { loss, logits, gradients, statistics, evaluation }
}

pub fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

pub fn error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let difference: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(expected).max(1e-30)
}

pub fn compare(
    what: &str,
    table: &ParameterTable,
    found: &Outcome,
    expected: &Outcome,
    limits: Limits,
) {
    let check = |part: &str, error: f64, limit: f64| {
        assert!(error <= limit, "{what}, {part}: relative error {error:.2e}, limit {limit:.0e}");
    };
    check("loss", (found.loss - expected.loss).abs() / expected.loss, limits.logits);
    check("logits", error(&found.logits, &expected.logits), limits.logits);
    check("evaluation", error(&found.evaluation, &expected.evaluation), 1e-5);
    check("statistics", error(&found.statistics, &expected.statistics), 2e-5);
    check("gradients", error(&found.gradients, &expected.gradients), limits.gradient);
    for spec in &table.trainable {
        let part = |outcome: &Outcome| outcome.gradients[spec.range.clone()].to_vec();
        let (found, expected) = (part(found), part(expected));
        // Batch norm removes what a bias before it adds: the gradient is zero, except for the
        // rounding of the reference.
        let convolution = spec.name.trim_end_matches(".bias");
        let cancelled = spec.name.ends_with(".bias")
            && table.trainable.iter().any(|s| s.name == format!("{convolution}_bn.bias"));
        if cancelled {
            assert_eq!(norm(&found), 0.0, "{what}, {}", spec.name);
            assert!(norm(&expected) < 1e-4, "{what}, {}", spec.name);
        } else {
            check(&spec.name, error(&found, &expected), limits.tensor);
        }
    }
}

pub fn options(image_size: usize) -> NetworkOptions {
    NetworkOptions { classes: CLASSES, image_size, ..NetworkOptions::default() }
}

pub fn fast(network: &Network, threads: usize) -> Fast {
    Fast::new(network.clone(), FastOptions { threads, ..FastOptions::default() }).unwrap()
}

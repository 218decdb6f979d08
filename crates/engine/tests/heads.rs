//! Auxiliary heads: the gradient of the weighted sum of all losses, and that evaluation does not see
//! the heads.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use bninception_engine::model::init::initial_weights;
use bninception_engine::model::layer::Activation;
use bninception_engine::model::reference::{ReferenceExecutor, TrainInput};
use bninception_engine::model::{
    AuxOptions, BatchNormOptions, Kind, Network, NetworkOptions, ParameterTable, Weights,
};
use bninception_engine::{
    EvaluationWeights, Executor, Fast, FastOptions, Hooks, Images, ModelState, Reference,
    TrainBatch,
};

mod common;

const CLASSES: usize = 10;
const LABELS: [u32; 3] = [7, 0, 4];
/// Factors on the losses of the classes' images; those of [`LABELS`] have a mean of 1.25.
const WEIGHTS: [f64; CLASSES] = [0.25, 9.0, 9.0, 9.0, 1.5, 9.0, 9.0, 2.0, 9.0, 9.0];
/// Length of the steps of finite differences.
const STEP: f64 = 1e-2;

fn network(kind: Kind, aux: bool, batch_norm: bool) -> Network {
    let norm = BatchNormOptions { epsilon: 1e-5 };
    let options = NetworkOptions {
        classes: CLASSES,
        image_size: 32,
        // Differentiable everywhere, so that differences are derivatives.
        activation: Activation::Sigmoid,
        batch_norm: batch_norm.then_some(norm),
        conv_bias: true,
        dropout: 0.4,
        aux: aux.then_some(AuxOptions { weight: 0.375, dropout: 0.7 }),
        ..NetworkOptions::default()
    };
    Network::new(kind, options).unwrap()
}

/// Values between -1 and 1 in steps of the golden ratio.
fn images(network: &Network) -> Vec<f32> {
    let len = LABELS.len() * network.layers[0].output.len();
    (0..len).map(|i| ((i as f64 * 0.618_033_988_749_895).fract() * 2.0 - 1.0) as f32).collect()
}

/// The weighted sum of all losses in f64, by the definition of cross-entropy.
fn total_loss(
    executor: &ReferenceExecutor,
    images: &[f32],
    weights: &Weights,
    gradients: &mut [f32],
) -> f64 {
    let network = executor.network();
    let mut total = 0.0;
    let mut weights = weights.clone();
    let (images, labels) = (Images::Values(images), &LABELS);
    let input = TrainInput {
        images,
        labels,
        label_smoothing: 0.0,
        class_weights: Some(&WEIGHTS),
        own_share: None,
        draw: (5, 7),
        bn_momentum: 0.1,
    };
    executor
        .train(
            &input,
            &mut weights,
            gradients,
            &mut |layer, output| {
                let is_own = |logits: usize| network.layers[logits].name == layer.name;
                let loss = network.losses.iter().find(|loss| is_own(loss.logits));
                if let Some(loss) = loss {
                    for (logits, &label) in output.to_vec2::<f64>()?.iter().zip(&LABELS) {
                        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
                        let own = sum.ln() - logits[label as usize];
                        total += loss.weight * WEIGHTS[label as usize] * own / LABELS.len() as f64;
                    }
                }
                Ok(())
            },
            None,
        )
        .unwrap();
    total
}

#[test]
fn gradients_of_all_losses_match_finite_differences() {
    // Of the trunk below both heads and above them, and of every part of a head.
    let tensors = [
        "conv2_3x3.weight",
        "inception_4a_3x3.weight",
        "aux1_conv.weight",
        "aux1_fc.weight",
        "aux2_fc.bias",
        "aux2_linear.weight",
        "last_linear.weight",
    ];
    // Without batch norm, which at three images is too far from linear for differences.
    let network = network(Kind::GoogLeNet, true, false);
    let table = ParameterTable::new(&network);
    let executor = ReferenceExecutor::in_f64(network.clone());
    let images = images(&network);
    let weights = initial_weights(&network, &table, 1);
    let mut gradients = vec![0.0; table.n_trainable()];
    total_loss(&executor, &images, &weights, &mut gradients);
    let mut unused = gradients.clone();
    for name in tensors {
        let spec = table.trainable.iter().find(|spec| spec.name == name).unwrap();
        let gradient = &gradients[spec.range.clone()];
        // Along the gradient the derivative is its norm. Weights are f32, so the expected change is
        // that of the weights as they really moved.
        let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let mut moved = |size: f64| -> (f64, f64) {
            let mut weights = weights.clone();
            let mut along = 0.0;
            for (weight, &g) in weights.trainable[spec.range.clone()].iter_mut().zip(gradient) {
                let before = *weight;
                *weight += (size * f64::from(g) / norm) as f32;
                along += f64::from(g) * (f64::from(*weight) - f64::from(before));
            }
            (total_loss(&executor, &images, &weights, &mut unused), along)
        };
        let ((above, up), (below, down)) = (moved(STEP), moved(-STEP));
        let (found, expected) = (above - below, up - down);
        let error = (found - expected).abs() / expected.abs();
        assert!(error < 2e-3, "{name}: {found:e} for {expected:e}, norm {norm:e}");
    }
}

/// Copies the tensors that both networks have.
fn shared(from: (&Network, &Weights), to: &Network) -> Weights {
    let (from_table, table) = (ParameterTable::new(from.0), ParameterTable::new(to));
    let mut weights = initial_weights(to, &table, 9);
    for spec in &table.trainable {
        let same = from_table.trainable.iter().find(|other| other.name == spec.name).unwrap();
        weights.trainable[spec.range.clone()]
            .copy_from_slice(&from.1.trainable[same.range.clone()]);
    }
    weights
}

#[test]
fn evaluation_and_the_reported_loss_are_those_of_the_main_head() {
    for kind in Kind::ALL {
        let (with, without) = (network(kind, true, true), network(kind, false, true));
        let weights = initial_weights(&with, &ParameterTable::new(&with), 1);
        let plain_weights = shared((&with, &weights), &without);
        let images = images(&with);
        let run = |mut executor: Box<dyn Executor>, weights: &Weights| {
            let mut logits = Vec::new();
            let (labels, images) = (&LABELS, Images::Values(&images));
            executor.prepare_evaluation(EvaluationWeights::Given(weights)).unwrap();
            executor.evaluate(images, &mut logits).unwrap();
            let batch = TrainBatch {
                images,
                labels,
                label_smoothing: 0.0,
                class_weights: Some(&WEIGHTS),
                own_share: None,
                seed: 5,
                number: 7,
                bn_momentum: 0.1,
            };
            let step = common::step(&mut *executor, weights, &batch, Hooks::default()).unwrap();
            let common::Step { loss, logits: trained, .. } = step;
            let n = trained.len() / CLASSES;
            let mean: f64 = (0..n)
                .map(|image| {
                    let logits = &trained[image * CLASSES..][..CLASSES];
                    let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                    let label = LABELS[image] as usize;
                    WEIGHTS[label] * (sum.ln() - f64::from(logits[label]))
                })
                .sum();
            assert!((mean / n as f64 - loss).abs() < 1e-5, "the loss is that of the logits");
            logits
        };
        let fast = |network: &Network| -> Box<dyn Executor> {
            let options = FastOptions { threads: 2, ..FastOptions::default() };
            Box::new(Fast::new(network.clone(), options).unwrap())
        };
        assert_eq!(run(fast(&with), &weights), run(fast(&without), &plain_weights));
        let reference = |network: &Network| Box::new(Reference::new(network.clone()));
        assert_eq!(run(reference(&with), &weights), run(reference(&without), &plain_weights));
    }
}

#[test]
fn a_head_that_diverges_is_reported() {
    let network = network(Kind::GoogLeNet, true, false);
    let table = ParameterTable::new(&network);
    let mut weights = initial_weights(&network, &table, 1);
    let spec = table.trainable.iter().find(|spec| spec.name == "aux2_linear.bias").unwrap();
    weights.trainable[spec.range.start] = f32::NAN;
    let images = images(&network);
    let (images, labels) = (Images::Values(&images), &LABELS);
    let batch = TrainBatch {
        images,
        labels,
        label_smoothing: 0.0,
        class_weights: None,
        own_share: None,
        seed: 0,
        number: 0,
        bn_momentum: 0.1,
    };
    let fast = Fast::new(network.clone(), FastOptions::default()).unwrap();
    let executors: [Box<dyn Executor>; 2] =
        [Box::new(fast), Box::new(Reference::new(network.clone()))];
    for mut executor in executors {
        let mut logits = Vec::new();
        executor.load(ModelState::of(weights.clone())).unwrap();
        let result = executor.gradients(&batch, Hooks::default()).unwrap();
        executor.store_logits(&mut logits).unwrap();
        assert!(result.loss.is_nan());
        assert!(logits.iter().all(|logit| logit.is_finite()), "the main head is sound");
    }
}

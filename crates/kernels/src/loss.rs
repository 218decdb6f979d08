//! Softmax cross-entropy with label smoothing.

use crate::team::pieces::{chunks, split};
use crate::team::threads::Team;

/// Loss of each image, and the gradient of the batch's mean loss.
///
/// The target of an image is `1 - smoothing` at its label plus `smoothing / classes` everywhere
/// (Szegedy et al. 2016, section 7, <https://arxiv.org/abs/1512.00567>; PyTorch's
/// `label_smoothing`). Sums run in f64. `logits` and `gradient` are `[n][classes]`, `labels` and `losses`
/// `[n]`.
///
/// # Panics
/// If lengths do not fit together, or a label is not below `classes`.
pub fn softmax_cross_entropy(
    team: &Team,
    classes: usize,
    logits: &[f32],
    labels: &[u32],
    smoothing: f64,
    gradient: &mut [f32],
    losses: &mut [f64],
) {
    let images = labels.len();
    assert!(
        [logits.len(), gradient.len()] == [images * classes; 2] && losses.len() == images,
        "{images} labels of {classes} classes: found {} logits, {} gradients, {} losses",
        logits.len(),
        gradient.len(),
        losses.len()
    );
    assert!(labels.iter().all(|&label| (label as usize) < classes), "a label beyond {classes}");
    split(
        team,
        images,
        (chunks(gradient, classes), chunks(losses, 1)),
        |image, (gradient, loss)| {
            let logits = &logits[image * classes..][..classes];
            let label = labels[image] as usize;
            // A NaN among the logits is dropped here but comes back with the sum.
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let shifted = |logit: f32| f64::from(logit) - f64::from(max);
            let sum: f64 = logits.iter().map(|&logit| shifted(logit).exp()).sum();
            let log_sum = sum.ln();
            let even = smoothing / classes as f64;
            let mean = logits.iter().map(|&logit| shifted(logit)).sum::<f64>() / classes as f64;
            loss[0] = log_sum - (1.0 - smoothing) * shifted(logits[label]) - smoothing * mean;
            for (class, (gradient, &logit)) in gradient.iter_mut().zip(logits).enumerate() {
                let probability = (shifted(logit) - log_sum).exp();
                let target = even + if class == label { 1.0 - smoothing } else { 0.0 };
                *gradient = ((probability - target) / images as f64) as f32;
            }
        },
    );
}

//! Softmax cross-entropy with label smoothing.

use crate::team::pieces::{chunks, split};
use crate::team::threads::Team;

/// What the images of a batch should be taken for.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// Number of classes.
    pub classes: usize,
    /// Class of each image, below `classes`.
    pub labels: &'a [u32],
    /// Share of the target that is spread evenly over all classes.
    pub smoothing: f64,
    /// Factor on the loss of each class's images, one for each class; 1 for all where there is none.
    pub class_weights: Option<&'a [f64]>,
}

/// Loss of each image, and the gradient of the batch's mean loss.
///
/// The target of an image is `1 - smoothing` at its label plus `smoothing / classes` everywhere
/// (Szegedy et al. 2016, section 7, <https://arxiv.org/abs/1512.00567>; PyTorch's
/// `label_smoothing`). The loss of an image is multiplied by the weight of its class; the mean divides by
/// the number of images, whatever their weights. Sums run in f64. `logits` and `gradient` are
/// `[n][classes]`, labels and `losses` `[n]`.
///
/// # Panics
/// If lengths do not fit together, or a label is not below the number of classes.
pub fn softmax_cross_entropy(
    team: &Team,
    targets: &Targets<'_>,
    logits: &[f32],
    gradient: &mut [f32],
    losses: &mut [f64],
) {
    let Targets { classes, labels, smoothing, class_weights } = *targets;
    let images = labels.len();
    assert!(
        [logits.len(), gradient.len()] == [images * classes; 2] && losses.len() == images,
        "{images} labels of {classes} classes: found {} logits, {} gradients, {} losses",
        logits.len(),
        gradient.len(),
        losses.len()
    );
    assert!(labels.iter().all(|&label| (label as usize) < classes), "a label beyond {classes}");
    let n_weights = class_weights.map_or(classes, <[f64]>::len);
    assert_eq!(n_weights, classes, "weights of classes");
    split(
        team,
        images,
        (chunks(gradient, classes), chunks(losses, 1)),
        |image, (gradient, loss)| {
            let logits = &logits[image * classes..][..classes];
            let label = labels[image] as usize;
            // A factor of 1 keeps every bit.
            let weight = class_weights.map_or(1.0, |weights| weights[label]);
            // A NaN among the logits is dropped here but comes back with the sum.
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let shifted = |logit: f32| f64::from(logit) - f64::from(max);
            let sum: f64 = logits.iter().map(|&logit| shifted(logit).exp()).sum();
            let log_sum = sum.ln();
            let even = smoothing / classes as f64;
            let mean = logits.iter().map(|&logit| shifted(logit)).sum::<f64>() / classes as f64;
            let own = log_sum - (1.0 - smoothing) * shifted(logits[label]) - smoothing * mean;
            loss[0] = weight * own;
            for (class, (gradient, &logit)) in gradient.iter_mut().zip(logits).enumerate() {
                let probability = (shifted(logit) - log_sum).exp();
                let target = even + if class == label { 1.0 - smoothing } else { 0.0 };
                *gradient = (weight * (probability - target) / images as f64) as f32;
            }
        },
    );
}

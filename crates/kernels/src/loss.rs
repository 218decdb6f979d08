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
    /// Where images were mixed in pairs, the share of each one's own label; its partner's has the rest.
    pub own_share: Option<f64>,
}

impl Targets<'_> {
    /// The image that `image` was mixed with: as far from the end of the batch as it is from the beginning.
    fn partner(&self, image: usize) -> usize {
        self.labels.len() - 1 - image
    }

    /// What holds for the labels of `image` together: `value` of its own, or, where images were mixed, of
    /// both by their shares. The factor of a label's class is in it.
    pub fn over_labels(&self, image: usize, value: impl Fn(usize) -> f64) -> f64 {
        let weighted = |image: usize| {
            let label = self.labels[image] as usize;
            // A factor of 1 keeps every bit.
            self.class_weights.map_or(1.0, |weights| weights[label]) * value(label)
        };
        match self.own_share {
            None => weighted(image),
            Some(share) => share * weighted(image) + (1.0 - share) * weighted(self.partner(image)),
        }
    }
}

/// Loss of each image, and the gradient of the batch's mean loss.
///
/// The target of an image is `1 - smoothing` at its label plus `smoothing / classes` everywhere
/// (Szegedy et al. 2016, section 7, <https://arxiv.org/abs/1512.00567>; PyTorch's
/// `label_smoothing`). The loss of an image is multiplied by the weight of its class; the mean divides by
/// the number of images, whatever their weights. Of images that were mixed it is the mean of their two
/// labels' losses by their shares (Zhang et al. 2018, <https://arxiv.org/abs/1710.09412>). Sums run in f64. `logits` and `gradient` are
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
    let Targets { classes, labels, smoothing, class_weights, .. } = *targets;
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
            // A NaN among the logits is dropped here but comes back with the sum.
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let shifted = |logit: f32| f64::from(logit) - f64::from(max);
            let sum: f64 = logits.iter().map(|&logit| shifted(logit).exp()).sum();
            let log_sum = sum.ln();
            let even = smoothing / classes as f64;
            let mean = logits.iter().map(|&logit| shifted(logit)).sum::<f64>() / classes as f64;
            loss[0] = targets.over_labels(image, |label| {
                log_sum - (1.0 - smoothing) * shifted(logits[label]) - smoothing * mean
            });
            for (class, (gradient, &logit)) in gradient.iter_mut().zip(logits).enumerate() {
                let probability = (shifted(logit) - log_sum).exp();
                let sum = targets.over_labels(image, |label| {
                    let target = even + if class == label { 1.0 - smoothing } else { 0.0 };
                    probability - target
                });
                *gradient = (sum / images as f64) as f32;
            }
        },
    );
}

//! Top-1, top-5 and loss of a set of images, from logits.
//!
//! Everything is counted in whole images or summed in f64, so that batch size and order of the
//! images change at most the last digits of the loss.

use bninception_kernels::loss::Targets;
use serde::{Deserialize, Deserializer, Serialize};

/// Counts and sums over the images seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    images: u64,
    top1: u64,
    top5: u64,
    not_finite: u64,
    /// Not finite once the loss of an image was not, and then null in JSON.
    #[serde(deserialize_with = "number_or_null")]
    loss_sum: f64,
}

/// A number, or NaN where null stands for one that was not finite.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// How one image came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// How many classes beat the label; `None` where a logit is NaN or infinite.
    pub rank: Option<usize>,
    /// Loss in nats.
    pub loss: f64,
}

impl Score {
    /// The score of one image's logits without label smoothing, with the rules and panics of [`Metrics::add_batch`].
    pub fn of_logits(logits_k: &[f32], label: usize) -> Score {
        Score { rank: rank_of_logits(logits_k, label), loss: cross_entropy(logits_k, label, 0.0) }
    }

    /// The score of the logarithms of one image's probabilities, such as of a mean over crops or
    /// models: the same ranks, and the loss `-ln p(label)`. Of logarithms, because probabilities
    /// below 1e-308 are 0 and would all be equal.
    ///
    /// # Panics
    /// The label is not below the number of classes.
    pub fn of_log_probabilities(log_k: &[f64], label: usize) -> Score {
        let is_finite = log_k.iter().all(|log| log.is_finite());
        Score { rank: is_finite.then(|| rank(log_k, label)), loss: -log_k[label] }
    }

    /// Whether the label is among the first k classes.
    pub fn is_in_top(&self, k: usize) -> bool {
        self.rank.is_some_and(|rank| rank < k)
    }
}

impl Metrics {
    /// From what was counted elsewhere: images right at top-1 and at top-5, images with a logit that is not finite,
    /// and the sum of losses.
    pub(crate) fn of_counts(images: u64, counts: [u64; 3], loss_sum: f64) -> Metrics {
        let [top1, top5, not_finite] = counts;
        Metrics { images, top1, top5, not_finite, loss_sum }
    }

    /// Adds an image.
    pub fn add(&mut self, score: &Score) {
        self.images += 1;
        self.loss_sum += score.loss;
        self.top1 += u64::from(score.is_in_top(1));
        self.top5 += u64::from(score.is_in_top(5));
        self.not_finite += u64::from(score.rank.is_none());
    }

    /// Adds a batch.
    ///
    /// `logits_nk` holds n rows of logits, one for each of the n labels of `targets`. An image is
    /// right at top-k when fewer than k classes beat its label; a class beats another by a greater
    /// logit, or by an equal one and a lower index. With fewer than 5 classes top-5 is top-`classes`
    /// and so 1. The loss of an image is that of training, with the weights of classes and the shares of
    /// mixed labels; the mean divides by the number of images. A row with a logit that is NaN or infinite is
    /// never right and is counted apart.
    ///
    /// # Panics
    /// Lengths that do not fit each other, a label that is not below the number of classes.
    pub fn add_batch(&mut self, logits_nk: &[f32], targets: &Targets<'_>) {
        let Targets { classes, labels, smoothing, .. } = *targets;
        assert_eq!(logits_nk.len(), labels.len() * classes, "logits of another batch");
        for (image, logits_k) in logits_nk.chunks_exact(classes).enumerate() {
            let loss = |label| cross_entropy(logits_k, label, smoothing);
            self.add(&Score {
                rank: rank_of_logits(logits_k, labels[image] as usize),
                loss: targets.over_labels(image, loss),
            });
        }
    }

    /// Adds what another has seen.
    pub fn merge(&mut self, other: &Metrics) {
        self.images += other.images;
        self.top1 += other.top1;
        self.top5 += other.top5;
        self.not_finite += other.not_finite;
        self.loss_sum += other.loss_sum;
    }

    /// Images seen.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Images with a logit that was NaN or infinite.
    pub fn not_finite(&self) -> u64 {
        self.not_finite
    }

    /// Fraction of the images whose label came first; `None` without images.
    pub fn top1(&self) -> Option<f64> {
        self.mean(self.top1 as f64)
    }

    /// Fraction of the images whose label was among the first five; `None` without images.
    pub fn top5(&self) -> Option<f64> {
        self.mean(self.top5 as f64)
    }

    /// Mean loss in nats, not finite once an image's loss was not; `None` without images.
    pub fn loss(&self) -> Option<f64> {
        self.mean(self.loss_sum)
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        (self.images > 0).then(|| sum / self.images as f64)
    }
}

/// Softmax cross-entropy of one image in nats, computed in f64.
///
/// With smoothing s the target is 1 - s on the label plus s / k on each of the k classes
/// (Szegedy et al. 2015, section 7, <https://arxiv.org/abs/1512.00567>). Not finite where a logit
/// is NaN or +infinite, or the label's is -infinite.
///
/// # Panics
/// The label is not below the number of logits.
pub fn cross_entropy(logits_k: &[f32], label: usize, label_smoothing: f64) -> f64 {
    let target = f64::from(logits_k[label]);
    // The largest logit is subtracted so that no exponential overflows.
    let largest = logits_k.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = logits_k.iter().map(|&logit| f64::from(logit) - f64::from(largest));
    let log_sum = f64::from(largest) + shifted.map(f64::exp).sum::<f64>().ln();
    if label_smoothing == 0.0 {
        return log_sum - target;
    }
    let mean = logits_k.iter().map(|&logit| f64::from(logit)).sum::<f64>() / logits_k.len() as f64;
    log_sum - (1.0 - label_smoothing) * target - label_smoothing * mean
}

/// Probabilities of one image's classes, computed in f64; NaN where a logit is NaN or +infinite.
pub fn softmax(logits_k: &[f32]) -> Vec<f64> {
    let largest = logits_k.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = logits_k.iter().map(|&logit| f64::from(logit) - f64::from(largest));
    let mut probabilities: Vec<f64> = shifted.map(f64::exp).collect();
    let sum: f64 = probabilities.iter().sum();
    probabilities.iter_mut().for_each(|probability| *probability /= sum);
    probabilities
}

/// Logarithms of the probabilities of one image's classes, computed in f64; all NaN where a logit is
/// NaN or infinite, as such an image is never right.
pub fn log_softmax(logits_k: &[f32]) -> Vec<f64> {
    if logits_k.iter().any(|logit| !logit.is_finite()) {
        return vec![f64::NAN; logits_k.len()];
    }
    let largest = logits_k.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = |&logit: &f32| f64::from(logit) - f64::from(largest);
    let log_sum = logits_k.iter().map(|logit| shifted(logit).exp()).sum::<f64>().ln();
    logits_k.iter().map(|logit| shifted(logit) - log_sum).collect()
}

/// `ln(e^a + e^b)`, without overflow and underflow; NaN if one of them is.
pub fn log_add(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY {
        return b;
    }
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    high + (low - high).exp().ln_1p()
}

/// The k classes with the greatest values, greatest first; of equal ones the lower index first. All
/// classes if there are fewer than k. NaN comes last.
pub fn top_k<T: PartialOrd>(values: &[T], k: usize) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..values.len()).collect();
    // NaN alone is not equal to itself.
    let order = |&a: &usize, &b: &usize| {
        let (x, y) = (&values[a], &values[b]);
        let is_nan = |value: &T| value.partial_cmp(value).is_none();
        let by_value = y.partial_cmp(x).unwrap_or_else(|| is_nan(x).cmp(&is_nan(y)));
        by_value.then(a.cmp(&b))
    };
    // Evaluation asks for five of thousands, for every image: no need to sort them all.
    if k < classes.len() {
        classes.select_nth_unstable_by(k, order);
        classes.truncate(k);
    }
    classes.sort_unstable_by(order);
    classes
}

/// How many classes beat the label; `None` where a logit is NaN or infinite.
fn rank_of_logits(logits_k: &[f32], label: usize) -> Option<usize> {
    logits_k.iter().all(|logit| logit.is_finite()).then(|| rank(logits_k, label))
}

/// How many classes beat the label.
fn rank<T: PartialOrd + Copy>(values_k: &[T], label: usize) -> usize {
    let target = values_k[label];
    let beats = |(class, &value): (usize, &T)| value > target || (value == target && class < label);
    values_k.iter().enumerate().filter(|&entry| beats(entry)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(labels: &[u32], classes: usize) -> Targets<'_> {
        Targets { classes, labels, smoothing: 0.0, class_weights: None, own_share: None }
    }

    fn metrics(logits_nk: &[f32], labels_n: &[u32], classes: usize) -> Metrics {
        let mut metrics = Metrics::default();
        metrics.add_batch(logits_nk, &targets(labels_n, classes));
        metrics
    }

    #[test]
    fn nothing_seen_has_no_mean() {
        let metrics = Metrics::default();
        assert_eq!((metrics.top1(), metrics.top5(), metrics.loss()), (None, None, None));
    }

    #[test]
    fn counts_top1_and_top5() {
        let logits_k = [0.0, 7.0, 1.0, 6.0, 2.0, 5.0, 3.0, 4.0]; // order 1 3 5 7 6 4 2 0
        let table = [(1, 1.0, 1.0), (3, 0.0, 1.0), (6, 0.0, 1.0), (4, 0.0, 0.0), (0, 0.0, 0.0)];
        for (label, top1, top5) in table {
            let metrics = metrics(&logits_k, &[label], 8);
            assert_eq!((metrics.top1(), metrics.top5()), (Some(top1), Some(top5)), "{label}");
        }
    }

    #[test]
    fn the_lower_class_wins_a_tie() {
        // Six equal logits, one of them a negative zero: classes 0 to 4 are the first five.
        let logits_k = [0.0, 0.0, -0.0, 0.0, 0.0, 0.0];
        let table = [(0, 1.0, 1.0), (2, 0.0, 1.0), (4, 0.0, 1.0), (5, 0.0, 0.0)];
        for (label, top1, top5) in table {
            let metrics = metrics(&logits_k, &[label], 6);
            assert_eq!((metrics.top1(), metrics.top5()), (Some(top1), Some(top5)), "{label}");
        }
        assert_eq!(top_k(&logits_k, 5), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn few_classes_make_top5_certain() {
        let metrics = metrics(&[3.0, 2.0, 1.0], &[2], 3);
        assert_eq!((metrics.top1(), metrics.top5()), (Some(0.0), Some(1.0)));
    }

    #[test]
    fn a_row_that_is_not_finite_is_never_right() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // The label has the greatest of the other logits; top-5 would be certain.
            let metrics = metrics(&[9.0, bad, 0.0, 9.0, 0.0, 0.0], &[0, 0], 3);
            assert_eq!(metrics.images(), 2);
            assert_eq!(metrics.not_finite(), 1, "{bad}");
            assert_eq!((metrics.top1(), metrics.top5()), (Some(0.5), Some(0.5)), "{bad}");
        }
        assert!(metrics(&[f32::NAN, 0.0], &[1], 2).loss().unwrap().is_nan());
        assert!(!metrics(&[f32::INFINITY, 0.0], &[1], 2).loss().unwrap().is_finite());
        assert!(metrics(&[f32::INFINITY, 0.0], &[0], 2).loss().unwrap().is_nan());
    }

    #[test]
    fn loss_follows_the_formula() {
        let table: [(&[f32], usize, f64, f64); 5] = [
            // Equal logits: ln k, with any smoothing.
            (&[2.0, 2.0, 2.0, 2.0], 3, 0.0, 4.0_f64.ln()),
            (&[2.0, 2.0, 2.0, 2.0], 3, 0.3, 4.0_f64.ln()),
            // ln(e^0 + e^1) - 0
            (&[0.0, 1.0], 0, 0.0, (1.0 + 1.0_f64.exp()).ln()),
            // Targets 0.95 and 0.05: 0.95 L0 + 0.05 L1 with L1 = L0 - 1.
            (&[0.0, 1.0], 0, 0.1, (1.0 + 1.0_f64.exp()).ln() - 0.05),
            // e^1000 overflows; the difference does not.
            (&[1000.0, 0.0], 1, 0.0, 1000.0),
        ];
        for (logits_k, label, smoothing, expected) in table {
            let loss = cross_entropy(logits_k, label, smoothing);
            assert!((loss - expected).abs() < 1e-12, "{logits_k:?}: {loss}, expected {expected}");
        }
    }

    #[test]
    fn log_probabilities_score_as_their_logits() {
        // The last two probabilities are 0 in f64.
        let logits_k = [1.5, -0.25, 7.0, 6.5, 1.5, -900.0, -800.0];
        let log_k = log_softmax(&logits_k);
        for label in 0..logits_k.len() {
            let expected = Score::of_logits(&logits_k, label);
            let found = Score::of_log_probabilities(&log_k, label);
            assert_eq!(found.rank, expected.rank, "{label}");
            assert!((found.loss - expected.loss).abs() < 1e-12, "{label}");
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let log_k = log_softmax(&[bad, 0.5, 0.0]);
            assert!(log_k.iter().all(|log| log.is_nan()), "{bad}");
            let score = Score::of_log_probabilities(&log_k, 1);
            assert_eq!((score.rank, score.is_in_top(5)), (None, false), "{bad}");
        }
    }

    #[test]
    fn logarithms_add_their_exponentials() {
        let table = [
            (f64::NEG_INFINITY, -3.0, -3.0),
            (0.25_f64.ln(), 0.5_f64.ln(), 0.75_f64.ln()),
            (0.5_f64.ln(), 0.25_f64.ln(), 0.75_f64.ln()),
            (-1000.0, -1000.0, -1000.0 + 2.0_f64.ln()),
            (f64::NEG_INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY),
        ];
        for (a, b, expected) in table {
            let found = log_add(a, b);
            assert!(found == expected || (found - expected).abs() < 1e-12, "{a} {b}: {found}");
        }
        assert!(log_add(f64::NAN, 0.0).is_nan() && log_add(0.0, f64::NAN).is_nan());
    }

    #[test]
    fn softmax_is_the_loss_undone() {
        let logits_k = [1.5, -0.25, 700.0, 699.0];
        let probabilities = softmax(&logits_k);
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        for (label, probability) in probabilities.iter().enumerate() {
            let expected = (-cross_entropy(&logits_k, label, 0.0)).exp();
            assert!((probability - expected).abs() < 1e-12, "{probability}, expected {expected}");
        }
    }

    #[test]
    fn batches_weigh_by_their_images() {
        let logits_nk: Vec<f32> = (0..70).map(|i| ((i * 37) % 23) as f32).collect();
        let labels_n: Vec<u32> = (0..10).map(|i| (i * 3) % 7).collect();
        let whole = metrics(&logits_nk, &labels_n, 7);
        let mut parts = metrics(&logits_nk[..49], &labels_n[..7], 7);
        parts.merge(&metrics(&logits_nk[49..], &labels_n[7..], 7));
        assert_eq!((whole.images(), parts.images()), (10, 10));
        assert_eq!((whole.top1(), whole.top5()), (parts.top1(), parts.top5()));
        assert!((whole.loss().unwrap() - parts.loss().unwrap()).abs() < 1e-12);
    }

    #[test]
    fn the_loss_of_an_image_weighs_as_its_class() {
        let logits_nk = [0.5, -1.0, 2.0, 1.0, 1.0, 1.0];
        let losses = [metrics(&logits_nk[..3], &[2], 3), metrics(&logits_nk[3..], &[0], 3)];
        let [a, b] = losses.map(|metrics| metrics.loss().unwrap());
        let mut found = Metrics::default();
        let class_weights = Some(&[0.25, 7.0, 3.0][..]);
        found.add_batch(&logits_nk, &Targets { class_weights, ..targets(&[2, 0], 3) });
        assert!((found.loss().unwrap() - (3.0 * a + 0.25 * b) / 2.0).abs() < 1e-12);
        assert_eq!((found.images(), found.top1()), (2, Some(1.0)));
    }

    #[test]
    fn the_loss_of_a_mixed_image_is_that_of_both_labels() {
        let logits_nk = [0.5, -1.0, 2.0, 1.0, 1.5, 1.0];
        let mut found = Metrics::default();
        found.add_batch(&logits_nk, &Targets { own_share: Some(0.75), ..targets(&[2, 0], 3) });
        let loss = |image: usize, label| cross_entropy(&logits_nk[3 * image..][..3], label, 0.0);
        let expected = 0.75 * (loss(0, 2) + loss(1, 0)) + 0.25 * (loss(0, 0) + loss(1, 2));
        assert!((found.loss().unwrap() - expected / 2.0).abs() < 1e-12);
        // An image counts as right by the label that has most of it.
        assert_eq!(found.top1(), Some(0.5));
    }

    #[test]
    fn top_k_sorts_and_clips() {
        let table: [(&[f64], usize, &[usize]); 7] = [
            (&[0.1, 0.7, 0.2], 2, &[1, 2]),
            (&[0.1, 0.7, 0.2], 0, &[]),
            (&[0.1, 0.2, 0.1, 0.2, 0.1, f64::NAN, 0.1], 4, &[1, 3, 0, 2]),
            (&[0.1, 0.7, 0.2], 5, &[1, 2, 0]),
            (&[0.5, 0.5], 1, &[0]),
            (&[f64::NAN, 0.5, f64::NAN, 0.6], 4, &[3, 1, 0, 2]),
            (&[], 3, &[]),
        ];
        for (values, k, expected) in table {
            assert_eq!(top_k(values, k), expected, "{values:?}");
        }
    }
}

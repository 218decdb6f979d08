//! A linear classifier fitted to labelled features, and the strength of its penalty.
//!
//! The strength is chosen by images that are held out of the training images, never by the validation images.

use std::time::{Duration, Instant};

use super::minimise::{Found, Limits, minimise};
use super::regression::{Linear, Regression, Rows, Standard};

/// Features of images with their classes.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// `[images][channels]`.
    pub features: &'a [f32],
    /// Values of an image.
    pub channels: usize,
    /// The class of each image.
    pub labels: &'a [u32],
    /// All classes, some of which may have no image.
    pub classes: usize,
    /// Threads, which change no bit.
    pub threads: usize,
}

/// The penalties that are tried, from strong to weak: ten to the power of these halves. On standardised
/// features 100 leaves next to nothing of the weights, and 1e-5 lets them part images that are hard to part.
const HALF_POWERS: std::ops::RangeInclusive<i32> = -10..=4;

/// So many penalties in a row that are no better end the search: the loss has one valley as a rule.
const NO_BETTER: usize = 2;

/// Images are dealt to so many parts, each of which may be held out.
const PARTS: usize = 5;

/// So many parts are held out in turn as it takes to judge by this many images. The standard error of an
/// accuracy is then 1.1 points at the most.
const ENOUGH_IMAGES: usize = 2_000;

/// When a search with held-out images ends, and the last one. On 153 photographs a tenth of the second limit
/// changed no answer, and probabilities by 5e-5 at the most.
const ROUGH: Limits = Limits { gradient: 2e-4, steps: 300 };
const FINE: Limits = Limits { gradient: 1e-5, steps: 3_000 };

/// A penalty that takes longer than this is told.
const WORTH_A_LINE: Duration = Duration::from_secs(5);

/// A penalty, and what the images that were held out said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The penalty.
    pub penalty: f64,
    /// The mean loss of images that were held out.
    pub loss: f64,
    /// How many these were.
    pub held_out: usize,
    /// Parts that were held out in turn.
    pub parts: usize,
    /// Every penalty that was tried, with its loss.
    pub tried: Vec<(f64, f64)>,
    /// Where the search ended with this penalty, as [`Fit::all`]; the last one begins there.
    point: Vec<f64>,
}

/// The penalty with the lowest loss on images that are held out, each part in turn. `None` if there are so few
/// images that no part can be spared: what is left has to be of two classes at least. `check` is asked before
/// each evaluation of the function that is minimised.
///
/// # Errors
/// That of `check`.
pub fn choose<E>(
    images: &Labelled<'_>,
    mut check: impl FnMut() -> Result<(), E>,
) -> Result<Option<Chosen>, E> {
    let mut parts = Vec::new();
    let mut held_out = 0;
    for part in dealt(images.labels) {
        if held_out >= ENOUGH_IMAGES {
            break;
        }
        let (out, rest): (Vec<usize>, Vec<usize>) =
            (0..images.labels.len()).partition(|&row| part[row]);
        let fit = Fit::new(images, rest);
        if fit.present.len() >= 2 && !out.is_empty() {
            held_out += out.len();
            parts.push((fit, out));
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let mut tried: Vec<(f64, f64)> = Vec::new();
    let mut best: Option<(f64, f64)> = None;
    let (mut point, mut n_worse) = (Vec::new(), 0);
    for half in HALF_POWERS.rev() {
        let penalty = 10.0_f64.powf(f64::from(half) / 2.0);
        let (mut sum, begun) = (0.0, Instant::now());
        for (fit, out) in &mut parts {
            fit.solve(penalty, ROUGH, &mut check)?;
            sum += loss_sum(&fit.linear(), images, out);
        }
        let loss = sum / held_out as f64;
        tried.push((penalty, loss));
        match begun.elapsed() > WORTH_A_LINE {
            true => tracing::info!("penalty {penalty:.1e}: loss {loss:.4} on images held out"),
            false => tracing::debug!("penalty {penalty:.1e}: loss {loss:.4} on images held out"),
        }
        if best.is_none_or(|(_, least)| loss < least) {
            best = Some((penalty, loss));
            n_worse = 0;
            point = parts.first().map_or(Vec::new(), |(fit, _)| fit.all());
        } else {
            n_worse += 1;
        }
        if n_worse == NO_BETTER {
            break;
        }
    }
    let parts = parts.len();
    Ok(best.map(|(penalty, loss)| Chosen { penalty, loss, held_out, parts, tried, point }))
}

/// Which images each part has: those of a class are dealt to the parts in turn.
fn dealt(labels: &[u32]) -> impl Iterator<Item = Vec<bool>> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&row| labels[row]);
    (0..PARTS).map(move |part| {
        let mut is_in = vec![false; order.len()];
        order.iter().skip(part).step_by(PARTS).for_each(|&row| is_in[row] = true);
        is_in
    })
}

/// The sum of the losses of some images.
fn loss_sum(linear: &Linear, images: &Labelled<'_>, rows: &[usize]) -> f64 {
    let rows = Rows { features: images.features, channels: images.channels, rows };
    let labels = rows.rows.iter().map(|&row| images.labels[row]);
    linear.losses(&rows, labels, |_, loss| loss).into_iter().sum()
}

/// The penalty where there are too few images to choose one by: the middle of those that are tried.
pub const WITHOUT_CHOICE: f64 = 0.03;

/// The classifier that is fitted to all images with the penalty that was chosen, or else [`WITHOUT_CHOICE`], and
/// how the search for it ended.
///
/// # Errors
/// That of `check`.
///
/// # Panics
/// Fewer than two classes have images.
pub fn fit<E>(
    images: &Labelled<'_>,
    chosen: Option<&Chosen>,
    check: impl FnMut() -> Result<(), E>,
) -> Result<(Linear, Found), E> {
    let mut fit = Fit::new(images, (0..images.labels.len()).collect());
    assert!(fit.present.len() >= 2, "a classifier needs two classes");
    if let Some(chosen) = chosen {
        fit.begin_at(&chosen.point);
    }
    let found = fit.solve(chosen.map_or(WITHOUT_CHOICE, |chosen| chosen.penalty), FINE, check)?;
    Ok((fit.linear(), found))
}

/// A search on some of the images.
struct Fit<'a> {
    images: &'a Labelled<'a>,
    rows: Vec<usize>,
    /// The classes that have an image among them.
    present: Vec<u32>,
    /// The class of each, as a place in `present`.
    labels: Vec<u32>,
    standard: Standard,
    /// Where the search is. It goes on from there with the next penalty.
    point: Vec<f64>,
}

impl<'a> Fit<'a> {
    fn new(images: &'a Labelled<'a>, rows: Vec<usize>) -> Fit<'a> {
        let mut present: Vec<u32> = rows.iter().map(|&row| images.labels[row]).collect();
        present.sort_unstable();
        present.dedup();
        let place = |&row: &usize| present.partition_point(|&one| one < images.labels[row]) as u32;
        let labels = rows.iter().map(place).collect();
        let of = Rows { features: images.features, channels: images.channels, rows: &rows };
        let standard = Standard::of(&of);
        let point = vec![0.0; present.len() * (images.channels + 1)];
        Fit { images, rows, present, labels, standard, point }
    }

    fn regression(&self, penalty: f64) -> Regression<'_> {
        let Labelled { features, channels, threads, .. } = *self.images;
        Regression {
            rows: Rows { features, channels, rows: &self.rows },
            labels: &self.labels,
            classes: self.present.len(),
            standard: &self.standard,
            penalty,
            threads,
        }
    }

    fn solve<E>(
        &mut self,
        penalty: f64,
        limits: Limits,
        mut check: impl FnMut() -> Result<(), E>,
    ) -> Result<Found, E> {
        let mut point = std::mem::take(&mut self.point);
        let regression = self.regression(penalty);
        let found = minimise(&mut point, limits, |point, gradient| {
            check()?;
            Ok(regression.value(point, gradient))
        });
        self.point = point;
        found
    }

    /// The point for all classes, with 0 for those without images.
    fn all(&self) -> Vec<f64> {
        let (channels, classes) = (self.images.channels, self.images.classes);
        let mut all = vec![0.0; classes * (channels + 1)];
        let (weights, biases) = self.point.split_at(self.present.len() * channels);
        for (at, &class) in self.present.iter().enumerate() {
            let class = class as usize;
            all[class * channels..][..channels]
                .copy_from_slice(&weights[at * channels..][..channels]);
            all[classes * channels + class] = biases[at];
        }
        all
    }

    /// Begins where another search ended, as [`Fit::all`] gave it.
    fn begin_at(&mut self, all: &[f64]) {
        let (channels, classes) = (self.images.channels, self.images.classes);
        let (weights, biases) = self.point.split_at_mut(self.present.len() * channels);
        for (at, &class) in self.present.iter().enumerate() {
            let class = class as usize;
            weights[at * channels..][..channels]
                .copy_from_slice(&all[class * channels..][..channels]);
            biases[at] = all[classes * channels + class];
        }
    }

    /// The classifier of all classes. Logits of those that have images add up to 0; so the largest is not
    /// below 0. A class without images gets -ln(images + 1) always: less than one image of all, and never the
    /// answer.
    fn linear(&self) -> Linear {
        let (channels, classes) = (self.images.channels, self.images.classes);
        let mut found = self.regression(0.0).linear(&self.point);
        centre(&mut found.matrix, channels);
        centre(&mut found.bias, 1);
        let mut all = Linear {
            matrix: vec![0.0; classes * channels],
            bias: vec![-(self.rows.len() as f64 + 1.0).ln(); classes],
        };
        let rows = found.matrix.chunks_exact(channels).zip(found.bias);
        for (&class, (row, bias)) in self.present.iter().zip(rows) {
            let class = class as usize;
            all.matrix[class * channels..][..channels].copy_from_slice(row);
            all.bias[class] = bias;
        }
        all
    }
}

/// Takes their mean from rows of `len`, which changes no probability.
fn centre(rows: &mut [f64], len: usize) {
    let n = rows.len() / len;
    let mut mean = vec![0.0; len];
    for row in rows.chunks_exact(len) {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / n as f64);
    }
    for row in rows.chunks_exact_mut(len) {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn never() -> Result<(), Infallible> {
        Ok(())
    }

    /// Numbers between -1 and 1 that look drawn.
    fn numbers(n: usize) -> Vec<f32> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn labelled<'a>(features: &'a [f32], labels: &'a [u32], classes: usize) -> Labelled<'a> {
        let channels = features.len() / labels.len();
        Labelled { features, channels, labels, classes, threads: 1 }
    }

    /// As if this penalty had been chosen.
    fn with(penalty: f64, images: &Labelled<'_>) -> Chosen {
        let point = vec![0.0; images.classes * (images.channels + 1)];
        Chosen { penalty, loss: 0.0, held_out: 0, parts: 0, tried: Vec::new(), point }
    }

    fn probabilities(linear: &Linear, images: &Labelled<'_>) -> Vec<Vec<f64>> {
        let all: Vec<usize> = (0..images.labels.len()).collect();
        let rows = Rows { features: images.features, channels: images.channels, rows: &all };
        linear.losses(&rows, images.labels.iter().copied(), |logits, _| {
            let largest = logits.iter().copied().fold(f64::MIN, f64::max);
            let parts: Vec<f64> = logits.iter().map(|z| (z - largest).exp()).collect();
            let sum: f64 = parts.iter().sum();
            parts.into_iter().map(|part| part / sum).collect()
        })
    }

    /// Newton's method on two classes and two channels by the textbook, in the difference of the classes:
    /// both have half of its weights, so the penalty on it is half as large.
    fn newton(z: &[[f64; 2]], labels: &[u32], penalty: f64) -> [f64; 3] {
        let mut w = [0.0; 3];
        for _ in 0..50 {
            let (mut gradient, mut hessian) = ([0.0; 3], [[0.0; 3]; 3]);
            for (z, &label) in z.iter().zip(labels) {
                let x = [z[0], z[1], 1.0];
                let p = 1.0 / (1.0 + (-(0..3).map(|i| w[i] * x[i]).sum::<f64>()).exp());
                for i in 0..3 {
                    gradient[i] += (p - f64::from(label)) * x[i] / labels.len() as f64;
                    for j in 0..3 {
                        hessian[i][j] += p * (1.0 - p) * x[i] * x[j] / labels.len() as f64;
                    }
                }
            }
            for i in 0..2 {
                gradient[i] += 0.5 * penalty * w[i];
                hessian[i][i] += 0.5 * penalty;
            }
            // Gauss and Jordan.
            for i in 0..3 {
                let pivot = hessian[i][i];
                (0..3).for_each(|j| hessian[i][j] /= pivot);
                gradient[i] /= pivot;
                for k in (0..3).filter(|&k| k != i) {
                    let factor = hessian[k][i];
                    (0..3).for_each(|j| hessian[k][j] -= factor * hessian[i][j]);
                    gradient[k] -= factor * gradient[i];
                }
            }
            (0..3).for_each(|i| w[i] -= gradient[i]);
        }
        w
    }

    #[test]
    fn two_classes_come_out_as_by_newton() {
        let n = 60;
        let drawn = numbers(n * 3);
        let features: Vec<f32> =
            drawn.chunks_exact(3).flat_map(|x| [3.0 + x[0], 100.0 * x[1]]).collect();
        let labels: Vec<u32> =
            drawn.chunks_exact(3).map(|x| u32::from(x[0] + x[1] + 1.5 * x[2] > 0.2)).collect();
        let images = labelled(&features, &labels, 2);
        let all: Vec<usize> = (0..n).collect();
        let standard = Standard::of(&Rows { features: &features, channels: 2, rows: &all });
        for penalty in [1.0, 1e-2, 1e-4] {
            let (linear, found) = fit(&images, Some(&with(penalty, &images)), never).unwrap();
            assert!(found.is_minimum, "{found:?}");
            // Standardised here by the classifier whose rows are one over the deviations.
            let unit = Regression {
                rows: Rows { features: &features, channels: 2, rows: &all },
                labels: &labels,
                classes: 2,
                standard: &standard,
                penalty,
                threads: 1,
            };
            let scale = unit.linear(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
            let z: Vec<[f64; 2]> = features
                .chunks_exact(2)
                .map(|x| [0, 1].map(|at| f64::from(x[at]) * scale.matrix[at * 3] + scale.bias[at]))
                .collect();
            let w = newton(&z, &labels, penalty);
            for (z, found) in z.iter().zip(probabilities(&linear, &images)) {
                let expected = 1.0 / (1.0 + (-(w[0] * z[0] + w[1] * z[1] + w[2])).exp());
                assert!((found[1] - expected).abs() < 1e-3, "{penalty}: {} {expected}", found[1]);
            }
        }
    }

    #[test]
    fn classes_that_a_plane_parts_are_parted() {
        let n = 90;
        let mut features = numbers(n * 8);
        let labels: Vec<u32> = (0..n as u32).map(|row| row % 3).collect();
        for (row, &label) in features.chunks_exact_mut(8).zip(&labels) {
            row[label as usize] += 3.0;
        }
        let images = labelled(&features, &labels, 3);
        let chosen = choose(&images, never).unwrap().unwrap();
        assert_eq!((chosen.held_out, chosen.parts), (n, 5));
        assert!(chosen.penalty < 0.1 && chosen.loss < 0.1, "{chosen:?}");
        let least = chosen.tried.iter().map(|(_, loss)| *loss).fold(f64::MAX, f64::min);
        assert_eq!(chosen.loss, least);
        let (linear, found) = fit(&images, Some(&chosen), never).unwrap();
        assert!(found.is_minimum, "{found:?}");
        for (p, &label) in probabilities(&linear, &images).iter().zip(&labels) {
            assert!(p[label as usize] > 0.5, "{p:?} for {label}");
        }
    }

    /// Features that are nearly one and the same, as channels behind the last module are.
    #[test]
    fn features_that_hang_together_are_solved_too() {
        let n = 80;
        let drawn = numbers(n * 17);
        let features: Vec<f32> = drawn
            .chunks_exact(17)
            .flat_map(|x| (0..16).map(|at| 10.0 + x[16] + 1e-3 * x[at]).collect::<Vec<f32>>())
            .collect();
        let labels: Vec<u32> = drawn
            .chunks_exact(17)
            .map(|x| u32::from(x[16] > 0.0) + u32::from(x[0] > 0.5))
            .collect();
        let images = labelled(&features, &labels, 3);
        let (_, found) = fit(&images, Some(&with(1e-5, &images)), never).unwrap();
        assert!(found.is_minimum, "{found:?}");
    }

    #[test]
    fn noise_is_met_with_a_strong_penalty() {
        let n = 100;
        let features = numbers(n * 50);
        // Nothing to do with the features: bits of a number that grows.
        let labels: Vec<u32> = (0..n as u32).map(|row| (row * row / 7) & 1).collect();
        let chosen = choose(&labelled(&features, &labels, 2), never).unwrap().unwrap();
        assert!(chosen.penalty >= 0.3, "{chosen:?}");
        assert!(chosen.tried.len() < 15, "the search ends when nothing gets better");
    }

    #[test]
    fn a_class_without_images_is_never_the_answer() {
        let n = 40;
        let features = numbers(n * 6);
        let labels: Vec<u32> = (0..n as u32).map(|row| [0, 3][(row % 2) as usize]).collect();
        let images = labelled(&features, &labels, 5);
        let (linear, found) = fit(&images, Some(&with(0.01, &images)), never).unwrap();
        assert!(found.is_minimum);
        for p in probabilities(&linear, &images) {
            for absent in [1, 2, 4] {
                assert!(p[absent] > 0.0 && p[absent] < p[0].max(p[3]), "{p:?}");
            }
        }
        assert!(choose(&images, never).unwrap().is_some());
    }

    #[test]
    fn too_few_images_leave_no_choice() {
        let features = numbers(4);
        assert_eq!(choose(&labelled(&features, &[0, 1], 2), never).unwrap(), None);
        let (_, found) = fit(&labelled(&features, &[0, 1], 2), None, never).unwrap();
        assert!(found.is_minimum);
    }

    #[test]
    fn parts_have_as_many_images_of_each_class() {
        let labels: Vec<u32> = (0..103).map(|row| row % 3).collect();
        let parts: Vec<Vec<bool>> = dealt(&labels).collect();
        for class in 0..3 {
            let counts: Vec<usize> = parts
                .iter()
                .map(|part| part.iter().zip(&labels).filter(|(is_in, l)| **is_in && **l == class))
                .map(Iterator::count)
                .collect();
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
        for row in 0..labels.len() {
            assert_eq!(parts.iter().filter(|part| part[row]).count(), 1);
        }
    }

    #[test]
    fn a_check_ends_the_search() {
        let features = numbers(60);
        let labels: Vec<u32> = (0..20).map(|row| row % 2).collect();
        let images = labelled(&features, &labels, 2);
        let mut left = 10;
        let found = choose(&images, || {
            left -= 1;
            if left > 0 { Ok(()) } else { Err("stopped") }
        });
        assert_eq!(found, Err("stopped"));
    }
}

//! Multinomial logistic regression on standardised features, with a penalty on the squared weights:
//!
//! ```text
//! f(W, b) = 1/n sum_i -ln softmax(W z_i + b)[label_i] + penalty/2 |W|^2       z = (x - mean) / deviation
//! ```
//!
//! Without a penalty there is no minimum where a plane parts the classes, and with more channels than images
//! one always does. Biases have no penalty. The features stay as they are: the mean and the deviation are
//! moved into the weights, exactly, so W z + b = V x + c with V = W / deviation and c = b - V mean.

use std::thread;

use super::products::{add_weighted, multiply};

/// Rows that are made f64 at a time: 256 kB of 1,024 channels, which stay in a core's own cache.
const BLOCK_ROWS: usize = 32;

/// Logits that are kept at a time, whatever the number of images and classes: 8 MB.
const MOST_LOGITS: usize = 1 << 20;

/// A channel whose deviation is below this part of its mean does not vary but for rounding.
const LEAST_DEVIATION: f64 = 1e-6;

/// Features of images, and which of them count.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// `[images][channels]`.
    pub features: &'a [f32],
    /// Values of an image.
    pub channels: usize,
    /// The images that count, at least one.
    pub rows: &'a [usize],
}

impl Rows<'_> {
    /// The features of rows `first..first + n` of those that count, at most, as f64.
    fn block(&self, first: usize, n: usize, to: &mut Vec<f64>) {
        to.clear();
        for &row in self.rows[first..].iter().take(n) {
            let row = &self.features[row * self.channels..][..self.channels];
            to.extend(row.iter().map(|&value| f64::from(value)));
        }
    }
}

/// The mean of each channel, and one over its deviation.
#[derive(Clone, Debug, PartialEq)]
pub struct Standard {
    mean: Vec<f64>,
    /// 0 for a channel that does not vary.
    inverse: Vec<f64>,
}

impl Standard {
    /// That of `rows`.
    pub fn of(rows: &Rows<'_>) -> Standard {
        let n = rows.rows.len() as f64;
        let mut sums = vec![0.0; rows.channels];
        let mut block = Vec::new();
        // Two passes, because the square of a mean may be far larger than the variance.
        for first in (0..rows.rows.len()).step_by(BLOCK_ROWS) {
            rows.block(first, BLOCK_ROWS, &mut block);
            add_weighted(&block, rows.channels, |_| 1.0, &mut sums);
        }
        let mean: Vec<f64> = sums.into_iter().map(|sum| sum / n).collect();
        let mut squares = vec![0.0; rows.channels];
        for first in (0..rows.rows.len()).step_by(BLOCK_ROWS) {
            rows.block(first, BLOCK_ROWS, &mut block);
            for row in block.chunks_exact(rows.channels) {
                for ((sum, value), mean) in squares.iter_mut().zip(row).zip(&mean) {
                    *sum += (value - mean) * (value - mean);
                }
            }
        }
        let inverse = squares.into_iter().zip(&mean).map(|(sum, mean)| {
            let deviation = (sum / n).sqrt();
            if deviation > LEAST_DEVIATION * mean.abs() { 1.0 / deviation } else { 0.0 }
        });
        Standard { inverse: inverse.collect(), mean }
    }
}

/// A linear classifier of features as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[classes][channels]`.
    pub matrix: Vec<f64>,
    /// A value for each class.
    pub bias: Vec<f64>,
}

impl Linear {
    /// Hands the logits of each of `rows` and the loss under its label to `each`, and gives what comes back.
    pub fn losses<T>(
        &self,
        rows: &Rows<'_>,
        labels: impl IntoIterator<Item = u32>,
        mut each: impl FnMut(&[f64], f64) -> T,
    ) -> Vec<T> {
        let classes = self.bias.len();
        let (mut block, mut logits) = (Vec::new(), vec![0.0; BLOCK_ROWS * classes]);
        let mut labels = labels.into_iter();
        let mut found = Vec::with_capacity(rows.rows.len());
        for first in (0..rows.rows.len()).step_by(BLOCK_ROWS) {
            rows.block(first, BLOCK_ROWS, &mut block);
            let logits = &mut logits[..block.len() / rows.channels * classes];
            multiply(&block, &self.matrix, rows.channels, logits);
            for (logits, label) in logits.chunks_exact_mut(classes).zip(&mut labels) {
                logits.iter_mut().zip(&self.bias).for_each(|(logit, bias)| *logit += bias);
                let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
                let loss = sum.ln() + largest - logits[label as usize];
                found.push(each(logits, loss));
            }
        }
        found
    }
}

/// A regression to be solved. Its point is `[classes][channels]` weights and `[classes]` biases behind them.
#[derive(Clone, Copy, Debug)]
pub struct Regression<'a> {
    /// The images.
    pub rows: Rows<'a>,
    /// The class of each of them.
    pub labels: &'a [u32],
    /// Classes, each with an image at least.
    pub classes: usize,
    /// Mean and deviation of these images.
    pub standard: &'a Standard,
    /// Factor on half of the squared weights.
    pub penalty: f64,
    /// Threads, which change no bit.
    pub threads: usize,
}

impl Regression<'_> {
    /// Values of a point.
    pub fn len(&self) -> usize {
        self.classes * (self.rows.channels + 1)
    }

    /// Whether there is no class.
    pub fn is_empty(&self) -> bool {
        self.classes == 0
    }

    /// The classifier of a point.
    pub fn linear(&self, point: &[f64]) -> Linear {
        let Standard { mean, inverse } = self.standard;
        let (weights, biases) = point.split_at(self.classes * self.rows.channels);
        let rows = weights.chunks_exact(self.rows.channels);
        let matrix: Vec<f64> =
            rows.flat_map(|row| row.iter().zip(inverse).map(|(w, inverse)| w * inverse)).collect();
        let moved = matrix
            .chunks_exact(self.rows.channels)
            .zip(biases)
            .map(|(row, bias)| bias - row.iter().zip(mean).map(|(v, mean)| v * mean).sum::<f64>());
        Linear { bias: moved.collect(), matrix }
    }

    /// The value of the function at `point`; fills `gradient`.
    pub fn value(&self, point: &[f64], gradient: &mut [f64]) -> f64 {
        let (n, classes, channels) = (self.rows.rows.len(), self.classes, self.rows.channels);
        let linear = self.linear(point);
        let (to_weights, to_biases) = gradient.split_at_mut(classes * channels);
        to_weights.fill(0.0);
        to_biases.fill(0.0);
        let mut loss = 0.0;
        let chunk = (MOST_LOGITS / classes).clamp(1, n);
        let mut errors = vec![0.0; chunk * classes];
        let mut losses = vec![0.0; chunk];
        for first in (0..n).step_by(chunk) {
            let chunk = chunk.min(n - first);
            let errors = &mut errors[..chunk * classes];
            self.errors(&linear, first, errors, &mut losses[..chunk]);
            loss += losses[..chunk].iter().sum::<f64>();
            for row in errors.chunks_exact(classes) {
                to_biases.iter_mut().zip(row).for_each(|(sum, error)| *sum += error);
            }
            self.add_gradient(first, errors, to_weights);
        }
        let Standard { mean, inverse } = self.standard;
        let (weights, _) = point.split_at(classes * channels);
        let mut squares = 0.0;
        let rows = to_weights.chunks_exact_mut(channels).zip(weights.chunks_exact(channels));
        for ((to, weights), to_bias) in rows.zip(to_biases) {
            for (((to, w), mean), inverse) in to.iter_mut().zip(weights).zip(mean).zip(inverse) {
                *to = (*to - *to_bias * mean) * inverse / n as f64 + self.penalty * w;
                squares += w * w;
            }
            *to_bias /= n as f64;
        }
        loss / n as f64 + 0.5 * self.penalty * squares
    }

    /// For the images from `first` on: the probabilities less 1 for the right class, and the losses.
    fn errors(&self, linear: &Linear, first: usize, errors: &mut [f64], losses: &mut [f64]) {
        let share = losses.len().div_ceil(self.threads.max(1)).max(1);
        let shares = errors.chunks_mut(share * self.classes).zip(losses.chunks_mut(share));
        let shares = shares.enumerate().map(|(at, share_of)| (first + at * share, share_of));
        self.in_threads(shares, |(first, (errors, losses))| {
            let mut block = Vec::new();
            let blocks = errors.chunks_mut(BLOCK_ROWS * self.classes);
            for (at, (errors, losses)) in blocks.zip(losses.chunks_mut(BLOCK_ROWS)).enumerate() {
                let first = first + at * BLOCK_ROWS;
                self.rows.block(first, losses.len(), &mut block);
                multiply(&block, &linear.matrix, self.rows.channels, errors);
                let rows = errors.chunks_exact_mut(self.classes).zip(losses);
                for ((logits, loss), &label) in rows.zip(&self.labels[first..]) {
                    *loss = to_errors(logits, &linear.bias, label as usize);
                }
            }
        });
    }

    /// Adds the features of the images from `first` on, times their `errors`, to each class's row.
    fn add_gradient(&self, first: usize, errors: &[f64], to: &mut [f64]) {
        let (n, channels) = (errors.len() / self.classes, self.rows.channels);
        let share = self.classes.div_ceil(self.threads.max(1)).max(1);
        let shares = to.chunks_mut(share * channels).enumerate();
        self.in_threads(shares, |(at, to)| {
            let mut block = Vec::new();
            for row in (0..n).step_by(BLOCK_ROWS) {
                self.rows.block(first + row, BLOCK_ROWS.min(n - row), &mut block);
                for (class, to) in to.chunks_exact_mut(channels).enumerate() {
                    let class = at * share + class;
                    let error = |of: usize| errors[(row + of) * self.classes + class];
                    add_weighted(&block, channels, error, to);
                }
            }
        });
    }

    /// Does each share of the work in a thread of its own.
    fn in_threads<T: Send>(&self, shares: impl Iterator<Item = T>, work: impl Fn(T) + Sync) {
        if self.threads <= 1 {
            return shares.for_each(work);
        }
        let work = &work;
        thread::scope(|scope| {
            for share in shares {
                scope.spawn(move || work(share));
            }
        });
    }
}

/// Turns products into probabilities less 1 for the right class, and gives the loss.
fn to_errors(logits: &mut [f64], bias: &[f64], label: usize) -> f64 {
    logits.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let own = logits[label] - largest;
    let mut sum = 0.0;
    for logit in logits.iter_mut() {
        *logit = (*logit - largest).exp();
        sum += *logit;
    }
    logits.iter_mut().for_each(|part| *part /= sum);
    logits[label] -= 1.0;
    sum.ln() - own
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Features with a mean far from 0 and deviations of several sizes; the last channel never varies.
    fn features(n: usize, channels: usize) -> Vec<f32> {
        let value = |at: usize| {
            let (row, channel) = (at / channels, at % channels);
            match channel + 1 == channels {
                true => 0.25,
                false => {
                    let part = ((row * 31 + channel * 17 + row * channel * 7) % 23) as f32 / 23.0;
                    5.0 + part * 10.0_f32.powi(channel as i32 % 4 - 2)
                }
            }
        };
        (0..n * channels).map(value).collect()
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let (n, channels, classes) = (41, 6, 3);
        let features = features(n + 2, channels);
        let rows: Vec<usize> = (1..=n).collect();
        let labels: Vec<u32> = (0..n as u32).map(|row| row * row % 3).collect();
        let rows = Rows { features: &features, channels, rows: &rows };
        let standard = Standard::of(&rows);
        let penalty = 0.03;
        let regression =
            Regression { rows, labels: &labels, classes, standard: &standard, penalty, threads: 1 };
        let point: Vec<f64> =
            (0..regression.len()).map(|at| ((at * 13) % 7) as f64 / 5.0 - 0.6).collect();
        let (mut gradient, mut unused) = (vec![f64::NAN; point.len()], vec![0.0; point.len()]);
        let value = regression.value(&point, &mut gradient);

        // The definition, with features that are standardised one by one.
        let mut expected = 0.0;
        for (row, &label) in (1..=n).zip(&labels) {
            let x = &features[row * channels..][..channels];
            let logit = |class: usize| {
                let weights = point[class * channels..][..channels].iter();
                let standard = standard.mean.iter().zip(&standard.inverse);
                let z = x.iter().zip(standard).map(|(&x, (m, i))| (f64::from(x) - m) * i);
                weights.zip(z).map(|(w, z)| w * z).sum::<f64>() + point[classes * channels + class]
            };
            let sum: f64 = (0..classes).map(|class| logit(class).exp()).sum();
            expected += (sum.ln() - logit(label as usize)) / n as f64;
        }
        let squares: f64 = point[..classes * channels].iter().map(|w| w * w).sum();
        expected += 0.5 * penalty * squares;
        assert!((value - expected).abs() < 1e-12, "{value} {expected}");

        for at in 0..point.len() {
            let mut moved = |by: f64| {
                let mut point = point.clone();
                point[at] += by;
                regression.value(&point, &mut unused)
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!(
                (difference - gradient[at]).abs() < 1e-8,
                "{at}: {difference} {}",
                gradient[at]
            );
        }
        assert_eq!(standard.inverse[channels - 1], 0.0, "a channel that never varies is left out");
        assert_eq!(regression.linear(&point).matrix[channels - 1], 0.0);
    }

    #[test]
    fn threads_and_the_size_of_chunks_change_no_bit() {
        let (n, channels, classes) = (150, 9, 7);
        let features = features(n, channels);
        let rows: Vec<usize> = (0..n).collect();
        let labels: Vec<u32> = (0..n as u32).map(|row| row % 7).collect();
        let rows = Rows { features: &features, channels, rows: &rows };
        let standard = Standard::of(&rows);
        let mut found = Vec::new();
        for threads in [1, 2, 3, 50] {
            let regression = Regression {
                rows,
                labels: &labels,
                classes,
                standard: &standard,
                penalty: 0.1,
                threads,
            };
            let mut gradient = vec![0.0; regression.len()];
            let point: Vec<f64> = (0..gradient.len()).map(|at| (at % 5) as f64 - 2.0).collect();
            let value = regression.value(&point, &mut gradient);
            found.push((value, gradient));
        }
        assert!(found.iter().all(|one| *one == found[0]));
    }
}

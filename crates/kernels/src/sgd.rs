//! Passes over whole vectors of weights: the optimizer, averages, sums over micro-batches.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::simd::isa::Isa;
use crate::simd::lanes::dispatch;
use crate::team::pieces::{chunks, split};
use crate::team::threads::Team;

/// Values of one piece of work: 256 KB of weights, so that pieces are many and none is small.
const PIECE: usize = 1 << 16;

/// Constants of one step of stochastic gradient descent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Factor on the gradient, by which a gradient is clipped; 1 leaves it as it is, bit by bit.
    pub scale: f32,
    /// Learning rate.
    pub lr: f32,
    /// Share of the velocity that is kept.
    pub momentum: f32,
    /// Weight of the L2 penalty's gradient.
    pub weight_decay: f32,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
}

/// One step: `g <- scale * g + weight_decay * w`, `v <- momentum * v + g`, `w <- w - lr * v`, or with
/// Nesterov's form `w <- w - lr * (g + momentum * v)`
/// (<https://pytorch.org/docs/stable/generated/torch.optim.SGD.html>).
///
/// All three are flat vectors of one length, whatever their shape.
///
/// Returns whether all weights are finite afterwards, which is known here for free. A velocity or a
/// gradient that is not finite makes its weight so too.
///
/// # Panics
/// If the vectors differ in length.
pub fn step(
    team: &Team,
    isa: Isa,
    step: &Step,
    gradients: &[f32],
    velocity: &mut [f32],
    weights: &mut [f32],
) -> bool {
    assert_eq!(gradients.len(), velocity.len(), "lengths of gradients and velocity");
    assert_eq!(gradients.len(), weights.len(), "lengths of gradients and weights");
    let total = weights.len().div_ceil(PIECE);
    let pieces = (chunks(velocity, PIECE), chunks(weights, PIECE));
    let Step { scale, lr, momentum, weight_decay, nesterov } = *step;
    let finite = AtomicBool::new(true);
    split(team, total, pieces, |index, (velocity, weights)| {
        let gradients = &gradients[index * PIECE..][..weights.len()];
        let mut largest = 0;
        dispatch!(isa, _simd => {
            for ((w, v), &g) in weights.iter_mut().zip(velocity).zip(gradients) {
                let g = scale * g + weight_decay * *w;
                *v = momentum * *v + g;
                *w -= lr * if nesterov { g + momentum * *v } else { *v };
                // As integers, absolute values of floats keep their order, and NaN comes last.
                largest = largest.max(w.abs().to_bits());
            }
        });
        if largest >= f32::INFINITY.to_bits() {
            finite.store(false, Ordering::Relaxed);
        }
    });
    finite.into_inner()
}

/// Values whose squares are added side by side: enough sums that none waits for the one before.
const SUMS: usize = 16;

/// The sum of the squares of `values` in f64. `sums` is scratch, which grows at the first call.
///
/// The order of the additions is fixed by the length alone: neither threads nor the instruction set change a
/// bit. Not finite if and only if a value is not: the square of the largest f32 is 1e77, of which f64 holds
/// 1e231.
pub fn squared_norm(team: &Team, isa: Isa, values: &[f32], sums: &mut Vec<f64>) -> f64 {
    let total = values.len().div_ceil(PIECE);
    sums.resize(total, 0.0);
    split(team, total, chunks(sums, 1), |index, sum| {
        let end = values.len().min((index + 1) * PIECE);
        let values = &values[index * PIECE..end];
        let mut side_by_side = [0.0_f64; SUMS];
        dispatch!(isa, _simd => {
            for values in values.chunks(SUMS) {
                for (sum, &value) in side_by_side.iter_mut().zip(values) {
                    *sum += f64::from(value) * f64::from(value);
                }
            }
        });
        sum[0] = side_by_side.iter().sum();
    });
    sums.iter().sum()
}

/// Moves an exponential moving average towards `values`: `a <- a + share * (value - a)`, where share
/// is 1 less the decay. Both are flat vectors of one length.
///
/// # Panics
/// If the vectors differ in length.
pub fn average(team: &Team, isa: Isa, share: f32, values: &[f32], average: &mut [f32]) {
    assert_eq!(values.len(), average.len(), "lengths of values and average");
    let total = values.len().div_ceil(PIECE);
    split(team, total, chunks(average, PIECE), |index, average| {
        let values = &values[index * PIECE..][..average.len()];
        dispatch!(isa, _simd => {
            for (a, &value) in average.iter_mut().zip(values) {
                *a += share * (value - *a);
            }
        });
    });
}

/// Adds `values` to `sum`, value by value.
///
/// # Panics
/// If the vectors differ in length.
pub fn add(team: &Team, isa: Isa, values: &[f32], sum: &mut [f32]) {
    assert_eq!(values.len(), sum.len(), "lengths of values and sum");
    let total = values.len().div_ceil(PIECE);
    split(team, total, chunks(sum, PIECE), |index, sum| {
        let values = &values[index * PIECE..][..sum.len()];
        dispatch!(isa, _simd => {
            for (sum, &value) in sum.iter_mut().zip(values) {
                *sum += value;
            }
        });
    });
}

/// Divides `values` by `divisor`.
pub fn divide(team: &Team, isa: Isa, divisor: f32, values: &mut [f32]) {
    let total = values.len().div_ceil(PIECE);
    split(team, total, chunks(values, PIECE), |_, values| {
        dispatch!(isa, _simd => {
            for value in values.iter_mut() {
                *value /= divisor;
            }
        });
    });
}

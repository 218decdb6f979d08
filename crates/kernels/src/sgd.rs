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
    /// Learning rate.
    pub lr: f32,
    /// Share of the velocity that is kept.
    pub momentum: f32,
    /// Weight of the L2 penalty's gradient.
    pub weight_decay: f32,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
}

/// One step: `g <- g + weight_decay * w`, `v <- momentum * v + g`, `w <- w - lr * v`, or with
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
    let Step { lr, momentum, weight_decay, nesterov } = *step;
    let finite = AtomicBool::new(true);
    split(team, total, pieces, |index, (velocity, weights)| {
        let gradients = &gradients[index * PIECE..][..weights.len()];
        let mut largest = 0;
        dispatch!(isa, _simd => {
            for ((w, v), &g) in weights.iter_mut().zip(velocity).zip(gradients) {
                let g = g + weight_decay * *w;
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

//! The nonlinearities, and their gradient for networks without batch norm.

use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::{BLOCK, Map};
use crate::planes::{Planes, PlanesMut};
use crate::run::Run;
use crate::simd::lanes::{Simd, dispatch, pixels, pixels_mut};
use crate::team::pieces::{chunks, planes, split};

/// The nonlinearity behind a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

/// Gradient of a nonlinearity behind a convolution with bias, from its output `y`
/// (`[n][c_block][h][w][16]`).
///
/// Replaces `dy`, the gradient of the output, laid out as `y`, by that of the convolution's output,
/// rounded to the run's format, zeroes the halo of those planes, and overwrites `dbias` (`[c]`) with the
/// gradient of the bias. `partial` is scratch of at least `[n][c]`.
///
/// # Panics
/// If maps or lengths do not fit together.
pub fn backward<E: Element>(
    run: Run<'_>,
    activation: Activation,
    y: Planes<'_, E>,
    dy: PlanesMut<'_, E>,
    dbias: &mut [f32],
    partial: &mut [f64],
) {
    let Run { team, isa, dtype } = run;
    let (map, batch) = (y.map(), y.batch());
    dy.expect("dy", map, batch);
    assert_eq!(dbias.len(), map.channels, "bias gradients of {} channels", map.channels);
    let total = batch * map.blocks();
    let partial = &mut partial[..total * BLOCK];
    split(team, total, (planes(dy), chunks(partial, BLOCK)), |index, (dy, sums)| {
        let y = y.plane(index);
        match activation {
            Activation::Relu => {
                dispatch!(isa, s => backward_plane(s, Relu, dtype, map, y, dy, sums))
            }
            Activation::Sigmoid => {
                dispatch!(isa, s => backward_plane(s, Sigmoid, dtype, map, y, dy, sums))
            }
        }
    });
    for (channel, dbias) in dbias.iter_mut().enumerate() {
        let images = partial.chunks_exact(map.channels);
        *dbias = images.map(|sums| sums[channel]).sum::<f64>() as f32;
    }
}

/// A nonlinearity in the passes that are compiled for it.
pub(crate) trait Nonlinear: Copy {
    /// g(z).
    fn value<S: Simd>(self, s: S, z: S::Value) -> S::Value;

    /// dy * g'(z), from the output y = g(z).
    fn gradient<S: Simd>(self, s: S, y: S::Value, dy: S::Value) -> S::Value;

    /// dy * g'(z), from z.
    fn gradient_at<S: Simd>(self, s: S, z: S::Value, dy: S::Value) -> S::Value;
}

/// max(z, 0); its slope at 0 is 0, as in PyTorch.
#[derive(Clone, Copy)]
pub(crate) struct Relu;

impl Nonlinear for Relu {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, z: S::Value) -> S::Value {
        s.relu(z)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, s: S, y: S::Value, dy: S::Value) -> S::Value {
        s.select(s.greater(y, s.zero()), dy, s.zero())
    }

    #[inline(always)]
    fn gradient_at<S: Simd>(self, s: S, z: S::Value, dy: S::Value) -> S::Value {
        self.gradient(s, z, dy)
    }
}

/// 1 / (1 + exp(-z)).
#[derive(Clone, Copy)]
pub(crate) struct Sigmoid;

impl Nonlinear for Sigmoid {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, z: S::Value) -> S::Value {
        let mut lanes = s.array(z);
        for lane in &mut lanes {
            *lane = sigmoid(*lane);
        }
        s.load(&lanes)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, s: S, y: S::Value, dy: S::Value) -> S::Value {
        s.mul(dy, s.mul(y, s.sub(s.splat(1.0), y)))
    }

    #[inline(always)]
    fn gradient_at<S: Simd>(self, s: S, z: S::Value, dy: S::Value) -> S::Value {
        self.gradient(s, self.value(s, z), dy)
    }
}

#[inline(always)]
fn backward_plane<E: Element, S: Simd>(
    s: S,
    g: impl Nonlinear,
    dtype: Dtype,
    map: &Map,
    y: &[E],
    dy: &mut [E],
    sums: &mut [f64],
) {
    sums.fill(0.0);
    for row in 0..map.height {
        let range = map.row(row);
        let mut sum = s.zero();
        for (dy, y) in pixels_mut(&mut dy[range.clone()]).iter_mut().zip(pixels(&y[range])) {
            let dz = g.gradient(s, E::load(s, y), E::load(s, dy));
            E::store(s, dtype, dz, dy);
            sum = s.add(sum, dz);
        }
        let sum = s.array(sum);
        for l in 0..BLOCK {
            sums[l] += f64::from(sum[l]);
        }
    }
    map.zero_halo(dy);
}

/// 1 / (1 + exp(-x)), to within 2 units in the last place of 1.
///
/// exp is 2^n times a polynomial in the remainder, with the constants of Cephes' `expf`
/// (<https://www.netlib.org/cephes/>).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Beyond this exp leaves the range of f32, and the sigmoid is 0 or 1 to the last bit.
    let power = (-x).clamp(-87.0, 87.0);
    let shifted = power * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = power - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let exponent = (shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23;
    let exp = (p * r * r + r + 1.0) * f32::from_bits(exponent);
    1.0 / (1.0 + exp)
}

#[cfg(test)]
mod tests {
    use super::sigmoid;

    #[test]
    fn sigmoid_agrees_with_f64() {
        for i in -20_000..=20_000 {
            let x = i as f32 * 0.006;
            let expected = 1.0 / (1.0 + (-f64::from(x)).exp());
            let error = (f64::from(sigmoid(x)) - expected).abs();
            assert!(error < 2.0 * f64::from(f32::EPSILON), "sigmoid({x}): error {error}");
        }
        assert!(sigmoid(f32::NAN).is_nan());
    }
}

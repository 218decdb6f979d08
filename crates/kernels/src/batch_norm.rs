//! Batch normalisation of Ioffe & Szegedy 2015 (Algorithm 1) with the nonlinearity behind it.
//!
//! The convolution in front leaves the sums that the statistics need (`Epilogue::Sums`), so
//! training makes one pass forward, [`normalise`], and two backward, both in [`backward`]. Nothing
//! of the forward pass is stored but the convolution's output: x-hat and the slope of the
//! nonlinearity are computed again from it, which costs less than reading them from memory.

use crate::activation::{Activation, Nonlinear, Relu, Sigmoid};
use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::Map;
use crate::map::View;
use crate::simd::isa::Isa;
use crate::simd::lanes::{LANES, Lanes, Simd, block, dispatch, pixels, pixels_mut};
use crate::team::pieces::{check_planes, chunks, plane, planes, split};
use crate::team::threads::Team;

/// Values that [`backward`] may touch between its two passes over a group of channels, so that the
/// second pass finds them in the last-level cache: 4 MB of f32.
const CACHED_VALUES: usize = 1 << 20;

/// The batch's statistics of one layer, and what follows from them; one value per channel.
#[derive(Clone, Debug)]
pub struct Moments {
    mean: Vec<f32>,
    /// 1 / sqrt(biased variance + epsilon).
    inv_std: Vec<f32>,
    /// The layer as one product and sum: y = multiplier * x + offset.
    multiplier: Vec<f32>,
    offset: Vec<f32>,
}

/// The running statistics that evaluation uses.
#[derive(Debug)]
pub struct Running<'a> {
    /// Running mean.
    pub mean: &'a mut [f32],
    /// Running variance, unbiased (n - 1).
    pub variance: &'a mut [f32],
    /// Weight of the newest batch.
    pub momentum: f64,
    /// Bias of the convolution in front, which is left out of what is normalised because the mean
    /// takes it away again; evaluation adds it, so the running mean holds it.
    pub bias: Option<&'a [f32]>,
}

impl Moments {
    /// Room for `channels` channels.
    pub fn new(channels: usize) -> Moments {
        let zeros = || vec![0.0; channels];
        Moments { mean: zeros(), inv_std: zeros(), multiplier: zeros(), offset: zeros() }
    }

    /// Channels.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// What [`normalise`] puts into the nonlinearity for the value `x` of a channel, to the bit.
    pub fn normalised(&self, channel: usize, x: f32) -> f32 {
        x * self.multiplier[channel] + self.offset[channel]
    }

    /// Takes over the statistics of a batch of `count` values per channel, more than one, from
    /// their `sums` and sums of `squares`, for a layer with scale `gamma` and shift `beta`, and
    /// moves the running statistics.
    ///
    /// # Panics
    /// If a slice does not have one value per channel, or `count` is below 2.
    pub fn update(
        &mut self,
        sums: &[f64],
        squares: &[f64],
        count: usize,
        epsilon: f64,
        gamma: &[f32],
        beta: &[f32],
        running: Running<'_>,
    ) {
        let channels = self.channels();
        let lengths = [sums.len(), squares.len(), gamma.len(), beta.len()];
        let running_lengths = [running.mean.len(), running.variance.len()];
        assert!(
            lengths == [channels; 4] && running_lengths == [channels; 2],
            "batch norm of {channels} channels: found slices of {lengths:?}, {running_lengths:?}"
        );
        assert!(count > 1, "the variance of {count} value is undefined");
        let n = count as f64;
        for c in 0..channels {
            let mean = sums[c] / n;
            // Rounding can leave a constant channel's variance a little below zero.
            let variance = (squares[c] / n - mean * mean).max(0.0);
            let inv_std = 1.0 / (variance + epsilon).sqrt();
            let multiplier = f64::from(gamma[c]) * inv_std;
            self.mean[c] = mean as f32;
            self.inv_std[c] = inv_std as f32;
            self.multiplier[c] = multiplier as f32;
            self.offset[c] = (f64::from(beta[c]) - mean * multiplier) as f32;

            let bias = running.bias.map_or(0.0, |bias| f64::from(bias[c]));
            let blend = |old: f32, new: f64| {
                (f64::from(old) * (1.0 - running.momentum) + new * running.momentum) as f32
            };
            running.mean[c] = blend(running.mean[c], mean + bias);
            running.variance[c] = blend(running.variance[c], variance * n / (n - 1.0));
        }
    }
}

/// Normalises `x` and applies the nonlinearity: `y = g(gamma * xhat + beta)`, rounded to `dtype`.
/// Writes whole planes of `y`, the halo as zeros.
///
/// # Panics
/// If a buffer is too short for `batch` images of its view.
pub fn normalise<E: Element>(
    team: &Team,
    isa: Isa,
    dtype: Dtype,
    activation: Activation,
    moments: &Moments,
    map: &Map,
    batch: usize,
    x: &[E],
    x_view: View,
    y: &mut [E],
    y_view: View,
) {
    check_planes(map, batch, x, x_view);
    assert_eq!(moments.channels(), map.channels, "channels of the statistics and of the map");
    split(team, batch * map.blocks(), planes(map, batch, y, y_view), |index, y| {
        let x = plane(map, x, x_view, index);
        let b = index % map.blocks();
        let (multiplier, offset) = (block(&moments.multiplier, b), block(&moments.offset, b));
        match activation {
            Activation::Relu => {
                dispatch!(isa, s => normalise_plane(s, Relu, dtype, map, x, y, &multiplier, &offset));
            }
            Activation::Sigmoid => {
                dispatch!(isa, s => normalise_plane(s, Sigmoid, dtype, map, x, y, &multiplier, &offset));
            }
        }
    });
}

#[inline(always)]
fn normalise_plane<E: Element, S: Simd>(
    s: S,
    g: impl Nonlinear,
    dtype: Dtype,
    map: &Map,
    x: &[E],
    y: &mut [E],
    multiplier: &Lanes,
    offset: &Lanes,
) {
    let (multiplier, offset) = (s.load(multiplier), s.load(offset));
    for row in 0..map.height {
        let range = map.row(row);
        for (y, x) in pixels_mut(&mut y[range.clone()]).iter_mut().zip(pixels(&x[range])) {
            let z = s.add(s.mul(E::load(s, x), multiplier), offset);
            E::store(s, dtype, g.value(s, z), y);
        }
    }
    map.zero_halo(y);
}

/// Gradient of [`normalise`].
///
/// `dy` is the gradient of the output; `x`, what was normalised, is replaced by its gradient,
/// rounded to `dtype`, with zeros in the halo of its planes. Overwrites `dgamma` and `dbeta`, one value per channel.
/// `partial` is scratch of at least `2 * batch * channels`.
///
/// # Panics
/// If a buffer is too short for `batch` images of its view.
pub fn backward<E: Element>(
    team: &Team,
    isa: Isa,
    dtype: Dtype,
    activation: Activation,
    moments: &Moments,
    map: &Map,
    batch: usize,
    dy: &[E],
    dy_view: View,
    x: &mut [E],
    x_view: View,
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    partial: &mut [f64],
) {
    check_planes(map, batch, dy, dy_view);
    check_planes(map, batch, x, x_view);
    let channels = [moments.channels(), dgamma.len(), dbeta.len()];
    assert_eq!(channels, [map.channels; 3], "channels of the statistics and gradients");
    let group = (CACHED_VALUES / (2 * batch * map.plane())).clamp(1, map.blocks());
    for first in (0..map.blocks()).step_by(group) {
        let blocks = group.min(map.blocks() - first);
        let map = Map { channels: blocks * LANES, ..*map };
        let dy_view = View { first: dy_view.first + first, ..dy_view };
        let x_view = View { first: x_view.first + first, ..x_view };
        let total = batch * blocks;
        let partial = &mut partial[..2 * LANES * total];

        let pass = |index: usize| Pass::new(moments, first + index % blocks);
        let read_x = &*x;
        split(team, total, chunks(partial, 2 * LANES), |index, sums| {
            let (dy, x) = (plane(&map, dy, dy_view, index), plane(&map, read_x, x_view, index));
            let pass = pass(index);
            match activation {
                Activation::Relu => {
                    dispatch!(isa, s => pass.reduce(s, Relu, &map, dy, x, sums));
                }
                Activation::Sigmoid => {
                    dispatch!(isa, s => pass.reduce(s, Sigmoid, &map, dy, x, sums));
                }
            }
        });
        for c in 0..map.channels {
            let (b, l) = (c / LANES, c % LANES);
            let of_plane = |n: usize| &partial[(n * blocks + b) * 2 * LANES..][..2 * LANES];
            let sum: f64 = (0..batch).map(|n| of_plane(n)[l]).sum();
            let product: f64 = (0..batch).map(|n| of_plane(n)[LANES + l]).sum();
            let channel = first * LANES + c;
            dbeta[channel] = sum as f32;
            dgamma[channel] = (product * f64::from(moments.inv_std[channel])) as f32;
        }
        let count = (batch * map.height * map.width) as f32;
        let means = |values: &[f32], b: usize| block(values, b).map(|value| value / count);
        split(team, total, planes(&map, batch, x, x_view), |index, x| {
            let dy = plane(&map, dy, dy_view, index);
            let (pass, b) = (pass(index), first + index % blocks);
            let (dgamma, dbeta) = (means(dgamma, b), means(dbeta, b));
            match activation {
                Activation::Relu => {
                    dispatch!(isa, s => pass.spread(s, Relu, dtype, &map, dy, x, &dgamma, &dbeta));
                }
                Activation::Sigmoid => {
                    dispatch!(isa, s => pass.spread(s, Sigmoid, dtype, &map, dy, x, &dgamma, &dbeta));
                }
            }
        });
    }
}

/// What the passes over one plane need of its channels.
struct Pass {
    mean: Lanes,
    inv_std: Lanes,
    multiplier: Lanes,
    offset: Lanes,
}

impl Pass {
    fn new(moments: &Moments, b: usize) -> Pass {
        Pass {
            mean: block(&moments.mean, b),
            inv_std: block(&moments.inv_std, b),
            multiplier: block(&moments.multiplier, b),
            offset: block(&moments.offset, b),
        }
    }

    /// Sums of dz and of dz * (x - mean), where dz is the gradient in front of the nonlinearity.
    #[inline(always)]
    fn reduce<E: Element, S: Simd>(
        &self,
        s: S,
        g: impl Nonlinear,
        map: &Map,
        dy: &[E],
        x: &[E],
        sums: &mut [f64],
    ) {
        let (multiplier, offset) = (s.load(&self.multiplier), s.load(&self.offset));
        let mean = s.load(&self.mean);
        sums.fill(0.0);
        for row in 0..map.height {
            let range = map.row(row);
            let (mut sum, mut product) = (s.zero(), s.zero());
            for (dy, x) in pixels(&dy[range.clone()]).iter().zip(pixels(&x[range])) {
                let x = E::load(s, x);
                let z = s.add(s.mul(x, multiplier), offset);
                let dz = g.gradient_at(s, z, E::load(s, dy));
                sum = s.add(sum, dz);
                product = s.add(product, s.mul(dz, s.sub(x, mean)));
            }
            let (sum, product) = (s.array(sum), s.array(product));
            for l in 0..LANES {
                sums[l] += f64::from(sum[l]);
                sums[LANES + l] += f64::from(product[l]);
            }
        }
    }

    /// `dx = multiplier * (dz - mean of dz - xhat * mean of dz * xhat)`, in place of x.
    #[inline(always)]
    fn spread<E: Element, S: Simd>(
        &self,
        s: S,
        g: impl Nonlinear,
        dtype: Dtype,
        map: &Map,
        dy: &[E],
        x: &mut [E],
        dgamma: &Lanes,
        dbeta: &Lanes,
    ) {
        let (multiplier, offset) = (s.load(&self.multiplier), s.load(&self.offset));
        let (mean, dbeta) = (s.load(&self.mean), s.load(dbeta));
        let slope = s.mul(s.load(&self.inv_std), s.load(dgamma));
        for row in 0..map.height {
            let range = map.row(row);
            for (x, dy) in pixels_mut(&mut x[range.clone()]).iter_mut().zip(pixels(&dy[range])) {
                let value = E::load(s, x);
                let z = s.add(s.mul(value, multiplier), offset);
                let dz = g.gradient_at(s, z, E::load(s, dy));
                let along = s.mul(s.sub(value, mean), slope);
                E::store(s, dtype, s.mul(multiplier, s.sub(s.sub(dz, dbeta), along)), x);
            }
        }
        map.zero_halo(x);
    }
}

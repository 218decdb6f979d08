//! Batch normalisation of Ioffe & Szegedy 2015 (Algorithm 1) with the nonlinearity behind it.
//!
//! The convolution in front leaves the sums that the statistics need (`Epilogue::Sums`), so
//! training makes one pass forward, [`normalise`], and two backward, both in [`backward`]. Nothing
//! of the forward pass is stored but the convolution's output: x-hat and the slope of the
//! nonlinearity are computed again from it, which costs less than reading them from memory.

use crate::activation::{Activation, Nonlinear, Relu, Sigmoid};
use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::{BLOCK, Map};
use crate::planes::{Planes, PlanesMut};
use crate::run::Run;
use crate::simd::lanes::{Lanes, Simd, block, dispatch, pixels, pixels_mut};
use crate::team::pieces::{chunks, planes, split};

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

/// The sums of a batch that the statistics are made of; one value per channel.
#[derive(Clone, Copy, Debug)]
pub struct BatchSums<'a> {
    /// Sums, `[c]`.
    pub sums: &'a [f64],
    /// Sums of squares, `[c]`.
    pub squares: &'a [f64],
    /// Values of each channel.
    pub count: usize,
}

/// What a layer has learnt: `gamma * xhat + beta`; one value per channel.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Scale, `[c]`.
    pub gamma: &'a [f32],
    /// Shift, `[c]`.
    pub beta: &'a [f32],
}

/// The gradient of [`Affine`].
#[derive(Debug)]
pub struct AffineGradient<'a> {
    /// Of the scale, `[c]`.
    pub gamma: &'a mut [f32],
    /// Of the shift, `[c]`.
    pub beta: &'a mut [f32],
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

    /// Takes over the statistics of a batch of more than one value per channel, for a layer that goes on
    /// with `affine`, and moves the running statistics.
    ///
    /// # Panics
    /// If a slice does not have one value per channel, or the count is below 2.
    pub fn update(
        &mut self,
        batch: BatchSums<'_>,
        epsilon: f64,
        affine: Affine<'_>,
        running: Running<'_>,
    ) {
        let BatchSums { sums, squares, count } = batch;
        let Affine { gamma, beta } = affine;
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

/// Normalises `x` and applies the nonlinearity: `y = g(gamma * xhat + beta)`, rounded to the run's format.
/// Both are `[n][c_block][h][w][16]`. Writes whole planes of `y`, the halo as zeros.
///
/// # Panics
/// If the maps are not alike, or have other channels than the statistics.
pub fn normalise<E: Element>(
    run: Run<'_>,
    activation: Activation,
    moments: &Moments,
    x: Planes<'_, E>,
    y: PlanesMut<'_, E>,
) {
    let (map, batch) = (x.map(), x.batch());
    y.expect("y", map, batch);
    assert_eq!(moments.channels(), map.channels, "channels of the statistics and of the map");
    split(run.team, batch * map.blocks(), planes(y), |index, y| {
        let (x, b) = (x.plane(index), index % map.blocks());
        match activation {
            Activation::Relu => {
                let pass = PlanePass::new(Relu, moments, b);
                dispatch!(run.isa, s => pass.normalise(s, run.dtype, map, x, y));
            }
            Activation::Sigmoid => {
                let pass = PlanePass::new(Sigmoid, moments, b);
                dispatch!(run.isa, s => pass.normalise(s, run.dtype, map, x, y));
            }
        }
    });
}

/// Gradient of [`normalise`].
///
/// `dy` is the gradient of the output, `[n][c_block][h][w][16]`; `x`, what was normalised and laid out as
/// `dy`, is replaced by its gradient, rounded to the run's format, with zeros in the halo of its planes.
/// Overwrites `gradient`. `partial` is scratch of at least `[2][n][c]`.
///
/// # Panics
/// If the maps are not alike, or have other channels than the statistics and gradients.
pub fn backward<E: Element>(
    run: Run<'_>,
    activation: Activation,
    moments: &Moments,
    dy: Planes<'_, E>,
    mut x: PlanesMut<'_, E>,
    gradient: AffineGradient<'_>,
    partial: &mut [f64],
) {
    let Run { team, isa, dtype } = run;
    let (map, batch) = (*dy.map(), dy.batch());
    x.expect("x", &map, batch);
    let AffineGradient { gamma: dgamma, beta: dbeta } = gradient;
    let channels = [moments.channels(), dgamma.len(), dbeta.len()];
    assert_eq!(channels, [map.channels; 3], "channels of the statistics and gradients");
    let group = (CACHED_VALUES / (2 * batch * map.plane())).clamp(1, map.blocks());
    for first in (0..map.blocks()).step_by(group) {
        let blocks = group.min(map.blocks() - first);
        let dy = dy.blocks(first, blocks);
        let mut x = x.reborrow().blocks(first, blocks);
        let map = dy.map();
        let total = batch * blocks;
        let partial = &mut partial[..2 * BLOCK * total];

        let read_x = x.as_planes();
        split(team, total, chunks(partial, 2 * BLOCK), |index, sums| {
            let (dy, x, b) = (dy.plane(index), read_x.plane(index), first + index % blocks);
            match activation {
                Activation::Relu => {
                    let pass = PlanePass::new(Relu, moments, b);
                    dispatch!(isa, s => pass.reduce(s, map, dy, x, sums));
                }
                Activation::Sigmoid => {
                    let pass = PlanePass::new(Sigmoid, moments, b);
                    dispatch!(isa, s => pass.reduce(s, map, dy, x, sums));
                }
            }
        });
        for c in 0..map.channels {
            let (b, l) = (c / BLOCK, c % BLOCK);
            let of_plane = |n: usize| &partial[(n * blocks + b) * 2 * BLOCK..][..2 * BLOCK];
            let sum: f64 = (0..batch).map(|n| of_plane(n)[l]).sum();
            let product: f64 = (0..batch).map(|n| of_plane(n)[BLOCK + l]).sum();
            let channel = first * BLOCK + c;
            dbeta[channel] = sum as f32;
            dgamma[channel] = (product * f64::from(moments.inv_std[channel])) as f32;
        }
        let count = (batch * map.height * map.width) as f32;
        let means = |values: &[f32], b: usize| block(values, b).map(|value| value / count);
        split(team, total, planes(x.reborrow()), |index, x| {
            let (dy, b) = (dy.plane(index), first + index % blocks);
            let means = GradientMeans { gamma: means(dgamma, b), beta: means(dbeta, b) };
            match activation {
                Activation::Relu => {
                    let pass = PlanePass::new(Relu, moments, b);
                    dispatch!(isa, s => pass.spread(s, dtype, map, dy, x, &means));
                }
                Activation::Sigmoid => {
                    let pass = PlanePass::new(Sigmoid, moments, b);
                    dispatch!(isa, s => pass.spread(s, dtype, map, dy, x, &means));
                }
            }
        });
    }
}

/// What the passes over one plane need of its channels, with the nonlinearity behind them.
struct PlanePass<G> {
    g: G,
    mean: Lanes,
    inv_std: Lanes,
    multiplier: Lanes,
    offset: Lanes,
}

/// The means over a batch of the gradients of one channel block.
struct GradientMeans {
    gamma: Lanes,
    beta: Lanes,
}

impl<G: Nonlinear> PlanePass<G> {
    fn new(g: G, moments: &Moments, b: usize) -> PlanePass<G> {
        PlanePass {
            g,
            mean: block(&moments.mean, b),
            inv_std: block(&moments.inv_std, b),
            multiplier: block(&moments.multiplier, b),
            offset: block(&moments.offset, b),
        }
    }

    /// `y = g(multiplier * x + offset)`.
    #[inline(always)]
    fn normalise<E: Element, S: Simd>(&self, s: S, dtype: Dtype, map: &Map, x: &[E], y: &mut [E]) {
        let (multiplier, offset) = (s.load(&self.multiplier), s.load(&self.offset));
        for row in 0..map.height {
            let range = map.row(row);
            for (y, x) in pixels_mut(&mut y[range.clone()]).iter_mut().zip(pixels(&x[range])) {
                let z = s.add(s.mul(E::load(s, x), multiplier), offset);
                E::store(s, dtype, self.g.value(s, z), y);
            }
        }
        map.zero_halo(y);
    }

    /// Sums of dz and of dz * (x - mean), where dz is the gradient in front of the nonlinearity.
    #[inline(always)]
    fn reduce<E: Element, S: Simd>(&self, s: S, map: &Map, dy: &[E], x: &[E], sums: &mut [f64]) {
        let (multiplier, offset) = (s.load(&self.multiplier), s.load(&self.offset));
        let mean = s.load(&self.mean);
        sums.fill(0.0);
        for row in 0..map.height {
            let range = map.row(row);
            let (mut sum, mut product) = (s.zero(), s.zero());
            for (dy, x) in pixels(&dy[range.clone()]).iter().zip(pixels(&x[range])) {
                let x = E::load(s, x);
                let z = s.add(s.mul(x, multiplier), offset);
                let dz = self.g.gradient_at(s, z, E::load(s, dy));
                sum = s.add(sum, dz);
                product = s.add(product, s.mul(dz, s.sub(x, mean)));
            }
            let (sum, product) = (s.array(sum), s.array(product));
            for l in 0..BLOCK {
                sums[l] += f64::from(sum[l]);
                sums[BLOCK + l] += f64::from(product[l]);
            }
        }
    }

    /// `dx = multiplier * (dz - mean of dz - xhat * mean of dz * xhat)`, in place of x.
    #[inline(always)]
    fn spread<E: Element, S: Simd>(
        &self,
        s: S,
        dtype: Dtype,
        map: &Map,
        dy: &[E],
        x: &mut [E],
        means: &GradientMeans,
    ) {
        let (multiplier, offset) = (s.load(&self.multiplier), s.load(&self.offset));
        let (mean, dbeta) = (s.load(&self.mean), s.load(&means.beta));
        let slope = s.mul(s.load(&self.inv_std), s.load(&means.gamma));
        for row in 0..map.height {
            let range = map.row(row);
            for (x, dy) in pixels_mut(&mut x[range.clone()]).iter_mut().zip(pixels(&dy[range])) {
                let value = E::load(s, x);
                let z = s.add(s.mul(value, multiplier), offset);
                let dz = self.g.gradient_at(s, z, E::load(s, dy));
                let along = s.mul(s.sub(value, mean), slope);
                E::store(s, dtype, s.mul(multiplier, s.sub(s.sub(dz, dbeta), along)), x);
            }
        }
        map.zero_halo(x);
    }
}

//! Batch normalisation of Ioffe & Szegedy 2015 (Algorithm 1) with the nonlinearity behind it.
//!
//! The convolution in front leaves the sums that the statistics need (`Epilogue::Sums`), so
//! training makes one pass forward, [`normalise`], and two backward, both in [`backward`]. Nothing
//! of the forward pass is stored but the convolution's output: x-hat and the slope of the
//! nonlinearity are computed again from it, which costs less than reading them from memory.
//!
//! Several processes can normalise with the statistics of all their batches (PyTorch's SyncBatchNorm,
//! <https://docs.pytorch.org/docs/stable/generated/torch.nn.SyncBatchNorm.html>). They merge what
//! [`BatchSums::moments`] tells, and go on with [`Moments::update_merged`]. Backward they add up what
//! [`gradient_sums`] tells, and go on with [`input_gradient`].

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

impl BatchSums<'_> {
    /// Mean and biased variance of channel `c`.
    pub fn moments(&self, c: usize) -> (f64, f64) {
        let n = self.count as f64;
        let mean = self.sums[c] / n;
        // Rounding can leave a constant channel's variance a little below zero.
        (mean, (self.squares[c] / n - mean * mean).max(0.0))
    }
}

/// The statistics of the batches of several processes together; one value per channel.
#[derive(Clone, Copy, Debug)]
pub struct MergedMoments<'a> {
    /// Means, `[c]`.
    pub mean: &'a [f64],
    /// Sums of squared distances from the mean, `[c]`.
    pub m2: &'a [f64],
    /// Values of each channel, a whole number.
    pub count: f64,
}

/// The sums over a batch that the gradient of the input needs; one value per channel. Here z is what enters
/// the nonlinearity.
#[derive(Clone, Copy, Debug)]
pub struct GradientSums<'a> {
    /// Sums of dz, `[c]`: the gradient of the shift.
    pub beta: &'a [f64],
    /// Sums of dz * xhat, `[c]`: the gradient of the scale.
    pub gamma: &'a [f64],
    /// Values of each channel that they are sums of, a whole number.
    pub count: f64,
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
        assert!(count > 1, "the variance of {count} value is undefined");
        self.expect([sums.len(), squares.len()]);
        self.set(count as f64, epsilon, affine, running, |c| batch.moments(c));
    }

    /// As [`Moments::update`], for the batches of several processes together.
    ///
    /// # Panics
    /// As there.
    pub fn update_merged(
        &mut self,
        batch: MergedMoments<'_>,
        epsilon: f64,
        affine: Affine<'_>,
        running: Running<'_>,
    ) {
        let MergedMoments { mean, m2, count } = batch;
        assert!(count > 1.0, "the variance of {count} value is undefined");
        self.expect([mean.len(), m2.len()]);
        self.set(count, epsilon, affine, running, |c| (mean[c], m2[c] / count));
    }

    /// Panics unless slices have one value per channel.
    fn expect(&self, lengths: [usize; 2]) {
        let channels = self.channels();
        assert_eq!(lengths, [channels; 2], "batch norm of {channels} channels: slices");
    }

    /// Takes over the statistics of `n` values per channel; `of` tells mean and biased variance.
    fn set(
        &mut self,
        n: f64,
        epsilon: f64,
        affine: Affine<'_>,
        running: Running<'_>,
        of: impl Fn(usize) -> (f64, f64),
    ) {
        let Affine { gamma, beta } = affine;
        self.expect([gamma.len(), beta.len()]);
        self.expect([running.mean.len(), running.variance.len()]);
        for c in 0..self.channels() {
            let (mean, variance) = of(c);
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
    let (map, batch) = (*dy.map(), dy.batch());
    x.expect("x", &map, batch);
    let AffineGradient { gamma: dgamma, beta: dbeta } = gradient;
    let channels = [moments.channels(), dgamma.len(), dbeta.len()];
    assert_eq!(channels, [map.channels; 3], "channels of the statistics and gradients");
    let passes = GradientPasses { run, activation, moments };
    let count = (batch * map.height * map.width) as f32;
    let group = (CACHED_VALUES / (2 * batch * map.plane())).clamp(1, map.blocks());
    for first in (0..map.blocks()).step_by(group) {
        let blocks = group.min(map.blocks() - first);
        let dy = dy.blocks(first, blocks);
        let mut x = x.reborrow().blocks(first, blocks);
        passes.reduce(first, dy, x.as_planes(), partial, |channel, beta, gamma| {
            dbeta[channel] = beta as f32;
            dgamma[channel] = gamma as f32;
        });
        let means = |values: &[f32], b: usize| block(values, b).map(|value| value / count);
        passes.spread(first, dy, x.reborrow(), |b| GradientMeans {
            gamma: means(dgamma, b),
            beta: means(dbeta, b),
        });
    }
}

/// The first pass of [`backward`] by itself: overwrites `sums`, those of the shift and of the scale as in
/// [`GradientSums`], with the sums over this batch. They are the gradients of shift and scale too. `partial`
/// is scratch as in [`backward`].
///
/// # Panics
/// As [`backward`].
pub fn gradient_sums<E: Element>(
    run: Run<'_>,
    activation: Activation,
    moments: &Moments,
    dy: Planes<'_, E>,
    x: Planes<'_, E>,
    sums: [&mut [f64]; 2],
    partial: &mut [f64],
) {
    let map = dy.map();
    x.expect("x", map, dy.batch());
    let [betas, gammas] = sums;
    let channels = [moments.channels(), betas.len(), gammas.len()];
    assert_eq!(channels, [map.channels; 3], "channels of the statistics and sums");
    let passes = GradientPasses { run, activation, moments };
    passes.reduce(0, dy, x, partial, |channel, beta, gamma| {
        betas[channel] = beta;
        gammas[channel] = gamma;
    });
}

/// The second pass of [`backward`] by itself: replaces `x` by its gradient, with sums of more values than
/// those of this batch.
///
/// # Panics
/// As [`backward`].
pub fn input_gradient<E: Element>(
    run: Run<'_>,
    activation: Activation,
    moments: &Moments,
    dy: Planes<'_, E>,
    x: PlanesMut<'_, E>,
    sums: GradientSums<'_>,
) {
    let map = dy.map();
    x.expect("x", map, dy.batch());
    let channels = [moments.channels(), sums.beta.len(), sums.gamma.len()];
    assert_eq!(channels, [map.channels; 3], "channels of the statistics and sums");
    let means = |values: &[f64], b: usize| -> Lanes {
        std::array::from_fn(|l| (values[b * BLOCK + l] / sums.count) as f32)
    };
    let passes = GradientPasses { run, activation, moments };
    passes.spread(0, dy, x, |b| GradientMeans {
        gamma: means(sums.gamma, b),
        beta: means(sums.beta, b),
    });
}

/// The two passes backward over a group of channel blocks.
struct GradientPasses<'a> {
    run: Run<'a>,
    activation: Activation,
    moments: &'a Moments,
}

impl GradientPasses<'_> {
    /// Calls `tell` with each channel, the sum of its dz and that of its dz * xhat. The first block of `dy`
    /// and `x` is block `first` of the layer.
    fn reduce<E: Element>(
        &self,
        first: usize,
        dy: Planes<'_, E>,
        x: Planes<'_, E>,
        partial: &mut [f64],
        mut tell: impl FnMut(usize, f64, f64),
    ) {
        let (Run { team, isa, .. }, moments) = (self.run, self.moments);
        let (map, batch) = (dy.map(), dy.batch());
        let blocks = map.blocks();
        let total = batch * blocks;
        let partial = &mut partial[..2 * BLOCK * total];
        split(team, total, chunks(partial, 2 * BLOCK), |index, sums| {
            let (dy, x, b) = (dy.plane(index), x.plane(index), first + index % blocks);
            match self.activation {
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
            tell(channel, sum, product * f64::from(moments.inv_std[channel]));
        }
    }

    /// Replaces `x` by its gradient; `means` tells those of a block of the layer.
    fn spread<E: Element>(
        &self,
        first: usize,
        dy: Planes<'_, E>,
        x: PlanesMut<'_, E>,
        means: impl Fn(usize) -> GradientMeans + Sync,
    ) {
        let (Run { team, isa, dtype }, moments) = (self.run, self.moments);
        let (map, batch) = (dy.map(), dy.batch());
        let blocks = map.blocks();
        split(team, batch * blocks, planes(x), |index, x| {
            let (dy, b) = (dy.plane(index), first + index % blocks);
            let means = means(b);
            match self.activation {
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

//! One stage of a small network: `pool(g(BN(W u)))`, forward and backward.
//!
//! A fully connected layer is a convolution whose filter covers the whole map, so this is the only
//! kind of layer there is.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, aview1};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::places::{Maps, gather, pool, scatter, unpool};

/// Added to the variance; our reading, as `network.bn_epsilon` in `configs/base.toml`.
const EPSILON: f32 = 1e-5;

/// Weight of the newest batch in the running statistics; our reading, as `network.bn_momentum` in
/// `configs/base.toml`.
const MOMENTUM: f32 = 0.1;

/// What a stage is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageSpec {
    /// Rows and columns of the filter; no padding, stride 1.
    pub kernel: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Batch norm instead of a bias in front of the sigmoid.
    pub normalised: bool,
    /// Whether a sigmoid follows; only the last stage has none.
    pub hidden: bool,
    /// Whether the mean of 2 x 2 squares follows the sigmoid.
    pub pooled: bool,
}

/// Whose statistics batch norm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those of the batch (algorithm 1), which also move the running ones.
    Train,
    /// The running ones.
    Evaluate,
}

/// A stage with its parameters, their gradients, and what the backward pass needs of the forward.
#[derive(Debug)]
pub struct Stage {
    /// What it is made of.
    pub spec: StageSpec,
    in_channels: usize,
    in_side: usize,
    /// `[outputs][in_channels * kernel * kernel]`.
    pub weight: Vec<f32>,
    /// Batch norm's gamma; not used without it.
    pub scale: Vec<f32>,
    /// Batch norm's beta, or the bias.
    pub shift: Vec<f32>,
    /// Running mean of what batch norm normalises.
    pub running_mean: Vec<f32>,
    /// Running variance, unbiased.
    pub running_var: Vec<f32>,
    /// Gradient of `weight`.
    pub d_weight: Vec<f32>,
    /// Gradient of `scale`.
    pub d_scale: Vec<f32>,
    /// Gradient of `shift`.
    pub d_shift: Vec<f32>,
    patches: Vec<f32>,
    /// `W u`, which batch norm replaces by its normalised values.
    product: Vec<f32>,
    /// 1 / sqrt(variance + epsilon) of the batch.
    inv_std: Vec<f32>,
    /// What goes into the sigmoid; the logits in the last stage.
    sigmoid_input: Vec<f32>,
    activated: Vec<f32>,
    output: Vec<f32>,
    d_product: Vec<f32>,
    d_patches: Vec<f32>,
}

impl Stage {
    /// A stage on maps of `in_channels` channels and `in_side` rows and columns, with weights drawn
    /// from a Gaussian of standard deviation `sigma`.
    pub fn new(
        spec: StageSpec,
        in_channels: usize,
        in_side: usize,
        sigma: f64,
        rng: &mut ChaCha8Rng,
    ) -> Stage {
        let mut normal = || -> f64 { StandardNormal.sample(rng) };
        let n_weights = spec.outputs * in_channels * spec.kernel * spec.kernel;
        let weight: Vec<f32> = (0..n_weights).map(|_| (sigma * normal()) as f32).collect();
        let each_output = |value: f32| vec![value; spec.outputs];
        Stage {
            spec,
            in_channels,
            in_side,
            d_weight: vec![0.0; weight.len()],
            weight,
            scale: each_output(1.0),
            shift: each_output(0.0),
            running_mean: each_output(0.0),
            running_var: each_output(1.0),
            d_scale: each_output(0.0),
            d_shift: each_output(0.0),
            inv_std: each_output(1.0),
            patches: Vec::new(),
            product: Vec::new(),
            sigmoid_input: Vec::new(),
            activated: Vec::new(),
            output: Vec::new(),
            d_product: Vec::new(),
            d_patches: Vec::new(),
        }
    }

    /// Rows and columns of the output.
    pub fn out_side(&self) -> usize {
        let side = self.in_side - self.spec.kernel + 1;
        if self.spec.pooled { side / 2 } else { side }
    }

    /// The output of the last forward pass, `[outputs][images][rows][columns]`.
    pub fn output(&self) -> &[f32] {
        &self.output
    }

    /// What went into the sigmoid in the last forward pass, `[outputs][images][rows][columns]`.
    pub fn sigmoid_input(&self) -> &[f32] {
        &self.sigmoid_input
    }

    fn in_maps(&self, images: usize) -> Maps {
        Maps { channels: self.in_channels, images, side: self.in_side }
    }

    /// The maps between convolution and pool.
    fn out_maps(&self, images: usize) -> Maps {
        let side = self.in_side - self.spec.kernel + 1;
        Maps { channels: self.spec.outputs, images, side }
    }

    /// Rows of the matrix of patches: weights of one output.
    fn taps(&self) -> usize {
        self.in_channels * self.spec.kernel * self.spec.kernel
    }

    /// Runs `images` images, `x` being `[in_channels][images][rows][columns]`; see [`Stage::output`].
    pub fn forward(&mut self, x: &[f32], images: usize, mode: Mode) {
        let maps = self.out_maps(images);
        let (taps, places) = (self.taps(), maps.len() / self.spec.outputs);
        self.patches.resize(taps * places, 0.0);
        gather(self.in_maps(images), self.spec.kernel, x, &mut self.patches);

        self.product.resize(maps.len(), 0.0);
        let weight = matrix(&self.weight, taps);
        general_mat_mul(
            1.0,
            &weight,
            &matrix(&self.patches, places),
            0.0,
            &mut matrix_mut(&mut self.product, places),
        );

        self.sigmoid_input.resize(maps.len(), 0.0);
        for c in 0..self.spec.outputs {
            self.normalise(c, places, mode);
        }
        if !self.spec.hidden {
            self.output.clone_from(&self.sigmoid_input);
            return;
        }
        self.activated.clear();
        self.activated.extend(self.sigmoid_input.iter().map(|z| 1.0 / (1.0 + (-z).exp())));
        if self.spec.pooled {
            self.output.resize(maps.len() / 4, 0.0);
            pool(maps, &self.activated, &mut self.output);
        } else {
            self.output.clone_from(&self.activated);
        }
    }

    /// Batch norm (algorithm 1 in training), or the bias, of channel `c`.
    fn normalise(&mut self, c: usize, places: usize, mode: Mode) {
        let product = &mut self.product[c * places..][..places];
        let sigmoid_input = &mut self.sigmoid_input[c * places..][..places];
        if !self.spec.normalised {
            for (z, u) in sigmoid_input.iter_mut().zip(product) {
                *z = *u + self.shift[c];
            }
            return;
        }
        let (mean, inv_std) = match mode {
            Mode::Evaluate => (self.running_mean[c], 1.0 / (self.running_var[c] + EPSILON).sqrt()),
            Mode::Train => {
                let count = places as f32;
                let mean = aview1(product).sum() / count;
                let squares: f32 = product.chunks(256).map(|part| squares(part, mean)).sum();
                let variance = squares / count;
                let unbiased = squares / (count - 1.0);
                self.running_mean[c] += MOMENTUM * (mean - self.running_mean[c]);
                self.running_var[c] += MOMENTUM * (unbiased - self.running_var[c]);
                (mean, 1.0 / (variance + EPSILON).sqrt())
            }
        };
        self.inv_std[c] = inv_std;
        for (z, u) in sigmoid_input.iter_mut().zip(product) {
            *u = (*u - mean) * inv_std;
            *z = self.scale[c] * *u + self.shift[c];
        }
    }

    /// Gradients of the parameters and, where `d_x` is given, of the input, after a forward pass in
    /// [`Mode::Train`] of as many images. `d_output` is the gradient of the output.
    pub fn backward(&mut self, images: usize, d_output: &[f32], d_x: Option<&mut Vec<f32>>) {
        let maps = self.out_maps(images);
        let (taps, places) = (self.taps(), maps.len() / self.spec.outputs);
        self.d_product.resize(maps.len(), 0.0);
        if self.spec.pooled {
            unpool(maps, d_output, &mut self.d_product);
        } else {
            self.d_product.copy_from_slice(d_output);
        }
        if self.spec.hidden {
            for (d, y) in self.d_product.iter_mut().zip(&self.activated) {
                *d *= y * (1.0 - y);
            }
        }
        for c in 0..self.spec.outputs {
            self.normalise_backward(c, places);
        }
        let d_product = matrix(&self.d_product, places);
        let patches = matrix(&self.patches, places);
        let mut d_weight = matrix_mut(&mut self.d_weight, taps);
        general_mat_mul(1.0, &d_product, &patches.t(), 0.0, &mut d_weight);

        let Some(d_x) = d_x else { return };
        self.d_patches.resize(taps * places, 0.0);
        let mut d_patches = matrix_mut(&mut self.d_patches, places);
        general_mat_mul(1.0, &matrix(&self.weight, taps).t(), &d_product, 0.0, &mut d_patches);
        let maps = self.in_maps(images);
        d_x.resize(maps.len(), 0.0);
        scatter(maps, self.spec.kernel, &self.d_patches, d_x);
    }

    /// Turns the gradient of the sigmoid's input in `d_product` into that of the product.
    fn normalise_backward(&mut self, c: usize, places: usize) {
        let d = &mut self.d_product[c * places..][..places];
        self.d_shift[c] = aview1(d).sum();
        if !self.spec.normalised {
            return;
        }
        // The product holds x-hat by now. The gradients through mean and variance take away the
        // parts of d along a constant and along x-hat (section 3).
        let normal = &self.product[c * places..][..places];
        self.d_scale[c] = aview1(d).dot(&aview1(normal));
        let factor = self.scale[c] * self.inv_std[c];
        let mean = self.d_shift[c] / places as f32;
        let along = self.d_scale[c] / places as f32;
        for (d, normal) in d.iter_mut().zip(normal) {
            *d = factor * (*d - mean - along * normal);
        }
    }

    /// One step of plain SGD.
    pub fn step(&mut self, lr: f32) {
        let pairs = [
            (&mut self.weight, &self.d_weight),
            (&mut self.scale, &self.d_scale),
            (&mut self.shift, &self.d_shift),
        ];
        for (values, gradients) in pairs {
            for (value, gradient) in values.iter_mut().zip(gradients) {
                *value -= lr * gradient;
            }
        }
    }
}

/// Sum of squared distances from `mean`, in lanes so that it is fast and loses little.
fn squares(values: &[f32], mean: f32) -> f32 {
    let mut lanes = [0.0; 8];
    let (whole, rest) = values.as_chunks::<8>();
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += (value - mean) * (value - mean);
        }
    }
    let rest: f32 = rest.iter().map(|value| (value - mean) * (value - mean)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// A matrix of `columns` columns, row by row.
fn matrix(values: &[f32], columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((values.len() / columns, columns), values)
        .expect("whole rows, by the sizes of the stage")
}

fn matrix_mut(values: &mut [f32], columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((values.len() / columns, columns), values)
        .expect("whole rows, by the sizes of the stage")
}

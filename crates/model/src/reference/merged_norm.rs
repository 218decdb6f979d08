//! Batch norm with the statistics of several processes' batches, by plain loops in f64.
//!
//! Automatic differentiation does not wait for other processes in the middle of a backward pass. So it ends
//! here at the output of each such layer. Its gradient is written out, and from its input on automatic
//! differentiation begins again.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use crate::error::ModelError;

/// Merges what batch norms see in several processes. All of them ask for the same layers in the same order.
pub trait MergeNorms {
    /// Turns the means and M2, the sums of squared distances from the mean, of this process into those of all,
    /// `[c]` each. `count` is the number of values of each channel here. Returns that of all processes.
    ///
    /// # Errors
    /// Processes that cannot be reached, or a single value in all of them.
    fn merge_moments(
        &mut self,
        layer: &str,
        count: f64,
        mean: &mut [f64],
        m2: &mut [f64],
    ) -> Result<f64, ModelError>;

    /// Turns each value into its sum over all processes.
    ///
    /// # Errors
    /// Processes that cannot be reached.
    fn sum(&mut self, values: &mut [f64]) -> Result<(), ModelError>;
}

/// What a layer computes with.
pub(super) struct NormLayer<'a> {
    pub name: &'a str,
    /// Scale and shift.
    pub affine: [Tensor; 2],
    /// Running mean and unbiased variance, which move.
    pub running: [&'a mut Tensor; 2],
    pub epsilon: f64,
    pub momentum: f64,
}

/// The merged batch norms of a training pass.
pub(super) struct MergedNorms<'a> {
    merge: &'a mut dyn MergeNorms,
    /// Those that ran forward.
    passes: Vec<NormPass>,
}

/// What the backward pass needs of a layer.
struct NormPass {
    name: String,
    input: Tensor,
    /// A variable, at which automatic differentiation ends.
    output: Tensor,
    affine: [Tensor; 2],
    scale: Vec<f64>,
    inv_std: Vec<f64>,
    xhat: Vec<f64>,
    /// Values of each channel in all processes.
    count: f64,
}

impl<'a> MergedNorms<'a> {
    pub(super) fn new(merge: &'a mut dyn MergeNorms) -> MergedNorms<'a> {
        MergedNorms { merge, passes: Vec::new() }
    }

    /// Normalises `x`, `[n][c][h][w]` or `[n][c]`, and moves the running statistics.
    pub(super) fn forward(
        &mut self,
        layer: NormLayer<'_>,
        x: &Tensor,
    ) -> Result<Tensor, ModelError> {
        let NormLayer { name, affine, running, epsilon, momentum } = layer;
        let in_layer = |source| ModelError::Candle { layer: name.to_owned(), source };
        let values = read(x).map_err(in_layer)?;
        let (channels, pixels) = sizes(x).map_err(in_layer)?;
        let of = |i: usize| i / pixels % channels;

        let own = (values.len() / channels) as f64;
        let (mut mean, mut m2) = (vec![0.0; channels], vec![0.0; channels]);
        values.iter().enumerate().for_each(|(i, x)| mean[of(i)] += x / own);
        values.iter().enumerate().for_each(|(i, x)| m2[of(i)] += (x - mean[of(i)]).powi(2));
        let count = self.merge.merge_moments(name, own, &mut mean, &mut m2)?;

        let unbiased: Vec<f64> = m2.iter().map(|m2| m2 / (count - 1.0)).collect();
        for (old, new) in running.into_iter().zip([&mean, &unbiased]) {
            let blended = read(old).and_then(|values| {
                let pairs = values.iter().zip(new);
                write(pairs.map(|(old, new)| old * (1.0 - momentum) + new * momentum), old)
            });
            *old = blended.map_err(in_layer)?;
        }
        let inv_std: Vec<f64> = m2.iter().map(|m2| 1.0 / (m2 / count + epsilon).sqrt()).collect();
        let xhat: Vec<f64> =
            values.iter().enumerate().map(|(i, x)| (x - mean[of(i)]) * inv_std[of(i)]).collect();
        let scale = read(&affine[0]).map_err(in_layer)?;
        let shift = read(&affine[1]).map_err(in_layer)?;
        let y = xhat.iter().enumerate().map(|(i, xhat)| scale[of(i)] * xhat + shift[of(i)]);
        let output = write(y, x).and_then(|y| Var::from_tensor(&y)).map_err(in_layer)?;
        let output = output.into_inner();
        let (name, input) = (name.to_owned(), x.clone());
        let pass =
            NormPass { name, input, output: output.clone(), affine, scale, inv_std, xhat, count };
        self.passes.push(pass);
        Ok(output)
    }

    /// Completes `grads`, which hold the gradients from the loss back to the outputs of these layers: with
    /// those of `variables` in front of them, and of their scales and shifts.
    pub(super) fn backward(
        self,
        grads: &mut GradStore,
        variables: &[Tensor],
    ) -> Result<(), ModelError> {
        let MergedNorms { merge, passes } = self;
        // Layers stand in the order of the network, so all readers of a layer have run when its turn comes.
        for pass in passes.iter().rev() {
            let in_layer = |source| ModelError::Candle { layer: pass.name.clone(), source };
            let NormPass { input, output, affine, scale, inv_std, xhat, count, .. } = pass;
            let Some(dy) = grads.get(output) else {
                let message = "no gradient reached its output".to_owned();
                return Err(in_layer(candle_core::Error::Msg(message)));
            };
            let dy = read(dy).map_err(in_layer)?;
            let (channels, pixels) = sizes(input).map_err(in_layer)?;
            let of = |i: usize| i / pixels % channels;

            let mut sums = vec![0.0; 2 * channels];
            for (i, (dy, xhat)) in dy.iter().zip(xhat).enumerate() {
                sums[of(i)] += dy * xhat;
                sums[channels + of(i)] += dy;
            }
            for (tensor, gradient) in affine.iter().zip(sums.chunks(channels)) {
                let gradient = write(gradient.iter().copied(), tensor).map_err(in_layer)?;
                grads.insert(tensor, gradient);
            }
            merge.sum(&mut sums)?;
            let dx = dy.iter().zip(xhat).enumerate().map(|(i, (dy, xhat))| {
                let c = of(i);
                let centred = dy - sums[channels + c] / count - xhat * sums[c] / count;
                scale[c] * inv_std[c] * centred
            });
            // The gradient of this sum is dx at the input.
            let behind = write(dx, input)
                .and_then(|dx| (input * dx)?.sum_all()?.backward())
                .map_err(in_layer)?;
            let outputs = passes.iter().map(|pass| &pass.output);
            for variable in variables.iter().chain(outputs) {
                let Some(more) = behind.get(variable) else { continue };
                let sum = match grads.get(variable) {
                    Some(so_far) => (so_far + more).map_err(in_layer)?,
                    None => more.clone(),
                };
                grads.insert(variable, sum);
            }
        }
        Ok(())
    }
}

/// Channels, and values of each in one image.
fn sizes(x: &Tensor) -> candle_core::Result<(usize, usize)> {
    Ok((x.dim(1)?, x.dims()[2..].iter().product()))
}

/// The values of a tensor in the order of its indices.
fn read(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// Values as a tensor of the shape and number type of `like`.
fn write(values: impl Iterator<Item = f64>, like: &Tensor) -> candle_core::Result<Tensor> {
    Tensor::from_vec(values.collect(), like.shape(), like.device())?.to_dtype(like.dtype())
}

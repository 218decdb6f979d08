//! The reference executor: candle's tensors, layers and autograd, with our own operations where
//! candle has none or is wrong.
//!
//! It is slow and obviously right, and the oracle of every parity test. candle 0.11.1 lacks:
//! 3x3 pools of stride 1 and 2 with padding (its backward pass refuses windows that overlap, and
//! its max-pool gradient is scaled wrongly), LRN, seeded dropout, and a ReLU whose gradient is 0
//! at 0 as in PyTorch.

mod aux_pool;
mod lrn;
mod merged_norm;
mod pointwise;
mod pool;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, Module, ModuleT};

pub use aux_pool::AuxPoolOp;
pub use lrn::LrnOp;
pub use merged_norm::MergeNorms;
pub use pointwise::{MaskOp, ReluOp};
pub use pool::PoolOp;

use merged_norm::{MergedNorms, NormLayer};

use crate::batch::{
    Images, check_batch, check_class_weights, check_images, check_len, check_variance,
};
use crate::dropout::dropout_mask;
use crate::error::ModelError;
use crate::layer::{Activation, Layer, Op};
use crate::network::Network;
use crate::parameters::{ParameterTable, Role, TensorSpec, Weights};

/// Runs a network on candle.
pub struct ReferenceExecutor {
    network: Network,
    table: ParameterTable,
    device: Device,
    dtype: DType,
}

/// Sees a layer and its output on the way through the network.
pub type Stage<'a> = dyn FnMut(&Layer, &Tensor) -> candle_core::Result<()> + 'a;

/// What one training pass works on.
#[derive(Clone, Copy, Debug)]
pub struct TrainInput<'a> {
    /// The images.
    pub images: Images<'a>,
    /// Class of each image.
    pub labels: &'a [u32],
    /// Share of the target that is spread evenly over all classes (0 for none).
    pub label_smoothing: f64,
    /// Factor on the loss of each class's images, one for each class.
    pub class_weights: Option<&'a [f64]>,
    /// Where images were mixed in pairs, the first with the last and so on inwards: the share of each one's own
    /// label in its target. The other's has the rest.
    pub own_share: Option<f64>,
    /// Seed and number of the batch, from which dropout is drawn.
    pub draw: (u64, u64),
    /// Weight of the batch in the running statistics.
    pub bn_momentum: f64,
}

/// The results of a training pass besides gradients and running statistics.
pub struct TrainOutput {
    /// Mean loss of the logits over the batch, or the loss of an auxiliary head if that is not finite.
    pub loss: f64,
    /// Logits, `[n][classes]`.
    pub logits: Vec<f32>,
}

/// Whether a pass uses batch statistics and dropout.
#[derive(Clone, Copy)]
enum Mode {
    Train { seed: u64, number: u64, bn_momentum: f64 },
    Evaluate,
}

/// The candle tensors of one pass, each under the index of its layer.
struct Tensors {
    /// Trainable tensors in the order of the table; variables in training.
    trainable: Vec<Tensor>,
    /// Running statistics in the order of the table.
    statistics: Vec<Tensor>,
}

impl ReferenceExecutor {
    /// An executor of `network` that computes in `dtype` (f32 or f64) on `device`.
    pub fn new(network: Network, device: Device, dtype: DType) -> ReferenceExecutor {
        let table = ParameterTable::new(&network);
        ReferenceExecutor { network, table, device, dtype }
    }

    /// An executor of `network` in f32 on the CPU.
    pub fn on_cpu(network: Network) -> ReferenceExecutor {
        ReferenceExecutor::new(network, Device::Cpu, DType::F32)
    }

    /// An executor of `network` in f64 on the CPU.
    pub fn in_f64(network: Network) -> ReferenceExecutor {
        ReferenceExecutor::new(network, Device::Cpu, DType::F64)
    }

    /// The number type that it computes in: `f32` or `f64`.
    pub fn dtype(&self) -> &'static str {
        self.dtype.as_str()
    }

    /// The network that it runs.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The layout of weights and gradients.
    pub fn table(&self) -> &ParameterTable {
        &self.table
    }

    /// Forward pass in training mode, cross-entropy with label smoothing, and backward pass. The
    /// gradient is that of the weighted sum of all losses. Shows every layer and its output to `stage` on
    /// the way. With `merge`, batch norm has the statistics of several processes.
    ///
    /// # Shapes
    /// `gradients` in the trainable layout.
    ///
    /// # Errors
    /// Wrong lengths, labels out of range, a batch whose variance is undefined, or an error of `stage` or of
    /// `merge`.
    pub fn train(
        &self,
        input: &TrainInput<'_>,
        weights: &mut Weights,
        gradients: &mut [f32],
        stage: &mut Stage<'_>,
        merge: Option<&mut dyn MergeNorms>,
    ) -> Result<TrainOutput, ModelError> {
        let TrainInput { images, labels, draw, bn_momentum, .. } = *input;
        check_len("gradients", self.table.n_trainable(), gradients.len())?;
        check_batch(&self.network, images, labels)?;
        check_class_weights(&self.network, input.class_weights)?;
        if merge.is_none() {
            check_variance(&self.network, labels.len())?;
        }

        let tensors = self.tensors(weights, Some(self.network.frozen))?;
        let image = self.image_tensor(images)?;
        let mode = Mode::Train { seed: draw.0, number: draw.1, bn_momentum };
        let mut merged = merge.map(MergedNorms::new);
        let (logits, statistics) = self.forward(image, &tensors, mode, stage, merged.as_mut())?;

        let mut total: Option<Tensor> = None;
        let mut reported = 0.0;
        let mut all_finite = true;
        for (loss, logits) in self.network.losses.iter().zip(&logits) {
            let name = &self.network.layers[loss.logits].name;
            let in_loss = |source| ModelError::Candle { layer: format!("{name} (loss)"), source };
            let value = batch_loss(logits, input).map_err(in_loss)?;
            let number = value.to_dtype(DType::F64).and_then(|value| value.to_scalar::<f64>());
            if all_finite {
                reported = number.map_err(in_loss)?;
                all_finite = reported.is_finite();
            }
            let weighted = value.affine(loss.weight, 0.0).map_err(in_loss)?;
            total = Some(match total {
                Some(total) => (total + weighted).map_err(in_loss)?,
                None => weighted,
            });
        }
        let (Some(total), Some(logits)) = (total, logits.last()) else {
            unreachable!("a network has the loss of its logits")
        };
        let last = self.network.layers.len() - 1;
        let in_last = |source| self.in_layer(last, source);
        let mut grads = total.backward().map_err(in_last)?;
        if let Some(merged) = merged {
            merged.backward(&mut grads, &tensors.trainable)?;
        }
        self.read_gradients(&grads, &tensors.trainable, gradients)?;
        self.read_statistics(&statistics, weights)?;
        Ok(TrainOutput { loss: reported, logits: values(logits).map_err(in_last)? })
    }

    /// The forward pass of [`Self::train`] alone, with all weight on this batch: its mean and unbiased
    /// variance take the place of the running statistics. Dropout does not affect them, because it comes
    /// after the last batch norm.
    ///
    /// # Errors
    /// Wrong lengths, a batch whose variance is undefined.
    pub fn batch_statistics(
        &self,
        images: Images<'_>,
        weights: &mut Weights,
    ) -> Result<(), ModelError> {
        check_images(&self.network, images)?;
        let tensors = self.tensors(weights, None)?;
        let image = self.image_tensor(images)?;
        let mode = Mode::Train { seed: 0, number: 0, bn_momentum: 1.0 };
        let (_, statistics) = self.forward(image, &tensors, mode, &mut |_, _| Ok(()), None)?;
        self.read_statistics(&statistics, weights)
    }

    /// Forward pass with running statistics. Returns the logits, `[n][classes]`.
    ///
    /// # Errors
    /// Images of the wrong length.
    pub fn evaluate(&self, images: Images<'_>, weights: &Weights) -> Result<Vec<f32>, ModelError> {
        self.evaluate_stages(images, weights, &mut |_, _| Ok(()))
    }

    /// As [`Self::evaluate`], showing every layer and its output to `stage` on the way.
    ///
    /// # Errors
    /// Images of the wrong length, or an error of `stage`.
    pub fn evaluate_stages(
        &self,
        images: Images<'_>,
        weights: &Weights,
        stage: &mut Stage<'_>,
    ) -> Result<Vec<f32>, ModelError> {
        let tensors = self.tensors(weights, None)?;
        let image = self.image_tensor(images)?;
        let (logits, _) = self.forward(image, &tensors, Mode::Evaluate, stage, None)?;
        let last = self.network.layers.len() - 1;
        match logits.last() {
            Some(logits) => values(logits).map_err(|source| self.in_layer(last, source)),
            None => unreachable!("the last layer gives logits"),
        }
    }

    /// Runs the layers. Returns the logits of every loss (in evaluation only the last) and the running
    /// statistics after the pass.
    fn forward(
        &self,
        image: Tensor,
        tensors: &Tensors,
        mode: Mode,
        stage: &mut Stage<'_>,
        mut merged: Option<&mut MergedNorms<'_>>,
    ) -> Result<(Vec<Tensor>, Vec<Tensor>), ModelError> {
        let layers = &self.network.layers;
        let runs = match mode {
            Mode::Train { .. } => vec![true; layers.len()],
            Mode::Evaluate => self.network.evaluated_layers(),
        };
        // An output is dropped after its last reader; otherwise evaluation would hold all of them.
        let mut readers = vec![0; layers.len()];
        for (layer, _) in layers.iter().zip(&runs).filter(|(_, runs)| **runs) {
            layer.inputs.iter().for_each(|&input| readers[input] += 1);
        }
        let mut outputs: Vec<Option<Tensor>> = vec![None; layers.len()];
        let mut statistics = tensors.statistics.clone();
        outputs[0] = Some(image);
        for (index, layer) in layers.iter().enumerate().skip(1).filter(|(index, _)| runs[*index]) {
            let inputs: Vec<Tensor> =
                layer.inputs.iter().filter_map(|&input| outputs[input].clone()).collect();
            for &input in &layer.inputs {
                readers[input] -= 1;
                if readers[input] == 0 {
                    outputs[input] = None;
                }
            }
            // What is frozen runs as in evaluation.
            let mode = if index <= self.network.frozen { Mode::Evaluate } else { mode };
            let in_layer = |source| self.in_layer(index, source);
            let output = match (&mut merged, layer.op, mode) {
                (Some(merged), Op::BatchNorm, Mode::Train { bn_momentum, .. }) => {
                    let norm = self
                        .norm_layer(index, tensors, &mut statistics, bn_momentum)
                        .map_err(in_layer)?;
                    merged.forward(norm, &inputs[0])?
                }
                _ => self
                    .run_layer(index, layer, &inputs, tensors, &mut statistics, mode)
                    .map_err(in_layer)?,
            };
            stage(layer, &output).map_err(in_layer)?;
            outputs[index] = Some(output);
        }
        // Nothing reads logits, so they are kept.
        let losses = self.network.losses.iter();
        let logits = losses.filter_map(|loss| outputs[loss.logits].take()).collect();
        Ok((logits, statistics))
    }

    /// Batch norm `index` with its tensors.
    fn norm_layer<'a>(
        &'a self,
        index: usize,
        tensors: &Tensors,
        statistics: &'a mut [Tensor],
        momentum: f64,
    ) -> candle_core::Result<NormLayer<'a>> {
        let trainable = |role| position(&self.table.trainable, index, role);
        let statistic = |role| position(&self.table.statistics, index, role);
        let (Some(options), Some(scale), Some(shift), Some(mean), Some(var)) = (
            self.network.options.batch_norm,
            trainable(Role::Scale),
            trainable(Role::Shift),
            statistic(Role::RunningMean),
            statistic(Role::RunningVar),
        ) else {
            candle_core::bail!("no constants or tensors of batch norm")
        };
        let running = statistics.get_disjoint_mut([mean, var]).map_err(candle_core::Error::msg)?;
        Ok(NormLayer {
            name: &self.network.layers[index].name,
            affine: [scale, shift].map(|at| tensors.trainable[at].clone()),
            running,
            epsilon: options.epsilon,
            momentum,
        })
    }

    fn run_layer(
        &self,
        index: usize,
        layer: &Layer,
        inputs: &[Tensor],
        tensors: &Tensors,
        statistics: &mut [Tensor],
        mode: Mode,
    ) -> candle_core::Result<Tensor> {
        let trainable = |role| {
            position(&self.table.trainable, index, role).map(|at| tensors.trainable[at].clone())
        };
        let required = |role| {
            trainable(role).ok_or_else(|| candle_core::Error::Msg(format!("no {role:?} tensor")))
        };
        let x = &inputs[0];
        match layer.op {
            Op::Image => Ok(x.clone()),
            Op::Conv(conv) => {
                let config =
                    Conv2dConfig { padding: conv.pad, stride: conv.stride, ..Default::default() };
                Conv2d::new(required(Role::ConvWeight)?, trainable(Role::Bias), config).forward(x)
            }
            Op::BatchNorm => {
                let options = self.network.options.batch_norm;
                let options =
                    options.ok_or_else(|| candle_core::Error::Msg("no constants".into()))?;
                let mean = position(&self.table.statistics, index, Role::RunningMean);
                let var = position(&self.table.statistics, index, Role::RunningVar);
                let (Some(mean), Some(var)) = (mean, var) else {
                    candle_core::bail!("no running statistics")
                };
                let momentum = match mode {
                    Mode::Train { bn_momentum, .. } => bn_momentum,
                    Mode::Evaluate => 0.0,
                };
                let norm = BatchNorm::new_with_momentum(
                    layer.output.channels,
                    statistics[mean].clone(),
                    statistics[var].clone(),
                    required(Role::Scale)?,
                    required(Role::Shift)?,
                    options.epsilon,
                    momentum,
                )?;
                let output = norm.forward_t(x, matches!(mode, Mode::Train { .. }))?;
                statistics[mean] = norm.running_mean().clone();
                statistics[var] = norm.running_var().clone();
                Ok(output)
            }
            Op::Activation(Activation::Relu) => x.contiguous()?.apply_op1(ReluOp),
            Op::Activation(Activation::Sigmoid) => candle_nn::ops::sigmoid(x),
            Op::Pool(pool) => x.contiguous()?.apply_op1(PoolOp(pool)),
            Op::AuxPool(pool) => x.contiguous()?.apply_op1(AuxPoolOp(pool)),
            Op::Lrn(lrn) => x.contiguous()?.apply_op1(LrnOp(lrn)),
            Op::Concat => Tensor::cat(inputs, 1),
            Op::GlobalAveragePool => x.flatten_from(2)?.mean(2),
            Op::Dropout(probability) => match mode {
                Mode::Evaluate => Ok(x.clone()),
                Mode::Train { seed, number, .. } => {
                    let mut mask = vec![0.0; x.elem_count()];
                    dropout_mask(seed, number, index, probability, &mut mask);
                    x.contiguous()?.apply_op1(MaskOp(mask))
                }
            },
            Op::Linear { .. } => {
                let bias = trainable(Role::Bias);
                let x = x.flatten_from(1)?;
                Linear::new(required(Role::LinearWeight)?, bias).forward(&x)
            }
        }
    }

    /// Copies the weights into candle tensors. With `frozen`, those of the layers behind it become
    /// variables, which get gradients.
    fn tensors(&self, weights: &Weights, frozen: Option<usize>) -> Result<Tensors, ModelError> {
        check_len("trainable weights", self.table.n_trainable(), weights.trainable.len())?;
        check_len("running statistics", self.table.n_statistics(), weights.statistics.len())?;
        let tensor = |spec: &TensorSpec, values: &[f32], variable: bool| {
            let values = &values[spec.range.clone()];
            let tensor = Tensor::from_slice(values, spec.shape.as_slice(), &self.device)
                .and_then(|tensor| tensor.to_dtype(self.dtype));
            let tensor = match variable {
                true => tensor.and_then(|t| Var::from_tensor(&t)).map(Var::into_inner),
                false => tensor,
            };
            tensor.map_err(|source| self.in_layer(spec.layer, source))
        };
        let trainable = self.table.trainable.iter();
        let statistics = self.table.statistics.iter();
        Ok(Tensors {
            trainable: trainable
                .map(|spec| {
                    let is_variable = frozen.is_some_and(|last| spec.layer > last);
                    tensor(spec, &weights.trainable, is_variable)
                })
                .collect::<Result<_, _>>()?,
            statistics: statistics
                .map(|spec| tensor(spec, &weights.statistics, false))
                .collect::<Result<_, _>>()?,
        })
    }

    fn read_gradients(
        &self,
        grads: &GradStore,
        variables: &[Tensor],
        gradients: &mut [f32],
    ) -> Result<(), ModelError> {
        for (spec, variable) in self.table.trainable.iter().zip(variables) {
            if spec.layer <= self.network.frozen {
                gradients[spec.range.clone()].fill(0.0);
                continue;
            }
            let in_layer = |source| self.in_layer(spec.layer, source);
            let Some(gradient) = grads.get(variable) else {
                let message = format!("no gradient reached {}", spec.name);
                return Err(in_layer(candle_core::Error::Msg(message)));
            };
            let values = values(gradient).map_err(in_layer)?;
            gradients[spec.range.clone()].copy_from_slice(&values);
        }
        Ok(())
    }

    fn read_statistics(
        &self,
        statistics: &[Tensor],
        weights: &mut Weights,
    ) -> Result<(), ModelError> {
        for (spec, statistic) in self.table.statistics.iter().zip(statistics) {
            let values = values(statistic).map_err(|source| self.in_layer(spec.layer, source))?;
            weights.statistics[spec.range.clone()].copy_from_slice(&values);
        }
        Ok(())
    }

    fn image_tensor(&self, images: Images<'_>) -> Result<Tensor, ModelError> {
        let shape = self.network.layers[0].output;
        let n_images = images.len() / shape.len();
        check_len("images", n_images.max(1) * shape.len(), images.len())?;
        let dims = (n_images, shape.channels, shape.height, shape.width);
        let values = images.to_values(shape.pixels());
        Tensor::from_vec(values, dims, &self.device)
            .and_then(|image| image.to_dtype(self.dtype))
            .map_err(|source| self.in_layer(0, source))
    }

    fn in_layer(&self, index: usize, source: candle_core::Error) -> ModelError {
        ModelError::Candle { layer: self.network.layers[index].name.clone(), source }
    }
}

fn position(specs: &[TensorSpec], layer: usize, role: Role) -> Option<usize> {
    specs.iter().position(|spec| spec.layer == layer && spec.role == role)
}

/// The values of a tensor in the order of its indices.
///
/// # Errors
/// candle's own.
pub fn values(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// The loss of the logits: that of the labels, or, where images were mixed, of theirs and their partners'
/// by their shares.
fn batch_loss(logits: &Tensor, input: &TrainInput<'_>) -> candle_core::Result<Tensor> {
    let own = cross_entropy(logits, input, input.labels)?;
    let Some(share) = input.own_share else { return Ok(own) };
    let partners: Vec<u32> = input.labels.iter().rev().copied().collect();
    let other = cross_entropy(logits, input, &partners)?;
    own.affine(share, 0.0)? + other.affine(1.0 - share, 0.0)?
}

/// Mean over the batch of `-w sum_k q_k log softmax(logits)_k`, where the target q gives
/// `1 - smoothing` to the label and spreads `smoothing` evenly over all classes (section 7 of
/// Szegedy et al. 2015, <https://arxiv.org/abs/1512.00567>), and w is the weight of the label's class.
fn cross_entropy(
    logits: &Tensor,
    input: &TrainInput<'_>,
    labels: &[u32],
) -> candle_core::Result<Tensor> {
    let TrainInput { label_smoothing: smoothing, class_weights, .. } = *input;
    let mut log_probabilities = candle_nn::ops::log_softmax(logits, 1)?;
    if let Some(weights) = class_weights {
        let weights: Vec<f64> = labels.iter().map(|&label| weights[label as usize]).collect();
        let weights = Tensor::from_vec(weights, (labels.len(), 1), logits.device())?;
        let weights = weights.to_dtype(logits.dtype())?;
        log_probabilities = log_probabilities.broadcast_mul(&weights)?;
    }
    let labels = Tensor::from_slice(labels, (labels.len(), 1), logits.device())?;
    let at_label = log_probabilities.gather(&labels, 1)?.mean_all()?;
    let everywhere = log_probabilities.mean_all()?;
    at_label.affine(smoothing - 1.0, 0.0)? - everywhere.affine(smoothing, 0.0)?
}

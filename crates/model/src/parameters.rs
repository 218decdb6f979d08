//! Names, shapes and places of everything a network learns.
//!
//! All trainable values lie in one flat vector and all running statistics in another, in the order
//! of the layers. Optimizer state, averaged weights and gradients are vectors of the same layout,
//! so the optimizer and the checkpoint need not know layers or executors.

use std::ops::Range;

use crate::layer::Op;
use crate::network::Network;

/// What a tensor is in its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Filter of a convolution, `[out, in, rows, columns]`.
    ConvWeight,
    /// Matrix of a fully connected layer, `[outputs, features]`.
    LinearWeight,
    /// Bias of a convolution or of a fully connected layer.
    Bias,
    /// Scale of batch norm (the paper's gamma).
    Scale,
    /// Shift of batch norm (the paper's beta).
    Shift,
    /// Running mean of batch norm; not trained.
    RunningMean,
    /// Running variance of batch norm, unbiased; not trained.
    RunningVar,
}

impl Role {
    /// Whether weight decay applies. It applies to filters and matrices only, not to batch norm's
    /// scale and shift nor to biases (our reading; the paper says only that the L2 weight changes).
    pub fn decays(self) -> bool {
        matches!(self, Role::ConvWeight | Role::LinearWeight)
    }
}

/// One named tensor in a flat vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name as in the public PyTorch port, for example `inception_3a_1x1_bn.running_mean`. Tensors that
    /// the port lacks have names in its style: `inception_3a_5x5.weight`, `aux1_conv.weight`,
    /// `aux1_fc.weight`, `aux1_linear.weight`.
    pub name: String,
    /// Index of its layer in the network.
    pub layer: usize,
    /// What it is in the layer.
    pub role: Role,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Its place in the flat vector.
    pub range: Range<usize>,
}

/// The tensors of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterTable {
    /// What the optimizer changes, in layer order.
    pub trainable: Vec<TensorSpec>,
    /// Running statistics, in layer order. The forward pass of training changes them.
    pub statistics: Vec<TensorSpec>,
}

impl ParameterTable {
    /// The tensors of `network`.
    pub fn new(network: &Network) -> ParameterTable {
        let mut table = ParameterTable { trainable: Vec::new(), statistics: Vec::new() };
        for (index, layer) in network.layers.iter().enumerate() {
            let input = network.input_shape(index);
            let channels = layer.output.channels;
            let mut add = |list: fn(&mut ParameterTable) -> &mut Vec<TensorSpec>,
                           tensor,
                           role,
                           shape: Vec<usize>| {
                let list = list(&mut table);
                let start = list.last().map_or(0, |spec| spec.range.end);
                let range = start..start + shape.iter().product::<usize>();
                let name = format!("{}.{tensor}", layer.name);
                list.push(TensorSpec { name, layer: index, role, shape, range });
            };
            match layer.op {
                Op::Conv(conv) => {
                    let shape = vec![conv.out_channels, conv.in_channels, conv.kernel, conv.kernel];
                    add(|table| &mut table.trainable, "weight", Role::ConvWeight, shape);
                    if conv.bias {
                        add(|table| &mut table.trainable, "bias", Role::Bias, vec![channels]);
                    }
                }
                Op::BatchNorm => {
                    add(|table| &mut table.trainable, "weight", Role::Scale, vec![channels]);
                    add(|table| &mut table.trainable, "bias", Role::Shift, vec![channels]);
                    let mean = ("running_mean", Role::RunningMean);
                    let var = ("running_var", Role::RunningVar);
                    for (tensor, role) in [mean, var] {
                        add(|table| &mut table.statistics, tensor, role, vec![channels]);
                    }
                }
                Op::Linear { bias } => {
                    let shape = vec![channels, input.len()];
                    add(|table| &mut table.trainable, "weight", Role::LinearWeight, shape);
                    if bias {
                        add(|table| &mut table.trainable, "bias", Role::Bias, vec![channels]);
                    }
                }
                _ => {}
            }
        }
        table
    }

    /// Number of trainable values.
    pub fn n_trainable(&self) -> usize {
        self.trainable.last().map_or(0, |spec| spec.range.end)
    }

    /// Number of running statistics.
    pub fn n_statistics(&self) -> usize {
        self.statistics.last().map_or(0, |spec| spec.range.end)
    }

    /// The trainable tensor of layer `layer` with this role.
    pub fn trainable_of(&self, layer: usize, role: Role) -> Option<&TensorSpec> {
        self.trainable.iter().find(|spec| spec.layer == layer && spec.role == role)
    }

    /// The running statistic of layer `layer` with this role.
    pub fn statistic_of(&self, layer: usize, role: Role) -> Option<&TensorSpec> {
        self.statistics.iter().find(|spec| spec.layer == layer && spec.role == role)
    }
}

/// Values of a network, trainable values and running statistics, laid out by a [`ParameterTable`].
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Trainable values.
    pub trainable: Vec<f32>,
    /// Running statistics.
    pub statistics: Vec<f32>,
}

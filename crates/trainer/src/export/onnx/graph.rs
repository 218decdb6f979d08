//! A network as a graph of ONNX operators (opset 17), layer by layer.
//!
//! Every pool has its padding written out, because runtimes differ in `ceil_mode` with padding. The batch is open.

use bninception_engine::model::layer::{Activation, Layer, Lrn, Op, Pool, PoolKind};
use bninception_engine::model::{
    Kind, Network, NormTensors, ParameterTable, Role, Weights, fold_batch_norm,
};

use super::schema::{
    Attribute, BFLOAT16, Dimension, Extent, FLOAT, FLOAT16, Graph, Node, Tensor, TensorShape,
    TensorType, Type, ValueInfo,
};
use crate::error::Error;
use crate::export::exported::{Exported, stored};
use crate::export::storage::Storage;

/// Name of the input: normalised pixels, `[batch][3][rows][columns]`.
pub const INPUT: &str = "image";
/// Name of the output without a softmax.
const LOGITS: &str = "logits";
/// Name of the output with one.
const PROBABILITIES: &str = "probabilities";
/// Name of what the classifier reads, `[batch][channels]`.
const FEATURES: &str = "features";

/// What the graph is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraphOptions {
    /// Batch norm as nodes of its own, and not folded into the convolutions.
    pub keep_batch_norm: bool,
    /// Probabilities in place of logits.
    pub softmax: bool,
    /// Number type of filters and matrices in the file. The graph turns them to f32, and computes in that.
    pub storage: Storage,
}

/// The graph of a network, as evaluation runs it.
///
/// # Errors
/// A value that the number type of storage cannot hold.
pub(super) fn graph(exported: &Exported<'_>, options: GraphOptions) -> Result<Graph, Error> {
    let network = exported.network;
    let mut build = Build {
        network,
        table: ParameterTable::new(network),
        weights: exported.weights,
        nodes: Vec::new(),
        tensors: Vec::new(),
        names: vec![String::new(); network.layers.len()],
        options,
    };
    let runs = network.evaluated_layers();
    for index in (0..network.layers.len()).filter(|&index| runs[index]) {
        build.names[index] = build.layer(index)?;
    }
    let logits = network.losses.last().map_or(network.layers.len() - 1, |loss| loss.logits);
    let last = build.names[logits].clone();
    let output = match options.softmax {
        true => build.node("Softmax", PROBABILITIES, &[&last], vec![int("axis", -1)]),
        false => last,
    };
    let image = network.layers[0].output;
    let extents = [image.channels, image.height, image.width].map(|extent| extent as i64);
    Ok(Graph {
        name: match network.kind {
            Kind::BnInception => "bninception",
            Kind::GoogLeNet => "googlenet",
        }
        .to_owned(),
        node: build.nodes,
        initializer: build.tensors,
        input: vec![value(INPUT, &extents)],
        output: vec![value(&output, &[network.options.classes as i64])],
    })
}

struct Build<'a> {
    network: &'a Network,
    table: ParameterTable,
    weights: &'a Weights,
    nodes: Vec<Node>,
    tensors: Vec<Tensor>,
    /// The output of each layer.
    names: Vec<String>,
    options: GraphOptions,
}

impl<'a> Build<'a> {
    /// Adds what layer `index` computes, and gives the name of its output.
    fn layer(&mut self, index: usize) -> Result<String, Error> {
        let layer = &self.network.layers[index];
        let inputs: Vec<String> =
            layer.inputs.iter().map(|&input| self.names[input].clone()).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let name = layer.name.as_str();
        Ok(match layer.op {
            Op::Image => INPUT.to_owned(),
            Op::Conv(conv) => {
                let (filters, bias) = self.filters(index);
                let size = [conv.out_channels, conv.in_channels, conv.kernel, conv.kernel];
                let mut operands = vec![
                    inputs[0].to_owned(),
                    self.tensor(name, Role::ConvWeight, &size, &filters)?,
                ];
                if let Some(bias) = bias {
                    operands.push(self.tensor(name, Role::Bias, &[conv.out_channels], &bias)?);
                }
                let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
                let window = window(conv.kernel, conv.stride, conv.pad);
                self.node("Conv", name, &operands, window)
            }
            Op::BatchNorm if !self.options.keep_batch_norm => inputs[0].to_owned(),
            Op::BatchNorm => {
                let mut operands = vec![inputs[0].to_owned()];
                // The order of the operator's inputs.
                for role in [Role::Scale, Role::Shift, Role::RunningMean, Role::RunningVar] {
                    let values = self.values(index, role).unwrap_or_default();
                    operands.push(self.tensor(name, role, &[values.len()], values)?);
                }
                let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
                let epsilon = self.epsilon() as f32;
                self.node("BatchNormalization", name, &operands, vec![float("epsilon", epsilon)])
            }
            Op::Activation(Activation::Relu) => self.node("Relu", name, &inputs, vec![]),
            Op::Activation(Activation::Sigmoid) => self.node("Sigmoid", name, &inputs, vec![]),
            Op::Pool(pool) => {
                let attributes = pool_attributes(pool, &self.network.layers[layer.inputs[0]]);
                match pool.kind {
                    PoolKind::Max => self.node("MaxPool", name, &inputs, attributes),
                    PoolKind::Average => {
                        let attributes = [attributes, vec![int("count_include_pad", 1)]].concat();
                        self.node("AveragePool", name, &inputs, attributes)
                    }
                }
            }
            Op::Lrn(lrn) => self.lrn(name, inputs[0], lrn, layer.output.channels)?,
            Op::Concat => self.node("Concat", name, &inputs, vec![int("axis", 1)]),
            Op::GlobalAveragePool => {
                let pooled = self.node("GlobalAveragePool", name, &inputs, vec![]);
                self.node("Flatten", FEATURES, &[&pooled], vec![int("axis", 1)])
            }
            Op::Dropout(_) => inputs[0].to_owned(),
            Op::Linear { .. } => {
                let (classes, features) =
                    (layer.output.channels, self.network.layers[layer.inputs[0]].output.len());
                let matrix = self.values(index, Role::LinearWeight).unwrap_or_default();
                let matrix = self.tensor(name, Role::LinearWeight, &[classes, features], matrix)?;
                let mut operands = vec![inputs[0], matrix.as_str()];
                let bias = self.values(index, Role::Bias);
                let bias = bias.map(|bias| self.tensor(name, Role::Bias, &[classes], bias));
                let bias = bias.transpose()?;
                operands.extend(bias.as_deref());
                self.node("Gemm", LOGITS, &operands, vec![int("transB", 1)])
            }
            Op::AuxPool(_) => unreachable!("evaluation has no auxiliary head"),
        })
    }

    /// Adds a local response normalisation as a product, a convolution and a power: some runtimes lack the
    /// operator `LRN`. The convolution adds up the squares of the neighbours.
    fn lrn(&mut self, name: &str, x: &str, lrn: Lrn, channels: usize) -> Result<String, Error> {
        let reach = lrn.size / 2;
        let weight = (lrn.alpha / lrn.size as f64) as f32;
        let filters: Vec<f32> = (0..channels * channels)
            .map(|at| (at / channels, at % channels))
            .map(|(to, from)| if to.abs_diff(from) <= reach { weight } else { 0.0 })
            .collect();
        let (sums, power) = (format!("{name}_sums"), format!("{name}_power"));
        let square = self.node("Mul", &format!("{name}_squares"), &[x, x], vec![]);
        let filters = self.constant(&sums, "weight", &[channels, channels, 1, 1], &filters);
        let ones = self.constant(&sums, "bias", &[channels], &vec![1.0; channels]);
        let sum = self.node("Conv", &sums, &[&square, &filters, &ones], window(1, 1, 0));
        let exponent = self.constant(&power, "exponent", &[], &[-lrn.beta as f32]);
        let factor = self.node("Pow", &power, &[&sum, &exponent], vec![]);
        Ok(self.node("Mul", name, &[x, &factor], vec![]))
    }

    /// Filters and bias of the convolution at `index`, with the batch norm behind it unless that is kept.
    fn filters(&self, index: usize) -> (Vec<f32>, Option<Vec<f32>>) {
        let mut filters = self.values(index, Role::ConvWeight).unwrap_or_default().to_vec();
        let bias = self.values(index, Role::Bias).map(<[f32]>::to_vec);
        let norm = self.network.only_reader(index);
        let norm = norm.filter(|&norm| self.network.layers[norm].op == Op::BatchNorm);
        let (Some(norm), false) = (norm, self.options.keep_batch_norm) else {
            return (filters, bias);
        };
        let channels = self.network.layers[index].output.channels;
        let mut bias = bias.unwrap_or_else(|| vec![0.0; channels]);
        let of = |role| self.values(norm, role).unwrap_or_default();
        let norm = NormTensors {
            gamma: of(Role::Scale),
            beta: of(Role::Shift),
            mean: of(Role::RunningMean),
            variance: of(Role::RunningVar),
        };
        fold_batch_norm(&mut filters, &mut bias, norm, self.epsilon());
        (filters, Some(bias))
    }

    fn epsilon(&self) -> f64 {
        self.network.options.batch_norm.map_or(0.0, |norm| norm.epsilon)
    }

    /// The values of a layer's tensor. They live as long as the weights.
    fn values(&self, layer: usize, role: Role) -> Option<&'a [f32]> {
        let Weights { trainable, statistics } = self.weights;
        let trainable = self.table.trainable_of(layer, role).map(|spec| (spec, trainable));
        let statistic = || self.table.statistic_of(layer, role).map(|spec| (spec, statistics));
        let (spec, values) = trainable.or_else(statistic)?;
        Some(&values[spec.range.clone()])
    }

    /// Adds a tensor of the layer `layer`, and gives its name, or that of what turns it to f32.
    fn tensor(
        &mut self,
        layer: &str,
        role: Role,
        size: &[usize],
        values: &[f32],
    ) -> Result<String, Error> {
        let part = match role {
            Role::ConvWeight | Role::LinearWeight | Role::Scale => "weight",
            Role::Bias | Role::Shift => "bias",
            Role::RunningMean => "running_mean",
            Role::RunningVar => "running_var",
        };
        let name = format!("{layer}.{part}");
        let (storage, bytes) = stored(&name, role, values, self.options.storage)?;
        Ok(match storage {
            Storage::F32 => self.initializer(name, FLOAT, size, bytes),
            Storage::F16 => self.turned(&name, FLOAT16, size, bytes),
            Storage::Bf16 => self.turned(&name, BFLOAT16, size, bytes),
        })
    }

    /// Adds a tensor of a type with 16 bits and a node that turns it to f32, and gives the node's name.
    fn turned(&mut self, name: &str, data_type: i32, size: &[usize], bytes: Vec<u8>) -> String {
        let stored = self.initializer(format!("{name}_stored"), data_type, size, bytes);
        self.node("Cast", name, &[&stored], vec![int("to", FLOAT.into())])
    }

    /// Adds a tensor that is no weight, in f32, and gives its name.
    fn constant(&mut self, node: &str, part: &str, size: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(format!("{node}.{part}"), FLOAT, size, bytes)
    }

    fn initializer(
        &mut self,
        name: String,
        data_type: i32,
        size: &[usize],
        raw_data: Vec<u8>,
    ) -> String {
        let dims = size.iter().map(|&extent| extent as i64).collect();
        self.tensors.push(Tensor { dims, data_type, name: name.clone(), raw_data });
        name
    }

    /// Adds a node with one output of its own name, and gives that.
    fn node(&mut self, op: &str, name: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        self.nodes.push(Node {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op.to_owned(),
            attribute,
        });
        name.to_owned()
    }
}

/// A tensor of f32 whose first axis, the batch, is open.
fn value(name: &str, extents: &[i64]) -> ValueInfo {
    let batch = Extent::DimParam("batch".to_owned());
    let extents = extents.iter().map(|&extent| Extent::DimValue(extent));
    let dim = std::iter::once(batch).chain(extents).map(|value| Dimension { value: Some(value) });
    let shape = Some(TensorShape { dim: dim.collect() });
    let tensor_type = Some(TensorType { elem_type: FLOAT, shape });
    ValueInfo { name: name.to_owned(), r#type: Some(Type { tensor_type }) }
}

fn float(name: &str, f: f32) -> Attribute {
    Attribute { name: name.to_owned(), f, r#type: 1, ..Attribute::default() }
}

fn int(name: &str, i: i64) -> Attribute {
    Attribute { name: name.to_owned(), i, r#type: 2, ..Attribute::default() }
}

fn ints(name: &str, values: &[usize]) -> Attribute {
    let ints = values.iter().map(|&value| value as i64).collect();
    Attribute { name: name.to_owned(), ints, r#type: 7, ..Attribute::default() }
}

/// The attributes of a convolution. Some runtimes want even those that have defaults.
fn window(kernel: usize, stride: usize, pad: usize) -> Vec<Attribute> {
    vec![ints("kernel_shape", &[kernel; 2]), ints("strides", &[stride; 2]), ints("pads", &[pad; 4])]
}

/// The attributes of a pool, with its padding on each side written out: runtimes differ where windows reach
/// beyond it (`ceil_mode`).
fn pool_attributes(pool: Pool, from: &Layer) -> Vec<Attribute> {
    let along = |n: usize| {
        let before = pool.pad_before(n);
        let covered = (pool.output_len(n) - 1) * pool.stride + Pool::KERNEL;
        (before, (covered - before).saturating_sub(n))
    };
    let ((top, bottom), (left, right)) = (along(from.output.height), along(from.output.width));
    vec![
        ints("kernel_shape", &[Pool::KERNEL; 2]),
        ints("strides", &[pool.stride; 2]),
        ints("pads", &[top, left, bottom, right]),
    ]
}

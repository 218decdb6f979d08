//! The network as data: one list of layers, built from the paper's Figure 5.
//!
//! Everything else reads this list: the summary, the parameters, and every executor.

use crate::error::ModelError;
use crate::layer::{Activation, Conv, Layer, Lrn, Op, Pool, PoolKind, Shape};
use crate::table::{PoolBranch, Row, rows};

/// Choices that change the network's layers.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkOptions {
    /// Outputs of the last layer.
    pub classes: usize,
    /// Rows and columns of the input image, 32 to 512.
    pub image_size: usize,
    /// Nonlinearity behind every convolution.
    pub activation: Activation,
    /// Batch normalisation before every nonlinearity; `None` leaves it out.
    pub batch_norm: Option<BatchNormOptions>,
    /// Local response normalisation behind pool1 and conv2, where GoogLeNet has it.
    pub lrn: bool,
    /// Probability of dropout in front of the last layer; 0 leaves it out.
    pub dropout: f64,
    /// Whether convolutions add a bias.
    pub conv_bias: bool,
    /// Width of the pool projection of 4c and 4d: 96 or 128 (see [`crate::table`]).
    pub pool_proj_4c4d: usize,
}

/// Constants of batch normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormOptions {
    /// Added to the variance.
    pub epsilon: f64,
    /// Weight of the newest batch in the running statistics (PyTorch's sense of momentum).
    pub momentum: f64,
}

/// The default of the paper's own figures: batch norm, ReLU, no dropout, no LRN, no conv bias,
/// 1000 classes at 224 pixels.
impl Default for NetworkOptions {
    fn default() -> Self {
        NetworkOptions {
            classes: 1000,
            image_size: 224,
            activation: Activation::Relu,
            batch_norm: Some(BatchNormOptions { epsilon: 1e-5, momentum: 0.1 }),
            lrn: false,
            dropout: 0.0,
            conv_bias: false,
            pool_proj_4c4d: 96,
        }
    }
}

impl NetworkOptions {
    /// Smallest and largest image side that the network is tested with.
    pub const IMAGE_SIZES: std::ops::RangeInclusive<usize> = 32..=512;

    fn check(&self) -> Result<(), ModelError> {
        let fail = |what: &'static str, expected: &'static str, found: String| {
            Err(ModelError::Option { what, expected, found })
        };
        if self.classes == 0 {
            return fail("classes", "at least 1", "0".into());
        }
        if !Self::IMAGE_SIZES.contains(&self.image_size) {
            return fail("image_size", "32 to 512", self.image_size.to_string());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail("dropout", "at least 0 and below 1", self.dropout.to_string());
        }
        if ![96, 128].contains(&self.pool_proj_4c4d) {
            return fail("pool_proj_4c4d", "96 or 128", self.pool_proj_4c4d.to_string());
        }
        if let Some(batch_norm) = self.batch_norm {
            if !(batch_norm.epsilon > 0.0 && batch_norm.epsilon.is_finite()) {
                return fail("bn_epsilon", "above 0", batch_norm.epsilon.to_string());
            }
            if !(batch_norm.momentum > 0.0 && batch_norm.momentum <= 1.0) {
                return fail("bn_momentum", "above 0, at most 1", batch_norm.momentum.to_string());
            }
        }
        Ok(())
    }
}

/// A network: its options and its layers in the order in which they run.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// The choices it was built from.
    pub options: NetworkOptions,
    /// The layers; the first is the image, the last gives the logits.
    pub layers: Vec<Layer>,
}

impl Network {
    /// BN-Inception with the given options.
    ///
    /// # Errors
    /// An option outside its range.
    pub fn bn_inception(options: NetworkOptions) -> Result<Network, ModelError> {
        options.check()?;
        let size = options.image_size;
        let image = Shape { channels: 3, height: size, width: size };
        let mut net = Builder { options: &options, layers: Vec::new() };

        let x = net.push("data", Op::Image, vec![], image);
        let x = net.conv("conv1_7x7_s2", x, 64, 7, 2);
        let x = net.pool("pool1_3x3_s2", x, PoolKind::Max, 2);
        let x = net.lrn("pool1_norm1", x);
        let x = net.conv("conv2_3x3_reduce", x, 64, 1, 1);
        let x = net.conv("conv2_3x3", x, 192, 3, 1);
        let x = net.lrn("conv2_norm2", x);
        let mut x = net.pool("pool2_3x3_s2", x, PoolKind::Max, 2);
        for row in rows(options.pool_proj_4c4d) {
            x = net.module(&row, x);
        }
        let x = net.global_average_pool("global_pool", x);
        let x = net.dropout("dropout", x);
        net.linear("last_linear", x, options.classes);

        let layers = net.layers;
        Ok(Network { options, layers })
    }

    /// Shape of the only input of layer `index`, or of the joined output for a concatenation.
    pub fn input_shape(&self, index: usize) -> Shape {
        let layer = &self.layers[index];
        match (layer.op, layer.inputs.first()) {
            (Op::Image | Op::Concat, _) | (_, None) => layer.output,
            (_, Some(&input)) => self.layers[input].output,
        }
    }

    /// How many layers read the output of each layer.
    pub fn consumer_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.layers.len()];
        for &input in self.layers.iter().flat_map(|layer| &layer.inputs) {
            counts[input] += 1;
        }
        counts
    }
}

/// Appends layers and works out their shapes.
struct Builder<'a> {
    options: &'a NetworkOptions,
    layers: Vec<Layer>,
}

impl Builder<'_> {
    fn push(&mut self, name: &str, op: Op, inputs: Vec<usize>, output: Shape) -> usize {
        self.layers.push(Layer { name: name.to_owned(), op, inputs, output });
        self.layers.len() - 1
    }

    /// Convolution, batch norm where asked for, nonlinearity: z = g(BN(Wu)), section 3.2.
    fn conv(
        &mut self,
        name: &str,
        input: usize,
        out_channels: usize,
        kernel: usize,
        stride: usize,
    ) -> usize {
        let from = self.layers[input].output;
        let pad = kernel / 2;
        let out = |n: usize| (n + 2 * pad - kernel) / stride + 1;
        let output =
            Shape { channels: out_channels, height: out(from.height), width: out(from.width) };
        let conv = Conv {
            in_channels: from.channels,
            out_channels,
            kernel,
            stride,
            pad,
            bias: self.options.conv_bias,
        };
        let mut x = self.push(name, Op::Conv(conv), vec![input], output);
        if self.options.batch_norm.is_some() {
            x = self.push(&format!("{name}_bn"), Op::BatchNorm, vec![x], output);
        }
        let activation = Op::Activation(self.options.activation);
        self.push(&format!("{name}_act"), activation, vec![x], output)
    }

    fn pool(&mut self, name: &str, input: usize, kind: PoolKind, stride: usize) -> usize {
        let pool = Pool { kind, stride };
        let from = self.layers[input].output;
        let output = Shape {
            channels: from.channels,
            height: pool.output_len(from.height),
            width: pool.output_len(from.width),
        };
        self.push(name, Op::Pool(pool), vec![input], output)
    }

    fn lrn(&mut self, name: &str, input: usize) -> usize {
        if !self.options.lrn {
            return input;
        }
        let output = self.layers[input].output;
        self.push(name, Op::Lrn(Lrn::GOOGLENET), vec![input], output)
    }

    /// One Inception module; its branches are joined in the order 1x1, 3x3, double 3x3, pool.
    fn module(&mut self, row: &Row, input: usize) -> usize {
        let name = |branch: &str| format!("inception_{}_{branch}", row.name);
        let stride = if row.has_stride_2() { 2 } else { 1 };
        let mut branches = Vec::new();

        if row.conv_1x1 > 0 {
            branches.push(self.conv(&name("1x1"), input, row.conv_1x1, 1, 1));
        }
        let x = self.conv(&name("3x3_reduce"), input, row.conv_3x3_reduce, 1, 1);
        branches.push(self.conv(&name("3x3"), x, row.conv_3x3, 3, stride));
        let x = self.conv(&name("double_3x3_reduce"), input, row.double_3x3_reduce, 1, 1);
        let x = self.conv(&name("double_3x3_1"), x, row.double_3x3, 3, 1);
        branches.push(self.conv(&name("double_3x3_2"), x, row.double_3x3, 3, stride));
        let (kind, projection) = match row.pool {
            PoolBranch::Average(width) => (PoolKind::Average, Some(width)),
            PoolBranch::Max(width) => (PoolKind::Max, Some(width)),
            PoolBranch::PassThrough => (PoolKind::Max, None),
        };
        let pooled = self.pool(&name("pool"), input, kind, stride);
        branches.push(match projection {
            Some(width) => self.conv(&name("pool_proj"), pooled, width, 1, 1),
            None => pooled,
        });

        let first = self.layers[branches[0]].output;
        let channels = branches.iter().map(|&branch| self.layers[branch].output.channels).sum();
        self.push(&name("output"), Op::Concat, branches, Shape { channels, ..first })
    }

    fn global_average_pool(&mut self, name: &str, input: usize) -> usize {
        let channels = self.layers[input].output.channels;
        let output = Shape { channels, height: 1, width: 1 };
        self.push(name, Op::GlobalAveragePool, vec![input], output)
    }

    fn dropout(&mut self, name: &str, input: usize) -> usize {
        if self.options.dropout == 0.0 {
            return input;
        }
        let output = self.layers[input].output;
        self.push(name, Op::Dropout(self.options.dropout), vec![input], output)
    }

    fn linear(&mut self, name: &str, input: usize, outputs: usize) -> usize {
        let output = Shape { channels: outputs, height: 1, width: 1 };
        self.push(name, Op::Linear, vec![input], output)
    }
}

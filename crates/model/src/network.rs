//! The network as data: one list of layers, built from the paper's Figure 5 or GoogLeNet's table 1.
//!
//! Everything else reads this list: the summary, the parameters, and every executor.

use crate::error::ModelError;
use crate::layer::{Activation, AuxPool, Conv, Layer, Lrn, Op, Pool, PoolKind, Shape};
use crate::table::{GoogLeNetRow, PoolBranch, Row, googlenet_rows, rows};

/// The kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Inception-v2 of Ioffe & Szegedy 2015, figure 5.
    BnInception,
    /// Inception-v1 of Szegedy et al. 2014 (<https://arxiv.org/abs/1409.4842>), table 1.
    GoogLeNet,
}

impl Kind {
    /// Both.
    pub const ALL: [Kind; 2] = [Kind::BnInception, Kind::GoogLeNet];
}

/// Choices that change the network's layers or their initial values.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkOptions {
    /// Outputs of the last layer.
    pub classes: usize,
    /// Rows and columns of the input image, 32 to 512.
    pub image_size: usize,
    /// Nonlinearity after every convolution.
    pub activation: Activation,
    /// Batch normalisation before every nonlinearity; `None` leaves it out.
    pub batch_norm: Option<BatchNormOptions>,
    /// Local response normalisation after pool1 and conv2, where GoogLeNet has it.
    pub lrn: bool,
    /// Probability of dropout before the last layer; 0 leaves it out.
    pub dropout: f64,
    /// Whether convolutions add a bias.
    pub conv_bias: bool,
    /// Width of the pool projection of 4c and 4d: 96 or 128 (see [`crate::table`]). GoogLeNet has its
    /// own widths and ignores this one.
    pub pool_proj_4c4d: usize,
    /// Auxiliary heads on the outputs of 4a and 4d, which only training runs.
    pub aux: Option<AuxOptions>,
    /// Factor on the standard deviation of the initial filters of convolutions.
    pub init_gain: f64,
}

/// Constants of the auxiliary heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AuxOptions {
    /// Weight of each head's loss beside the main one.
    pub weight: f64,
    /// Probability of dropout before a head's last layer; 0 leaves it out.
    pub dropout: f64,
}

/// GoogLeNet's (section 5).
impl Default for AuxOptions {
    fn default() -> Self {
        AuxOptions { weight: 0.3, dropout: 0.7 }
    }
}

/// Constants of batch normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormOptions {
    /// Added to the variance.
    pub epsilon: f64,
}

/// The network of the paper's figures: batch norm, ReLU, no dropout, no LRN, no conv bias,
/// 1000 classes at 224 pixels.
impl Default for NetworkOptions {
    fn default() -> Self {
        NetworkOptions {
            classes: 1000,
            image_size: 224,
            activation: Activation::Relu,
            batch_norm: Some(BatchNormOptions { epsilon: 1e-5 }),
            lrn: false,
            dropout: 0.0,
            conv_bias: false,
            pool_proj_4c4d: 96,
            aux: None,
            init_gain: 1.0,
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
        if let Some(aux) = self.aux {
            if !(aux.weight > 0.0 && aux.weight.is_finite()) {
                return fail("aux_weight", "above 0", aux.weight.to_string());
            }
            if !(0.0..1.0).contains(&aux.dropout) {
                return fail("aux_dropout", "at least 0 and below 1", aux.dropout.to_string());
            }
        }
        if !(self.init_gain > 0.0 && self.init_gain.is_finite()) {
            return fail("init_gain", "above 0", self.init_gain.to_string());
        }
        if let Some(BatchNormOptions { epsilon }) = self.batch_norm
            && !(epsilon > 0.0 && epsilon.is_finite())
        {
            return fail("bn_epsilon", "above 0", epsilon.to_string());
        }
        Ok(())
    }
}

/// A network: its options and its layers in the order in which they run.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// The kind of network.
    pub kind: Kind,
    /// The choices it was built from.
    pub options: NetworkOptions,
    /// The layers; the first is the image, the last gives the logits.
    pub layers: Vec<Layer>,
    /// The losses of training, in the order of the layers; the last is that of the logits.
    pub losses: Vec<Loss>,
    /// The last layer that training leaves as it is; 0, the image, where it changes all
    /// ([`Network::with_frozen`]).
    pub frozen: usize,
}

/// One loss of training. The gradient is that of the weighted sum of all losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// The layer whose outputs are logits.
    pub logits: usize,
    /// Weight in the sum: 1 for the network's own logits.
    pub weight: f64,
}

impl Network {
    /// BN-Inception with the given options.
    ///
    /// # Errors
    /// An option outside its range.
    pub fn bn_inception(options: NetworkOptions) -> Result<Network, ModelError> {
        Network::new(Kind::BnInception, options)
    }

    /// GoogLeNet with the given options. The published network has no batch norm; it has biases, LRN,
    /// dropout of 0.4 and auxiliary heads.
    ///
    /// # Errors
    /// An option outside its range.
    pub fn googlenet(options: NetworkOptions) -> Result<Network, ModelError> {
        Network::new(Kind::GoogLeNet, options)
    }

    /// The network of this kind with the given options.
    ///
    /// # Errors
    /// An option outside its range.
    pub fn new(kind: Kind, options: NetworkOptions) -> Result<Network, ModelError> {
        options.check()?;
        let size = options.image_size;
        let image = Shape { channels: 3, height: size, width: size };
        let mut net = Builder { options: &options, layers: Vec::new(), losses: Vec::new() };

        let x = net.push("data", Op::Image, vec![], image);
        let x = net.conv("conv1_7x7_s2", x, 64, 7, 2);
        let x = net.pool("pool1_3x3_s2", x, PoolKind::Max, 2);
        let x = net.lrn("pool1_norm1", x);
        let x = net.conv("conv2_3x3_reduce", x, 64, 1, 1);
        let x = net.conv("conv2_3x3", x, 192, 3, 1);
        let x = net.lrn("conv2_norm2", x);
        let x = net.pool("pool2_3x3_s2", x, PoolKind::Max, 2);
        let x = match kind {
            Kind::BnInception => net.bn_inception_modules(x),
            Kind::GoogLeNet => net.googlenet_modules(x),
        };
        let x = net.global_average_pool("global_pool", x);
        let x = net.dropout("dropout", x, options.dropout);
        net.classifier("last_linear", x, 1.0);

        let Builder { layers, losses, .. } = net;
        Ok(Network { kind, options, layers, losses, frozen: 0 })
    }

    /// For each layer, whether the logits depend on it. Evaluation runs only these layers.
    pub fn evaluated_layers(&self) -> Vec<bool> {
        let mut evaluated = vec![false; self.layers.len()];
        if let Some(last) = evaluated.last_mut() {
            *last = true;
        }
        for (index, layer) in self.layers.iter().enumerate().rev() {
            if evaluated[index] {
                layer.inputs.iter().for_each(|&input| evaluated[input] = true);
            }
        }
        evaluated
    }

    /// The layer whose output enters the nonlinearity after layer `index`: its batch norm, or the layer
    /// itself. `None` if no nonlinearity follows, or if the layer has no weights.
    pub fn nonlinearity_input(&self, index: usize) -> Option<usize> {
        if !matches!(self.layers[index].op, Op::Conv(_) | Op::Linear { .. }) {
            return None;
        }
        let reader = |of: usize| {
            let position = self.layers.iter().position(|layer| layer.inputs.contains(&of))?;
            Some((position, self.layers[position].op))
        };
        match reader(index)? {
            (_, Op::Activation(_)) => Some(index),
            (norm, Op::BatchNorm) => match reader(norm)? {
                (_, Op::Activation(_)) => Some(norm),
                _ => None,
            },
            _ => None,
        }
    }

    /// Shape of the only input of layer `index`, or of the joined output for a concatenation.
    pub fn input_shape(&self, index: usize) -> Shape {
        let layer = &self.layers[index];
        match (layer.op, layer.inputs.first()) {
            (Op::Image | Op::Concat, _) | (_, None) => layer.output,
            (_, Some(&input)) => self.layers[input].output,
        }
    }

    /// The only layer that reads layer `index`; `None` if none does, or more than one.
    pub fn only_reader(&self, index: usize) -> Option<usize> {
        let layers = self.layers.iter().enumerate();
        let mut readers = layers.filter(|(_, l)| l.inputs.contains(&index)).map(|(at, _)| at);
        readers.next().filter(|_| readers.next().is_none())
    }
}

/// Appends layers and works out their shapes.
struct Builder<'a> {
    options: &'a NetworkOptions,
    layers: Vec<Layer>,
    losses: Vec<Loss>,
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
        let x = self.push(name, Op::Conv(conv), vec![input], output);
        self.nonlinearity(name, x)
    }

    /// Batch norm where asked for, and the nonlinearity after layer `name`.
    fn nonlinearity(&mut self, name: &str, mut x: usize) -> usize {
        let output = self.layers[x].output;
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

    /// The ten modules of Figure 5; the auxiliary heads stand where GoogLeNet has them.
    fn bn_inception_modules(&mut self, mut x: usize) -> usize {
        for row in rows(self.options.pool_proj_4c4d) {
            x = self.module(&row, x);
            match row.name {
                "4a" => self.aux_head("aux1", x),
                "4d" => self.aux_head("aux2", x),
                _ => {}
            }
        }
        x
    }

    /// The nine modules of GoogLeNet with the pools and the auxiliary heads between them.
    fn googlenet_modules(&mut self, mut x: usize) -> usize {
        for row in googlenet_rows() {
            x = match row.name {
                "4a" => self.pool("pool3_3x3_s2", x, PoolKind::Max, 2),
                "5a" => self.pool("pool4_3x3_s2", x, PoolKind::Max, 2),
                _ => x,
            };
            x = self.googlenet_module(&row, x);
            match row.name {
                "4a" => self.aux_head("aux1", x),
                "4d" => self.aux_head("aux2", x),
                _ => {}
            }
        }
        x
    }

    /// One module of GoogLeNet; its branches are joined in the order 1x1, 3x3, 5x5, pool.
    fn googlenet_module(&mut self, row: &GoogLeNetRow, input: usize) -> usize {
        let name = |branch: &str| format!("inception_{}_{branch}", row.name);
        let conv_1x1 = self.conv(&name("1x1"), input, row.conv_1x1, 1, 1);
        let x = self.conv(&name("3x3_reduce"), input, row.conv_3x3_reduce, 1, 1);
        let conv_3x3 = self.conv(&name("3x3"), x, row.conv_3x3, 3, 1);
        let x = self.conv(&name("5x5_reduce"), input, row.conv_5x5_reduce, 1, 1);
        let conv_5x5 = self.conv(&name("5x5"), x, row.conv_5x5, 5, 1);
        let x = self.pool(&name("pool"), input, PoolKind::Max, 1);
        let pool_proj = self.conv(&name("pool_proj"), x, row.pool_proj, 1, 1);
        self.concat(&name("output"), vec![conv_1x1, conv_3x3, conv_5x5, pool_proj])
    }

    /// An auxiliary head on `input`, if there are any (GoogLeNet, section 5): average pool 5x5/3,
    /// 1x1 convolution of 128, fully connected layer of 1024, dropout, classifier. Batch norm stands
    /// before both nonlinearities if the network has it.
    fn aux_head(&mut self, name: &str, input: usize) {
        const WIDTH: usize = 128;
        const HIDDEN: usize = 1024;
        let Some(AuxOptions { weight, dropout }) = self.options.aux else { return };
        let name = |part: &str| format!("{name}_{part}");
        let from = self.layers[input].output;
        let output = Shape {
            channels: from.channels,
            height: AuxPool.output_len(from.height),
            width: AuxPool.output_len(from.width),
        };
        let x = self.push(&name("pool"), Op::AuxPool(AuxPool), vec![input], output);
        let x = self.conv(&name("conv"), x, WIDTH, 1, 1);
        let hidden = Shape { channels: HIDDEN, height: 1, width: 1 };
        let linear = Op::Linear { bias: self.options.conv_bias };
        let x = self.push(&name("fc"), linear, vec![x], hidden);
        let x = self.nonlinearity(&name("fc"), x);
        let x = self.dropout(&name("dropout"), x, dropout);
        self.classifier(&name("linear"), x, weight);
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

        self.concat(&name("output"), branches)
    }

    fn concat(&mut self, name: &str, branches: Vec<usize>) -> usize {
        let first = self.layers[branches[0]].output;
        let channels = branches.iter().map(|&branch| self.layers[branch].output.channels).sum();
        self.push(name, Op::Concat, branches, Shape { channels, ..first })
    }

    fn global_average_pool(&mut self, name: &str, input: usize) -> usize {
        let channels = self.layers[input].output.channels;
        let output = Shape { channels, height: 1, width: 1 };
        self.push(name, Op::GlobalAveragePool, vec![input], output)
    }

    fn dropout(&mut self, name: &str, input: usize, probability: f64) -> usize {
        if probability == 0.0 {
            return input;
        }
        let output = self.layers[input].output;
        self.push(name, Op::Dropout(probability), vec![input], output)
    }

    /// A fully connected layer that computes logits, and their loss.
    fn classifier(&mut self, name: &str, input: usize, weight: f64) {
        let output = Shape { channels: self.options.classes, height: 1, width: 1 };
        let logits = self.push(name, Op::Linear { bias: true }, vec![input], output);
        self.losses.push(Loss { logits, weight });
    }
}

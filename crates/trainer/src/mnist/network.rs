//! The two networks, and how one is run.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::stage::{Mode, Stage, StageSpec};

/// Classes: the ten digits.
pub const N_CLASSES: usize = 10;

/// Which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Three fully connected hidden layers of 100 sigmoids (section 4.1).
    Mlp,
    /// LeNet-5 (LeCun et al. 1998, <https://doi.org/10.1109/5.726791>, section II.B) with sigmoids:
    /// convolutions of 6 and 16 filters of 5 x 5, a mean over 2 x 2 behind each, then layers of 120,
    /// 84 and 10. The original scales its pools by learnt factors, links only some maps of the second
    /// convolution, squashes by tanh and ends in radial basis functions; ours, as is usual, does none of this.
    Lenet,
}

impl Model {
    /// As on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Model::Mlp => "mlp",
            Model::Lenet => "lenet",
        }
    }

    /// Rows and columns of the input; LeNet-5's digits of 28 x 28 stand in the middle of 32 x 32.
    pub fn side(self) -> usize {
        match self {
            Model::Mlp => 28,
            Model::Lenet => 32,
        }
    }

    /// Learning rate. Our reading: section 4.1 gives none, and it decides how much batch norm gains
    /// (docs/mnist.md). LeNet-5 without batch norm does not leave chance at the rate of the other.
    pub fn default_lr(self) -> f64 {
        match self {
            Model::Mlp => 0.1,
            Model::Lenet => 1.0,
        }
    }

    /// The stages, with batch norm in front of every sigmoid or without.
    pub fn stages(self, normalised: bool) -> Vec<StageSpec> {
        let hidden = |kernel, outputs, pooled| StageSpec {
            kernel,
            outputs,
            normalised,
            hidden: true,
            pooled,
        };
        let mut stages = match self {
            Model::Mlp => {
                vec![hidden(28, 100, false), hidden(1, 100, false), hidden(1, 100, false)]
            }
            Model::Lenet => vec![
                hidden(5, 6, true),
                hidden(5, 16, true),
                hidden(5, 120, false),
                hidden(1, 84, false),
            ],
        };
        stages.push(StageSpec {
            kernel: 1,
            outputs: N_CLASSES,
            normalised: false,
            hidden: false,
            pooled: false,
        });
        stages
    }
}

/// A chain of stages that ends in one value for each class.
#[derive(Debug)]
pub struct Network {
    /// From the image to the classes.
    pub stages: Vec<Stage>,
    images: usize,
    /// Gradients of the outputs of two neighbouring stages.
    gradients: [Vec<f32>; 2],
}

impl Network {
    /// A network whose weights are drawn from a Gaussian of deviation `sigma`; biases start at 0.
    /// The weights of a stage come from (seed, stage) alone, so that the network with batch norm
    /// starts from the same as the one without.
    pub fn new(model: Model, normalised: bool, sigma: f64, seed: u64) -> Network {
        let (mut channels, mut side) = (1, model.side());
        let mut stages = Vec::new();
        for (index, spec) in model.stages(normalised).into_iter().enumerate() {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&seed.to_le_bytes());
            key[8..16].copy_from_slice(&(index as u64).to_le_bytes());
            let mut rng = ChaCha8Rng::from_seed(key);
            let stage = Stage::new(spec, channels, side, sigma, &mut rng);
            (channels, side) = (spec.outputs, stage.out_side());
            stages.push(stage);
        }
        Network { stages, images: 0, gradients: [Vec::new(), Vec::new()] }
    }

    /// Runs `images` images, `x` being `[images][rows][columns]`, and gives the logits,
    /// `[class][image]`.
    pub fn forward(&mut self, x: &[f32], images: usize, mode: Mode) -> &[f32] {
        self.images = images;
        for index in 0..self.stages.len() {
            let (before, rest) = self.stages.split_at_mut(index);
            let input = before.last().map_or(x, Stage::output);
            rest[0].forward(input, images, mode);
        }
        self.logits()
    }

    /// The logits of the last forward pass, `[class][image]`.
    fn logits(&self) -> &[f32] {
        self.stages.last().map_or(&[], Stage::output)
    }

    /// The mean cross-entropy of the last forward pass, which was in [`Mode::Train`], and from it
    /// the gradients of all parameters.
    pub fn backward(&mut self, labels: &[u8]) -> f64 {
        let images = self.images;
        let mut gradient = std::mem::take(&mut self.gradients[0]);
        let mut next = std::mem::take(&mut self.gradients[1]);
        let loss = cross_entropy(self.logits(), labels, &mut gradient);
        for (index, stage) in self.stages.iter_mut().enumerate().rev() {
            // Nobody asks for the gradient of the pixels.
            let d_x = (index > 0).then_some(&mut next);
            stage.backward(images, &gradient, d_x);
            std::mem::swap(&mut gradient, &mut next);
        }
        self.gradients = [gradient, next];
        loss
    }

    /// One step of plain SGD with the gradients of the last backward pass.
    pub fn step(&mut self, lr: f32) {
        for stage in &mut self.stages {
            stage.step(lr);
        }
    }

    /// The last stage with a sigmoid.
    pub fn last_hidden(&self) -> &Stage {
        &self.stages[self.stages.len() - 2]
    }

    /// Whether each image of the last forward pass got its label as the class of the largest logit.
    pub fn correct(&self, labels: &[u8]) -> usize {
        let logits = self.logits();
        let is_right = |image: usize| {
            let logit = |class: usize| logits[class * labels.len() + image];
            let label = usize::from(labels[image]);
            // A NaN is right about nothing.
            (0..N_CLASSES).all(|class| class == label || logit(class) < logit(label))
        };
        (0..labels.len()).filter(|&image| is_right(image)).count()
    }
}

/// Mean cross-entropy of `logits`, `[class][image]`, and its gradient.
fn cross_entropy(logits: &[f32], labels: &[u8], gradient: &mut Vec<f32>) -> f64 {
    let images = labels.len();
    gradient.resize(logits.len(), 0.0);
    let mut loss = 0.0;
    for (image, &label) in labels.iter().enumerate() {
        let logit = |class: usize| f64::from(logits[class * images + image]);
        // A NaN among the logits is dropped here but comes back with the sum.
        let max = (0..N_CLASSES).map(logit).fold(f64::NEG_INFINITY, f64::max);
        let log_sum = (0..N_CLASSES).map(|class| (logit(class) - max).exp()).sum::<f64>().ln();
        let log_probability = |class: usize| logit(class) - max - log_sum;
        loss -= log_probability(usize::from(label));
        for class in 0..N_CLASSES {
            let target = if class == usize::from(label) { 1.0 } else { 0.0 };
            let difference = log_probability(class).exp() - target;
            gradient[class * images + image] = (difference / images as f64) as f32;
        }
    }
    loss / images as f64
}

//! The plan of evaluation for one batch size: batch norm is folded into the convolutions, the
//! nonlinearity is part of them, and memory is shared as soon as a map has been read.

use bninception_kernels::activation::Activation;
use bninception_kernels::arena::Arena;
use bninception_kernels::conv::{Conv, ConvShape, Epilogue, zero_halo};
use bninception_kernels::flatten::flatten;
use bninception_kernels::pool::{average, global_average};
use bninception_kernels::threads::Team;
use bninception_kernels::{linear, lrn};
use bninception_model::Weights;

use super::convolution::IMAGE_VIEW;
use super::lower::{Head, Lowered, Member, Place, Stage};
use super::memory::{Buffer, Buffers, Places};
use super::profile::{Clock, Phase, Profile};
use super::training::Settings;
use super::widen::Widened;

/// A planned evaluation with its weights.
pub(super) struct Evaluation {
    batch: usize,
    settings: Settings,
    places: Places,
    values: Vec<Buffer>,
    stages: Vec<Work>,
    head: Head,
    features: Vec<f32>,
}

/// A stage with its memory and weights.
enum Work {
    Conv(Box<Convolution>),
    Other(Stage),
}

struct Convolution {
    conv: Conv,
    input: Option<Place>,
    /// The packed image, for the convolution that reads it.
    image: Option<Buffer>,
    workspace: Buffer,
    /// Filters with the scale of batch norm.
    packed: Arena,
    bias: Vec<f32>,
    activation: Activation,
    output: Place,
}

impl Evaluation {
    /// Plans evaluation of `batch` images at once with `weights`, which `widened` has taken.
    pub(super) fn new(
        lowered: &Lowered,
        batch: usize,
        settings: Settings,
        team: &Team,
        widened: &Widened,
        weights: &Weights,
    ) -> Evaluation {
        let mut buffers = Buffers::default();
        let values: Vec<Buffer> =
            lowered.maps.iter().map(|map| buffers.add(map.buffer(batch))).collect();
        let mut stages = Vec::with_capacity(lowered.stages.len());
        for (moment, stage) in lowered.stages.iter().enumerate() {
            let mut touch = |place: &Place| buffers.touch(values[place.id], moment);
            match stage {
                Stage::MaxPool { input, output, .. }
                | Stage::AveragePool { input, output, .. }
                | Stage::WindowAverage { input, output, .. }
                | Stage::Flatten { input, output, .. }
                | Stage::Lrn { input, output, .. } => {
                    touch(input);
                    touch(output);
                    stages.push(Work::Other(stage.clone()));
                }
                Stage::Conv(stage) => {
                    let shape = ConvShape { batch, ..stage.shape };
                    let conv = Conv::new(
                        shape,
                        settings.isa,
                        team.len(),
                        settings.winograd,
                        settings.dtype,
                    );
                    stage.input.iter().for_each(&mut touch);
                    for member in &stage.members {
                        touch(&member.output);
                    }
                    let image = stage.input.is_none().then(|| conv.image_len());
                    let image = image.map(|len| buffers.scratch(len, moment));
                    let workspace = buffers.scratch(conv.workspace_len(), moment);
                    // Evaluation lowers without merging, so there is one.
                    let member = &stage.members[0];
                    let weights = if stage.stored { &widened.weights } else { weights };
                    let (filters, bias) = fold(member, weights, settings.epsilon);
                    let mut packed = Arena::new(conv.packed_len());
                    conv.pack(team, &[&filters], &mut packed);
                    stages.push(Work::Conv(Box::new(Convolution {
                        conv,
                        input: stage.input,
                        image,
                        workspace,
                        packed,
                        bias,
                        activation: member.activation,
                        output: member.output,
                    })));
                }
            }
        }
        let Some(head) = lowered.heads.last().cloned() else {
            unreachable!("a network has the head of its logits")
        };
        buffers.touch(values[head.input.id], lowered.stages.len());
        let features = vec![0.0; batch * head.features()];
        Evaluation { batch, settings, places: buffers.place(), values, stages, head, features }
    }

    /// Images that are evaluated at once.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// Values of the packed filters.
    pub(super) fn packed_len(&self) -> usize {
        let packed = self.stages.iter().map(|work| match work {
            Work::Conv(convolution) => convolution.packed.len(),
            Work::Other(_) => 0,
        });
        packed.sum()
    }

    /// Length of the arena that the plan needs.
    pub(super) fn arena_len(&self) -> usize {
        self.places.total
    }

    /// Fills `logits` for `images`. The sizes of all arguments have been checked.
    pub(super) fn run(
        &mut self,
        team: &Team,
        arena: &mut [f32],
        profile: &mut Profile,
        images: &[f32],
        weights: &Weights,
        logits: &mut [f32],
    ) {
        let mut clock = Clock::start(profile);
        let (batch, places) = (self.batch, &self.places);
        let Settings { isa, dtype, .. } = self.settings;
        let value = |place: &Place| self.values[place.id];
        for (row, work) in self.stages.iter().enumerate() {
            match work {
                Work::Conv(work) => {
                    let (output, view) = (value(&work.output), work.output.view);
                    let (input, input_view) = match (&work.input, work.image) {
                        (Some(input), _) => (value(input), input.view),
                        (None, Some(image)) => {
                            work.conv.pack_image(team, images, places.get(arena, [image])[0]);
                            clock.lap(row, Phase::Pack);
                            (image, IMAGE_VIEW)
                        }
                        (None, None) => unreachable!("a convolution reads a map or an image"),
                    };
                    let [x, y, workspace] = places.get(arena, [input, output, work.workspace]);
                    zero_halo(&work.output.map, batch, y, view);
                    clock.lap(row, Phase::Pointwise);
                    let epilogue = match work.activation {
                        Activation::Relu => Epilogue::BiasRelu(&work.bias),
                        Activation::Sigmoid => Epilogue::BiasSigmoid(&work.bias),
                    };
                    let packed = &work.packed;
                    work.conv.forward(team, x, input_view, packed, y, view, epilogue, workspace);
                    clock.lap(row, Phase::Forward);
                }
                Work::Other(Stage::MaxPool { pool, input, output, .. }) => {
                    let [x, y] = places.get(arena, [value(input), value(output)]);
                    pool.forward(team, isa, batch, x, input.view, y, output.view, None);
                    clock.lap(row, Phase::Pointwise);
                }
                Work::Other(Stage::AveragePool { input, output, .. }) => {
                    let [x, y] = places.get(arena, [value(input), value(output)]);
                    average(team, isa, dtype, &input.map, batch, x, input.view, y, output.view);
                    clock.lap(row, Phase::Pointwise);
                }
                Work::Other(Stage::WindowAverage { pool, input, output, .. }) => {
                    let [x, y] = places.get(arena, [value(input), value(output)]);
                    pool.forward(team, isa, dtype, batch, x, input.view, y, output.view);
                    clock.lap(row, Phase::Pointwise);
                }
                Work::Other(Stage::Flatten { input, output, .. }) => {
                    let [x, y] = places.get(arena, [value(input), value(output)]);
                    flatten(team, &input.map, batch, x, input.view, y, output.view);
                    clock.lap(row, Phase::Pointwise);
                }
                Work::Other(Stage::Lrn { lrn, input, output, .. }) => {
                    let [x, y] = places.get(arena, [value(input), value(output)]);
                    lrn::forward(team, isa, dtype, lrn, &input.map, batch, x, y);
                    clock.lap(row, Phase::Pointwise);
                }
                Work::Other(Stage::Conv(_)) => unreachable!("convolutions are planned above"),
            }
        }
        let head = &self.head;
        let [x] = places.get(arena, [value(&head.input)]);
        let (map, view, features) = (&head.input.map, head.input.view, &mut self.features);
        global_average(team, isa, map, batch, x, view, features);
        let w = &weights.trainable[head.weight.clone()];
        let b = &weights.trainable[head.bias.clone()];
        linear::forward(team, isa, head.features(), head.classes, features, w, b, logits);
        clock.lap(self.stages.len(), Phase::Forward);
    }
}

/// Filters and bias of a convolution with batch norm behind it: with
/// `m = gamma / sqrt(variance + epsilon)`, the filters times m, and `beta + (bias - mean) * m`.
fn fold(member: &Member, weights: &Weights, epsilon: f64) -> (Vec<f32>, Vec<f32>) {
    let channels = member.output.map.channels;
    let mut filters = weights.trainable[member.weight.clone()].to_vec();
    let mut bias = match &member.bias {
        Some(bias) => weights.trainable[bias.clone()].to_vec(),
        None => vec![0.0; channels],
    };
    if let Some(norm) = &member.norm {
        let gamma = &weights.trainable[norm.gamma.clone()];
        let beta = &weights.trainable[norm.beta.clone()];
        let mean = &weights.statistics[norm.mean.clone()];
        let variance = &weights.statistics[norm.variance.clone()];
        let filter_len = filters.len() / channels;
        for (k, filter) in filters.chunks_exact_mut(filter_len).enumerate() {
            let m = f64::from(gamma[k]) / (f64::from(variance[k]) + epsilon).sqrt();
            for weight in filter {
                *weight = (f64::from(*weight) * m) as f32;
            }
            bias[k] = (f64::from(beta[k]) + (f64::from(bias[k]) - f64::from(mean[k])) * m) as f32;
        }
    }
    (filters, bias)
}

//! A stage of convolutions on a device: the convolution, and what follows it for each member.

use std::ops::Range;

use bninception_cuda::convolution::Operands;
use bninception_cuda::ops::batch_norm::{self, Activation, Affine, MOMENTS, Running, Statistics};
use bninception_cuda::ops::image;
use bninception_cuda::{ConvolutionPlan, Direction, Map, Region};
use bninception_kernels::activation;
use bninception_kernels::conv::ConvShape;

use super::plan::{Pass, Planner, UNIT};
use crate::error::EngineError;
use crate::lowering::memory::Buffer;
use crate::lowering::stage::{ConvStage, Member, Place};

/// A stage of convolutions with its memory. The convolution's output, packed with all members side by side, is
/// kept until the backward pass, which replaces it by its gradient.
pub(super) struct Convolution {
    shape: ConvShape,
    /// `None` for the image.
    input: Option<Place>,
    /// The image, for the convolution that reads it.
    image: Option<Buffer>,
    /// Output of the convolution.
    raw: Buffer,
    /// Filters of all members.
    filters: Range<usize>,
    followers: Vec<Follower>,
    forward: ConvolutionPlan,
    /// The gradients of filters and input; the input's only where it gets one.
    backward: Option<(ConvolutionPlan, Option<ConvolutionPlan>)>,
}

/// What follows the convolution for one member. Ranges are places in the vectors of the device.
struct Follower {
    /// Index of the convolution's layer.
    layer: usize,
    /// First channel in the output of the stage, and channels.
    channels: Range<usize>,
    /// First place of its moments.
    moments: usize,
    bias: Option<Range<usize>>,
    norm: Option<Norm>,
    activation: Activation,
    output: Place,
}

struct Norm {
    gamma: Range<usize>,
    beta: Range<usize>,
    mean: Range<usize>,
    variance: Range<usize>,
}

/// Where the moments come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moments {
    /// The batch, whose statistics move the running ones.
    Batch,
    /// They are there already.
    Kept,
}

impl Convolution {
    /// Plans stage `row`.
    pub(super) fn new(
        row: usize,
        stage: &ConvStage,
        planner: &mut Planner<'_>,
    ) -> Result<Convolution, EngineError> {
        let (batch, trains) = (planner.batch, planner.trains);
        let last = if trains { planner.schedule.backward_moment(row) } else { row };
        let mut shape = ConvShape { batch, ..stage.shape };
        let image = match &stage.input {
            Some(input) => {
                planner.schedule.touch_value(input, row);
                planner.schedule.touch_value(input, last);
                None
            }
            None => {
                shape.in_channels = image::CHANNELS;
                let values = batch * shape.in_height * shape.in_width * image::CHANNELS;
                let bytes = values * planner.settings.format().size();
                // The images are there before the first stage runs.
                Some(planner.buffer(bytes, 0, last))
            }
        };
        let out = shape.out_map();
        let values = batch * out.height * out.width * shape.out_channels;
        let raw = planner.buffer(planner.settings.map_units(values) * UNIT, row, last);

        let mut first = 0;
        let mut followers = Vec::with_capacity(stage.members.len());
        for member in &stage.members {
            planner.schedule.touch_value(&member.output, row);
            if trains {
                planner.schedule.touch_gradient(&member.output, last);
            }
            let follower = Follower::new(member, first, planner);
            first = follower.channels.end;
            followers.push(follower);
        }
        let filters: Vec<Range<usize>> =
            stage.members.iter().map(|member| planner.layout.of(&member.weight)).collect();
        let filters = filters[0].start..filters[filters.len() - 1].end;

        let settings = planner.settings;
        let forward = settings.convolution(&shape, Direction::Forward, false);
        let forward = planner.convolution(&forward, row)?;
        let backward = match trains {
            true => {
                let filters = settings.convolution(&shape, Direction::FilterGradient, false);
                let filters = planner.convolution(&filters, last)?;
                let accumulate =
                    stage.input.and_then(|input| planner.schedule.accumulate(&input, last));
                let input = accumulate.map(|accumulate| {
                    let input = settings.convolution(&shape, Direction::InputGradient, accumulate);
                    planner.convolution(&input, last)
                });
                Some((filters, input.transpose()?))
            }
            false => None,
        };
        let input = stage.input;
        let work = Convolution { shape, input, image, raw, filters, followers, forward, backward };
        if trains {
            let raw = work.raw_map(Region::none(), planner.settings.format());
            for follower in &work.followers {
                let bytes = batch_norm::scratch_bytes(&follower.part(&raw));
                planner.scratch(bytes, row);
                planner.scratch(bytes, last);
            }
        }
        Ok(work)
    }

    /// Where the images go, if this convolution reads them: `[n][h][w][8]`.
    pub(super) fn image(&self, pass: &Pass<'_>) -> Option<Map> {
        self.image.map(|buffer| Map {
            region: pass.region(buffer),
            format: pass.settings.format(),
            batch: self.shape.batch,
            height: self.shape.in_height,
            width: self.shape.in_width,
            stride: image::CHANNELS,
            first: 0,
            channels: image::CHANNELS,
        })
    }

    /// Computes the outputs of all members.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, from: Moments) -> Result<(), EngineError> {
        let raw = pass.region(self.raw);
        let operands = Operands {
            input: self.input_region(pass),
            filters: self.elements(pass.vectors.filters, pass.settings.format().size()),
            output: raw,
            workspace: pass.region(pass.workspace),
        };
        pass.device.convolve(&self.forward, &operands)?;
        let raw = self.raw_map(raw, pass.settings.format());
        for follower in &self.followers {
            if from == Moments::Batch {
                follower.batch_moments(pass, &raw)?;
            }
            let (moments, y) = (follower.moments(pass), pass.value(&follower.output));
            let x = follower.part(&raw);
            batch_norm::normalise(pass.device, follower.activation, moments, &x, &y)?;
        }
        Ok(())
    }

    /// Fills the moments from running statistics.
    pub(super) fn running_moments(&self, pass: &mut Pass<'_>) -> Result<(), EngineError> {
        self.followers.iter().try_for_each(|follower| follower.running_moments(pass))
    }

    /// Computes the gradients of all members' weights, and that of the input if it gets one.
    pub(super) fn backward(&self, pass: &mut Pass<'_>) -> Result<(), EngineError> {
        let Some((filters, input)) = &self.backward else { return Ok(()) };
        let raw = pass.region(self.raw);
        let map = self.raw_map(raw, pass.settings.format());
        for follower in &self.followers {
            follower.backward(pass, &map)?;
        }
        let workspace = pass.region(pass.workspace);
        let gradients = self.elements(pass.vectors.gradients, UNIT);
        let operands =
            Operands { input: self.input_region(pass), filters: gradients, output: raw, workspace };
        pass.device.convolve(filters, &operands)?;
        if let (Some(plan), Some(place)) = (input, &self.input) {
            let filters = self.elements(pass.vectors.filters, pass.settings.format().size());
            let input = pass.gradient(place).region;
            let operands = Operands { input, filters, output: raw, workspace };
            pass.device.convolve(plan, &operands)?;
        }
        Ok(())
    }

    /// What enters the nonlinearity of each member: its layer, the convolution's output, and where its moments
    /// lie. Right behind the forward pass, while its buffers are intact.
    pub(super) fn watched(&self, pass: &Pass<'_>) -> Vec<(usize, Map, Region)> {
        let raw = self.raw_map(pass.region(self.raw), pass.settings.format());
        let of =
            |follower: &Follower| (follower.layer, follower.part(&raw), follower.moments(pass));
        self.followers.iter().map(of).collect()
    }

    fn elements(&self, vector: Region, size: usize) -> Region {
        vector.elements(self.filters.clone(), size)
    }

    fn input_region(&self, pass: &Pass<'_>) -> Region {
        match (&self.input, self.image) {
            (Some(input), _) => pass.value(input).region,
            (None, Some(image)) => pass.region(image),
            (None, None) => unreachable!("a convolution without a map as input reads an image"),
        }
    }

    fn raw_map(&self, region: Region, format: bninception_cuda::Format) -> Map {
        let out = self.shape.out_map();
        let channels = self.shape.out_channels;
        let (batch, height, width) = (self.shape.batch, out.height, out.width);
        Map { region, format, batch, height, width, stride: channels, first: 0, channels }
    }
}

impl Follower {
    fn new(member: &Member, first: usize, planner: &mut Planner<'_>) -> Follower {
        let n = member.output.map.channels;
        let of = |range: &Range<usize>| planner.layout.of(range);
        let norm = member.norm.as_ref().map(|norm| Norm {
            gamma: of(&norm.gamma),
            beta: of(&norm.beta),
            mean: norm.mean.clone(),
            variance: norm.variance.clone(),
        });
        let bias = member.bias.as_ref().map(of);
        Follower {
            layer: member.layer,
            channels: first..first + n,
            moments: planner.moments(n),
            bias,
            norm,
            activation: match member.activation {
                activation::Activation::Relu => Activation::Relu,
                activation::Activation::Sigmoid => Activation::Sigmoid,
            },
            output: member.output,
        }
    }

    /// Its channels of the convolution's output.
    fn part(&self, raw: &Map) -> Map {
        raw.part(self.channels.start, self.channels.len())
    }

    fn moments(&self, pass: &Pass<'_>) -> Region {
        let range = self.moments * MOMENTS..(self.moments + self.channels.len()) * MOMENTS;
        pass.moments.elements(range, UNIT)
    }

    fn bias(&self, pass: &Pass<'_>) -> Option<Region> {
        self.bias.clone().map(|bias| pass.vectors.trainable.elements(bias, UNIT))
    }

    fn batch_moments(&self, pass: &mut Pass<'_>, raw: &Map) -> Result<(), EngineError> {
        let moments = self.moments(pass);
        let Some(norm) = &self.norm else { return self.running_moments(pass) };
        let [from, to] = pass.vectors.statistics.map(|vector| norm.statistics(vector));
        let (momentum, bias) = (pass.vectors.bn_momentum, self.bias(pass));
        let running = Running { from, to, momentum, bias };
        let (affine, epsilon) = (norm.affine(pass.vectors.trainable), pass.settings.epsilon);
        let (x, scratch) = (self.part(raw), pass.region(pass.workspace));
        let device = &mut *pass.device;
        batch_norm::batch_moments(device, &x, affine, epsilon, &running, moments, scratch)?;
        Ok(())
    }

    fn running_moments(&self, pass: &mut Pass<'_>) -> Result<(), EngineError> {
        let (moments, bias) = (self.moments(pass), self.bias(pass));
        match &self.norm {
            Some(norm) => {
                let affine = norm.affine(pass.vectors.trainable);
                let [statistics, _] = pass.vectors.statistics.map(|vector| norm.statistics(vector));
                let epsilon = pass.settings.epsilon;
                let device = &mut *pass.device;
                batch_norm::running_moments(device, affine, statistics, bias, epsilon, moments)?;
            }
            None => batch_norm::bias_moments(pass.device, self.channels.len(), bias, moments)?,
        }
        Ok(())
    }

    /// Replaces its channels of the convolution's output by their gradient.
    fn backward(&self, pass: &mut Pass<'_>, raw: &Map) -> Result<(), EngineError> {
        let (moments, x) = (self.moments(pass), self.part(raw));
        let (dy, g) = (pass.gradient(&self.output), self.activation);
        let (gradients, scratch) = (pass.vectors.gradients, pass.region(pass.workspace));
        let device = &mut *pass.device;
        match &self.norm {
            Some(norm) => {
                // The mean takes a bias in front away, so its gradient is 0, as memory is at first.
                let sums = norm.affine(gradients);
                batch_norm::gradient_sums(device, g, moments, &dy, &x, sums, scratch)?;
                batch_norm::input_gradient(device, g, moments, &dy, &x, sums)?;
            }
            None => {
                if let Some(bias) = self.bias.clone() {
                    let bias = gradients.elements(bias, UNIT);
                    batch_norm::bias_gradient(device, g, moments, &dy, &x, bias, scratch)?;
                }
                batch_norm::activation_gradient(device, g, moments, &dy, &x)?;
            }
        }
        Ok(())
    }
}

impl Norm {
    fn affine(&self, vector: Region) -> Affine {
        Affine {
            gamma: vector.elements(self.gamma.clone(), UNIT),
            beta: vector.elements(self.beta.clone(), UNIT),
        }
    }

    fn statistics(&self, vector: Region) -> Statistics {
        Statistics {
            mean: vector.elements(self.mean.clone(), UNIT),
            variance: vector.elements(self.variance.clone(), UNIT),
        }
    }
}

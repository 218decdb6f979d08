//! A stage of convolutions in training: forward with batch norm and nonlinearity, and backward.

use std::ops::Range;

use bninception_kernels::activation::{self, Activation};
use bninception_kernels::batch_norm::{
    self, Affine, AffineGradient, BatchSums, MergedMoments, Moments, Running,
};
use bninception_kernels::conv::{Conv, ConvInput, ConvShape, Epilogue};
use bninception_kernels::element::{Element, region_len};
use bninception_kernels::map::{BLOCK, View};
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::run::Run;
use bninception_model::Weights;
use bninception_model::batch::Images;

use super::merged_norm::{MergedNorm, merge_sums};
use super::plain::plain;
use super::plan::{Context, Planner, Settings, pack_images};
use crate::error::EngineError;
use crate::executor::Watch;
use crate::lowering::memory::{Buffer, disjoint};
use crate::lowering::stage::{ConvStage, MAX_MEMBERS, Member, Norm};
use crate::profile::Phase;

/// A stage of convolutions with its memory.
///
/// With batch norm the convolution's output is kept until the backward pass, which replaces it with
/// its gradient. Without batch norm the nonlinearity is part of the convolution, and the backward pass
/// changes the gradient of the output in place.
pub(super) struct Convolution {
    stage: ConvStage,
    conv: Conv,
    /// The packed image, for the convolution that reads it.
    image: Option<Buffer>,
    /// The packed filters of the direction that runs, which all convolutions share.
    packed: Buffer,
    /// Scratch, which all convolutions share.
    workspace: Buffer,
    /// Whether the gradient of the input is added to what is there; `None` if the input gets none.
    accumulate: Option<bool>,
    follow: Follow,
}

/// What follows the convolution.
enum Follow {
    /// Batch norm and nonlinearity of each member.
    Norm {
        /// The convolution's output, all members side by side; later its gradient.
        raw: Buffer,
        /// Sums of all channels, then sums of squares. Where ranks merge their statistics, later what they
        /// have merged: means and M2, and backward the sums of dz and of dz * xhat.
        sums: Vec<f64>,
        moments: Vec<Moments>,
        /// Values of each channel on all ranks, where they merge their statistics.
        merged_count: f64,
    },
    /// The nonlinearity of the only member. If the network has no bias, the vector takes the place of
    /// the bias and of its gradient.
    Activation { no_bias: Vec<f32>, no_bias_gradient: Vec<f32> },
}

impl Convolution {
    /// Plans stage `row`.
    pub(super) fn new(row: usize, stage: &ConvStage, planner: &mut Planner<'_>) -> Convolution {
        let batch = planner.batch;
        let settings = planner.settings;
        let shape = ConvShape { batch, ..stage.shape };
        let conv =
            Conv::new(shape, settings.isa, planner.team.len(), settings.winograd, settings.dtype);
        let back = planner.schedule.backward_moment(row);

        let image = match &stage.input {
            Some(input) => {
                planner.schedule.touch_value(input, row);
                planner.schedule.touch_value(input, back);
                None
            }
            None => {
                let image = planner
                    .schedule
                    .buffers
                    .scratch(region_len(settings.map_dtype, conv.image_len()), row);
                planner.schedule.buffers.touch(image, back);
                Some(image)
            }
        };
        for member in &stage.members {
            planner.schedule.touch_value(&member.output, row);
            planner.schedule.touch_gradient(&member.output, back);
        }
        let channels = shape.out_channels;
        let follow = if stage.has_norm() {
            let raw =
                planner.schedule.buffers.scratch(settings.map_len(&shape.out_map(), batch), row);
            planner.schedule.buffers.touch(raw, back);
            let moments = |member: &Member| Moments::new(member.output.map.channels);
            let moments = stage.members.iter().map(moments).collect();
            Follow::Norm { raw, sums: vec![0.0; 2 * channels], moments, merged_count: 0.0 }
        } else {
            for member in &stage.members {
                planner.schedule.touch_value(&member.output, back);
            }
            let zeros = || vec![0.0; channels];
            Follow::Activation { no_bias: zeros(), no_bias_gradient: zeros() }
        };
        let accumulate = stage.input.and_then(|input| planner.schedule.accumulate(&input, back));
        let (packed, workspace) = (planner.packed, planner.workspace);
        planner.schedule.buffers.touch_len(packed, conv.packed_len(), row);
        if accumulate.is_some() {
            planner.schedule.buffers.touch_len(packed, conv.packed_backward_len(), back);
        }
        for moment in [row, back] {
            planner.schedule.buffers.touch_len(workspace, conv.workspace_len(), moment);
        }
        Convolution { image, packed, workspace, accumulate, follow, stage: stage.clone(), conv }
    }

    /// Whether its tensors lie in the store of padded layers.
    pub(super) fn is_stored(&self) -> bool {
        self.stage.stored
    }

    /// Places of the trainable tensors of all members, the last member's first.
    pub(super) fn tensors(&self) -> impl Iterator<Item = Range<usize>> {
        self.stage.members.iter().rev().flat_map(|member| {
            let norm = member.norm.as_ref().map(|norm| [norm.beta.clone(), norm.gamma.clone()]);
            norm.into_iter().flatten().chain(member.bias.clone()).chain([member.weight.clone()])
        })
    }

    /// Buffer of what the convolution reads.
    fn input_buffer(&self, cx: &Context<'_>) -> Buffer {
        match (&self.stage.input, self.image) {
            (Some(input), _) => cx.slots.value(input),
            (None, Some(image)) => image,
            (None, None) => unreachable!("a convolution without a map as input reads an image"),
        }
    }

    /// Shows what enters the nonlinearities of the members that are watched: the normalised output of
    /// the convolution, or without batch norm that output, computed once more with its bias and without
    /// the nonlinearity. Must be called right after the forward pass, while its buffers are intact.
    pub(super) fn show<E: Element>(&self, cx: &mut Context<'_>, weights: &Weights) {
        let Some(Watch { layers, see }) = cx.watch.take() else { return };
        let batch = cx.batch;
        let mut first = 0;
        for (index, member) in self.stage.members.iter().enumerate() {
            let map = member.output.map;
            let channels = first..first + map.channels;
            first = channels.end;
            if !layers.contains(&member.layer) {
                continue;
            }
            let inputs = match &self.follow {
                Follow::Norm { raw, moments, .. } => {
                    let [x]: [&mut [E]; 1] = cx.maps([*raw]);
                    let view = View {
                        first: channels.start / BLOCK,
                        ..View::whole(&self.conv.shape().out_map())
                    };
                    let (x, moments) = (Planes::new(x, &map, view, batch), &moments[index]);
                    plain(x, |channel, x| moments.normalised(channel, x))
                }
                Follow::Activation { no_bias, .. } => {
                    let bias = match &member.bias {
                        Some(bias) => &weights.trainable[bias.clone()],
                        None => &no_bias[..],
                    };
                    let mut z = vec![E::default(); map.buffer(batch)];
                    let (team, input) = (cx.team, self.input_buffer(cx));
                    let [x, packed, workspace] = cx.get([input, self.packed, self.workspace]);
                    let x = input_of(&self.stage, &self.conv, E::of_region(x));
                    let z_maps = PlanesMut::whole(&mut z, &map, batch);
                    self.conv.forward(team, x, packed, z_maps, Epilogue::Bias(bias), workspace);
                    plain(Planes::whole(&z, &map, batch), |_, z| z)
                }
            };
            see(member.layer, inputs);
        }
        cx.watch = Some(Watch { layers, see });
    }

    /// Computes the outputs of all members and moves their running statistics.
    ///
    /// # Errors
    /// Those of merging batch norm over ranks.
    pub(super) fn forward<E: Element>(
        &mut self,
        row: usize,
        cx: &mut Context<'_>,
        images: Images<'_>,
        weights: &mut Weights,
    ) -> Result<(), EngineError> {
        let (team, batch) = (cx.team, cx.batch);
        let Settings { isa, dtype, .. } = *cx.settings;
        let run = Run { team, isa, dtype };
        let input = self.input_buffer(cx);
        let members = &self.stage.members;
        let filters = filters(members, weights);
        let conv = &self.conv;
        if let Some(image) = self.image {
            let [image] = cx.get([image]);
            pack_images(conv, team, images, E::of_region_mut(image));
        }
        let [packed] = cx.get([self.packed]);
        conv.pack(team, &filters[..members.len()], packed);
        cx.clock.lap(row, Phase::Pack);

        let map = conv.shape().out_map();
        match &mut self.follow {
            Follow::Norm { raw, sums, moments, merged_count } => {
                let [x, packed, y, workspace] = cx.get([input, self.packed, *raw, self.workspace]);
                let x = input_of(&self.stage, conv, E::of_region(x));
                let y = PlanesMut::whole(E::of_region_mut(y), &map, batch);
                conv.forward(team, x, packed, y, Epilogue::Sums(sums), workspace);
                cx.clock.lap(row, Phase::Forward);

                let count = batch * map.height * map.width;
                if let Some(merge) = &mut cx.merge {
                    *merged_count = merge_sums(merge, self.stage.norm_name(), count, sums)?;
                }
                let is_merged = cx.merge.is_some();
                let (sums, squares) = sums.split_at(map.channels);
                let mut first = 0;
                for (member, moments) in members.iter().zip(moments) {
                    let Some(norm) = &member.norm else { continue };
                    let Weights { trainable, statistics } = &mut *weights;
                    let [mean, variance] = pair(statistics, &norm.mean, &norm.variance);
                    let range = first..first + member.output.map.channels;
                    let (sums, squares) = (&sums[range.clone()], &squares[range]);
                    let affine = Affine {
                        gamma: &trainable[norm.gamma.clone()],
                        beta: &trainable[norm.beta.clone()],
                    };
                    let running = Running {
                        mean,
                        variance,
                        momentum: cx.bn_momentum,
                        bias: member.bias.clone().map(|bias| &trainable[bias]),
                    };
                    let epsilon = cx.settings.epsilon;
                    if is_merged {
                        let batch = MergedMoments { mean: sums, m2: squares, count: *merged_count };
                        moments.update_merged(batch, epsilon, affine, running);
                    } else {
                        moments.update(
                            BatchSums { sums, squares, count },
                            epsilon,
                            affine,
                            running,
                        );
                    }
                    let output = &member.output;
                    let view = View { first: first / BLOCK, ..View::whole(&map) };
                    let [x, y]: [&mut [E]; 2] = cx.maps([*raw, cx.slots.value(output)]);
                    let x = Planes::new(x, &output.map, view, batch);
                    let y = output.of_mut(y, batch);
                    batch_norm::normalise(run, member.activation, moments, x, y);
                    first += output.map.channels;
                }
                cx.clock.lap(row, Phase::Pointwise);
            }
            Follow::Activation { no_bias, .. } => {
                for member in members {
                    let output = &member.output;
                    let bias = match &member.bias {
                        Some(bias) => &weights.trainable[bias.clone()],
                        None => &no_bias[..],
                    };
                    let epilogue = match member.activation {
                        Activation::Relu => Epilogue::BiasRelu(bias),
                        Activation::Sigmoid => Epilogue::BiasSigmoid(bias),
                    };
                    let [x, packed, y, workspace] =
                        cx.get([input, self.packed, cx.slots.value(output), self.workspace]);
                    let x = input_of(&self.stage, conv, E::of_region(x));
                    let mut y = output.of_mut(E::of_region_mut(y), batch);
                    y.zero_halo();
                    conv.forward(team, x, packed, y, epilogue, workspace);
                }
                cx.clock.lap(row, Phase::Forward);
            }
        }
        Ok(())
    }

    /// Computes the gradients of all members' weights, and that of the input unless it is an image or
    /// comes from frozen layers.
    ///
    /// # Errors
    /// Those of merging batch norm over ranks.
    pub(super) fn backward<E: Element>(
        &mut self,
        row: usize,
        cx: &mut Context<'_>,
        weights: &Weights,
        gradients: &mut [f32],
    ) -> Result<(), EngineError> {
        let (output, output_view) = self.backward_follow::<E>(cx, gradients)?;
        cx.clock.lap(row, Phase::PointwiseBackward);

        let team = cx.team;
        let (conv, members) = (&self.conv, &self.stage.members);
        let (out_map, input, batch) = (conv.shape().out_map(), self.input_buffer(cx), cx.batch);
        let [x, dy, workspace] = cx.get([input, output, self.workspace]);
        let x = input_of(&self.stage, &self.conv, E::of_region(x));
        let dy = Planes::new(E::of_region(dy), &out_map, output_view, batch);
        let ranges = std::array::from_fn(|i| weight_range(members, i));
        let mut filters = disjoint::<MAX_MEMBERS>(gradients, ranges);
        let filters = &mut filters[..members.len()];
        conv.backward_weights(team, x, dy, filters, workspace);
        cx.clock.lap(row, Phase::WeightGradient);

        let (Some(input), Some(accumulate)) = (&self.stage.input, self.accumulate) else {
            return Ok(());
        };
        let [dy, packed, dx, workspace] =
            cx.get([output, self.packed, cx.slots.gradient(input), self.workspace]);
        conv.pack_backward(team, &self::filters(members, weights)[..members.len()], packed);
        let dy = Planes::new(E::of_region(dy), &out_map, output_view, batch);
        let dx = input.of_mut(E::of_region_mut(dx), batch);
        conv.backward_input(team, dy, packed, dx, accumulate, workspace);
        cx.clock.lap(row, Phase::InputGradient);
        Ok(())
    }

    /// Gradient of what follows the convolution; returns where that of its output lies.
    fn backward_follow<E: Element>(
        &mut self,
        cx: &mut Context<'_>,
        gradients: &mut [f32],
    ) -> Result<(Buffer, View), EngineError> {
        let (batch, slots) = (cx.batch, cx.slots);
        let Settings { isa, dtype, .. } = *cx.settings;
        let run = Run { team: cx.team, isa, dtype };
        let members = &self.stage.members;
        match &mut self.follow {
            Follow::Norm { raw, moments, sums, merged_count } => {
                let whole = View::whole(&self.conv.shape().out_map());
                if cx.merge.is_some() {
                    let norm = MergedNorm { members, raw: *raw, whole, moments };
                    norm.backward::<E>(cx, gradients, sums, *merged_count)?;
                    return Ok((*raw, whole));
                }
                let mut first = 0;
                for (member, moments) in members.iter().zip(moments) {
                    let Some(Norm { gamma, beta, .. }) = &member.norm else { continue };
                    if let Some(bias) = &member.bias {
                        // Subtracting the mean removes what a bias adds.
                        gradients[bias.clone()].fill(0.0);
                    }
                    let [dgamma, dbeta] = pair(gradients, gamma, beta);
                    let output = &member.output;
                    let buffers = [slots.gradient(output), *raw];
                    let [dy, x] = slots.places.get(cx.arena, buffers);
                    let view = View { first: first / BLOCK, ..whole };
                    let dy = output.of(E::of_region(dy), batch);
                    let x = PlanesMut::new(E::of_region_mut(x), &output.map, view, batch);
                    let gradient = AffineGradient { gamma: dgamma, beta: dbeta };
                    let g = member.activation;
                    batch_norm::backward(run, g, moments, dy, x, gradient, cx.partial);
                    first += output.map.channels;
                }
                Ok((*raw, whole))
            }
            Follow::Activation { no_bias_gradient, .. } => {
                let member = &members[0];
                let output = &member.output;
                let dbias = match &member.bias {
                    Some(bias) => &mut gradients[bias.clone()],
                    None => &mut no_bias_gradient[..],
                };
                let [y, dy] =
                    slots.places.get(cx.arena, [slots.value(output), slots.gradient(output)]);
                let y = output.of(E::of_region(y), batch);
                let mut dy = output.of_mut(E::of_region_mut(dy), batch);
                let g = member.activation;
                activation::backward(run, g, y, dy.reborrow(), dbias, cx.partial);
                // The last plane shares its lower right corner with the next plane. That plane
                // belongs to another branch, perhaps a pool's, and its halo may not be zero.
                dy.zero_halo();
                Ok((slots.gradient(output), output.view))
            }
        }
    }
}

/// What the convolution of `stage` reads in the buffer of its input.
fn input_of<'a, E: Element>(stage: &ConvStage, conv: &Conv, buffer: &'a [E]) -> ConvInput<'a, E> {
    match &stage.input {
        Some(input) => ConvInput::Maps(input.of(buffer, conv.shape().batch)),
        None => ConvInput::Image(buffer),
    }
}

/// Place of member `index`'s filters; empty beyond the last member.
fn weight_range(members: &[Member], index: usize) -> Range<usize> {
    members.get(index).map_or(0..0, |member| member.weight.clone())
}

/// The filters of all members.
fn filters<'a>(members: &[Member], weights: &'a Weights) -> [&'a [f32]; MAX_MEMBERS] {
    std::array::from_fn(|index| &weights.trainable[weight_range(members, index)])
}

/// Two tensors of a flat vector.
fn pair<'a>(
    values: &'a mut [f32],
    first: &Range<usize>,
    second: &Range<usize>,
) -> [&'a mut [f32]; 2] {
    disjoint(values, [first.clone(), second.clone()])
}

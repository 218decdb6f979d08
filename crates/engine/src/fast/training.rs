//! The plan of a training step for one batch size: memory, prepared stages, and their order.

use std::ops::Range;

use bninception_kernels::arena::{bytes, bytes_mut};
use bninception_kernels::element::Element;
use bninception_kernels::flatten::{flatten, flatten_backward};
use bninception_kernels::lrn::{self, Lrn};
use bninception_kernels::pool::{self, MaxPool};
use bninception_kernels::run::Run;
use bninception_kernels::team::Team;
use bninception_kernels::window_average::WindowAverage;
use bninception_model::Weights;
use bninception_model::batch::Images;

use super::convolution::Convolution;
use super::head::Head;
use super::plan::{Context, Planner, Settings};
use crate::error::EngineError;
use crate::executor::{Ready, TrainBatch, Watch};
use crate::lowering::lower::Lowered;
use crate::lowering::memory::Buffer;
use crate::lowering::padded::Padded;
use crate::lowering::schedule::{Schedule, Slots};
use crate::lowering::stage::{Place, Stage};
use crate::norm_merge::NormMerge;
use crate::profile::{Clock, Phase, Profile};

/// What a step runs on.
pub(super) struct Machine<'a> {
    pub team: &'a Team,
    pub arena: &'a mut [f32],
    pub profile: &'a mut Profile,
}

impl<'a> Machine<'a> {
    /// What the stages of a forward pass share that counts its batch alone in the running statistics.
    fn context(
        self,
        settings: &'a Settings,
        slots: &'a Slots,
        partial: &'a mut [f64],
        batch: usize,
    ) -> Context<'a> {
        let Machine { team, arena, profile } = self;
        let clock = Clock::start(profile);
        let (bn_momentum, watch, merge) = (1.0, None, None);
        Context { team, settings, batch, bn_momentum, slots, arena, partial, clock, watch, merge }
    }
}

/// What a step computes with, and where its results go.
pub(super) struct Step<'a> {
    pub batch: &'a TrainBatch<'a>,
    pub padded: &'a mut Padded,
    /// The running statistics move.
    pub weights: &'a mut Weights,
    /// Overwritten, but for those of padded layers.
    pub gradients: &'a mut [f32],
    pub logits: &'a mut [f32],
    pub watch: Option<Watch<'a>>,
    /// Batch norm with the statistics of all ranks.
    pub merge: Option<NormMerge<'a>>,
    /// What the frozen layers made of the images, if there are some.
    pub frozen: Option<&'a [f32]>,
    /// Told of the gradients of each stage when they are computed, but for those of padded layers.
    pub ready: &'a mut Ready<'a>,
}

/// A planned training step.
pub(super) struct Training {
    batch: usize,
    settings: Settings,
    slots: Slots,
    /// The map that frozen layers made.
    frozen: Option<Buffer>,
    stages: Vec<TrainStage>,
    /// Auxiliary heads, then that of the logits.
    heads: Vec<Head>,
    /// Logits of an auxiliary head, which stay inside the step.
    aux_logits: Vec<f32>,
    /// Scratch of the reductions over images.
    partial: Vec<f64>,
}

impl Training {
    /// Plans steps on batches of `batch` images.
    pub(super) fn new(
        lowered: &Lowered,
        batch: usize,
        settings: Settings,
        team: &Team,
    ) -> Training {
        let mut schedule = Schedule::new(lowered, |map| settings.map_len(map, batch));
        let (packed, workspace) = (schedule.buffers.add(0), schedule.buffers.add(0));
        let mut planner = Planner { team, settings, batch, schedule, packed, workspace };
        let heads: Vec<Head> =
            lowered.heads.iter().map(|head| Head::new(head, &mut planner)).collect();
        let n_aux_logits = match &lowered.heads[..] {
            [aux, .., _] => batch * aux.classes,
            _ => 0,
        };
        // In backward order, because that order decides who writes a gradient and who adds to it.
        let mut stages: Vec<TrainStage> = lowered
            .stages
            .iter()
            .enumerate()
            .rev()
            .map(|(row, stage)| TrainStage::new(row, stage, &mut planner))
            .collect();
        stages.reverse();
        let widest = lowered.maps.iter().map(|map| map.channels).max().unwrap_or(0);
        let partial = vec![0.0; 2 * batch * widest];
        let slots = planner.schedule.place();
        let frozen = lowered.frozen.map(|place| slots.value(&place));
        let aux_logits = vec![0.0; n_aux_logits];
        Training { batch, settings, slots, frozen, stages, heads, aux_logits, partial }
    }

    /// Images of a batch.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// Length of the arena that the plan needs.
    pub(super) fn arena_len(&self) -> usize {
        self.slots.places.total
    }

    /// One step without the optimizer; returns the mean loss of the logits, or that of an auxiliary
    /// head if it is not finite. The sizes of all arguments have been checked, and `padded` has loaded
    /// the weights.
    ///
    /// # Errors
    /// Those of merging batch norm over ranks.
    pub(super) fn run<E: Element>(
        &mut self,
        machine: Machine<'_>,
        step: Step<'_>,
    ) -> Result<f64, EngineError> {
        let Step { batch, padded, weights, gradients, logits, watch, mut merge, frozen, ready } =
            step;
        let Training { settings, slots, stages, heads, aux_logits, partial, batch: n, .. } = self;
        let watch = watch.map(|Watch { layers, see }| Watch { layers, see });
        let cx = machine.context(settings, slots, partial, *n);
        let merge = merge.as_mut().map(NormMerge::reborrow);
        let mut cx = Context { bn_momentum: batch.bn_momentum, watch, merge, ..cx };
        take(&mut cx, self.frozen, frozen);
        forward::<E>(stages, &mut cx, batch.images, padded, weights)?;
        let (n_stages, n_aux) = (stages.len(), heads.len() - 1);
        let mut loss = 0.0_f64;
        for (index, head) in heads.iter_mut().enumerate() {
            let logits = if index < n_aux { &mut aux_logits[..] } else { &mut *logits };
            let own = head.run::<E>(n_stages + index, &mut cx, batch, weights, gradients, logits);
            loss = if loss.is_finite() { own } else { loss };
        }
        for head in heads.iter().rev() {
            head.tensors().into_iter().for_each(|range| ready(range.clone(), &gradients[range]));
        }
        for (row, stage) in stages.iter_mut().enumerate().rev() {
            if stage.is_stored() {
                stage.backward::<E>(row, &mut cx, &padded.weights, &mut padded.gradients)?;
            } else {
                stage.backward::<E>(row, &mut cx, weights, gradients)?;
                stage.tensors().for_each(|range| ready(range.clone(), &gradients[range]));
            }
        }
        Ok(loss)
    }

    /// The forward pass of [`Training::run`] up to the heads, which puts the statistics of this batch in
    /// place of the running ones, but for those of frozen layers.
    ///
    /// # Errors
    /// None: nothing is merged over ranks.
    pub(super) fn batch_statistics<E: Element>(
        &mut self,
        machine: Machine<'_>,
        images: Images<'_>,
        frozen: Option<&[f32]>,
        padded: &mut Padded,
        weights: &mut Weights,
    ) -> Result<(), EngineError> {
        let Training { settings, slots, stages, partial, batch, .. } = self;
        let mut cx = machine.context(settings, slots, partial, *batch);
        take(&mut cx, self.frozen, frozen);
        forward::<E>(stages, &mut cx, images, padded, weights)
    }
}

/// Copies the map that frozen layers made to its place in the plan.
fn take(cx: &mut Context<'_>, place: Option<Buffer>, map: Option<&[f32]>) {
    if let (Some(place), Some(map)) = (place, map) {
        let [own] = cx.get([place]);
        own.copy_from_slice(map);
    }
}

/// Runs all stages forward.
fn forward<E: Element>(
    stages: &mut [TrainStage],
    cx: &mut Context<'_>,
    images: Images<'_>,
    padded: &mut Padded,
    weights: &mut Weights,
) -> Result<(), EngineError> {
    for (row, work) in stages.iter_mut().enumerate() {
        let weights = if work.is_stored() { &mut padded.weights } else { &mut *weights };
        work.forward::<E>(row, cx, images, weights)?;
    }
    Ok(())
}

/// A stage with its memory.
enum TrainStage {
    Conv(Box<Convolution>),
    MaxPool {
        pool: MaxPool,
        winners: Buffer,
        input: Place,
        output: Place,
        accumulate: Option<bool>,
    },
    AveragePool {
        input: Place,
        output: Place,
        accumulate: Option<bool>,
    },
    WindowAverage {
        pool: WindowAverage,
        input: Place,
        output: Place,
        accumulate: Option<bool>,
    },
    Flatten {
        input: Place,
        output: Place,
        accumulate: Option<bool>,
    },
    Lrn {
        lrn: Lrn,
        input: Place,
        output: Place,
        accumulate: Option<bool>,
    },
}

impl TrainStage {
    /// Plans a stage; stages come in backward order.
    fn new(row: usize, stage: &Stage, planner: &mut Planner<'_>) -> TrainStage {
        let back = planner.schedule.backward_moment(row);
        match stage {
            Stage::Conv(stage) => TrainStage::Conv(Box::new(Convolution::new(row, stage, planner))),
            Stage::MaxPool { pool, input, output, .. } => {
                planner.schedule.touch_value(input, row);
                planner.schedule.touch_value(output, row);
                planner.schedule.touch_gradient(output, back);
                let bytes = pool.winners_len(planner.batch);
                let winners =
                    planner.schedule.buffers.scratch(bytes.div_ceil(size_of::<f32>()), row);
                planner.schedule.buffers.touch(winners, back);
                let (pool, input, output) = (*pool, *input, *output);
                let accumulate = planner.schedule.accumulate(&input, back);
                TrainStage::MaxPool { pool, winners, input, output, accumulate }
            }
            Stage::AveragePool { input, output, .. } => {
                let accumulate = planner.schedule.linear(input, output, row);
                TrainStage::AveragePool { input: *input, output: *output, accumulate }
            }
            Stage::WindowAverage { pool, input, output, .. } => {
                let accumulate = planner.schedule.linear(input, output, row);
                TrainStage::WindowAverage {
                    pool: *pool,
                    input: *input,
                    output: *output,
                    accumulate,
                }
            }
            Stage::Flatten { input, output, .. } => {
                let accumulate = planner.schedule.linear(input, output, row);
                TrainStage::Flatten { input: *input, output: *output, accumulate }
            }
            Stage::Lrn { lrn, input, output, .. } => {
                planner.schedule.touch_value(input, row);
                planner.schedule.touch_value(input, back);
                planner.schedule.touch_value(output, row);
                planner.schedule.touch_gradient(output, back);
                let accumulate = planner.schedule.accumulate(input, back);
                TrainStage::Lrn { lrn: *lrn, input: *input, output: *output, accumulate }
            }
        }
    }

    /// Places of the trainable tensors of its layers.
    fn tensors(&self) -> impl Iterator<Item = Range<usize>> {
        let conv = match self {
            TrainStage::Conv(convolution) => Some(convolution.tensors()),
            _ => None,
        };
        conv.into_iter().flatten()
    }

    /// Whether its tensors lie in the store of padded layers.
    fn is_stored(&self) -> bool {
        matches!(self, TrainStage::Conv(convolution) if convolution.is_stored())
    }

    fn forward<E: Element>(
        &mut self,
        row: usize,
        cx: &mut Context<'_>,
        images: Images<'_>,
        weights: &mut Weights,
    ) -> Result<(), EngineError> {
        let (batch, slots) = (cx.batch, cx.slots);
        let Settings { isa, dtype, .. } = *cx.settings;
        let run = Run { team: cx.team, isa, dtype };
        match self {
            TrainStage::Conv(convolution) => {
                convolution.forward::<E>(row, cx, images, weights)?;
                if cx.watch.is_some() {
                    convolution.show::<E>(cx, weights);
                    cx.clock.lap(row, Phase::Forward);
                }
                return Ok(());
            }
            TrainStage::MaxPool { pool, winners, input, output, .. } => {
                let [x, y, winners] = cx.get([slots.value(input), slots.value(output), *winners]);
                let (x, y, winners) = (E::of_region(x), E::of_region_mut(y), bytes_mut(winners));
                let (x, y) = (input.of(x, batch), output.of_mut(y, batch));
                pool.forward(run, x, y, Some(winners));
            }
            TrainStage::AveragePool { input, output, .. } => {
                let [x, y]: [&mut [E]; 2] = cx.maps([slots.value(input), slots.value(output)]);
                pool::average(run, input.of(x, batch), output.of_mut(y, batch));
            }
            TrainStage::WindowAverage { pool, input, output, .. } => {
                let [x, y]: [&mut [E]; 2] = cx.maps([slots.value(input), slots.value(output)]);
                pool.forward(run, input.of(x, batch), output.of_mut(y, batch));
            }
            TrainStage::Flatten { input, output, .. } => {
                let [x, y]: [&mut [E]; 2] = cx.maps([slots.value(input), slots.value(output)]);
                flatten(run.team, input.of(x, batch), output.of_mut(y, batch));
            }
            TrainStage::Lrn { lrn, input, output, .. } => {
                let [x, y]: [&mut [E]; 2] = cx.maps([slots.value(input), slots.value(output)]);
                lrn::forward(run, lrn, input.of(x, batch), output.of_mut(y, batch));
            }
        }
        cx.clock.lap(row, Phase::Pointwise);
        Ok(())
    }

    fn backward<E: Element>(
        &mut self,
        row: usize,
        cx: &mut Context<'_>,
        weights: &Weights,
        gradients: &mut [f32],
    ) -> Result<(), EngineError> {
        let (batch, slots) = (cx.batch, cx.slots);
        let Settings { isa, dtype, .. } = *cx.settings;
        let run = Run { team: cx.team, isa, dtype };
        let accumulate = match self {
            TrainStage::Conv(convolution) => {
                return convolution.backward::<E>(row, cx, weights, gradients);
            }
            TrainStage::MaxPool { accumulate, .. }
            | TrainStage::AveragePool { accumulate, .. }
            | TrainStage::WindowAverage { accumulate, .. }
            | TrainStage::Flatten { accumulate, .. }
            | TrainStage::Lrn { accumulate, .. } => *accumulate,
        };
        // What frozen layers made gets no gradient.
        let Some(accumulate) = accumulate else { return Ok(()) };
        match self {
            TrainStage::Conv(_) => {}
            TrainStage::MaxPool { pool, winners, input, output, .. } => {
                let [dy, winners, dx] =
                    cx.get([slots.gradient(output), *winners, slots.gradient(input)]);
                let (dy, dx, winners) = (E::of_region(dy), E::of_region_mut(dx), bytes(winners));
                let (dy, dx) = (output.of(dy, batch), input.of_mut(dx, batch));
                pool.backward(run, dy, winners, dx, accumulate);
            }
            TrainStage::AveragePool { input, output, .. } => {
                let [dy, dx]: [&mut [E]; 2] =
                    cx.maps([slots.gradient(output), slots.gradient(input)]);
                let (dy, dx) = (output.of(dy, batch), input.of_mut(dx, batch));
                pool::average_backward(run, dy, dx, accumulate);
            }
            TrainStage::WindowAverage { pool, input, output, .. } => {
                let [dy, dx]: [&mut [E]; 2] =
                    cx.maps([slots.gradient(output), slots.gradient(input)]);
                let (dy, dx) = (output.of(dy, batch), input.of_mut(dx, batch));
                pool.backward(run, dy, dx, accumulate);
            }
            TrainStage::Flatten { input, output, .. } => {
                let [dy, dx]: [&mut [E]; 2] =
                    cx.maps([slots.gradient(output), slots.gradient(input)]);
                let (dy, dx) = (output.of(dy, batch), input.of_mut(dx, batch));
                flatten_backward(run.team, dy, dx, accumulate);
            }
            TrainStage::Lrn { lrn, input, output, .. } => {
                let buffers = [slots.value(input), slots.gradient(output), slots.gradient(input)];
                let [x, dy, dx]: [&mut [E]; 3] = cx.maps(buffers);
                let (x, dy) = (input.of(x, batch), output.of(dy, batch));
                lrn::backward(run, lrn, x, dy, input.of_mut(dx, batch), accumulate);
            }
        }
        cx.clock.lap(row, Phase::PointwiseBackward);
        Ok(())
    }
}

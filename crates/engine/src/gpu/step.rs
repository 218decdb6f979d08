//! The order of work of a step.
//!
//! ```text
//! images to the device, beside what it computes; labels and numbers
//! gradients:   frozen layers, forward pass, heads, backward pass        captured
//! update:      norm, gate, weights, gate, statistics, moving average    captured with it in a pipeline
//! results to the host
//! ```

use bninception_cuda::device::Noting;
use bninception_cuda::ops::update::{self, Sgd};
use bninception_cuda::{Region, Stream};
use bninception_model::batch::Images;

use super::convolution::Moments;
use super::head::HeadRegions;
use super::inputs::{Rates, Staged};
use super::network::{Captures, Gpu};
use super::pass::{Running, Show, unseen};
use super::plan::{UNIT, Vectors};
use super::results::Told;
use crate::error::EngineError;
use crate::executor::{TrainBatch, Update};

/// A batch on its way to the device.
pub(super) struct Brought {
    pub images: usize,
    /// Logits of auxiliary heads, and those of the main one.
    pub logits: [Region; 2],
}

impl Gpu {
    /// Makes plans and room for training on `images` images of `bytes`.
    pub(super) fn room_for_training(
        &mut self,
        images: usize,
        bytes: usize,
    ) -> Result<[Region; 2], EngineError> {
        self.room_for_inputs(images, bytes)?;
        let (aux, main) = (self.room_for_logits(0, images)?, self.room_for_logits(1, images)?);
        let (settings, layout) = (self.settings, &self.layout);
        let device = self.device.as_mut();
        self.training.prepare(device, settings, layout, images)?;
        if let Some(frozen) = &mut self.frozen {
            frozen.prepare(device, settings, layout, images)?;
        }
        Ok([aux, main])
    }

    /// Copies a batch to the device, where its images go to their place.
    pub(super) fn bring(&mut self, batch: &TrainBatch<'_>) -> Result<Brought, EngineError> {
        let (images, bytes) = (batch.labels.len(), Gpu::image_bytes(batch.images));
        let logits = self.room_for_training(images, bytes)?;
        let staged = self.inputs.stage(self.device.as_mut(), batch.images)?;
        self.inputs.bring_batch(self.device.as_mut(), batch)?;
        self.spread_for_training(staged, images)?;
        Ok(Brought { images, logits })
    }

    /// Brings staged images to where the first stage of training, or of the frozen layers, reads them.
    pub(super) fn spread_for_training(
        &mut self,
        staged: Staged,
        images: usize,
    ) -> Result<(), EngineError> {
        let label = self.label_images();
        let vectors = self.training_vectors(images);
        let Gpu { frozen, training, inputs, device, .. } = self;
        let side = frozen.as_ref().unwrap_or(training);
        let image = side.on(device.as_mut(), vectors, images).image();
        device.label(label);
        inputs.spread(device.as_mut(), staged, &image)
    }

    /// Starts forward and backward pass; `show` is called behind each stage forward.
    pub(super) fn start_gradients(
        &mut self,
        brought: &Brought,
        show: &mut Show<'_>,
    ) -> Result<(), EngineError> {
        let Brought { images, logits } = *brought;
        let heads = self.head_regions(images, logits);
        let mut running = self.forward(self.training_vectors(images), images, show)?;
        running.backward(&heads)
    }

    /// Starts the forward pass of training: the frozen layers as in evaluation, the others by their batch.
    fn forward(
        &mut self,
        vectors: Vectors,
        images: usize,
        show: &mut Show<'_>,
    ) -> Result<Running<'_>, EngineError> {
        let Gpu { frozen, training, device, .. } = self;
        let mut made = None;
        if let Some(side) = frozen {
            let mut running = side.on(device.as_mut(), vectors, images);
            running.running_moments()?;
            running.forward(Moments::Kept, &mut unseen)?;
            made = running.frozen();
        }
        let mut running = training.on(device.as_mut(), vectors, images);
        if let (Some(made), Some(read)) = (made, running.frozen()) {
            running.pass.device.copy(made, read)?;
        }
        running.forward(Moments::Batch, show)?;
        Ok(running)
    }

    /// What the heads read and write.
    pub(super) fn head_regions(&self, images: usize, logits: [Region; 2]) -> Vec<HeadRegions> {
        let (targets, gate) = (self.inputs.targets(images), self.results.gate());
        let masks = self.inputs.masks(images);
        let last = masks.len() - 1;
        let regions = masks.into_iter().enumerate().map(|(head, mask)| HeadRegions {
            targets,
            mask,
            logits: logits[usize::from(head == last)],
            report: self.results.report(head),
            gate,
        });
        regions.collect()
    }

    /// Starts the update of `n` micro-batches, whose sums are in the place of gradients and statistics.
    pub(super) fn start_update(&mut self, n: u32, nesterov: bool) -> Result<(), EngineError> {
        let label = self.label_update();
        let moving = self.moving_statistics();
        let Gpu { device, state, inputs, results, norm_scratch, .. } = self;
        let device = device.as_mut();
        device.label(label);
        if n > 1 {
            update::divide(device, state.gradients, n as f32)?;
            if let Some(moving) = moving.clone() {
                // The mean of equal values rounds, and what is frozen must not move by a bit.
                update::divide(device, state.moved.elements(moving, UNIT), n as f32)?;
            }
        }
        let (constants, gate) = (inputs.constants(), results.gate());
        let scale = constants.elements(0..1, UNIT);
        let norm = update::Norm { limit: inputs.limit(), norm: results.norm(), scale, gate };
        update::norm(device, state.gradients, &norm, *norm_scratch)?;
        update::settle(device, gate)?;
        let filters = state.filters;
        let sgd = Sgd {
            pieces: state.pieces,
            rates: inputs.rates(),
            constants,
            nesterov,
            gradients: state.gradients,
            velocity: state.velocity,
            weights: state.weights,
            rounded: (filters != state.weights).then_some(filters),
            gate,
        };
        update::sgd(device, &sgd)?;
        if let Some(moving) = moving {
            let of = |vector: Region| vector.elements(moving.clone(), UNIT);
            update::move_statistics(device, of(state.moved), of(state.settled), gate)?;
        }
        update::settle(device, gate)?;
        if let Some([weights, statistics]) = state.average() {
            let share = inputs.share();
            update::average(device, state.weights, share, weights, gate)?;
            if self.table.n_statistics() > 0 {
                update::average(device, state.settled, share, statistics, gate)?;
            }
        }
        Ok(())
    }

    /// The running statistics that are not those of frozen layers.
    fn moving_statistics(&self) -> Option<std::ops::Range<usize>> {
        let statistics = &self.table.statistics;
        let frozen = statistics.iter().take_while(|spec| spec.layer <= self.network.frozen);
        let first = frozen.map(|spec| spec.range.len()).sum();
        let n = self.table.n_statistics();
        (first < n).then_some(first..n)
    }

    /// Copies what an update brings.
    pub(super) fn bring_update(&mut self, update: &Update<'_>) -> Result<(), EngineError> {
        // A rank without images has nothing that was prepared for them.
        self.room_for_inputs(0, 1)?;
        let rates = Rates { table: &self.table, frozen: self.network.frozen };
        self.inputs.bring_update(self.device.as_mut(), update, &rates)
    }

    /// Starts what `work` starts. The first time it runs as it is, because libraries may load their kernels then; the
    /// second time it is captured, and from then on started as one.
    pub(super) fn started_as(
        &mut self,
        images: usize,
        key: Captures,
        work: impl Fn(&mut Gpu) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        if !self.options.capture || self.noting != Noting::Nothing {
            return work(self);
        }
        let is_evaluation = matches!(key, Captures::Logits { .. });
        let side = if is_evaluation { &self.evaluation } else { &self.training };
        let captured = match side.captured(images, &key) {
            Some(Some(graph)) => return Ok(self.device.replay(graph)?),
            None => {
                work(self)?;
                None
            }
            Some(None) => {
                self.device.begin_capture()?;
                let outcome = work(self);
                // A capture ends in any case, or nothing could be started any more.
                let graph = self.device.end_capture();
                if let Err(error) = outcome {
                    graph.into_iter().for_each(|graph| self.device.free_graph(graph));
                    return Err(error);
                }
                let graph = graph?;
                if let Err(error) = self.device.replay(&graph) {
                    self.device.free_graph(graph);
                    return Err(error.into());
                }
                Some(graph)
            }
        };
        let side = if is_evaluation { &mut self.evaluation } else { &mut self.training };
        side.keep_captured(images, key, captured);
        Ok(())
    }

    /// Opens the gate.
    pub(super) fn open_gate(&mut self) -> Result<(), EngineError> {
        Ok(self.device.clear(self.results.gate())?)
    }

    /// What the last step told, when it is done.
    pub(super) fn told(&mut self, images: usize) -> Result<Told, EngineError> {
        self.device.download(self.results.region, self.told, Stream::Compute)?;
        let bytes = self.device.pinned(self.told)?;
        Ok(self.results.read(bytes, images))
    }

    /// Runs the forward pass of training with the weights of evaluation, so that the statistics of the batch are where
    /// evaluation's passes leave them.
    pub(super) fn run_statistics(
        &mut self,
        images: Images<'_>,
        n: usize,
    ) -> Result<Region, EngineError> {
        self.room_for_training(n, Gpu::image_bytes(images))?;
        let staged = self.inputs.stage(self.device.as_mut(), images)?;
        self.inputs.bring_bn_momentum(self.device.as_mut(), n, 1.0)?;
        self.spread_for_training(staged, n)?;
        let mut vectors = self.evaluation_vectors()?;
        vectors.bn_momentum = self.inputs.bn_momentum(n);
        let [from, to] = vectors.statistics;
        // Frozen layers keep theirs.
        self.device.copy(from, to)?;
        self.forward(vectors, n, &mut unseen)?;
        Ok(to)
    }
}

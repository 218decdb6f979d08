//! The GPU engine as one of the executors.

use bninception_cuda::device::Noting;
use bninception_cuda::ops::batch_norm::MOMENTS;
use bninception_cuda::ops::layout;
use bninception_cuda::{Device, Map, Region, transfer};
use bninception_model::Network;
use bninception_model::batch::{
    Images, check_batch, check_class_weights, check_images, check_len, check_variance,
};

use super::convolution::Moments;
use super::network::{Captures, EVALUATION_BATCH, Gpu};
use super::pass::unseen;
use super::plan::{Pass, UNIT};
use super::stage::Work;
use super::step::Brought;
use super::vectors::State;
use crate::error::EngineError;
use crate::exchange::Exchange;
use crate::executor::{
    BatchResult, DeviceMemory, EvaluationWeights, Executor, Features, Hooks, Pipeline, StepResult,
    Traced, TrainBatch, Update, UpdateResult, Watch,
};
use crate::norm_exchange::NormExchange;
use crate::state::ModelState;

impl Executor for Gpu {
    fn network(&self) -> &Network {
        &self.network
    }

    fn describe(&self) -> String {
        let name = &self.device.properties().name;
        let captured = if self.options.capture { ", a step as one graph" } else { "" };
        let repeats = if self.options.deterministic { ", repeats its bits" } else { "" };
        format!("gpu engine, {} on {name}{captured}{repeats}", self.settings.precision.name())
    }

    fn load(&mut self, state: ModelState) -> Result<(), EngineError> {
        state.check(&self.table)?;
        self.forget_started()?;
        // Until all is there, nothing is.
        self.is_loaded = false;
        self.state.load(self.device.as_mut(), &self.layout, &state)?;
        self.is_loaded = true;
        self.state_changes();
        self.begin_update();
        Ok(())
    }

    fn store(&mut self, to: &mut ModelState) -> Result<(), EngineError> {
        self.check_loaded()?;
        let lens = [self.table.n_trainable(), self.table.n_statistics()];
        self.state.store(self.device.as_mut(), &self.layout, lens, to)
    }

    fn gradients(
        &mut self,
        batch: &TrainBatch<'_>,
        hooks: Hooks<'_>,
    ) -> Result<BatchResult, EngineError> {
        let outcome = self.micro_batch(batch, hooks);
        if outcome.is_err() {
            self.begin_update();
        }
        outcome
    }

    fn join_norm(&mut self, _norm: &mut dyn NormExchange) -> Result<(), EngineError> {
        Err(no_norm())
    }

    fn exchange(&mut self, exchange: &mut dyn Exchange) -> Result<StepResult, EngineError> {
        self.check_loaded()?;
        self.end_sums()?;
        let Gpu { device, state, layout, table, counted, .. } = self;
        let (device, layout) = (device.as_mut(), Some(&*layout));
        let (mut gradients, mut statistics) = (Vec::new(), Vec::new());
        if exchange.has_others() {
            // Adding -0 changes no bit of another rank's value; adding 0 would make 0 of -0.
            let (n, n_statistics) = (table.n_trainable(), table.n_statistics());
            gradients.resize(n, -0.0);
            statistics.resize(n_statistics, -0.0);
            if counted.micro_batches > 0 {
                state.download(device, layout, state.gradients, n, &mut gradients)?;
                state.download(device, None, state.moved, n_statistics, &mut statistics)?;
            }
        }
        exchange.sum(counted.sums(&mut gradients, &mut statistics))?;
        if exchange.has_others() {
            state.upload(device, layout, &gradients, state.gradients)?;
            state.upload(device, None, &statistics, state.moved)?;
        }
        self.is_summed = true;
        Ok(self.counted.result())
    }

    fn update(&mut self, update: &Update<'_>) -> Result<UpdateResult, EngineError> {
        self.check_loaded()?;
        let n = self.counted.micro_batches;
        self.state_changes();
        if n == 0 {
            return Err(EngineError::NoGradients);
        }
        self.end_sums()?;
        self.open_gate()?;
        self.bring_update(update)?;
        self.start_update(n, update.sgd.nesterov)?;
        let told = self.told(self.last_batch.max(1))?;
        self.begin_update();
        let tells_norm = update.tell_norm || update.clip_norm > 0.0;
        let gradient_norm = tells_norm.then_some(told.norm);
        Ok(UpdateResult { is_finite: !told.is_closed, gradient_norm })
    }

    fn store_gradients(&mut self, to: &mut Vec<f32>) -> Result<(), EngineError> {
        self.check_loaded()?;
        let Gpu { device, state, layout, table, .. } = self;
        let sums = state.sums.filter(|_| self.counted.micro_batches > 1 && !self.is_summed);
        let from = sums.map_or(state.gradients, |[gradients, _]| gradients);
        state.download(device.as_mut(), Some(layout), from, table.n_trainable(), to)
    }

    fn store_logits(&mut self, to: &mut Vec<f32>) -> Result<(), EngineError> {
        self.check_loaded()?;
        let bytes = self.last_batch * self.network.options.classes * UNIT;
        match self.logits[1] {
            Some(logits) if bytes > 0 => read(self.device.as_mut(), logits.slice(0..bytes), to),
            _ => {
                to.clear();
                Ok(())
            }
        }
    }

    fn batch_statistics(
        &mut self,
        images: Images<'_>,
        to: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        self.evaluation_vectors()?;
        let n = check_images(&self.network, images)?;
        self.forget_started()?;
        let statistics = self.run_statistics(images, n)?;
        let (device, len) = (self.device.as_mut(), self.table.n_statistics());
        self.state.download(device, None, statistics, len, to)
    }

    fn prepare_evaluation(&mut self, weights: EvaluationWeights<'_>) -> Result<(), EngineError> {
        self.prepare(weights)
    }

    fn evaluate(&mut self, images: Images<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        self.evaluate_all(images, logits, None)
    }

    fn evaluate_features(
        &mut self,
        images: Images<'_>,
        logits: &mut Vec<f32>,
        features: &mut Features,
    ) -> Result<(), EngineError> {
        features.clear();
        self.evaluate_all(images, logits, Some(features))
    }

    fn trace(&mut self, noting: Noting) -> Vec<Traced> {
        self.noting = noting;
        self.device.note(noting);
        self.traced()
    }

    fn pipeline(&mut self) -> Option<&mut dyn Pipeline> {
        Some(self)
    }

    fn device_memory(&mut self, batch: usize) -> Result<Option<DeviceMemory>, EngineError> {
        let (settings, layout) = (self.settings, &self.layout);
        let device = self.device.as_mut();
        let mut bytes = 0;
        let mut channels = 0;
        let evaluated = EVALUATION_BATCH.min(batch.max(1));
        for (side, batch) in [
            (Some(&self.training), batch),
            (self.frozen.as_ref(), batch),
            (Some(&self.evaluation), evaluated),
        ] {
            let Some(side) = side else { continue };
            let plan = side.plan(device, settings, layout, batch)?;
            bytes += plan.arena_bytes();
            channels += plan.moments();
        }
        let (statistics, format) = (self.table.n_statistics(), settings.format());
        let classes = self.network.options.classes;
        let image = self.network.layers[0].output.len();
        // A state, and weights that are given for an evaluation; logits of heads and of an evaluation.
        let state = State::bytes(layout, statistics, format);
        let given = layout.len() * (UNIT + format.size());
        let logits = (2 * batch + evaluated) * classes * UNIT;
        let (inputs, _) = self.inputs.bytes(batch.max(evaluated), image);
        bytes += state + given + logits + inputs + channels * MOMENTS * UNIT;
        let properties = device.properties();
        let (name, total) = (properties.name.clone(), properties.memory);
        let taken = device.taken_memory();
        let free = device.free_memory()? + taken;
        Ok(Some(DeviceMemory { device: name, needed: bytes, taken, free, total }))
    }

    fn memory_bytes(&self, batch: usize) -> Option<usize> {
        let image = self.network.layers[0].output.len();
        let (_, host) = self.inputs.bytes(batch, image);
        Some(host + self.layout.len() * UNIT)
    }
}

/// Batch norm over ranks is not offered: it would wait for the host in each layer.
fn no_norm() -> EngineError {
    EngineError::Unsupported {
        what: "batch norm over all ranks (network.sync_bn)".to_owned(),
        engine: "gpu",
        hint: "leave it off, or use --device cpu",
    }
}

impl Gpu {
    fn check_loaded(&self) -> Result<(), EngineError> {
        if self.is_loaded { Ok(()) } else { Err(EngineError::NotLoaded) }
    }

    /// Whether there is a state that a micro-batch can be trained on, and it fits the network.
    pub(super) fn check(&self, batch: &TrainBatch<'_>) -> Result<(), EngineError> {
        self.check_loaded()?;
        check_batch(&self.network, batch.images, batch.labels)?;
        check_class_weights(&self.network, batch.class_weights)?;
        Ok(check_variance(&self.network, batch.labels.len())?)
    }

    /// The sums of several micro-batches take the place of what the last gave.
    fn end_sums(&mut self) -> Result<(), EngineError> {
        if self.counted.micro_batches > 1 && !self.is_summed {
            self.state.end_sums(self.device.as_mut())?;
            self.is_summed = true;
        }
        Ok(())
    }

    fn micro_batch(
        &mut self,
        batch: &TrainBatch<'_>,
        hooks: Hooks<'_>,
    ) -> Result<BatchResult, EngineError> {
        self.check(batch)?;
        if hooks.norm.is_some() {
            return Err(no_norm());
        }
        self.forget_started()?;
        self.open_gate()?;
        if self.counted.micro_batches == 1 {
            self.state.begin_sums(self.device.as_mut())?;
        }
        let brought = self.bring(batch)?;
        let images = brought.images;
        match hooks.watch {
            None => {
                self.started_as(images, Captures::Gradients, |gpu| {
                    gpu.start_gradients(&brought, &mut unseen)
                })?;
            }
            Some(watch) => self.watched_gradients(&brought, watch)?,
        }
        if self.counted.micro_batches > 0 {
            self.state.add_to_sums(self.device.as_mut())?;
        }
        let told = self.told(images)?;
        self.last_batch = images;
        self.largest_batch = self.largest_batch.max(images);
        self.is_summed = false;
        let result = BatchResult { loss: told.loss, metrics: told.metrics };
        self.counted.add(&result);
        Ok(result)
    }

    /// As [`Gpu::start_gradients`], and shows what enters nonlinearities.
    fn watched_gradients(
        &mut self,
        brought: &Brought,
        watch: Watch<'_>,
    ) -> Result<(), EngineError> {
        let Watch { layers, see } = watch;
        let mut values = Vec::new();
        let mut show = |pass: &mut Pass<'_>, work: &Work| -> Result<(), EngineError> {
            let Some(convolution) = work.convolution() else { return Ok(()) };
            for (layer, x, moments) in convolution.watched(pass) {
                if !layers.contains(&layer) {
                    continue;
                }
                let mut numbers = Vec::new();
                read_planes(pass.device, &x, &mut values)?;
                read(pass.device, moments, &mut numbers)?;
                let pixels = x.height * x.width;
                for (plane, values) in values.chunks_exact_mut(pixels).enumerate() {
                    let [_, _, multiplier, offset] =
                        std::array::from_fn(|i| numbers[plane % x.channels * MOMENTS + i]);
                    values.iter_mut().for_each(|value| *value = *value * multiplier + offset);
                }
                see(layer, std::mem::take(&mut values));
            }
            Ok(())
        };
        self.start_gradients(brought, &mut show)
    }

    fn evaluate_all(
        &mut self,
        images: Images<'_>,
        logits: &mut Vec<f32>,
        mut features: Option<&mut Features>,
    ) -> Result<(), EngineError> {
        self.evaluation_vectors()?;
        let image = self.image_len();
        let n = images.len() / image;
        check_len("images", n * image, images.len())?;
        logits.clear();
        let most = match self.largest_batch {
            0 => EVALUATION_BATCH,
            trained => EVALUATION_BATCH.min(trained),
        };
        for first in (0..n).step_by(most) {
            let batch = most.min(n - first);
            let images = images.slice(first * image..(first + batch) * image);
            let mut of_batch = Vec::new();
            self.evaluate_batch(images, batch, &mut of_batch, features.as_deref_mut())?;
            logits.extend(of_batch);
        }
        Ok(())
    }

    fn evaluate_batch(
        &mut self,
        images: Images<'_>,
        n: usize,
        logits: &mut Vec<f32>,
        features: Option<&mut Features>,
    ) -> Result<(), EngineError> {
        self.room_for_inputs(n, Gpu::image_bytes(images))?;
        let to = self.room_for_logits(2, n)?;
        let label = self.label_images();
        let vectors = self.evaluation_vectors()?;
        let Gpu { evaluation, inputs, device, settings, layout: places, .. } = self;
        evaluation.prepare(device.as_mut(), *settings, places, n)?;
        if !evaluation.has_moments {
            evaluation.on(device.as_mut(), vectors, n).running_moments()?;
            evaluation.has_moments = true;
        }
        let staged = inputs.stage(device.as_mut(), images)?;
        let image = evaluation.on(device.as_mut(), vectors, n).image();
        device.label(label);
        inputs.spread(device.as_mut(), staged, &image)?;
        let has_average = self.state.average().is_some();
        let key = Captures::Logits { of: self.prepared, has_average };
        self.started_as(n, key, |gpu| {
            let mut running = gpu.evaluation.on(gpu.device.as_mut(), vectors, n);
            running.forward(Moments::Kept, &mut unseen)?;
            running.logits(to)?;
            Ok(())
        })?;
        let len = n * self.network.options.classes;
        self.state.download(self.device.as_mut(), None, to, len, logits)?;
        if let Some(features) = features {
            self.add_features(n, features)?;
        }
        Ok(())
    }

    /// Adds what the head read in the last evaluation of `n` images.
    fn add_features(&mut self, n: usize, features: &mut Features) -> Result<(), EngineError> {
        let vectors = self.evaluation_vectors()?;
        let Gpu { evaluation, device, .. } = self;
        let mut running = evaluation.on(device.as_mut(), vectors, n);
        let Some(head) = evaluation.planned(n).heads().last() else { return Ok(()) };
        let mut values = Vec::new();
        let pooled = head.pool(&mut running.pass)?;
        read(running.pass.device, pooled, &mut values)?;
        features.pooled.extend_from_slice(&values);
        if let Some(maps) = &mut features.maps {
            let x = running.pass.value(head.input());
            read_planes(running.pass.device, &x, &mut values)?;
            maps.extend_from_slice(&values);
        }
        Ok(())
    }
}

/// Copies f32 values of a region to the host, when what was started is done.
fn read(device: &mut dyn Device, region: Region, to: &mut Vec<f32>) -> Result<(), EngineError> {
    let bytes = transfer::read(device, region)?;
    to.clear();
    to.extend(bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)));
    Ok(())
}

/// Copies maps to the host, `[n][c][h][w]` in f32.
fn read_planes(device: &mut dyn Device, x: &Map, to: &mut Vec<f32>) -> Result<(), EngineError> {
    let planes = device.allocate(x.len() * UNIT)?;
    let outcome = layout::to_planes(device, x, planes).map_err(EngineError::from);
    let outcome = outcome.and_then(|()| read(device, planes, to));
    device.free(planes);
    outcome
}

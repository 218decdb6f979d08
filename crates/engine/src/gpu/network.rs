//! A network on a device: its sides, its state, and what a step reads and tells.

use std::collections::VecDeque;

use bninception_cuda::device::Noting;
use bninception_cuda::ops::image;
use bninception_cuda::{Device, Event, Format, Pinned, Precision, Region};
use bninception_kernels::dtype::Dtype;
use bninception_model::batch::Images;
use bninception_model::{Network, ParameterTable};

use super::inputs::Inputs;
use super::layout::Layout;
use super::plan::{Settings, Vectors};
use super::results::{Results, Started};
use super::side::Side;
use super::vectors::State;
use crate::counted::Counted;
use crate::error::EngineError;
use crate::executor::{EvaluationWeights, Finished, Traced};
use crate::lowering::lower::{Lowered, Purpose, lower};
use crate::lowering::padded::Padded;
use crate::state::check_weights;

/// Images that evaluation takes through the network at once, or fewer where training does: the memory that a run
/// was told to need holds for both. An assumption, not measured.
pub(super) const EVALUATION_BATCH: usize = 256;

/// Choices of the GPU engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuOptions {
    /// What convolutions multiply, and the format of maps.
    pub precision: Precision,
    /// Whether the same run gives the same bits each time, on the same device with the same libraries.
    pub deterministic: bool,
    /// Whether a step is captured and started as one.
    pub capture: bool,
    /// Whether 1x1 convolutions that read the same map run as one.
    pub merge_siblings: bool,
}

impl Default for GpuOptions {
    fn default() -> GpuOptions {
        let precision = Precision::Bf16;
        GpuOptions { precision, deterministic: true, capture: true, merge_siblings: true }
    }
}

/// What a captured graph depends on besides the batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Captures {
    /// Forward and backward pass of a micro-batch.
    Gradients,
    /// Those and the update.
    Update { nesterov: bool, has_average: bool },
    /// Forward pass and logits.
    Logits { of: Prepared, has_average: bool },
}

/// The weights that evaluation runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prepared {
    Nothing,
    /// Those held, or the moving average.
    Held,
    /// Those, with other statistics.
    HeldWith,
    Given,
}

/// Vectors that evaluation reads where they are not those of the state.
#[derive(Clone, Copy)]
pub(super) struct Given {
    pub weights: Region,
    pub filters: Region,
    pub statistics: Region,
    /// Where a pass leaves statistics that nobody wants.
    pub moved: Region,
}

/// The engine.
pub struct Gpu {
    pub(super) network: Network,
    pub(super) table: ParameterTable,
    pub(super) options: GpuOptions,
    pub(super) settings: Settings,
    pub(super) layout: Layout,
    pub(super) device: Box<dyn Device>,
    /// The layers that training leaves as they are, if there are some; they run as in evaluation.
    pub(super) frozen: Option<Side<Captures>>,
    pub(super) training: Side<Captures>,
    pub(super) evaluation: Side<Captures>,
    pub(super) inputs: Inputs,
    pub(super) results: Results,
    /// Where results arrive.
    pub(super) told: Pinned,
    pub(super) state: State,
    pub(super) is_loaded: bool,
    pub(super) prepared: Prepared,
    pub(super) given: Option<Given>,
    /// Logits of auxiliary heads, those of the last micro-batch, and those of an evaluation.
    pub(super) logits: [Option<Region>; 3],
    pub(super) last_batch: usize,
    /// The largest batch of training; 0 where nothing was trained.
    pub(super) largest_batch: usize,
    /// The update under way.
    pub(super) counted: Counted,
    /// Whether the gradients are those of all micro-batches already.
    pub(super) is_summed: bool,
    pub(super) norm_scratch: Region,
    /// Updates that were started and not told yet.
    pub(super) started: VecDeque<Started>,
    /// Results of updates that are over and were not told yet.
    pub(super) waiting: VecDeque<Finished>,
    /// Memory for what they tell, and the part of it that comes next.
    pub(super) ring: Vec<Pinned>,
    pub(super) next_told: usize,
    /// Since the start of one that failed.
    pub(super) has_failed: bool,
    /// When the last update ended, and how long the device had nothing to do between updates.
    pub(super) last_end: Option<Event>,
    pub(super) idle_seconds: f64,
    pub(super) noting: Noting,
    labels: Vec<String>,
}

impl Gpu {
    /// An engine for `network` on `device`. Memory for maps is taken when the first batch shows its size.
    ///
    /// # Errors
    /// A layer that this engine cannot compute, or a device that fails.
    pub fn new(
        network: Network,
        mut device: Box<dyn Device>,
        options: GpuOptions,
    ) -> Result<Gpu, EngineError> {
        let norm = network.options.batch_norm;
        let settings = Settings {
            precision: options.precision,
            deterministic: options.deterministic,
            epsilon: norm.map_or(0.0, |norm| norm.epsilon),
        };
        let padded = Padded::to(image::CHANNELS, &network);
        let lowered = |purpose| lower(&network, &padded, purpose, options.merge_siblings);
        let training = lowered(Purpose::Training)?;
        let evaluation = lowered(Purpose::Evaluation)?;
        let frozen = if network.frozen > 0 { Some(lowered(Purpose::Frozen)?) } else { None };

        let table = ParameterTable::new(&network);
        let stages = frozen.iter().flat_map(|frozen| &frozen.stages).chain(&training.stages);
        let layout = Layout::new(&table, stages);
        let format = settings.format();
        let statistics = table.n_statistics();
        let state = State::new(device.as_mut(), &layout, statistics, format)?;
        let classes = network.options.classes;
        let inputs = Inputs::new(device.as_mut(), &training.heads, classes, &table)?;
        let results = Results::new(device.as_mut(), training.heads.len())?;
        let told = device.allocate_pinned(results.bytes())?;
        let scratch = bninception_cuda::ops::update::norm_scratch_bytes(state.gradients);
        let norm_scratch = device.allocate(scratch)?;

        let mut labels = Vec::new();
        let mut side = |lowered: Lowered, trains: bool, suffix: &str| {
            let first = labels.len();
            let stages = lowered.stages.iter().map(|stage| stage.row(Dtype::F32).name);
            let heads = lowered.heads.iter().map(|head| head.name.clone());
            labels.extend(stages.chain(heads).map(|name| format!("{name}{suffix}")));
            Side::new(lowered, trains, first)
        };
        let training = side(training, true, "");
        let evaluation = side(evaluation, false, "");
        let frozen = frozen.map(|lowered| side(lowered, false, " (frozen)"));
        labels.push("images".to_owned());
        labels.push("update".to_owned());
        Ok(Gpu {
            network,
            table,
            options,
            settings,
            layout,
            device,
            frozen,
            training,
            evaluation,
            inputs,
            results,
            told,
            state,
            is_loaded: false,
            prepared: Prepared::Nothing,
            given: None,
            logits: [None; 3],
            last_batch: 0,
            largest_batch: 0,
            counted: Counted::default(),
            is_summed: false,
            norm_scratch,
            started: VecDeque::new(),
            waiting: VecDeque::new(),
            ring: Vec::new(),
            next_told: 0,
            has_failed: false,
            last_end: None,
            idle_seconds: 0.0,
            noting: Noting::Nothing,
            labels,
        })
    }

    /// The label of what belongs to no stage: that of images, or of the update.
    pub(super) fn label_images(&self) -> usize {
        self.labels.len() - 2
    }

    /// As [`Gpu::label_images`].
    pub(super) fn label_update(&self) -> usize {
        self.labels.len() - 1
    }

    /// Values of an image.
    pub(super) fn image_len(&self) -> usize {
        self.network.layers[0].output.len()
    }

    /// The vectors of a pass of training.
    pub(super) fn training_vectors(&self, images: usize) -> Vectors {
        let state = &self.state;
        Vectors {
            trainable: state.weights,
            filters: state.filters,
            statistics: [state.settled, state.moved],
            gradients: state.gradients,
            bn_momentum: self.inputs.bn_momentum(images),
        }
    }

    /// The vectors of a pass of evaluation.
    ///
    /// # Errors
    /// No weights were prepared.
    pub(super) fn evaluation_vectors(&self) -> Result<Vectors, EngineError> {
        let state = &self.state;
        let held = match state.average() {
            Some([trainable, statistics]) => [trainable, statistics],
            None => [state.weights, state.settled],
        };
        let given = self.given.as_ref();
        let (trainable, filters, statistics, moved) = match (self.prepared, given) {
            (Prepared::Nothing, _) | (_, None) => return Err(EngineError::NotPrepared),
            (Prepared::Held, Some(given)) => (held[0], given.filters, held[1], given.moved),
            (Prepared::HeldWith, Some(given)) => {
                (held[0], given.filters, given.statistics, given.moved)
            }
            (Prepared::Given, Some(given)) => {
                (given.weights, given.filters, given.statistics, given.moved)
            }
        };
        // Convolutions read weights of f32 where they are.
        let filters = if self.settings.format() == Format::F32 { trainable } else { filters };
        let statistics = [statistics, moved];
        let (gradients, bn_momentum) = (Region::none(), Region::none());
        Ok(Vectors { trainable, filters, statistics, gradients, bn_momentum })
    }

    /// Chooses the weights of evaluation.
    pub(super) fn prepare(&mut self, weights: EvaluationWeights<'_>) -> Result<(), EngineError> {
        self.evaluation.has_moments = false;
        // Until all is there, nothing is.
        self.prepared = Prepared::Nothing;
        let given = match self.given {
            Some(given) => given,
            None => self.room_for_given()?,
        };
        let layout = Some(&self.layout);
        let (device, state) = (self.device.as_mut(), &self.state);
        let prepared = match weights {
            EvaluationWeights::Held if !self.is_loaded => return Err(EngineError::NotLoaded),
            EvaluationWeights::HeldWith(_) if !self.is_loaded => {
                return Err(EngineError::NotLoaded);
            }
            EvaluationWeights::Held => Prepared::Held,
            EvaluationWeights::HeldWith(statistics) => {
                let expected = self.table.n_statistics();
                let found = statistics.len();
                bninception_model::batch::check_len("running statistics", expected, found)?;
                state.upload(device, None, statistics, given.statistics)?;
                Prepared::HeldWith
            }
            EvaluationWeights::Given(weights) => {
                check_weights(&self.table, weights)?;
                state.upload(device, layout, &weights.trainable, given.weights)?;
                state.upload(device, None, &weights.statistics, given.statistics)?;
                Prepared::Given
            }
        };
        self.prepared = prepared;
        let trainable = self.evaluation_vectors()?.trainable;
        if self.settings.format() == Format::Bf16 {
            let device = self.device.as_mut();
            let rounded = bninception_cuda::ops::layout::to_bf16(device, trainable, given.filters);
            if rounded.is_err() {
                self.prepared = Prepared::Nothing;
            }
            rounded?;
        }
        Ok(())
    }

    fn room_for_given(&mut self) -> Result<Given, EngineError> {
        let (device, state) = (self.device.as_mut(), &self.state);
        let given = Given {
            weights: device.allocate(state.weights.bytes())?,
            filters: match self.settings.format() {
                Format::F32 => Region::none(),
                Format::Bf16 => device.allocate(state.filters.bytes())?,
            },
            statistics: device.allocate(state.settled.bytes())?,
            moved: device.allocate(state.settled.bytes())?,
        };
        self.given = Some(given);
        Ok(given)
    }

    /// Evaluation with the state that is held is over, as that state changes.
    pub(super) fn state_changes(&mut self) {
        if let Prepared::Held | Prepared::HeldWith = self.prepared {
            self.prepared = Prepared::Nothing;
        }
    }

    pub(super) fn begin_update(&mut self) {
        self.counted = Counted::default();
        self.is_summed = false;
    }

    /// Room for logits: of auxiliary heads (0), of the last micro-batch (1), of an evaluation (2).
    pub(super) fn room_for_logits(
        &mut self,
        which: usize,
        images: usize,
    ) -> Result<Region, EngineError> {
        let bytes = images * self.network.options.classes * size_of::<f32>();
        if let Some(room) = self.logits[which].filter(|room| room.bytes() >= bytes) {
            return Ok(room.slice(0..bytes));
        }
        // What was captured knows the old place.
        self.forget_captured();
        if let Some(old) = self.logits[which].take() {
            self.device.synchronise()?;
            self.device.free(old);
        }
        let room = self.device.allocate(bytes)?;
        self.logits[which] = Some(room);
        Ok(room)
    }

    /// Room for inputs of `images` images of `bytes`.
    pub(super) fn room_for_inputs(
        &mut self,
        images: usize,
        bytes: usize,
    ) -> Result<(), EngineError> {
        if !self.inputs.has_room(images, bytes) {
            // What was captured knows the old places.
            self.forget_captured();
            self.inputs.prepare(self.device.as_mut(), images, bytes)?;
        }
        Ok(())
    }

    /// Gives back all that was captured.
    pub(super) fn forget_captured(&mut self) {
        let device = self.device.as_mut();
        self.training.forget_captured(device);
        self.evaluation.forget_captured(device);
    }

    /// Bytes of images as they come.
    pub(super) fn image_bytes(images: Images<'_>) -> usize {
        match images {
            Images::Levels { levels, .. } => levels.len(),
            Images::Values(values) => size_of_val(values),
        }
    }

    /// What the device noted, with the stages' names.
    pub(super) fn traced(&mut self) -> Vec<Traced> {
        let labels = &self.labels;
        let notes = self.device.notes().into_iter();
        let stage = |label: usize| labels.get(label).cloned().unwrap_or_default();
        let traced = notes.map(|note| Traced {
            stage: stage(note.label),
            kernel: note.kernel,
            cost: note.cost,
            time: note.time,
        });
        traced.collect()
    }
}

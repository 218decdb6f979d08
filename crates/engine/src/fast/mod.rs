//! The fast engine: a static plan over one arena, on the CPU.
//!
//! The network's layers become [stages](lower). Every buffer gets its [place](memory) once for each
//! batch size. A step then runs kernels over those places and allocates nothing.

mod convolution;
mod evaluation;
mod head;
mod lower;
mod memory;
mod padded;
mod plan;
mod training;

use bninception_kernels::arena::Arena;
use bninception_kernels::conv::Algorithms;
use bninception_kernels::dtype::Dtype;
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;
use bninception_kernels::with_element;
use bninception_model::batch::{check_batch, check_images, check_len};
use bninception_model::layer::Shape;
use bninception_model::{Network, ParameterTable, Weights};

use self::evaluation::Evaluation;
use self::lower::{Lowered, Purpose, lower};
use self::padded::Padded;
use self::plan::Settings;
use self::training::Training;
use crate::error::EngineError;
use crate::executor::{Executor, TrainBatch, Watch};
use crate::profile::Profile;

/// Images that evaluation takes through the network at once.
const EVALUATION_BATCH: usize = 32;

/// Batch sizes whose plans are kept: that of most batches, and that of an epoch's last one.
const KEPT_PLANS: usize = 2;

/// Choices of the fast engine. They change the result only by rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastOptions {
    /// Threads that share the work, the caller included. A run repeats bit by bit with the same
    /// number of threads, instruction set and choice of algorithms.
    pub threads: usize,
    /// Whether 3x3 convolutions may use Winograd's algorithm where it is faster.
    pub winograd: bool,
    /// Whether 1x1 convolutions that read the same map run as one in training.
    pub merge_siblings: bool,
    /// Instruction set; lowered to what the machine has.
    pub isa: Isa,
    /// Format of the factors of convolutions, and of maps in memory where the machine has instructions
    /// for it. The fully connected layer, the loss, sums, statistics and the parameters themselves are
    /// f32 in both.
    pub dtype: Dtype,
}

/// All cores, Winograd, and the best instruction set of the machine.
impl Default for FastOptions {
    fn default() -> Self {
        FastOptions {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            winograd: true,
            merge_siblings: true,
            isa: Isa::chosen(),
            dtype: Dtype::F32,
        }
    }
}

/// Runs a network on the CPU by this project's kernels.
pub struct Fast {
    network: Network,
    table: ParameterTable,
    options: FastOptions,
    settings: Settings,
    team: Team,
    padded: Padded,
    training: Side<Training>,
    evaluation: Side<Evaluation>,
    prepared: Option<Weights>,
}

/// Training or evaluation: its stages, plans and memory.
struct Side<Plan> {
    lowered: Lowered,
    /// The plans made last, newest last.
    plans: Vec<Plan>,
    arena: Arena,
    profile: Profile,
}

impl<Plan> Side<Plan> {
    fn new(lowered: Lowered, map_dtype: Dtype) -> Side<Plan> {
        let stages = lowered.stages.iter().map(|stage| stage.row(map_dtype));
        let heads = lowered.heads.iter().map(|head| head.row(map_dtype));
        let rows = stages.chain(heads).collect();
        let profile = Profile { rows };
        Side { lowered, plans: Vec::new(), arena: Arena::new(0), profile }
    }

    /// Makes a plan the newest, and room for it.
    fn keep(&mut self, plan: Plan, arena_len: usize) {
        if self.plans.len() == KEPT_PLANS {
            self.plans.remove(0);
        }
        self.plans.push(plan);
        if self.arena.len() < arena_len {
            // The old arena goes first: both together could exceed the machine's memory.
            self.arena = Arena::new(0);
            self.arena = Arena::new(arena_len);
        }
    }
}

impl Fast {
    /// An engine for `network`. Memory is taken when the first batch shows its size.
    ///
    /// # Errors
    /// A layer that this engine cannot compute.
    pub fn new(network: Network, options: FastOptions) -> Result<Fast, EngineError> {
        let options = FastOptions { threads: options.threads.max(1), ..options };
        let norm = network.options.batch_norm;
        let settings = Settings {
            isa: options.isa,
            dtype: options.dtype,
            map_dtype: Algorithms::map_dtype(options.isa, options.dtype),
            winograd: options.winograd,
            epsilon: norm.map_or(0.0, |norm| norm.epsilon),
            momentum: norm.map_or(0.0, |norm| norm.momentum),
        };
        let padded = Padded::new(&network);
        let merge = options.merge_siblings;
        let training = lower(&network, &padded, Purpose::Training { merge })?;
        let evaluation = lower(&network, &padded, Purpose::Evaluation)?;
        Ok(Fast {
            table: ParameterTable::new(&network),
            training: Side::new(training, settings.map_dtype),
            evaluation: Side::new(evaluation, settings.map_dtype),
            padded,
            team: Team::new(options.threads),
            prepared: None,
            network,
            options,
            settings,
        })
    }

    fn check_weights(&self, weights: &Weights) -> Result<(), EngineError> {
        check_len("weights", self.table.n_trainable(), weights.trainable.len())?;
        let n_statistics = self.table.n_statistics();
        Ok(check_len("running statistics", n_statistics, weights.statistics.len())?)
    }

    /// Values of one image.
    fn image_len(&self) -> usize {
        self.network.layers[0].output.len()
    }

    fn step(
        &mut self,
        batch: &TrainBatch<'_>,
        weights: &mut Weights,
        gradients: &mut [f32],
        logits: &mut Vec<f32>,
        watch: Option<Watch<'_>>,
    ) -> Result<f64, EngineError> {
        let (images, classes) = (batch.labels.len(), self.network.options.classes);
        self.check_weights(weights)?;
        check_len("gradients", self.table.n_trainable(), gradients.len())?;
        check_batch(&self.network, batch.images, batch.labels)?;

        logits.resize(images * classes, 0.0);
        let (team, padded) = (&self.team, &mut self.padded);
        let (plan, arena, profile) = training_plan(&mut self.training, images, self.settings, team);
        padded.load(weights);
        let loss = with_element!(self.settings.map_dtype, E => {
            plan.run::<E>(team, arena, profile, batch, padded, weights, gradients, logits, watch)
        });
        padded.store(weights, gradients);
        Ok(loss)
    }

    fn evaluate_chunk(&mut self, images: &[f32], logits: &mut [f32]) -> Result<(), EngineError> {
        let weights = self.prepared.as_ref().ok_or(EngineError::NotPrepared)?;
        let batch = images.len() / self.image_len();
        let side = &mut self.evaluation;
        if !side.plans.iter().any(|plan| plan.batch() == batch) {
            self.padded.load(weights);
            let (settings, team, padded) = (self.settings, &self.team, &self.padded);
            let plan = Evaluation::new(&side.lowered, batch, settings, team, padded, weights);
            let len = plan.arena_len();
            side.keep(plan, len);
        }
        let Side { plans, arena, profile, .. } = side;
        if let Some(plan) = plans.iter_mut().find(|plan| plan.batch() == batch) {
            let team = &self.team;
            with_element!(self.settings.map_dtype, E => {
                plan.run::<E>(team, arena, profile, images, weights, logits)
            });
        }
        Ok(())
    }
}

/// The plan for batches of `images` images, made if there is none, and what it runs with.
fn training_plan<'a>(
    side: &'a mut Side<Training>,
    images: usize,
    settings: Settings,
    team: &Team,
) -> (&'a mut Training, &'a mut [f32], &'a mut Profile) {
    if !side.plans.iter().any(|plan| plan.batch() == images) {
        let plan = Training::new(&side.lowered, images, settings, team);
        let len = plan.arena_len();
        side.keep(plan, len);
    }
    let Side { plans, arena, profile, .. } = side;
    let plan = plans.iter_mut().find(|plan| plan.batch() == images);
    let plan = plan.unwrap_or_else(|| unreachable!("the plan was made above"));
    (plan, arena, profile)
}

impl Executor for Fast {
    fn network(&self) -> &Network {
        &self.network
    }

    fn team(&self) -> &Team {
        &self.team
    }

    fn training_profile(&mut self) -> Option<&mut Profile> {
        Some(&mut self.training.profile)
    }

    fn evaluation_profile(&mut self) -> Option<&mut Profile> {
        Some(&mut self.evaluation.profile)
    }

    fn memory_bytes(&self, batch: usize) -> Option<usize> {
        let (settings, team) = (self.settings, &self.team);
        let training = Training::new(&self.training.lowered, batch, settings, team).arena_len();
        let weights = Weights {
            trainable: vec![0.0; self.table.n_trainable()],
            statistics: vec![0.0; self.table.n_statistics()],
        };
        let lowered = &self.evaluation.lowered;
        let padded = &self.padded;
        // The last batch of a data set may have an odd number of images; it then runs as a whole and
        // takes more memory.
        let [(whole_arena, whole_packed), (odd_arena, odd_packed)] =
            [EVALUATION_BATCH, EVALUATION_BATCH - 1].map(|batch| {
                let plan = Evaluation::new(lowered, batch, settings, team, padded, &weights);
                (plan.arena_len(), plan.packed_len())
            });
        // The weights of evaluation are kept as they came, and packed once for each plan.
        let weights = weights.trainable.len() + weights.statistics.len();
        let packed = whole_packed + odd_packed;
        let values = training + whole_arena.max(odd_arena) + packed + weights;
        Some(values * size_of::<f32>())
    }

    fn describe(&self) -> String {
        let FastOptions { threads, winograd, isa, dtype, .. } = self.options;
        let algorithm = match dtype {
            Dtype::Bf16 if isa >= Isa::Amx => "tiles of bf16",
            Dtype::Bf16 if isa >= Isa::Avx512Bf16 && !winograd => "dot products of bf16",
            Dtype::Bf16 if isa >= Isa::Avx512Bf16 => "dot products of bf16, Winograd where faster",
            _ if winograd => "Winograd where faster",
            _ => "direct convolutions",
        };
        let s = if threads == 1 { "" } else { "s" };
        let (dtype, isa) = (dtype.name(), isa.name());
        format!("fast engine, {dtype} on the CPU, {isa}, {threads} thread{s}, {algorithm}")
    }

    fn train(
        &mut self,
        batch: &TrainBatch<'_>,
        weights: &mut Weights,
        gradients: &mut [f32],
        logits: &mut Vec<f32>,
    ) -> Result<f64, EngineError> {
        self.step(batch, weights, gradients, logits, None)
    }

    fn move_statistics(
        &mut self,
        images: &[f32],
        weights: &mut Weights,
    ) -> Result<(), EngineError> {
        self.check_weights(weights)?;
        let batch = check_images(&self.network, images)?;
        let (team, settings) = (&self.team, self.settings);
        let (plan, arena, profile) = training_plan(&mut self.training, batch, settings, team);
        self.padded.load(weights);
        let padded = &mut self.padded;
        with_element!(settings.map_dtype, E => {
            plan.move_statistics::<E>(team, arena, profile, images, padded, weights)
        });
        self.padded.store_statistics(weights);
        Ok(())
    }

    fn train_watched(
        &mut self,
        batch: &TrainBatch<'_>,
        weights: &mut Weights,
        gradients: &mut [f32],
        logits: &mut Vec<f32>,
        watch: Watch<'_>,
    ) -> Result<f64, EngineError> {
        let shapes: Vec<Shape> = self.network.layers.iter().map(|layer| layer.output).collect();
        let images = batch.labels.len();
        // Channels that were added to fill a block are not shown.
        let mut see = |layer: usize, mut values: Vec<f32>| {
            let len = shapes[layer].len();
            let wide = values.len() / images.max(1);
            if wide != len {
                let images = values.chunks_exact(wide).map(|image| &image[..len]);
                values = images.flatten().copied().collect();
            }
            (watch.see)(layer, values);
        };
        let watch = Watch { layers: watch.layers, see: &mut see };
        self.step(batch, weights, gradients, logits, Some(watch))
    }

    fn prepare_evaluation(&mut self, weights: &Weights) -> Result<(), EngineError> {
        self.check_weights(weights)?;
        self.prepared = Some(weights.clone());
        self.evaluation.plans.clear();
        Ok(())
    }

    fn evaluate(&mut self, images: &[f32], logits: &mut Vec<f32>) -> Result<(), EngineError> {
        if self.prepared.is_none() {
            return Err(EngineError::NotPrepared);
        }
        let (image, classes) = (self.image_len(), self.network.options.classes);
        let n = images.len() / image;
        check_len("images", n * image, images.len())?;
        logits.resize(n * classes, 0.0);
        let chunks = images.chunks(EVALUATION_BATCH * image);
        for (images, logits) in chunks.zip(logits.chunks_mut(EVALUATION_BATCH * classes)) {
            self.evaluate_chunk(images, logits)?;
        }
        Ok(())
    }
}

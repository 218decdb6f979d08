//! The fast engine: a static plan over one arena, on the CPU.
//!
//! The network's layers become [stages](crate::lowering::lower). Every buffer gets its [place](crate::lowering::memory) once for each
//! batch size. A step then runs kernels over those places and allocates nothing.

mod convolution;
mod evaluation;
mod folded;
mod head;

mod merged_norm;

mod plain;
mod plan;

mod training;

use bninception_kernels::arena::Arena;
use bninception_kernels::conv::Algorithms;
use bninception_kernels::dtype::Dtype;
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;
use bninception_kernels::with_element;
use bninception_model::batch::{
    Images, check_batch, check_class_weights, check_images, check_len, check_variance,
};
use bninception_model::{Network, Weights};

use self::evaluation::Evaluation;
use self::plan::Settings;
use self::training::{Machine, Step, Training};
use crate::error::EngineError;
use crate::exchange::Exchange;
use crate::executor::{
    BatchResult, EvaluationWeights, Executor, Features, Hooks, StepResult, TrainBatch, Update,
    UpdateResult, Watch,
};
use crate::held::Held;
use crate::lowering::lower::{Lowered, Purpose, lower};
use crate::lowering::padded::Padded;
use crate::lowering::stage::Stage;
use crate::norm_exchange::NormExchange;
use crate::norm_merge::NormMerge;
use crate::profile::Profile;
use crate::state::ModelState;

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
    options: FastOptions,
    settings: Settings,
    team: Team,
    padded: Padded,
    held: Held,
    /// The layers that training leaves as they are, if there are some; they run as in evaluation.
    frozen: Option<Side<Evaluation>>,
    training: Side<Training>,
    /// Logits of the last micro-batch of training.
    logits: Vec<f32>,
    evaluation: Side<Evaluation>,
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

/// What stages of evaluation run with.
struct With<'a> {
    settings: Settings,
    team: &'a Team,
    padded: &'a mut Padded,
    weights: &'a Weights,
}

impl Side<Evaluation> {
    /// Runs `batch` images through the stages, and fills `logits` if these lead to them. Gives the map
    /// that was made last. A plan for so many images is made, and the weights packed, if there is none.
    fn run(
        &mut self,
        with: With<'_>,
        images: Images<'_>,
        batch: usize,
        logits: &mut [f32],
    ) -> &[f32] {
        let With { settings, team, padded, weights } = with;
        if !self.plans.iter().any(|plan| plan.batch() == batch) {
            padded.load(weights);
            let mut plan = Evaluation::new(&self.lowered, batch, settings, team);
            plan.pack(self.plans.last(), team, padded, weights);
            let len = plan.arena_len();
            self.keep(plan, len);
        }
        let Side { plans, arena, profile, .. } = self;
        let plan = plans.iter_mut().find(|plan| plan.batch() == batch);
        let plan = plan.unwrap_or_else(|| unreachable!("the plan was made above"));
        with_element!(settings.map_dtype, E => {
            plan.run::<E>(team, arena, profile, images, weights, logits)
        });
        plan.output(arena)
    }

    /// Adds what the head read in the last run of `batch` images to `features`.
    fn tell(&mut self, settings: Settings, batch: usize, features: &mut Features) {
        let Side { plans, arena, .. } = self;
        if let Some(plan) = plans.iter().find(|plan| plan.batch() == batch) {
            features.pooled.extend_from_slice(plan.pooled());
            if let Some(maps) = &mut features.maps {
                with_element!(settings.map_dtype, E => maps.extend(plan.averaged_maps::<E>(arena)));
            }
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
        };
        let padded = Padded::new(&network);
        let merge = options.merge_siblings;
        let training = lower(&network, &padded, Purpose::Training, merge)?;
        let evaluation = lower(&network, &padded, Purpose::Evaluation, false)?;
        let frozen = match network.frozen {
            0 => None,
            _ => Some(lower(&network, &padded, Purpose::Frozen, false)?),
        };
        Ok(Fast {
            held: Held::new(&network),
            logits: Vec::new(),
            frozen: frozen.map(|lowered| Side::new(lowered, settings.map_dtype)),
            training: Side::new(training, settings.map_dtype),
            evaluation: Side::new(evaluation, settings.map_dtype),
            padded,
            team: Team::new(options.threads),
            network,
            options,
            settings,
        })
    }

    fn evaluate_chunk(
        &mut self,
        images: Images<'_>,
        logits: &mut [f32],
        features: Option<&mut Features>,
    ) -> Result<(), EngineError> {
        let weights = self.held.prepared()?;
        let batch = images.len() / self.network.layers[0].output.len();
        let (settings, team, padded) = (self.settings, &self.team, &mut self.padded);
        self.evaluation.run(With { settings, team, padded, weights }, images, batch, logits);
        if let Some(features) = features {
            self.evaluation.tell(settings, batch, features);
        }
        Ok(())
    }

    fn evaluate_all(
        &mut self,
        images: Images<'_>,
        logits: &mut Vec<f32>,
        mut features: Option<&mut Features>,
    ) -> Result<(), EngineError> {
        self.held.prepared()?;
        let (image, classes) = (self.network.layers[0].output.len(), self.network.options.classes);
        let n = images.len() / image;
        check_len("images", n * image, images.len())?;
        logits.resize(n * classes, 0.0);
        for (index, logits) in logits.chunks_mut(EVALUATION_BATCH * classes).enumerate() {
            let (first, n) = (index * EVALUATION_BATCH, logits.len() / classes);
            let images = images.slice(first * image..(first + n) * image);
            self.evaluate_chunk(images, logits, features.as_deref_mut())?;
        }
        Ok(())
    }
}

/// The plan for batches of `images` images, made if there is none, and what it runs with.
fn training_plan<'a>(
    side: &'a mut Side<Training>,
    images: usize,
    settings: Settings,
    team: &'a Team,
) -> (&'a mut Training, Machine<'a>) {
    if !side.plans.iter().any(|plan| plan.batch() == images) {
        let plan = Training::new(&side.lowered, images, settings, team);
        let len = plan.arena_len();
        side.keep(plan, len);
    }
    let Side { plans, arena, profile, .. } = side;
    let plan = plans.iter_mut().find(|plan| plan.batch() == images);
    let plan = plan.unwrap_or_else(|| unreachable!("the plan was made above"));
    (plan, Machine { team, arena, profile })
}

/// The values of the layer's own channels in each of `images` images; those that were added to fill a
/// block lie behind them.
fn without_padding(values: Vec<f32>, images: usize, len: usize) -> Vec<f32> {
    let wide = values.len() / images.max(1);
    if wide == len {
        return values;
    }
    values.chunks_exact(wide).flat_map(|image| &image[..len]).copied().collect()
}

impl Executor for Fast {
    fn network(&self) -> &Network {
        &self.network
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

    fn load(&mut self, state: ModelState) -> Result<(), EngineError> {
        if let Some(frozen) = &mut self.frozen {
            frozen.plans.clear();
        }
        self.held.load(state)
    }

    fn store(&mut self, to: &mut ModelState) -> Result<(), EngineError> {
        self.held.store(to)
    }

    fn gradients(
        &mut self,
        batch: &TrainBatch<'_>,
        hooks: Hooks<'_>,
    ) -> Result<BatchResult, EngineError> {
        let Fast { network, held, logits, frozen, training, padded, settings, team, .. } = self;
        check_batch(network, batch.images, batch.labels)?;
        check_class_weights(network, batch.class_weights)?;
        let Hooks { watch, exchange, norm } = hooks;
        if norm.is_none() {
            check_variance(network, batch.labels.len())?;
        }
        let (images, classes) = (batch.labels.len(), network.options.classes);
        logits.resize(images * classes, 0.0);
        let (layers, mut see) = watch.map_or((None, None), |w| (Some(w.layers), Some(w.see)));
        let mut show = |layer: usize, values: Vec<f32>| {
            if let Some(see) = &mut see {
                let len = network.layers[layer].output.len();
                see(layer, without_padding(values, images, len));
            }
        };
        let watch = layers.map(|layers| Watch { layers, see: &mut show });
        let mut merge = norm.map(NormMerge::new);
        let (plan, machine) = training_plan(training, images, *settings, team);
        held.micro_batch(team, exchange, |weights, gradients, ready| {
            let frozen = frozen.as_mut().map(|side| {
                let (settings, padded, weights) = (*settings, &mut *padded, &*weights);
                side.run(With { settings, team, padded, weights }, batch.images, images, &mut [])
            });
            padded.load(weights);
            let watch = watch.map(|Watch { layers, see }| Watch { layers, see });
            let step = Step {
                batch,
                padded: &mut *padded,
                weights: &mut *weights,
                gradients: &mut *gradients,
                logits: &mut logits[..],
                watch,
                merge: merge.as_mut().map(NormMerge::reborrow),
                frozen,
                ready: &mut *ready,
            };
            let loss = with_element!(settings.map_dtype, E => plan.run::<E>(machine, step))?;
            padded.store(weights, gradients);
            for range in padded.outer_ranges() {
                ready(range.clone(), &gradients[range]);
            }
            Ok(BatchResult::new(loss, batch, logits))
        })
    }

    fn join_norm(&mut self, norm: &mut dyn NormExchange) -> Result<(), EngineError> {
        // Layers that share a stage share an exchange.
        let norms = self.training.lowered.stages.iter().filter_map(|stage| match stage {
            Stage::Conv(stage) if stage.has_norm() => {
                Some((stage.norm_name(), stage.shape.out_channels))
            }
            _ => None,
        });
        let norms: Vec<(&str, usize)> = norms.collect();
        NormMerge::new(norm).join(&norms)
    }

    fn exchange(&mut self, exchange: &mut dyn Exchange) -> Result<StepResult, EngineError> {
        self.held.exchange(exchange)
    }

    fn update(&mut self, update: &Update<'_>) -> Result<UpdateResult, EngineError> {
        self.held.update(&self.team, update)
    }

    fn store_gradients(&mut self, to: &mut Vec<f32>) -> Result<(), EngineError> {
        self.held.store_gradients(to)
    }

    fn store_logits(&mut self, to: &mut Vec<f32>) -> Result<(), EngineError> {
        self.held.model()?;
        to.clone_from(&self.logits);
        Ok(())
    }

    fn batch_statistics(
        &mut self,
        images: Images<'_>,
        to: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        let Fast { network, held, frozen, training, padded, settings, team, .. } = self;
        let batch = check_images(network, images)?;
        let (plan, machine) = training_plan(training, batch, *settings, team);
        let outcome = held.batch_statistics(to, |weights| {
            let frozen = frozen.as_mut().map(|side| {
                // The weights of this evaluation may be others than those of training.
                side.plans.clear();
                let (settings, padded, weights) = (*settings, &mut *padded, &*weights);
                side.run(With { settings, team, padded, weights }, images, batch, &mut [])
            });
            padded.load(weights);
            with_element!(settings.map_dtype, E => {
                plan.batch_statistics::<E>(machine, images, frozen, padded, weights)
            })?;
            padded.store_statistics(weights);
            Ok(())
        });
        if let Some(frozen) = frozen {
            frozen.plans.clear();
        }
        outcome
    }

    fn prepare_evaluation(&mut self, weights: EvaluationWeights<'_>) -> Result<(), EngineError> {
        self.evaluation.plans.clear();
        self.held.prepare_evaluation(weights)
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

    fn training_profile(&mut self) -> Option<&mut Profile> {
        Some(&mut self.training.profile)
    }

    fn evaluation_profile(&mut self) -> Option<&mut Profile> {
        Some(&mut self.evaluation.profile)
    }

    fn memory_bytes(&self, batch: usize) -> Option<usize> {
        let (settings, team) = (self.settings, &self.team);
        let training = Training::new(&self.training.lowered, batch, settings, team).arena_len();
        let lowered = &self.evaluation.lowered;
        let plan = |lowered, batch| Evaluation::new(lowered, batch, settings, team);
        // The last images of a data set may be an odd number, which runs as a whole and takes more.
        let arena = [EVALUATION_BATCH, EVALUATION_BATCH - 1];
        let arena = arena.map(|batch| plan(lowered, batch).arena_len());
        // Plans share what they pack in the same order. The plan of one image has most in another.
        let packed = |lowered, batch| [batch, 1].map(|batch| plan(lowered, batch).packed_len());
        let frozen = self.frozen.as_ref().map_or(0, |Side { lowered, .. }| {
            plan(lowered, batch).arena_len() + packed(lowered, batch).iter().sum::<usize>()
        });
        let evaluation: usize = packed(lowered, EVALUATION_BATCH).iter().sum();
        let values = training + frozen + arena[0].max(arena[1]) + evaluation;
        Some(values * size_of::<f32>())
    }
}

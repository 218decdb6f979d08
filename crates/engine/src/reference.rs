//! The candle reference as an executor.

use bninception_kernels::team::Team;
use bninception_model::Network;
use bninception_model::batch::Images;
use bninception_model::layer::{Layer, Op};
use bninception_model::reference::{MergeNorms, ReferenceExecutor, TrainInput, values};

use crate::error::EngineError;
use crate::exchange::Exchange;
use crate::executor::{
    BatchResult, EvaluationWeights, Executor, Features, Hooks, StepResult, TrainBatch, Update,
    UpdateResult,
};
use crate::held::Held;
use crate::norm_exchange::NormExchange;
use crate::norm_merge::NormMerge;
use crate::state::ModelState;

/// Runs a network with candle's tensors and autograd on the CPU. It is slow, and the oracle of tests.
pub struct Reference {
    executor: ReferenceExecutor,
    held: Held,
    /// Of the last micro-batch of training.
    logits: Vec<f32>,
    team: Team,
}

impl Reference {
    /// A reference executor of `network` in f32.
    pub fn new(network: Network) -> Reference {
        Reference::of(ReferenceExecutor::on_cpu(network))
    }

    /// The same in f64, for tests that need exact values rather than speed.
    pub fn in_f64(network: Network) -> Reference {
        Reference::of(ReferenceExecutor::in_f64(network))
    }

    fn of(executor: ReferenceExecutor) -> Reference {
        Reference {
            held: Held::new(executor.network()),
            executor,
            logits: Vec::new(),
            team: Team::new(1),
        }
    }
}

impl Executor for Reference {
    fn network(&self) -> &Network {
        self.executor.network()
    }

    fn describe(&self) -> String {
        format!("reference engine (candle), {} on the CPU", self.executor.dtype())
    }

    fn load(&mut self, state: ModelState) -> Result<(), EngineError> {
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
        let Reference { executor, held, logits, team, .. } = self;
        let network = executor.network();
        let (mut watch, norm) = (hooks.watch, hooks.norm);
        let layers = watch.as_ref().map_or(&[][..], |watch| watch.layers);
        let watched: Vec<(usize, &str)> = layers
            .iter()
            .filter_map(|&layer| {
                let input = network.nonlinearity_input(layer)?;
                Some((layer, network.layers[input].name.as_str()))
            })
            .collect();
        held.micro_batch(team, hooks.exchange, |weights, gradients, ready| {
            let input = TrainInput {
                images: batch.images,
                labels: batch.labels,
                label_smoothing: batch.label_smoothing,
                class_weights: batch.class_weights,
                own_share: batch.own_share,
                draw: (batch.seed, batch.number),
                bn_momentum: batch.bn_momentum,
            };
            let mut see = |layer: &Layer, output: &_| {
                let found = watched.iter().find(|(_, name)| *name == layer.name);
                if let (Some(&(index, _)), Some(watch)) = (found, &mut watch) {
                    (watch.see)(index, values(output)?);
                }
                Ok(())
            };
            let mut merge = norm.map(NormMerge::new);
            let merge = merge.as_mut().map(|merge| merge as &mut dyn MergeNorms);
            let output = executor.train(&input, weights, gradients, &mut see, merge)?;
            ready(0..gradients.len(), gradients);
            *logits = output.logits;
            Ok(BatchResult::new(output.loss, batch, logits))
        })
    }

    fn join_norm(&mut self, norm: &mut dyn NormExchange) -> Result<(), EngineError> {
        let network = self.network();
        let behind = network.layers.iter().skip(network.frozen + 1);
        let norms = behind.filter(|layer| layer.op == Op::BatchNorm);
        let norms: Vec<(&str, usize)> =
            norms.map(|layer| (layer.name.as_str(), layer.output.channels)).collect();
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
        let Reference { executor, held, .. } = self;
        held.batch_statistics(to, |weights| Ok(executor.batch_statistics(images, weights)?))
    }

    fn prepare_evaluation(&mut self, weights: EvaluationWeights<'_>) -> Result<(), EngineError> {
        self.held.prepare_evaluation(weights)
    }

    fn evaluate(&mut self, images: Images<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        *logits = self.executor.evaluate(images, self.held.prepared()?)?;
        Ok(())
    }

    fn evaluate_features(
        &mut self,
        images: Images<'_>,
        logits: &mut Vec<f32>,
        features: &mut Features,
    ) -> Result<(), EngineError> {
        let network = self.executor.network();
        let pool = network.layers.iter().position(|layer| layer.op == Op::GlobalAveragePool);
        let names = pool.map(|pool| {
            let averaged = network.layers[pool].inputs[0];
            [pool, averaged].map(|layer| network.layers[layer].name.as_str())
        });
        features.clear();
        let found =
            self.executor.evaluate_stages(images, self.held.prepared()?, &mut |layer, x| {
                match names {
                    Some([pool, _]) if layer.name == pool => features.pooled.extend(values(x)?),
                    Some([_, averaged]) if layer.name == averaged => {
                        if let Some(maps) = &mut features.maps {
                            maps.extend(values(x)?);
                        }
                    }
                    _ => {}
                }
                Ok(())
            });
        *logits = found?;
        Ok(())
    }
}

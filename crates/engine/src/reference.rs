//! The candle reference as an executor.

use bninception_kernels::team::Team;
use bninception_model::reference::{ReferenceExecutor, values};
use bninception_model::{Network, Weights};

use crate::error::EngineError;
use crate::executor::{Executor, TrainBatch, Watch};

/// Runs a network with candle's tensors and autograd on the CPU. It is slow, and the oracle of tests.
pub struct Reference {
    executor: ReferenceExecutor,
    prepared: Option<Weights>,
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
        Reference { executor, prepared: None, team: Team::new(1) }
    }
}

impl Executor for Reference {
    fn network(&self) -> &Network {
        self.executor.network()
    }

    fn team(&self) -> &Team {
        &self.team
    }

    fn describe(&self) -> String {
        format!("reference engine (candle), {} on the CPU", self.executor.dtype())
    }

    fn train(
        &mut self,
        batch: &TrainBatch<'_>,
        weights: &mut Weights,
        gradients: &mut [f32],
        logits: &mut Vec<f32>,
    ) -> Result<f64, EngineError> {
        let watch = Watch { layers: &[], see: &mut |_, _| {} };
        self.train_watched(batch, weights, gradients, logits, watch)
    }

    fn train_watched(
        &mut self,
        batch: &TrainBatch<'_>,
        weights: &mut Weights,
        gradients: &mut [f32],
        logits: &mut Vec<f32>,
        watch: Watch<'_>,
    ) -> Result<f64, EngineError> {
        let network = self.executor.network();
        let watched: Vec<(usize, &str)> = watch
            .layers
            .iter()
            .filter_map(|&layer| {
                let input = network.nonlinearity_input(layer)?;
                Some((layer, network.layers[input].name.as_str()))
            })
            .collect();
        let output = self.executor.train_stages(
            batch.images,
            batch.labels,
            batch.label_smoothing,
            (batch.seed, batch.step),
            weights,
            gradients,
            &mut |layer, output| {
                if let Some(&(index, _)) = watched.iter().find(|(_, name)| *name == layer.name) {
                    (watch.see)(index, values(output)?);
                }
                Ok(())
            },
        )?;
        *logits = output.logits;
        Ok(output.loss)
    }

    fn move_statistics(
        &mut self,
        images: &[f32],
        weights: &mut Weights,
    ) -> Result<(), EngineError> {
        Ok(self.executor.move_statistics(images, weights)?)
    }

    fn prepare_evaluation(&mut self, weights: &Weights) -> Result<(), EngineError> {
        self.prepared = Some(weights.clone());
        Ok(())
    }

    fn evaluate(&mut self, images: &[f32], logits: &mut Vec<f32>) -> Result<(), EngineError> {
        let weights = self.prepared.as_ref().ok_or(EngineError::NotPrepared)?;
        *logits = self.executor.evaluate(images, weights)?;
        Ok(())
    }
}

//! The candle reference behind the trait of all executors.

use bninception_kernels::threads::Team;
use bninception_model::reference::ReferenceExecutor;
use bninception_model::{Network, Weights};

use crate::error::EngineError;
use crate::executor::{Executor, TrainBatch};

/// Runs a network by candle's tensors and autograd on the CPU. Slow; the oracle.
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

    /// The same in f64, for tests that need the truth rather than speed.
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
        let randomness = (batch.seed, batch.step);
        let output = self.executor.train(
            batch.images,
            batch.labels,
            batch.label_smoothing,
            randomness,
            weights,
            gradients,
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

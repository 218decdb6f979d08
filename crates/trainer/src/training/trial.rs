//! Updates on a state that is thrown away: what a dry run times, and what the range test of learning
//! rates looks at.

use std::sync::Arc;

use bninception_data::{Batch, Loader, Share, Source};
use bninception_engine::model::ParameterTable;
use bninception_engine::{
    Alone, BatchResult, EvaluationWeights, Executor, Hooks, Images, ModelState, Normaliser, Update,
};

use crate::config::Config;
use crate::error::Error;
use crate::setup;
use crate::training::micro_batch::{Place, micro_batch};

/// The first micro-batches of a run, for an executor that begins with the run's first state. Nothing
/// is written, and the state is the executor's to forget.
pub struct Trial<'a> {
    config: &'a Config,
    executor: &'a mut dyn Executor,
    loader: Loader,
    normaliser: Normaliser,
    class_weights: Option<Vec<f64>>,
    lr_factors: Vec<f64>,
    /// Micro-batches that gave gradients.
    number: u64,
}

impl<'a> Trial<'a> {
    /// Loads `state`, and starts making `n_batches` micro-batches of the images of `source`.
    ///
    /// # Errors
    /// Too few images for an update, or an executor that fails.
    pub fn start(
        config: &'a Config,
        executor: &'a mut dyn Executor,
        state: ModelState,
        source: Arc<dyn Source>,
        class_weights: Option<Vec<f64>>,
        n_batches: u64,
    ) -> Result<Trial<'a>, Error> {
        let network = executor.network();
        let lr_factors = setup::lr_factors(config, network, &ParameterTable::new(network));
        executor.load(state)?;
        let plan = setup::train_plan(config, Share::default(), 0..n_batches);
        let options = setup::load_options(config, config.train.batch_size);
        let loader = Loader::train(source, &setup::preprocessing(config), &options, &plan)?;
        let normaliser = setup::normaliser(config);
        Ok(Trial { config, executor, loader, normaliser, class_weights, lr_factors, number: 0 })
    }

    /// The next micro-batch; `None` behind the last. Images that cannot be read are told.
    ///
    /// # Errors
    /// The loader fails.
    pub fn batch(&mut self) -> Result<Option<Batch>, Error> {
        let Some(batch) = self.loader.next() else { return Ok(None) };
        let batch = batch?;
        for failure in &batch.failed {
            tracing::warn!("skipped in training: {}", failure.error);
        }
        Ok(Some(batch))
    }

    /// Whether so many images could be read that the network can be trained on them.
    pub fn is_enough(&self, batch: &Batch) -> bool {
        batch.labels.len() >= self.config.network.fewest_images()
    }

    /// The gradients of a micro-batch, added to those of the update under way.
    ///
    /// # Errors
    /// The executor fails.
    pub fn gradients(&mut self, batch: &Batch) -> Result<BatchResult, Error> {
        let place = Place {
            number: self.number,
            updates: self.number / self.config.train.accumulate as u64,
        };
        let weights = self.class_weights.as_deref();
        let input = micro_batch(batch, place, self.config, &self.normaliser, weights);
        self.number += 1;
        Ok(self.executor.gradients(&input, Hooks::default())?)
    }

    /// The statistics of a micro-batch that batch norm is evaluated with, which are dropped.
    ///
    /// # Errors
    /// The executor fails.
    pub fn statistics(&mut self, batch: &Batch) -> Result<(), Error> {
        let images = Images::Levels { levels: &batch.images, normaliser: &self.normaliser };
        self.executor.prepare_evaluation(EvaluationWeights::Held)?;
        Ok(self.executor.batch_statistics(images, &mut Vec::new())?)
    }

    /// Ends the update under way, at the rate `lr`. Gives whether all weights are finite.
    ///
    /// # Errors
    /// No micro-batch took part, or the executor fails.
    pub fn update(&mut self, lr: f64) -> Result<bool, Error> {
        self.executor.exchange(&mut Alone)?;
        let update = Update {
            sgd: setup::sgd(self.config, lr, &self.lr_factors),
            clip_norm: self.config.optimizer.clip_norm,
            tell_norm: false,
            ema_decay: 0.0,
        };
        Ok(self.executor.update(&update)?.is_finite)
    }

    /// Takes back the memory of a micro-batch.
    pub fn recycle(&mut self, batch: Batch) {
        self.loader.recycle(batch);
    }
}

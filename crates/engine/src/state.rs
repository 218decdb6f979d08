//! What a run has learnt, and what its optimizer remembers.

use bninception_model::init::initial_weights;
use bninception_model::{Network, ParameterTable, Weights, batch::check_len};

use crate::error::EngineError;

/// The state that an executor holds and changes. All vectors have the layout of
/// [`bninception_model::ParameterTable`].
#[derive(Clone, Debug, PartialEq)]
pub struct ModelState {
    /// Weights and running statistics.
    pub weights: Weights,
    /// Momentum of the optimizer, in the trainable layout.
    pub velocity: Vec<f32>,
    /// Moving average of weights and statistics, if the run keeps one.
    pub ema: Option<Weights>,
}

impl ModelState {
    /// The state before the first update.
    pub fn initial(
        network: &Network,
        table: &ParameterTable,
        seed: u64,
        with_ema: bool,
    ) -> ModelState {
        let weights = initial_weights(network, table, seed);
        ModelState { ema: with_ema.then(|| weights.clone()), ..ModelState::of(weights) }
    }

    /// Weights without momentum or a moving average.
    pub fn of(weights: Weights) -> ModelState {
        ModelState { velocity: vec![0.0; weights.trainable.len()], ema: None, weights }
    }

    /// The weights that evaluation and prediction use: the moving average where there is one.
    pub fn evaluation_weights(&self) -> &Weights {
        self.ema.as_ref().unwrap_or(&self.weights)
    }

    /// Becomes a copy of `other`, in the memory that it has.
    pub fn copy_from(&mut self, other: &ModelState) {
        let copy = |to: &mut Weights, from: &Weights| {
            to.trainable.clone_from(&from.trainable);
            to.statistics.clone_from(&from.statistics);
        };
        copy(&mut self.weights, &other.weights);
        self.velocity.clone_from(&other.velocity);
        match (&mut self.ema, &other.ema) {
            (Some(to), Some(from)) => copy(to, from),
            (to, from) => to.clone_from(from),
        }
    }

    /// Whether all vectors have the layout of `table`.
    ///
    /// # Errors
    /// One that has another length.
    pub(crate) fn check(&self, table: &ParameterTable) -> Result<(), EngineError> {
        check_weights(table, &self.weights)?;
        check_len("velocity", table.n_trainable(), self.velocity.len())?;
        self.ema.as_ref().map_or(Ok(()), |ema| check_weights(table, ema))
    }
}

/// Whether `weights` have the layout of `table`.
///
/// # Errors
/// Another length.
pub(crate) fn check_weights(table: &ParameterTable, weights: &Weights) -> Result<(), EngineError> {
    check_len("weights", table.n_trainable(), weights.trainable.len())?;
    let n_statistics = table.n_statistics();
    Ok(check_len("running statistics", n_statistics, weights.statistics.len())?)
}

//! What the micro-batches of an update told.

use crate::exchange::Sums;
use crate::executor::{BatchResult, StepResult};
use crate::metrics::Metrics;

/// The micro-batches of an update so far; behind an exchange, those of all ranks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// How many there are.
    pub(crate) micro_batches: u32,
    /// Sum of their mean losses.
    loss: f64,
    /// Their images.
    metrics: Metrics,
}

impl Counted {
    /// Counts one more.
    pub(crate) fn add(&mut self, result: &BatchResult) {
        self.micro_batches += 1;
        self.loss += result.loss;
        self.metrics.merge(&result.metrics);
    }

    /// These counts with the vectors that are summed, for an exchange.
    pub(crate) fn sums<'a>(
        &'a mut self,
        gradients: &'a mut [f32],
        statistics: &'a mut [f32],
    ) -> Sums<'a> {
        let Counted { micro_batches, loss, metrics } = self;
        Sums { gradients, statistics, micro_batches, loss, metrics }
    }

    /// What came out of them.
    pub(crate) fn result(&self) -> StepResult {
        let Counted { micro_batches, loss, metrics } = *self;
        StepResult { micro_batches, loss: loss / f64::from(micro_batches), metrics }
    }
}

//! What ranks exchange between the gradients of an update and the update.

use std::ops::Range;

use crate::error::EngineError;
use crate::metrics::Metrics;

/// The sums of an update over the micro-batches of one rank, and then of all ranks.
#[derive(Debug)]
pub struct Sums<'a> {
    /// Gradients, in the trainable layout; zeros on a rank whose micro-batches were all left out.
    pub gradients: &'a mut [f32],
    /// The running statistics that the micro-batches would leave behind, likewise.
    pub statistics: &'a mut [f32],
    /// Micro-batches that took part.
    pub micro_batches: &'a mut u32,
    /// Their mean losses.
    pub loss: &'a mut f64,
    /// Their images, counted.
    pub metrics: &'a mut Metrics,
}

/// Sums over ranks. All ranks must end with the same bits.
pub trait Exchange {
    /// Whether there are other ranks. Without them [`Exchange::sum`] may get vectors of no length: a device keeps
    /// its sums.
    fn has_others(&self) -> bool {
        true
    }

    /// The gradients of `range` are final on this rank: an exchange of them may begin. Ranges come from
    /// the last layer to the first, each value at most once.
    fn ready(&mut self, range: Range<usize>, gradients: &[f32]);

    /// Turns the sums of this rank into those of all ranks: each value added in the order of the ranks.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    fn sum(&mut self, sums: Sums<'_>) -> Result<(), EngineError>;
}

/// One rank: there is nothing to exchange.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Exchange for Alone {
    fn has_others(&self) -> bool {
        false
    }

    fn ready(&mut self, _range: Range<usize>, _gradients: &[f32]) {}

    fn sum(&mut self, _sums: Sums<'_>) -> Result<(), EngineError> {
        Ok(())
    }
}

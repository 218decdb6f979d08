//! What ranks exchange while the gradients of a micro-batch are computed, for batch norm over all of them.

use crate::error::EngineError;

/// Gathers numbers of all ranks: batch norm with the statistics of the micro-batches of all ranks (PyTorch's
/// SyncBatchNorm, <https://docs.pytorch.org/docs/stable/generated/torch.nn.SyncBatchNorm.html>).
///
/// Micro-batch i of each rank is normalised together with micro-batch i of all others. All ranks run the same
/// network on the same executor with the same options, so that they ask for the same in the same order. A rank
/// without a micro-batch i calls [`Executor::join_norm`](crate::Executor::join_norm) in its place. A rank that
/// fails lets the others wait: whoever runs the ranks has to end them all.
pub trait NormExchange {
    /// Fills `all` with the numbers of each rank, rank 0 first: the same bits on all ranks. They are as many on
    /// all ranks. Blocks until all ranks have asked.
    ///
    /// Forward, a rank gives its number of values per channel, their means, and their sums of squared distances
    /// from the mean. Backward, it gives two sums over its values. These are for all channels of one layer, or
    /// of several layers side by side. Backward, calls come between those of
    /// [`Exchange::ready`](crate::Exchange::ready); a rank that joins without an image has none of those.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    fn gather(&mut self, own: &[f64], all: &mut Vec<f64>) -> Result<(), EngineError>;
}

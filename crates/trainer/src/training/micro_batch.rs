//! A loaded batch as executors take it.

use bninception_data::Batch;
use bninception_engine::{Images, Normaliser, TrainBatch};

use crate::config::Config;
use crate::run::state::bn_momentum;

/// Where a micro-batch lies in its run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Number of the micro-batch, counted over all updates from 0: dropout is drawn from it.
    pub(super) number: u64,
    /// Updates that were made before it; the weight of running statistics follows from them.
    pub(super) updates: u64,
}

/// `batch` at `place`, with the settings of `config`, and the weights of classes if they differ.
pub(super) fn micro_batch<'a>(
    batch: &'a Batch,
    place: Place,
    config: &Config,
    normaliser: &'a Normaliser,
    class_weights: Option<&'a [f64]>,
) -> TrainBatch<'a> {
    // The first batch takes the place of initial statistics, but not of those of a checkpoint.
    let updates = match config.train.init_from.is_empty() {
        true => place.updates,
        false => u64::MAX,
    };
    TrainBatch {
        images: Images::Levels { levels: &batch.images, normaliser },
        labels: &batch.labels,
        label_smoothing: config.train.label_smoothing,
        class_weights,
        own_share: batch.own_share,
        seed: config.train.seed,
        number: place.number,
        bn_momentum: bn_momentum(config.network.bn_momentum, updates),
    }
}

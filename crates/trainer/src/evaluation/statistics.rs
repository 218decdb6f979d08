//! Which statistics batch norm uses outside of training: one rule for `eval` and `predict`.

use bninception_engine::model::Weights;
use clap::ValueEnum;

use crate::error::Error;
use crate::run::checkpoint::Checkpoint;
use crate::terminal::text::quoted;

/// What stands for the mean and variance of a layer's inputs when a network is used (Ioffe & Szegedy
/// 2015, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Statistics {
    /// The moving averages of training: "using moving averages instead, we can track the accuracy of
    /// a model as it trains".
    Moving,
    /// Means over training mini-batches with the final weights, from `calibrate` (algorithm 2).
    Population,
}

impl Statistics {
    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Statistics::Moving => "moving",
            Statistics::Population => "population",
        }
    }
}

/// The name of `statistics`, or `none` for a network without batch norm.
pub fn name(statistics: Option<Statistics>) -> &'static str {
    statistics.map_or("none", Statistics::name)
}

/// The weights of `checkpoint` that evaluation and prediction use, with the statistics asked for, and
/// which those are: `None` for a network without batch norm. By default the population statistics if
/// the checkpoint has some.
///
/// # Errors
/// Population statistics of a checkpoint that has none.
pub fn weights(
    checkpoint: &Checkpoint,
    asked: Option<Statistics>,
) -> Result<(Weights, Option<Statistics>), Error> {
    let weights = checkpoint.state.evaluation_weights().clone();
    let path = checkpoint.path.display();
    if checkpoint.network.options.batch_norm.is_none() {
        return match asked {
            Some(Statistics::Population) => Err(Error::Usage(format!(
                "{path}: the network has no batch norm, hence no population statistics; \
                 leave out --statistics population"
            ))),
            Some(Statistics::Moving) | None => Ok((weights, None)),
        };
    }
    match (asked, &checkpoint.population) {
        (Some(Statistics::Moving), _) | (None, None) => Ok((weights, Some(Statistics::Moving))),
        (Some(Statistics::Population) | None, Some(population)) => {
            let weights = Weights { statistics: population.clone(), ..weights };
            Ok((weights, Some(Statistics::Population)))
        }
        (Some(Statistics::Population), None) => Err(Error::Usage(format!(
            "{path} holds no population statistics; make them with: bninception calibrate {}",
            quoted(&checkpoint.path)
        ))),
    }
}

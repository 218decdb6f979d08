//! Which statistics batch norm uses outside of training: one rule for `eval` and `predict`, and one for
//! the evaluations of a run.

use std::path::Path;

use bninception_engine::model::Weights;

use crate::config::EvalStatistics;
use crate::error::Error;
use crate::run::checkpoint::Checkpoint;
use crate::run::metadata::Metadata;
pub use crate::run::state::Statistics;
use crate::terminal::text::{counted, quoted};

/// An epoch of fewer updates than this is evaluated with population statistics. Moving ones with a weight
/// of 0.1 for the newest batch average over the last 19 (2 / 0.1 - 1), with weights that have changed
/// meanwhile: in an epoch of 15 steps those of more than an epoch ago still count.
pub const SHORT_EPOCH_STEPS: u64 = 50;

/// The statistics of evaluation inside a run whose epochs have `steps_per_epoch` updates. With `Auto`,
/// what [`lag`] finds comes on top.
pub fn chosen(setting: EvalStatistics, steps_per_epoch: u64) -> Statistics {
    match setting {
        EvalStatistics::Moving => Statistics::Moving,
        EvalStatistics::Population => Statistics::Population,
        EvalStatistics::Auto if steps_per_epoch < SHORT_EPOCH_STEPS => Statistics::Population,
        EvalStatistics::Auto => Statistics::Moving,
    }
}

/// Whether a validation loss under moving statistics shows that they lag: it lies above that of a guess,
/// ln(classes), and above twice the loss of training in the same epoch. Not a number is above all.
pub fn lag(val_loss: f64, train_loss: f64, classes: usize) -> bool {
    let most = (classes as f64).ln().max(2.0 * train_loss);
    val_loss.is_nan() || val_loss > most
}

/// The name of `statistics`, or `none` for a network without batch norm.
pub fn name(statistics: Option<Statistics>) -> &'static str {
    statistics.map_or("none", Statistics::name)
}

/// Why a loss may be far above that of guessing, with these statistics of batch norm.
pub fn reason_for_loss(statistics: Option<Statistics>) -> &'static str {
    match statistics {
        Some(Statistics::Moving) => {
            "wrong answers are given as certain: batch norm's moving averages may lag behind the weights, \
             as in short runs; population statistics do not, make them with `bninception calibrate`"
        }
        Some(Statistics::Population) | None => {
            "wrong answers are given as certain: training may have gone astray; try a lower \
             optimizer.lr or more schedule.warmup_epochs"
        }
    }
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
    let weights = checkpoint.state.model.evaluation_weights().clone();
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
    match (asked, &checkpoint.state.population) {
        (Some(Statistics::Moving), _) => Ok((weights, Some(Statistics::Moving))),
        (None, None) => {
            if let Some(note) = lag_note(checkpoint) {
                tracing::warn!("{note}");
            }
            Ok((weights, Some(Statistics::Moving)))
        }
        (Some(Statistics::Population) | None, Some(population)) => {
            let weights = Weights { statistics: population.statistics.clone(), ..weights };
            Ok((weights, Some(Statistics::Population)))
        }
        (Some(Statistics::Population), None) => Err(Error::Usage(format!(
            "{path} holds no population statistics; make them with: bninception calibrate {}",
            quoted(&checkpoint.path)
        ))),
    }
}

/// What is to be said of a checkpoint whose moving statistics are all that it has although its run is
/// one for population statistics: one that was saved inside an epoch, or by an earlier program.
pub fn lag_note(checkpoint: &Checkpoint) -> Option<String> {
    let Metadata { config, step, steps_per_epoch, trained_image_size, .. } = &checkpoint.metadata;
    let has_norm = checkpoint.network.options.batch_norm.is_some();
    if !has_norm || checkpoint.state.population.is_some() || *step == 0 {
        return None;
    }
    // Of another size they are no better without the lag: [`StatisticsSizes::note`] says what to do.
    if trained_image_size.is_some() {
        return None;
    }
    let reason =
        match (chosen(EvalStatistics::Auto, *steps_per_epoch), config.train.eval_statistics) {
            (Statistics::Population, _) => {
                format!("which lag in epochs of {}", counted(*steps_per_epoch, "step"))
            }
            (_, EvalStatistics::Population) => "and its run is evaluated with others".to_owned(),
            _ => return None,
        };
    Some(format!(
        "{} holds moving statistics of batch norm alone, {reason}; for better ones: bninception \
         calibrate {}",
        checkpoint.path.display(),
        quoted(&checkpoint.path)
    ))
}

/// The image sizes that the statistics of a checkpoint were taken at, in pixels.
#[derive(Clone, Copy, Debug)]
pub struct StatisticsSizes {
    moving: usize,
    population: usize,
}

impl StatisticsSizes {
    /// Those of a checkpoint as it was stored.
    pub fn of(metadata: &Metadata) -> StatisticsSizes {
        let own = metadata.preprocessing.image_size;
        StatisticsSizes { moving: metadata.trained_image_size.unwrap_or(own), population: own }
    }

    /// What is to be said where the checkpoint at `path` is used at `image_size` with `statistics` of another
    /// size: objects look larger or smaller there, and so do the responses of filters.
    pub fn note(
        self,
        path: &Path,
        statistics: Option<Statistics>,
        image_size: usize,
    ) -> Option<String> {
        let taken_at = match statistics? {
            Statistics::Moving => self.moving,
            Statistics::Population => self.population,
        };
        (taken_at != image_size).then(|| {
            format!(
                "{} is evaluated at {image_size} px with batch norm statistics of {taken_at} px; make others \
                 with: bninception calibrate {} --image-size {image_size}",
                path.display(),
                quoted(path)
            )
        })
    }
}

/// [`StatisticsSizes::note`] of a checkpoint that is used at its own size.
pub fn size_note(checkpoint: &Checkpoint, statistics: Option<Statistics>) -> Option<String> {
    let metadata = &checkpoint.metadata;
    let image_size = metadata.preprocessing.image_size;
    StatisticsSizes::of(metadata).note(&checkpoint.path, statistics, image_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_epochs_take_population_statistics() {
        use EvalStatistics::{Auto, Moving, Population};
        for (setting, steps_per_epoch, expected) in [
            (Auto, 1, Statistics::Population),
            (Auto, 49, Statistics::Population),
            (Auto, 50, Statistics::Moving),
            (Auto, u64::MAX, Statistics::Moving),
            (Moving, 1, Statistics::Moving),
            (Population, 50_000, Statistics::Population),
        ] {
            assert_eq!(
                chosen(setting, steps_per_epoch),
                expected,
                "{setting:?}, {steps_per_epoch}"
            );
        }
    }

    #[test]
    fn moving_statistics_lag_above_a_guess_and_twice_the_training_loss() {
        // Two classes: a guess has 0.693; ten: 2.303.
        for (val_loss, train_loss, classes, lags) in [
            (0.69, 0.1, 2, false), // no worse than a guess
            (0.70, 0.1, 2, true),
            (1.30, 0.66, 2, false), // training is no better
            (1.33, 0.66, 2, true),
            (2.30, 0.5, 10, false),
            (2.31, 0.5, 10, true),
            (1e30, 0.5, 10, true),
            (f64::INFINITY, 0.5, 10, true),
            (f64::NAN, 0.5, 10, true),
            // No training image was counted: a guess alone decides.
            (2.31, f64::NAN, 10, true),
            (2.29, f64::NAN, 10, false),
        ] {
            let found = lag(val_loss, train_loss, classes);
            assert_eq!(found, lags, "{val_loss} after {train_loss}, {classes} classes");
        }
    }
}

//! The validation images under the present weights, with the statistics of batch norm that fit them.

use std::sync::Arc;
use std::time::Instant;

use bninception_engine::EvaluationWeights;

use crate::config::EvalStatistics;
use crate::error::Error;
use crate::evaluation::calibrate::{self, population_statistics};
use crate::evaluation::evaluate::{Evaluation, evaluate};
use crate::evaluation::statistics::{self, Statistics};
use crate::run::state::Population;
use crate::setup;
use crate::terminal::loss::loss_number;
use crate::training::session::Session;

/// An evaluation, and what it was made with.
pub(super) struct Validation {
    pub(super) evaluation: Evaluation,
    /// `None` without batch norm.
    pub(super) statistics: Option<Statistics>,
    /// How long it took, statistics included.
    pub(super) seconds: f64,
}

/// Evaluates the present weights, if there are validation images, by `train.eval_statistics`. Leaves the
/// population statistics that it used with the run, for the checkpoint behind it; without validation
/// images too, because then nobody has seen yet what the others are worth.
///
/// # Errors
/// An executor or loader that fails, or a signal that asks to stop.
pub(super) fn validate(run: &mut Session<'_>) -> Result<Option<Validation>, Error> {
    let start = Instant::now();
    let job = run.job;
    let options = &job.network.options;
    let setting = job.config.train.eval_statistics;
    let chosen =
        options.batch_norm.map(|_| statistics::chosen(setting, run.course.steps_per_epoch));
    run.population = match chosen {
        Some(Statistics::Population) => estimate(run)?,
        Some(Statistics::Moving) | None => None,
    };
    if job.val.is_empty() {
        return Ok(None);
    }
    let mut evaluation = evaluate_images(run)?;
    if chosen == Some(Statistics::Moving) && setting == EvalStatistics::Auto {
        let train_loss = run.progress.epoch_metrics.loss().unwrap_or(f64::NAN);
        if statistics::lag(evaluation.loss(), train_loss, options.classes) {
            run.population = estimate(run)?;
            if run.population.is_some() {
                tracing::info!(
                    "the moving statistics of batch norm lag: under them the validation loss is {}, that \
                     of training {}; evaluated again with population statistics",
                    loss_number(evaluation.loss()),
                    loss_number(train_loss)
                );
                evaluation = evaluate_images(run)?;
            }
        }
    }
    let used = match run.population {
        Some(_) => Statistics::Population,
        None => Statistics::Moving,
    };
    let statistics = chosen.map(|_| used);
    Ok(Some(Validation { evaluation, statistics, seconds: start.elapsed().as_secs_f64() }))
}

fn evaluate_images(run: &mut Session<'_>) -> Result<Evaluation, Error> {
    let job = run.job;
    let options = setup::load_options(&job.config, setup::val_batch_size(&job.config));
    let weights = match &run.population {
        Some(population) => EvaluationWeights::HeldWith(&population.statistics),
        None => EvaluationWeights::Held,
    };
    let val = Arc::clone(&job.val);
    evaluate(run.executor, weights, val, &job.preprocessing, &options, run.ranks)
}

/// Population statistics of the weights that evaluation uses; `None` where none can be had, which is
/// said and ends no run.
fn estimate(run: &mut Session<'_>) -> Result<Option<Population>, Error> {
    let (job, config) = (run.job, &run.job.config);
    let batch_size = config.train.batch_size;
    let n_batches = calibrate::n_batches_while_training(batch_size, job.train.len());
    run.executor.prepare_evaluation(EvaluationWeights::Held)?;
    let calibrated = population_statistics(
        run.executor,
        Arc::clone(&job.train),
        &job.preprocessing,
        &setup::load_options(config, batch_size),
        &calibrate::plan(config, config.train.seed, n_batches),
        run.ranks,
    );
    match calibrated {
        Ok(calibrated) => Ok(Some(calibrated.population)),
        Err(Error::Unusable(reason)) => {
            tracing::warn!("evaluated with moving statistics, for want of others: {reason}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

//! The end of an epoch: its evaluation and its row.

use crate::error::Error;
use crate::run::records::{EvaluatedWeights, Record, SummaryRow};
use crate::run::state::EvaluationResult;
use crate::terminal::loss::{loss_number, loss_text};
use crate::terminal::text::{duration, has_top5, percent};
use crate::training::event_images::show_evaluation;
use crate::training::session::Session;
use crate::training::validation::{Validation, validate};

/// Evaluates the present weights if there are validation images, and updates the best result.
/// A signal meanwhile saves the state as it was before.
pub(super) fn evaluate_now(run: &mut Session<'_>) -> Result<Option<EvaluationResult>, Error> {
    let (job, step) = (run.job, run.progress.step);
    let validation = match validate(run) {
        Err(Error::Interrupted { name, signal }) => {
            run.population = None;
            run.save_now()?;
            run.ranks.wait_for_all()?;
            return Err(Error::Stopped { name, signal, step, run: job.folder.path().to_owned() });
        }
        outcome => outcome?,
    };
    run.progress.evaluated_step = Some(step);
    let Some(Validation { evaluation, statistics, seconds }) = validation else {
        return Ok(None);
    };
    for failure in &evaluation.failed {
        tracing::warn!("counted as wrong: {}", failure.error);
    }
    let best_by = job.config.checkpoint.best_by;
    let result = evaluation.to_result(step, Some(run.course.epoch_number(step)), statistics);
    let record = Record::Eval {
        step,
        epoch: run.course.epoch(step),
        weights: match job.config.train.keeps_average() {
            true => EvaluatedWeights::Ema,
            false => EvaluatedWeights::Model,
        },
        statistics,
        images: result.images,
        failed: result.failed,
        loss: evaluation.loss(),
        top1: result.top1,
        top5: result.top5,
        balanced: evaluation.balanced_accuracy(),
        seconds,
    };
    run.record(&record);
    if result.beats(run.progress.best, best_by) {
        run.progress.best = Some(result);
    }
    run.progress.evaluation = Some(result);
    show_evaluation(run, &evaluation);
    Ok(Some(result))
}

/// Writes the row of an epoch and says how it went.
pub(super) fn end_epoch(run: &mut Session<'_>, evaluation: Option<EvaluationResult>) {
    let lr = run.learning_rate(run.progress.step - 1);
    let n_classes = run.job.classes.len();
    let Session { progress, course, files, .. } = run;
    let metrics = std::mem::take(&mut progress.epoch_metrics);
    let seconds = progress.seconds - progress.epoch_start_seconds;
    progress.epoch_start_seconds = progress.seconds;
    let epoch = course.epoch_number(progress.step);
    let row = SummaryRow {
        epoch,
        step: progress.step,
        lr,
        train_loss: metrics.loss().unwrap_or(f64::NAN),
        train_top1: metrics.top1().unwrap_or(f64::NAN),
        val_loss: evaluation.and_then(|result| result.loss),
        val_top1: evaluation.map(|result| result.top1),
        val_top5: evaluation.map(|result| result.top5),
        seconds,
    };
    if let Some(files) = files {
        files.journal.epoch(&row);
    }
    let is_best = progress.best.is_some_and(|best| best.step == progress.step);
    let n_epochs = course.last_epoch();
    let validation = evaluation.map_or("no validation images".to_owned(), |result| {
        format!(
            "val loss {} top-1 {}{}{}",
            loss_text(result.loss.unwrap_or(f64::NAN), n_classes),
            percent(result.top1),
            match has_top5(n_classes) {
                true => format!(" top-5 {}", percent(result.top5)),
                false => String::new(),
            },
            match result.loss {
                None => " (no finite loss: never the best)",
                Some(_) if is_best => " (best)",
                Some(_) => "",
            }
        )
    });
    let eta = match progress.step >= course.total_steps || course.is_stopped_early(progress) {
        true => String::new(),
        false => format!(", {} left", duration(run.seconds_left())),
    };
    tracing::info!(
        epoch,
        step = row.step,
        lr,
        train_loss = row.train_loss,
        train_top1 = row.train_top1,
        val_loss = row.val_loss,
        val_top1 = row.val_top1,
        val_top5 = row.val_top5,
        seconds,
        "epoch {epoch}/{n_epochs}: train loss {} top-1 {}, {validation}, lr {lr:.2e}, {}{eta}",
        loss_number(row.train_loss),
        percent(row.train_top1),
        duration(seconds),
    );
}

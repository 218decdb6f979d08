//! One update: its micro-batches, what they gave, and what may be wrong with them.

use bninception_data::Batch;
use bninception_engine::{Alone, Hooks, StepResult, Update, UpdateResult};

use crate::error::Error;
use crate::images::bad_images::bad_limit;
use crate::setup;
use crate::terminal::progress::ProgressBar;
use crate::terminal::text::{counted, quoted};
use crate::training::divergence::{self, Culprit};
use crate::training::job::{Job, Stop};
use crate::training::micro_batch::{Place, micro_batch};
use crate::training::session::{Session, no_model};

/// Makes one update of `train.accumulate` micro-batches, and counts it. Gives the reason if the run is
/// to stop before the update is made; the state is then that behind the last one.
///
/// A micro-batch of which too few images could be read is left out. An update without any changes
/// nothing.
///
/// # Errors
/// Data or executor that fails, too many images that cannot be read, a number that is not finite.
pub(super) fn step(run: &mut Session<'_>, bar: &mut ProgressBar) -> Result<Option<Stop>, Error> {
    let (job, step) = (run.job, run.progress.step);
    let config = &job.config;
    let (batch_size, accumulate) = (config.train.batch_size, config.train.accumulate);
    let lr = run.learning_rate(step);

    let mut to_watch = run.watcher.is_due(step + 1);
    let mut indices = Vec::new();
    let mut last: Option<Batch> = None;
    for micro in 0..accumulate {
        if micro > 0
            && let Some(stop) = (job.stop)(step)
        {
            return Ok(Some(stop));
        }
        let Some(batch) = run.loader.next() else {
            return Err(Error::Unusable(format!("the loader ended at step {step}")));
        };
        let batch = batch?;
        run.line.waited += batch.wait;
        count_bad_images(run, &batch)?;
        let found = batch.labels.len();
        if found < config.network.fewest_images() {
            let what = match accumulate {
                1 => format!("step {step} changes nothing"),
                _ => format!("step {step} goes without micro-batch {micro}"),
            };
            tracing::warn!(
                "{what}: {found} of {} could be read, too few to train on",
                counted(batch_size as u64, "image")
            );
            bar.advance(batch_size as u64, batch.wait);
            run.loader.recycle(batch);
            continue;
        }
        let place = Place {
            number: step * accumulate as u64 + micro as u64,
            updates: run.progress.updates(),
        };
        let weights = job.class_weights.as_deref();
        let input = micro_batch(&batch, place, config, &job.normaliser, weights);
        let result = if std::mem::take(&mut to_watch) {
            let (journal, watcher) = (&mut run.journal, &mut run.watcher);
            let mut see = |layer: &str, values: &[f32]| journal.histogram(step + 1, layer, values);
            watcher.gradients(run.executor, &input, &mut see)?
        } else {
            run.executor.gradients(&input, Hooks::default())?
        };
        bar.advance(batch_size as u64, batch.wait);
        if !result.loss.is_finite() {
            return Err(diverged(
                job,
                &batch,
                &batch.indices,
                lr,
                step,
                Culprit::Loss(result.loss),
            ));
        }
        indices.extend_from_slice(&batch.indices);
        if let Some(before) = last.replace(batch) {
            run.loader.recycle(before);
        }
    }

    let result = run.executor.exchange(&mut Alone)?;
    match last {
        None => {
            run.progress.skipped_batches += 1;
            run.line.gradient_norm = None;
        }
        Some(batch) => {
            update(run, &batch, &indices, lr)?;
            count(run, &result);
            run.loader.recycle(batch);
        }
    }
    run.progress.step += 1;
    Ok(None)
}

/// Moves the weights by what the micro-batches with these images gave.
fn update(run: &mut Session<'_>, batch: &Batch, indices: &[u32], lr: f64) -> Result<(), Error> {
    let (job, step) = (run.job, run.progress.step);
    let update = Update {
        sgd: setup::sgd(&job.config, lr, &run.lr_factors),
        clip_norm: job.config.optimizer.clip_norm,
        tell_norm: run.is_log_step(step + 1),
        ema_decay: run.course.average_decay(&job.config.train, step),
    };
    run.population = None;
    let UpdateResult { is_finite, gradient_norm } = run.executor.update(&update)?;
    run.line.gradient_norm = gradient_norm;
    let mut gradients = Vec::new();
    if run.watcher.is_due(step + 1) || !is_finite {
        run.executor.store_gradients(&mut gradients)?;
    }
    for record in run.watcher.records(step + 1, &gradients) {
        run.journal.record(&record);
    }
    if is_finite {
        return Ok(());
    }
    let mut model = no_model();
    run.executor.store(&mut model)?;
    match divergence::find(&job.table, &gradients, &model.weights) {
        Some(culprit) => Err(diverged(job, batch, indices, lr, step, culprit)),
        None => Ok(()),
    }
}

/// Adds the images of an update to those seen.
fn count(run: &mut Session<'_>, result: &StepResult) {
    run.progress.epoch_metrics.merge(&result.metrics);
    run.progress.log_metrics.merge(&result.metrics);
    run.line.images += result.metrics.images();
}

/// The error for a number that is not finite, behind a dump of the batch. `indices` are the images of
/// the update so far.
fn diverged(
    job: &Job,
    batch: &Batch,
    indices: &[u32],
    lr: f64,
    step: u64,
    culprit: Culprit,
) -> Error {
    let path = job.folder.diverged_batch(step);
    let about = divergence::About { files: job.files_of(&batch.indices), step, lr };
    if let Err(error) = divergence::dump(&path, batch, &job.normaliser, &about, &culprit) {
        tracing::warn!("the batch was not kept: {error}");
    }
    let files = job.files_of(indices);
    let mut shown: Vec<String> = files.iter().take(8).cloned().collect();
    if files.len() > shown.len() {
        shown.push(format!("and {} more", files.len() - shown.len()));
    }
    let reason = culprit.to_string().into();
    Error::Diverged { step, reason, lr, files: shown.join(", "), dump: path }
}

/// Names every training image that could not be read, once, and ends the run when there are too many.
fn count_bad_images(run: &mut Session<'_>, batch: &Batch) -> Result<(), Error> {
    for failure in &batch.failed {
        if run.progress.bad_images.insert(failure.index) {
            tracing::warn!("skipped in training: {}", failure.error);
        }
    }
    let bad = run.progress.bad_images.len();
    let limit = bad_limit(run.job.config.data.max_bad, run.job.train.len());
    if batch.failed.is_empty() || bad <= limit {
        return Ok(());
    }
    run.save_now()?;
    Err(Error::Unusable(format!(
        "{bad} training images could not be read, more than the {limit} that data.max_bad and the \
         size of the data set allow; the run is saved: mend the files named above, then go on with: \
         bninception resume {}",
        quoted(run.job.folder.path())
    )))
}

//! One update: its micro-batches, what they gave, and what may be wrong with them.

use bninception_data::Batch;
use bninception_engine::{Exchange, Hooks, NormExchange, StepResult, Update, UpdateResult};

use crate::distributed::exchange::StepExchange;
use crate::distributed::failures::{self, ToldFailures};
use crate::distributed::norm::NormOverRanks;
use crate::distributed::report::{Divergence, Report};
use crate::error::Error;
use crate::images::bad_images::bad_limit;
use crate::run::stop::Stop;
use crate::setup;
use crate::terminal::progress::ProgressBar;
use crate::terminal::text::{counted, quoted};
use crate::training::divergence::{self, Culprit};
use crate::training::job::Job;
use crate::training::micro_batch::{Place, micro_batch};
use crate::training::session::{Session, no_model};

/// Makes one update of `train.accumulate` micro-batches of each rank, and counts it. Gives the reason if the run is
/// to stop: of one process before the update is made, so that the state is that behind the last one; of several
/// behind it, when all have heard of the reason.
///
/// A micro-batch of which too few images could be read is left out. An update without any changes
/// nothing.
///
/// # Errors
/// Data or executor that fails, too many images that cannot be read, a number that is not finite.
pub(super) fn step(run: &mut Session<'_>, bar: &mut ProgressBar) -> Result<Option<Stop>, Error> {
    let (job, step) = (run.job, run.progress.step);
    let lr = run.learning_rate(step);
    let mut part = Part::default();
    if run.ranks.are_many() {
        run.ranks.at(&format!("update {}", step + 1));
        part.report.stop = (job.stop)(step);
    }
    for micro in 0..job.config.train.accumulate {
        if micro > 0
            && !run.ranks.are_many()
            && let Some(stop) = (job.stop)(step)
        {
            return Ok(Some(stop));
        }
        add_micro_batch(run, bar, &mut part, micro)?;
        // With batch norm over all ranks, the others wait for this one in each micro-batch.
        if part.report.divergence.is_some() && !run.synchronises_norm() {
            break;
        }
    }

    let Part { last, indices, report, diverged } = part;
    let mut exchange = StepExchange::new(run.ranks, &mut run.buckets, report);
    let result = run.executor.exchange(&mut exchange)?;
    let reports = exchange.into_reports();
    let failed = reports.iter().flat_map(|report| report.failed.iter().cloned());
    count_bad_images(run, &failed.collect())?;
    if let Some(rank) = reports.iter().position(|report| report.divergence.is_some()) {
        let found = reports[rank].divergence.clone().unwrap_or_default();
        let own = diverged.filter(|_| rank == run.ranks.share().rank);
        let own = own.as_ref().map(|(batch, culprit)| (batch, culprit.clone()));
        return Err(diverged_with(job, own, found, (step, lr)));
    }
    match result.micro_batches {
        0 => {
            run.progress.skipped_batches += 1;
            run.line.gradient_norm = None;
        }
        _ => {
            update(run, last.as_ref(), &indices, lr)?;
            count(run, &result);
        }
    }
    if let Some(batch) = last {
        run.loader.recycle(batch);
    }
    run.progress.step += 1;
    Ok(reports.iter().find_map(|report| report.stop))
}

/// What this process has of an update.
#[derive(Default)]
struct Part {
    /// The last micro-batch that took part.
    last: Option<Batch>,
    /// The images of all that did.
    indices: Vec<u32>,
    /// What the other ranks need to know.
    report: Report,
    /// The first micro-batch whose loss was not finite, and what was not.
    diverged: Option<(Batch, Culprit)>,
}

/// Adds the gradients of the next micro-batch, `micro` of this process in its update.
fn add_micro_batch(
    run: &mut Session<'_>,
    bar: &mut ProgressBar,
    part: &mut Part,
    micro: usize,
) -> Result<(), Error> {
    let (job, step) = (run.job, run.progress.step);
    let config = &job.config;
    let (batch_size, accumulate) = (config.train.batch_size, config.train.accumulate);
    let Some(batch) = run.loader.next() else {
        return Err(Error::Unusable(format!("the loader ended at step {step}")));
    };
    let batch = batch?;
    run.line.waited += batch.wait;
    let failed = failures::told(&batch.failed);
    match run.ranks.are_many() {
        true => part.report.failed.extend(failed),
        false => count_bad_images(run, &failed)?,
    }
    let found = batch.labels.len();
    bar.advance((batch_size * config.train.ranks) as u64, batch.wait);
    // Micro-batches of all ranks count on, as those of one process do.
    let number = step * config.train.micro_batches_per_update() as u64
        + (run.ranks.share().rank * accumulate + micro) as u64;
    if found < config.network.fewest_images() {
        let what = match config.train.micro_batches_per_update() {
            1 => format!("step {step} changes nothing"),
            n => format!("step {step} goes without micro-batch {}", number % n as u64),
        };
        tracing::warn!(
            "{what}: {found} of {} could be read, too few to train on",
            counted(batch_size as u64, "image")
        );
        run.loader.recycle(batch);
        if run.synchronises_norm() {
            run.executor.join_norm(&mut NormOverRanks(run.ranks))?;
        }
        return Ok(());
    }
    let place = Place { number, updates: run.progress.updates() };
    let weights = job.class_weights.as_deref();
    let input = micro_batch(&batch, place, config, &job.normaliser, weights);
    let to_watch = part.last.is_none() && run.watcher.is_due(step + 1);
    let is_last = micro + 1 == accumulate;
    let is_synchronised = run.synchronises_norm();
    let mut norm = NormOverRanks(run.ranks);
    let result = match (&mut run.files, to_watch) {
        (Some(files), true) => {
            let mut see =
                |layer: &str, values: &[f32]| files.journal.histogram(step + 1, layer, values);
            let norm = is_synchronised.then_some(&mut norm as &mut dyn NormExchange);
            run.watcher.gradients(run.executor, &input, norm, &mut see)?
        }
        // A rank without images joins in the sums of batch norm, but has no gradients that could travel between
        // them: ranks would call in different orders.
        _ if is_synchronised => {
            let norm = Some(&mut norm as &mut dyn NormExchange);
            run.executor.gradients(&input, Hooks { norm, ..Hooks::default() })?
        }
        _ => {
            // The last gradients may travel while the others are computed.
            let NormOverRanks(ranks) = norm;
            let mut exchange = StepExchange::new(ranks, &mut run.buckets, Report::default());
            let exchange = is_last.then_some(&mut exchange as &mut dyn Exchange);
            run.executor.gradients(&input, Hooks { exchange, ..Hooks::default() })?
        }
    };
    if !result.loss.is_finite() {
        if part.diverged.is_none() {
            let culprit = Culprit::Loss(result.loss);
            let files = job.files_of(&batch.indices);
            part.report.divergence = Some(Divergence::of(&culprit, &files));
            part.diverged = Some((batch, culprit));
        }
        return Ok(());
    }
    part.indices.extend_from_slice(&batch.indices);
    if let Some(before) = part.last.replace(batch) {
        run.loader.recycle(before);
    }
    Ok(())
}

/// Moves the weights by what the micro-batches of all ranks gave; those of this one had the images `indices`.
fn update(
    run: &mut Session<'_>,
    batch: Option<&Batch>,
    indices: &[u32],
    lr: f64,
) -> Result<(), Error> {
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
        run.record(&record);
    }
    if is_finite {
        return Ok(());
    }
    let mut model = no_model();
    run.executor.store(&mut model)?;
    // All ranks have the same numbers, and find the same.
    let Some(culprit) = divergence::find(&job.table, &gradients, &model.weights) else {
        return Ok(());
    };
    let files = run.ranks.gather(job.files_of(indices))?.concat();
    let found = Divergence::of(&culprit, &files);
    let own = batch.filter(|_| run.ranks.is_first()).zip(Some(culprit));
    Err(diverged_with(job, own, found, (step, lr)))
}

/// Adds the images of an update to those seen.
fn count(run: &mut Session<'_>, result: &StepResult) {
    run.progress.epoch_metrics.merge(&result.metrics);
    run.progress.log_metrics.merge(&result.metrics);
    run.line.images += result.metrics.images();
}

/// The error for a number that is not finite, behind a dump of its batch by the process that has that.
fn diverged_with(
    job: &Job,
    own: Option<(&Batch, Culprit)>,
    found: Divergence,
    (step, lr): (u64, f64),
) -> Error {
    let dump = job.folder.diverged_batch(step);
    if let Some((batch, culprit)) = own {
        let about = divergence::About { files: job.files_of(&batch.indices), step, lr };
        if let Err(error) = divergence::dump(&dump, batch, &job.normaliser, &about, &culprit) {
            tracing::warn!("the batch was not kept: {error}");
        }
    }
    let Divergence { reason, files } = found;
    Error::Diverged { step, reason: reason.into(), lr, files, dump }
}

/// Names every training image that could not be read, once, and ends the run when there are too many.
fn count_bad_images(run: &mut Session<'_>, failed: &ToldFailures) -> Result<(), Error> {
    if failed.is_empty() {
        return Ok(());
    }
    for (index, error) in failed {
        if run.progress.bad_images.insert(*index) {
            tracing::warn!("skipped in training: {error}");
        }
    }
    let bad = run.progress.bad_images.len();
    let limit = bad_limit(run.job.config.data.max_bad, run.job.train.len());
    if bad <= limit {
        return Ok(());
    }
    run.save_now()?;
    run.ranks.wait_for_all()?;
    Err(Error::Unusable(format!(
        "{bad} training images could not be read, more than the {limit} that data.max_bad and the \
         size of the data set allow; the run is saved: mend the files named above, then go on with: \
         bninception resume {}",
        quoted(run.job.folder.path())
    )))
}

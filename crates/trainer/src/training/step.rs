//! One update: its micro-batches, what they gave, and what may be wrong with them.

use bninception_data::Batch;
use bninception_engine::{
    Exchange, Fate, Finished, Hooks, NormExchange, StepResult, TrainBatch, Update, UpdateResult,
};

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
use crate::training::course::Course;
use crate::training::divergence::{self, Culprit};
use crate::training::event_images::show_first_images;
use crate::training::in_flight::Over;
use crate::training::job::Job;
use crate::training::micro_batch::{Place, micro_batch};
use crate::training::session::{Session, UpdatePlace, no_model};

/// Makes one update of `train.accumulate` micro-batches of each rank, and counts it. Gives the reason if the run is
/// to stop: of one process before the update is made, so that the state is that behind the last one; of several
/// behind it, when all have heard of the reason. On a device the update is started, where that is possible, and
/// counted when it is over: [`finish_started`].
///
/// A micro-batch of which too few images could be read is left out. An update without any changes
/// nothing.
///
/// # Errors
/// Data or executor that fails, too many images that cannot be read, a number that is not finite.
pub(super) fn step(run: &mut Session<'_>, bar: &mut ProgressBar) -> Result<Option<Stop>, Error> {
    let (job, at) = (run.job, run.next_place());
    if can_be_started(run) {
        start(run, bar, at)?;
        return Ok(None);
    }
    finish_started(run)?;
    let mut part = Part::default();
    if run.ranks.are_many() {
        run.ranks.at(&format!("update {}", at.step + 1));
        part.report.stop = (job.stop)(at.step);
    }
    for micro in 0..job.config.train.accumulate {
        if micro > 0
            && !run.ranks.are_many()
            && let Some(stop) = (job.stop)(at.step)
        {
            return Ok(Some(stop));
        }
        match next_batch(run, bar, &mut part, micro)? {
            Some(batch) => add_gradients(run, &mut part, batch, at, micro)?,
            None if run.synchronises_norm() => {
                run.executor.join_norm(&mut NormOverRanks(run.ranks))?;
            }
            None => {}
        }
        // With batch norm over all ranks, the others wait for this one in each micro-batch.
        if part.report.divergence.is_some() && !run.synchronises_norm() {
            break;
        }
    }
    let reports = end_update(run, part, at)?;
    run.progress.step += 1;
    Ok(reports.iter().find_map(|report| report.stop))
}

/// Exchanges and applies the gradients of an update, and counts it. Gives what all ranks reported.
fn end_update(run: &mut Session<'_>, part: Part, at: UpdatePlace) -> Result<Vec<Report>, Error> {
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
        return Err(diverged_with(run.job, own, found, at));
    }
    match result.micro_batches {
        0 => {
            run.progress.skipped_batches += 1;
            run.line.gradient_norm = None;
        }
        _ => {
            update(run, last.as_ref(), &indices, at)?;
            count(run, &result);
        }
    }
    if let Some(batch) = last {
        run.loader.recycle(batch);
    }
    Ok(reports)
}

/// Whether the next update can be started without waiting for it: it has one micro-batch, of one process, and
/// nobody looks on.
fn can_be_started(run: &mut Session<'_>) -> bool {
    !run.ranks.are_many()
        && run.job.config.train.accumulate == 1
        && !run.watcher.is_due(run.progress.step + 1)
        && run.executor.pipeline().is_some()
}

/// Starts an update, and counts those that are over by now.
fn start(run: &mut Session<'_>, bar: &mut ProgressBar, at: UpdatePlace) -> Result<(), Error> {
    let job = run.job;
    match next_batch(run, bar, &mut Part::default(), 0)? {
        Some(batch) => {
            run.population = None;
            let input = input(job, &batch, at, number(job, 0, at.step, 0));
            let tell_norm = run.is_log_step(at.step + 1);
            let update = update_of(job, &run.course, &run.lr_factors, at, tell_norm);
            if let Some(pipeline) = run.executor.pipeline() {
                pipeline.start(&input, &update)?;
            }
            run.in_flight.push((batch, at));
        }
        None => {
            finish_started(run)?;
            run.progress.skipped_batches += 1;
            run.line.gradient_norm = None;
        }
    }
    run.progress.step += 1;
    count_finished(run, false)
}

/// Waits for all updates that were started, so that state and counters are those behind the last of them.
///
/// # Errors
/// One of them met a number that is not finite, or a device that fails.
pub(super) fn finish_started(run: &mut Session<'_>) -> Result<(), Error> {
    match run.in_flight.is_empty() {
        true => Ok(()),
        false => count_finished(run, true),
    }
}

/// Counts the updates that are over. Those that changed nothing are made again, one by one: the first of them finds
/// the number that is not finite, and where it comes from.
fn count_finished(run: &mut Session<'_>, wait: bool) -> Result<(), Error> {
    let Some(pipeline) = run.executor.pipeline() else { return Ok(()) };
    let mut finished = pipeline.finished(wait)?;
    if finished.iter().any(|told| told.fate != Fate::Done) {
        finished.extend(pipeline.finished(true)?);
    }
    for over in run.in_flight.over(finished) {
        match over {
            Over::Done((batch, _), told) => count_started(run, batch, &told),
            Over::Broken((batch, at), told) => {
                // Loss and norm were finite, so the gradient was; what is there now may be that of a later update.
                find_culprit(run, None, Some(&batch), &batch.indices, at)?;
                count_started(run, batch, &told);
            }
            Over::Unmade((batch, at)) => {
                let mut part = Part::default();
                add_gradients(run, &mut part, batch, at, 0)?;
                end_update(run, part, at)?;
            }
        }
    }
    Ok(())
}

fn count_started(run: &mut Session<'_>, batch: Batch, told: &Finished) {
    run.line.gradient_norm = told.update.gradient_norm;
    count(run, &told.step);
    run.loader.recycle(batch);
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

/// The next micro-batch, `micro` of this process in its update; `None` if too few of its images could be read.
fn next_batch(
    run: &mut Session<'_>,
    bar: &mut ProgressBar,
    part: &mut Part,
    micro: usize,
) -> Result<Option<Batch>, Error> {
    let (job, step) = (run.job, run.progress.step);
    let config = &job.config;
    let batch_size = config.train.batch_size;
    let Some(batch) = run.loader.next() else {
        return Err(Error::Unusable(format!("the loader ended at step {step}")));
    };
    let batch = batch?;
    let wait = run.waited_for(&batch);
    run.line.waited += wait;
    show_first_images(run, &batch);
    let failed = failures::told(&batch.failed);
    match run.ranks.are_many() {
        true => part.report.failed.extend(failed),
        false => count_bad_images(run, &failed)?,
    }
    let found = batch.labels.len();
    bar.advance((batch_size * config.train.ranks) as u64, wait);
    if found < config.network.fewest_images() {
        let what = match config.train.micro_batches_per_update() {
            1 => format!("step {step} changes nothing"),
            n => {
                let number = number(job, run.ranks.share().rank, step, micro);
                format!("step {step} goes without micro-batch {}", number % n as u64)
            }
        };
        tracing::warn!(
            "{what}: {found} of {} could be read, too few to train on",
            counted(batch_size as u64, "image")
        );
        run.loader.recycle(batch);
        return Ok(None);
    }
    Ok(Some(batch))
}

/// The number of a micro-batch in its run. Micro-batches of all ranks count on, as those of one process do.
fn number(job: &Job, rank: usize, step: u64, micro: usize) -> u64 {
    let train = &job.config.train;
    step * train.micro_batches_per_update() as u64 + (rank * train.accumulate + micro) as u64
}

/// A micro-batch as executors take it.
fn input<'a>(job: &'a Job, batch: &'a Batch, at: UpdatePlace, number: u64) -> TrainBatch<'a> {
    let place = Place { number, updates: at.updates };
    micro_batch(batch, place, &job.config, &job.normaliser, job.class_weights.as_deref())
}

/// Adds the gradients of a micro-batch, `micro` of this process in its update.
fn add_gradients(
    run: &mut Session<'_>,
    part: &mut Part,
    batch: Batch,
    at: UpdatePlace,
    micro: usize,
) -> Result<(), Error> {
    let (job, step, accumulate) = (run.job, at.step, run.job.config.train.accumulate);
    let input = input(job, &batch, at, number(job, run.ranks.share().rank, step, micro));
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

/// How an update changes the state, with factors on the learning rate of each tensor.
fn update_of<'a>(
    job: &Job,
    course: &Course,
    lr_factors: &'a [f64],
    at: UpdatePlace,
    tell_norm: bool,
) -> Update<'a> {
    let config = &job.config;
    Update {
        sgd: setup::sgd(config, at.lr, lr_factors),
        clip_norm: config.optimizer.clip_norm,
        tell_norm,
        ema_decay: course.average_decay(&config.train, at.step),
    }
}

/// Moves the weights by what the micro-batches of all ranks gave; those of this one had the images `indices`.
fn update(
    run: &mut Session<'_>,
    batch: Option<&Batch>,
    indices: &[u32],
    at: UpdatePlace,
) -> Result<(), Error> {
    let step = at.step;
    run.population = None;
    let tell_norm = run.is_log_step(step + 1);
    let update = update_of(run.job, &run.course, &run.lr_factors, at, tell_norm);
    let UpdateResult { is_finite, gradient_norm } = run.executor.update(&update)?;
    run.line.gradient_norm = gradient_norm;
    let mut gradients = Vec::new();
    if run.watcher.is_due(step + 1) || !is_finite {
        run.executor.store_gradients(&mut gradients)?;
    }
    for record in run.watcher.records(step + 1, &gradients) {
        run.record(&record);
    }
    match is_finite {
        true => Ok(()),
        false => find_culprit(run, Some(&gradients), batch, indices, at),
    }
}

/// Ends the run behind an update that left a number that is not finite, and says which: one of its gradients, where
/// they are known, or else of the state.
fn find_culprit(
    run: &mut Session<'_>,
    gradients: Option<&[f32]>,
    batch: Option<&Batch>,
    indices: &[u32],
    at: UpdatePlace,
) -> Result<(), Error> {
    let job = run.job;
    let mut model = no_model();
    run.executor.store(&mut model)?;
    // All ranks have the same numbers, and find the same.
    let Some(culprit) = divergence::find(&job.table, gradients, &model.weights) else {
        return Ok(());
    };
    let files = run.ranks.gather(job.files_of(indices))?.concat();
    let found = Divergence::of(&culprit, &files);
    let own = batch.filter(|_| run.ranks.is_first()).zip(Some(culprit));
    Err(diverged_with(job, own, found, at))
}

/// Adds the images of an update to those seen.
fn count(run: &mut Session<'_>, result: &StepResult) {
    run.progress.epoch_metrics.merge(&result.metrics);
    run.progress.log_metrics.merge(&result.metrics);
    run.recent.push(&result.metrics);
    run.line.images += result.metrics.images();
}

/// The error for a number that is not finite, behind a dump of its batch by the process that has that.
fn diverged_with(
    job: &Job,
    own: Option<(&Batch, Culprit)>,
    found: Divergence,
    UpdatePlace { step, lr, .. }: UpdatePlace,
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
    finish_started(run)?;
    run.save_now()?;
    run.ranks.wait_for_all()?;
    Err(Error::Unusable(format!(
        "{bad} training images could not be read, more than the {limit} that data.max_bad and the \
         size of the data set allow; the run is saved: mend the files named above, then go on with: \
         bninception resume {}",
        quoted(run.job.folder.path())
    )))
}

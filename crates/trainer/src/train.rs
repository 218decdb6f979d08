//! The training loop.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bninception_data::{Batch, Loader, Source};
use bninception_engine::model::{Network, ParameterTable};
use bninception_engine::{Executor, TrainBatch};

use crate::checkpoint::{FORMAT_VERSION, Metadata};
use crate::config::Config;
use crate::error::Error;
use crate::evaluate::evaluate;
use crate::metrics::Metrics;
use crate::progress::{Progress, duration};
use crate::run_folder::RunFolder;
use crate::run_log::{MetricsLog, Record, Summary, SummaryRow, Weights};
use crate::schedule::learning_rate;
use crate::state::{EvaluationResult, TrainState, ema_decay, update_ema};
use crate::tensorboard::EventWriter;
use crate::{setup, signals};

/// What a run works on.
pub struct Job {
    /// All settings.
    pub config: Config,
    /// Class names, in the order of the labels.
    pub classes: Vec<String>,
    /// Training images.
    pub train: Arc<dyn Source>,
    /// Validation images; may be empty.
    pub val: Arc<dyn Source>,
    /// Where results go.
    pub folder: RunFolder,
    /// The network.
    pub network: Network,
    /// Its tensors.
    pub table: ParameterTable,
}

impl Job {
    /// Batches of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        setup::steps(&self.config, self.train.len()).0
    }

    /// Updates of the whole run.
    pub fn total_steps(&self) -> u64 {
        setup::steps(&self.config, self.train.len()).1
    }

    /// What a checkpoint of `state` says about itself.
    fn metadata(&self, state: &TrainState) -> Metadata {
        let (step, steps_per_epoch) = (state.progress.step, self.steps_per_epoch());
        Metadata {
            format_version: FORMAT_VERSION,
            program: concat!("bninception ", env!("CARGO_PKG_VERSION")).to_owned(),
            classes: self.classes.clone(),
            preprocessing: setup::preprocessing(&self.config),
            config: self.config.clone(),
            step,
            epoch: step / steps_per_epoch,
            position: step % steps_per_epoch,
            steps_per_epoch,
            progress: state.progress.clone(),
        }
    }
}

/// The files that a run writes besides checkpoints.
struct Journal {
    metrics: MetricsLog,
    summary: Summary,
    events: Option<EventWriter>,
}

impl Journal {
    /// Opens the files, and cuts what lies behind `step`: rows of steps that will be done again.
    fn open(job: &Job, state: &TrainState) -> Result<Journal, Error> {
        let Job { folder, config, .. } = job;
        let step = state.progress.step;
        let wrap = |path: &Path| Error::io("write", path);
        let path = folder.metrics();
        let mut metrics = MetricsLog::open(&path).map_err(wrap(&path))?;
        // A state saved behind an epoch's last step but before its evaluation makes that again.
        let pending = state.progress.evaluated_step != Some(step);
        metrics.truncate_after(step, !pending).map_err(wrap(&path))?;
        let path = folder.summary();
        let mut summary = Summary::open(&path).map_err(wrap(&path))?;
        let rows_until = if pending { step.saturating_sub(1) } else { step };
        summary.truncate_after(rows_until).map_err(wrap(&path))?;
        let events = match config.log.tensorboard {
            true => {
                let path = folder.tensorboard();
                Some(EventWriter::create(&path, wall_time(), step).map_err(wrap(&path))?)
            }
            false => None,
        };
        Ok(Journal { metrics, summary, events })
    }

    fn record(&mut self, folder: &RunFolder, record: &Record) -> Result<(), Error> {
        let path = folder.metrics();
        self.metrics.write(record).map_err(Error::io("write", &path))?;
        let Some(events) = &mut self.events else { return Ok(()) };
        let written = match *record {
            Record::Train { step, loss, top1, lr, images_per_second, data_wait, .. } => {
                let scalars = [
                    ("train/loss", loss),
                    ("train/top1", top1),
                    ("train/lr", lr),
                    ("train/images_per_second", images_per_second),
                    ("train/data_wait", data_wait),
                ];
                events.scalars(wall_time(), step, &scalars)
            }
            Record::Eval { step, loss, top1, top5, .. } => {
                let scalars = [("val/loss", loss), ("val/top1", top1), ("val/top5", top5)];
                events.scalars(wall_time(), step, &scalars)
            }
        };
        written.map_err(Error::io("write", &folder.tensorboard()))
    }
}

/// Trains from `state` to the end of the run and returns the final state.
///
/// # Errors
/// A loss that is not finite; data, executor or disk that fails; a signal, behind a checkpoint.
pub fn train(
    job: &Job,
    executor: &mut dyn Executor,
    mut state: TrainState,
) -> Result<TrainState, Error> {
    let Job { config, folder, table, .. } = job;
    let (steps_per_epoch, total_steps) = (job.steps_per_epoch(), job.total_steps());
    let batch_size = config.train.batch_size;

    // ---- Loader and files, from the state's step on
    let plan = setup::train_plan(config, state.progress.step..total_steps);
    let preprocessing = setup::preprocessing(config);
    let options = setup::load_options(config, batch_size);
    let mut loader = Loader::train(Arc::clone(&job.train), &preprocessing, &options, &plan)?;
    let mut journal = Journal::open(job, &state)?;

    // ---- Memory that every step uses again
    let mut gradients = vec![0.0; table.n_trainable()];
    let mut logits = Vec::new();
    let lr_at = |step| {
        let base_lr = config.optimizer.lr;
        learning_rate(&config.schedule, base_lr, step, steps_per_epoch, total_steps)
    };

    // ---- Clocks: of the log lines, of the checkpoints by time, and of this process
    let mut line = Clock::start();
    let mut last_save = Instant::now();
    let session = Instant::now();
    let seconds_before = state.progress.seconds;
    let steps_before = state.progress.step;
    let mut bar = None;

    loop {
        state.progress.seconds = seconds_before + session.elapsed().as_secs_f64();
        let step = state.progress.step;
        let epoch = step as f64 / steps_per_epoch as f64;
        let finished = step >= total_steps;
        let at_epoch_end = step > 0 && (step.is_multiple_of(steps_per_epoch) || finished);

        // ---- End of an epoch: evaluate, write its row, keep its checkpoint
        if at_epoch_end && state.progress.evaluated_step != Some(step) {
            drop(bar.take());
            let evaluation = evaluate_now(job, executor, &mut state, &mut journal, epoch)?;
            state.progress.seconds = seconds_before + session.elapsed().as_secs_f64();
            let is_best = state.progress.best.is_some_and(|best| best.step == step);
            let rate = Rate {
                steps_per_second: (step - steps_before) as f64 / session.elapsed().as_secs_f64(),
                steps_left: total_steps - step,
            };
            end_epoch(job, &mut state, &mut journal, lr_at(step - 1), evaluation, is_best, &rate)?;
            save(job, &state)?;
            last_save = Instant::now();
            if is_best {
                crate::checkpoint::duplicate(&folder.last(), &folder.best())?;
            }
            let number = step.div_ceil(steps_per_epoch);
            let every = config.checkpoint.every_epochs;
            if every > 0 && (number.is_multiple_of(every) || finished) {
                folder.keep_epoch(number, config.checkpoint.keep)?;
            }
            line = Clock::start();
        }
        if finished {
            return Ok(state);
        }

        // ---- A signal: save and leave
        if let Some((signal, name)) = signals::received() {
            drop(bar.take());
            save(job, &state)?;
            let run = folder.path().to_owned();
            return Err(Error::Stopped { name, signal, run });
        }

        // ---- One step
        let bar = bar.get_or_insert_with(|| {
            let n_images = epoch_images(step, steps_per_epoch, total_steps, batch_size);
            Progress::start("training", n_images)
        });
        let Some(batch) = loader.next() else {
            return Err(Error::Unusable(format!("the loader ended at step {step}")));
        };
        let batch = batch?;
        line.waited += batch.wait;
        count_bad_images(job, &mut state, &batch)?;
        let lr = lr_at(step);
        if !batch.labels.is_empty() {
            let input = TrainBatch {
                images: &batch.images,
                labels: &batch.labels,
                label_smoothing: config.train.label_smoothing,
                seed: config.train.seed,
                step,
            };
            let loss = executor.train(&input, &mut state.weights, &mut gradients, &mut logits)?;
            if !loss.is_finite() {
                let files = batch_files(job, &batch);
                return Err(Error::Diverged { step, loss, lr, files });
            }
            let sgd = setup::sgd(config, lr);
            let (velocity, weights) = (&mut state.velocity, &mut state.weights.trainable);
            executor.sgd_step(table, &sgd, &gradients, velocity, weights);
            if let Some(ema) = &mut state.ema {
                let decay = ema_decay(config.train.ema, step);
                update_ema(ema, &state.weights, decay, executor);
            }
            let mut metrics = Metrics::default();
            let classes = job.classes.len();
            metrics.add_batch(&logits, &batch.labels, classes, config.train.label_smoothing);
            state.progress.epoch_metrics.merge(&metrics);
            state.progress.log_metrics.merge(&metrics);
            line.images += batch.labels.len();
        }
        state.progress.step += 1;
        let step = state.progress.step;
        bar.advance(batch_size as u64, batch.wait);
        loader.recycle(batch);

        // ---- A line of the log
        if step.is_multiple_of(config.log.every_steps) || step == total_steps {
            let metrics = std::mem::take(&mut state.progress.log_metrics);
            if let (Some(loss), Some(top1)) = (metrics.loss(), metrics.top1()) {
                let seconds = line.start.elapsed().as_secs_f64().max(1e-9);
                let record = Record::Train {
                    step,
                    epoch: step as f64 / steps_per_epoch as f64,
                    loss,
                    top1,
                    lr,
                    images_per_second: line.images as f64 / seconds,
                    data_wait: line.waited.as_secs_f64() / seconds,
                };
                journal.record(folder, &record)?;
                tracing::debug!(
                    "step {step}: loss {loss:.4}, top-1 {:.1} %, lr {lr:.2e}",
                    100.0 * top1
                );
            }
            line = Clock::start();
        }

        // ---- Checkpoints inside an epoch, by steps or by minutes
        let every_steps = config.checkpoint.every_steps;
        let every_minutes = config.checkpoint.every_minutes;
        let by_steps = every_steps > 0 && step.is_multiple_of(every_steps);
        let by_time =
            every_minutes > 0 && last_save.elapsed() >= Duration::from_secs(60 * every_minutes);
        if by_steps || by_time {
            state.progress.seconds = seconds_before + session.elapsed().as_secs_f64();
            save(job, &state)?;
            last_save = Instant::now();
        }
    }
}

/// Time and images since the last line of the log.
struct Clock {
    start: Instant,
    waited: Duration,
    images: usize,
}

impl Clock {
    fn start() -> Clock {
        Clock { start: Instant::now(), waited: Duration::ZERO, images: 0 }
    }
}

/// Speed of this process and what is left, for the time of arrival.
struct Rate {
    steps_per_second: f64,
    steps_left: u64,
}

/// Images from `step` to the end of its epoch, or of the run if that comes first.
fn epoch_images(step: u64, steps_per_epoch: u64, total_steps: u64, batch_size: usize) -> u64 {
    let epoch_end = (step / steps_per_epoch + 1) * steps_per_epoch;
    (epoch_end.min(total_steps) - step) * batch_size as u64
}

fn save(job: &Job, state: &TrainState) -> Result<(), Error> {
    Ok(job.folder.save_last(&job.metadata(state), &job.table, state)?)
}

/// Evaluates the present weights if there are validation images, and updates the best result.
/// A signal meanwhile saves the state as it was before the evaluation.
fn evaluate_now(
    job: &Job,
    executor: &mut dyn Executor,
    state: &mut TrainState,
    journal: &mut Journal,
    epoch: f64,
) -> Result<Option<EvaluationResult>, Error> {
    let step = state.progress.step;
    if job.val.is_empty() {
        state.progress.evaluated_step = Some(step);
        return Ok(None);
    }
    let preprocessing = setup::preprocessing(&job.config);
    let options = setup::load_options(&job.config, setup::val_batch_size(&job.config));
    let val = Arc::clone(&job.val);
    let outcome = evaluate(executor, state.evaluation_weights(), val, &preprocessing, &options);
    let evaluation = match outcome {
        Err(Error::Interrupted { name, signal }) => {
            save(job, state)?;
            return Err(Error::Stopped { name, signal, run: job.folder.path().to_owned() });
        }
        outcome => outcome?,
    };
    for failure in &evaluation.failed {
        tracing::warn!("counted as wrong: {}", failure.error);
    }
    let result = EvaluationResult {
        step,
        images: evaluation.images(),
        failed: evaluation.failed.len() as u64,
        top1: evaluation.top1(),
        top5: evaluation.top5(),
        loss: evaluation.loss(),
    };
    journal.record(
        &job.folder,
        &Record::Eval {
            step,
            epoch,
            weights: if state.ema.is_some() { Weights::Ema } else { Weights::Model },
            images: result.images,
            failed: result.failed,
            loss: result.loss,
            top1: result.top1,
            top5: result.top5,
            seconds: evaluation.seconds,
        },
    )?;
    if state.progress.best.is_none_or(|best| result.top1 > best.top1) {
        state.progress.best = Some(result);
    }
    state.progress.evaluated_step = Some(step);
    state.progress.evaluation = Some(result);
    Ok(Some(result))
}

/// Writes the row of an epoch and says how it went.
fn end_epoch(
    job: &Job,
    state: &mut TrainState,
    journal: &mut Journal,
    lr: f64,
    evaluation: Option<EvaluationResult>,
    is_best: bool,
    rate: &Rate,
) -> Result<(), Error> {
    let progress = &mut state.progress;
    let metrics = std::mem::take(&mut progress.epoch_metrics);
    let seconds = progress.seconds - progress.epoch_start_seconds;
    progress.epoch_start_seconds = progress.seconds;
    let epoch = progress.step.div_ceil(job.steps_per_epoch());
    let row = SummaryRow {
        epoch,
        step: progress.step,
        lr,
        train_loss: metrics.loss().unwrap_or(f64::NAN),
        train_top1: metrics.top1().unwrap_or(f64::NAN),
        val_loss: evaluation.map(|result| result.loss),
        val_top1: evaluation.map(|result| result.top1),
        val_top5: evaluation.map(|result| result.top5),
        seconds,
    };
    let path = job.folder.summary();
    journal.summary.write(&row).map_err(Error::io("write", &path))?;

    let n_epochs = job.total_steps().div_ceil(job.steps_per_epoch());
    let validation = evaluation.map_or("no validation images".to_owned(), |result| {
        format!(
            "val loss {:.4} top-1 {:.2} % top-5 {:.2} %{}",
            result.loss,
            100.0 * result.top1,
            100.0 * result.top5,
            if is_best { " (best)" } else { "" }
        )
    });
    let eta = match rate.steps_left {
        0 => String::new(),
        left => format!(", {} left", duration(left as f64 / rate.steps_per_second)),
    };
    tracing::info!(
        "epoch {epoch}/{n_epochs}: train loss {:.4} top-1 {:.2} %, {validation}, lr {lr:.2e}, {}{eta}",
        row.train_loss,
        100.0 * row.train_top1,
        duration(seconds),
    );
    Ok(())
}

/// Unreadable training images that a run puts up with: `max_bad`, but no more than one in a hundred
/// of `n_images`, rounded up.
fn bad_limit(max_bad: usize, n_images: usize) -> usize {
    max_bad.min(n_images.div_ceil(100))
}

/// Names every training image that could not be read, once, and ends the run when there are too many.
fn count_bad_images(job: &Job, state: &mut TrainState, batch: &Batch) -> Result<(), Error> {
    for failure in &batch.failed {
        if state.progress.bad_images.insert(failure.index) {
            tracing::warn!("skipped in training: {}", failure.error);
        }
    }
    let bad = state.progress.bad_images.len();
    let limit = bad_limit(job.config.data.max_bad, job.train.len());
    if batch.failed.is_empty() || bad <= limit {
        return Ok(());
    }
    save(job, state)?;
    Err(Error::Unusable(format!(
        "{bad} training images could not be read, more than the {limit} that data.max_bad and the \
         size of the data set allow; the run is saved: mend the files named above, then go on with: \
         bninception resume {}",
        job.folder.path().display()
    )))
}

/// Names the first files of a batch.
fn batch_files(job: &Job, batch: &Batch) -> String {
    let path = |&index: &u32| job.train.path(index as usize).display().to_string();
    let mut names: Vec<String> = batch.indices.iter().take(8).map(path).collect();
    if batch.indices.len() > names.len() {
        names.push(format!("and {} more", batch.indices.len() - names.len()));
    }
    names.join(", ")
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

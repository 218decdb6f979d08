//! The training loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bninception_data::{Batch, Loader, Source};
use bninception_engine::model::{Network, ParameterTable};
use bninception_engine::{Executor, TrainBatch};

use crate::config::{Config, Recipe};
use crate::error::Error;
use crate::evaluation::evaluate::evaluate;
use crate::images::data_dirs::DataDirs;
use crate::metrics::Metrics;
use crate::run::checkpoint;
use crate::run::error::RunError;
use crate::run::folder::{Name, RunFolder};
use crate::run::image_lists::ImageLists;
use crate::run::journal::Journal;
use crate::run::metadata::{FORMAT_VERSION, Metadata};
use crate::run::records::{EvaluatedWeights, Record, SummaryRow};
use crate::run::saver::{Saver, persist};
use crate::run::state::{EvaluationResult, RunProgress, TrainState, ema_decay, update_ema};
use crate::setup;
use crate::terminal::progress::ProgressBar;
use crate::terminal::text::{counted, duration, quoted};
use crate::training::course::{Course, names_of};
use crate::training::divergence::{self, Culprit, lr_factor, may_roll_back};
use crate::training::watch::Watcher;

/// What a run works on.
pub struct Job {
    /// All settings.
    pub config: Config,
    /// Where they come from.
    pub recipe: Recipe,
    /// Class names, in the order of the labels.
    pub classes: Vec<String>,
    /// Training images.
    pub train: Arc<dyn Source>,
    /// Validation images; may be empty.
    pub val: Arc<dyn Source>,
    /// What the run remembers of these images.
    pub images: ImageLists,
    /// Where these images are.
    pub data_dirs: DataDirs,
    /// Where results go.
    pub folder: RunFolder,
    /// The network.
    pub network: Network,
    /// Its tensors.
    pub table: ParameterTable,
    /// Asked between two steps, with the number of updates done, whether to save and leave.
    pub stop: Box<dyn Fn(u64) -> Option<Stop>>,
}

/// Why a run leaves before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A signal, by its number and name.
    Signal(i32, &'static str),
    /// The time given to this process is over.
    TimeIsUp,
}

/// How a call of [`train`] ended well.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The state, which is on the disk.
    pub state: TrainState,
    /// Whether the run is at its end; otherwise its time was up.
    pub finished: bool,
}

impl Job {
    /// How the steps of a run with this progress lie in its epochs.
    pub fn course(&self, progress: &RunProgress) -> Course {
        Course::new(&self.config, self.train.len(), progress)
    }

    /// What a checkpoint of `state` says about itself.
    pub fn metadata(&self, state: &TrainState) -> Metadata {
        let step = state.progress.step;
        let course = self.course(&state.progress);
        Metadata {
            format_version: FORMAT_VERSION,
            program: concat!("bninception ", env!("CARGO_PKG_VERSION")).to_owned(),
            classes: self.classes.clone(),
            preprocessing: setup::preprocessing(&self.config),
            config: self.config.clone(),
            recipe: self.recipe.clone(),
            step,
            epoch: course.epochs_done(step),
            position: course.position(step),
            steps_per_epoch: course.steps_per_epoch,
            progress: state.progress.clone(),
            images: self.images.clone(),
            data_dirs: self.data_dirs.to_stored(),
            calibration: None,
            checksum: String::new(),
        }
    }

    fn names(&self, state: &TrainState) -> Vec<Name> {
        let every = self.config.checkpoint.every_epochs;
        names_of(&state.progress, &self.course(&state.progress), every)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.config.checkpoint.retry_seconds)
    }
}

/// The files of a run while it goes on.
struct Files {
    journal: Journal,
    saver: Saver,
}

impl Files {
    /// Hands the state over to be written, behind all rows of the journal.
    fn save(&mut self, job: &Job, state: &TrainState) -> Result<(), RunError> {
        let mut rows = Vec::new();
        persist(job.patience(), || {
            rows = self.journal.flush()?;
            Ok(())
        })?;
        tracing::debug!("saving the state of step {}", state.progress.step);
        self.saver.save(job.metadata(state), state, job.names(state), rows)
    }

    /// Saves and waits until it is done. If it cannot be, the state goes somewhere else.
    fn save_now(&mut self, job: &Job, state: &TrainState) -> Result<(), Error> {
        let saved = self.save(job, state).and_then(|()| self.saver.wait());
        saved.map_err(|error| rescue(job, state, error))
    }
}

/// Trains from `state` to the end of the run, or until [`Job::stop`] says so.
///
/// With `train.on_divergence = "rollback"` a run that diverges goes back to its last checkpoint, with
/// the learning rate halved, at most [`divergence::MOST_ROLLBACKS`] times.
///
/// # Errors
/// A number that is not finite; data, executor or disk that fails; a signal, behind a checkpoint.
pub fn train(
    job: &Job,
    executor: &mut dyn Executor,
    mut state: TrainState,
) -> Result<Outcome, Error> {
    loop {
        let rollbacks = state.progress.rollbacks;
        match train_until_divergence(job, executor, state) {
            Err(diverged @ Error::Diverged { .. })
                if may_roll_back(job.config.train.on_divergence, rollbacks) =>
            {
                state = checkpoint::load(&job.folder.last())?.state;
                state.progress.rollbacks = rollbacks + 1;
                tracing::warn!(
                    "{diverged}\nback to step {} with {} of the learning rate ({} of {} times)",
                    state.progress.step,
                    lr_factor(state.progress.rollbacks),
                    state.progress.rollbacks,
                    divergence::MOST_ROLLBACKS
                );
                job.folder.save_last(&job.metadata(&state), &job.table, &state)?;
            }
            outcome => return outcome,
        }
    }
}

fn train_until_divergence(
    job: &Job,
    executor: &mut dyn Executor,
    mut state: TrainState,
) -> Result<Outcome, Error> {
    let Job { config, folder, table, .. } = job;
    let course = job.course(&state.progress);
    let total_steps = course.total_steps;
    let batch_size = config.train.batch_size;

    // ---- Loader and files, from the state's step on
    let batches = course.batches(state.progress.step)..course.batches(total_steps);
    let plan = setup::train_plan(config, batches);
    let preprocessing = setup::preprocessing(config);
    let options = setup::load_options(config, batch_size);
    let mut loader = Loader::train(Arc::clone(&job.train), &preprocessing, &options, &plan)?;
    let journal = Journal::open(folder, &state.progress, config.log.tensorboard)?;
    let keep = config.checkpoint.keep;
    // A process that was killed may have written the checkpoint and not all its names.
    folder.keep_as(&job.names(&state), keep)?;
    let saver = Saver::start(folder, table, keep, job.patience(), &state)?;
    let mut files = Files { journal, saver };

    // ---- Memory that every step uses again
    let mut gradients = vec![0.0; table.n_trainable()];
    let mut logits = Vec::new();
    let factor = lr_factor(state.progress.rollbacks);
    let mut watcher = Watcher::new(config, &job.network)?;
    let lr_at = |step| factor * course.learning_rate(&config.schedule, config.optimizer.lr, step);

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
        let finished = step >= total_steps;

        // ---- End of an epoch: evaluate, write its row, keep its checkpoint
        if course.is_epoch_end(step) && state.progress.evaluated_step != Some(step) {
            drop(bar.take());
            let evaluation = evaluate_now(job, executor, &mut state, &mut files)?;
            state.progress.seconds = seconds_before + session.elapsed().as_secs_f64();
            let rate = Rate {
                steps_per_second: (step - steps_before) as f64 / session.elapsed().as_secs_f64(),
                steps_left: total_steps - step,
            };
            end_epoch(job, &mut state, &mut files.journal, lr_at(step - 1), evaluation, &rate);
            files.save(job, &state).map_err(|error| rescue(job, &state, error))?;
            last_save = Instant::now();
            line = Clock::start();
        }
        if finished {
            files.save_now(job, &state)?;
            return Ok(Outcome { state, finished });
        }

        // ---- A reason to stop: save and leave
        if let Some(stop) = (job.stop)(step) {
            drop(bar.take());
            files.save_now(job, &state)?;
            return match stop {
                Stop::TimeIsUp => Ok(Outcome { state, finished }),
                Stop::Signal(signal, name) => {
                    let run = folder.path().to_owned();
                    Err(Error::Stopped { name, signal, step, run })
                }
            };
        }

        // ---- One step
        let bar = bar.get_or_insert_with(|| {
            let n_images = steps_left_in_epoch(&course, step) * batch_size as u64;
            ProgressBar::start("training", n_images)
        });
        let Some(batch) = loader.next() else {
            return Err(Error::Unusable(format!("the loader ended at step {step}")));
        };
        let batch = batch?;
        line.waited += batch.wait;
        count_bad_images(job, &mut state, &mut files, &batch)?;
        let lr = lr_at(step);
        if batch.labels.len() < config.network.fewest_images() {
            state.progress.skipped_batches += 1;
            tracing::warn!(
                "step {step} changes nothing: {} of {} could be read, too few to train on",
                batch.labels.len(),
                counted(batch_size as u64, "image")
            );
        } else {
            let input = TrainBatch {
                images: &batch.images,
                labels: &batch.labels,
                label_smoothing: config.train.label_smoothing,
                seed: config.train.seed,
                step,
            };
            let weights = &mut state.weights;
            let loss = match watcher.is_due(step + 1) {
                false => executor.train(&input, weights, &mut gradients, &mut logits)?,
                true => watcher.train(
                    executor,
                    &input,
                    weights,
                    &mut gradients,
                    &mut logits,
                    &mut |layer, values| files.journal.histogram(step + 1, layer, values),
                )?,
            };
            if !loss.is_finite() {
                return Err(diverged(job, &batch, step, lr, Culprit::Loss(loss)));
            }
            for record in watcher.records(step + 1, &gradients) {
                files.journal.record(&record);
            }
            let sgd = setup::sgd(config, lr);
            let (velocity, weights) = (&mut state.velocity, &mut state.weights.trainable);
            let finite = executor.sgd_step(table, &sgd, &gradients, velocity, weights);
            let culprit = divergence::find(table, &gradients, &state.weights, finite);
            if let Some(culprit) = culprit {
                return Err(diverged(job, &batch, step, lr, culprit));
            }
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
                files.journal.record(&Record::Train {
                    step,
                    epoch: course.epoch(step),
                    loss,
                    top1,
                    lr,
                    images_per_second: line.images as f64 / seconds,
                    data_wait: line.waited.as_secs_f64() / seconds,
                });
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
            files.save(job, &state).map_err(|error| rescue(job, &state, error))?;
            last_save = Instant::now();
        }
        files.saver.check().map_err(|error| rescue(job, &state, error))?;
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

/// Updates from `step` to the end of its epoch, or of the run if that comes first.
fn steps_left_in_epoch(course: &Course, step: u64) -> u64 {
    let in_epoch = course.steps_per_epoch - course.position(step);
    in_epoch.min(course.total_steps.saturating_sub(step))
}

/// What a run ends with that cannot write its checkpoints: the error, and where else its state is.
fn rescue(job: &Job, state: &TrainState, error: RunError) -> Error {
    if matches!(&error, RunError::Checkpoint(error) if error.is_of_content()) {
        return error.into();
    }
    let name = format!("bninception-rescued-{}", std::process::id());
    let path = std::env::temp_dir().join(name).join("last.safetensors");
    let run = quoted(job.folder.path());
    let step = state.progress.step;
    let outcome = match checkpoint::save(&path, &job.metadata(state), &job.table, state) {
        Ok(()) => format!(
            "the state of step {step} is in {} instead: make room, then put it in its place and go on \
             with: cp {} {} && bninception resume {run}",
            path.display(),
            quoted(&path),
            quoted(&job.folder.last())
        ),
        Err(other) => format!(
            "nor could it be written elsewhere ({other}); go on from the last checkpoint with: \
             bninception resume {run}"
        ),
    };
    Error::Unsaved { source: Box::new(error), outcome }
}

/// The error for a number that is not finite, behind a dump of the batch.
fn diverged(job: &Job, batch: &Batch, step: u64, lr: f64, culprit: Culprit) -> Error {
    let path = job.folder.diverged_batch(step);
    let files = batch_files(job, batch);
    if let Err(error) = divergence::dump(&path, batch, &files, step, lr, &culprit) {
        tracing::warn!("the batch was not kept: {error}");
    }
    let mut shown: Vec<String> = files.iter().take(8).cloned().collect();
    if files.len() > shown.len() {
        shown.push(format!("and {} more", files.len() - shown.len()));
    }
    Error::Diverged {
        step,
        reason: culprit.to_string().into(),
        lr,
        files: shown.join(", "),
        dump: path,
    }
}

/// Evaluates the present weights if there are validation images, and updates the best result.
/// A signal meanwhile saves the state as it was before the evaluation.
fn evaluate_now(
    job: &Job,
    executor: &mut dyn Executor,
    state: &mut TrainState,
    files: &mut Files,
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
            files.save_now(job, state)?;
            return Err(Error::Stopped { name, signal, step, run: job.folder.path().to_owned() });
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
        loss: Some(evaluation.loss()).filter(|loss| loss.is_finite()),
    };
    files.journal.record(&Record::Eval {
        step,
        epoch: job.course(&state.progress).epoch(step),
        weights: if state.ema.is_some() { EvaluatedWeights::Ema } else { EvaluatedWeights::Model },
        images: result.images,
        failed: result.failed,
        loss: evaluation.loss(),
        top1: result.top1,
        top5: result.top5,
        seconds: evaluation.seconds,
    });
    if result.beats(state.progress.best) {
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
    rate: &Rate,
) {
    let progress = &mut state.progress;
    let metrics = std::mem::take(&mut progress.epoch_metrics);
    let seconds = progress.seconds - progress.epoch_start_seconds;
    progress.epoch_start_seconds = progress.seconds;
    let course = job.course(progress);
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
    journal.epoch(&row);
    let is_best = progress.best.is_some_and(|best| best.step == progress.step);
    let n_epochs = course.last_epoch();
    let validation = evaluation.map_or("no validation images".to_owned(), |result| {
        format!(
            "val loss {:.4} top-1 {:.2} % top-5 {:.2} %{}",
            result.loss.unwrap_or(f64::NAN),
            100.0 * result.top1,
            100.0 * result.top5,
            match result.loss {
                None => " (no finite loss: never the best)",
                Some(_) if is_best => " (best)",
                Some(_) => "",
            }
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
}

/// Unreadable training images that a run puts up with: `max_bad`, but no more than one in a hundred
/// of `n_images`, rounded up.
fn bad_limit(max_bad: usize, n_images: usize) -> usize {
    max_bad.min(n_images.div_ceil(100))
}

/// Names every training image that could not be read, once, and ends the run when there are too many.
fn count_bad_images(
    job: &Job,
    state: &mut TrainState,
    files: &mut Files,
    batch: &Batch,
) -> Result<(), Error> {
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
    files.save_now(job, state)?;
    Err(Error::Unusable(format!(
        "{bad} training images could not be read, more than the {limit} that data.max_bad and the \
         size of the data set allow; the run is saved: mend the files named above, then go on with: \
         bninception resume {}",
        quoted(job.folder.path())
    )))
}

/// The files of a batch.
fn batch_files(job: &Job, batch: &Batch) -> Vec<String> {
    let path = |&index: &u32| job.train.path(index as usize).display().to_string();
    batch.indices.iter().map(path).collect()
}

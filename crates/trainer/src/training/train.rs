//! The training loop.

use std::time::Duration;

use bninception_engine::Executor;

use crate::distributed::Ranks;
use crate::distributed::checkpoint::load_on_all;
use crate::error::Error;
use crate::run::records::Record;
use crate::run::state::{RunProgress, TrainState};
use crate::run::stop::Stop;
use crate::run::tensorboard::{SessionStatus, end_session, wall_time};
use crate::terminal::loss::loss_number;
use crate::terminal::progress::ProgressBar;
use crate::terminal::signals;
use crate::terminal::text::{counted, duration};
use crate::training::course::Course;
use crate::training::divergence::{self, lr_factor, may_roll_back};
use crate::training::epoch::{end_epoch, evaluate_now};
use crate::training::job::Job;
use crate::training::recent::RecentUpdates;
use crate::training::session::Session;
use crate::training::step::{finish_started, step};

/// Seconds to the end of a run that are worth a line.
const WORTH_TELLING: f64 = 60.0;

/// How a call of [`train`] ended well.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How far it came. The whole state is on the disk.
    pub progress: RunProgress,
    /// Whether the run is at its end; otherwise its time was up.
    pub finished: bool,
    /// Whether that end came before the last step, by `train.patience`.
    pub stopped_early: bool,
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
    ranks: &mut Ranks,
    mut state: TrainState,
) -> Result<Outcome, Error> {
    loop {
        let rollbacks = state.progress.rollbacks;
        match train_until_divergence(job, executor, ranks, state) {
            Err(diverged @ Error::Diverged { .. })
                if may_roll_back(job.config.train.on_divergence, rollbacks) =>
            {
                state = load_on_all(ranks, &job.folder.last())?.state;
                state.progress.rollbacks = rollbacks + 1;
                tracing::warn!(
                    "{diverged}\nback to step {} with {} of the learning rate ({} of {} times)",
                    state.progress.step,
                    lr_factor(state.progress.rollbacks),
                    state.progress.rollbacks,
                    divergence::MOST_ROLLBACKS
                );
                if ranks.is_first() {
                    job.folder.save_last(&job.metadata(&state.progress), &job.table, &state)?;
                }
            }
            outcome => {
                tell_end(job, ranks, &outcome);
                return outcome;
            }
        }
    }
}

/// Tells TensorBoard that the run is at its end, or cannot go on as it is.
fn tell_end(job: &Job, ranks: &Ranks, outcome: &Result<Outcome, Error>) {
    let status = match outcome {
        Ok(outcome) if outcome.finished => SessionStatus::Success,
        Err(error) if error.is_divergence() => SessionStatus::Failure,
        Ok(_) | Err(_) => return,
    };
    if !job.config.log.tensorboard || !ranks.is_first() {
        return;
    }
    let path = job.folder.tensorboard();
    if let Err(error) = end_session(&path, status, wall_time()) {
        tracing::warn!("TensorBoard is not told the end: cannot write {}: {error}", path.display());
    }
}

fn train_until_divergence(
    job: &Job,
    executor: &mut dyn Executor,
    ranks: &mut Ranks,
    state: TrainState,
) -> Result<Outcome, Error> {
    let mut run = Session::open(job, executor, ranks, state)?;
    let mut bar = None;
    loop {
        run.count_seconds();
        let at = run.progress.step;

        // ---- End of an epoch: evaluate, write its row, keep its checkpoint
        if run.course.is_epoch_end(at) && run.progress.evaluated_step != Some(at) {
            finish_started(&mut run)?;
            drop(bar.take());
            let evaluation = evaluate_now(&mut run)?;
            run.count_seconds();
            end_epoch(&mut run, evaluation);
            run.save()?;
            run.line.restart();
        }
        let stopped_early = run.course.is_stopped_early(&run.progress);
        if at >= run.course.total_steps || stopped_early {
            if stopped_early {
                tracing::info!("{}", why_stopped(&run));
            }
            run.save_now()?;
            run.ranks.wait_for_all()?;
            return Ok(Outcome { progress: run.progress, finished: true, stopped_early });
        }

        // ---- One update, unless there is a reason to stop: then save and leave. Several ranks tell each other
        // with their gradients, and stop behind the update.
        let mut stop = (job.stop)(at).filter(|_| !run.ranks.are_many());
        if stop.is_none() {
            let bar = bar.get_or_insert_with(|| {
                let epoch = run.course.epoch_number(at + 1);
                let what = format!("epoch {epoch}/{}", run.course.last_epoch());
                let mut bar = ProgressBar::start(what, images_left_in_epoch(job, &run.course, at));
                show(&run.recent, &mut bar);
                bar
            });
            stop = step(&mut run, bar)?;
            show(&run.recent, bar);
        }
        let is_updated = run.progress.step > at;
        // Behind its last update a run ends by itself.
        let stop = stop.filter(|_| !is_updated || run.progress.step < run.course.total_steps);

        // ---- A line of the log
        let at = run.progress.step;
        if is_updated && run.is_log_step(at) {
            finish_started(&mut run)?;
            write_line(&mut run);
            say_time_left(&mut run);
        }

        if let Some(stop) = stop {
            finish_started(&mut run)?;
            drop(bar.take());
            return leave(run, stop);
        }

        // ---- Checkpoints inside an epoch, by steps or by minutes
        let checkpoint = &job.config.checkpoint;
        let by_steps = checkpoint.every_steps > 0 && at.is_multiple_of(checkpoint.every_steps);
        let minutes = Duration::from_secs(60 * checkpoint.every_minutes);
        if by_steps || (!minutes.is_zero() && run.since_save() >= minutes) {
            finish_started(&mut run)?;
            run.count_seconds();
            run.save()?;
        }
        if let Err(error) = run.check_saver() {
            finish_started(&mut run)?;
            return Err(run.rescue(error));
        }
    }
}

/// Shows how the last updates went beside the bar.
fn show(recent: &RecentUpdates, bar: &mut ProgressBar) {
    if let Some((loss, top1)) = recent.loss_and_top1() {
        bar.say(&format!("loss {} top-1 {:.0} %", loss_number(loss), 100.0 * top1));
        bar.draw(recent.curve());
    }
}

/// Why the run ends before its last step.
fn why_stopped(run: &Session<'_>) -> String {
    let Session { course, progress, job, .. } = run;
    let epochs = counted(course.epochs_since_best(progress), "epoch");
    let by = job.config.checkpoint.best_by;
    let what = progress.best.map_or("no evaluation had a finite loss".to_owned(), |best| {
        let (name, value, epoch) = (by.name(), best.shown(by), course.epoch_of(&best));
        format!("no better {name} than {value} of epoch {epoch}")
    });
    format!("stopped early: {what} for {epochs} (train.patience)")
}

/// Images from `step` to the end of its epoch, or of the run if that comes first.
fn images_left_in_epoch(job: &Job, course: &Course, step: u64) -> u64 {
    let in_epoch = course.steps_per_epoch - course.position(step);
    let steps = in_epoch.min(course.total_steps.saturating_sub(step));
    steps * job.config.train.images_per_update() as u64
}

/// Saves, and ends as the reason to stop says.
fn leave(mut run: Session<'_>, stop: Stop) -> Result<Outcome, Error> {
    run.count_seconds();
    run.save_now()?;
    // A launcher ends all processes when the first has ended.
    run.ranks.wait_for_all()?;
    match stop {
        Stop::TimeIsUp => {
            Ok(Outcome { progress: run.progress, finished: false, stopped_early: false })
        }
        Stop::Signal(signal) => {
            let (step, path) = (run.progress.step, run.job.folder.path());
            Err(Error::Stopped { name: signals::name(signal), signal, step, run: path.to_owned() })
        }
    }
}

/// Says once how long the run will take, where its first epoch has not told: epochs do.
fn say_time_left(run: &mut Session<'_>) {
    if run.has_told_time || run.course.is_epoch_end(run.progress.step) {
        return;
    }
    run.has_told_time = true;
    run.count_seconds();
    let seconds = run.seconds_left();
    if seconds >= WORTH_TELLING {
        tracing::info!(seconds_left = seconds, "about {} to the end of the run", duration(seconds));
    }
}

/// Records training since the last line of the log.
fn write_line(run: &mut Session<'_>) {
    let step = run.progress.step;
    let lr = run.learning_rate(step - 1);
    let metrics = std::mem::take(&mut run.progress.log_metrics);
    if let (Some(loss), Some(top1)) = (metrics.loss(), metrics.top1()) {
        let seconds = run.line.start.elapsed().as_secs_f64().max(1e-9);
        let record = Record::Train {
            step,
            epoch: run.course.epoch(step),
            loss,
            top1,
            lr,
            grad_norm: run.line.gradient_norm.unwrap_or(f64::NAN),
            images_per_second: run.line.images as f64 / seconds,
            data_wait: run.line.waited.as_secs_f64() / seconds,
        };
        run.record(&record);
        let loss = loss_number(loss);
        tracing::debug!("step {step}: loss {loss}, top-1 {:.1} %, lr {lr:.2e}", 100.0 * top1);
    }
    if run.executor.pipeline().is_some() {
        let fed = run.line.fed();
        let is_epoch_end = run.course.is_epoch_end(step);
        if let Some(advice) = run.feeding.advice(&fed, &run.job.config, is_epoch_end) {
            tracing::warn!("{advice}");
        }
    }
    run.line.restart();
}

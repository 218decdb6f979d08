//! Where a step lies in its epoch and in its run.

use crate::config::{Config, ScheduleConfig, TrainConfig};
use crate::run::folder::Name;
use crate::run::state::{EvaluationResult, RunProgress, ema_decay};
use crate::setup;
use crate::training::schedule::{StepOf, learning_rate, scale_of_ranks};

/// How the updates of a run are spread over epochs.
///
/// A run that goes on with another batch size has epochs of another number of batches. Its updates are
/// counted on; `batch_shift` is what has to be added to them for the batches that a run of the present
/// batch size would have made by now. Orders, epochs and schedules go by these batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// Batches of an epoch, above 0.
    pub steps_per_epoch: u64,
    /// Updates of the whole run.
    pub total_steps: u64,
    batch_shift: i64,
    epoch_begun_again: Option<u64>,
    /// Whether the run's length is given in steps.
    counts_steps: bool,
    /// Epochs without a better evaluation after which the run ends; 0 for never.
    patience: u64,
    /// Processes that train together.
    ranks: usize,
}

impl Course {
    /// The course of a run of `config` on `n_images` training images that is at `progress`.
    pub fn new(config: &Config, n_images: usize, progress: &RunProgress) -> Course {
        let RunProgress { batch_shift, epoch_begun_again, .. } = *progress;
        let (per_epoch, total) = setup::steps(config, n_images);
        let total_steps = match config.train.steps {
            0 => total.saturating_add_signed(batch_shift.saturating_neg()),
            steps => steps,
        };
        Course {
            steps_per_epoch: per_epoch.max(1),
            total_steps,
            batch_shift,
            epoch_begun_again,
            counts_steps: config.train.steps > 0,
            patience: config.train.patience,
            ranks: config.train.ranks,
        }
    }

    /// Batches behind `step`, counted from the first epoch on.
    pub fn batches(&self, step: u64) -> u64 {
        step.saturating_add_signed(self.batch_shift)
    }

    /// Whole epochs behind `step`.
    pub fn epochs_done(&self, step: u64) -> u64 {
        self.batches(step) / self.steps_per_epoch
    }

    /// Batches behind `step` in its epoch.
    pub fn position(&self, step: u64) -> u64 {
        self.batches(step) % self.steps_per_epoch
    }

    /// Epochs behind `step`, with the fraction of the present one.
    pub fn epoch(&self, step: u64) -> f64 {
        self.batches(step) as f64 / self.steps_per_epoch as f64
    }

    /// The epoch that the update before `step` belongs to, counted from 1.
    pub fn epoch_number(&self, step: u64) -> u64 {
        self.batches(step).div_ceil(self.steps_per_epoch)
    }

    /// The last epoch of the run, counted from 1.
    pub fn last_epoch(&self) -> u64 {
        self.epoch_number(self.total_steps)
    }

    /// Steps between two lines of the log: [`log_interval`].
    pub fn log_interval(&self, every_steps: u64) -> u64 {
        log_interval(every_steps, self.steps_per_epoch)
    }

    /// Whether `step` is the end of an epoch or of the run.
    pub fn is_epoch_end(&self, step: u64) -> bool {
        let is_between = self.position(step) == 0 && self.epoch_begun_again != Some(step);
        step > 0 && (is_between || step >= self.total_steps)
    }

    /// The epoch of an evaluation, counted from 1.
    pub fn epoch_of(&self, evaluation: &EvaluationResult) -> u64 {
        evaluation.epoch.unwrap_or_else(|| self.epoch_number(evaluation.step))
    }

    /// Epochs that ended since the best evaluation, or in all if none is the best.
    pub fn epochs_since_best(&self, progress: &RunProgress) -> u64 {
        let best = progress.best.map_or(0, |best| self.epoch_of(&best));
        self.epoch_number(progress.step).saturating_sub(best)
    }

    /// Whether the run ends before its last step, because no evaluation has been better for
    /// `train.patience` epochs. It follows from the progress alone, so a run that is killed between the
    /// evaluation and its end comes to the same end.
    pub fn is_stopped_early(&self, progress: &RunProgress) -> bool {
        let step = progress.step;
        let is_evaluated = progress.evaluation.is_some_and(|evaluation| evaluation.step == step);
        self.patience > 0
            && step < self.total_steps
            && is_evaluated
            && self.is_epoch_end(step)
            && self.epochs_since_best(progress) >= self.patience
    }

    /// The learning rate of the update behind `step`. Schedules go by epochs; what goes by the length of
    /// the run goes by steps if that is given in steps.
    pub fn learning_rate(&self, schedule: &ScheduleConfig, base_lr: f64, step: u64) -> f64 {
        let by_epochs =
            StepOf { step: self.batches(step), total_steps: self.batches(self.total_steps) };
        let by_length = match self.counts_steps {
            true => StepOf { step, total_steps: self.total_steps },
            false => by_epochs,
        };
        let scale = scale_of_ranks(schedule, self.ranks, self.steps_per_epoch, by_epochs);
        scale * learning_rate(schedule, base_lr, self.steps_per_epoch, by_epochs, by_length)
    }

    /// The decay of the moving average of the parameters at the update behind `step`.
    pub fn average_decay(&self, train: &TrainConfig, step: u64) -> f64 {
        ema_decay(train.average_decay(self.steps_per_epoch), step)
    }
}

/// Lines of the log that an epoch has at least, as far as its steps allow: five points draw the course
/// of an epoch.
const LINES_PER_EPOCH: u64 = 5;

/// Steps between two lines of the log: `every_steps`, but no more than a fifth of an epoch, rounded up, and
/// at least one.
pub fn log_interval(every_steps: u64, steps_per_epoch: u64) -> u64 {
    every_steps.min(steps_per_epoch.div_ceil(LINES_PER_EPOCH)).max(1)
}

/// The names that the checkpoint of a state gets: `best` if its evaluation is the best so far, and
/// that of its epoch behind every `every_epochs`-th (0: none) and at the end of the run. Only a state
/// that has been evaluated where an epoch ends gets any.
pub fn names_of(progress: &RunProgress, course: &Course, every_epochs: u64) -> Vec<Name> {
    let step = progress.step;
    let mut names = Vec::new();
    if !course.is_epoch_end(step) || progress.evaluated_step != Some(step) {
        return names;
    }
    if progress.best.is_some_and(|best| best.step == step) {
        names.push(Name::Best);
    }
    let epoch = course.epoch_number(step);
    let finished = step >= course.total_steps || course.is_stopped_early(progress);
    if every_epochs > 0 && (epoch.is_multiple_of(every_epochs) || finished) {
        names.push(Name::Epoch(epoch));
    }
    names
}

/// A place in an epoch, as a checkpoint tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochPlace {
    /// Updates done.
    pub step: u64,
    /// Whole epochs done.
    pub epoch: u64,
    /// Images seen in the present epoch.
    pub images: u64,
}

/// The same place with batches of `batch_size`, of which an epoch has `steps_per_epoch`: the epoch
/// stays, and the images seen in it are as many as whole batches allow. Gives the shift for
/// [`Course::new`], and the images.
pub fn shift_to(place: &EpochPlace, batch_size: usize, steps_per_epoch: u64) -> (i64, u64) {
    let batch_size = (batch_size as u64).max(1);
    // The nearest number of batches; of two as near the lower, which leaves no image out.
    let fewer = place.images / batch_size;
    let position = fewer + u64::from(2 * (place.images % batch_size) > batch_size);
    let position = position.min(steps_per_epoch);
    let batches = place.epoch.saturating_mul(steps_per_epoch).saturating_add(position);
    let shift = i128::from(batches) - i128::from(place.step);
    let shift = shift.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    (shift, position * batch_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};

    fn course(sets: &[&str], n_images: usize, shift: i64) -> Course {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let config = resolve(&Sources { sets: &sets, ..Sources::default() }).unwrap().config;
        let progress = RunProgress { batch_shift: shift, ..RunProgress::default() };
        Course::new(&config, n_images, &progress)
    }

    #[test]
    fn steps_lie_in_epochs() {
        let course = course(&["train.epochs=3", "train.batch_size=8"], 45, 0);
        assert_eq!((course.steps_per_epoch, course.total_steps, course.last_epoch()), (5, 15, 3));
        // (step, epochs done, position, epoch number, end)
        for (step, done, position, number, end) in [
            (0, 0, 0, 0, false),
            (1, 0, 1, 1, false),
            (5, 1, 0, 1, true),
            (6, 1, 1, 2, false),
            (15, 3, 0, 3, true),
        ] {
            let found =
                (course.epochs_done(step), course.position(step), course.epoch_number(step));
            assert_eq!(
                (found, course.is_epoch_end(step)),
                ((done, position, number), end),
                "{step}"
            );
        }
    }

    #[test]
    fn an_epoch_has_five_lines_at_least() {
        // (log.every_steps, steps an epoch, steps between two lines)
        for (every_steps, steps_per_epoch, interval) in [
            (50, 1000, 50),
            (50, 250, 50),
            (50, 249, 50),
            (50, 200, 40),
            (50, 15, 3),
            (50, 16, 4),
            (50, 5, 1),
            (50, 1, 1),
            (2, 15, 2),
            (1, 1000, 1),
            (0, 10, 1),
            (u64::MAX, u64::MAX, u64::MAX.div_ceil(5)),
        ] {
            assert_eq!(
                log_interval(every_steps, steps_per_epoch),
                interval,
                "{every_steps}, {steps_per_epoch}"
            );
        }
    }

    #[test]
    fn names_follow_evaluations_at_the_ends_of_epochs() {
        let result = |step| EvaluationResult {
            step,
            epoch: None,
            images: 1,
            failed: 0,
            top1: 0.5,
            top5: 1.0,
            balanced: None,
            loss: Some(1.0),
            statistics: None,
        };
        let (best, epoch) = (Name::Best, Name::Epoch);
        // 10 steps an epoch, 25 in all: (step, evaluated step, best step, every epochs, names).
        type Row<'a> = (u64, Option<u64>, Option<u64>, u64, &'a [Name]);
        let table: [Row<'_>; 9] = [
            (0, None, None, 1, &[]),
            (10, Some(10), Some(10), 1, &[best, epoch(1)]),
            (10, Some(10), Some(10), 2, &[best]),
            (20, Some(20), Some(10), 2, &[epoch(2)]),
            (20, Some(20), Some(20), 0, &[best]),
            // Stopped before or during the evaluation: it is still to come.
            (20, Some(10), Some(10), 1, &[]),
            // Inside an epoch.
            (15, Some(10), Some(10), 1, &[]),
            // The end of the run is the end of its last epoch, whatever the interval.
            (25, Some(25), Some(20), 2, &[epoch(3)]),
            // No validation images: nothing is best.
            (20, Some(20), None, 1, &[epoch(2)]),
        ];
        for (step, evaluated_step, best_step, every, names) in table {
            let best = best_step.map(result);
            let progress = RunProgress { step, evaluated_step, best, ..RunProgress::default() };
            let sets = ["train.steps=25".to_owned(), "train.batch_size=4".to_owned()];
            let config = resolve(&Sources { sets: &sets, ..Sources::default() }).unwrap().config;
            let course = Course::new(&config, 40, &progress);
            assert_eq!(names_of(&progress, &course, every), names, "step {step}, every {every}");
        }
    }

    #[test]
    fn a_run_is_stopped_when_patience_is_over() {
        let result = |step, epoch, loss| EvaluationResult {
            step,
            epoch,
            images: 1,
            failed: 0,
            top1: 0.5,
            top5: 1.0,
            balanced: None,
            loss,
            statistics: None,
        };
        // 5 steps an epoch, 30 in all: (patience, step, best step, whether it is stopped, epochs since).
        let table = [
            (0, 25, Some(5), false, 4),
            (3, 15, Some(5), false, 2),
            (3, 20, Some(5), true, 3),
            (3, 25, Some(5), true, 4),
            (3, 20, Some(20), false, 0),
            (3, 22, Some(5), false, 4),
            (1, 10, Some(5), true, 1),
            (1, 10, Some(10), false, 0),
            // No evaluation had a finite loss.
            (3, 10, None, false, 2),
            (3, 15, None, true, 3),
            // The end of the run is no early one.
            (3, 30, Some(5), false, 5),
        ];
        for (patience, step, best, stopped, since) in table {
            let sets =
                [&format!("train.patience={patience}"), "train.epochs=6", "train.batch_size=4"];
            let course = course(&sets, 20, 0);
            let evaluated = result(step, None, Some(1.0));
            let progress = RunProgress {
                step,
                evaluated_step: Some(step),
                evaluation: Some(evaluated),
                best: best.map(|step| result(step, None, Some(1.0))),
                ..RunProgress::default()
            };
            let what = format!("patience {patience}, step {step}, best {best:?}");
            assert_eq!(course.is_stopped_early(&progress), stopped, "{what}");
            assert_eq!(course.epochs_since_best(&progress), since, "{what}");
            // Before the evaluation nothing is known.
            let before = result(step - 5, None, Some(1.0));
            let pending = RunProgress { evaluation: Some(before), ..progress.clone() };
            assert!(!course.is_stopped_early(&pending), "{what}");
            assert_eq!(names_of(&progress, &course, 4).contains(&Name::Epoch(step / 5)), {
                step % 20 == 0 || step == 30 || stopped
            });
        }
        // After a change of the batch size the epoch that was stored counts.
        let course = course(&["train.patience=3", "train.epochs=6", "train.batch_size=8"], 20, -10);
        let best = Some(result(15, Some(3), Some(1.0)));
        let evaluation = Some(result(20, Some(5), Some(1.0)));
        let progress = RunProgress { step: 20, best, evaluation, ..RunProgress::default() };
        assert_eq!((course.epoch_number(20), course.epochs_since_best(&progress)), (5, 2));
        assert!(!course.is_stopped_early(&progress));
    }

    #[test]
    fn another_batch_size_keeps_the_place() {
        // 54 images: 6 batches of 8, 13 of 4, 3 of 16, 1 of 54.
        // (step, epoch, images), batch size -> (batches, images)
        for ((step, epoch, images), batch_size, expected) in [
            ((0, 0, 0), 4, (0, 0)),
            ((15, 2, 24), 4, (2 * 13 + 6, 24)),
            ((15, 2, 24), 16, (2 * 3 + 1, 16)), // 24 is as far from 16 as from 32
            ((16, 2, 32), 16, (2 * 3 + 2, 32)),
            ((17, 2, 40), 54, (2 + 1, 54)),
            ((13, 2, 8), 54, (2, 0)), // too few for a batch: its epoch begins again
            ((12, 2, 0), 16, (6, 0)),
        ] {
            let place = EpochPlace { step, epoch, images };
            let steps_per_epoch = 54 / batch_size as u64;
            let (shift, kept) = shift_to(&place, batch_size, steps_per_epoch);
            let sets = ["train.epochs=10", &format!("train.batch_size={batch_size}")];
            let course = course(&sets, 54, shift);
            assert_eq!((course.batches(step), kept), expected, "{place:?} to {batch_size}");
            assert!(course.epochs_done(step) >= epoch);
            // The run ends behind its last epoch.
            assert_eq!(course.batches(course.total_steps), 10 * steps_per_epoch);
        }
    }

    #[test]
    fn an_epoch_that_begins_again_has_not_ended() {
        let config = resolve(&Sources::default()).unwrap().config;
        let again = |step| RunProgress { epoch_begun_again: Some(step), ..RunProgress::default() };
        let n_images = 5 * config.train.batch_size;
        let ends = |step, progress| Course::new(&config, n_images, &progress).is_epoch_end(step);
        assert!(ends(10, RunProgress::default()) && ends(10, again(5)));
        assert!(!ends(10, again(10)));
    }

    #[test]
    fn a_cosine_over_steps_does_not_jump() {
        let sets = ["train.steps=20", "train.batch_size=4", "schedule.kind=cosine"];
        let (before, after) = (course(&sets, 26, 0), course(&sets, 26, -9));
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let config = resolve(&Sources { sets: &sets, ..Sources::default() }).unwrap().config;
        for step in 0..20 {
            let lr = |course: &Course| course.learning_rate(&config.schedule, 0.1, step);
            assert_eq!(lr(&before), lr(&after), "step {step}");
        }
    }

    #[test]
    fn an_average_reaches_over_epochs_of_any_batch_size() {
        // 45 images: 5 steps of 8 an epoch, 11 of 4. (batch size, epochs, step, decay)
        for (batch_size, ema_epochs, step, decay) in [
            (8, 4.0, 1_000_000, 1.0 - 1.0 / 20.0),
            (4, 4.0, 1_000_000, 1.0 - 1.0 / 44.0),
            (8, 0.5, 1_000_000, 1.0 - 1.0 / 2.5),
            // Shorter than a step: there is no average.
            (8, 0.1, 1_000_000, 0.0),
            // Never over more than the last ninth of what was trained.
            (8, 1e6, 0, 0.1),
            (8, 1e6, 80, 81.0 / 90.0),
            (8, 4.0, 80, 81.0 / 90.0),
        ] {
            let sets = [
                format!("train.ema_epochs={ema_epochs}"),
                format!("train.batch_size={batch_size}"),
            ];
            let config = resolve(&Sources { sets: &sets, ..Sources::default() }).unwrap().config;
            assert!(config.train.keeps_average());
            let course = Course::new(&config, 45, &RunProgress::default());
            let found = course.average_decay(&config.train, step);
            assert!((found - decay).abs() < 1e-12, "{batch_size}, {ema_epochs}, {step}: {found}");
        }
        // By steps it is what it was.
        let sets = ["train.ema=0.5".to_owned()];
        let train = resolve(&Sources { sets: &sets, ..Sources::default() }).unwrap().config.train;
        assert_eq!((train.average_decay(1), train.average_decay(99)), (0.5, 0.5));
    }

    #[test]
    fn no_stored_shift_overflows() {
        for shift in [i64::MIN, -1, 0, 1, i64::MAX] {
            for epochs in ["train.epochs=1", "train.epochs=9007199254740992"] {
                let course = course(&[epochs, "train.batch_size=2"], 1000, shift);
                for step in [0, 1, u64::MAX] {
                    let _ = (course.epoch(step), course.position(step), course.is_epoch_end(step));
                }
                let place = EpochPlace { step: u64::MAX, epoch: u64::MAX, images: u64::MAX / 4 };
                shift_to(&place, 3, course.total_steps.max(1));
            }
        }
    }
}

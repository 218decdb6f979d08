//! A row in the list of runs.

use std::time::SystemTime;

use serde::Serialize;

use crate::comparison::inventory::RunStatus;
use crate::dashboard::eta::{Pace, seconds_left, step_seconds};
use crate::dashboard::look::{Lately, Look};

/// A row, as JSON has it. Times are seconds since 1970, UTC; what is not known is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// The run's id: its path in the folder of runs.
    pub run: String,
    /// `training`, `finished`, `stopped`, `diverged` or `damaged`.
    pub state: &'static str,
    /// What is damaged or cannot be read.
    pub reason: Option<String>,
    /// The preset; empty where it is not known.
    pub preset: String,
    /// The best validation top-1.
    pub best_top1: Option<f64>,
    /// Mean loss of the last line of training.
    pub loss: Option<f64>,
    /// Updates done.
    pub step: Option<u64>,
    /// Updates of the whole run.
    pub steps: Option<u64>,
    /// Passes over the training images done.
    pub epoch: Option<f64>,
    /// Those of the whole run.
    pub epochs: Option<f64>,
    /// Speed of the last line of training.
    pub images_per_second: Option<f64>,
    /// When a run that trains now ends, at the latest.
    pub ends_at: Option<u64>,
    /// When its log begins.
    pub started: Option<u64>,
    /// When the last of its files was written.
    pub updated: Option<u64>,
    /// Bytes of all its files.
    pub bytes: u64,
}

impl Row {
    /// That of the run `run`.
    pub fn of(run: &str, look: &Look) -> Row {
        let Look { files, entry, lately, started } = look;
        let is_training = entry.status == RunStatus::Training;
        let reason = match &entry.status {
            RunStatus::Damaged(reason) => Some(reason.clone()),
            _ => lately.damage.clone(),
        };
        let (done, steps) = entry.steps.unzip();
        let line = lately.line;
        // Behind its checkpoint, a run that does not train any more has done nothing that lasts.
        let step = match line {
            Some(line) if is_training || done.is_none() => Some(done.unwrap_or(0).max(line.step)),
            _ => done,
        };
        let per_epoch = entry.steps_per_epoch.filter(|&steps| steps > 0);
        let epoch = match line.filter(|line| step == Some(line.step)) {
            Some(line) => finite(line.epoch),
            None => step.zip(per_epoch).map(|(step, per_epoch)| step as f64 / per_epoch as f64),
        };
        let left = step.zip(steps).map(|(step, steps)| steps.saturating_sub(step) as f64);
        let epochs = match (epoch, left, per_epoch) {
            (Some(epoch), Some(left), Some(per_epoch)) => {
                Some(hundredths(epoch + left / per_epoch as f64))
            }
            _ => None,
        };
        let ends_at = match (is_training, line, files.metrics, step.zip(steps)) {
            (true, Some(line), Some(metrics), Some((step, steps))) => {
                let step_seconds =
                    entry.images_per_update.and_then(|images| step_seconds(&lately.speeds, images));
                let pace = Pace {
                    step,
                    steps,
                    steps_per_epoch: per_epoch.unwrap_or(0),
                    epoch: line.epoch,
                    step_seconds: step_seconds.unwrap_or(f64::NAN),
                    evaluation_seconds: evaluation_seconds(lately),
                };
                // From the last line on, or from the moment when a stopped run was taken up again.
                let taken_up = files.lock.map_or(SystemTime::UNIX_EPOCH, |lock| lock.written);
                let since = unix_seconds(metrics.written.max(taken_up));
                seconds_left(&pace).map(|left| since.saturating_add(left.round() as u64))
            }
            _ => None,
        };
        Row {
            run: run.to_owned(),
            state: entry.status.name(),
            reason,
            preset: entry.preset.clone(),
            best_top1: entry.best_top1.or(lately.best_top1),
            loss: line.and_then(|line| finite(line.loss)),
            step,
            steps,
            epoch,
            epochs,
            images_per_second: line.and_then(|line| finite(line.images_per_second)),
            ends_at,
            started: started.map(unix_seconds),
            updated: files.updated().map(unix_seconds),
            bytes: entry.bytes,
        }
    }

    /// That of a run that is not read: why not.
    pub fn refused(run: &str, reason: &str) -> Row {
        Row {
            run: run.to_owned(),
            state: RunStatus::Damaged(String::new()).name(),
            reason: Some(reason.to_owned()),
            ..Row::default()
        }
    }
}

fn evaluation_seconds(lately: &Lately) -> f64 {
    lately.evaluation_seconds.filter(|seconds| seconds.is_finite()).unwrap_or(0.0)
}

fn finite(value: f64) -> Option<f64> {
    Some(value).filter(|value| value.is_finite())
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::comparison::inventory::RunEntry;
    use crate::dashboard::look::LastLine;
    use crate::dashboard::run_files::{RunFiles, Stamp};
    use crate::run::folder::RunFolder;

    /// A run of ten epochs of ten updates of 32 images.
    fn look(status: RunStatus, checkpoint: u64, line: Option<u64>) -> Look {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, "").unwrap();
        let mut metrics = Stamp::of(&path.metadata().unwrap());
        metrics.written = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let line = line.map(|step| LastLine {
            step,
            epoch: step as f64 / 10.0,
            loss: 0.5,
            images_per_second: 64.0,
        });
        Look {
            files: RunFiles { metrics: Some(metrics), ..RunFiles::default() },
            entry: RunEntry {
                folder: RunFolder::at(dir.path()),
                status,
                preset: "smoke".to_owned(),
                best_top1: None,
                steps: Some((checkpoint, 100)),
                steps_per_epoch: Some(10),
                images_per_update: Some(32),
                date: None,
                bytes: 7,
            },
            lately: Lately {
                line,
                speeds: line.iter().map(|line| (line.step, line.images_per_second)).collect(),
                evaluation_seconds: Some(5.0),
                ..Lately::default()
            },
            started: None,
        }
    }

    #[test]
    fn a_row_tells_how_far_a_run_is() {
        use RunStatus::{Diverged, Stopped, Training};
        // (status, checkpoint, last line, step, epoch, when it ends)
        let table = [
            (Training, 0, None, 0, 0.0, None),
            // 65 updates of half a second, and seven evaluations.
            (Training, 30, Some(35), 35, 3.5, Some(1000 + 33 + 35)),
            // Evaluated and saved behind the last line.
            (Training, 40, Some(35), 40, 4.0, Some(1000 + 30 + 35)),
            // What was done behind the checkpoint is done again.
            (Stopped, 30, Some(35), 30, 3.0, None),
            (Diverged, 30, Some(30), 30, 3.0, None),
        ];
        for (status, checkpoint, line, step, epoch, ends_at) in table {
            let row = Row::of("a", &look(status.clone(), checkpoint, line));
            let found = (row.step, row.epoch, row.ends_at);
            assert_eq!(
                found,
                (Some(step), Some(epoch), ends_at),
                "{status:?} {checkpoint} {line:?}"
            );
            assert_eq!((row.epochs, row.steps), (Some(10.0), Some(100)));
        }
    }

    #[test]
    fn a_run_that_goes_on_ends_later_than_one_that_never_stopped() {
        let mut look = look(RunStatus::Training, 30, Some(35));
        let mut lock = look.files.metrics.unwrap();
        lock.written = SystemTime::UNIX_EPOCH + Duration::from_secs(90_000);
        look.files.lock = Some(lock);
        assert_eq!(Row::of("a", &look).ends_at, Some(90_000 + 33 + 35));
        // A speed that would take longer than time can be told.
        look.lately.speeds = vec![(35, 1e-300)];
        assert_eq!(Row::of("a", &look).ends_at, Some(u64::MAX));
    }

    #[test]
    fn what_is_not_known_is_null() {
        let mut unknown = look(RunStatus::Damaged("torn".to_owned()), 0, Some(3));
        (unknown.entry.steps, unknown.entry.steps_per_epoch) = (None, None);
        unknown.lately.best_top1 = Some(0.25);
        unknown.lately.line = unknown.lately.line.map(|line| LastLine { loss: f64::NAN, ..line });
        let row = Row::of("a", &unknown);
        assert_eq!((row.step, row.steps, row.epochs, row.loss), (Some(3), None, None, None));
        assert_eq!((row.best_top1, row.reason.as_deref()), (Some(0.25), Some("torn")));
        let text = serde_json::to_string(&row).unwrap();
        assert!(text.contains("\"loss\":null"), "{text}");
        let row = Row::refused("a", "a link");
        assert_eq!((row.state, row.reason.as_deref()), ("damaged", Some("a link")));
    }
}

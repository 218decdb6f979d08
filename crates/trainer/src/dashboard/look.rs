//! What the list of runs reads of a run: the header of its checkpoint, the end of its record, the first line of
//! its log. What has not changed is not read again.

use std::path::Path;
use std::time::SystemTime;

use crate::comparison::epoch_rows;
use crate::comparison::inventory::{RunEntry, RunStatus};
use crate::dashboard::run_files::{RunFiles, Stamp};
use crate::dashboard::tail::{last_lines, read_from};
use crate::run::folder::RunFolder;
use crate::run::lock;
use crate::run::records::Record;

/// Bytes at the end of `metrics.jsonl` that are read.
const MOST_TAIL: u64 = 64 << 10;

/// Lines of training that the speed is the mean of.
const MOST_LINES: usize = 20;

/// Bytes in which the first line of a log tells its time.
const TIME_BYTES: u64 = 40;

/// What is known of a run.
#[derive(Clone, Debug)]
pub struct Look {
    /// Its files as they were before they were read.
    pub files: RunFiles,
    /// How it stands.
    pub entry: RunEntry,
    /// How it went lately.
    pub lately: Lately,
    /// When its log begins.
    pub started: Option<SystemTime>,
}

/// The last lines of a record.
#[derive(Clone, Debug, Default)]
pub struct Lately {
    /// The last line of training; NaN where a number was not finite.
    pub line: Option<LastLine>,
    /// Updates done and images per second of the last lines of training, the oldest first.
    pub speeds: Vec<(u64, f64)>,
    /// How long the last evaluation took.
    pub evaluation_seconds: Option<f64>,
    /// The best validation top-1 in `summary.csv`, where no checkpoint tells it.
    pub best_top1: Option<f64>,
    /// Lines that are no records, or a file that cannot be read.
    pub damage: Option<String>,
}

/// A line of training.
#[derive(Clone, Copy, Debug)]
pub struct LastLine {
    /// Updates done.
    pub step: u64,
    /// Passes over the training images done.
    pub epoch: f64,
    /// Mean loss since the line before.
    pub loss: f64,
    /// Speed since the line before; NaN for a line of `summary.csv`.
    pub images_per_second: f64,
}

impl Look {
    /// Looks at the run in `folder`, which lies below `root`; `None` if there is no run any more. `before` is what
    /// was known.
    ///
    /// # Errors
    /// It must not be read: [`RunFiles::look`].
    pub fn of(
        root: &Path,
        folder: &RunFolder,
        before: Option<Look>,
    ) -> Result<Option<Look>, String> {
        let files = RunFiles::look(root, folder)?;
        if files.last.is_none() && files.metrics.is_none() && files.diverged.is_none() {
            return Ok(None);
        }
        let old_files = before.as_ref().map(|look| look.files);
        let (old_entry, old_lately, old_started) = match before {
            Some(Look { entry, lately, started, .. }) => (Some(entry), Some(lately), started),
            None => (None, None, None),
        };
        let is_as_before = |part: fn(&RunFiles) -> [Option<Stamp>; 3]| {
            old_files.is_some_and(|old| part(&old) == part(&files))
        };
        // Of a run that trained, only its lock tells that its process was killed. Others are not asked again:
        // asking takes the lock for an instant.
        let stays = |entry: &RunEntry| match entry.status {
            RunStatus::Training => lock::is_held(folder.path()),
            _ => true,
        };
        let entry = match old_entry.filter(|_| is_as_before(RunFiles::of_status)) {
            Some(entry) if stays(&entry) => entry,
            _ => RunEntry::of(folder.path()),
        };
        let has_no_best = entry.best_top1.is_none();
        let of_record = |files: &RunFiles| [files.metrics, files.summary, files.last];
        let lately = match old_lately.filter(|_| is_as_before(of_record)) {
            Some(lately) => lately,
            None => Lately::of(folder, &files, has_no_best),
        };
        let log = |files: &RunFiles| files.log.map(|log| log.identity());
        let started = match old_started.filter(|_| old_files.as_ref().and_then(log) == log(&files))
        {
            Some(started) => Some(started),
            None => files.log.and_then(|_| first_time(&folder.log())),
        };
        Ok(Some(Look { files, entry, lately, started }))
    }
}

impl Lately {
    fn of(folder: &RunFolder, files: &RunFiles, has_no_best: bool) -> Lately {
        let mut lately = Lately::default();
        if files.metrics.is_some() {
            match last_lines(&folder.metrics(), MOST_TAIL) {
                Ok((_, bytes)) => lately.read(&bytes),
                Err(error) => {
                    lately.damage = Some(format!("metrics.jsonl cannot be read: {error}"))
                }
            }
        }
        if files.summary.is_some() && (has_no_best || lately.line.is_none()) {
            match epoch_rows::read(&folder.summary()) {
                Ok(rows) => {
                    let finite = rows.iter().filter_map(|row| row.val_top1);
                    lately.best_top1 = finite.filter(|top1| top1.is_finite()).reduce(f64::max);
                    let of_epoch = rows.last().map(|row| LastLine {
                        step: row.step,
                        epoch: row.epoch as f64,
                        loss: row.train_loss,
                        images_per_second: f64::NAN,
                    });
                    lately.line = lately.line.or(of_epoch);
                }
                Err(error) => lately.damage = lately.damage.or(Some(error.to_string())),
            }
        }
        lately
    }

    /// Reads whole lines, from the last one back, as many as are needed.
    fn read(&mut self, lines: &[u8]) {
        let mut n_bad = 0;
        for line in lines.rsplit(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let record = std::str::from_utf8(line).ok().and_then(|line| {
                serde_json::from_str::<Record>(line).ok() // any other reason is counted alike
            });
            match record {
                Some(Record::Train { step, epoch, loss, images_per_second, .. }) => {
                    self.speeds.push((step, images_per_second));
                    let line = LastLine { step, epoch, loss, images_per_second };
                    self.line = self.line.or(Some(line));
                }
                Some(Record::Eval { seconds, .. }) => {
                    self.evaluation_seconds = self.evaluation_seconds.or(Some(seconds));
                }
                Some(Record::Watch { .. } | Record::Other) => {}
                None => n_bad += 1,
            }
            if self.speeds.len() > MOST_LINES && self.evaluation_seconds.is_some() {
                break;
            }
        }
        self.speeds.truncate(MOST_LINES + 1);
        self.speeds.reverse();
        if n_bad > 0 {
            self.damage = Some(
                "metrics.jsonl has lines that are no records; `bninception resume` of the run cuts off what is \
                 damaged and makes it again"
                    .to_owned(),
            );
        }
    }
}

/// The time with which the file at `path` begins.
fn first_time(path: &Path) -> Option<SystemTime> {
    let bytes = read_from(path, 0, TIME_BYTES).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    humantime::parse_rfc3339(text.split_whitespace().next()?).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(step: u64, loss: &str) -> String {
        format!(
            "{{\"kind\":\"train\",\"step\":{step},\"epoch\":0.5,\"loss\":{loss},\"images_per_second\":8.0}}\n"
        )
    }

    #[test]
    fn the_end_of_a_record_is_read_whatever_it_holds() {
        let eval = "{\"kind\":\"eval\",\"step\":4,\"top1\":0.5,\"seconds\":1.5}\n";
        // (record, step, whether the loss is a number, lines of speed, whether it is damaged)
        let table = [
            (Vec::new(), None, false, 0, false),
            (line(1, "2.0").into_bytes(), Some(1), true, 1, false),
            ((line(1, "2.0") + eval).into_bytes(), Some(1), true, 1, false),
            ((line(1, "2.0") + &line(2, "null")).into_bytes(), Some(2), false, 2, false),
            ((line(1, "2.0") + "{\"kind\":\"tra").into_bytes(), Some(1), true, 1, false),
            ((line(1, "2.0") + "no record\n").into_bytes(), Some(1), true, 1, true),
            ([line(1, "2.0").as_bytes(), b"\xff\xfe\n"].concat(), Some(1), true, 1, true),
            (
                (1..99).map(|step| line(step, "1")).collect::<String>().into(),
                Some(98),
                true,
                98,
                false,
            ),
        ];
        for (record, step, is_number, speeds, is_damaged) in table {
            let dir = tempfile::tempdir().unwrap();
            let folder = RunFolder::at(dir.path());
            fs::write(folder.metrics(), &record).unwrap();
            let look = Look::of(dir.path(), &folder, None).unwrap().unwrap();
            let found = look.lately;
            let text = String::from_utf8_lossy(&record);
            assert_eq!(found.line.map(|line| line.step), step, "{text}");
            assert_eq!(found.line.is_some_and(|line| line.loss.is_finite()), is_number, "{text}");
            let speeds = if text.contains("eval") { 1 } else { speeds };
            assert_eq!(found.speeds.len(), speeds.min(MOST_LINES + 1), "{text}");
            assert_eq!(found.damage.is_some(), is_damaged, "{text}");
        }
    }

    #[test]
    fn only_what_changed_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::at(dir.path());
        let look = |before| Look::of(dir.path(), &folder, before).unwrap();
        assert!(look(None).is_none());
        fs::write(folder.metrics(), line(1, "2.0")).unwrap();
        fs::write(folder.log(), "2026-11-28T00:40:59.123456Z  INFO bninception\n").unwrap();
        let mut first = look(None).unwrap();
        let started = humantime::format_rfc3339_seconds(first.started.unwrap()).to_string();
        assert_eq!(started, "2026-11-28T00:40:59Z");
        // What is kept is what was known, not what is read.
        first.entry.preset = "known".to_owned();
        first.lately.speeds = vec![(7, 7.0)];
        let second = look(Some(first)).unwrap();
        assert_eq!((second.entry.preset.as_str(), second.lately.speeds.len()), ("known", 1));
        assert_eq!(second.lately.speeds[0].0, 7);
        fs::write(folder.metrics(), line(1, "2.0") + &line(2, "1.0")).unwrap();
        let third = look(Some(second)).unwrap();
        assert_eq!((third.entry.preset.as_str(), third.lately.speeds.len()), ("known", 2));
        fs::write(folder.last(), "torn").unwrap();
        let fourth = look(Some(third)).unwrap();
        assert_eq!(fourth.entry.preset, "");
        assert!(matches!(fourth.entry.status, RunStatus::Damaged(_)));
        for path in [folder.metrics(), folder.last()] {
            fs::remove_file(path).unwrap();
        }
        assert!(look(Some(fourth)).is_none());
    }

    #[test]
    fn a_lock_that_is_given_back_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::at(dir.path());
        fs::write(folder.metrics(), line(1, "2.0")).unwrap();
        let held = lock::RunLock::take(dir.path()).unwrap();
        let look = |before| Look::of(dir.path(), &folder, before).unwrap().unwrap();
        let training = look(None);
        assert_eq!(training.entry.status, RunStatus::Training);
        let training = look(Some(training));
        assert_eq!(training.entry.status, RunStatus::Training);
        drop(held);
        assert!(matches!(look(Some(training)).entry.status, RunStatus::Damaged(_)));
    }
}

//! The run folder's record of training: `metrics.jsonl` and `summary.csv`.
//!
//! Both are lists of lines in the order of their steps. A line reaches the system in one write, so
//! a killed process leaves whole lines; a line that a failing machine tore is cut off when the file
//! is opened. A line that cannot be written, because the disk is full, waits in memory for the next. A resumed run first cuts what lies behind its checkpoint: its files then equal those
//! of a run without a stop, apart from times.
//!
//! Other programs read both: `checkpoints/README.md` describes them, and the test `run_files` holds it to what is here.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::run::state::Statistics;

/// A line of `metrics.jsonl`, told apart by `kind`. A number that is not finite is written as null, and
/// what is null or missing is read as NaN. Lines of other kinds, from a later program, are [`Record::Other`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// Training since the last line, `kind` = "train".
    Train {
        /// Updates done.
        step: u64,
        /// Passes over the training images done, with the fraction of the present one.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        epoch: f64,
        /// Mean loss of the images since the last line.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        loss: f64,
        /// Fraction of these whose label came first.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        top1: f64,
        /// Learning rate of the last update.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        lr: f64,
        /// Euclidean norm of the last update's gradient over all parameters, before it is clipped and
        /// without weight decay.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        grad_norm: f64,
        /// Speed since the last line.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        images_per_second: f64,
        /// Fraction of the time since the last line that was spent waiting for data.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        data_wait: f64,
    },
    /// An evaluation on the validation images, `kind` = "eval".
    Eval {
        /// Updates done.
        step: u64,
        /// Passes over the training images done.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        epoch: f64,
        /// Which parameters were evaluated.
        #[serde(default)]
        weights: EvaluatedWeights,
        /// Which statistics batch norm used; null without batch norm. Rows of earlier programs, which do not
        /// say, used the moving ones.
        #[serde(default = "moving")]
        statistics: Option<Statistics>,
        /// Images evaluated.
        #[serde(default)]
        images: u64,
        /// Images that could not be read.
        #[serde(default)]
        failed: u64,
        /// Mean loss of the images.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        loss: f64,
        /// Fraction of the images whose label came first.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        top1: f64,
        /// Fraction of the images whose label was among the first five.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        top5: f64,
        /// Mean recall of the classes that have images.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        balanced: f64,
        /// How long it took.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        seconds: f64,
    },
    /// What entered the nonlinearity of a watched layer, `kind` = "watch".
    Watch {
        /// Updates done, the one whose mini-batch it is included.
        step: u64,
        /// The layer.
        #[serde(default)]
        layer: String,
        /// The 15th percentile over the mini-batch.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        p15: f64,
        /// The median.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        p50: f64,
        /// The 85th percentile.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        p85: f64,
        /// The mean.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        mean: f64,
        /// The variance, divided by the number of values.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        variance: f64,
        /// Euclidean norm of the gradient of the layer's filters, without weight decay.
        #[serde(default = "nan", deserialize_with = "number_or_null")]
        gradient_norm: f64,
    },
    /// A line of a kind that this program does not know.
    #[serde(other, skip_serializing)]
    Other,
}

fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn nan() -> f64 {
    f64::NAN
}

fn moving() -> Option<Statistics> {
    Some(Statistics::Moving)
}

/// Which parameters were evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvaluatedWeights {
    /// Those that are trained.
    #[default]
    Model,
    /// Their moving average.
    Ema,
}

/// Writes `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsLog {
    lines: Lines,
}

impl MetricsLog {
    /// Starts the file, or goes on behind its last whole line.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<MetricsLog> {
        let mut lines = Lines::open(path, "")?;
        lines.cut(|line| step_of_record(line).is_some())?;
        Ok(MetricsLog { lines })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        self.lines.push(&serde_json::to_string(record)?)
    }

    /// Writes what is still in memory, and gives the file, to be flushed to the disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> io::Result<File> {
        self.lines.flush()?;
        self.lines.file.try_clone()
    }

    /// Cuts the lines of later steps, and all lines from one on that is not a record. Without
    /// `evaluated`, the evaluation behind `step` itself is cut too: it will be made again.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn truncate_after(&mut self, step: u64, evaluated: bool) -> io::Result<()> {
        self.lines.cut(|line| {
            step_of_record(line).is_some_and(|(found, is_evaluation)| {
                found < step || found == step && (evaluated || !is_evaluation)
            })
        })
    }
}

/// The step of a line, and whether it tells of an evaluation.
fn step_of_record(line: &str) -> Option<(u64, bool)> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        kind: String,
        step: u64,
    }
    let head: Head = serde_json::from_str(line).ok()?;
    Some((head.step, head.kind == "eval"))
}

/// A row of `summary.csv`: an epoch. The validation columns stay empty without an evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SummaryRow {
    /// Epochs done.
    pub epoch: u64,
    /// Updates done.
    pub step: u64,
    /// Learning rate of the last update.
    pub lr: f64,
    /// Mean loss of the epoch's training images, each as the network saw it.
    pub train_loss: f64,
    /// Fraction of these whose label came first.
    pub train_top1: f64,
    /// Mean loss of the validation images.
    pub val_loss: Option<f64>,
    /// Fraction of the validation images whose label came first.
    pub val_top1: Option<f64>,
    /// Fraction of the validation images whose label was among the first five.
    pub val_top5: Option<f64>,
    /// How long training and evaluation of the epoch took.
    pub seconds: f64,
}

const SUMMARY_HEADER: &str =
    "epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,seconds";

/// Writes `summary.csv`.
#[derive(Debug)]
pub struct Summary {
    lines: Lines,
}

impl Summary {
    /// Starts the file with its header, or goes on behind its last whole row.
    ///
    /// # Errors
    /// The file cannot be read or written, or has another header.
    pub fn open(path: &Path) -> io::Result<Summary> {
        let mut lines = Lines::open(path, SUMMARY_HEADER)?;
        match lines.first()? {
            // A header without its end of line was torn before any row.
            first if !first.ends_with('\n') && SUMMARY_HEADER.starts_with(&first) => {
                lines.cut(|_| false)?;
                lines.push(SUMMARY_HEADER)?;
            }
            first if first.trim_end() == SUMMARY_HEADER => {}
            first => {
                let message = format!(
                    "{}: expected the header `{SUMMARY_HEADER}`, found `{}`; \
                     move the file away to start a new one",
                    path.display(),
                    first.trim_end()
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        let mut summary = Summary { lines };
        summary.truncate_after(u64::MAX)?;
        Ok(summary)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, row: &SummaryRow) -> io::Result<()> {
        let SummaryRow { epoch, step, lr, train_loss, train_top1, seconds, .. } = row;
        let cell = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let [loss, top1, top5] = [row.val_loss, row.val_top1, row.val_top5].map(cell);
        // Seconds are good to the millisecond; all else has the digits that give the same number
        // again.
        self.lines.push(&format!(
            "{epoch},{step},{lr},{train_loss},{train_top1},{loss},{top1},{top5},{seconds:.3}"
        ))
    }

    /// Writes what is still in memory, and gives the file, to be flushed to the disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> io::Result<File> {
        self.lines.flush()?;
        self.lines.file.try_clone()
    }

    /// Cuts the rows of later steps, and all rows from one on that is not a row.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn truncate_after(&mut self, step: u64) -> io::Result<()> {
        self.lines.cut(|line| {
            line == SUMMARY_HEADER || step_of_row(line).is_some_and(|found| found <= step)
        })
    }
}

fn step_of_row(line: &str) -> Option<u64> {
    let cells: Vec<&str> = line.split(',').collect();
    if cells.len() != SUMMARY_HEADER.split(',').count() {
        return None;
    }
    cells[1].parse().ok()
}

/// A text file to which whole lines are added.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
    /// What the file begins with, empty for nothing.
    header: &'static str,
    /// Lines that the file does not have yet.
    pending: Vec<u8>,
}

impl Lines {
    fn open(path: &Path, header: &'static str) -> io::Result<Lines> {
        let file = open_to_append(path)?;
        Ok(Lines { path: path.to_owned(), file, header, pending: Vec::new() })
    }

    /// The first line with its end, empty in an empty file.
    fn first(&mut self) -> io::Result<String> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut line = Vec::new();
        BufReader::new(&self.file).read_until(b'\n', &mut line)?;
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn push(&mut self, line: &str) -> io::Result<()> {
        self.pending.extend(line.as_bytes());
        self.pending.push(b'\n');
        self.flush()
    }

    /// Writes the pending lines, all or none of them, into the file that stands at the path: another
    /// than before if someone removed that.
    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if !self.path.exists() {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            tracing::warn!("{} was removed; it is begun again", self.path.display());
            self.file = open_to_append(&self.path)?;
            if !self.header.is_empty() {
                self.pending.splice(..0, format!("{}\n", self.header).into_bytes());
            }
        }
        let len = self.file.metadata()?.len();
        if let Err(error) = self.file.write_all(&self.pending) {
            // Part of it may be there.
            let _ = self.file.set_len(len);
            return Err(error);
        }
        self.pending.clear();
        Ok(())
    }

    /// Cuts the file in front of the first line that is torn or not to be kept.
    fn cut(&mut self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::new(&self.file);
        let mut kept_bytes = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line)?;
            let Some(content) = line.strip_suffix(b"\n") else { break };
            if !std::str::from_utf8(content).is_ok_and(&keep) {
                break;
            }
            kept_bytes += line.len() as u64;
        }
        let bytes = self.file.metadata()?.len();
        if kept_bytes < bytes {
            tracing::info!(
                "{}: cut the last {} bytes, which lie behind the checkpoint or are torn",
                self.path.display(),
                bytes - kept_bytes
            );
            // The file is in append mode: the next line follows the new end.
            self.file.set_len(kept_bytes)?;
            self.file.sync_all()?;
        }
        Ok(())
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn train(step: u64) -> Record {
        Record::Train {
            step,
            epoch: step as f64 / 8.0,
            loss: 1.0 / step as f64,
            top1: 0.5,
            lr: 0.0075,
            grad_norm: 2.0,
            images_per_second: 30.0,
            data_wait: 0.0,
        }
    }

    fn row(epoch: u64) -> SummaryRow {
        SummaryRow {
            epoch,
            step: epoch * 10,
            lr: 0.0075,
            train_loss: 1.0 / epoch as f64,
            train_top1: 0.25,
            val_loss: Some(2.5),
            val_top1: Some(0.5),
            val_top5: None,
            seconds: 1.23456,
        }
    }

    #[test]
    fn records_are_objects_of_fixed_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path).unwrap();
        log.write(&Record::Train {
            step: 50,
            epoch: 0.5,
            loss: f64::NAN,
            top1: 0.25,
            lr: 0.0015,
            grad_norm: f64::NAN,
            images_per_second: 30.0,
            data_wait: 0.125,
        })
        .unwrap();
        log.write(&Record::Eval {
            step: 100,
            epoch: 1.0,
            weights: EvaluatedWeights::Ema,
            statistics: Some(Statistics::Population),
            images: 400,
            failed: 1,
            loss: 0.5,
            top1: 0.75,
            top5: 1.0,
            balanced: 0.625,
            seconds: 2.0,
        })
        .unwrap();
        log.write(&Record::Watch {
            step: 100,
            layer: "conv1_7x7_s2".to_owned(),
            p15: -1.0,
            p50: 0.25,
            p85: 1.5,
            mean: 0.125,
            variance: 1.0,
            gradient_norm: f64::INFINITY,
        })
        .unwrap();
        let expected = concat!(
            r#"{"kind":"train","step":50,"epoch":0.5,"loss":null,"top1":0.25,"lr":0.0015,"#,
            r#""grad_norm":null,"images_per_second":30.0,"data_wait":0.125}"#,
            "\n",
            r#"{"kind":"eval","step":100,"epoch":1.0,"weights":"ema","statistics":"population","images":400,"failed":1,"#,
            r#""loss":0.5,"top1":0.75,"top5":1.0,"balanced":0.625,"seconds":2.0}"#,
            "\n",
            r#"{"kind":"watch","step":100,"layer":"conv1_7x7_s2","p15":-1.0,"p50":0.25,"p85":1.5,"#,
            r#""mean":0.125,"variance":1.0,"gradient_norm":null}"#,
            "\n",
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn rows_of_earlier_programs_were_evaluated_with_moving_statistics() {
        let of = |row: &str| match serde_json::from_str(row).unwrap() {
            Record::Eval { statistics, .. } => statistics,
            other => panic!("{other:?}"),
        };
        assert_eq!(of(r#"{"kind":"eval","step":5,"loss":1.0}"#), Some(Statistics::Moving));
        assert_eq!(of(r#"{"kind":"eval","step":5,"statistics":null}"#), None);
        let population = r#"{"kind":"eval","step":5,"statistics":"population"}"#;
        assert_eq!(of(population), Some(Statistics::Population));
    }

    #[test]
    fn a_resumed_log_equals_an_uninterrupted_one() {
        let dir = tempfile::tempdir().unwrap();
        let write = |log: &mut MetricsLog, steps: std::ops::RangeInclusive<u64>| {
            steps.for_each(|step| log.write(&train(step)).unwrap());
        };
        let whole = dir.path().join("whole.jsonl");
        write(&mut MetricsLog::open(&whole).unwrap(), 1..=9);

        // Stopped at 6 with a checkpoint of 4.
        let resumed = dir.path().join("resumed.jsonl");
        write(&mut MetricsLog::open(&resumed).unwrap(), 1..=6);
        let mut log = MetricsLog::open(&resumed).unwrap();
        log.truncate_after(4, true).unwrap();
        write(&mut log, 5..=9);
        assert_eq!(fs::read(&whole).unwrap(), fs::read(&resumed).unwrap());
    }

    #[test]
    fn a_log_whose_folder_is_removed_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/metrics.jsonl");
        fs::create_dir(dir.path().join("run")).unwrap();
        let mut log = MetricsLog::open(&path).unwrap();
        log.write(&train(1)).unwrap();
        fs::remove_dir_all(dir.path().join("run")).unwrap();
        // A file stands where the folder was: the line waits.
        fs::write(dir.path().join("run"), "").unwrap();
        assert!(log.write(&train(2)).is_err());
        fs::remove_file(dir.path().join("run")).unwrap();
        log.write(&train(3)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let steps: Vec<u64> = text.lines().map(|line| step_of_record(line).unwrap().0).collect();
        assert_eq!(steps, [2, 3]);

        let path = dir.path().join("run/summary.csv");
        let mut summary = Summary::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        summary.write(&row(2)).unwrap();
        Summary::open(&path).unwrap().write(&row(3)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.starts_with(SUMMARY_HEADER), "{text}");
    }

    #[test]
    fn torn_lines_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let whole_lines = "{\"step\":1}\n{\"step\":2}\n";
        let tails: [&[u8]; 5] =
            [b"{\"step\":3", b"{\"step\":3}", b"\0\0\0\0\n", b"\xff\xfe\n{\"step\":4}\n", b"\n"];
        for tail in tails {
            fs::write(&path, [whole_lines.as_bytes(), tail].concat()).unwrap();
            MetricsLog::open(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), whole_lines, "{tail:?}");
        }
    }

    #[test]
    fn summary_has_one_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.csv");
        Summary::open(&path).unwrap().write(&row(1)).unwrap();
        let mut summary = Summary::open(&path).unwrap();
        summary.write(&row(2)).unwrap();
        summary.write(&row(3)).unwrap();
        let mut summary = Summary::open(&path).unwrap();
        summary.truncate_after(20).unwrap();
        summary.write(&SummaryRow { val_loss: None, ..row(4) }).unwrap();
        let expected = "\
epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,seconds
1,10,0.0075,1,0.25,2.5,0.5,,1.235
2,20,0.0075,0.5,0.25,2.5,0.5,,1.235
4,40,0.0075,0.25,0.25,,0.5,,1.235
";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        summary.truncate_after(0).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{SUMMARY_HEADER}\n"));
    }

    #[test]
    fn a_torn_summary_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.csv");
        let header = format!("{SUMMARY_HEADER}\n");
        let one_row = format!("{header}1,10,0.1,1,0,,,,1.000\n");
        let table = [
            ("", &header),
            ("epoch,st", &header),
            (SUMMARY_HEADER, &header),
            (&format!("{header}1,1"), &header),
            (&format!("{one_row}2,20,0.1,1"), &one_row),
            // Shorter than its row: the step is cut too.
            (&format!("{one_row}2,2\n"), &one_row),
        ];
        for (before, after) in table {
            fs::write(&path, before).unwrap();
            Summary::open(&path).unwrap();
            assert_eq!(&fs::read_to_string(&path).unwrap(), after, "{before:?}");
        }
    }

    #[test]
    fn a_foreign_summary_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.csv");
        fs::write(&path, "epoch,loss\n1,2\n").unwrap();
        let message = Summary::open(&path).unwrap_err().to_string();
        assert!(message.contains("expected the header `epoch,step,lr,"), "{message}");
        assert!(message.contains("found `epoch,loss`"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "epoch,loss\n1,2\n");
    }
}

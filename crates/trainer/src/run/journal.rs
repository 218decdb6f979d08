//! The files that a run writes besides checkpoints, kept in step with them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::file_error::FileError;
use crate::run::error::RunError;
use crate::run::folder::RunFolder;
use crate::run::records::{MetricsLog, Record, Summary, SummaryRow};
use crate::run::state::RunProgress;
use crate::run::tensorboard::{
    EventImage, EventWriter, Hyperparameters, begin_session, has_events, wall_time,
};

/// `metrics.jsonl`, `summary.csv` and the event files.
///
/// A row that cannot be written stays in memory and is tried again with the next; [`Journal::flush`],
/// which every checkpoint waits for, tells of it. Event files are a view of `metrics.jsonl`: if they
/// cannot be written the run goes on without.
pub struct Journal {
    folder: RunFolder,
    metrics: MetricsLog,
    summary: Summary,
    events: Option<Events>,
    /// Whether the last row could not be written, which is said once.
    failing: bool,
}

impl Journal {
    /// Opens the files, and cuts what lies behind the step of `progress`: rows of steps that will be
    /// done again. Without `hyperparameters` there are no event files.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn open(
        folder: &RunFolder,
        progress: &RunProgress,
        hyperparameters: Option<Hyperparameters>,
    ) -> Result<Journal, RunError> {
        let step = progress.step;
        let wrap = |path: &Path| FileError::of("write", path);
        let path = folder.metrics();
        let mut metrics = MetricsLog::open(&path).map_err(wrap(&path))?;
        // A state saved behind an epoch's last step but before its evaluation makes that again.
        let pending = progress.evaluated_step != Some(step);
        metrics.truncate_after(step, !pending).map_err(wrap(&path))?;
        let path = folder.summary();
        let mut summary = Summary::open(&path).map_err(wrap(&path))?;
        let rows_until = if pending { step.saturating_sub(1) } else { step };
        summary.truncate_after(rows_until).map_err(wrap(&path))?;
        let events = match hyperparameters {
            Some(hyperparameters) => {
                let path = folder.tensorboard();
                std::fs::create_dir_all(&path).map_err(wrap(&path))?;
                let begins = step == 0 && !has_events(&path).map_err(wrap(&path))?;
                Some(Events { folder: path, hyperparameters, step, begins, writer: None })
            }
            None => None,
        };
        Ok(Journal { folder: folder.clone(), metrics, summary, events, failing: false })
    }

    /// Adds a row to `metrics.jsonl` and its numbers to the event file.
    pub fn record(&mut self, record: &Record) {
        let written = self.metrics.write(record);
        self.note(written, &self.folder.metrics());
        let Some(events) = &mut self.events else { return };
        let written = match *record {
            Record::Train {
                step, loss, top1, lr, grad_norm, images_per_second, data_wait, ..
            } => {
                let scalars = [
                    ("train/loss", loss),
                    ("train/top1", top1),
                    ("train/lr", lr),
                    ("train/grad_norm", grad_norm),
                    ("train/images_per_second", images_per_second),
                    ("train/data_wait", data_wait),
                ];
                events.scalars(step, &scalars)
            }
            Record::Eval { step, loss, top1, top5, balanced, .. } => {
                let scalars = [
                    ("val/loss", loss),
                    ("val/top1", top1),
                    ("val/top5", top5),
                    ("val/balanced", balanced),
                ];
                events.scalars(step, &scalars)
            }
            Record::Watch { .. } | Record::Other => Ok(()),
        };
        self.note_events(written);
    }

    /// Writes the distribution of a watched layer's values into the event file.
    pub fn histogram(&mut self, step: u64, layer: &str, values: &[f32]) {
        let Some(events) = &mut self.events else { return };
        let written = events.histogram(step, &format!("watch/{layer}"), values);
        self.note_events(written);
    }

    /// Whether pictures have somewhere to go.
    pub fn takes_images(&self) -> bool {
        self.events.is_some()
    }

    /// Whether pictures of the first step are wanted, which is said once in a run: not to one that goes on.
    pub fn takes_first_images(&mut self) -> bool {
        self.events.as_mut().is_some_and(|events| std::mem::take(&mut events.begins))
    }

    /// Writes a picture into the event file.
    pub fn image(&mut self, step: u64, image: &EventImage<'_>) {
        let Some(events) = &mut self.events else { return };
        let written = events.writer().and_then(|writer| writer.image(wall_time(), step, image));
        self.note_events(written);
    }

    /// Writes the top-1 of the best evaluation so far into the event file.
    pub fn best_top1(&mut self, step: u64, top1: f64) {
        let Some(events) = &mut self.events else { return };
        let written = events.scalars(step, &[("val/best_top1", top1)]);
        self.note_events(written);
    }

    fn note_events(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            let path = self.folder.tensorboard();
            tracing::warn!(
                "no more events for TensorBoard: cannot write {}: {error}",
                path.display()
            );
            self.events = None;
        }
    }

    /// Adds a row to `summary.csv`.
    pub fn epoch(&mut self, row: &SummaryRow) {
        let written = self.summary.write(row);
        self.note(written, &self.folder.summary());
    }

    /// Writes the rows that are still in memory, and gives the files, to be flushed to the disk.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn flush(&mut self) -> Result<Vec<File>, RunError> {
        let (metrics, summary) = (self.folder.metrics(), self.folder.summary());
        let files = vec![
            self.metrics.flush().map_err(FileError::of("write", &metrics))?,
            self.summary.flush().map_err(FileError::of("write", &summary))?,
        ];
        self.failing = false;
        Ok(files)
    }

    fn note(&mut self, written: io::Result<()>, path: &Path) {
        match written {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!("cannot write {}: {error}; rows wait in memory", path.display());
            }
            Err(_) => {}
        }
    }
}

/// The event file of this process, begun with its first event: a run that is resumed at its end leaves
/// no file that holds nothing.
struct Events {
    folder: PathBuf,
    /// What the run is told apart by.
    hyperparameters: Hyperparameters,
    /// Updates done when the files were opened. What earlier files tell of later steps is dropped.
    step: u64,
    /// Whether nothing was written of this run yet.
    begins: bool,
    writer: Option<EventWriter>,
}

impl Events {
    fn writer(&mut self) -> io::Result<&mut EventWriter> {
        match self.writer {
            Some(ref mut writer) => Ok(writer),
            None => {
                begin_session(&self.folder, &self.hyperparameters, wall_time())?;
                let writer = EventWriter::create(&self.folder, wall_time(), self.step)?;
                Ok(self.writer.insert(writer))
            }
        }
    }

    fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> io::Result<()> {
        self.writer()?.scalars(wall_time(), step, scalars)
    }

    fn histogram(&mut self, step: u64, tag: &str, values: &[f32]) -> io::Result<()> {
        self.writer()?.histogram(wall_time(), step, tag, values)
    }
}

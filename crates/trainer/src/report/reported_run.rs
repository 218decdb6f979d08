//! What the page knows of a run.

use std::path::Path;

use crate::comparison::inventory::{RunEntry, RunStatus};
use crate::comparison::recorded_run::{EvalRow, RecordedRun};
use crate::error::Error;
use crate::report::environment::RunLogFacts;
use crate::report::judgement::Judgement;
use crate::report::training_pictures::TrainingPictures;
use crate::run::checkpoint;
use crate::run::metadata::Metadata;

/// What a part of the page shows, or why there is nothing to show and what to do.
pub type Shown<T> = Result<T, String>;

/// A run with all that its page shows.
pub struct ReportedRun {
    /// Its name on the page.
    pub name: String,
    /// What it recorded.
    pub run: RecordedRun,
    /// How it stands.
    pub status: RunStatus,
    /// Updates done, and those of the whole run; `None` without a checkpoint.
    pub steps: Option<(u64, u64)>,
    /// What its newest checkpoint says of itself, or else its best.
    pub metadata: Option<Metadata>,
    /// What its log tells.
    pub log: RunLogFacts,
    /// Its best checkpoint, evaluated.
    pub judgement: Shown<Judgement>,
    /// Its first mini-batch.
    pub training_pictures: Shown<TrainingPictures>,
}

impl ReportedRun {
    /// Reads the folder of a run. Images are not looked at.
    ///
    /// # Errors
    /// As [`RecordedRun::read`].
    pub fn read(path: &Path, name: String) -> Result<ReportedRun, Error> {
        let run = RecordedRun::read(path)?;
        let RunEntry { status, steps, .. } = RunEntry::of(path);
        // What is wrong with a checkpoint is for its evaluation to say.
        let metadata = [run.folder.last(), run.folder.best()]
            .iter()
            .find_map(|path| checkpoint::load_metadata(path).ok());
        let nothing = "it was not looked at".to_owned();
        Ok(ReportedRun {
            name,
            status,
            steps,
            metadata,
            log: RunLogFacts::read(&run.folder.log()),
            judgement: Err(nothing.clone()),
            training_pictures: Err(nothing),
            run,
        })
    }

    /// Its best evaluation: that of its best checkpoint, or else the best of its record.
    pub fn best(&self) -> Option<&EvalRow> {
        let stored = self.metadata.as_ref().and_then(|metadata| metadata.progress.best);
        let of_step = |step: u64| self.run.evaluations.iter().find(|row| row.step == step);
        stored.and_then(|best| of_step(best.step)).or_else(|| self.run.best())
    }

    /// The names of its classes; none where the folder does not say.
    pub fn classes(&self) -> Vec<String> {
        if let Ok(judgement) = &self.judgement {
            return judgement.outcomes.classes.clone();
        }
        if let Some(metadata) = &self.metadata {
            return metadata.classes.clone();
        }
        let text = std::fs::read_to_string(self.run.folder.classes()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

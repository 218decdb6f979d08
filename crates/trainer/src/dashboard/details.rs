//! What the page shows of one run: result, settings, commands.

use std::path::Path;

use serde::Serialize;

use crate::comparison::recorded_run::{preset_of, read_config};
use crate::dashboard::catalogue::CataloguedRun;
use crate::dashboard::row::Row;
use crate::dashboard::tail::read_from;
use crate::error::Error;
use crate::evaluation::interval::Interval;
use crate::page::commands::commands;
use crate::run::checkpoint;
use crate::run::folder::RunFolder;
use crate::run::state::EvaluationResult;

/// Bytes of the reason of a divergence.
const MOST_REASON: u64 = 4 << 10;

/// What is told of a run, as JSON has it.
#[derive(Clone, Debug, Serialize)]
pub struct Details {
    /// Its row in the list.
    pub row: Row,
    /// Its folder, as a command names it.
    pub folder: String,
    /// Why it diverged.
    pub diverged: Option<String>,
    /// What its newest checkpoint tells.
    pub checkpoint: Option<CheckpointDetails>,
    /// Its settings, or why they are not known.
    pub settings: Option<Settings>,
    /// Why there are no settings.
    pub settings_error: Option<String>,
    /// Commands for it, with what each does.
    pub commands: Vec<(&'static str, String)>,
}

/// What a checkpoint tells of its run.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointDetails {
    /// How many classes it tells apart.
    pub classes: usize,
    /// Seconds of training and evaluation.
    pub seconds: f64,
    /// The best evaluation.
    pub best: Option<Evaluated>,
    /// The last one.
    pub last: Option<Evaluated>,
}

/// An evaluation on the validation images.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluated {
    /// Updates done.
    pub step: u64,
    /// The epoch, from 1.
    pub epoch: Option<u64>,
    /// Images evaluated.
    pub images: u64,
    /// Fraction of the images whose label came first.
    pub top1: f64,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// Fraction of the images whose label was among the first five.
    pub top5: f64,
    /// Mean loss.
    pub loss: Option<f64>,
}

/// Settings, and in what they differ from a preset.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The preset.
    pub preset: &'static str,
    /// Whether the run says that it is of this preset; otherwise it is the nearest.
    pub is_known: bool,
    /// Keys, the preset's values and the run's.
    pub changes: Vec<[String; 3]>,
    /// All settings as TOML.
    pub toml: String,
}

impl Details {
    /// Those of the run `id`.
    pub fn of(id: &str, run: &CataloguedRun) -> Details {
        let folder = run.folder.path().display().to_string();
        let look = match &run.look {
            Ok(look) => look,
            Err(reason) => {
                return Details {
                    row: Row::refused(id, reason),
                    folder,
                    diverged: None,
                    checkpoint: None,
                    settings: None,
                    settings_error: Some(reason.clone()),
                    commands: Vec::new(),
                };
            }
        };
        let (settings, settings_error) = match Settings::of(&run.folder) {
            Ok(settings) => (Some(settings), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let diverged = look.files.diverged.and_then(|_| {
            let bytes = read_from(&run.folder.diverged(), 0, MOST_REASON).ok()?;
            Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        });
        Details {
            row: Row::of(id, look),
            folder,
            diverged,
            checkpoint: look.files.last.and_then(|_| CheckpointDetails::of(&run.folder.last())),
            settings,
            settings_error,
            commands: commands(&run.folder, &look.entry.status),
        }
    }
}

impl CheckpointDetails {
    /// `None` of a checkpoint that cannot be read; the row says so.
    fn of(path: &Path) -> Option<CheckpointDetails> {
        let about = checkpoint::load_metadata(path).ok()?;
        Some(CheckpointDetails {
            classes: about.classes.len(),
            seconds: about.progress.seconds,
            best: about.progress.best.map(Evaluated::of),
            last: about.progress.evaluation.map(Evaluated::of),
        })
    }
}

impl Evaluated {
    fn of(result: EvaluationResult) -> Evaluated {
        let EvaluationResult { step, epoch, images, top1, top5, loss, .. } = result;
        let interval = Interval::of_rate(top1, images).map(|found| [found.low, found.high]);
        Evaluated { step, epoch, images, top1, interval, top5, loss }
    }
}

impl Settings {
    fn of(folder: &RunFolder) -> Result<Settings, Error> {
        let (config, recipe) = read_config(folder)?;
        let (preset, changes) = preset_of(&config, &recipe)?;
        let row = |change: &crate::config::Change| {
            [change.key.clone(), change.old.to_string(), change.new.to_string()]
        };
        Ok(Settings {
            preset,
            is_known: !recipe.is_unknown(),
            changes: changes.iter().map(row).collect(),
            toml: config.to_toml()?,
        })
    }
}

//! What the command line of a training run stands for: settings, images, network and engine, before
//! anything is written.

use std::path::PathBuf;

use bninception_data::Splits;
use bninception_engine::model::{Network, ParameterTable};
use bninception_engine::{Executor, ModelState};

use super::recipe::{FirstCheckpoint, Start};
use super::{recipe, run};
use crate::cli::ConfigArgs;
use crate::config::{Config, Recipe, Resolved};
use crate::distributed::Ranks;
use crate::distributed::error::RanksError;
use crate::error::Error;
use crate::file_error::FileError;
use crate::images::data_dirs::DataDirs;
use crate::images::scan;
use crate::run::initial::InitialWeights;
use crate::setup::{self, Placed};
use crate::terminal::signals;
use crate::training::batch_size::choose_batch;
use crate::training::device_memory;
use crate::training::memory_limit::free_memory;
use crate::training::resources::Required;
use crate::training::watch::Watcher;

/// The presets that are made for the embedded pictures.
const EMBEDDED_PRESETS: [&str; 2] = ["demo", "smoke"];

/// Where the embedded pictures are drawn, if the run is on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drawing {
    /// Inside `checkpoint.dir`, for this run and the next.
    Kept,
    /// In a temporary folder that goes with the plan.
    Dropped,
}

/// A training run that could begin.
pub(super) struct RunPlan {
    pub(super) config: Config,
    pub(super) recipe: Recipe,
    pub(super) dirs: DataDirs,
    pub(super) splits: Splits,
    pub(super) network: Network,
    pub(super) table: ParameterTable,
    pub(super) placed: Placed,
    /// The first weights, if they are those of a checkpoint.
    pub(super) initial: Option<InitialWeights>,
    /// Holds the embedded pictures that are not kept.
    _pictures: Option<tempfile::TempDir>,
}

impl RunPlan {
    /// Resolves the settings, finds the images, and builds network and engine.
    ///
    /// # Errors
    /// Settings, images, network or engine that are not as they must be; a signal that asks to stop.
    pub(super) fn of(
        args: &ConfigArgs,
        drawing: Drawing,
        ranks: &mut Ranks,
    ) -> Result<RunPlan, Error> {
        let (args, auto_batch) = args.split_auto_batch();
        let start = Start::of(&args)?;
        let first = &start.resolved;
        let is_embedded = first.config.data.dir.is_empty();
        if is_embedded && !EMBEDDED_PRESETS.contains(&first.recipe.preset.as_str()) {
            return Err(Error::Usage(
                "no images: give --data-dir DIR with DIR/train/CLASS/* and DIR/val/CLASS/*, \
                 or train the embedded pictures with --preset demo"
                    .to_owned(),
            ));
        }
        let pictures = match is_embedded && drawing == Drawing::Dropped {
            true => Some(tempfile::tempdir().map_err(|error| {
                Error::from(FileError::of("create", &std::env::temp_dir())(error))
            })?),
            false => None,
        };
        let parent = match &pictures {
            Some(pictures) => pictures.path().to_owned(),
            None => PathBuf::from(&first.config.checkpoint.dir),
        };
        if is_embedded && drawing == Drawing::Kept {
            tracing::info!(
                "no --data-dir is given: this is the demo, on pictures that the program draws itself"
            );
        }
        // The first rank draws pictures and keeps lists; the others find them.
        let (dirs, splits) = ranks.first_and_then_others(|| {
            let dirs = DataDirs::of_config(&first.config, &parent)?;
            let splits = scan::scan_to_train(&first.config, &dirs)?;
            Ok::<_, Error>((dirs, splits))
        })?;
        signals::check()?;
        let mut resolved = recipe::of_images(&args, &start, &splits)?;
        let (asked, found) = (resolved.config.train.ranks, ranks.share().ranks);
        if asked > 1 && asked != found {
            if drawing == Drawing::Kept {
                return Err(RanksError::Number { asked, found }.into());
            }
            tracing::warn!("planned for one process; the settings name {asked} (train.ranks)");
        }
        resolved = resolved.with_ranks(found)?;
        let network = setup::network(&resolved.config, splits.classes.len())?;
        Watcher::new(&resolved.config, &network)?;
        let table = ParameterTable::new(&network);
        let mut placed = setup::placed(&resolved.config, network.clone())?;
        if auto_batch {
            let n_images = splits.train.len();
            resolved =
                with_auto_batch(resolved, &table, placed.executor.as_mut(), n_images, ranks)?;
        }
        let initial = match &start.first {
            Some(first) => Some(initial_weights(first, &resolved, &network, &splits.classes)?),
            None => None,
        };
        let Resolved { config, recipe, .. } = resolved;
        run::check_batch(&config, &splits)?;
        run::check_classes(&config, &splits)?;
        let _pictures = pictures;
        Ok(RunPlan { config, recipe, dirs, splits, network, table, placed, initial, _pictures })
    }

    /// What an executor holds before the first update.
    pub(super) fn first_state(&self, with_ema: bool) -> ModelState {
        match &self.initial {
            Some(initial) => initial.to_state(with_ema),
            None => {
                let seed = self.config.train.seed;
                ModelState::initial(&self.network, &self.table, seed, with_ema)
            }
        }
    }

    /// Where the images are, for a person.
    pub(super) fn data_name(&self) -> String {
        match self.config.data.dir.is_empty() {
            true => "the embedded pictures".to_owned(),
            false => self.dirs.dir.display().to_string(),
        }
    }
}

/// The first weights of a run, made of a checkpoint's, which is told.
fn initial_weights(
    first: &FirstCheckpoint,
    resolved: &Resolved,
    network: &Network,
    classes: &[String],
) -> Result<InitialWeights, Error> {
    let table = ParameterTable::new(network);
    let drawn = ModelState::initial(network, &table, resolved.config.train.seed, false).weights;
    let initial = InitialWeights::of(&first.checkpoint, network, classes, drawn)?;
    for line in initial.to_lines(classes) {
        tracing::info!("{line}");
    }
    let differences = first.differences(resolved)?;
    if !differences.is_empty() {
        tracing::info!("other settings than that checkpoint's: {differences}");
    }
    Ok(initial)
}

/// The same settings with the batch size that images and memory suggest, which is told.
fn with_auto_batch(
    resolved: Resolved,
    table: &ParameterTable,
    executor: &mut dyn Executor,
    n_images: usize,
    ranks: &mut Ranks,
) -> Result<Resolved, Error> {
    let config = &resolved.config;
    let free = free_memory();
    let mut failed = None;
    let fits = |batch: usize| {
        let needed = Required::of(config, table, executor, batch, n_images).memory;
        let fits_here = match (needed, &free) {
            (Some(needed), Some(free)) => needed <= free.bytes,
            _ => true,
        };
        let fits_device = device_memory::fits(executor, batch).unwrap_or_else(|error| {
            failed = Some(error);
            false
        });
        fits_here && fits_device
    };
    let fewest = config.network.fewest_images();
    let mut choice = choose_batch(n_images, config.train.micro_batches_per_update(), fewest, fits);
    if let Some(error) = failed {
        return Err(error);
    }
    // The rank with the least memory decides.
    choice.images = ranks.gather(choice.images)?.into_iter().min().unwrap_or(choice.images);
    tracing::info!("--batch-size auto: {choice}");
    if choice.images != config.train.batch_size {
        tracing::info!(
            "the learning rate stays {}, which {} has for batches of {}; `lr-find` looks for one of this \
             size",
            config.optimizer.lr,
            resolved.recipe.preset,
            config.train.batch_size
        );
    }
    Ok(resolved.with_batch_size(choice.images, "--batch-size")?)
}

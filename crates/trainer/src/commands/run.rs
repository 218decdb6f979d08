//! What `train` and `resume` have in common.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bninception_data::{FileSource, Splits};
use bninception_engine::Executor;
use bninception_engine::model::summary::summarise;
use bninception_engine::model::{Network, ParameterTable};
use serde_json::json;

use crate::commands::print;
use crate::config::{Config, Recipe};
use crate::error::Error;
use crate::file_error::FileError;
use crate::images::data_dirs::DataDirs;
use crate::run::atomic_file;
use crate::run::folder::RunFolder;
use crate::run::state::TrainState;
use crate::setup;
use crate::terminal::logging;
use crate::terminal::output::with_path;
use crate::terminal::signals;
use crate::terminal::text::{bytes, counted, duration, quoted};
use crate::training::resources::{Available, Required};
use crate::training::train::{Job, Outcome, Stop, train};

/// Asks for a stop when a signal has come, or when `max_time` is over.
pub(super) fn stop_when(max_time: Option<Duration>) -> Box<dyn Fn(u64) -> Option<Stop>> {
    let start = Instant::now();
    Box::new(move |_step| match signals::received() {
        Some((signal, name)) => Some(Stop::Signal(signal, name)),
        None if max_time.is_some_and(|most| start.elapsed() >= most) => Some(Stop::TimeIsUp),
        None => None,
    })
}

/// What a run needs of its machine, and what is free there.
pub(super) struct Room {
    pub(super) needs: Required,
    pub(super) free: Available,
}

impl Room {
    /// Refuses a run that its machine has no room for.
    pub(super) fn of(
        config: &Config,
        table: &ParameterTable,
        executor: &dyn Executor,
        n_images: usize,
        folder: &Path,
    ) -> Result<Room, Error> {
        let batch = config.train.batch_size;
        let needs_with = |batch| Required::of(config, table, executor, batch, n_images);
        let (needs, free) = (needs_with(batch), Available::now(folder));
        needs.check(&free, batch, needs_with)?;
        Ok(Room { needs, free })
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Room { needs, free } = self;
        let of_free = |needed: u64, free: Option<u64>| match free {
            Some(free) => format!("{} of {} free", bytes(needed), bytes(free)),
            None => bytes(needed),
        };
        let memory =
            needs.memory.map(|needed| of_free(needed, free.memory.as_ref().map(|free| free.bytes)));
        write!(
            f,
            "memory about {}; disk up to {} ({} a checkpoint)",
            memory.as_deref().unwrap_or("unknown"),
            of_free(needs.disk, free.disk),
            bytes(needs.checkpoint)
        )
    }
}

/// The images of a run and where they are.
pub(super) struct Images {
    pub(super) splits: Splits,
    pub(super) dirs: DataDirs,
}

pub(super) fn check_batch(config: &Config, splits: &Splits) -> Result<(), Error> {
    let (batch_size, n_images) = (config.train.batch_size, splits.train.len());
    if n_images < batch_size {
        return Err(Error::Usage(format!(
            "train.batch_size = {batch_size}, but there are {n_images} training images; \
             use --batch-size {n_images} or less"
        )));
    }
    Ok(())
}

pub(super) fn job(
    config: Config,
    recipe: Recipe,
    images: Images,
    folder: RunFolder,
    network: Network,
    stop: Box<dyn Fn(u64) -> Option<Stop>>,
) -> Result<Job, Error> {
    let decode = setup::decode_options(&config);
    let lists = images.dirs.lists(&images.splits);
    let Images { splits, dirs } = images;
    Ok(Job {
        classes: splits.classes,
        train: Arc::new(FileSource::new(splits.train, decode)?),
        val: Arc::new(FileSource::new(splits.val, decode)?),
        images: lists,
        data_dirs: dirs,
        folder,
        table: ParameterTable::new(&network),
        network,
        config,
        recipe,
        stop,
    })
}

/// Writes what a person reads, and begins the log.
pub(super) fn write_folder(job: &Job) -> Result<(), Error> {
    let write = |path: PathBuf, text: String| {
        atomic_file::write(&path, |file| file.write_all(text.as_bytes()))
            .map_err(FileError::of("write", &path))
    };
    let config = job.config.to_toml()?;
    write(job.folder.config(), format!("{}{config}", job.recipe.to_toml_head()))?;
    write(job.folder.classes(), job.classes.iter().map(|name| format!("{name}\n")).collect())?;
    let log = job.folder.log();
    Ok(logging::also_to(&log).map_err(FileError::of("write", &log))?)
}

pub(super) fn say_start(job: &Job, state: &TrainState, executor: &dyn Executor, room: &Room) {
    let layers = summarise(&job.network);
    let parameters: usize = layers.iter().map(|layer| layer.parameters).sum();
    let macs: usize = layers.iter().map(|layer| layer.macs).sum();
    let course = job.course(&state.progress);
    tracing::info!("run folder {}", job.folder.path().display());
    tracing::info!("recipe {}", job.recipe);
    tracing::info!(
        "data {}: {}, {} and {}",
        job.data_dirs.dir.display(),
        counted(job.classes.len() as u64, "class"),
        counted(job.train.len() as u64, "training image"),
        counted(job.val.len() as u64, "validation image")
    );
    tracing::info!(
        "network: {:.2} M parameters, {:.3} GMAC an image of {} px",
        parameters as f64 / 1e6,
        macs as f64 / 1e9,
        job.config.data.image_size
    );
    tracing::info!("{}", executor.describe());
    tracing::info!("{room}");
    tracing::info!(
        "{} of {}, {} an epoch",
        counted(course.total_steps, "step"),
        counted(job.config.train.batch_size as u64, "image"),
        course.steps_per_epoch
    );
}

/// Trains to the end and prints the result.
pub(super) fn finish(
    job: &Job,
    executor: &mut dyn Executor,
    state: TrainState,
    as_json: bool,
) -> Result<(), Error> {
    let Outcome { state, finished } = train(job, executor, state)?;
    let progress = &state.progress;
    let course = job.course(progress);
    if as_json {
        let result = json!({
            "epochs": course.epochs_done(progress.step),
            "steps": progress.step,
            "best_top1": progress.best.map(|best| best.top1),
            "top1": progress.evaluation.map(|result| result.top1),
            "top5": progress.evaluation.map(|result| result.top5),
            "loss": progress.evaluation.and_then(|result| result.loss),
            "seconds": progress.seconds,
            "finished": finished,
            "skipped_batches": progress.skipped_batches,
        });
        return print::json(&with_path("run_dir", job.folder.path(), result));
    }
    let skipped = match progress.skipped_batches {
        0 => String::new(),
        n => {
            format!("\n{} changed nothing, for want of images that can be read", counted(n, "step"))
        }
    };
    if !finished {
        return print::text(&format!(
            "the time is up: {} of {} done and saved; go on with: bninception resume {}{skipped}",
            progress.step,
            counted(course.total_steps, "step"),
            quoted(job.folder.path())
        ));
    }
    let result = match (progress.evaluation, progress.best) {
        (Some(result), best) => format!(
            "top-1 {:.2} %, top-5 {:.2} %, loss {} on {} ({})",
            100.0 * result.top1,
            100.0 * result.top5,
            result.loss.map_or("not finite".to_owned(), |loss| format!("{loss:.4}")),
            counted(result.images, "validation image"),
            best.map_or(
                "no evaluation had a finite loss, so none is the best".to_owned(),
                |best| { format!("best top-1 {:.2} %", 100.0 * best.top1) }
            )
        ),
        (None, _) => "no validation images, so nothing was evaluated".to_owned(),
    };
    let best = job.folder.best();
    let checkpoint = if best.is_file() { best } else { job.folder.last() };
    print::text(&format!(
        "{result}{skipped}\n{} in {}; name pictures with: bninception predict {} IMAGE...",
        counted(progress.step, "step"),
        duration(progress.seconds),
        quoted(&checkpoint)
    ))
}

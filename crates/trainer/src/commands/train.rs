//! `train` and `resume`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bninception_data::{FileSource, Splits};
use bninception_engine::model::summary::summarise;
use bninception_engine::model::{Network, ParameterTable};
use bninception_engine::{Executor, TrainBatch};
use serde_json::json;

use crate::checkpoint::{self, Checkpoint};
use crate::cli::{ConfigArgs, ResumeArgs, TrainArgs};
use crate::config::{Config, ConfigFile, ScheduleKind, changes_maths, diff, nearest_setting};
use crate::error::Error;
use crate::image_lists::ImageLists;
use crate::needs::{Free, Needs, bytes};
use crate::progress::duration;
use crate::run_folder::RunFolder;
use crate::state::TrainState;
use crate::train::{Job, Outcome, Stop, train as run_training};
use crate::watch::Watcher;
use crate::{atomic_file, classes, logging, setup, signals};

/// The preset of `train` without arguments, and of its name in the run folder.
const DEMO: &str = "demo";

pub(super) fn train(args: &TrainArgs) -> Result<(), Error> {
    let default = if args.config.is_bare() { DEMO } else { "bn-baseline" };
    let preset = args.config.preset.clone();
    let resolved = args.config.resolve(None, Some(default))?;
    let config = resolved.config;
    if config.data.dir.is_empty() && !uses_embedded_pictures(preset.as_deref(), default) {
        return Err(Error::Usage(
            "no images: give --data-dir DIR with DIR/train/CLASS/* and DIR/val/CLASS/*, \
             or train the embedded pictures with --preset demo"
                .to_owned(),
        ));
    }
    signals::listen()?;
    let stop = stop_when(args.max_time);

    let data_dir = setup::data_dir(&config, Path::new(&config.checkpoint.dir))?;
    let splits = setup::scan_to_train(&config, &data_dir)?;
    signals::check()?;
    let network = setup::network(&config, splits.classes.len())?;
    Watcher::new(&config, &network)?;
    check_batch(&config, &splits)?;
    let mut executor = setup::executor(&config, network.clone())?;
    let name = preset.unwrap_or_else(|| default.to_owned());
    let parent = PathBuf::from(&config.checkpoint.dir);
    let planned = args.run_dir.clone().unwrap_or_else(|| parent.join(&name));
    let table = ParameterTable::new(&network);
    let room = check_room(&config, &table, executor.as_ref(), splits.train.len(), &planned)?;
    if args.dry_run {
        return dry_run(&config, &data_dir, &splits, &network, executor.as_mut(), &room);
    }

    let images = image_lists(&config, &splits, &data_dir);
    let (folder, _lock) =
        RunFolder::create(args.run_dir.as_deref(), &parent, &name, args.overwrite)?;
    let job = job(config, splits, images, folder, network, stop)?;
    let state = TrainState::new(&job.network, &job.table, job.config.train.seed, keeps_ema(&job));
    // From here on there is a checkpoint at every moment.
    job.folder.save_last(&job.metadata(&state), &job.table, &state)?;
    write_folder(&job)?;
    say_start(&job, executor.as_ref(), &data_dir, &room);
    finish(&job, executor.as_mut(), state, args.json)
}

pub(super) fn resume(args: &ResumeArgs) -> Result<(), Error> {
    signals::listen()?;
    let stop = stop_when(args.max_time);
    let (folder, _lock) = RunFolder::open(&args.run)?;
    let Checkpoint { metadata, state, network, .. } = checkpoint::load(&folder.last())?;
    let stored = metadata.config;
    let config = resumed_config(&stored, &args.config, &args.allow_change, &folder)?;

    let data_dir = setup::stored_data_dir(&config, folder.path())?;
    let splits = setup::scan_to_train(&config, &data_dir)?;
    signals::check()?;
    if splits.classes != metadata.classes {
        return Err(Error::Unusable(format!(
            "{} has other classes than the run: {}",
            data_dir.display(),
            classes::difference(&metadata.classes, &splits.classes)
        )));
    }
    let images = image_lists(&config, &splits, &data_dir);
    let others_allowed = args.allow_change.iter().any(|key| key == IMAGES);
    match metadata.images.difference(&images, &splits.classes) {
        Some(difference) if others_allowed => {
            tracing::warn!("{} has other images than the run: {difference}", data_dir.display());
        }
        Some(difference) => {
            return Err(Error::Unusable(format!(
                "{} has other images than the run: {difference}\nput them back, or go on with what \
                 is there by --allow-change {IMAGES}; the result will be another",
                data_dir.display()
            )));
        }
        None => {}
    }
    Watcher::new(&config, &network)?;
    check_batch(&config, &splits)?;
    let mut executor = setup::executor(&config, network.clone())?;
    let table = ParameterTable::new(&network);
    let n_images = splits.train.len();
    let room = check_room(&config, &table, executor.as_ref(), n_images, folder.path())?;
    let job = job(config, splits, images, folder, network, stop)?;
    if job.steps_per_epoch() != metadata.steps_per_epoch && !others_allowed {
        return Err(Error::Unusable(format!(
            "{} has {} training images: an epoch would have {} batches, and that of the run has {}",
            data_dir.display(),
            job.train.len(),
            job.steps_per_epoch(),
            metadata.steps_per_epoch
        )));
    }
    write_folder(&job)?;
    say_start(&job, executor.as_ref(), &data_dir, &room);
    let step = state.progress.step;
    match step >= job.total_steps() && state.progress.evaluated_step == Some(step) {
        true => tracing::info!(
            "the run is at its end (step {step}); train on with, for example, --epochs {}",
            step.div_ceil(job.steps_per_epoch()) + 1
        ),
        false => tracing::info!(
            "going on at step {step}, epoch {:.2}",
            step as f64 / job.steps_per_epoch() as f64
        ),
    }
    finish(&job, executor.as_mut(), state, args.json)
}

/// The key by which `--allow-change` permits other images.
const IMAGES: &str = "data.images";

/// Asks for a stop when a signal has come, or when `max_time` is over.
fn stop_when(max_time: Option<Duration>) -> Box<dyn Fn(u64) -> Option<Stop>> {
    let start = Instant::now();
    Box::new(move |_step| match signals::received() {
        Some((signal, name)) => Some(Stop::Signal(signal, name)),
        None if max_time.is_some_and(|most| start.elapsed() >= most) => Some(Stop::TimeIsUp),
        None => None,
    })
}

fn keeps_ema(job: &Job) -> bool {
    job.config.train.ema > 0.0
}

fn image_lists(config: &Config, splits: &Splits, data_dir: &Path) -> ImageLists {
    let val_dir = match config.data.val_dir.as_str() {
        "" => data_dir,
        val_dir => Path::new(val_dir),
    };
    ImageLists::of(splits, data_dir, val_dir)
}

/// Refuses a run that its machine has no room for; gives the needs in words.
fn check_room(
    config: &Config,
    table: &ParameterTable,
    executor: &dyn Executor,
    n_images: usize,
    folder: &Path,
) -> Result<String, Error> {
    let batch = config.train.batch_size;
    let needs_with = |batch| Needs::of(config, table, executor, batch, n_images);
    let (needs, free) = (needs_with(batch), Free::now(folder));
    needs.check(&free, batch, needs_with)?;
    let of_free = |needed: u64, free: Option<u64>| match free {
        Some(free) => format!("{} of {} free", bytes(needed), bytes(free)),
        None => bytes(needed),
    };
    let memory = needs.memory.map_or("unknown".to_owned(), |memory| {
        of_free(memory, free.memory.as_ref().map(|free| free.bytes))
    });
    Ok(format!(
        "memory about {memory}; disk up to {} ({} a checkpoint)",
        of_free(needs.disk, free.disk),
        bytes(needs.checkpoint)
    ))
}

/// Whether an empty `data.dir` means the embedded pictures: in the presets made for them.
fn uses_embedded_pictures(preset: Option<&str>, default: &str) -> bool {
    matches!(preset.unwrap_or(default), DEMO | "smoke")
}

/// The run's own settings with those given now; a change of what is computed needs permission.
fn resumed_config(
    stored: &Config,
    args: &ConfigArgs,
    allowed: &[String],
    folder: &RunFolder,
) -> Result<Config, Error> {
    if args.preset.is_some() {
        return Err(Error::Usage(
            "resume takes the recipe from the run; single settings may be given, not a preset"
                .to_owned(),
        ));
    }
    for key in allowed.iter().filter(|key| *key != IMAGES) {
        if let Some(nearest) = nearest_setting(stored, key)? {
            return Err(Error::Usage(format!(
                "--allow-change {key}: there is no such setting; did you mean `{nearest}`?"
            )));
        }
    }
    let name = folder.path().display().to_string();
    let text = stored.to_toml()?;
    let config = args.resolve(Some(ConfigFile { name, text }), None)?.config;
    let schedule: ScheduleKind = stored.schedule.kind;
    let refused: Vec<String> = diff(stored, &config)?
        .into_iter()
        .filter(|change| changes_maths(&change.key, schedule) && !allowed.contains(&change.key))
        .map(|change| {
            let (key, old, new) = (&change.key, &change.old, &change.new);
            format!("  {key}: {old} in the run, {new} now (--allow-change {key})")
        })
        .collect();
    if refused.is_empty() {
        return Ok(config);
    }
    Err(Error::Usage(format!(
        "these settings would change the result of the run:\n{}\n\
         leave them out, or permit each as shown",
        refused.join("\n")
    )))
}

fn check_batch(config: &Config, splits: &Splits) -> Result<(), Error> {
    let (batch_size, n_images) = (config.train.batch_size, splits.train.len());
    if n_images < batch_size {
        return Err(Error::Usage(format!(
            "train.batch_size = {batch_size}, but there are {n_images} training images; \
             use --batch-size {n_images} or less"
        )));
    }
    Ok(())
}

fn job(
    config: Config,
    splits: Splits,
    images: ImageLists,
    folder: RunFolder,
    network: Network,
    stop: Box<dyn Fn(u64) -> Option<Stop>>,
) -> Result<Job, Error> {
    let decode = setup::decode_options(&config);
    Ok(Job {
        classes: splits.classes,
        train: Arc::new(FileSource::new(splits.train, decode)?),
        val: Arc::new(FileSource::new(splits.val, decode)?),
        images,
        folder,
        table: ParameterTable::new(&network),
        network,
        config,
        stop,
    })
}

/// Writes what a person reads, and begins the log.
fn write_folder(job: &Job) -> Result<(), Error> {
    let write = |path: PathBuf, text: String| {
        atomic_file::write(&path, |file| file.write_all(text.as_bytes()))
            .map_err(Error::io("write", &path))
    };
    write(job.folder.config(), job.config.to_toml()?)?;
    write(job.folder.classes(), job.classes.iter().map(|name| format!("{name}\n")).collect())?;
    let log = job.folder.log();
    logging::also_to(&log).map_err(Error::io("write", &log))
}

fn say_start(job: &Job, executor: &dyn Executor, data_dir: &Path, room: &str) {
    let layers = summarise(&job.network);
    let parameters: usize = layers.iter().map(|layer| layer.parameters).sum();
    let macs: usize = layers.iter().map(|layer| layer.macs).sum();
    tracing::info!("run folder {}", job.folder.path().display());
    tracing::info!(
        "data {}: {} classes, {} training and {} validation images",
        data_dir.display(),
        job.classes.len(),
        job.train.len(),
        job.val.len()
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
        "{} steps of {} images, {} an epoch",
        job.total_steps(),
        job.config.train.batch_size,
        job.steps_per_epoch()
    );
}

/// Trains to the end and prints the result.
fn finish(
    job: &Job,
    executor: &mut dyn Executor,
    state: TrainState,
    as_json: bool,
) -> Result<(), Error> {
    let Outcome { state, finished } = run_training(job, executor, state)?;
    let progress = &state.progress;
    let epochs = progress.step / job.steps_per_epoch();
    if as_json {
        return super::print_json(&json!({
            "run_dir": job.folder.path(),
            "epochs": epochs,
            "steps": progress.step,
            "best_top1": progress.best.map(|best| best.top1),
            "top1": progress.evaluation.map(|result| result.top1),
            "top5": progress.evaluation.map(|result| result.top5),
            "loss": progress.evaluation.map(|result| result.loss),
            "seconds": progress.seconds,
            "finished": finished,
        }));
    }
    if !finished {
        return super::print(&format!(
            "the time is up: {} of {} steps are done and saved; go on with: bninception resume {}",
            progress.step,
            job.total_steps(),
            job.folder.path().display()
        ));
    }
    let result = match (progress.evaluation, progress.best) {
        (Some(result), Some(best)) => format!(
            "top-1 {:.2} %, top-5 {:.2} %, loss {:.4} on {} validation images (best top-1 {:.2} %)",
            100.0 * result.top1,
            100.0 * result.top5,
            result.loss,
            result.images,
            100.0 * best.top1
        ),
        _ => "no validation images, so nothing was evaluated".to_owned(),
    };
    let best = job.folder.best();
    let checkpoint = if best.is_file() { best } else { job.folder.last() };
    super::print(&format!(
        "{result}\n{} steps in {}; name pictures with: bninception predict {} IMAGE...",
        progress.step,
        duration(progress.seconds),
        checkpoint.display()
    ))
}

/// Runs one step on the first images and says what a run would do. Writes nothing but the embedded
/// pictures, which it needs.
fn dry_run(
    config: &Config,
    data_dir: &Path,
    splits: &Splits,
    network: &Network,
    executor: &mut dyn Executor,
    room: &str,
) -> Result<(), Error> {
    let table = ParameterTable::new(network);
    let mut state = TrainState::new(network, &table, config.train.seed, false);
    let n_images = config.train.batch_size;
    let preprocessing = setup::preprocessing(config);
    let decode = setup::decode_options(config);
    let source = Arc::new(FileSource::new(splits.train.clone(), decode)?);
    let plan = setup::train_plan(config, 0..1);
    let options = setup::load_options(config, n_images);
    let mut loader = bninception_data::Loader::train(source, &preprocessing, &options, &plan)?;
    let Some(batch) = loader.next() else {
        return Err(Error::Unusable("there is no batch to train on".to_owned()));
    };
    let batch = batch?;
    let input = TrainBatch {
        images: &batch.images,
        labels: &batch.labels,
        label_smoothing: config.train.label_smoothing,
        seed: config.train.seed,
        step: 0,
    };
    let mut gradients = vec![0.0; table.n_trainable()];
    let start = Instant::now();
    let loss = executor.train(&input, &mut state.weights, &mut gradients, &mut Vec::new())?;
    let seconds = start.elapsed().as_secs_f64();

    let (steps_per_epoch, total_steps) = setup::steps(config, splits.train.len());
    super::print(&format!(
        "data {}: {} classes, {} training and {} validation images\n\
         {}\n\
         plan: {total_steps} steps of {n_images} images, {steps_per_epoch} an epoch\n\
         first step: loss {loss:.4} in {seconds:.2} s (it includes setting up)\n\
         {room}\n\
         dry run: nothing was written",
        data_dir.display(),
        splits.classes.len(),
        splits.train.len(),
        splits.val.len(),
        executor.describe(),
    ))
}

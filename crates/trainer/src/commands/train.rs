//! `train` and `resume`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bninception_data::{FileSource, Splits};
use bninception_engine::model::summary::summarise;
use bninception_engine::model::{Network, ParameterTable};
use bninception_engine::{Executor, TrainBatch};
use serde_json::json;

use crate::checkpoint::{self, Checkpoint};
use crate::cli::{ConfigArgs, ResumeArgs, TrainArgs};
use crate::config::{Config, ConfigFile, ScheduleKind, changes_maths, diff};
use crate::error::Error;
use crate::progress::duration;
use crate::run_folder::RunFolder;
use crate::state::TrainState;
use crate::train::{Job, train as run_training};
use crate::{logging, setup, signals};

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

    let data_dir = setup::data_dir(&config)?;
    let splits = setup::scan_to_train(&config, &data_dir)?;
    signals::check()?;
    let network = setup::network(&config, splits.classes.len())?;
    check_batch(&config, &splits)?;
    let mut executor = setup::executor(&config, network.clone())?;
    if args.dry_run {
        return dry_run(&config, &data_dir, &splits, &network, executor.as_mut());
    }

    let name = preset.unwrap_or_else(|| default.to_owned());
    let parent = PathBuf::from(&config.checkpoint.dir);
    let folder = RunFolder::create(args.run_dir.as_deref(), &parent, &name, args.overwrite)?;
    write_folder(&folder, &config, &splits.classes)?;
    let job = job(config, splits, folder, network)?;
    let Job { network, table, config, .. } = &job;
    let state = TrainState::new(network, table, config.train.seed, config.train.ema > 0.0);
    say_start(&job, executor.as_ref(), &data_dir);
    finish(&job, executor.as_mut(), state, args.json)
}

pub(super) fn resume(args: &ResumeArgs) -> Result<(), Error> {
    signals::listen()?;
    let folder = RunFolder::open(&args.run)?;
    let Checkpoint { metadata, state, network, .. } = checkpoint::load(&folder.last())?;
    let stored = metadata.config;
    let config = resumed_config(&stored, &args.config, &args.allow_change, &folder)?;

    let data_dir = setup::data_dir(&config)?;
    let splits = setup::scan_to_train(&config, &data_dir)?;
    signals::check()?;
    if splits.classes != metadata.classes {
        return Err(Error::Unusable(format!(
            "{} has other classes than the run: {}",
            data_dir.display(),
            class_difference(&metadata.classes, &splits.classes)
        )));
    }
    check_batch(&config, &splits)?;
    let mut executor = setup::executor(&config, network.clone())?;
    let job = job(config, splits, folder, network)?;
    if job.steps_per_epoch() != metadata.steps_per_epoch {
        return Err(Error::Unusable(format!(
            "{} has {} training images: an epoch would have {} batches, and that of the run has {}",
            data_dir.display(),
            job.train.len(),
            job.steps_per_epoch(),
            metadata.steps_per_epoch
        )));
    }
    write_folder(&job.folder, &job.config, &job.classes)?;
    say_start(&job, executor.as_ref(), &data_dir);
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

fn class_difference(run: &[String], found: &[String]) -> String {
    let list = |names: Vec<&String>| -> String {
        let mut text: Vec<String> = names.iter().take(5).map(|name| format!("`{name}`")).collect();
        if names.len() > text.len() {
            text.push(format!("and {} more", names.len() - text.len()));
        }
        text.join(", ")
    };
    let missing: Vec<&String> = run.iter().filter(|name| !found.contains(name)).collect();
    let added: Vec<&String> = found.iter().filter(|name| !run.contains(name)).collect();
    match (missing.is_empty(), added.is_empty()) {
        (false, true) => format!("it lacks {}", list(missing)),
        (true, false) => format!("it adds {}", list(added)),
        _ => format!("it lacks {} and adds {}", list(missing), list(added)),
    }
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

fn job(config: Config, splits: Splits, folder: RunFolder, network: Network) -> Result<Job, Error> {
    let decode = setup::decode_options(&config);
    Ok(Job {
        classes: splits.classes,
        train: Arc::new(FileSource::new(splits.train, decode)?),
        val: Arc::new(FileSource::new(splits.val, decode)?),
        folder,
        table: ParameterTable::new(&network),
        network,
        config,
    })
}

fn write_folder(folder: &RunFolder, config: &Config, classes: &[String]) -> Result<(), Error> {
    let write = |path: PathBuf, text: String| {
        std::fs::write(&path, text).map_err(Error::io("write", &path))
    };
    write(folder.config(), config.to_toml()?)?;
    write(folder.classes(), classes.iter().map(|name| format!("{name}\n")).collect())?;
    let log = folder.log();
    logging::also_to(&log).map_err(Error::io("write", &log))
}

fn say_start(job: &Job, executor: &dyn Executor, data_dir: &Path) {
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
    let state = run_training(job, executor, state)?;
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
        }));
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
    // Weights, running statistics, momentum, and the moving average if there is one.
    let values = table.n_trainable() * 2 + table.n_statistics();
    let ema = if config.train.ema > 0.0 { table.n_trainable() + table.n_statistics() } else { 0 };
    let checkpoint_mb = 4.0 * (values + ema) as f64 / 1e6;
    super::print(&format!(
        "data {}: {} classes, {} training and {} validation images\n\
         {}\n\
         plan: {total_steps} steps of {n_images} images, {steps_per_epoch} an epoch\n\
         first step: loss {loss:.4} in {seconds:.2} s (it includes setting up)\n\
         a checkpoint takes {checkpoint_mb:.0} MB; up to {} are kept\n\
         dry run: nothing was written",
        data_dir.display(),
        splits.classes.len(),
        splits.train.len(),
        splits.val.len(),
        executor.describe(),
        match config.checkpoint.keep {
            0 => "all".to_owned(),
            keep => (keep + 2).to_string(),
        },
    ))
}

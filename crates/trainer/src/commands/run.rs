//! What `train` and `resume` have in common.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bninception_data::{FileSource, Sample, Source, Splits};
use bninception_engine::Executor;
use bninception_engine::model::parameters::TensorSpec;
use bninception_engine::model::summary::summarise;
use bninception_engine::model::{Network, ParameterTable};
use serde_json::json;

use crate::commands::print;
use crate::config::{
    Balance, BestBy, ClassWeights, Config, EvalStatistics, Recipe, ScaleLr, Shuffle,
};
use crate::dashboard::beside::Beside;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::evaluation::calibrate::n_batches_while_training;
use crate::evaluation::interval::Interval;
use crate::evaluation::statistics::{self, Statistics};
use crate::file_error::FileError;
use crate::images::class_counts::{class_counts, imbalance, without_validation};
use crate::images::data_dirs::DataDirs;
use crate::run::atomic_file;
use crate::run::folder::RunFolder;
use crate::run::metadata::InitialSource;
use crate::run::state::{EvaluationResult, RunProgress, TrainState};
use crate::run::stop::Stop;
use crate::setup;
use crate::terminal::color::{Accent, mark_commands};
use crate::terminal::logging;
use crate::terminal::loss::{is_far_above_guessing, loss_text};
use crate::terminal::output::with_path;
use crate::terminal::signals;
use crate::terminal::text::{counted, duration, has_top5, percent, quoted};
use crate::training::course::Course;
use crate::training::job::Job;
use crate::training::left_over::left_over;
use crate::training::resources::Room;
use crate::training::train::{Outcome, train};

/// Asks for a stop when a signal has come, or when `max_time` is over.
pub(super) fn stop_when(max_time: Option<Duration>) -> Box<dyn Fn(u64) -> Option<Stop>> {
    let start = Instant::now();
    Box::new(move |_step| match signals::received() {
        Some((signal, _)) => Some(Stop::Signal(signal)),
        None if max_time.is_some_and(|most| start.elapsed() >= most) => Some(Stop::TimeIsUp),
        None => None,
    })
}

/// The images of a run and where they are.
pub(super) struct RunImages {
    pub(super) splits: Splits,
    pub(super) dirs: DataDirs,
}

pub(super) fn check_batch(config: &Config, splits: &Splits) -> Result<(), Error> {
    let (train, n_images) = (&config.train, splits.train.len());
    if n_images < train.batch_size {
        return Err(Error::Usage(format!(
            "train.batch_size = {}, but there are {n_images} training images; \
             use --batch-size {n_images} or less",
            train.batch_size
        )));
    }
    if n_images < train.images_per_update() {
        return Err(Error::Usage(format!(
            "an update takes {} batches of {} images, but there are {n_images} training images; use \
             {}",
            train.micro_batches_per_update(),
            train.batch_size,
            match n_images / train.batch_size / train.ranks {
                0 => format!("fewer than {} processes, or a smaller --batch-size", train.ranks),
                most => format!("--accumulate {most} or less"),
            }
        )));
    }
    Ok(())
}

/// Checks what the settings say of classes, and of the validation images that they need.
pub(super) fn check_classes(config: &Config, splits: &Splits) -> Result<(), Error> {
    class_weights(config, splits)?;
    if config.train.patience > 0 && splits.val.is_empty() {
        return Err(Error::Usage(format!(
            "train.patience = {} stops a run that no longer improves on validation images, but there \
             are none; name some with --val-dir, or use --set train.patience=0",
            config.train.patience
        )));
    }
    Ok(())
}

/// The weight of each class in the training loss, if they differ.
pub(super) fn class_weights(config: &Config, splits: &Splits) -> Result<Option<Vec<f64>>, Error> {
    let labels = splits.train.iter().map(|sample| sample.label);
    let counts = class_counts(labels, splits.classes.len());
    Ok(setup::class_weights(config, &splits.classes, &counts)?)
}

/// Warns of classes of `splits` that are rare, or that nothing is known of.
pub(super) fn warn_of_splits(config: &Config, splits: &Splits) {
    let counts = |samples: &[Sample]| {
        class_counts(samples.iter().map(|sample| sample.label), splits.classes.len())
    };
    warn_of_classes(config, &splits.classes, &counts(&splits.train), &counts(&splits.val));
}

/// Warns of classes that are rare, or that nothing is known of. `train` and `val` are the images of each
/// class.
fn warn_of_classes(config: &Config, classes: &[String], train: &[u64], val: &[u64]) {
    let named = |counts: &[u64]| -> Vec<(&str, u64)> {
        classes.iter().map(String::as_str).zip(counts.iter().copied()).collect()
    };
    if let Some(imbalance) = imbalance(&named(train)) {
        let is_met = config.data.balance != Balance::None
            || config.train.class_weights != ClassWeights::None;
        let shuffle = match config.data.shuffle {
            Shuffle::Full => "",
            _ => " --set data.shuffle=full",
        };
        match is_met {
            true => {
                tracing::info!("{imbalance}; data.balance or train.class_weights makes up for it")
            }
            false => tracing::warn!(
                "{imbalance}; to show rare classes more often use --set data.balance=classes{shuffle}, to \
                 let their images weigh more --set train.class_weights=balanced, and to keep the state \
                 that is best for all classes --set checkpoint.best_by=balanced"
            ),
        }
    }
    if let Some(without) = without_validation(&named(val)) {
        tracing::warn!("{without}");
    }
}

pub(super) fn job(
    config: Config,
    recipe: Recipe,
    images: RunImages,
    initial: Option<InitialSource>,
    folder: RunFolder,
    network: Network,
    stop: Box<dyn Fn(u64) -> Option<Stop>>,
) -> Result<Job, Error> {
    let decode = setup::decode_options(&config);
    let lists = images.dirs.lists(&images.splits);
    let class_weights = class_weights(&config, &images.splits)?;
    let RunImages { splits, dirs } = images;
    Ok(Job {
        classes: splits.classes,
        class_weights,
        train: Arc::new(FileSource::new(splits.train, decode)?),
        val: Arc::new(FileSource::new(splits.val, decode)?),
        images: lists,
        data_dirs: dirs,
        initial,
        preprocessing: setup::preprocessing(&config),
        normaliser: setup::normaliser(&config),
        folder,
        table: ParameterTable::new(&network),
        network,
        config,
        recipe,
        stop,
    })
}

/// Writes what a person reads, and begins the log, of which each rank has one.
pub(super) fn write_folder(job: &Job, ranks: &Ranks) -> Result<(), Error> {
    let log = job.folder.log_of(ranks.share().rank);
    if !ranks.is_first() {
        // The folder may be on a disk of rank 0 alone.
        let made = std::fs::create_dir_all(job.folder.path());
        made.map_err(FileError::of("create", job.folder.path()))?;
        return Ok(logging::also_to(&log).map_err(FileError::of("write", &log))?);
    }
    let write = |path: PathBuf, text: String| {
        atomic_file::write(&path, |file| file.write_all(text.as_bytes()))
            .map_err(FileError::of("write", &path))
    };
    let config = job.config.to_toml()?;
    write(job.folder.config(), format!("{}{config}", job.recipe.to_toml_head()))?;
    write(job.folder.classes(), job.classes.iter().map(|name| format!("{name}\n")).collect())?;
    Ok(logging::also_to(&log).map_err(FileError::of("write", &log))?)
}

/// The dashboard beside the run, if it is asked for; the first process serves it.
pub(super) fn dashboard(is_asked: bool, job: &Job, ranks: &Ranks) -> Option<Beside> {
    (is_asked && ranks.is_first()).then(|| Beside::start(job.folder.path())).flatten()
}

/// The images of an update, in words.
pub(super) fn per_update(config: &Config) -> String {
    let images = counted(config.train.batch_size as u64, "image");
    match config.train.micro_batches_per_update() {
        1 => images,
        n => format!("{n} x {images}"),
    }
}

pub(super) fn say_start(
    job: &Job,
    state: &TrainState,
    executor: &dyn Executor,
    room: &Room,
    ranks: &Ranks,
) {
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
    let counts = |source: &dyn Source| {
        class_counts((0..source.len()).map(|index| source.label(index)), job.classes.len())
    };
    let (train, val) = (counts(job.train.as_ref()), counts(job.val.as_ref()));
    warn_of_classes(&job.config, &job.classes, &train, &val);
    tracing::info!(
        "network: {:.2} M parameters, {:.3} GMAC an image of {} px",
        parameters as f64 / 1e6,
        macs as f64 / 1e9,
        job.config.data.image_size
    );
    if !job.config.train.freeze.is_empty() {
        let is_trained = |spec: &&TensorSpec| spec.layer > job.network.frozen;
        let trained = job.table.trainable.iter().filter(is_trained);
        let trained: usize = trained.map(|spec| spec.range.len()).sum();
        tracing::info!(
            "{} stays as it is: {:.2} M of the parameters are trained",
            job.config.train.freeze,
            trained as f64 / 1e6
        );
    }
    tracing::info!("{}", executor.describe());
    if ranks.are_many() {
        tracing::info!("{}", ranks.describe());
        if let Some(advice) = advice_on_lr(&job.config) {
            tracing::info!("{advice}");
        }
    }
    tracing::info!("{room}");
    tracing::info!(
        "{} of {}, {} an epoch",
        counted(course.total_steps, "step"),
        per_update(&job.config),
        course.steps_per_epoch
    );
    let chosen = statistics::chosen(job.config.train.eval_statistics, course.steps_per_epoch);
    if job.network.options.batch_norm.is_some() && chosen == Statistics::Population {
        let batch_size = job.config.train.batch_size;
        tracing::info!(
            "evaluated with population statistics over {} of {}",
            counted(n_batches_while_training(batch_size, job.train.len()), "batch"),
            counted(batch_size as u64, "training image")
        );
    }
    let line = left_over(&job.config.train, job.config.data.shuffle, job.train.len());
    // Balanced epochs draw as many images as there are, some of them more than once.
    if let Some(line) = line.filter(|_| job.config.data.balance == Balance::None) {
        tracing::info!("{line}");
    }
    if let Some(majority) = job.majority() {
        tracing::info!("to beat in validation: {}", majority.to_text(&job.classes));
    }
    if job.is_of_embedded_pictures() {
        tracing::info!(
            "an evaluation follows every epoch; Ctrl-C saves and leaves, and it goes on with: bninception resume {}",
            quoted(job.folder.path())
        );
    }
}

/// What the linear rule makes of the learning rate of several processes, where it is not applied.
fn advice_on_lr(config: &Config) -> Option<String> {
    let (lr, ranks) = (config.optimizer.lr, config.train.ranks);
    let (of_one, of_all) =
        (config.train.batch_size * config.train.accumulate, config.train.images_per_update());
    (ranks > 1 && config.schedule.scale_lr == ScaleLr::None).then(|| {
        format!(
            "the learning rate {lr} suits updates of {of_one} images, and these have {of_all}: the linear rule \
             (Goyal et al. 2017) suggests {} behind a rise over 5 epochs; take it with --set \
             schedule.scale_lr=linear",
            rounded(lr * ranks as f64)
        )
    })
}

/// A rate without the digits that a product brings.
fn rounded(rate: f64) -> f64 {
    format!("{rate:.4e}").parse().unwrap_or(rate)
}

/// Leaves a mark in the folder of a run that has diverged, for whoever looks at it later.
fn mark_if_diverged(job: &Job, error: &Error) {
    if error.is_divergence()
        && let Err(other) = job.folder.mark_diverged(&error.to_string())
    {
        tracing::warn!("the run is not marked as diverged: {other}");
    }
}

/// Trains to the end and prints the result.
pub(super) fn finish(
    job: &Job,
    executor: &mut dyn Executor,
    ranks: &mut Ranks,
    state: TrainState,
    as_json: bool,
) -> Result<(), Error> {
    let outcome = train(job, executor, ranks, state);
    if let Err(error) = &outcome {
        if ranks.is_first() {
            mark_if_diverged(job, error);
        }
        // All ranks come to this together, and the first has to write before one of them ends all.
        if let Error::Diverged { .. } = error {
            ranks.wait_for_all()?;
        }
    }
    let Outcome { progress, finished, stopped_early } = outcome?;
    if !ranks.is_first() {
        return Ok(());
    }
    let course = job.course(&progress);
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
            "top1_interval": progress
                .evaluation
                .and_then(|result| Interval::of_rate(result.top1, result.images))
                .map(|interval| [interval.low, interval.high]),
            "majority": job.majority().map(|majority| {
                json!({ "class": job.classes[majority.class as usize], "top1": majority.top1() })
            }),
            "stopped_early": stopped_early,
            "balanced": progress.evaluation.and_then(|result| result.balanced),
            "best_by": job.config.checkpoint.best_by,
            "best_epoch": progress.best.map(|best| course.epoch_of(&best)),
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
        let text = format!(
            "the time is up: {} of {} done and saved; go on with: bninception resume {}{skipped}",
            progress.step,
            counted(course.total_steps, "step"),
            quoted(job.folder.path())
        );
        return print::text(&mark_commands(&text, |command| Accent::Command.paint(command)));
    }
    let result = match progress.evaluation {
        Some(result) => result_to_text(job, &course, &progress, &result),
        None => "no validation images, so nothing was evaluated".to_owned(),
    };
    let checkpoint = job.folder.best_or_last().unwrap_or_else(|| job.folder.last());
    let text = format!(
        "{result}{skipped}\n{} in {}; name pictures with: bninception predict {} IMAGE...",
        counted(progress.step, "step"),
        duration(progress.seconds),
        quoted(&checkpoint)
    );
    print::text(&mark_commands(&text, |command| Accent::Command.paint(command)))?;
    if job.is_of_embedded_pictures() {
        tracing::info!(
            "a page with the curves of this run: bninception report {}\n\
             train on pictures of your own, photos/CLASS/*.jpg: bninception train --data-dir photos",
            quoted(job.folder.path())
        );
    }
    Ok(())
}

/// The last evaluation, which is the best, and what they have to beat.
fn result_to_text(
    job: &Job,
    course: &Course,
    progress: &RunProgress,
    result: &EvaluationResult,
) -> String {
    let n_classes = job.classes.len();
    let interval = Interval::of_rate(result.top1, result.images);
    let interval = interval.map_or(String::new(), |found| format!(" (95 %: {})", found.to_text()));
    let top5 = match has_top5(n_classes) {
        true => format!(", top-5 {}", percent(result.top5)),
        false => String::new(),
    };
    let loss = result.loss.unwrap_or(f64::NAN);
    let mut text = format!(
        "{}{top5}, loss {} on {}\n{}",
        Accent::Strong.paint(&format!("top-1 {}{interval}", percent(result.top1))),
        loss_text(loss, n_classes),
        counted(result.images, "validation image"),
        choice_of_best(job.config.checkpoint.best_by, course, progress, result)
    );
    if let Some(majority) = job.majority() {
        text.push_str(&format!("\n{}", majority.verdict(&job.classes, result.top1)));
    }
    if is_far_above_guessing(loss, n_classes) {
        // With `auto`, such a loss under moving statistics was looked at again with others.
        let used = match job.config.train.eval_statistics {
            EvalStatistics::Moving => Statistics::Moving,
            EvalStatistics::Population | EvalStatistics::Auto => Statistics::Population,
        };
        let statistics = job.network.options.batch_norm.map(|_| used);
        let reason = statistics::reason_for_loss(statistics);
        text.push_str(&format!("\nthe loss is so far above guessing because {reason}"));
    }
    text
}

/// Which evaluation is the best, and by what: `best by top-1: epoch 24 of 30, 72.55 %; last 71.24 %`. The best
/// of many looks at the same images is better than the network is.
fn choice_of_best(
    by: BestBy,
    course: &Course,
    progress: &RunProgress,
    last: &EvaluationResult,
) -> String {
    let (name, n_epochs) = (by.name(), course.epoch_number(progress.step));
    match progress.best {
        None => "no evaluation had a finite loss, so none is the best".to_owned(),
        Some(best) => {
            let (epoch, value) = (course.epoch_of(&best), best.shown(by));
            let last = match best.step == last.step {
                true => ", the last".to_owned(),
                false => format!(
                    ", picked from {n_epochs} evaluations of the same images, so it flatters; last {}",
                    last.shown(by)
                ),
            };
            format!("best by {name}: epoch {epoch} of {n_epochs}, {value}{last}")
        }
    }
}

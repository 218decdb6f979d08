//! `predict`.

mod answers;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bninception_data::{Batch, LoadOptions, Loader, Source, is_image_path};

use self::answers::{Answer, Printer};
use super::stored::use_config;
use crate::cli::PredictArgs;
use crate::config::Config;
use crate::error::Error;
use crate::evaluation::statistics;
use crate::images::named::{self, Named, NamedImages};
use crate::images::scan;
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::folder::RunFolder;
use crate::setup;
use crate::terminal::signals;
use crate::terminal::text::{counted, duration, quoted};
use bninception_engine::metrics::{softmax, top_k};
use bninception_engine::{EvaluationWeights, Executor, Images, Normaliser};

pub(super) fn predict(args: &PredictArgs) -> Result<(), Error> {
    check_arguments(args)?;
    let path = RunFolder::checkpoint_in(&args.checkpoint)?;
    let checkpoint = checkpoint::load(&path)?;
    let config = use_config(&checkpoint, &args.options)?;
    // While standard input is read, a signal ends the program as any that waits for it.
    let max_bytes = setup::decode_options(&config).max_bytes;
    let named = named::named(&args.images, io::stdin().lock(), max_bytes)?;
    signals::listen()?;
    let (weights, statistics) = statistics::weights(&checkpoint, args.statistics)?;
    let Checkpoint { metadata, network, .. } = checkpoint;
    let source = Arc::new(named_images(named, &config)?);
    let mut executor = setup::executor(&config, network)?;
    let statistics = statistics::name(statistics);
    tracing::info!(
        "{}: {}, batch norm statistics: {statistics}",
        path.display(),
        executor.describe()
    );
    executor.prepare_evaluation(EvaluationWeights::Given(&weights))?;
    let normaliser = Normaliser::new(metadata.preprocessing.mean, metadata.preprocessing.std);

    let options = setup::load_options(&config, setup::val_batch_size(&config));
    // A worker makes whole batches.
    let workers = options.workers.min(source.len().div_ceil(options.batch_size));
    let options = LoadOptions { workers, ..options };
    let mut printer = Printer::start(args)?;
    let start = Instant::now();
    let loader = Loader::eval(source.clone(), &metadata.preprocessing, &options)?;
    let answered = answer_all(loader, executor.as_mut(), &normaliser, |batch, logits| {
        let answers = answers(batch, logits, &metadata.classes, args.topk);
        printer.print(source.as_ref(), &answers)
    });
    let n_unsure = printer.n_unsure;
    // Whatever happened, so that what is there can be read.
    let ended = printer.end();
    let n_failed = answered?;
    ended?;
    say_speed(source.len(), start, args.threshold.map(|_| n_unsure));
    match n_failed {
        0 => Ok(()),
        n => Err(Error::Unusable(format!("{n} of {} images could not be read", source.len()))),
    }
}

/// Hands each batch with its logits to `each`, and gives the number of images that could not be read.
fn answer_all(
    mut loader: Loader,
    executor: &mut dyn Executor,
    normaliser: &Normaliser,
    mut each: impl FnMut(&Batch, &[f32]) -> Result<(), Error>,
) -> Result<usize, Error> {
    let mut n_failed = 0;
    let mut logits = Vec::new();
    while let Some(batch) = loader.next() {
        let batch = batch?;
        signals::check()?;
        logits.clear();
        if !batch.labels.is_empty() {
            let images = Images::Levels { levels: &batch.images, normaliser };
            executor.evaluate(images, &mut logits)?;
        }
        n_failed += batch.failed.len();
        each(&batch, &logits)?;
        loader.recycle(batch);
    }
    Ok(n_failed)
}

fn say_speed(n_images: usize, start: Instant, n_unsure: Option<u64>) {
    let seconds = start.elapsed().as_secs_f64();
    let unsure = n_unsure.map_or(String::new(), |n| format!(", {n} of them unsure"));
    tracing::info!(
        "{} in {}: {:.1} img/s{unsure}",
        counted(n_images as u64, "image"),
        if seconds < 10.0 { format!("{seconds:.2} s") } else { duration(seconds) },
        n_images as f64 / seconds.max(1e-9)
    );
}

/// Says what is wrong where checkpoint and images do not stand in their places.
fn check_arguments(args: &PredictArgs) -> Result<(), Error> {
    if args.topk == 0 {
        return Err(Error::Usage("--topk 0: expected at least 1".to_owned()));
    }
    if let Some(threshold) = args.threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
        let message = format!("--threshold {threshold}: expected a probability from 0 to 1");
        return Err(Error::Usage(message));
    }
    check_images(&args.checkpoint, &args.images, "predict")
}

/// Says what is wrong where the checkpoint and the images of a command do not stand in their places.
pub(super) fn check_images(first: &Path, images: &[PathBuf], command: &str) -> Result<(), Error> {
    let is_checkpoint =
        |path: &Path| path.extension().is_some_and(|extension| extension == "safetensors");
    let second = images.iter().find(|path| is_checkpoint(path));
    let message = match second {
        Some(second) if is_checkpoint(first) => format!(
            "{} and {} are checkpoints: {command} takes one, and images behind it",
            first.display(),
            second.display()
        ),
        Some(second) => format!(
            "the checkpoint comes first: bninception {command} {} {}",
            quoted(second),
            quoted(first)
        ),
        None if is_image_path(first) => format!(
            "{} is an image; the checkpoint or the folder of a run comes first: bninception {command} \
             CHECKPOINT {}",
            first.display(),
            quoted(first)
        ),
        None if images.is_empty() => format!(
            "no image: name images or folders of images behind the checkpoint, or `-` for standard \
             input: bninception {command} {} IMAGE...",
            quoted(first)
        ),
        None => return Ok(()),
    };
    Err(Error::Usage(message))
}

/// The images that were named, in their order.
pub(super) fn named_images(named: Vec<Named>, config: &Config) -> Result<NamedImages, Error> {
    let stop = || signals::received().is_some();
    let lister = scan::lister(config).with_stop(&stop);
    let found = NamedImages::find(&lister, named, setup::decode_options(config));
    let images = scan::stopped_by_signal(found)?;
    for note in &images.notes {
        tracing::warn!("{note}");
    }
    Ok(images)
}

/// The answers of a batch, each with its image's place in the source, in that order.
fn answers<'a>(
    batch: &Batch,
    logits: &[f32],
    classes: &'a [String],
    topk: usize,
) -> Vec<(u32, Answer<'a>)> {
    let rows = logits.chunks_exact(classes.len());
    let best = |logits_k: &[f32]| {
        let probabilities = softmax(logits_k);
        let best = top_k(&probabilities, topk.min(classes.len()));
        best.into_iter().map(|class| (classes[class].as_str(), probabilities[class])).collect()
    };
    let read = batch.indices.iter().zip(rows).map(|(&index, row)| (index, Ok(best(row))));
    let failed = batch.failed.iter().map(|failure| (failure.index, Err(failure.error.clone())));
    let mut answers: Vec<(u32, Answer<'a>)> = read.chain(failed).collect();
    answers.sort_by_key(|(index, _)| *index);
    answers
}

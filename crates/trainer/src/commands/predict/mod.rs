//! `predict`.

mod answers;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bninception_data::{Batch, LoadOptions, Loader, Source};

use self::answers::{Answer, Printer};
use super::used_images::UsedImages;
use crate::cli::PredictArgs;
use crate::error::Error;
use crate::evaluation::feature_file::FeatureFile;
use crate::evaluation::last_layer::LastLayer;
use crate::evaluation::statistics;
use crate::images::data_dirs::check_outside;
use crate::run::checkpoint::Checkpoint;
use crate::setup;
use crate::terminal::signals;
use crate::terminal::text::{counted, duration};
use bninception_engine::metrics::{softmax, top_k};
use bninception_engine::{EvaluationWeights, Executor, Features, Images, Normaliser};

pub(super) fn predict(args: &PredictArgs) -> Result<(), Error> {
    check_arguments(args)?;
    let UsedImages { checkpoint, config, images } =
        UsedImages::of(&args.checkpoint, &args.images, &args.options, "predict")?;
    let (weights, statistics) = statistics::weights(&checkpoint, args.statistics)?;
    if let Some(note) = statistics::size_note(&checkpoint, statistics) {
        tracing::warn!("{note}");
    }
    let Checkpoint { path, metadata, network, .. } = checkpoint;
    let channels = LastLayer::of(&network).channels;
    let source = Arc::new(images);
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
    let begin = |path| FeatureFile::begin(path, channels);
    let mut file = args.features.as_deref().map(begin).transpose()?;
    let mut printer = Printer::start(args)?;
    let start = Instant::now();
    let loader = Loader::eval(source.clone(), &metadata.preprocessing, &options)?;
    let answered = answer_all(loader, executor.as_mut(), &normaliser, |batch, logits, features| {
        if let Some(file) = &mut file {
            for (&index, row) in batch.indices.iter().zip(features.chunks_exact(channels)) {
                file.add(source.path(index as usize), row)?;
            }
        }
        let answers = answers(batch, logits, &metadata.classes, args.topk);
        printer.print(source.as_ref(), &answers)
    });
    let n_unsure = printer.n_unsure;
    // Whatever happened, so that what is there can be read.
    let ended = printer.end();
    let n_failed = answered?;
    ended?;
    if let (Some(file), Some(path)) = (file, &args.features) {
        let rows = file.rows();
        file.finish()?;
        let rows = counted(rows as u64, "row");
        tracing::info!("{}: {rows} of {channels} features", path.display());
    }
    say_speed(source.len(), start, args.threshold.map(|_| n_unsure));
    match n_failed {
        0 => Ok(()),
        n => Err(Error::Unusable(format!("{n} of {} images could not be read", source.len()))),
    }
}

/// Hands each batch with its logits and features to `each`, and gives the number of images that could not be read.
fn answer_all(
    mut loader: Loader,
    executor: &mut dyn Executor,
    normaliser: &Normaliser,
    mut each: impl FnMut(&Batch, &[f32], &[f32]) -> Result<(), Error>,
) -> Result<usize, Error> {
    let mut n_failed = 0;
    let (mut logits, mut features) = (Vec::new(), Features::default());
    while let Some(batch) = loader.next() {
        let batch = batch?;
        signals::check()?;
        logits.clear();
        features.pooled.clear();
        if !batch.labels.is_empty() {
            let images = Images::Levels { levels: &batch.images, normaliser };
            executor.evaluate_features(images, &mut logits, &mut features)?;
        }
        n_failed += batch.failed.len();
        each(&batch, &logits, &features.pooled)?;
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

/// Says what is wrong with the numbers that were given.
fn check_arguments(args: &PredictArgs) -> Result<(), Error> {
    if args.topk == 0 {
        return Err(Error::Usage("--topk 0: expected at least 1".to_owned()));
    }
    if let Some(threshold) = args.threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
        let message = format!("--threshold {threshold}: expected a probability from 0 to 1");
        return Err(Error::Usage(message));
    }
    args.features.as_deref().map_or(Ok(()), |path| check_features(path, args))
}

/// Says what is wrong with the place of the features.
fn check_features(path: &Path, args: &PredictArgs) -> Result<(), Error> {
    if path.extension().is_none_or(|extension| extension != "npy") {
        return Err(Error::Usage(format!(
            "--features {}: expected a name that ends with .npy, as NumPy's files have",
            path.display()
        )));
    }
    for path in [path.to_owned(), FeatureFile::paths_of(path)] {
        if path.exists() && !args.overwrite {
            return Err(Error::Usage(format!(
                "{} is there already; name another file with --features, or replace it with --overwrite",
                path.display()
            )));
        }
    }
    let folders = args.images.iter().filter(|image| image.is_dir());
    folders.into_iter().try_for_each(|folder| check_outside(folder, path, "--features"))
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

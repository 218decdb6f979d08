//! `predict`.

mod answers;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bninception_data::{Crops, LoadOptions, Source};

use self::answers::{Answer, Printer};
use super::stored::check_same;
use super::used_images::UsedImages;
use crate::cli::PredictArgs;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::evaluation::evaluate::{Answered, PassImages, Wanted, run_all};
use crate::evaluation::feature_file::FeatureFile;
use crate::evaluation::last_layer::LastLayer;
use crate::evaluation::statistics;
use crate::images::data_dirs::check_outside;
use crate::run::checkpoint::Checkpoint;
use crate::setup;
use crate::terminal::text::{counted, duration};
use bninception_engine::EvaluationWeights;
use bninception_engine::metrics::{softmax, top_k};

pub(super) fn predict(args: &PredictArgs, ranks: &mut Ranks) -> Result<(), Error> {
    check_arguments(args)?;
    if ranks.are_many() && args.images.iter().any(|image| image.as_os_str() == "-") {
        return Err(Error::Usage(
            "-: launchers give standard input to the first process alone; name the images, or start one process"
                .to_owned(),
        ));
    }
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
    let options = setup::load_options(&config, setup::val_batch_size(&config));
    // A worker makes whole batches.
    let workers = options.workers.min(source.len().div_ceil(options.batch_size));
    let options = LoadOptions { workers, ..options };
    let files = (0..source.len()).map(|index| source.path(index));
    check_same(ranks, std::iter::once(metadata.checksum.as_str()), files)?;
    let begin = |path| FeatureFile::begin(path, channels);
    let features = args.features.as_deref().filter(|_| ranks.is_first());
    let mut file = features.map(begin).transpose()?;
    // The first rank speaks for all.
    let mut printer = ranks.is_first().then(|| Printer::start(args)).transpose()?;
    let start = Instant::now();
    let images = PassImages {
        source: source.clone(),
        crops: Crops::One,
        preprocessing: &metadata.preprocessing,
        options: &options,
        wanted: if args.features.is_some() { Wanted::Features } else { Wanted::Logits },
        title: None,
    };
    let weights = EvaluationWeights::Given(&weights);
    let passed = run_all(executor.as_mut(), weights, images, ranks, &mut |answered| {
        if let Some(file) = &mut file {
            let rows = answered.features.chunks_exact(channels);
            for (&index, row) in answered.indices.iter().zip(rows) {
                file.add(source.path(index as usize), row)?;
            }
        }
        let Some(printer) = &mut printer else { return Ok(()) };
        let answers = answers(&answered, &metadata.classes, args.topk);
        printer.print(source.as_ref(), &answers)
    });
    let n_unsure = printer.as_ref().map_or(0, |printer| printer.n_unsure);
    // Whatever happened, so that what is there can be read.
    let ended = printer.map_or(Ok(()), Printer::end);
    let n_failed = passed?.failed.len();
    ended?;
    if !ranks.is_first() {
        return Ok(());
    }
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
    answered: &Answered<'_>,
    classes: &'a [String],
    topk: usize,
) -> Vec<(u32, Answer<'a>)> {
    let rows = answered.logits.chunks_exact(classes.len());
    let best = |logits_k: &[f32]| {
        let probabilities = softmax(logits_k);
        let best = top_k(&probabilities, topk.min(classes.len()));
        best.into_iter().map(|class| (classes[class].as_str(), probabilities[class])).collect()
    };
    let read = answered.indices.iter().zip(rows).map(|(&index, row)| (index, Ok(best(row))));
    let failed = answered.failed.iter().map(|failure| (failure.index, Err(failure.error.clone())));
    let mut answers: Vec<(u32, Answer<'a>)> = read.chain(failed).collect();
    answers.sort_by_key(|(index, _)| *index);
    answers
}

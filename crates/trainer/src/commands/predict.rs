//! `predict`.

use std::path::Path;
use std::sync::Arc;

use bninception_data::{
    Batch, FileSource, LoadOptions, Loader, Sample, Source, find_images, is_image_path,
};
use serde_json::{Value, json};

use super::stored::use_config;
use crate::cli::PredictArgs;
use crate::commands::print;
use crate::config::Config;
use crate::error::Error;
use crate::evaluation::statistics;
use crate::images::scan;
use crate::metrics::{softmax, top_k};
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::folder::RunFolder;
use crate::setup;
use crate::terminal::output::{JsonArray, with_path};
use crate::terminal::signals;
use crate::terminal::text::quoted;

/// The likeliest classes of one image, or why it could not be read.
type Prediction<'a> = Result<Vec<(&'a str, f64)>, String>;

pub(super) fn predict(args: &PredictArgs) -> Result<(), Error> {
    check_arguments(args)?;
    signals::listen()?;
    let path = RunFolder::checkpoint_in(&args.checkpoint)?;
    let checkpoint = checkpoint::load(&path)?;
    let config = use_config(&checkpoint, &args.options)?;
    let (weights, statistics) = statistics::weights(&checkpoint, args.statistics)?;
    let Checkpoint { metadata, network, .. } = checkpoint;
    let source = FileSource::new(samples(args, &config)?, setup::decode_options(&config))?;
    let mut executor = setup::executor(&config, network)?;
    let statistics = statistics::name(statistics);
    tracing::info!(
        "{}: {}, batch norm statistics: {statistics}",
        path.display(),
        executor.describe()
    );
    executor.prepare_evaluation(&weights)?;

    let source = Arc::new(source);
    let options = setup::load_options(&config, setup::val_batch_size(&config));
    // A worker makes whole batches.
    let workers = options.workers.min(source.len().div_ceil(options.batch_size));
    let options = LoadOptions { workers, ..options };
    let mut loader = Loader::eval(source.clone(), &metadata.preprocessing, &options)?;
    let mut printer = Printer::new(args.options.json);
    let mut n_failed = 0;
    let mut logits = Vec::new();
    let mut print_all = || -> Result<(), Error> {
        while let Some(batch) = loader.next() {
            let batch = batch?;
            signals::check()?;
            if batch.labels.is_empty() {
                logits.clear();
            } else {
                executor.evaluate(&batch.images, &mut logits)?;
            }
            n_failed += batch.failed.len();
            let outcomes = outcomes(&batch, &logits, &metadata.classes, args.topk);
            printer.print(&source, &outcomes)?;
            loader.recycle(batch);
        }
        Ok(())
    };
    let printed = print_all();
    // Whatever happened, so that what is there can be read.
    let ended = printer.end();
    printed.and(ended)?;
    match n_failed {
        0 => Ok(()),
        n => Err(Error::Unusable(format!("{n} of {} images could not be read", source.len()))),
    }
}

/// Says what is wrong where checkpoint and images do not stand in their places.
fn check_arguments(args: &PredictArgs) -> Result<(), Error> {
    if args.topk == 0 {
        return Err(Error::Usage("--topk 0: expected at least 1".to_owned()));
    }
    let is_checkpoint =
        |path: &Path| path.extension().is_some_and(|extension| extension == "safetensors");
    let first = &args.checkpoint;
    let second = args.images.iter().find(|path| is_checkpoint(path));
    let message = match second {
        Some(second) if is_checkpoint(first) => format!(
            "{} and {} are checkpoints: predict takes one, and images behind it",
            first.display(),
            second.display()
        ),
        Some(second) => format!(
            "the checkpoint comes first: bninception predict {} {}",
            quoted(second),
            quoted(first)
        ),
        None if is_image_path(first) => format!(
            "{} is an image; the checkpoint or the folder of a run comes first: bninception predict \
             CHECKPOINT {}",
            first.display(),
            quoted(first)
        ),
        None if args.images.is_empty() => format!(
            "no image: name images or folders of images behind the checkpoint: bninception predict \
             {} IMAGE...",
            quoted(first)
        ),
        None => return Ok(()),
    };
    Err(Error::Usage(message))
}

/// The images that the arguments name, in their order.
fn samples(args: &PredictArgs, config: &Config) -> Result<Vec<Sample>, Error> {
    let stop = || signals::received().is_some();
    let lister = scan::lister(config).with_stop(&stop);
    let found = scan::stopped_by_signal(find_images(&lister, &args.images))?;
    for note in &found.notes {
        tracing::warn!("{note}");
    }
    Ok(found.samples)
}

/// The outcomes of a batch, each with its image's position in the source, in that order.
fn outcomes<'a>(
    batch: &Batch,
    logits: &[f32],
    classes: &'a [String],
    topk: usize,
) -> Vec<(u32, Prediction<'a>)> {
    let rows = logits.chunks_exact(classes.len());
    let best = |logits_k: &[f32]| {
        let probabilities = softmax(logits_k);
        let best = top_k(&probabilities, topk.min(classes.len()));
        best.into_iter().map(|class| (classes[class].as_str(), probabilities[class])).collect()
    };
    let read = batch.indices.iter().zip(rows).map(|(&index, row)| (index, Ok(best(row))));
    let failed = batch.failed.iter().map(|failure| (failure.index, Err(failure.error.clone())));
    let mut outcomes: Vec<(u32, Prediction<'a>)> = read.chain(failed).collect();
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes
}

/// Prints outcomes as they come, so that none is kept.
enum Printer {
    Text,
    Json(JsonArray),
}

impl Printer {
    fn new(as_json: bool) -> Printer {
        if as_json { Printer::Json(JsonArray::default()) } else { Printer::Text }
    }

    fn print(
        &mut self,
        source: &FileSource,
        outcomes: &[(u32, Prediction<'_>)],
    ) -> Result<(), Error> {
        let with_paths =
            outcomes.iter().map(|(index, outcome)| (source.path(*index as usize), outcome));
        match self {
            Printer::Text => print::text(
                &with_paths.map(|(path, outcome)| to_text(path, outcome)).collect::<String>(),
            ),
            Printer::Json(array) => {
                let values: Vec<Value> =
                    with_paths.map(|(path, outcome)| to_json(path, outcome)).collect();
                array.extend(&values).map_err(Error::Stdout)
            }
        }
    }

    fn end(self) -> Result<(), Error> {
        match self {
            Printer::Text => Ok(()),
            Printer::Json(array) => array.end().map_err(Error::Stdout),
        }
    }
}

fn to_json(path: &Path, outcome: &Prediction<'_>) -> Value {
    let about = match outcome {
        Ok(classes) => {
            let predictions: Vec<Value> = classes
                .iter()
                .map(|(class, probability)| json!({ "class": class, "probability": probability }))
                .collect();
            json!({ "predictions": predictions })
        }
        Err(error) => json!({ "predictions": [], "error": error }),
    };
    with_path("path", path, about)
}

fn to_text(path: &Path, outcome: &Prediction<'_>) -> String {
    match outcome {
        Ok(classes) => {
            let mut text = format!("{}\n", path.display());
            for (class, probability) in classes {
                text.push_str(&format!("  {:6.2} %  {class}\n", 100.0 * probability));
            }
            text
        }
        // The error names the path.
        Err(error) => format!("{error}\n"),
    }
}

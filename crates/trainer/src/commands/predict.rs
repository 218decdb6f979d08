//! `predict`.

use std::path::PathBuf;

use bninception_data::preprocess_file;
use bninception_engine::Executor;
use serde_json::json;

use super::eval::use_config;
use crate::checkpoint::{self, Checkpoint};
use crate::cli::PredictArgs;
use crate::error::Error;
use crate::metrics::{softmax, top_k};
use crate::text::counted;
use crate::{setup, signals, statistics};

/// The likeliest classes of one image, or why it could not be read.
type Outcome = Result<Vec<(String, f64)>, String>;

pub(super) fn predict(args: &PredictArgs) -> Result<(), Error> {
    if args.topk == 0 {
        return Err(Error::Usage("--topk 0: expected at least 1".to_owned()));
    }
    signals::listen()?;
    let checkpoint = checkpoint::load(&args.checkpoint)?;
    let config = use_config(&checkpoint, &args.options)?;
    let (weights, statistics) = statistics::weights(&checkpoint, args.statistics)?;
    let files = expand_folders(&args.images)?;
    let mut executor = setup::executor(&config, checkpoint.network.clone())?;
    let statistics = statistics::name(statistics);
    tracing::info!("{}, batch norm statistics: {statistics}", executor.describe());
    executor.prepare_evaluation(&weights)?;

    let mut outcomes: Vec<(PathBuf, Outcome)> = Vec::new();
    for files in files.chunks(setup::val_batch_size(&config)) {
        signals::check()?;
        outcomes.extend(predict_batch(files, &checkpoint, executor.as_mut(), args.topk)?);
    }
    let n_failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    if args.options.json {
        super::print_json(&outcomes.iter().map(to_json).collect::<Vec<_>>())?;
    } else {
        super::print(&outcomes.iter().map(to_text).collect::<String>())?;
    }
    match n_failed {
        0 => Ok(()),
        n => Err(Error::Unusable(format!(
            "{n} of {} could not be read",
            counted(outcomes.len() as u64, "image")
        ))),
    }
}

fn predict_batch(
    files: &[PathBuf],
    checkpoint: &Checkpoint,
    executor: &mut dyn Executor,
    topk: usize,
) -> Result<Vec<(PathBuf, Outcome)>, Error> {
    let metadata = &checkpoint.metadata;
    let read: Vec<Result<Vec<f32>, String>> = files
        .iter()
        .map(|path| {
            preprocess_file(path, &metadata.preprocessing).map_err(|error| error.to_string())
        })
        .collect();
    let images: Vec<f32> = read.iter().flatten().flatten().copied().collect();
    let mut logits = Vec::new();
    if !images.is_empty() {
        executor.evaluate(&images, &mut logits)?;
    }
    let mut rows = logits.chunks_exact(metadata.classes.len());
    let outcome = |read: Result<Vec<f32>, String>| -> Outcome {
        read?;
        let Some(logits_k) = rows.next() else { return Err("no result".to_owned()) };
        let probabilities = softmax(logits_k);
        let best = top_k(&probabilities, topk.min(metadata.classes.len()));
        let name = |class: usize| (metadata.classes[class].clone(), probabilities[class]);
        Ok(best.into_iter().map(name).collect())
    };
    Ok(files.iter().cloned().zip(read.into_iter().map(outcome)).collect())
}

fn to_json((path, outcome): &(PathBuf, Outcome)) -> serde_json::Value {
    match outcome {
        Ok(classes) => {
            let predictions: Vec<serde_json::Value> = classes
                .iter()
                .map(|(class, probability)| json!({ "class": class, "probability": probability }))
                .collect();
            json!({ "path": path, "predictions": predictions })
        }
        Err(error) => json!({ "path": path, "predictions": [], "error": error }),
    }
}

fn to_text((path, outcome): &(PathBuf, Outcome)) -> String {
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

/// Puts the images of folders in the place of the folders.
fn expand_folders(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(Error::io("list", path))?;
        let mut inside: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_file() && bninception_data::is_image_path(path))
            .collect();
        if inside.is_empty() {
            return Err(Error::Unusable(format!("{}: the folder has no image", path.display())));
        }
        inside.sort();
        files.append(&mut inside);
    }
    Ok(files)
}

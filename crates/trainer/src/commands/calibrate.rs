//! `calibrate`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bninception_data::{FileSource, Sample};
use bninception_engine::EvaluationWeights;
use bninception_engine::model::ParameterTable;
use serde_json::json;

use super::out_file::out_file;
use super::stored::{check_same, training_config};
use crate::cli::CalibrateArgs;
use crate::commands::print;
use crate::config::Config;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::evaluation::calibrate::{Calibrated, check_norm, plan, population_statistics};
use crate::images::data_dirs::DataDirs;
use crate::images::own_images::{OwnImages, Part};
use crate::images::scan;
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::classes;
use crate::run::folder::RunFolder;
use crate::setup;
use crate::terminal::output::with_path;
use crate::terminal::signals;
use crate::terminal::text::counted;

pub(super) fn calibrate(args: &CalibrateArgs, ranks: &mut Ranks) -> Result<(), Error> {
    signals::listen()?;
    let path = RunFolder::checkpoint_in(&args.checkpoint)?;
    let checkpoint = checkpoint::load(&path)?;
    check_norm(&checkpoint.network)?;
    let checkpoint = match args.image_size {
        Some(image_size) => checkpoint.at_image_size(image_size)?,
        None => checkpoint,
    };
    let config = training_config(&checkpoint, &args.options)?;
    let suffix = match args.image_size {
        Some(image_size) => format!("-{image_size}px"),
        None => "-calibrated".to_owned(),
    };
    let out = out_file(&path, &suffix, args.out.as_deref(), args.overwrite)?;
    let (dirs, train) = training_images(&config, args.data_dir.as_deref(), &checkpoint)?;
    dirs.check_outside(&out, "--out")?;
    let files = train.iter().map(|sample| sample.path.as_path());
    check_same(ranks, std::iter::once(checkpoint.metadata.checksum.as_str()), files)?;
    let batch_size = config.train.batch_size;
    let n_batches = whole_batches(train.len(), args.images, batch_size)?;

    let mut executor = setup::executor(&config, checkpoint.network.clone())?;
    tracing::info!("{}", executor.describe());
    tracing::info!(
        "calibrating at {} px with {} of {} training images of {}, augmented as in training",
        config.data.image_size,
        n_batches * batch_size as u64,
        train.len(),
        dirs.dir.display()
    );
    let seed = args.seed.unwrap_or(config.train.seed);
    let source = Arc::new(FileSource::new(train, setup::decode_options(&config))?);
    let start = Instant::now();
    let Checkpoint { mut metadata, network, mut state, .. } = checkpoint;
    // What was evaluated had other statistics; what was the best stays what a run has to beat.
    (metadata.progress.evaluated_step, metadata.progress.evaluation) = (None, None);
    executor.prepare_evaluation(EvaluationWeights::Given(state.model.evaluation_weights()))?;
    let Calibrated { population, failed } = population_statistics(
        executor.as_mut(),
        source,
        &metadata.preprocessing,
        &setup::load_options(&config, batch_size),
        &plan(&config, seed, n_batches),
        ranks,
    )?;
    if !ranks.is_first() {
        return Ok(());
    }
    let seconds = start.elapsed().as_secs_f64();
    for failure in &failed {
        tracing::warn!("its batch was left out: {}", failure.error);
    }

    let batches = population.made.batches;
    state.population = Some(population);
    checkpoint::save(&out, &metadata, &ParameterTable::new(&network), &state)?;
    let images = batches * batch_size as u64;
    if args.options.json {
        let result = json!({
            "images": images,
            "batches": batches,
            "batch_size": batch_size,
            "seed": seed,
            "image_size": metadata.preprocessing.image_size,
            "ema": state.model.ema.is_some(),
            "failed": print::failures_to_json(&failed),
            "seconds": seconds,
        });
        return print::json(&with_path("checkpoint", &out, result));
    }
    let failed = match failed.len() {
        0 => String::new(),
        n => format!(
            "; {} could not be read, whose batches were left out",
            counted(n as u64, "image")
        ),
    };
    let size = match metadata.trained_image_size {
        Some(trained) => {
            format!(" at {} px (trained at {trained} px)", metadata.preprocessing.image_size)
        }
        None => String::new(),
    };
    print::text(&format!(
        "{}: population statistics over {} of {}{size}{failed}\n\
         evaluation and prediction use them from now on; --statistics moving takes the others",
        out.display(),
        counted(batches, "batch"),
        counted(batch_size as u64, "training image"),
    ))
}

/// The images that the checkpoint's run trains on, or those that a run would train on in `dir`.
fn training_images(
    config: &Config,
    dir: Option<&Path>,
    checkpoint: &Checkpoint,
) -> Result<(DataDirs, Vec<Sample>), Error> {
    let Some(dir) = dir else {
        let own = OwnImages::of(&checkpoint.metadata, &checkpoint.path);
        return own.find(config, Part::Training);
    };
    let metadata = &checkpoint.metadata;
    let dirs = DataDirs { dir: dir.to_owned(), val_dir: None };
    let splits = scan::scan(config, &dirs)?;
    if splits.classes != metadata.classes {
        return Err(Error::Unusable(format!(
            "{} has other classes than the checkpoint: {}; calibrate with the images that it was \
             trained on",
            dir.display(),
            classes::difference(&metadata.classes, &splits.classes)
        )));
    }
    let found = dirs.lists(&splits);
    if let Some(difference) = metadata.images.train_difference(&found, &metadata.classes) {
        tracing::warn!("{} has other images than the run: {difference}", dir.display());
    }
    Ok((dirs, splits.train))
}

/// Whole batches in the images asked for (0 for all), of those that there are.
fn whole_batches(n_images: usize, asked: usize, batch_size: usize) -> Result<u64, Error> {
    let images = if asked == 0 { n_images } else { asked.min(n_images) };
    match images / batch_size {
        0 => Err(Error::Usage(format!(
            "{images} of {n_images} training images make no batch of {batch_size}; use --images {} \
             or more, or a smaller --batch-size",
            batch_size
        ))),
        batches => Ok(batches as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_batches_count() {
        // images, asked, batch size -> batches
        let table = [(100, 0, 32, 3), (100, 64, 32, 2), (100, 95, 32, 2), (100, 1000, 32, 3)];
        for (n_images, asked, batch_size, expected) in table {
            assert_eq!(whole_batches(n_images, asked, batch_size).unwrap(), expected, "{asked}");
        }
        for (n_images, asked) in [(31, 0), (100, 31), (0, 0)] {
            assert!(whole_batches(n_images, asked, 32).is_err());
        }
    }
}

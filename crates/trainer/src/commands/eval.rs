//! `eval`.

use std::path::Path;
use std::sync::Arc;

use bninception_data::{FileSource, scan_classes_with};
use serde_json::json;

use crate::checkpoint::{self, Checkpoint};
use crate::cli::{EvalArgs, UseArgs};
use crate::config::{Config, ConfigFile};
use crate::error::Error;
use crate::evaluate::evaluate;
use crate::{setup, signals};

pub(super) fn eval(args: &EvalArgs) -> Result<(), Error> {
    signals::listen()?;
    let checkpoint = checkpoint::load(&args.checkpoint)?;
    let config = use_config(&checkpoint, &args.options)?;
    let metadata = &checkpoint.metadata;
    // The run's own validation images: those held out of the training images, if there is no other
    // folder of them, are found again by the seed.
    let (place, samples) = match &args.data_dir {
        Some(dir) => {
            let stop = || signals::received().is_some();
            let mut lister = setup::lister(&config).with_stop(&stop);
            lister.load(dir);
            let labelled = scan_classes_with(&lister, dir, &metadata.classes);
            let labelled = setup::stopped_by_signal(labelled)?;
            setup::keep_listings(&mut lister, dir);
            for note in &labelled.notes {
                tracing::warn!("{note}");
            }
            (dir.clone(), labelled.samples)
        }
        None => {
            let run = args.checkpoint.parent().unwrap_or(Path::new(""));
            let dir = setup::stored_data_dir(&config, run)?;
            let splits = setup::scan(&config, &dir)?;
            if splits.classes != metadata.classes {
                return Err(Error::Unusable(format!(
                    "{} no longer has the classes of the run; name a folder with --data-dir",
                    dir.display()
                )));
            }
            (dir, splits.val)
        }
    };
    tracing::info!("evaluating {} images of {}", samples.len(), place.display());

    let mut executor = setup::executor(&config, checkpoint.network.clone())?;
    tracing::info!("{}", executor.describe());
    let source = Arc::new(FileSource::new(samples, setup::decode_options(&config))?);
    let options = setup::load_options(&config, setup::val_batch_size(&config));
    let weights = checkpoint.state.evaluation_weights();
    let result = evaluate(executor.as_mut(), weights, source, &metadata.preprocessing, &options)?;
    let images_per_second = result.images() as f64 / result.seconds.max(1e-9);
    for failure in &result.failed {
        tracing::warn!("counted as wrong: {}", failure.error);
    }
    if args.options.json {
        let failed: Vec<serde_json::Value> = result
            .failed
            .iter()
            .map(|failure| json!({ "path": failure.path, "error": failure.error }))
            .collect();
        return super::print_json(&json!({
            "images": result.images(),
            "top1": result.top1(),
            "top5": result.top5(),
            "loss": finite(result.loss()),
            "crops": 1,
            "failed": failed,
            "images_per_second": images_per_second,
        }));
    }
    let failed = match result.failed.len() {
        0 => String::new(),
        n => format!("; {n} could not be read and count as wrong"),
    };
    super::print(&format!(
        "top-1 {:.2} %, top-5 {:.2} %, loss {:.4} on {} images, one centre crop each{failed} \
         ({images_per_second:.1} img/s)",
        100.0 * result.top1(),
        100.0 * result.top5(),
        result.loss(),
        result.images(),
    ))
}

/// The settings of a checkpoint's run with the flags of this command.
pub(super) fn use_config(checkpoint: &Checkpoint, args: &UseArgs) -> Result<Config, Error> {
    let name = checkpoint.path.display().to_string();
    let text = checkpoint.metadata.config.to_toml()?;
    let mut args = args.config_args();
    if args.flags.execution.batch_size.is_some() {
        args.set.push("train.val_batch_size=0".to_owned());
    }
    Ok(args.resolve(Some(ConfigFile { name, text }), None)?.config)
}

/// JSON has no not-a-number: nothing stands for it.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

//! `eval`.

use std::path::{Path, PathBuf};

use bninception_data::{Crops, Sample, scan_classes_with};
use serde_json::{Value, json};

use crate::checkpoint::{self, Checkpoint};
use crate::cli::{EvalArgs, UseArgs};
use crate::config::{Config, ConfigFile};
use crate::ensemble::{self, Model};
use crate::error::Error;
use crate::output::table;
use crate::report::{ClassRow, Report};
use crate::report_folder::{MAX_ROWS, ReportFolder};
use crate::text::counted;
use crate::{setup, signals, statistics};

pub(super) fn eval(args: &EvalArgs) -> Result<(), Error> {
    signals::listen()?;
    let (classes, models) = load_models(args)?;
    let (place, samples) = match &args.data_dir {
        Some(dir) => (dir.clone(), labelled_images(&models[0].config, dir, &classes)?),
        None => own_images(&models, &classes)?,
    };
    let folder = args.out.as_deref().map(ReportFolder::create).transpose()?;
    tracing::info!("evaluating {} of {}", counted(samples.len() as u64, "image"), place.display());
    let report = ensemble::evaluate(&models, &classes, samples, args.crops)?;
    for failure in &report.evaluation.failed {
        tracing::warn!("counted as wrong: {}", failure.error);
    }
    if let Some(folder) = folder {
        folder.write(&report)?;
    }
    if args.options.json {
        return super::print_json(&to_json(&report, &models, args.crops));
    }
    super::print(&to_text(&report, &models, args.crops, args.top))
}

/// The models, and the classes of the first, in whose order all of them answer.
fn load_models(args: &EvalArgs) -> Result<(Vec<String>, Vec<Model>), Error> {
    let mut classes: Vec<String> = Vec::new();
    let mut models = Vec::new();
    for path in &args.checkpoints {
        let checkpoint = checkpoint::load(path)?;
        let config = use_config(&checkpoint, &args.options)?;
        if models.is_empty() {
            classes.clone_from(&checkpoint.metadata.classes);
        }
        models.push(Model::new(checkpoint, config, args.statistics, &classes)?);
    }
    Ok((classes, models))
}

/// The images of a folder, labelled by `classes`.
fn labelled_images(config: &Config, dir: &Path, classes: &[String]) -> Result<Vec<Sample>, Error> {
    let stop = || signals::received().is_some();
    let mut lister = setup::lister(config).with_stop(&stop);
    lister.load(dir);
    let labelled = setup::stopped_by_signal(scan_classes_with(&lister, dir, classes))?;
    setup::keep_listings(&mut lister, dir);
    for note in &labelled.notes {
        tracing::warn!("{note}");
    }
    Ok(labelled.samples)
}

/// The runs' own validation images: those held out of the training images, if there is no other folder
/// of them, are found again by the seed. All runs must have the same ones, or a model would be
/// evaluated on what it was trained on.
fn own_images(models: &[Model], classes: &[String]) -> Result<(PathBuf, Vec<Sample>), Error> {
    let first = &models[0];
    let own_dir = |model: &Model| {
        let run = model.path.parent().unwrap_or(Path::new(""));
        setup::stored_data_dir(&model.config, run)
    };
    let dir = own_dir(first)?;
    let splits = setup::scan(&first.config, &dir)?;
    if splits.classes != classes {
        return Err(Error::Unusable(format!(
            "{} no longer has the classes of the run; name a folder with --data-dir",
            dir.display()
        )));
    }
    let chosen_by = |config: &Config| {
        let data = &config.data;
        (data.dir.clone(), data.val_dir.clone(), data.val_fraction, config.train.seed)
    };
    for model in &models[1..] {
        if chosen_by(&model.config) == chosen_by(&first.config) {
            continue;
        }
        let other = setup::scan(&model.config, &own_dir(model)?)?.val;
        let same = other.len() == splits.val.len()
            && other.iter().zip(&splits.val).all(|(a, b)| a.path == b.path);
        if !same {
            return Err(Error::Unusable(format!(
                "{} was validated on other images than {}; name a folder with --data-dir",
                model.path.display(),
                first.path.display()
            )));
        }
    }
    Ok((dir, splits.val))
}

/// The statistics that the models use, or `mixed`.
fn common_statistics(models: &[Model]) -> &'static str {
    let first = models[0].statistics;
    match models.iter().all(|model| model.statistics == first) {
        true => statistics::name(first),
        false => "mixed",
    }
}

fn to_json(report: &Report, models: &[Model], crops: Crops) -> Value {
    let evaluation = &report.evaluation;
    let failed: Vec<Value> = evaluation
        .failed
        .iter()
        .map(|failure| json!({ "path": failure.path, "error": failure.error }))
        .collect();
    let model = |model: &Model| {
        json!({
            "path": model.path,
            "step": model.step,
            "image_size": model.preprocessing.image_size,
            "ema": model.ema,
            "statistics": statistics::name(model.statistics),
        })
    };
    let class = |(name, row): (&String, &ClassRow)| {
        json!({
            "class": name,
            "images": row.images,
            "top1": row.top1_rate(),
            "top5": row.top5_rate(),
            "mean_probability": row.mean_probability().and_then(finite),
        })
    };
    let rows = report.per_class();
    let pairs: Vec<Value> = report
        .confused_pairs()
        .iter()
        .take(MAX_ROWS)
        .map(|pair| {
            json!({
                "true": report.classes[pair.label as usize],
                "predicted": report.classes[pair.predicted as usize],
                "count": pair.count,
            })
        })
        .collect();
    json!({
        "images": evaluation.images(),
        "top1": evaluation.top1(),
        "top5": evaluation.top5(),
        "loss": finite(evaluation.loss()),
        "crops": crops.count(),
        "failed": failed,
        "images_per_second": images_per_second(report),
        "statistics": common_statistics(models),
        "models": models.iter().map(model).collect::<Vec<Value>>(),
        "ece": report.ece(),
        "per_class": report.classes.iter().zip(&rows).map(class).collect::<Vec<Value>>(),
        "confused_pairs": pairs,
    })
}

fn to_text(report: &Report, models: &[Model], crops: Crops, top: usize) -> String {
    let evaluation = &report.evaluation;
    let failed = match evaluation.failed.len() {
        0 => String::new(),
        n => format!("; {n} could not be read, counted as wrong"),
    };
    let crops = match crops {
        Crops::One => "one centre crop each".to_owned(),
        crops => format!("{} crops each", crops.count()),
    };
    let ece = report.ece().map_or(String::new(), |ece| format!(", ECE {ece:.4}"));
    let mut text = format!(
        "top-1 {:.2} %, top-5 {:.2} %, loss {:.4}{ece} on {}, {crops}{failed} \
         ({:.1} img/s)\n",
        100.0 * evaluation.top1(),
        100.0 * evaluation.top5(),
        evaluation.loss(),
        counted(evaluation.images(), "image"),
        images_per_second(report),
    );
    match models {
        [model] => {
            let statistics = statistics::name(model.statistics);
            text.push_str(&format!("batch norm statistics: {statistics}\n"));
        }
        models => {
            text.push_str(&format!(
                "mean of {} models, with batch norm statistics:\n",
                models.len()
            ));
            for model in models {
                let statistics = statistics::name(model.statistics);
                text.push_str(&format!("  {}: {statistics}\n", model.path.display()));
            }
        }
    }
    for (title, lines) in [
        ("worst classes", worst_classes(report, top)),
        ("most confused", confused_pairs(report, top)),
        ("worst mistakes", mistakes(report, top)),
    ] {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}\n{lines}"));
        }
    }
    text
}

/// The classes with the lowest top-1, of those that have mistakes.
fn worst_classes(report: &Report, top: usize) -> String {
    let rows = report.per_class();
    let mut classes: Vec<(&String, &ClassRow)> =
        report.classes.iter().zip(&rows).filter(|(_, row)| row.top1 < row.images).collect();
    let rate = |row: &ClassRow| row.top1_rate().unwrap_or(1.0);
    classes.sort_by(|(_, a), (_, b)| rate(a).total_cmp(&rate(b)));
    classes.truncate(top);
    if classes.is_empty() {
        return String::new();
    }
    let percent =
        |rate: Option<f64>| rate.map_or("-".to_owned(), |r| format!("{:.2} %", 100.0 * r));
    let lines: Vec<Vec<String>> = classes
        .into_iter()
        .map(|(name, row)| {
            let (top1, top5) = (percent(row.top1_rate()), percent(row.top5_rate()));
            vec![name.clone(), row.images.to_string(), top1, top5, percent(row.mean_probability())]
        })
        .collect();
    table(&["class", "images", "top-1", "top-5", "mean probability"], &lines)
}

fn confused_pairs(report: &Report, top: usize) -> String {
    let rows = report.per_class();
    let line = |pair: &crate::report::ConfusedPair| {
        let [label, predicted] =
            [pair.label, pair.predicted].map(|class| &report.classes[class as usize]);
        let images = rows[pair.label as usize].images;
        format!("{label} taken for {predicted}: {} of {images}\n", pair.count)
    };
    report.confused_pairs().iter().take(top).map(line).collect()
}

fn mistakes(report: &Report, top: usize) -> String {
    let mut text = String::new();
    for mistake in report.mistakes().into_iter().take(top) {
        let Some((predicted, probability)) = mistake.predicted() else { continue };
        text.push_str(&format!(
            "{}: {} at {:.2} %, taken for {} at {:.2} %\n",
            report.samples[mistake.index as usize].path.display(),
            report.classes[mistake.label as usize],
            100.0 * mistake.probability,
            report.classes[predicted as usize],
            100.0 * probability,
        ));
    }
    text
}

fn images_per_second(report: &Report) -> f64 {
    report.evaluation.images() as f64 / report.evaluation.seconds.max(1e-9)
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

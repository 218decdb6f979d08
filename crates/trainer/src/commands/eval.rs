//! `eval`.

use std::path::{Path, PathBuf};

use bninception_data::{Crops, Sample, Splits, scan_classes_with};
use serde_json::{Value, json};

use super::stored::use_config;
use crate::cli::EvalArgs;
use crate::commands::print;
use crate::config::Config;
use crate::error::Error;
use crate::evaluation::ensemble::{self, Member};
use crate::evaluation::outcomes::{ClassRow, Outcomes};
use crate::evaluation::statistics;
use crate::evaluation::tables::{MAX_ROWS, OutcomeTables};
use crate::images::data_dirs::check_outside;
use crate::images::own_images::{Look, Part};
use crate::images::scan;
use crate::run::checkpoint;
use crate::run::folder::RunFolder;
use crate::terminal::output::with_path;
use crate::terminal::signals;
use crate::terminal::text::{counted, table};

pub(super) fn eval(args: &EvalArgs) -> Result<(), Error> {
    signals::listen()?;
    let (classes, models) = load_models(args)?;
    let (place, samples) = match &args.data_dir {
        Some(dir) => (dir.clone(), named_images(&models, dir, &classes)?),
        None => own_images(&models)?,
    };
    if let Some(out) = &args.out {
        check_outside(&place, out, "--out")?;
    }
    let folder = args.out.as_deref().map(OutcomeTables::create).transpose()?;
    tracing::info!("evaluating {} of {}", counted(samples.len() as u64, "image"), place.display());
    let outcomes = ensemble::evaluate(&models, &classes, samples, args.crops)?;
    for failure in &outcomes.evaluation.failed {
        tracing::warn!("counted as wrong: {}", failure.error);
    }
    if let Some(folder) = folder {
        folder.write(&outcomes)?;
    }
    if args.options.json {
        return print::json(&to_json(&outcomes, &models, args.crops));
    }
    print::text(&to_text(&outcomes, &models, args.crops, args.top))
}

/// The models, and the classes of the first, in whose order all of them answer.
fn load_models(args: &EvalArgs) -> Result<(Vec<String>, Vec<Member>), Error> {
    let mut classes: Vec<String> = Vec::new();
    let mut models = Vec::new();
    for path in &args.checkpoints {
        let checkpoint = checkpoint::load(&RunFolder::checkpoint_in(path)?)?;
        let config = use_config(&checkpoint, &args.options)?;
        if models.is_empty() {
            classes.clone_from(&checkpoint.metadata.classes);
        }
        models.push(Member::new(checkpoint, config, args.statistics, &classes)?);
    }
    Ok((classes, models))
}

/// The images of a folder, labelled by `classes`.
fn labelled_images(config: &Config, dir: &Path, classes: &[String]) -> Result<Vec<Sample>, Error> {
    let stop = || signals::received().is_some();
    let mut lister = scan::lister(config).with_stop(&stop);
    lister.load(dir);
    let labelled = scan::stopped_by_signal(scan_classes_with(&lister, dir, classes))?;
    scan::keep_listings(&mut lister, dir);
    for note in &labelled.notes {
        tracing::warn!("{note}");
    }
    Ok(labelled.samples)
}

/// The images of a folder that was named. Where it has the images of the models' runs, those that they
/// set aside; otherwise all, and it is said if some were trained on.
fn named_images(models: &[Member], dir: &Path, classes: &[String]) -> Result<Vec<Sample>, Error> {
    let looks: Vec<Option<Look>> =
        models.iter().map(|model| model.own.look_in(&model.config, dir)).collect();
    if let Some(splits) = common_images(&looks) {
        scan::warn(&splits.notes);
        tracing::info!(
            "{} has the images of the run: these are the {} that it set aside",
            dir.display(),
            counted(splits.val.len() as u64, "image")
        );
        return Ok(splits.val.clone());
    }
    let samples = labelled_images(&models[0].config, dir, classes)?;
    for (model, look) in models.iter().zip(&looks) {
        warn_of_training_images(model, look.as_ref(), dir, &samples);
    }
    Ok(samples)
}

/// The images of all runs, if a folder has them and the runs set the same ones aside.
fn common_images(looks: &[Option<Look>]) -> Option<&Splits> {
    let of_runs: Option<Vec<&Splits>> = looks
        .iter()
        .map(|look| look.as_ref().filter(|look| look.is_of_run).map(|look| &look.splits))
        .collect();
    let of_runs = of_runs?;
    let first = *of_runs.first()?;
    // A label is a place in the list of the first model's classes, in which all models answer.
    let is_common = of_runs.iter().all(|splits| splits.val == first.val);
    (is_common && !first.val.is_empty()).then_some(first)
}

/// The paths of `samples` inside `dir`.
fn paths_inside<'a>(samples: &'a [Sample], dir: &'a Path) -> impl Iterator<Item = &'a Path> {
    samples.iter().map(move |sample| sample.path.strip_prefix(dir).unwrap_or(&sample.path))
}

/// The runs' own validation images. All runs must have the same ones, or a model would be evaluated on
/// what it was trained on.
fn own_images(models: &[Member]) -> Result<(PathBuf, Vec<Sample>), Error> {
    let of = |model: &Member| model.own.find(&model.config, Part::Validation);
    let (first, others) = (&models[0], &models[1..]);
    let (dirs, samples) = of(first)?;
    for model in others {
        let (other_dirs, other) = of(model)?;
        let inside = paths_inside(&other, other_dirs.of_val());
        if !inside.eq(paths_inside(&samples, dirs.of_val())) {
            return Err(Error::Unusable(format!(
                "{} was validated on other images than {}; name a folder with --data-dir",
                model.path.display(),
                first.path.display()
            )));
        }
    }
    Ok((dirs.of_val().to_owned(), samples))
}

/// Says when a folder that was named holds images that a model was trained on.
fn warn_of_training_images(model: &Member, look: Option<&Look>, dir: &Path, samples: &[Sample]) {
    let trained_on = match look {
        Some(look) if look.is_own_folder => look.count_trained_on(samples),
        _ => 0,
    };
    if trained_on > 0 {
        tracing::warn!(
            "{} was trained on {trained_on} of these {}: {} has no validation folder and other \
             images than the run had, so all of them are taken",
            model.path.display(),
            counted(samples.len() as u64, "image"),
            dir.display()
        );
    }
}

/// The statistics that the models use, or `mixed`.
fn common_statistics(models: &[Member]) -> &'static str {
    let first = models[0].statistics;
    match models.iter().all(|model| model.statistics == first) {
        true => statistics::name(first),
        false => "mixed",
    }
}

fn to_json(outcomes: &Outcomes, models: &[Member], crops: Crops) -> Value {
    let evaluation = &outcomes.evaluation;
    let model = |model: &Member| {
        let about = json!({
            "step": model.step,
            "image_size": model.preprocessing.image_size,
            "ema": model.ema,
            "statistics": statistics::name(model.statistics),
        });
        with_path("path", &model.path, about)
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
    let rows = outcomes.per_class();
    let pairs: Vec<Value> = outcomes
        .confused_pairs()
        .iter()
        .take(MAX_ROWS)
        .map(|pair| {
            json!({
                "true": outcomes.classes[pair.label as usize],
                "predicted": outcomes.classes[pair.predicted as usize],
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
        "failed": print::failures_to_json(&evaluation.failed),
        "images_per_second": images_per_second(outcomes),
        "statistics": common_statistics(models),
        "models": models.iter().map(model).collect::<Vec<Value>>(),
        "ece": outcomes.ece(),
        "per_class": outcomes.classes.iter().zip(&rows).map(class).collect::<Vec<Value>>(),
        "confused_pairs": pairs,
    })
}

fn to_text(outcomes: &Outcomes, models: &[Member], crops: Crops, top: usize) -> String {
    let evaluation = &outcomes.evaluation;
    let failed = match evaluation.failed.len() {
        0 => String::new(),
        n => format!("; {n} could not be read, counted as wrong"),
    };
    let crops = match crops {
        Crops::One => "one centre crop each".to_owned(),
        crops => format!("{} crops each", crops.count()),
    };
    let ece = outcomes.ece().map_or(String::new(), |ece| format!(", ECE {ece:.4}"));
    let mut text = format!(
        "top-1 {:.2} %, top-5 {:.2} %, loss {:.4}{ece} on {}, {crops}{failed} \
         ({:.1} img/s)\n",
        100.0 * evaluation.top1(),
        100.0 * evaluation.top5(),
        evaluation.loss(),
        counted(evaluation.images(), "image"),
        images_per_second(outcomes),
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
        ("worst classes", worst_classes(outcomes, top)),
        ("most confused", confused_pairs(outcomes, top)),
        ("worst mistakes", mistakes(outcomes, top)),
    ] {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}\n{lines}"));
        }
    }
    text
}

/// The classes with the lowest top-1, of those that have mistakes.
fn worst_classes(outcomes: &Outcomes, top: usize) -> String {
    let rows = outcomes.per_class();
    let mut classes: Vec<(&String, &ClassRow)> =
        outcomes.classes.iter().zip(&rows).filter(|(_, row)| row.top1 < row.images).collect();
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

fn confused_pairs(outcomes: &Outcomes, top: usize) -> String {
    let rows = outcomes.per_class();
    let line = |pair: &crate::evaluation::outcomes::ConfusedPair| {
        let [label, predicted] =
            [pair.label, pair.predicted].map(|class| &outcomes.classes[class as usize]);
        let images = rows[pair.label as usize].images;
        format!("{label} taken for {predicted}: {} of {images}\n", pair.count)
    };
    outcomes.confused_pairs().iter().take(top).map(line).collect()
}

fn mistakes(outcomes: &Outcomes, top: usize) -> String {
    let mut text = String::new();
    for mistake in outcomes.mistakes().into_iter().take(top) {
        let Some((predicted, probability)) = mistake.predicted() else { continue };
        text.push_str(&format!(
            "{}: {} at {:.2} %, taken for {} at {:.2} %\n",
            outcomes.samples[mistake.index as usize].path.display(),
            outcomes.classes[mistake.label as usize],
            100.0 * mistake.probability,
            outcomes.classes[predicted as usize],
            100.0 * probability,
        ));
    }
    text
}

fn images_per_second(outcomes: &Outcomes) -> f64 {
    outcomes.evaluation.images() as f64 / outcomes.evaluation.seconds.max(1e-9)
}

/// JSON has no not-a-number: nothing stands for it.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

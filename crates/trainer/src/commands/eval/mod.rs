//! `eval`.

mod baseline;
mod json;
mod text;

pub(super) use self::json::to_json as result_to_json;
pub(super) use self::text::to_text as result_to_text;

use std::path::{Path, PathBuf};

use bninception_data::{Crops, Sample, Splits, scan_classes_with};

use super::stored::{check_same, use_config};
use crate::cli::EvalArgs;
use crate::commands::print;
use crate::config::Config;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::evaluation::changes::Changes;
use crate::evaluation::ensemble::{self, Member};
use crate::evaluation::pictures;
use crate::evaluation::statistics::StatisticsSizes;
use crate::evaluation::tables::OutcomeTables;
use crate::images::data_dirs::check_outside;
use crate::images::own_images::{Look, Part};
use crate::images::scan;
use crate::run::checkpoint;
use crate::run::folder::RunFolder;
use crate::terminal::signals;
use crate::terminal::text::counted;

pub(super) fn eval(args: &EvalArgs, ranks: &mut Ranks) -> Result<(), Error> {
    signals::listen()?;
    let crops = crops(args)?;
    let (classes, models) = load_models(args)?;
    let baseline = args.baseline.as_deref();
    let baseline = baseline.map(|path| load(args, path, Some(&classes))).transpose()?;
    let all: Vec<&Member> = models.iter().chain(&baseline).collect();
    let (place, samples) = match &args.data_dir {
        Some(dir) => (dir.clone(), named_images(&all, dir, &classes)?),
        None => own_images(&all)?,
    };
    if let Some(out) = &args.out {
        check_outside(&place, out, "--out")?;
    }
    let files = samples.iter().map(|sample| sample.path.as_path());
    check_same(ranks, all.iter().map(|model| model.checksum.as_str()), files)?;
    let out = args.out.as_deref().filter(|_| ranks.is_first());
    let folder = out.map(OutcomeTables::create).transpose()?;
    tracing::info!("evaluating {} of {}", counted(samples.len() as u64, "image"), place.display());
    let of_baseline = match &baseline {
        Some(baseline) => {
            let models = std::slice::from_ref(baseline);
            Some(ensemble::evaluate(models, &classes, samples.clone(), crops, ranks)?)
        }
        None => None,
    };
    let outcomes = ensemble::evaluate(&models, &classes, samples, crops, ranks)?;
    if !ranks.is_first() {
        return Ok(());
    }
    for failure in &outcomes.evaluation.failed {
        tracing::warn!("counted as wrong: {}", failure.error);
    }
    let changes = of_baseline.as_ref().map(|other| Changes::between(&outcomes, other));
    let beside = changes.as_ref().zip(baseline.as_ref());
    if let Some(folder) = folder {
        folder.write(&outcomes)?;
        folder.write_changes(changes.as_ref())?;
        if let (Some(out), [first, ..]) = (&args.out, models.as_slice()) {
            pictures::write(out, &outcomes, first)?;
            tracing::info!("tables, mistakes.png and confusion.png are in {}", out.display());
        }
    }
    if args.options.json {
        let mut result = json::to_json(&outcomes, &models);
        if let Some((changes, baseline)) = beside {
            result["baseline"] = baseline::to_json(changes, baseline);
        }
        return print::json(&result);
    }
    let mut result = text::to_text(&outcomes, &models, args.top);
    if let Some((changes, baseline)) = beside {
        result.push_str(&baseline::to_text(changes, baseline, args.top));
    }
    print::text(&result)
}

/// What of each image is looked at.
fn crops(args: &EvalArgs) -> Result<Crops, Error> {
    match (args.flip, args.crops) {
        (true, Crops::One) => Ok(Crops::Mirrored),
        (true, crops) => Err(Error::Usage(format!(
            "--flip: half of the {} crops are mirror images already; leave out --flip, or take --crops 1",
            crops.count()
        ))),
        (false, crops) => Ok(crops),
    }
}

/// The models, and the classes of the first, in whose order all of them answer.
fn load_models(args: &EvalArgs) -> Result<(Vec<String>, Vec<Member>), Error> {
    let mut models: Vec<Member> = Vec::new();
    for path in &args.checkpoints {
        let classes = models.first().map(Member::classes);
        models.push(load(args, path, classes)?);
    }
    let classes = models.first().map(|first| first.classes().to_vec());
    Ok((classes.unwrap_or_default(), models))
}

/// The model of a checkpoint or run; without `classes` it answers in the order of its own.
fn load(args: &EvalArgs, path: &Path, classes: Option<&[String]>) -> Result<Member, Error> {
    let checkpoint = checkpoint::load(&RunFolder::checkpoint_in(path)?)?;
    let sizes = StatisticsSizes::of(&checkpoint.metadata);
    let checkpoint = match args.image_size {
        Some(image_size) => checkpoint.at_image_size(image_size)?,
        None => checkpoint,
    };
    let config = use_config(&checkpoint, &args.options)?;
    let classes = classes.map_or_else(|| checkpoint.metadata.classes.clone(), <[String]>::to_vec);
    let member = Member::new(checkpoint, config, args.statistics, &classes)?;
    if let Some(note) = sizes.note(&member.path, member.statistics, member.preprocessing.image_size)
    {
        tracing::warn!("{note}");
    }
    Ok(member)
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
fn named_images(models: &[&Member], dir: &Path, classes: &[String]) -> Result<Vec<Sample>, Error> {
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
fn own_images(models: &[&Member]) -> Result<(PathBuf, Vec<Sample>), Error> {
    let of = |model: &Member| model.own.find(&model.config, Part::Validation);
    let (first, others) = (models[0], &models[1..]);
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

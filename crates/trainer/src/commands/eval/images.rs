//! The images that models are evaluated on.

use std::path::{Path, PathBuf};

use bninception_data::{Sample, Splits, scan_classes_with};

use crate::config::Config;
use crate::error::Error;
use crate::evaluation::ensemble::Member;
use crate::images::own_images::{Look, Part};
use crate::images::scan;
use crate::terminal::signals;
use crate::terminal::text::counted;

/// The images that models are evaluated on.
pub(in crate::commands) struct EvaluatedImages {
    /// The folder that they are in.
    pub(in crate::commands) place: PathBuf,
    /// All of them.
    pub(in crate::commands) samples: Vec<Sample>,
    /// Whether they are those that the models' runs set aside.
    pub(in crate::commands) are_of_run: bool,
}

/// The images in `data_dir` for models with these classes; without it those that their runs set aside.
///
/// # Errors
/// They cannot be found, or are not what they were.
pub(in crate::commands) fn images_of(
    models: &[&Member],
    data_dir: Option<&Path>,
    classes: &[String],
) -> Result<EvaluatedImages, Error> {
    match data_dir {
        Some(dir) => named_images(models, dir, classes),
        None => own_images(models),
    }
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
fn named_images(
    models: &[&Member],
    dir: &Path,
    classes: &[String],
) -> Result<EvaluatedImages, Error> {
    let place = dir.to_owned();
    let looks: Vec<Option<Look>> =
        models.iter().map(|model| model.own.look_in(&model.config, dir)).collect();
    if let Some(splits) = common_images(&looks) {
        scan::warn(&splits.notes);
        tracing::info!(
            "{} has the images of the run: these are the {} that it set aside",
            dir.display(),
            counted(splits.val.len() as u64, "image")
        );
        return Ok(EvaluatedImages { place, samples: splits.val.clone(), are_of_run: true });
    }
    let samples = labelled_images(&models[0].config, dir, classes)?;
    for (model, look) in models.iter().zip(&looks) {
        warn_of_training_images(model, look.as_ref(), dir, &samples);
    }
    Ok(EvaluatedImages { place, samples, are_of_run: false })
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
fn own_images(models: &[&Member]) -> Result<EvaluatedImages, Error> {
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
    Ok(EvaluatedImages { place: dirs.of_val().to_owned(), samples, are_of_run: true })
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

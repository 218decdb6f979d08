//! `probe`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bninception_data::folder::is_same;
use bninception_data::{Crops, FileSource, Sample, Splits};
use bninception_engine::model::ParameterTable;
use bninception_engine::{EvaluationWeights, ModelState};
use serde_json::json;

use super::eval::{result_to_json, result_to_text};
use super::out_file::out_file;
use super::recipe::{FirstCheckpoint, Start};
use super::run;
use crate::cli::{ConfigArgs, FlagArgs, ProbeArgs};
use crate::commands::print;
use crate::config::{BASE, Config, Resolved};
use crate::distributed::Ranks;
use crate::error::Error;
use crate::evaluation::ensemble::{self, Member};
use crate::evaluation::last_layer::LastLayer;
use crate::evaluation::outcomes::Outcomes;
use crate::images::bad_images::bad_limit;
use crate::images::data_dirs::DataDirs;
use crate::images::own_images::OwnImages;
use crate::images::scan;
use crate::probe::checkpoint::{ProbedImages, keep_evaluation, with_classifier};
use crate::probe::features::FeatureTable;
use crate::probe::fit::{Chosen, Labelled, WITHOUT_CHOICE, choose, fit};
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::initial::InitialWeights;
use crate::setup;
use crate::terminal::output::with_path;
use crate::terminal::signals;
use crate::terminal::text::{counted, quoted};

pub(super) fn probe(args: &ProbeArgs) -> Result<(), Error> {
    signals::listen()?;
    let start = Start::of(&settings(args)?)?;
    let Resolved { config, recipe, .. } = start.resolved.clone();
    let Some(first) = start.first else {
        return Err(Error::Usage("no checkpoint was named".to_owned()));
    };
    let source = first.checkpoint.path.clone();
    let out = out_file(&source, "-probe", args.out.as_deref(), args.overwrite)?;
    if is_same(&out, &source) {
        return Err(Error::Usage(format!(
            "{} is the checkpoint itself; name another file with --out",
            out.display()
        )));
    }
    let dirs = DataDirs::of_config(&config, Path::new(""))?;
    dirs.check_outside(&out, "--out")?;
    let splits = scan::scan_to_train(&config, &dirs)?;
    run::warn_of_splits(&config, &splits);
    warn_of_seen(&first.checkpoint, &dirs.dir, &splits);
    say_differences(&first, &start.resolved)?;

    let network = setup::network(&config, splits.classes.len())?;
    let table = ParameterTable::new(&network);
    let drawn = ModelState::initial(&network, &table, config.train.seed, false).weights;
    let initial = InitialWeights::of(&first.checkpoint, &network, &splits.classes, drawn)?;
    drop(first);
    let lists = dirs.lists(&splits);
    let Splits { classes, train, val, .. } = splits;
    let n_train = train.len();
    let mut executor = setup::executor(&config, network.clone())?;
    tracing::info!("{}: {}", source.display(), executor.describe());
    let features = FeatureTable::of(
        executor.as_mut(),
        EvaluationWeights::Given(&initial.to_state(false).weights),
        Arc::new(FileSource::new(train, setup::decode_options(&config))?),
        &setup::preprocessing(&config),
        &setup::load_options(&config, setup::val_batch_size(&config)),
    )?;
    drop(executor);
    for failure in &features.failed {
        tracing::warn!("left out: {}", failure.error);
    }
    let (bad, limit) = (features.failed.len(), bad_limit(config.data.max_bad, n_train));
    if bad > limit {
        return Err(Error::Unusable(format!(
            "{bad} training images could not be read, more than the {limit} that data.max_bad and the size of \
             the data set allow; mend or remove the files named above"
        )));
    }
    check_two_classes(&features.labels, &classes, &dirs.dir)?;
    tracing::info!(
        "features of {} in {:.1} s: {:.1} img/s",
        counted(n_train as u64, "training image"),
        features.seconds,
        n_train as f64 / features.seconds.max(1e-9)
    );

    let begun = Instant::now();
    let labelled = Labelled {
        features: &features.values,
        channels: LastLayer::of(&network).channels,
        labels: &features.labels,
        classes: classes.len(),
        threads: setup::threads(config.train.threads),
    };
    let chosen = choose(&labelled, signals::check)?;
    say_choice(chosen.as_ref());
    let penalty = chosen.as_ref().map_or(WITHOUT_CHOICE, |chosen| chosen.penalty);
    let (classifier, found) = fit(&labelled, chosen.as_ref(), signals::check)?;
    if !found.is_minimum {
        tracing::warn!(
            "the classifier was not at its best behind {}: it is as good as rounding lets it be, or needs \
             other features",
            counted(found.steps as u64, "step")
        );
    }
    let fit_seconds = begun.elapsed().as_secs_f64();
    drop(features.values);

    let images = ProbedImages { classes: classes.clone(), lists, dirs: dirs.to_stored() };
    let settings = (config.clone(), recipe);
    let mut probed = with_classifier(&out, network, settings, images, &initial, &classifier);
    let evaluated = evaluated(&probed, config, classes, val)?;
    if let Some((outcomes, [Member { statistics, .. }])) = &evaluated {
        keep_evaluation(&mut probed, &outcomes.evaluation, *statistics);
    }
    checkpoint::save(&out, &probed.metadata, &table, &probed.state)?;

    if args.options.json {
        let result = json!({
            "images": features.labels.len(),
            "failed": print::failures_to_json(&features.failed),
            "feature_seconds": features.seconds,
            "fit_seconds": fit_seconds,
            "penalty": penalty,
            "held_out": chosen.as_ref().map(|chosen| chosen.held_out),
            "held_out_loss": chosen.as_ref().map(|chosen| chosen.loss),
            "steps": found.steps,
            "is_minimum": found.is_minimum,
            "validation": evaluated
                .as_ref()
                .map(|(outcomes, model)| result_to_json(outcomes, model)),
        });
        return print::json(&with_path("checkpoint", &out, result));
    }
    let result = match &evaluated {
        Some((outcomes, model)) => result_to_text(outcomes, model, 0),
        None => "no validation images, so nothing was evaluated\n".to_owned(),
    };
    print::text(&format!(
        "{result}features {:.1} s, classifier {fit_seconds:.1} s (penalty {penalty:.1e}, {})\n\
         {}; name pictures with: bninception predict {} IMAGE...",
        features.seconds,
        counted(found.steps as u64, "step"),
        out.display(),
        quoted(&out)
    ))
}

/// The settings of a run that would begin with the checkpoint. `base` has no recipe of training.
fn settings(args: &ProbeArgs) -> Result<ConfigArgs, Error> {
    let Some(checkpoint) = args.checkpoint.to_str() else {
        return Err(Error::Usage(format!(
            "{}: its name is not UTF-8 text; give it by a symbolic link with another",
            args.checkpoint.display()
        )));
    };
    let flags = FlagArgs {
        data_dir: Some(args.data_dir.clone()),
        val_dir: args.val_dir.clone(),
        init_from: Some(checkpoint.to_owned()),
        execution: args.options.execution.clone(),
        image_size: args.image_size,
        seed: args.seed,
        ..FlagArgs::default()
    };
    let preset = Some(BASE.to_owned());
    ConfigArgs { preset, config: Vec::new(), set: args.set.clone(), flags }.for_evaluation()
}

/// Says where the network differs from the checkpoint's.
fn say_differences(first: &FirstCheckpoint, resolved: &Resolved) -> Result<(), Error> {
    let differences = first.differences(resolved)?;
    if !differences.is_empty() {
        tracing::info!("other settings than that checkpoint's: {differences}");
    }
    Ok(())
}

/// Says where the network knows the images already.
fn warn_of_seen(checkpoint: &Checkpoint, dir: &Path, splits: &Splits) {
    let Checkpoint { path, metadata, .. } = checkpoint;
    let own = OwnImages::of(metadata, path);
    let look = own.look_in(&metadata.config, dir).filter(|look| look.is_own_folder);
    let Some(look) = look else { return };
    let (path, n_val) = (path.display(), look.count_trained_on(&splits.val));
    if n_val > 0 {
        tracing::warn!(
            "{path} was trained on {n_val} of the {}, so the result is too good; with the seed of its run \
             they are those that it set aside: --seed {}",
            counted(splits.val.len() as u64, "validation image"),
            metadata.config.train.seed
        );
    }
    let n_train = look.count_trained_on(&splits.train);
    if n_train > 0 {
        tracing::info!(
            "{path} was trained on {n_train} of the {}, so those held out to choose a penalty flatter it",
            counted(splits.train.len() as u64, "training image")
        );
    }
}

/// A classifier of one class says nothing.
fn check_two_classes(labels: &[u32], classes: &[String], dir: &Path) -> Result<(), Error> {
    let Some(first) = labels.first() else {
        return Err(Error::Unusable(format!(
            "no training image of {} can be read, and a probe needs some of two classes",
            dir.display()
        )));
    };
    match labels.iter().all(|label| label == first) {
        false => Ok(()),
        true => Err(Error::Unusable(format!(
            "all training images of {} that can be read are `{}`, and a probe needs two classes; add \
             images of another",
            dir.display(),
            classes[*first as usize]
        ))),
    }
}

fn say_choice(chosen: Option<&Chosen>) {
    let Some(Chosen { penalty, loss, held_out, parts, tried, .. }) = chosen else {
        tracing::info!("too few training images to choose a penalty by: {WITHOUT_CHOICE:.1e}");
        return;
    };
    tracing::info!(
        "penalty {penalty:.1e}, the best of {} by {} held out in {} (loss {loss:.4})",
        tried.len(),
        counted(*held_out as u64, "training image"),
        counted(*parts as u64, "part")
    );
}

/// What `eval` would find of the checkpoint on these images; `None` without such.
fn evaluated(
    probed: &Checkpoint,
    config: Config,
    classes: Vec<String>,
    val: Vec<Sample>,
) -> Result<Option<(Outcomes, [Member; 1])>, Error> {
    if val.is_empty() {
        return Ok(None);
    }
    let models = [Member::new(probed.clone(), config, None, &classes)?];
    let outcomes = ensemble::evaluate(&models, &classes, val, Crops::One, &mut Ranks::alone())?;
    for failure in &outcomes.evaluation.failed {
        tracing::warn!("counted as wrong: {}", failure.error);
    }
    Ok(Some((outcomes, models)))
}

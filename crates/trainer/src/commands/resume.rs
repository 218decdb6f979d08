//! `resume`.

use std::path::Path;

use bninception_engine::model::{Network, ParameterTable};

use super::run::{self, RunImages};
use crate::cli::{ConfigArgs, ResumeArgs};
use crate::config::{Change, Config, ConfigFile, Resolved, changes_maths, diff, nearest_setting};
use crate::distributed::Ranks;
use crate::distributed::checkpoint::load_on_all;
use crate::distributed::error::RanksError;
use crate::error::Error;
use crate::images::own_images::OwnImages;
use crate::images::scan;
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::classes;
use crate::run::folder::RunFolder;
use crate::run::image_lists::ImageLists;
use crate::run::metadata::Metadata;
use crate::run::state::{RunProgress, TrainState};
use crate::setup;
use crate::terminal::signals;
use crate::terminal::text::{counted, quoted};
use crate::training::course::{EpochPlace, shift_to};
use crate::training::job::Job;
use crate::training::resources::Room;
use crate::training::watch::Watcher;

/// The key by which `--allow-change` permits other images.
const IMAGES: &str = "data.images";

pub(super) fn resume(args: &ResumeArgs, ranks: &mut Ranks) -> Result<(), Error> {
    signals::listen()?;
    let stop = run::stop_when(args.max_time);
    let mut lock = None;
    let path = ranks.path_from_first(|| {
        if let Ok(named) = checkpoint::load_metadata(&args.run) {
            check_is_of_run(&named, &args.run)?;
        }
        let (folder, held) = RunFolder::open(&args.run)?;
        lock = Some(held);
        Ok::<_, Error>(folder.path().to_owned())
    })?;
    let folder = RunFolder::at(&path);
    let checkpoint = load_on_all(ranks, &folder.last())?;
    let Checkpoint { metadata, mut state, network, .. } = checkpoint;
    check_is_of_run(&metadata, &folder.last())?;
    let (resolved, network) =
        resumed_config(&metadata, &network, &args.config, &args.allow_change, &folder)?;
    let (asked, found) = (resolved.config.train.ranks, ranks.share().ranks);
    if asked != metadata.config.train.ranks && asked != found {
        return Err(RanksError::Number { asked, found }.into());
    }
    let Resolved { config, recipe, .. } = resolved.with_ranks(found)?;

    let dirs = OwnImages::of(&metadata, &folder.last()).dirs(&config, "--val-dir")?;
    dirs.check_outside(folder.path(), &format!("mv {}", quoted(folder.path())))?;
    let splits = ranks.first_and_then_others(|| scan::scan_to_train(&config, &dirs))?;
    signals::check()?;
    if splits.classes != metadata.classes {
        return Err(Error::Unusable(format!(
            "{} has other classes than the run: {}",
            dirs.dir.display(),
            classes::difference(&metadata.classes, &splits.classes)
        )));
    }
    let images = RunImages { splits, dirs };
    let others_allowed = args.allow_change.iter().any(|key| key == IMAGES);
    check_images(&metadata, &images, others_allowed)?;
    Watcher::new(&config, &network)?;
    run::check_batch(&config, &images.splits).map_err(with_permit)?;
    run::check_classes(&config, &images.splits)?;
    let mut placed = setup::placed(&config, network.clone())?;
    let table = ParameterTable::new(&network);
    let n_images = images.splits.train.len();
    let room = Room::of(&config, &table, placed.executor.as_mut(), n_images, folder.path())
        .map_err(with_permit)?;
    let initial = metadata.initial.clone();
    let job = run::job(config, recipe, images, initial, folder, network, stop)?;
    let has_moved = keep_place(&job, &metadata, &mut state.progress, others_allowed)?;
    let has_other_average = keep_average(&job.config, &mut state);
    let n_ranks = ranks.share().ranks;
    let before = state.progress.go_on_with(n_ranks);
    if let Some(before) = before {
        tracing::warn!(
            "the run goes on with {} in place of {before}: its updates have {} images from here on",
            counted(n_ranks as u64, "process"),
            job.config.train.images_per_update()
        );
    }
    let device_before = state.progress.go_on_at(placed.model());
    job.check_same(ranks, &state)?;
    run::write_folder(&job, ranks)?;
    if let Some(before) = &device_before {
        tracing::info!(
            "the run goes on on {} in place of {before}: sums round otherwise there, so its bits are not those of a \
             run on one device",
            placed.model()
        );
    }
    if ranks.is_first() {
        if has_moved || has_other_average || before.is_some() || device_before.is_some() {
            // What goes back to the last checkpoint must not go back before this change.
            job.folder.save_last(&job.metadata(&state.progress), &job.table, &state)?;
        }
        job.folder.unmark_diverged()?;
    }
    run::say_start(&job, &state, placed.executor.as_ref(), &room, ranks);
    say_place(&job, &state.progress);
    let beside = run::dashboard(args.dashboard, &job, ranks);
    let outcome = run::finish(&job, placed.executor.as_mut(), ranks, state, args.json);
    drop(beside);
    drop(lock);
    outcome
}

/// Refuses a checkpoint that no run led to, or that is of another size than its run.
fn check_is_of_run(metadata: &Metadata, path: &Path) -> Result<(), Error> {
    let image_size = metadata.preprocessing.image_size;
    let resized = metadata.trained_image_size.map(|trained| {
        format!("was calibrated at {image_size} px, and its run trains at {trained} px")
    });
    let Some(origin) = metadata.origin_without_run().or(resized) else { return Ok(()) };
    let has_images = metadata.images != ImageLists::default();
    let dir = if has_images { metadata.data_dirs.dir.as_str() } else { "" };
    let dir = if dir.is_empty() { "DIR".to_owned() } else { quoted(Path::new(dir)) };
    Err(Error::Usage(format!(
        "{} {origin}: there is no run that goes on from it; begin one with its weights: bninception train --init-from \
         {} --data-dir {dir}",
        path.display(),
        quoted(path)
    )))
}

/// Says of advice for a new run what it takes to follow it in one that goes on.
fn with_permit(error: Error) -> Error {
    let keys = [
        ("--batch-size", "train.batch_size"),
        ("--accumulate", "train.accumulate"),
        ("--image-size", "data.image_size"),
    ];
    match error {
        Error::Usage(text) => match keys.iter().find(|(flag, _)| text.contains(flag)) {
            Some((_, key)) => Error::Usage(format!("{text} (on resume with --allow-change {key})")),
            None => Error::Usage(text),
        },
        error => error,
    }
}

fn say_place(job: &Job, progress: &RunProgress) {
    let (course, step) = (job.course(progress), progress.step);
    let is_at_end = step >= course.total_steps || course.is_stopped_early(progress);
    if !is_at_end || progress.evaluated_step != Some(step) {
        tracing::info!("going on at step {step}, epoch {:.2}", course.epoch(step));
        return;
    }
    let config = &job.config;
    if course.is_stopped_early(progress) {
        tracing::info!(
            "the run is at its end: it stopped early at step {step} of {}; let it go on with: bninception \
             resume {} --set train.patience=0",
            course.total_steps,
            quoted(job.folder.path())
        );
        return;
    }
    if config.schedule.follows_length() {
        let weights = quoted(&job.folder.last());
        let dirs = [("--data-dir", &config.data.dir), ("--val-dir", &config.data.val_dir)];
        let dirs = dirs.iter().filter(|(_, dir)| !dir.is_empty());
        let dirs: String =
            dirs.map(|(flag, dir)| format!(" {flag} {}", quoted(Path::new(dir)))).collect();
        tracing::info!(
            "the run is at its end (step {step}), and so is its learning rate, which follows its length: a \
             longer run begins anew, with more --epochs, or from these weights, with: bninception train \
             --init-from {weights}{dirs}"
        );
        return;
    }
    let (flag, more) = match config.train.steps {
        0 => ("--epochs", course.last_epoch() + 1),
        steps => ("--steps", steps.saturating_add(course.steps_per_epoch)),
    };
    tracing::info!(
        "the run is at its end (step {step}); train on with, for example: bninception resume {} {flag} {more}",
        quoted(job.folder.path())
    );
}

/// Refuses images that are not those of the run, unless others are allowed.
fn check_images(
    metadata: &Metadata,
    images: &RunImages,
    others_allowed: bool,
) -> Result<(), Error> {
    let found = images.dirs.lists(&images.splits);
    let Some(difference) = metadata.images.difference(&found, &images.splits.classes) else {
        return Ok(());
    };
    let dir = images.dirs.dir.display();
    if others_allowed {
        tracing::warn!("{dir} has other images than the run: {difference}");
        return Ok(());
    }
    Err(Error::Unusable(format!(
        "{dir} has other images than the run: {difference}\nput them back, or go on with what \
         is there by --allow-change {IMAGES}; the result will be another"
    )))
}

/// Keeps the place in the epoch where a batch or an epoch has another size than before. Gives whether
/// one has.
fn keep_place(
    job: &Job,
    metadata: &Metadata,
    progress: &mut RunProgress,
    others_allowed: bool,
) -> Result<bool, Error> {
    let batch_size = job.config.train.images_per_update();
    let before = metadata.config.train.images_per_update();
    let steps_per_epoch = job.course(progress).steps_per_epoch;
    if batch_size == before && steps_per_epoch == metadata.steps_per_epoch {
        return Ok(false);
    }
    if batch_size == before && !others_allowed {
        return Err(Error::Unusable(format!(
            "{} has {} training images: an epoch would have {} batches, and that of the run has {}",
            job.data_dirs.dir.display(),
            job.train.len(),
            steps_per_epoch,
            metadata.steps_per_epoch
        )));
    }
    let seen = metadata.position.saturating_mul(before as u64);
    let place = EpochPlace { step: metadata.step, epoch: metadata.epoch, images: seen };
    let (shift, images) = shift_to(&place, batch_size, steps_per_epoch);
    progress.batch_shift = shift;
    if metadata.position > 0 && images == 0 {
        progress.epoch_begun_again = Some(progress.step);
    }
    let course = job.course(progress);
    tracing::info!(
        "batches of {batch_size} in place of {before}: epoch {} goes on behind {} of {} ({seen} were \
         seen); {} in all, {} an epoch",
        place.epoch + 1,
        counted(images, "image"),
        job.train.len(),
        counted(course.total_steps, "step"),
        course.steps_per_epoch
    );
    Ok(true)
}

/// Begins the moving average of the weights, or drops it, where the settings now say so. Gives whether
/// they do.
fn keep_average(config: &Config, state: &mut TrainState) -> bool {
    let (wanted, has) = (config.train.keeps_average(), state.model.ema.is_some());
    if wanted != has {
        state.model.ema = wanted.then(|| state.model.weights.clone());
        // They belong to what was evaluated before.
        state.population = None;
    }
    wanted != has
}

/// The run's own settings with those given now, and their network; a change of what is computed needs
/// permission.
fn resumed_config(
    metadata: &Metadata,
    network: &Network,
    args: &ConfigArgs,
    allowed: &[String],
    folder: &RunFolder,
) -> Result<(Resolved, Network), Error> {
    let stored = &metadata.config;
    if args.preset.is_some() {
        return Err(Error::Usage(
            "resume takes the recipe from the run; single settings may be given, not a preset"
                .to_owned(),
        ));
    }
    for key in allowed.iter().filter(|key| *key != IMAGES) {
        if let Some(nearest) = nearest_setting(stored, key)? {
            return Err(Error::Usage(format!(
                "--allow-change {key}: there is no such setting; did you mean `{nearest}`?"
            )));
        }
    }
    let name = folder.path().display().to_string();
    let file = ConfigFile { name: name.clone(), text: stored.to_toml()? };
    let mut resolved = args.resolve(Some(file), None)?;
    resolved.recipe = resolved.recipe_over(&metadata.recipe.preset)?;
    resolved.recipe = resolved.recipe.continuing(&metadata.recipe, &name);
    let config = &resolved.config;
    let table = ParameterTable::new(network);
    let mut refused = Vec::new();
    for change in diff(stored, config)? {
        let Change { key, old, new } = &change;
        if !changes_maths(key, stored.schedule.follows_length()) {
            continue;
        }
        let remedy = match keeps_tensors(stored, &change, metadata.classes.len(), &table) {
            false => "it makes another network: begin a new run".to_owned(),
            true if allowed.contains(key) => continue,
            true => format!("--allow-change {key}"),
        };
        refused.push(format!("  {key}: {old} in the run, {new} now ({remedy})"));
    }
    if !refused.is_empty() {
        return Err(Error::Usage(format!(
            "these settings would change the result of the run:\n{}\n\
             leave them out, or permit each as shown",
            refused.join("\n")
        )));
    }
    let network = setup::network(config, metadata.classes.len())?;
    match ParameterTable::new(&network) == table {
        true => Ok((resolved, network)),
        false => Err(Error::Usage(
            "these settings together make another network than that of the run: begin a new run"
                .to_owned(),
        )),
    }
}

/// Whether the tensors of a run's network stay as they are with one setting changed.
fn keeps_tensors(stored: &Config, change: &Change, classes: usize, table: &ParameterTable) -> bool {
    let network =
        change.applied_to(stored).and_then(|config| setup::network(&config, classes).ok());
    // A setting that holds only together with others is judged with them.
    network.is_none_or(|network| ParameterTable::new(&network) == *table)
}

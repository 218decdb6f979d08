//! `train`.

use std::path::PathBuf;

use super::dry_run::DryRun;
use super::plan::{Drawing, RunPlan};
use super::run::{self, RunImages};
use crate::cli::TrainArgs;
use crate::config::Recipe;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::run::folder::RunFolder;
use crate::run::state::TrainState;
use crate::terminal::signals;
use crate::training::resources::Room;

pub(super) fn train(args: &TrainArgs, ranks: &mut Ranks) -> Result<(), Error> {
    signals::listen()?;
    let stop = run::stop_when(args.max_time);
    let drawing = if args.dry_run { Drawing::Dropped } else { Drawing::Kept };
    let mut plan = RunPlan::of(&args.config, drawing, ranks)?;

    let parent = PathBuf::from(&plan.config.checkpoint.dir);
    let name = run_name(args, &plan.recipe);
    let planned = args.run_dir.clone().unwrap_or_else(|| parent.join(&name));
    plan.dirs.check_apart(&planned, "--run-dir")?;
    let n_images = plan.splits.train.len();
    let executor = plan.placed.executor.as_mut();
    let room = Room::of(&plan.config, &plan.table, executor, n_images, &planned)?;
    if args.dry_run {
        return DryRun::measure(&mut plan, &room)?.print(args.json);
    }

    let mut lock = None;
    let path = ranks.path_from_first(|| {
        let (folder, held) =
            RunFolder::create(args.run_dir.as_deref(), &parent, &name, args.overwrite)?;
        lock = Some(held);
        Ok::<_, Error>(folder.path().to_owned())
    })?;
    let folder = RunFolder::at(&path);
    let mut state = TrainState::of(plan.first_state(plan.config.train.keeps_average()));
    state.progress.go_on_with(plan.config.train.ranks);
    state.progress.go_on_at(plan.placed.model());
    let RunPlan { config, recipe, dirs, splits, network, placed, initial, .. } = plan;
    let mut executor = placed.executor;
    let images = RunImages { splits, dirs };
    let initial = initial.map(|initial| initial.source);
    let job = run::job(config, recipe, images, initial, folder, network, stop)?;
    job.check_same(ranks, &state)?;
    if ranks.is_first() {
        // From here on there is a checkpoint at every moment.
        job.folder.save_last(&job.metadata(&state.progress), &job.table, &state)?;
    }
    run::write_folder(&job, ranks)?;
    run::say_start(&job, &state, executor.as_ref(), &room, ranks);
    let beside = run::dashboard(args.dashboard, &job, ranks);
    let outcome = run::finish(&job, executor.as_mut(), ranks, state, args.json);
    drop(beside);
    drop(lock);
    outcome
}

/// The name of a run's folder: that of the last config file, or else of the preset.
fn run_name(args: &TrainArgs, recipe: &Recipe) -> String {
    let stem = args.config.config.last().and_then(|file| file.file_stem());
    stem.map_or(recipe.preset.clone(), |stem| stem.to_string_lossy().into_owned())
}

//! `train`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bninception_data::{FileSource, Loader, Splits};
use bninception_engine::model::{Network, ParameterTable};
use bninception_engine::{Executor, Hooks, Images, ModelState, TrainBatch};
use serde_json::{Value, json};

use super::recipe;
use super::run::{self, RunImages};
use crate::cli::TrainArgs;
use crate::commands::print;
use crate::config::{Config, Recipe};
use crate::error::Error;
use crate::images::data_dirs::DataDirs;
use crate::images::scan;
use crate::run::folder::RunFolder;
use crate::run::state::{TrainState, bn_momentum};
use crate::setup;
use crate::terminal::loss::loss_text;
use crate::terminal::output::with_path;
use crate::terminal::signals;
use crate::terminal::text::counted;
use crate::training::resources::Room;
use crate::training::watch::Watcher;

/// The presets that are made for the embedded pictures.
const EMBEDDED_PRESETS: [&str; 2] = ["demo", "smoke"];

pub(super) fn train(args: &TrainArgs) -> Result<(), Error> {
    let first = args.config.resolve_to_train(None)?;
    if first.config.data.dir.is_empty() && !EMBEDDED_PRESETS.contains(&first.recipe.preset.as_str())
    {
        return Err(Error::Usage(
            "no images: give --data-dir DIR with DIR/train/CLASS/* and DIR/val/CLASS/*, \
             or train the embedded pictures with --preset demo"
                .to_owned(),
        ));
    }
    signals::listen()?;
    let stop = run::stop_when(args.max_time);

    let parent = PathBuf::from(&first.config.checkpoint.dir);
    let dirs = DataDirs::of_config(&first.config, &parent)?;
    let splits = scan::scan_to_train(&first.config, &dirs)?;
    signals::check()?;
    let resolved = recipe::of_images(&args.config, first, &splits)?;
    let (config, recipe) = (resolved.config, resolved.recipe);
    let name = run_name(args, &recipe);
    let planned = args.run_dir.clone().unwrap_or_else(|| parent.join(&name));
    dirs.check_apart(&planned, "--run-dir")?;
    let network = setup::network(&config, splits.classes.len())?;
    Watcher::new(&config, &network)?;
    run::check_batch(&config, &splits)?;
    let mut executor = setup::executor(&config, network.clone())?;
    let table = ParameterTable::new(&network);
    let room = Room::of(&config, &table, executor.as_ref(), splits.train.len(), &planned)?;
    if args.dry_run {
        let plan = DryRun { config: &config, recipe: &recipe, dirs: &dirs, room: &room };
        return plan.run(&splits, &network, executor.as_mut(), args.json);
    }

    let (folder, _lock) =
        RunFolder::create(args.run_dir.as_deref(), &parent, &name, args.overwrite)?;
    let images = RunImages { splits, dirs };
    let job = run::job(config, recipe, images, folder, network, stop)?;
    let with_ema = job.config.train.keeps_average();
    let state = TrainState::new(&job.network, &job.table, job.config.train.seed, with_ema);
    // From here on there is a checkpoint at every moment.
    job.folder.save_last(&job.metadata(&state.progress), &job.table, &state)?;
    run::write_folder(&job)?;
    run::say_start(&job, &state, executor.as_ref(), &room);
    run::finish(&job, executor.as_mut(), state, args.json)
}

/// The name of a run's folder: that of the last config file, or else of the preset.
fn run_name(args: &TrainArgs, recipe: &Recipe) -> String {
    let stem = args.config.config.last().and_then(|file| file.file_stem());
    stem.map_or(recipe.preset.clone(), |stem| stem.to_string_lossy().into_owned())
}

/// One step on the first images, and what a run would do. Writes nothing but the embedded pictures,
/// which it needs.
struct DryRun<'a> {
    config: &'a Config,
    recipe: &'a Recipe,
    dirs: &'a DataDirs,
    room: &'a Room,
}

/// What the first step gave.
struct FirstStep {
    images: usize,
    loss: f64,
    seconds: f64,
}

impl DryRun<'_> {
    fn run(
        &self,
        splits: &Splits,
        network: &Network,
        executor: &mut dyn Executor,
        as_json: bool,
    ) -> Result<(), Error> {
        let first = self.first_step(splits, network, executor)?;
        match as_json {
            true => print::json(&self.to_json(splits, executor, &first)),
            false => print::text(&self.to_text(splits, executor, &first)),
        }
    }

    fn first_step(
        &self,
        splits: &Splits,
        network: &Network,
        executor: &mut dyn Executor,
    ) -> Result<FirstStep, Error> {
        let config = self.config;
        let table = ParameterTable::new(network);
        executor.load(ModelState::initial(network, &table, config.train.seed, false))?;
        let normaliser = setup::normaliser(config);
        let preprocessing = setup::preprocessing(config);
        let decode = setup::decode_options(config);
        let source = Arc::new(FileSource::new(splits.train.clone(), decode)?);
        let plan = setup::train_plan(config, 0..1);
        let options = setup::load_options(config, config.train.batch_size);
        let mut loader = Loader::train(source, &preprocessing, &options, &plan)?;
        let Some(batch) = loader.next() else {
            return Err(Error::Unusable("there is no batch to train on".to_owned()));
        };
        let batch = batch?;
        for failure in &batch.failed {
            tracing::warn!("skipped in training: {}", failure.error);
        }
        if batch.labels.len() < config.network.fewest_images() {
            return Err(Error::Unusable(format!(
                "the first batch has too few images that can be read: {} of {}",
                batch.labels.len(),
                config.train.batch_size
            )));
        }
        let input = TrainBatch {
            images: Images::Levels { levels: &batch.images, normaliser: &normaliser },
            labels: &batch.labels,
            label_smoothing: config.train.label_smoothing,
            seed: config.train.seed,
            number: 0,
            bn_momentum: bn_momentum(config.network.bn_momentum, 0),
        };
        let start = Instant::now();
        let loss = executor.gradients(&input, Hooks::default())?.loss;
        let seconds = start.elapsed().as_secs_f64();
        Ok(FirstStep { images: batch.labels.len(), loss, seconds })
    }

    fn to_text(&self, splits: &Splits, executor: &dyn Executor, first: &FirstStep) -> String {
        let (steps_per_epoch, total_steps) = setup::steps(self.config, splits.train.len());
        format!(
            "data {}: {}, {} and {}\n\
             recipe {}\n\
             {}\n\
             plan: {} of {}, {steps_per_epoch} an epoch\n\
             first step: loss {} in {:.2} s (it includes setting up)\n\
             {}\n\
             dry run: nothing was written",
            self.dirs.dir.display(),
            counted(splits.classes.len() as u64, "class"),
            counted(splits.train.len() as u64, "training image"),
            counted(splits.val.len() as u64, "validation image"),
            self.recipe,
            executor.describe(),
            counted(total_steps, "step"),
            run::per_update(self.config),
            loss_text(first.loss, splits.classes.len()),
            first.seconds,
            self.room,
        )
    }

    fn to_json(&self, splits: &Splits, executor: &dyn Executor, first: &FirstStep) -> Value {
        let (steps_per_epoch, total_steps) = setup::steps(self.config, splits.train.len());
        let plan = json!({
            "dry_run": true,
            "recipe": self.recipe,
            "classes": splits.classes,
            "training_images": splits.train.len(),
            "validation_images": splits.val.len(),
            "engine": executor.describe(),
            "batch_size": self.config.train.batch_size,
            "accumulate": self.config.train.accumulate,
            "steps": total_steps,
            "steps_per_epoch": steps_per_epoch,
            "first_step": {
                "images": first.images,
                "loss": Some(first.loss).filter(|loss| loss.is_finite()),
                "seconds": first.seconds,
            },
            "memory_bytes": self.room.needs.memory,
            "memory_free_bytes": self.room.free.memory.as_ref().map(|free| free.bytes),
            "disk_bytes": self.room.needs.disk,
            "disk_free_bytes": self.room.free.disk,
            "checkpoint_bytes": self.room.needs.checkpoint,
        });
        with_path("data_dir", &self.dirs.dir, plan)
    }
}

//! Runs inside this process, stopped between two steps of choice.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bninception::config::{Config, Recipe, Sources, resolve};
use bninception::distributed::Ranks;
use bninception::error::Error;
use bninception::images::class_counts::class_counts;
use bninception::images::data_dirs::DataDirs;
use bninception::run::checkpoint::{self, Checkpoint};
use bninception::run::folder::RunFolder;
use bninception::run::image_lists::ImageLists;
use bninception::run::state::TrainState;
use bninception::run::stop::Stop;
use bninception::setup;
use bninception::training::job::Job;
use bninception::training::train::{Outcome, train};
use bninception_data::{DemoOptions, FileSource, ScanOptions, scan, write_demo};
use bninception_engine::Executor;
use bninception_engine::model::ParameterTable;
use serde_json::Value;

use super::common::listing;

/// Steps of an epoch: 40 pictures in batches of 8.
pub(crate) const STEPS_PER_EPOCH: u64 = 5;

/// Pictures and runs in a folder that goes away.
pub(crate) struct Runs {
    dir: tempfile::TempDir,
}

impl Runs {
    pub(crate) fn new() -> Runs {
        Runs::with_training_pictures(4)
    }

    /// So many training pictures of each of ten classes, and two validation pictures.
    pub(crate) fn with_training_pictures(train_per_class: usize) -> Runs {
        let runs = Runs { dir: tempfile::tempdir().unwrap() };
        let options = DemoOptions { train_per_class, val_per_class: 2, size: 32, seed: 1 };
        write_demo(&runs.dir.path().join("pictures"), &options).unwrap();
        runs
    }

    /// The same pictures beside other runs.
    pub(crate) fn beside(other: &Runs) -> Runs {
        let runs = Runs { dir: tempfile::tempdir().unwrap() };
        for path in listing(&other.path("pictures")) {
            let to = runs.path("pictures").join(path.strip_prefix(other.path("pictures")).unwrap());
            if path.is_file() {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(&path, to).unwrap();
            }
        }
        runs
    }

    pub(crate) fn path(&self, run: &str) -> PathBuf {
        self.dir.path().join(run)
    }

    /// The job of a run, made if it is not there yet, and the state in its newest checkpoint.
    pub(crate) fn job(&self, run: &str, sets: &[&str], stop_at: Option<u64>) -> (Job, TrainState) {
        let config = config(sets);
        let pictures = self.path("pictures");
        let splits = scan(&pictures, &ScanOptions::default()).unwrap();
        let network = setup::network(&config, splits.classes.len()).unwrap();
        let table = ParameterTable::new(&network);
        let path = self.path(run);
        fs::create_dir_all(&path).unwrap();
        let is_new = !path.join("last.safetensors").exists();
        let (folder, lock) = match is_new {
            true => RunFolder::create(Some(&path), self.dir.path(), run, false).unwrap(),
            false => RunFolder::open(&path).unwrap(),
        };
        drop(lock);
        let decode = setup::decode_options(&config);
        let labels = splits.train.iter().map(|sample| sample.label);
        let counts = class_counts(labels, splits.classes.len());
        let class_weights = setup::class_weights(&config, &splits.classes, &counts).unwrap();
        let job = Job {
            images: ImageLists::of(&splits, &pictures, &pictures),
            recipe: Recipe::default(),
            data_dirs: DataDirs { dir: pictures, val_dir: None },
            classes: splits.classes,
            class_weights,
            initial: None,
            train: Arc::new(FileSource::new(splits.train, decode).unwrap()),
            val: Arc::new(FileSource::new(splits.val, decode).unwrap()),
            folder,
            table,
            network,
            preprocessing: setup::preprocessing(&config),
            normaliser: setup::normaliser(&config),
            config,
            stop: Box::new(move |step| (Some(step) == stop_at).then_some(Stop::TimeIsUp)),
        };
        if is_new {
            let with_ema = job.config.train.keeps_average();
            let seed = job.config.train.seed;
            let state = TrainState::new(&job.network, &job.table, seed, with_ema);
            job.folder.save_last(&job.metadata(&state.progress), &job.table, &state).unwrap();
        }
        let state = checkpoint::load(&job.folder.last()).unwrap().state;
        (job, state)
    }

    /// Trains a run from its newest checkpoint until `stop_at` or its end.
    pub(crate) fn train(&self, run: &str, sets: &[&str], stop_at: Option<u64>) -> Outcome {
        let (job, state) = self.job(run, sets, stop_at);
        let mut executor = setup::executor(&job.config, job.network.clone()).unwrap();
        train(&job, executor.as_mut(), &mut Ranks::alone(), state).unwrap()
    }

    /// As [`Runs::train`], with an executor of choice.
    pub(crate) fn train_on(
        &self,
        run: &str,
        sets: &[&str],
        wrap: impl FnOnce(Box<dyn Executor>) -> Box<dyn Executor>,
    ) -> Result<Outcome, Box<Error>> {
        let (job, state) = self.job(run, sets, None);
        let mut executor = wrap(setup::executor(&job.config, job.network.clone()).unwrap());
        train(&job, executor.as_mut(), &mut Ranks::alone(), state).map_err(Box::new)
    }

    /// All that a run leaves behind, without times.
    pub(crate) fn result(&self, run: &str) -> RunResult {
        RunResult::of(&self.path(run))
    }
}

/// What must be equal between a run that was stopped and one that was not.
#[derive(PartialEq)]
pub(crate) struct RunResult {
    /// Tensors of the newest checkpoint, of the best, and of the last epoch, bit by bit.
    pub(crate) tensors: [Vec<u8>; 2],
    /// Step, evaluations, sums.
    pub(crate) progress: String,
    pub(crate) metrics: String,
    pub(crate) summary: String,
}

impl RunResult {
    pub(crate) fn of(run: &Path) -> RunResult {
        let Checkpoint { metadata, .. } = checkpoint::load(&run.join("last.safetensors")).unwrap();
        let mut progress = metadata.progress;
        (progress.seconds, progress.epoch_start_seconds) = (0.0, 0.0);
        // With how many processes, and where, is no result.
        progress.ranks.clear();
        progress.devices.clear();
        RunResult {
            tensors: ["last", "best"].map(|name| tensors(&run.join(format!("{name}.safetensors")))),
            progress: serde_json::to_string(&progress).unwrap(),
            metrics: without_times(&fs::read_to_string(run.join("metrics.jsonl")).unwrap()),
            summary: {
                let text = fs::read_to_string(run.join("summary.csv")).unwrap();
                let row = |row: &str| row.rsplit_once(',').unwrap().0.to_owned() + "\n";
                text.lines().map(row).collect()
            },
        }
    }

    /// Fails with the first thing that differs.
    #[track_caller]
    pub(crate) fn assert_equals(&self, other: &RunResult, what: &str) {
        assert_eq!(self.summary, other.summary, "{what}: summary.csv");
        assert_eq!(self.metrics, other.metrics, "{what}: metrics.jsonl");
        assert_eq!(self.progress, other.progress, "{what}: progress");
        assert!(self.tensors[0] == other.tensors[0], "{what}: tensors of last.safetensors");
        assert!(self.tensors[1] == other.tensors[1], "{what}: tensors of best.safetensors");
    }
}

/// The bytes behind the header.
pub(crate) fn tensors(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let (header, _) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    // In place: no second buffer of a whole checkpoint.
    bytes.drain(..8 + header);
    bytes
}

fn without_times(jsonl: &str) -> String {
    let row = |row: &str| {
        let mut row: Value = serde_json::from_str(row).unwrap();
        let fields = row.as_object_mut().unwrap();
        for key in ["images_per_second", "data_wait", "seconds"] {
            fields.remove(key);
        }
        format!("{row}\n")
    };
    jsonl.lines().map(row).collect()
}

/// The `smoke` preset for twelve steps, two epochs and a bit.
pub(crate) fn config(sets: &[&str]) -> Config {
    let own =
        ["train.steps=12", "schedule.kind=constant", "log.tensorboard=false", "engine.device=cpu"];
    let sets: Vec<String> = own.iter().chain(sets).map(|set| (*set).to_owned()).collect();
    resolve(&Sources { preset: Some("smoke"), sets: &sets, ..Sources::default() }).unwrap().config
}

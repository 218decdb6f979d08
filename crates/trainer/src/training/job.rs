//! What a run works on, and what its checkpoints say of it.

use std::sync::Arc;
use std::time::Duration;

use bninception_data::{Preprocessing, Source};
use bninception_engine::Normaliser;
use bninception_engine::model::{Network, ParameterTable};

use crate::config::{Config, Recipe};
use crate::distributed::{Ranks, agreement};
use crate::error::Error;
use crate::evaluation::majority::Majority;
use crate::images::data_dirs::DataDirs;
use crate::run::checkpoint;
use crate::run::folder::{Name, RunFolder};
use crate::run::image_lists::ImageLists;
use crate::run::metadata::{FORMAT_VERSION, InitialSource, Metadata, PROGRAM};
use crate::run::state::{RunProgress, TrainState};
use crate::run::stop::Stop;
use crate::training::course::{Course, names_of};

/// What a run works on.
pub struct Job {
    /// All settings.
    pub config: Config,
    /// Where they come from.
    pub recipe: Recipe,
    /// Class names, in the order of the labels.
    pub classes: Vec<String>,
    /// Factor on the training loss of each class's images, if they differ.
    pub class_weights: Option<Vec<f64>>,
    /// Training images.
    pub train: Arc<dyn Source>,
    /// Validation images; may be empty.
    pub val: Arc<dyn Source>,
    /// What the run remembers of these images.
    pub images: ImageLists,
    /// Where these images are.
    pub data_dirs: DataDirs,
    /// How images become levels.
    pub preprocessing: Preprocessing,
    /// What the network sees of these levels.
    pub normaliser: Normaliser,
    /// Where the first weights come from, if they were not drawn.
    pub initial: Option<InitialSource>,
    /// Where results go.
    pub folder: RunFolder,
    /// The network.
    pub network: Network,
    /// Its tensors.
    pub table: ParameterTable,
    /// Asked between two steps, with the number of updates done, whether to save and leave.
    pub stop: Box<dyn Fn(u64) -> Option<Stop>>,
}

impl Job {
    /// How the steps of a run with this progress lie in its epochs.
    pub fn course(&self, progress: &RunProgress) -> Course {
        Course::new(&self.config, self.train.len(), progress)
    }

    /// Whether it is the demo, on the pictures that the program draws itself.
    pub fn is_of_embedded_pictures(&self) -> bool {
        self.config.data.dir.is_empty()
    }

    /// What a network that learnt nothing would score on the validation images; `None` without such.
    pub fn majority(&self) -> Option<Majority> {
        let labels = (0..self.val.len()).map(|index| self.val.label(index));
        Majority::of_labels(labels, self.classes.len())
    }

    /// Compares what ranks are about to train with that of rank 0. Each rank lists the images itself: it has to read
    /// them anyway, and one that finds others on its disk is told before the first step.
    ///
    /// # Errors
    /// A rank that has something else.
    pub fn check_same(&self, ranks: &mut Ranks, state: &TrainState) -> Result<(), Error> {
        if !ranks.are_many() {
            return Ok(());
        }
        let digest = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
        let same = vec![
            ("version of the program", env!("CARGO_PKG_VERSION").to_owned()),
            ("settings", self.config.to_toml()?),
            ("classes", self.classes.join("\n")),
            ("images", digest(&format!("{:?}", self.images))),
            ("weights", checkpoint::digest(&self.table, state)),
            ("steps", state.progress.step.to_string()),
        ];
        Ok(agreement::check(ranks, same)?)
    }

    /// What a checkpoint of a run with this progress says about itself.
    pub fn metadata(&self, progress: &RunProgress) -> Metadata {
        let step = progress.step;
        let course = self.course(progress);
        Metadata {
            format_version: FORMAT_VERSION,
            program: PROGRAM.to_owned(),
            classes: self.classes.clone(),
            preprocessing: self.preprocessing.clone(),
            config: self.config.clone(),
            recipe: self.recipe.clone(),
            step,
            epoch: course.epochs_done(step),
            position: course.position(step),
            steps_per_epoch: course.steps_per_epoch,
            progress: progress.clone(),
            images: self.images.clone(),
            data_dirs: self.data_dirs.to_stored(),
            initial: self.initial.clone(),
            averaged: Vec::new(),
            trained_image_size: None,
            calibration: None,
            checksum: String::new(),
        }
    }

    /// The names that a checkpoint of a run with this progress gets beside that of the newest.
    pub(super) fn names(&self, progress: &RunProgress) -> Vec<Name> {
        names_of(progress, &self.course(progress), self.config.checkpoint.every_epochs)
    }

    /// The files of a batch.
    pub(super) fn files_of(&self, indices: &[u32]) -> Vec<String> {
        let path = |&index: &u32| self.train.path(index as usize).display().to_string();
        indices.iter().map(path).collect()
    }

    /// How long a write that fails is tried again.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.config.checkpoint.retry_seconds)
    }
}

//! What a checkpoint says about itself, beside its tensors: one JSON text.
//!
//! One rule holds for what is written and what is read ([`Metadata::check`]), and a text is written
//! only if it reads back as the same text. So no run ends with a checkpoint that nothing can read.

use std::collections::HashSet;

use bninception_data::{Preprocessing, check_class_name};
use bninception_engine::model::Network;
use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigFile, Recipe, Sources, resolve};
use crate::run::image_lists::ImageLists;
use crate::run::state::{Calibration, RunProgress};
use crate::setup;

/// Version of the metadata; raised when an older program could no longer read it. Version 1 had no
/// checksum and no digest of the images, version 2 neither the origin of the recipe nor the absolute
/// place of the images; both are still read.
pub const FORMAT_VERSION: u32 = 3;

/// What writes checkpoints now.
pub const PROGRAM: &str = concat!("bninception ", env!("CARGO_PKG_VERSION"));

/// What a checkpoint says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Program and version that wrote the file.
    pub program: String,
    /// Class names; a label is a position in this list.
    pub classes: Vec<String>,
    /// How an image becomes the network's input.
    pub preprocessing: Preprocessing,
    /// All settings of the run.
    pub config: Config,
    /// Where the settings come from; of an unknown preset in files before version 3.
    #[serde(default)]
    pub recipe: Recipe,
    /// Updates done.
    pub step: u64,
    /// Whole epochs done.
    pub epoch: u64,
    /// Batches done in the present epoch.
    pub position: u64,
    /// Batches of an epoch.
    pub steps_per_epoch: u64,
    /// Counters and sums of the run.
    pub progress: RunProgress,
    /// Which images the run is on; empty in files of version 1.
    #[serde(default)]
    pub images: ImageLists,
    /// Where these images were; unknown in files before version 3.
    #[serde(default)]
    pub data_dirs: StoredDirs,
    /// Where the run's first weights come from, if they were not drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<InitialSource>,
    /// The checkpoints whose mean its weights are, if they are one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub averaged: Vec<AveragedSource>,
    /// The image size of training, where that of the settings is another: of a checkpoint that was calibrated
    /// at another size. The running statistics are of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_image_size: Option<usize>,
    /// How the population statistics were made, if there are any. [`crate::run::checkpoint::save`] sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// BLAKE3 of this JSON text, with nothing in place of the checksum, and of the tensors; empty in
    /// files of version 1. [`crate::run::checkpoint::save`] sets it.
    #[serde(default)]
    pub checksum: String,
}

/// The absolute paths of a run's folders of images: empty where there is no such folder, or
/// its path is not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredDirs {
    /// The folder that `data.dir` means.
    pub dir: String,
    /// The folder that `data.val_dir` means.
    pub val_dir: String,
}

/// Where the first weights of a run come from. Stored in its checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitialSource {
    /// The file, as it was named.
    pub path: String,
    /// BLAKE3 of the file, as `b3sum` prints it.
    pub blake3: String,
    /// Updates behind its weights.
    pub step: u64,
    /// Classes of the run whose rows of the classifier it gave.
    pub kept_classes: Vec<String>,
}

/// One of the checkpoints whose weights were averaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AveragedSource {
    /// The file, as it was named.
    pub path: String,
    /// BLAKE3 of the file, as `b3sum` prints it.
    pub blake3: String,
    /// Updates behind its weights.
    pub step: u64,
}

impl Metadata {
    /// That of weights for `classes` that no run of these settings has led to yet, on no images.
    pub fn without_run(classes: Vec<String>, config: Config, recipe: Recipe) -> Metadata {
        Metadata {
            format_version: FORMAT_VERSION,
            program: PROGRAM.to_owned(),
            classes,
            preprocessing: setup::preprocessing(&config),
            config,
            recipe,
            step: 0,
            epoch: 0,
            position: 0,
            steps_per_epoch: 0,
            progress: RunProgress::default(),
            images: ImageLists::default(),
            data_dirs: StoredDirs::default(),
            initial: None,
            averaged: Vec::new(),
            trained_image_size: None,
            calibration: None,
            checksum: String::new(),
        }
    }

    /// Reads the text of the metadata. Checks the version before the rest, so that a newer file is
    /// called newer and not broken.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &str) -> Result<Metadata, String> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let broken = |error| format!("its metadata cannot be understood ({error})");
        let Version { format_version } = serde_json::from_str(json).map_err(broken)?;
        if !(1..=FORMAT_VERSION).contains(&format_version) {
            return Err(format!(
                "it has format version {format_version}, this program reads 1 to \
                 {FORMAT_VERSION}; use the program that wrote it"
            ));
        }
        let metadata: Metadata = serde_json::from_str(json).map_err(broken)?;
        if format_version > 1 && metadata.checksum.is_empty() {
            return Err("its metadata has no checksum".to_owned());
        }
        check_classes(&metadata.classes)?;
        Ok(metadata)
    }

    /// The network of a file with this metadata. Runs the settings through the same checks as those
    /// of a new run.
    ///
    /// # Errors
    /// The settings are not valid.
    pub fn network(&self) -> Result<Network, String> {
        let invalid =
            |error: &dyn std::fmt::Display| format!("its settings are not valid: {error}");
        let text = self.config.to_toml().map_err(|error| invalid(&error))?;
        let files = [ConfigFile { name: "its settings".to_owned(), text }];
        resolve(&Sources { files: &files, ..Sources::default() })
            .map_err(|error| invalid(&error))?;
        self.preprocessing.validate().map_err(|error| invalid(&error))?;
        setup::network(&self.config, self.classes.len()).map_err(|error| error.to_string())
    }

    /// What its weights are where no run led to them, in words; `None` of a run's.
    pub fn origin_without_run(&self) -> Option<String> {
        let has_no_run = self.initial.is_some() && self.steps_per_epoch == 0;
        match self.averaged.len() {
            0 if !has_no_run => None,
            0 if self.images == ImageLists::default() => Some("was imported".to_owned()),
            0 => Some("has a classifier that `probe` fitted".to_owned()),
            n => Some(format!("is the mean of {n} checkpoints")),
        }
    }

    /// Checks that the text `json`, which was made of metadata, can be read and means the same. Gives
    /// its network.
    ///
    /// # Errors
    /// Why not.
    pub fn check(json: &str) -> Result<Network, String> {
        let metadata = Metadata::from_json(json)?;
        let network = metadata.network()?;
        let again = serde_json::to_string(&metadata).map_err(|error| error.to_string())?;
        if again == json {
            return Ok(network);
        }
        let equal = again.bytes().zip(json.bytes()).take_while(|(a, b)| a == b).count();
        let near: String =
            json.get(equal.saturating_sub(40)..).unwrap_or(json).chars().take(80).collect();
        Err(format!("its metadata would read back otherwise, near `{near}`"))
    }
}

/// Class names are names of folders and lines of files: whatever else comes from outside.
fn check_classes(classes: &[String]) -> Result<(), String> {
    if classes.is_empty() {
        return Err("its metadata names no class".to_owned());
    }
    let mut seen = HashSet::with_capacity(classes.len());
    for name in classes {
        if let Err(problem) = check_class_name(name) {
            let name: String = name.chars().take(40).collect();
            return Err(format!("its class {name:?} is not the name of a folder: it {problem}"));
        }
        if !seen.insert(name) {
            return Err(format!("its class `{name}` stands there twice"));
        }
    }
    Ok(())
}

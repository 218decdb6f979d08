//! Settings on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use toml::Value;

use crate::config::{
    BASE, ConfigError, ConfigFile, Flag, MAX_COUNT, RecipeChoice, Resolved, Sources, resolve,
};
use crate::error::Error;

/// Settings of a run. Later ones win: preset, files, --set, plain flags.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// A preset; `bninception presets list` names them. Without a preset and without a config file, a
    /// training run with --data-dir takes `small` or `modern` by the number of images, and an image size
    /// by theirs; without --data-dir it takes `demo`.
    #[arg(short, long, value_name = "NAME", value_parser = text())]
    pub preset: Option<String>,
    /// A config file (TOML); may be repeated.
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// One setting, such as train.label_smoothing=0.1; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = text())]
    pub set: Vec<String>,
    /// Plain flags.
    #[command(flatten)]
    pub flags: FlagArgs,
}

/// Flags for the settings in daily use; each stands for one key of the config.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings with a flag of their own")]
pub struct FlagArgs {
    /// Folder of images: DIR/train/CLASS/* and DIR/val/CLASS/*, or DIR/CLASS/*.
    #[arg(long, visible_alias = "data-path", value_name = "DIR", value_parser = text())]
    pub data_dir: Option<String>,
    /// Folder of validation images, CLASS/*, if it lies elsewhere.
    #[arg(long, value_name = "DIR", value_parser = text())]
    pub val_dir: Option<String>,
    /// Where to compute; `cpu` is all there is so far.
    #[arg(long, value_enum)]
    pub device: Option<Device>,
    /// Engine, threads, batch size.
    #[command(flatten)]
    pub execution: ExecutionArgs,
    /// Rows and columns of the network's input, 32 to 512.
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<i64>,
    /// Batches whose gradients make one update together.
    #[arg(long, value_name = "N")]
    pub accumulate: Option<i64>,
    /// Learning rate at the start.
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Passes over the training images.
    #[arg(long, value_name = "N")]
    pub epochs: Option<i64>,
    /// Updates in all, in place of --epochs.
    #[arg(long, value_name = "N")]
    pub steps: Option<i64>,
    /// Every random choice comes from this number.
    #[arg(long, value_name = "N")]
    pub seed: Option<i64>,
}

/// Flags for how a network is run, whether it is trained or used.
#[derive(Clone, Debug, Default, Args)]
pub struct ExecutionArgs {
    /// What runs the network: `fast` or `reference`.
    #[arg(long, value_name = "ENGINE", value_parser = text())]
    pub engine: Option<String>,
    /// Number type of activations and products: `f32` or `bf16`.
    #[arg(long, value_name = "DTYPE", value_parser = text())]
    pub dtype: Option<String>,
    /// Threads of the engine; 0 for one a core.
    #[arg(long, value_name = "N")]
    pub threads: Option<i64>,
    /// Images in a batch.
    #[arg(short, long, value_name = "N")]
    pub batch_size: Option<i64>,
    /// Threads that read and prepare images; 0 for one a core.
    #[arg(short = 'j', long, value_name = "N")]
    pub workers: Option<i64>,
}

/// Takes an argument that is a text, and names it where its bytes are none.
pub(super) fn text() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().try_map(|argument: OsString| {
        argument.into_string().map_err(|_| {
            "it is not UTF-8 text; a folder with such a name can be given by a symbolic link with another"
        })
    })
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The processor.
    Cpu,
}

impl FlagArgs {
    /// The flags given, as settings.
    fn settings(&self) -> Vec<Flag> {
        let text = |value: &Option<String>| value.clone().map(Value::from);
        let int = |value: Option<i64>| value.map(Value::from);
        let table: [(&'static str, &'static str, Option<Value>); 13] = [
            ("--data-dir", "data.dir", text(&self.data_dir)),
            ("--val-dir", "data.val_dir", text(&self.val_dir)),
            ("--engine", "engine.kind", text(&self.execution.engine)),
            ("--dtype", "train.dtype", text(&self.execution.dtype)),
            ("--threads", "train.threads", int(self.execution.threads)),
            ("--batch-size", "train.batch_size", int(self.execution.batch_size)),
            ("--accumulate", "train.accumulate", int(self.accumulate)),
            ("--workers", "data.workers", int(self.execution.workers)),
            ("--image-size", "data.image_size", int(self.image_size)),
            ("--lr", "optimizer.lr", self.lr.map(Value::from)),
            ("--epochs", "train.epochs", int(self.epochs)),
            ("--steps", "train.steps", int(self.steps)),
            ("--seed", "train.seed", int(self.seed)),
        ];
        let given = table.into_iter().filter_map(|(name, key, value)| Some((name, key, value?)));
        given.map(|(name, key, value)| Flag { name, key, value }).collect()
    }
}

impl ConfigArgs {
    /// The settings, over those of `stored` (a run's config as TOML) or of `default_preset`.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a value out of its range.
    pub fn resolve(
        &self,
        stored: Option<ConfigFile>,
        default_preset: Option<&str>,
    ) -> Result<Resolved, ConfigError> {
        self.resolve_over(stored, default_preset, &[])
    }

    /// The settings of a training run: without a preset or a file those of [`DEMO_PRESET`], or, where a
    /// folder of images is named, those of `base`, with which images are found. `choice`, which is made
    /// when they are, gives the preset in place of `base`, and settings that suit the images.
    ///
    /// # Errors
    /// As [`ConfigArgs::resolve`].
    pub fn resolve_to_train(&self, choice: Option<&RecipeChoice>) -> Result<Resolved, ConfigError> {
        let default = match choice {
            Some(choice) => choice.preset,
            None if self.names("data.dir") => BASE,
            None => DEMO_PRESET,
        };
        let of_images = choice.map(RecipeChoice::settings).unwrap_or_default();
        self.resolve_over(None, Some(default), &of_images)
    }

    fn resolve_over(
        &self,
        stored: Option<ConfigFile>,
        default_preset: Option<&str>,
        of_images: &[(&'static str, Value)],
    ) -> Result<Resolved, ConfigError> {
        let mut files: Vec<ConfigFile> = stored.into_iter().collect();
        for path in &self.config {
            files.push(ConfigFile::read(path)?);
        }
        let has_file = !files.is_empty();
        let default_preset = default_preset.filter(|_| !has_file);
        let flags = self.flags.settings();
        resolve(&Sources {
            preset: self.preset.as_deref().or(default_preset),
            of_images,
            files: &files,
            sets: &self.set,
            flags: &flags,
        })
    }

    /// The same with `--batch-size` for the batches of evaluation, for which one image is enough; those
    /// of training may need two.
    ///
    /// # Errors
    /// A size out of its range.
    pub fn for_evaluation(mut self) -> Result<ConfigArgs, Error> {
        if let Some(size) = self.flags.execution.batch_size.take() {
            if !(1..=MAX_COUNT as i64).contains(&size) {
                let message = format!("--batch-size {size}: expected 1 to {MAX_COUNT} images");
                return Err(Error::Usage(message));
            }
            self.set.push(format!("train.val_batch_size={size}"));
        }
        Ok(self)
    }

    /// Whether the recipe is the program's own choice.
    pub fn leaves_recipe_open(&self) -> bool {
        self.preset.is_none() && self.config.is_empty()
    }

    /// Whether a flag or `--set` gives the setting `key`.
    pub fn names(&self, key: &str) -> bool {
        let names = |set: &String| set.split('=').next().is_some_and(|found| found.trim() == key);
        self.flags.settings().iter().any(|flag| flag.key == key) || self.set.iter().any(names)
    }
}

/// The preset of a training run for which nothing is named.
pub const DEMO_PRESET: &str = "demo";

/// What runs a trained network, and how.
#[derive(Debug, Args)]
pub struct UseArgs {
    /// Engine, threads, batch size.
    #[command(flatten)]
    pub execution: ExecutionArgs,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

impl UseArgs {
    /// The settings that these flags stand for, for [`ConfigArgs::resolve`].
    pub fn config_args(&self) -> ConfigArgs {
        let flags = FlagArgs { execution: self.execution.clone(), ..FlagArgs::default() };
        ConfigArgs { flags, ..ConfigArgs::default() }
    }
}

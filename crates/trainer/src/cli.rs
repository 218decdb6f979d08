//! The command line, as clap parses it.

mod bench;
mod data;
#[cfg(feature = "mnist")]
mod mnist;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bninception_data::Crops;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use toml::Value;

pub use bench::{BenchCommand, BenchDataArgs, BenchMode, BenchModelArgs, BenchOpsArgs};
pub use data::{
    DataCheckArgs, DataCommand, DataDemoArgs, DataIndexArgs, DataPackArgs, DataSplitArgs,
};
#[cfg(feature = "mnist")]
pub use mnist::{MnistArgs, MnistModel};

use crate::config::{ConfigError, ConfigFile, Flag, MAX_COUNT, Resolved, Sources, resolve};
use crate::error::Error;
use crate::statistics::Statistics;

/// Trains, resumes, evaluates and uses BN-Inception (Ioffe & Szegedy 2015) on a folder of images.
#[derive(Debug, Parser)]
#[command(name = "bninception", version, propagate_version = true)]
pub struct Cli {
    /// Only warnings and errors on stderr.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a network; without arguments, on embedded pictures.
    Train(TrainArgs),
    /// Go on with a run that was stopped.
    Resume(ResumeArgs),
    /// Evaluate a checkpoint, or several as one, on a folder of images.
    #[command(visible_aliases = ["val", "validate"])]
    Eval(EvalArgs),
    /// Give a checkpoint batch norm statistics of the whole training set in place of moving averages
    /// (the paper's algorithm 2).
    Calibrate(CalibrateArgs),
    /// Name the class of images.
    Predict(PredictArgs),
    /// Set runs side by side: steps to the best accuracy of a baseline, best accuracy, curves.
    Compare(CompareArgs),
    /// Write a page on a run into its folder: result, curves, settings, commands.
    Report(ReportArgs),
    /// Show the layers, parameters and multiply-accumulates of a network.
    Info(InfoArgs),
    /// List the presets, or show one.
    #[command(subcommand)]
    Presets(PresetsCommand),
    /// Show every setting with its value and where it comes from.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Work on folders of images.
    #[command(subcommand)]
    Data(DataCommand),
    /// Measure speed.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// The paper's first experiment (section 4.1): digits, with batch norm and without.
    #[cfg(feature = "mnist")]
    Mnist(MnistArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Settings of a run. Later ones win: preset, files, --set, plain flags.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// A preset; `bninception presets list` names them. A training run without a preset and without
    /// a config file has `bn-baseline` with --data-dir, and `demo` without.
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
fn text() -> impl TypedValueParser<Value = String> {
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
        let table: [(&'static str, &'static str, Option<Value>); 12] = [
            ("--data-dir", "data.dir", text(&self.data_dir)),
            ("--val-dir", "data.val_dir", text(&self.val_dir)),
            ("--engine", "engine.kind", text(&self.execution.engine)),
            ("--dtype", "train.dtype", text(&self.execution.dtype)),
            ("--threads", "train.threads", int(self.execution.threads)),
            ("--batch-size", "train.batch_size", int(self.execution.batch_size)),
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
        let mut files: Vec<ConfigFile> = stored.into_iter().collect();
        for path in &self.config {
            files.push(ConfigFile::read(path)?);
        }
        let has_file = !files.is_empty();
        let default_preset = default_preset.filter(|_| !has_file);
        let flags = self.flags.settings();
        resolve(&Sources {
            preset: self.preset.as_deref().or(default_preset),
            files: &files,
            sets: &self.set,
            flags: &flags,
        })
    }

    /// The settings of a training run: without a preset or a file those of [`DEMO_PRESET`], or of
    /// [`DATA_PRESET`] where a folder of images is named.
    ///
    /// # Errors
    /// As [`ConfigArgs::resolve`].
    pub fn resolve_to_train(&self) -> Result<Resolved, ConfigError> {
        let default = if self.names("data.dir") { DATA_PRESET } else { DEMO_PRESET };
        self.resolve(None, Some(default))
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

/// The preset of a training run for which images are named and nothing else.
pub const DATA_PRESET: &str = "bn-baseline";

/// `train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Folder of the run; by default checkpoints/NAME, with a number where that is taken. NAME is that
    /// of the config file, or else of the preset.
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Replace a run that is in the folder already.
    #[arg(long)]
    pub overwrite: bool,
    /// Build everything, run one step, print the plan, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Save and leave after this time, such as 90m or 7h30m; `resume` goes on.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub max_time: Option<Duration>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The folder of the run, or a checkpoint in it.
    pub run: PathBuf,
    /// Settings that differ from those of the run. Those that change the result are refused.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Accept another value of this setting although it changes the result, or with `data.images`
    /// other images; may be repeated.
    #[arg(long, value_name = "KEY", value_parser = text())]
    pub allow_change: Vec<String>,
    /// Save and leave after this time, such as 90m or 7h30m.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub max_time: Option<Duration>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

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

/// `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The checkpoint; several are evaluated as one, by the mean of their class probabilities.
    #[arg(required = true, value_name = "CHECKPOINT")]
    pub checkpoints: Vec<PathBuf>,
    /// Folder of images: DIR/val/CLASS/* or DIR/CLASS/*; by default the run's own.
    #[arg(long, visible_alias = "data-path", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Crops of each image whose class probabilities are averaged: 1 (centre), 10 (corners and centre,
    /// plain and mirrored) or 144 (four scales; GoogLeNet, section 7).
    #[arg(long, default_value = "1", value_name = "1|10|144", value_parser = parse_crops)]
    pub crops: Crops,
    /// Statistics of batch norm; by default those of `calibrate` if the checkpoint has them.
    #[arg(long, value_enum)]
    pub statistics: Option<Statistics>,
    /// Write tables into this folder: by class, by pair of classes, by image, mistakes, calibration.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Lines of each list behind the result: worst classes, confused pairs, worst mistakes.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub top: usize,
    /// Engine, threads, batch size, form of the result.
    #[command(flatten)]
    pub options: UseArgs,
}

fn parse_crops(text: &str) -> Result<Crops, String> {
    let crops = text.parse().ok().and_then(Crops::from_count);
    crops.ok_or_else(|| "expected 1, 10 or 144".to_owned())
}

/// `calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// Folder of training images, as for `train`; by default the run's own.
    #[arg(long, visible_alias = "data-path", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Training images to use at most, in whole batches; 0 for all. The paper says no more than
    /// "multiple training mini-batches".
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub images: usize,
    /// The checkpoint to write; by default CHECKPOINT with `-calibrated` behind its name.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace a file that is there already, the checkpoint itself if --out names it.
    #[arg(long)]
    pub overwrite: bool,
    /// Decides which images, their order and their augmentation; by default the run's seed.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Engine, threads, batch size, form of the result.
    #[command(flatten)]
    pub options: UseArgs,
}

/// `predict`.
#[derive(Debug, Args)]
#[command(override_usage = "bninception predict [OPTIONS] <CHECKPOINT> <IMAGE>...")]
pub struct PredictArgs {
    /// The checkpoint, or the folder of a run, whose best checkpoint is taken.
    pub checkpoint: PathBuf,
    /// Images, or folders of images, whose own folders are entered; packed ones too.
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// How many classes to name for each image.
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub topk: usize,
    /// Statistics of batch norm; by default those of `calibrate` if the checkpoint has them.
    #[arg(long, value_enum)]
    pub statistics: Option<Statistics>,
    /// Engine, threads, batch size, form of the result.
    #[command(flatten)]
    pub options: UseArgs,
}

/// `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Folders of runs, or folders that hold such folders. Runs that differ in their seed alone are
    /// one model.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// What the others are measured by, a path or a name; by default the paper's Inception, which
    /// has no batch norm.
    #[arg(long, value_name = "RUN", value_parser = text())]
    pub baseline: Option<String>,
    /// Folder for compare.svg, compare.png, compare.csv and compare.md.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folders of runs, or folders that hold such folders. Each gets report.md, curves.svg and
    /// curves.png.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// A checkpoint; without one, the network of the settings.
    pub checkpoint: Option<PathBuf>,
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `presets`.
#[derive(Debug, Subcommand)]
pub enum PresetsCommand {
    /// The names of all presets, with a line on each.
    List,
    /// The text of a preset, with the reasons for its values.
    Show {
        /// The preset.
        #[arg(value_parser = text())]
        name: String,
    },
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Every setting with its value and where it comes from.
    Show(ConfigArgs),
}

//! The command line, as clap parses it.

mod average;
mod bench;
mod check_device;
mod dashboard;
mod data;
mod doctor;
mod examples;
mod explain;
mod export;
mod import;
mod launch;
mod line;
#[cfg(feature = "mnist")]
mod mnist;
mod probe;
mod report;
mod settings;

use std::path::PathBuf;
use std::time::Duration;

use bninception_data::Crops;
use clap::{Args, ColorChoice, Parser, Subcommand, ValueEnum};

pub use average::AverageArgs;
pub use bench::{
    BenchCollectiveArgs, BenchCommand, BenchDataArgs, BenchMode, BenchModelArgs, BenchOpsArgs,
};
pub use check_device::CheckDeviceArgs;
pub use dashboard::DashboardArgs;
pub use data::{
    DataCheckArgs, DataCommand, DataDemoArgs, DataIndexArgs, DataPackArgs, DataSplitArgs,
};
pub use doctor::DoctorArgs;
pub use examples::{Example, of as examples_of};
pub use explain::ExplainArgs;
pub use export::{ExportArgs, ExportTarget};
pub use import::ImportArgs;
pub use launch::LaunchArgs;
pub use line::{command, parse, value_in};
#[cfg(feature = "mnist")]
pub use mnist::{MnistArgs, MnistModel};
pub use probe::ProbeArgs;
pub use report::{ReportArgs, ReportFormat};
pub use settings::{
    BatchSize, ConfigArgs, DEMO_PRESET, ExecutionArgs, FINETUNE_PRESET, FlagArgs, UseArgs,
};

use self::settings::{preset, text};
use crate::evaluation::statistics::Statistics;
use crate::terminal::logging::LogFormat;

/// Trains, resumes, evaluates and uses BN-Inception (Ioffe & Szegedy 2015) on a folder of images.
#[derive(Debug, Parser)]
#[command(name = "bninception", version, propagate_version = true)]
pub struct Cli {
    /// Only warnings and errors on stderr.
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub quiet: bool,
    /// When to use colour: `auto` is on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, help_heading = GLOBAL, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
    /// How messages on stderr are written: `text`, or `json`, one object a line, without progress bars.
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "text|json"
    )]
    pub log_format: LogFormat,
    /// Whether this process is one of several: `auto` if a launcher of MPI started it, `mpi` in any case, `none`
    /// never.
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "auto|mpi|none"
    )]
    pub distributed: Distributed,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The title over what every command takes.
const GLOBAL: &str = "Global options";

/// Whether a process is one of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Distributed {
    /// If a launcher of MPI started it.
    #[default]
    Auto,
    /// In any case.
    Mpi,
    /// Never.
    None,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a network; without arguments, on embedded pictures.
    Train(TrainArgs),
    /// Look for a learning rate: updates at rising rates on a state that is thrown away, over one pass of
    /// the training images at most.
    LrFind(LrFindArgs),
    /// Go on with a run that was stopped.
    Resume(ResumeArgs),
    /// Start this program in several processes that work together, by an MPI's mpiexec.
    Launch(LaunchArgs),
    /// Evaluate a checkpoint, or several as one, on a folder of images.
    #[command(visible_aliases = ["val", "validate"])]
    Eval(EvalArgs),
    /// Give a checkpoint batch norm statistics of the whole training set in place of moving averages
    /// (the paper's algorithm 2).
    Calibrate(CalibrateArgs),
    /// Make one checkpoint of several: the mean of their weights (a model soup, or stochastic weight
    /// averaging).
    Average(AverageArgs),
    /// Name the class of images.
    Predict(PredictArgs),
    /// Show where in images the network sees a class: class activation maps.
    Explain(ExplainArgs),
    /// Fit a linear classifier to the features of a network that stays as it is, and evaluate it.
    Probe(ProbeArgs),
    /// Make a checkpoint of weights that another program wrote.
    Import(ImportArgs),
    /// Hand a network on: as an ONNX model, as weights for PyTorch, or as a folder for a model hub.
    Export(ExportArgs),
    /// Set runs side by side: settings that differ, accuracies, time; beside a baseline the paper's
    /// figure 3.
    Compare(CompareArgs),
    /// List the runs in a folder: state, best accuracy, date, size. `runs prune` removes earlier
    /// checkpoints.
    Runs(RunsArgs),
    /// Show the runs in a folder on a live page: progress, curves, logs, the time to the end.
    Dashboard(DashboardArgs),
    /// Write a page on a run, or on several side by side: result, curves, mistakes, classes, settings, commands.
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
    /// Tell what this machine offers: processor, memory, MPI; and what to do about what is amiss.
    Doctor(DoctorArgs),
    /// Compare what a device computes with what the processor does.
    #[command(hide = true)]
    CheckDevice(CheckDeviceArgs),
    /// The paper's first experiment (section 4.1): digits, with batch norm and without.
    #[cfg(feature = "mnist")]
    Mnist(MnistArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages for `man`, one for each command.
    Man {
        /// The folder to write them into; it is made if it is missing. Pages that are there already are replaced.
        dir: PathBuf,
    },
}

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
    /// Build everything, run a few steps, print the plan with its time, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Save and leave after this time, such as 90m or 7h30m; `resume` goes on.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub max_time: Option<Duration>,
    /// Show the run, and the others in its folder, on a live page while it goes on.
    #[arg(long)]
    pub dashboard: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `lr-find`.
#[derive(Debug, Args)]
pub struct LrFindArgs {
    /// Settings of the run, as for `train`.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The first rate.
    #[arg(long, default_value_t = 1e-5, value_name = "RATE")]
    pub from: f64,
    /// The last rate.
    #[arg(long, default_value_t = 10.0, value_name = "RATE")]
    pub to: f64,
    /// Updates at the most; an epoch's are never exceeded.
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub most_steps: u64,
    /// Folder for lr-find.svg, lr-find.png and lr-find.csv, which replace those of another test there; by
    /// default `lr-find` inside checkpoint.dir.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print one JSON object.
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
    /// Show the run, and the others in its folder, on a live page while it goes on.
    #[arg(long)]
    pub dashboard: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The checkpoint, or the folder of a run, whose best checkpoint is taken; several are evaluated as one,
    /// by the mean of their class probabilities.
    #[arg(required = true, value_name = "CHECKPOINT")]
    pub checkpoints: Vec<PathBuf>,
    /// Folder of images: DIR/val/CLASS/* or DIR/CLASS/*; by default the run's own.
    #[arg(long, visible_alias = "data-path", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Crops of each image whose class probabilities are averaged: 1 (centre), 10 (corners and centre,
    /// plain and mirrored) or 144 (four scales; GoogLeNet, section 7).
    #[arg(long, default_value = "1", value_name = "1|10|144", value_parser = parse_crops)]
    pub crops: Crops,
    /// Average the class probabilities of each image and its mirror image; with --crops 1 only, as the
    /// others have mirror images.
    #[arg(long)]
    pub flip: bool,
    /// Rows and columns of the network's input, 32 to 512, in place of those that it was trained at. `calibrate
    /// --image-size` makes the statistics that fit.
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Statistics of batch norm; by default population statistics if the checkpoint has some.
    #[arg(long, value_enum)]
    pub statistics: Option<Statistics>,
    /// Evaluate this checkpoint too, on the same images and with the same options, and say whether the
    /// accuracies differ: counts in pairs, McNemar's exact test, and the images that changed.
    #[arg(long, value_name = "CHECKPOINT")]
    pub baseline: Option<PathBuf>,
    /// Write tables into this folder: by class, by pair of classes, by image, mistakes, calibration,
    /// with --baseline images that changed; and the worst mistakes and the confusion of classes as pictures.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Lines of each list behind the result: worst classes of more than 20, confused pairs, worst
    /// mistakes, changed images; 0 leaves out the tables of classes as well.
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
    /// The checkpoint, or the folder of a run, whose best checkpoint is taken.
    pub checkpoint: PathBuf,
    /// Folder of training images, as for `train`; by default the run's own.
    #[arg(long, visible_alias = "data-path", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Training images to use at most, in whole batches; 0 for all. The paper says no more than
    /// "multiple training mini-batches".
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub images: usize,
    /// Rows and columns of the network's input, 32 to 512: statistics at another size than that of training,
    /// which the checkpoint then has as its own.
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// The checkpoint to write; by default CHECKPOINT with `-calibrated` behind its name, or with --image-size
    /// that and `px`.
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
    /// Images, or folders of images, whose own folders are entered; packed ones too. Patterns such as
    /// 'photos/**/*.jpg'. `-` is standard input: paths, one a line, or the bytes of one image.
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// How many classes to name for each image; with 1, an image has one line.
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub topk: usize,
    /// An image whose likeliest class is less probable than this gets the answer `unsure`.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub threshold: Option<f64>,
    /// Print a JSON object a line, as answers come.
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    pub jsonl: bool,
    /// Print CSV with a header, as answers come: path, class, probability, error; a row for each image
    /// and class.
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Also write what the last layer reads, 1,024 numbers an image, as a file of NumPy whose name ends with
    /// `.npy`: a row for each image that can be read, in their order, with their paths beside it in
    /// `.paths.jsonl`.
    #[arg(long, value_name = "FILE")]
    pub features: Option<PathBuf>,
    /// Replace files of --features that are there already.
    #[arg(long, requires = "features")]
    pub overwrite: bool,
    /// Statistics of batch norm; by default population statistics if the checkpoint has some.
    #[arg(long, value_enum)]
    pub statistics: Option<Statistics>,
    /// Engine, threads, batch size, form of the result.
    #[command(flatten)]
    pub options: UseArgs,
}

/// `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Folders of runs, or folders that hold such folders, up to three levels down.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Also give the paper's figure 3: the steps to the best accuracy of this run, a path or a name. By
    /// default so where a run of the preset `inception` is there. Runs that differ in their seed alone are
    /// one model there.
    #[arg(long, value_name = "RUN", value_parser = text())]
    pub baseline: Option<String>,
    /// Folder for compare.svg, compare.png, compare.csv and compare.md, and the same of figure3.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `runs`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunsArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
    /// A folder that holds the folders of runs, up to three levels down; by default `checkpoints`.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What `runs` does beside listing.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// Show the checkpoints of epochs that no run needs, and with --yes remove them. A run keeps its last
    /// and its best checkpoint; one that is training now, has diverged or is damaged keeps all.
    Prune(RunsPruneArgs),
}

/// `runs prune`.
#[derive(Debug, Args)]
pub struct RunsPruneArgs {
    /// A folder that holds the folders of runs; by default `checkpoints`.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Remove the files; without it they are only shown.
    #[arg(long)]
    pub yes: bool,
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
        #[arg(value_parser = preset(), hide_possible_values = true)]
        name: String,
    },
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Every setting with its value and where it comes from.
    Show(ConfigArgs),
}

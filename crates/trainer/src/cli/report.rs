//! `report` on the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::UseArgs;

/// `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folders of runs, or folders that hold such folders, up to three levels down.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// What to write: one page for a browser that needs no network, or report.md with curves.svg and
    /// curves.png in the folder of each run.
    #[arg(long, value_enum, default_value_t, value_name = "html|md")]
    pub format: ReportFormat,
    /// File of the page; by default report.html in the folder of the run, or of several runs in the nearest
    /// folder that holds all of them.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Do not evaluate the best checkpoint: no mistakes, confusion, classes and calibration.
    #[arg(long)]
    pub no_eval: bool,
    /// Evaluate so many images at most, spread evenly over the classes; by default all that the run set aside.
    #[arg(long, value_name = "N", conflicts_with = "no_eval")]
    pub images: Option<usize>,
    /// Folder of images to evaluate on; by default the run's own.
    #[arg(long, visible_alias = "data-path", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Engine, threads, batch size, form of the result.
    #[command(flatten)]
    pub options: UseArgs,
}

/// What `report` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// One page with all in it.
    #[default]
    Html,
    /// Markdown, with figures beside it.
    Md,
}

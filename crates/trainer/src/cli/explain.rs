//! `explain` on the command line.

use std::path::PathBuf;

use clap::Args;

use super::UseArgs;
use super::settings::text;
use crate::evaluation::statistics::Statistics;

/// `explain`.
#[derive(Debug, Args)]
#[command(override_usage = "bninception explain [OPTIONS] <CHECKPOINT> <IMAGE>...")]
pub struct ExplainArgs {
    /// The checkpoint, or the folder of a run, whose best checkpoint is taken.
    pub checkpoint: PathBuf,
    /// Images, folders, patterns and `-`, as for `predict`.
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Also show where this class is seen; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = text())]
    pub class: Vec<String>,
    /// Folder for explained.png, a sheet of all images, and a picture for each image and class.
    #[arg(long, value_name = "DIR", default_value = "explained")]
    pub out: PathBuf,
    /// Statistics of batch norm; by default population statistics if the checkpoint has some.
    #[arg(long, value_enum)]
    pub statistics: Option<Statistics>,
    /// Engine, threads, batch size, form of the result.
    #[command(flatten)]
    pub options: UseArgs,
}

//! `probe` on the command line.

use std::path::PathBuf;

use clap::Args;

use super::settings::{UseArgs, text};

/// `probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// The checkpoint, or the folder of a run, whose best checkpoint is taken.
    pub checkpoint: PathBuf,
    /// Folder of images, as for `train`: DIR/train/CLASS/* and DIR/val/CLASS/*, or DIR/CLASS/*, of which a part
    /// is held out to validate.
    #[arg(long, visible_alias = "data-path", required = true, value_name = "DIR", value_parser = text())]
    pub data_dir: String,
    /// Folder of validation images, CLASS/*, if it lies elsewhere.
    #[arg(long, value_name = "DIR", value_parser = text())]
    pub val_dir: Option<String>,
    /// The checkpoint to write; by default CHECKPOINT with `-probe` behind its name.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace a file that is there already.
    #[arg(long)]
    pub overwrite: bool,
    /// Rows and columns of the network's input, 32 to 512; by default those of the checkpoint.
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<i64>,
    /// Decides which images are held out to validate, as in `train`.
    #[arg(long, value_name = "N")]
    pub seed: Option<i64>,
    /// One setting of the data or the engine, such as data.val_fraction=0.2; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = text())]
    pub set: Vec<String>,
    /// Engine, threads, batch size, form of the result.
    #[command(flatten)]
    pub options: UseArgs,
}

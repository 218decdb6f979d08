//! `average` on the command line.

use std::path::PathBuf;

use clap::Args;

/// `average`.
#[derive(Debug, Args)]
#[command(override_usage = "bninception average [OPTIONS] <CHECKPOINT> <CHECKPOINT>... <OUT>")]
pub struct AverageArgs {
    /// Two or more checkpoints of one network with the same classes and preprocessing, or folders of runs,
    /// whose best checkpoints are taken.
    #[arg(value_name = "CHECKPOINT", num_args = 1.., required = true)]
    pub checkpoints: Vec<PathBuf>,
    /// The checkpoint to write; the last argument.
    #[arg(value_name = "OUT", required = true)]
    pub out: PathBuf,
    /// Replace a file that is there already.
    #[arg(long)]
    pub overwrite: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

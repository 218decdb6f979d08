//! `check-device`.

use std::path::PathBuf;

use clap::Args;

use super::settings::ConfigArgs;

/// `check-device`.
#[derive(Debug, Args)]
pub struct CheckDeviceArgs {
    /// Settings; --device, --image-size, --batch-size, --threads.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// What to compare: `kernels` and `convolutions`, one by one, or `networks`, whole.
    #[arg(value_name = "WHAT", value_parser = ["kernels", "convolutions", "networks"])]
    pub what: String,
    /// Folder for what the networks were given and gave, a file for each number format, for other programs to compare.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

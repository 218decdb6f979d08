//! `doctor`.

use clap::Args;

/// `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Open this MPI library and say what it is. A library that ends its process then ends no more than this.
    #[arg(long, value_name = "LIBRARY", hide = true)]
    pub open: Option<String>,
}

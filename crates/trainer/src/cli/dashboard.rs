//! `dashboard`.

use std::path::PathBuf;

use clap::Args;

/// `dashboard`.
#[derive(Debug, Args)]
pub struct DashboardArgs {
    /// A folder that holds the folders of runs, up to three levels down, or the folder of a run; by default
    /// `checkpoints`.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Port of 127.0.0.1, 0 for any that is free; by default the first free one from 6007 on.
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Open the page in a browser.
    #[arg(long)]
    pub open: bool,
}

//! `launch`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

/// `launch`.
#[derive(Debug, Args)]
#[command(override_usage = "bninception launch [OPTIONS] -n <N> -- <COMMAND>...")]
pub struct LaunchArgs {
    /// Processes to start.
    #[arg(short, long = "ranks", value_name = "N")]
    pub n: NonZeroUsize,
    /// How often a run that fails goes on from its last checkpoint; for `train --run-dir` and `resume`.
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub restarts: usize,
    /// What starts the processes; by default `mpiexec`, or else `mpirun`, on the PATH.
    #[arg(long, value_name = "FILE")]
    pub mpiexec: Option<PathBuf>,
    /// What each process does, as it would stand behind `bninception`: train --data-dir photos.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

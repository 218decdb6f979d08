//! One file for each verb of the command line: thin glue between settings and work.

mod bench;
mod calibrate;
mod compare;
mod config;
mod data;
mod eval;
mod info;
#[cfg(feature = "mnist")]
mod mnist;
mod predict;
mod presets;
mod report;
mod resume;
mod run;
mod train;

use bninception_data::Failure;
use clap::CommandFactory;
use serde_json::{Value, json};

use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::output;

/// Runs a command.
///
/// # Errors
/// Whatever the command reports; [`Error::exit_code`] says how the process ends.
pub fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Command::Train(args) => train::train(&args),
        Command::Resume(args) => resume::resume(&args),
        Command::Eval(args) => eval::eval(&args),
        Command::Calibrate(args) => calibrate::calibrate(&args),
        Command::Predict(args) => predict::predict(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Report(args) => report::report(&args),
        Command::Info(args) => info::info(&args),
        Command::Presets(command) => presets::presets(&command),
        Command::Config(command) => config::config(&command),
        Command::Data(command) => data::data(&command),
        Command::Bench(command) => bench::bench(&command),
        #[cfg(feature = "mnist")]
        Command::Mnist(args) => mnist::mnist(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bninception", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Images that could not be read, each with its path and the reason.
fn failures_to_json(failed: &[Failure]) -> Vec<Value> {
    let one = |failure: &Failure| {
        output::with_path("path", &failure.path, json!({ "error": failure.error }))
    };
    failed.iter().map(one).collect()
}

/// Writes text to stdout.
fn print(text: &str) -> Result<(), Error> {
    output::line(text.trim_end()).map_err(Error::Stdout)
}

/// Writes a JSON value to stdout.
fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    output::json(value).map_err(Error::Stdout)
}

/// The most memory that this process has held, where the system tells (Linux).
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

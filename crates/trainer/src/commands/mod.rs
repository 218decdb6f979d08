//! One file for each verb of the command line: thin glue between settings and work.

mod average;
mod bench;
mod calibrate;
mod compare;
mod config;
mod data;
mod doctor;
mod dry_run;
mod eval;
mod explain;
mod export;
mod import;
mod info;
mod launch;
mod lr_find;
#[cfg(feature = "mnist")]
mod mnist;
mod out_file;
mod plan;
mod predict;
mod presets;
mod print;
mod probe;
mod recipe;
mod report;
mod resume;
mod run;
mod runs;
mod stored;
mod train;
mod used_images;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::error::Error;

/// Runs a command.
///
/// # Errors
/// Whatever the command reports; [`Error::exit_code`] says how the process ends.
pub fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Command::Train(args) => train::train(&args),
        Command::Resume(args) => resume::resume(&args),
        Command::Launch(args) => launch::launch(&args, cli.quiet),
        Command::LrFind(args) => lr_find::lr_find(&args),
        Command::Eval(args) => eval::eval(&args),
        Command::Calibrate(args) => calibrate::calibrate(&args),
        Command::Average(args) => average::average(&args),
        Command::Predict(args) => predict::predict(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Probe(args) => probe::probe(&args),
        Command::Import(args) => import::import(&args),
        Command::Export(args) => export::export(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Runs(args) => runs::runs(&args),
        Command::Report(args) => report::report(&args),
        Command::Info(args) => info::info(&args),
        Command::Presets(command) => presets::presets(&command),
        Command::Config(command) => config::config(&command),
        Command::Data(command) => data::data(&command),
        Command::Bench(command) => bench::bench(&command),
        Command::Doctor(args) => doctor::doctor(&args),
        #[cfg(feature = "mnist")]
        Command::Mnist(args) => mnist::mnist(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bninception", &mut script);
            print::text(&String::from_utf8_lossy(&script))
        }
    }
}

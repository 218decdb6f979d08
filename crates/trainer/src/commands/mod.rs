//! One file for each verb of the command line: thin glue between settings and work.

mod average;
mod bench;
mod calibrate;
mod check_device;
mod compare;
mod config;
mod dashboard;
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
mod man;
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

use bninception_collective::{Choice, Launcher};

use crate::cli::{self, BenchCommand, Cli, Command, Distributed};
use crate::distributed::Ranks;
use crate::distributed::error::RanksError;
use crate::distributed::seats::allotment_of_each;
use crate::error::Error;

/// Joins the other processes that a launcher started, if the command is one that they share.
///
/// # Errors
/// No MPI library, one that is not the launcher's, or a command for one process.
pub fn connect(cli: &Cli) -> Result<Ranks, Error> {
    let command = match &cli.command {
        Command::Train(args) if args.dry_run => "train --dry-run",
        Command::Train(_)
        | Command::Resume(_)
        | Command::Eval(_)
        | Command::Calibrate(_)
        | Command::Predict(_)
        | Command::Bench(BenchCommand::Collective(_)) => {
            return Ok(Ranks::connect(match cli.distributed {
                Distributed::Auto => Choice::Auto,
                Distributed::Mpi => Choice::Mpi,
                Distributed::None => Choice::None,
            })?);
        }
        // It looks for itself, and says what is amiss.
        Command::Doctor(_) => return Ok(Ranks::alone()),
        _ => "this command",
    };
    let started = Launcher::of_process().and_then(|launcher| launcher.size).unwrap_or(1);
    if started > 1 && cli.distributed != Distributed::None {
        return Err(RanksError::OneProcess { command }.into());
    }
    Ok(Ranks::alone())
}

/// Runs a command.
///
/// # Errors
/// Whatever the command reports; [`Error::exit_code`] says how the process ends.
pub fn run(cli: Cli, ranks: &mut Ranks) -> Result<(), Error> {
    if ranks.are_many() {
        allotment_of_each(ranks)?.take();
    }
    match cli.command {
        Command::Train(args) => train::train(&args, ranks),
        Command::Resume(args) => resume::resume(&args, ranks),
        Command::Launch(args) => launch::launch(&args, cli.quiet, cli.log_format),
        Command::LrFind(args) => lr_find::lr_find(&args),
        Command::Eval(args) => eval::eval(&args, ranks),
        Command::Calibrate(args) => calibrate::calibrate(&args, ranks),
        Command::Average(args) => average::average(&args),
        Command::Predict(args) => predict::predict(&args, ranks),
        Command::Explain(args) => explain::explain(&args),
        Command::Probe(args) => probe::probe(&args),
        Command::Import(args) => import::import(&args),
        Command::Export(args) => export::export(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Runs(args) => runs::runs(&args),
        Command::Dashboard(args) => dashboard::dashboard(&args),
        Command::Report(args) => report::report(&args),
        Command::Info(args) => info::info(&args),
        Command::Presets(command) => presets::presets(&command),
        Command::Config(command) => config::config(&command),
        Command::Data(command) => data::data(&command),
        Command::Bench(command) => bench::bench(&command, ranks),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::CheckDevice(args) => check_device::check_device(&args),
        #[cfg(feature = "mnist")]
        Command::Mnist(args) => mnist::mnist(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut cli::command(), "bninception", &mut script);
            print::text(&String::from_utf8_lossy(&script))
        }
        Command::Man { dir } => man::man(&dir),
    }
}

//! The binary: parse, run, exit code.

use std::error::Error as _;
use std::process::ExitCode;

use bninception::cli::Cli;
use bninception::error::Error;
use bninception::{commands, logging};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.quiet);
    let Err(error) = commands::run(cli) else { return ExitCode::SUCCESS };
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Most messages contain their cause already.
        let text = inner.to_string();
        if !message.contains(&text) {
            message.push_str(&format!(": {text}"));
        }
        cause = inner.source();
    }
    match error {
        // What the user asked for is no error, whatever the exit code says.
        Error::Stopped { .. } | Error::Interrupted { .. } => tracing::info!("{message}"),
        _ => tracing::error!("{message}"),
    }
    ExitCode::from(error.exit_code())
}

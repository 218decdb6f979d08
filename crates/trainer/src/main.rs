//! The binary: parse, run, exit code.

use std::error::Error as _;
use std::io::{self, Write};
use std::process::ExitCode;

use bninception::cli::Cli;
use bninception::commands;
use bninception::error::Error;
use bninception::terminal::logging;
use clap::Parser;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => return say(&message),
    };
    logging::start(cli.quiet);
    let Err(error) = commands::run(cli) else { return ExitCode::SUCCESS };
    end(&error)
}

/// Prints help, the version, or what is wrong with the command line.
fn say(message: &clap::Error) -> ExitCode {
    match message.print().and_then(|()| io::stdout().flush()) {
        Err(error) if !message.use_stderr() => {
            logging::start(false);
            end(&Error::Stdout(error))
        }
        _ => ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(2)),
    }
}

/// Says why a command failed, and gives the exit code.
fn end(error: &Error) -> ExitCode {
    if error.is_of_reader_that_left() {
        return ExitCode::from(error.exit_code());
    }
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

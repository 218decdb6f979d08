//! The binary: parse, run, exit code.

use std::env;
use std::error::Error as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use bninception::error::Error;
use bninception::terminal::color;
use bninception::terminal::logging::{self, LogFormat};
use bninception::{cli, commands};

fn main() -> ExitCode {
    let words: Vec<_> = env::args_os().collect();
    color::choose(cli::value_in(&words, "--color").unwrap_or_default());
    let format = cli::value_in(&words, "--log-format").unwrap_or_default();
    let cli = match cli::parse(words) {
        Ok(cli) => cli,
        Err(message) => return say(&message, format),
    };
    let (format, quiet) = (cli.log_format, cli.quiet);
    let mut ranks = match commands::connect(&cli) {
        Ok(ranks) => ranks,
        Err(error) => {
            logging::start(format, quiet, 0);
            return end(&error);
        }
    };
    let share = ranks.share();
    logging::start(format, quiet, share.rank);
    let outcome = commands::run(cli, &mut ranks);
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if share.rank > 0 && !error.is_of_all_ranks() {
        // What all ranks meet, the first tells; it ends the others meanwhile.
        thread::sleep(TURN_OF_THE_FIRST);
        tracing::error!("rank {} of {} ends the run:", share.rank, share.ranks);
    }
    let code = end(&error);
    if share.ranks > 1 && !error.is_of_all_ranks() {
        ranks.abort(error.exit_code());
    }
    code
}

/// How long another rank than the first keeps an error to itself. The first takes half a second to end all others
/// (`LAST_WORDS` in `collective/src/mpi`).
const TURN_OF_THE_FIRST: Duration = Duration::from_millis(1500);

/// Prints help, the version, or what is wrong with the command line.
fn say(message: &clap::Error, format: LogFormat) -> ExitCode {
    let code = u8::try_from(message.exit_code()).unwrap_or(2);
    if message.use_stderr() && format == LogFormat::Json {
        logging::start(format, false, 0);
        let text = message.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        tracing::error!(exit_code = code, "{text}");
        return ExitCode::from(code);
    }
    match message.print().and_then(|()| io::stdout().flush()) {
        Err(error) if !message.use_stderr() => {
            logging::start(format, false, 0);
            end(&Error::Stdout(error))
        }
        _ => ExitCode::from(code),
    }
}

/// Says why a command failed, and gives the exit code.
fn end(error: &Error) -> ExitCode {
    let code = error.exit_code();
    if error.is_of_reader_that_left() {
        return ExitCode::from(code);
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
        Error::Stopped { .. } | Error::Interrupted { .. } => {
            tracing::info!(exit_code = code, "{message}");
        }
        _ => tracing::error!(exit_code = code, "{message}"),
    }
    ExitCode::from(code)
}

//! `launch`.

mod mpi_job;
mod restarts;

use std::ffi::OsString;
use std::time::Instant;

use self::mpi_job::{End, MpiJob};
use self::restarts::Restarts;
use crate::cli::{self, Command, LaunchArgs};
use crate::commands::print;
use crate::error::Error;
use crate::terminal::logging::LogFormat;
use crate::terminal::text::counted;

pub(super) fn launch(args: &LaunchArgs, is_quiet: bool, format: LogFormat) -> Result<(), Error> {
    // What is wrong with the command is said once, and not by every process.
    let words = std::iter::once(OsString::from("bninception")).chain(args.command.iter().cloned());
    let cli = match cli::parse(words) {
        Ok(cli) => cli,
        Err(message) if !message.use_stderr() => return print::text(&message.to_string()),
        Err(message) => {
            let text = message.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            return Err(Error::Usage(format!("behind --: {}", text.trim_end())));
        }
    };
    if matches!(cli.command, Command::Launch(_)) {
        return Err(Error::Usage("launch behind launch: name what the processes do".to_owned()));
    }
    let restarts = match args.restarts {
        0 => None,
        _ => Some(Restarts::of(&cli.command, &args.command)?),
    };
    let mut handed_on = Vec::new();
    if is_quiet && !cli.quiet {
        handed_on.push("--quiet");
    }
    let own_format = cli::value_in::<LogFormat>(&args.command, "--log-format");
    if format == LogFormat::Json && own_format.is_none() {
        handed_on.push("--log-format=json");
    }
    let mut job = MpiJob::find(args.mpiexec.as_deref(), args.n.get(), handed_on)?;
    job.say_start();

    let start = Instant::now();
    let mut words = args.command.clone();
    let mut n_restarts = 0;
    loop {
        let end = job.run(&words)?;
        if end.code == 0 {
            return Ok(());
        }
        let next = restarts.as_ref().filter(|_| n_restarts < args.restarts);
        let Some(next) = next.and_then(|restarts| restarts.after(&end, start.elapsed())) else {
            return Err(failure(&end, args.n.get(), n_restarts));
        };
        n_restarts += 1;
        words = next;
        let command: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        tracing::warn!(
            "the processes ended with exit code {}; restart {n_restarts} of {}: {}",
            end.code,
            args.restarts,
            command.join(" ")
        );
    }
}

/// How a job that did not succeed shows in the exit code of this program.
fn failure(end: &End, n: usize, n_restarts: usize) -> Error {
    match end.signal {
        Some((signal, name)) if i32::from(end.code) == 128 + signal => {
            Error::Interrupted { name, signal }
        }
        _ => {
            let behind = match n_restarts {
                0 => String::new(),
                n => format!(" behind {}", counted(n as u64, "restart")),
            };
            let signal = match end.signal {
                Some((_, name)) => format!(" after {name}"),
                None => String::new(),
            };
            let message = format!(
                "the job of {} ended with exit code {}{signal}{behind}; what was said stands above",
                counted(n as u64, "process"),
                end.code
            );
            Error::Job { code: end.code, message }
        }
    }
}

//! The log: on stderr, and in the run's own file once a run folder is known.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{self, format};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::terminal::color;
use crate::terminal::log_line::{ForPeople, MessageAlone};
use crate::terminal::progress::{Stderr, hide_progress, progress_in_lines};
use crate::terminal::text::quoted;

/// Environment variable that sets what is logged, in the syntax of tracing's `EnvFilter`.
pub const LOG_VARIABLE: &str = "BNINCEPTION_LOG";

/// Bytes of log lines that wait for the run's file, at the most. A run says a few hundred before its
/// folder is known, and warnings name ten files each.
const MOST_WAITING: usize = 1 << 16;

static RUN_LOG: Mutex<RunLog> = Mutex::new(RunLog::Waiting(Vec::new()));

/// Where the lines of the run's file go.
enum RunLog {
    /// Kept until the file is known.
    Waiting(Vec<u8>),
    File(File),
}

/// How the log on stderr is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for programs that collect logs.
    Json,
}

/// Starts the log on stderr. `quiet` leaves warnings and errors only, there, and a rank behind the first leaves
/// errors only, because the first says the same; the run's file gets what it gets without, and is text.
pub fn start(format: LogFormat, quiet: bool, rank: usize) {
    let asked_or =
        |level| EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let on_terminal = match (rank, quiet) {
        (0, false) => asked_or("info"),
        (0, true) => EnvFilter::new("warn"),
        // A rank that waits long says so for itself.
        _ => EnvFilter::new("error,bninception_collective=warn"),
    };
    if rank > 0 {
        hide_progress();
    }
    if format == LogFormat::Json {
        progress_in_lines();
    }
    let terminal = fmt::layer().with_writer(|| Stderr).with_target(false);
    let terminal = match format {
        LogFormat::Text => terminal
            .with_ansi(color::is_on_stderr())
            .fmt_fields(MessageAlone)
            .event_format(ForPeople)
            .with_filter(on_terminal)
            .boxed(),
        LogFormat::Json => terminal
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_filter(on_terminal)
            .boxed(),
    };
    let file = fmt::layer()
        .with_writer(|| RunFile)
        .with_target(false)
        .with_ansi(false)
        .fmt_fields(MessageAlone)
        .with_filter(asked_or("info"));
    // A second start within one process (tests do that) keeps the first.
    let _ = tracing_subscriber::registry().with(terminal).with(file).try_init();
}

/// Copies the log to the end of the file at `path`: which program it is, what it has said already, and
/// all from now on.
///
/// # Errors
/// The file cannot be written.
pub fn also_to(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut log = run_log();
    let mut lines = about_this_process().into_bytes();
    if let RunLog::Waiting(waiting) = &mut *log {
        lines.append(waiting);
    }
    *log = RunLog::File(file);
    drop(log);
    RunFile.write_all(&lines)
}

/// A line of the log with the program's version and its command line, which the terminal shows already.
fn about_this_process() -> String {
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut format::Writer::new(&mut line));
    let command: Vec<String> = std::env::args_os().map(|word| quoted(Path::new(&word))).collect();
    let command = command.join(" ");
    let command: String = command.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("{line}  INFO bninception {}: {command}\n", env!("CARGO_PKG_VERSION"))
}

fn run_log() -> MutexGuard<'static, RunLog> {
    RUN_LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The run's file, if there is one. A full disk must not end a run for want of a log line, so
/// errors of writing are not passed on.
struct RunFile;

impl Write for RunFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *run_log() {
            RunLog::File(file) => {
                let _ = file.write_all(bytes);
            }
            RunLog::Waiting(lines) if lines.len() + bytes.len() <= MOST_WAITING => {
                lines.extend(bytes);
            }
            RunLog::Waiting(_) => {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

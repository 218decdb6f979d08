//! The log: on stderr, and in the run's own file once a run folder is known.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::progress::Stderr;

/// Environment variable that sets what is logged, in the syntax of tracing's `EnvFilter`.
pub const LOG_VARIABLE: &str = "BNINCEPTION_LOG";

static RUN_FILE: Mutex<Option<File>> = Mutex::new(None);

/// Starts the log on stderr. `quiet` leaves warnings and errors only.
pub fn start(quiet: bool) {
    let level = if quiet { "warn" } else { "info" };
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = fmt::layer()
        .with_writer(|| Stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time();
    let file = fmt::layer().with_writer(|| RunFile).with_target(false).with_ansi(false);
    // A second start within one process (tests do that) keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(terminal).with(file).try_init();
}

/// Copies the log from now on to the end of the file at `path`.
///
/// # Errors
/// The file cannot be written.
pub fn also_to(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    *RUN_FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

/// The run's file, if there is one. A full disk must not end a run for want of a log line, so
/// errors of writing are not passed on.
struct RunFile;

impl Write for RunFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = RUN_FILE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let _ = file.write_all(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

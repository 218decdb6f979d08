//! SIGINT and SIGTERM: the first asks the run to save and leave, a second SIGINT ends it at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::Error;

/// The signal received, 0 for none.
static RECEIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Starts listening. Call once, before long work.
///
/// # Errors
/// The system refuses the handlers.
pub fn listen() -> Result<(), Error> {
    register().map_err(|error| Error::Usage(format!("cannot listen for signals: {error}")))
}

fn register() -> std::io::Result<()> {
    let received = RECEIVED.get_or_init(Arc::default);
    let seen = Arc::new(AtomicBool::new(false));
    // The order matters: the second SIGINT finds `seen` set and ends the process, the first finds
    // it unset and sets it. The code is the shell's for a process that SIGINT ended.
    signal_hook::flag::register_conditional_shutdown(SIGINT, 128 + SIGINT, Arc::clone(&seen))?;
    signal_hook::flag::register(SIGINT, seen)?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_usize(signal, Arc::clone(received), signal as usize)?;
    }
    // A write beyond the limit on file sizes fails like one on a full disk, if the signal that comes
    // with it does not end the process.
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    Ok(())
}

/// The number and name of the signal that asked to stop, if any did.
pub fn received() -> Option<(i32, &'static str)> {
    match RECEIVED.get()?.load(Ordering::Relaxed) as i32 {
        SIGINT => Some((SIGINT, "SIGINT")),
        SIGTERM => Some((SIGTERM, "SIGTERM")),
        _ => None,
    }
}

/// An error if a signal asked to stop; for work that has nothing to save.
///
/// # Errors
/// [`Error::Interrupted`] once a signal has come.
pub fn check() -> Result<(), Error> {
    match received() {
        Some((signal, name)) => Err(Error::Interrupted { name, signal }),
        None => Ok(()),
    }
}

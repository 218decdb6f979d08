//! SIGINT, SIGTERM, SIGHUP and SIGUSR1 ask the run to save and leave; a second SIGINT ends it at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGUSR1};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Why work that listens for signals ends.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The system refuses the handlers.
    #[error("cannot listen for signals: {0}")]
    Deaf(std::io::Error),
    /// A signal asked to stop.
    #[error("stopped by {name}")]
    Received {
        /// Its name.
        name: &'static str,
        /// Its number.
        signal: i32,
    },
}

/// The signal received, 0 for none.
static RECEIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Starts listening. Call once, before long work.
///
/// # Errors
/// The system refuses the handlers.
pub fn listen() -> Result<(), SignalError> {
    register().map_err(SignalError::Deaf)
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
    // The one signal that all launchers of MPI hand on without ending the job themselves.
    #[cfg(unix)]
    signal_hook::flag::register_usize(SIGUSR1, Arc::clone(received), SIGUSR1 as usize)?;
    // A write beyond the limit on file sizes fails like one on a full disk, if the signal that comes
    // with it does not end the process.
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    // A terminal that closes. Whoever began the process so that it outlives its terminal, with
    // `nohup`, had this signal ignored.
    #[cfg(unix)]
    if is_hangup_ignored() == Some(false) {
        signal_hook::flag::register_usize(SIGHUP, Arc::clone(received), SIGHUP as usize)?;
    }
    Ok(())
}

/// Whether the process was begun with SIGHUP ignored; `None` where the system does not tell without
/// unsafe code, that is, anywhere but on Linux.
#[cfg(unix)]
pub fn is_hangup_ignored() -> Option<bool> {
    ignores(&std::fs::read_to_string("/proc/self/status").ok()?, SIGHUP)
}

/// Whether a process of that `/proc/PID/status` ignores a signal: `SigIgn` is a mask in hexadecimal
/// digits, with the first signal in the last bit
/// (<https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>).
#[cfg(unix)]
fn ignores(status: &str, signal: i32) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask.checked_shr(u32::try_from(signal).ok()?.checked_sub(1)?)? & 1 == 1)
}

/// The number and name of the signal that asked to stop, if any did.
pub fn received() -> Option<(i32, &'static str)> {
    match RECEIVED.get()?.load(Ordering::Relaxed) as i32 {
        0 => None,
        signal => Some((signal, name(signal))),
    }
}

/// The name of a signal that is listened for.
pub fn name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        #[cfg(unix)]
        SIGHUP => "SIGHUP",
        #[cfg(unix)]
        SIGUSR1 => "SIGUSR1",
        _ => "a signal",
    }
}

/// An error if a signal asked to stop; for work that has nothing to save.
///
/// # Errors
/// [`SignalError::Received`] once a signal has come.
pub fn check() -> Result<(), SignalError> {
    match received() {
        Some((signal, name)) => Err(SignalError::Received { name, signal }),
        None => Ok(()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_their_mask() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\n";
        for (signal, expected) in
            [(SIGHUP, Some(true)), (SIGINT, Some(false)), (13, Some(true)), (64, Some(false))]
        {
            assert_eq!(ignores(status, signal), expected, "{signal}");
        }
        for (status, signal) in
            [("", 1), ("SigIgn:\tno", 1), (status, 0), (status, 65), (status, -1)]
        {
            assert_eq!(ignores(status, signal), None, "{status:?}, {signal}");
        }
    }
}

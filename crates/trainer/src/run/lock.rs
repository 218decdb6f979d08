//! One process at a time in a run folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::file_error::FileError;
use crate::run::error::RunError;

/// The lock file's name in the run folder.
pub const LOCK_FILE: &str = "run.lock";

/// Longest lock file that is read, in bytes; ours have about ten.
const MAX_BYTES: u64 = 64;

/// The right to write into a run folder, given back when it is dropped.
///
/// The system holds the lock for the open file, so it ends with the process, however that ends: a
/// number of a process found in the file afterwards is that of one which was killed.
#[derive(Debug)]
pub struct RunLock {
    file: File,
}

impl RunLock {
    /// Takes the lock of the run folder `folder`.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be written.
    pub fn take(folder: &Path) -> Result<RunLock, RunError> {
        let path = folder.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FileError::of("write", &path))?;
        let locked = file.try_lock();
        let mut holder = String::new();
        let _ = (&mut file).take(MAX_BYTES).read_to_string(&mut holder);
        // The file may say anything; only a number is repeated.
        let holder = holder.trim().parse::<u32>().ok();
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let process = holder.map_or("another process".into(), |id| format!("process {id}"));
                return Err(RunError::Usage(format!(
                    "{process} is training into {}; wait for it, stop it, or choose another \
                     --run-dir",
                    folder.display()
                )));
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) => tracing::warn!(
                "{} cannot be locked ({error}); make sure that no other process trains there",
                path.display()
            ),
        }
        if let Some(id) = holder {
            tracing::info!(
                "took over {} from process {id}, which ended without leaving it",
                folder.display()
            );
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(format!("{}\n", std::process::id()).as_bytes())
        };
        write(&mut file).map_err(FileError::of("write", &path))?;
        Ok(RunLock { file })
    }
}

/// Whether a process holds the lock of `folder`, that is, trains there. Changes nothing.
///
/// A file without a number says no: who has the lock has written one, but for the instant between the two.
/// With a number the lock itself is asked, because a process that was killed leaves its number behind; a
/// process that begins to train in that instant would be told that the folder is taken.
pub fn is_held(folder: &Path) -> bool {
    let path = folder.join(LOCK_FILE);
    let Ok(file) = File::open(&path) else { return false };
    let mut holder = String::new();
    let _ = (&file).take(MAX_BYTES).read_to_string(&mut holder);
    // Where files have no locks, whoever is named may still be at work.
    !holder.trim().is_empty() && file.try_lock_shared().is_err()
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The file stays: were it removed, a process that had opened it before would lock a file that
        // is no longer there, beside one that makes it anew.
        let _ = self.file.set_len(0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::Error;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        let error = RunLock::take(dir.path()).unwrap_err();
        let own = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&own), "{error}");
        assert_eq!(Error::from(error).exit_code(), 2);
        drop(lock);
        assert_eq!(fs::read_to_string(dir.path().join(LOCK_FILE)).unwrap(), "");
        RunLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_can_be_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_held(dir.path()));
        let lock = RunLock::take(dir.path()).unwrap();
        assert!(is_held(dir.path()) && is_held(dir.path()));
        drop(lock);
        assert!(!is_held(dir.path()));
        // What a killed process left.
        fs::write(dir.path().join(LOCK_FILE), "4194304\n").unwrap();
        assert!(!is_held(dir.path()));
        RunLock::take(dir.path()).unwrap();
    }

    #[test]
    fn what_a_dead_process_left_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        for left in ["4194304\n", "\u{1b}[31mno number", ""] {
            fs::write(dir.path().join(LOCK_FILE), left).unwrap();
            let lock = RunLock::take(dir.path()).unwrap();
            let text = fs::read_to_string(dir.path().join(LOCK_FILE)).unwrap();
            assert_eq!(text, format!("{}\n", std::process::id()), "{left:?}");
            drop(lock);
        }
    }
}

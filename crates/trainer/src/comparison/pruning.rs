//! Checkpoints of epochs that a run can do without.
//!
//! Such a file goes if the run's `last.safetensors` is whole, nothing trains there, and the run has not
//! diverged: then earlier checkpoints are what one goes back to. `last` and `best` stay in any case.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::comparison::inventory::{RunEntry, RunStatus, identity};
use crate::error::Error;
use crate::file_error::FileError;
use crate::run::checkpoint;
use crate::run::folder::RunFolder;

/// What can go of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruning {
    /// The run.
    pub folder: RunFolder,
    /// Its checkpoints of epochs, in their order; not empty.
    pub files: Vec<PathBuf>,
    /// Bytes of the disk that become free. A file that keeps another name frees none.
    pub bytes: u64,
    /// Why they stay all the same.
    pub kept: Option<String>,
}

impl Pruning {
    /// What can go of `run`; `None` if it has no checkpoint of an epoch.
    ///
    /// # Errors
    /// Its folder cannot be read.
    pub fn of(run: &RunEntry) -> Result<Option<Pruning>, Error> {
        let folder = run.folder.clone();
        let files = folder.epoch_files()?;
        if files.is_empty() {
            return Ok(None);
        }
        let kept = match &run.status {
            RunStatus::Finished | RunStatus::Stopped => None,
            RunStatus::Training => Some("it is training now".to_owned()),
            RunStatus::Diverged => Some(
                "it has diverged: an earlier checkpoint may be the one to go back to".to_owned(),
            ),
            RunStatus::Damaged(reason) => Some(reason.clone()),
        };
        let bytes = freed_bytes(&files);
        Ok(Some(Pruning { folder, files, bytes, kept }))
    }

    /// Removes the files, under the run's lock and behind a look at all of `last.safetensors`.
    ///
    /// # Errors
    /// A process trains there by now, that checkpoint is damaged, or a file cannot be removed. Nothing is
    /// removed in the first two cases.
    pub fn carry_out(&self) -> Result<(), Error> {
        let (folder, _lock) = RunFolder::open(self.folder.path())?;
        checkpoint::load(&folder.last())?;
        for path in &self.files {
            fs::remove_file(path).map_err(FileError::of("remove", path))?;
        }
        Ok(())
    }
}

/// Bytes that become free without `files`.
fn freed_bytes(files: &[PathBuf]) -> u64 {
    // Names among these files, names in all, and bytes.
    let mut found: BTreeMap<(u64, u64), (u64, u64, u64)> = BTreeMap::new();
    let mut bytes = 0;
    for path in files {
        let Ok(file) = fs::metadata(path) else { continue };
        match identity(&file) {
            Some((id, n_names)) => found.entry(id).or_insert((0, n_names, file.len())).0 += 1,
            None => bytes += file.len(),
        }
    }
    let gone = found.values().filter(|(here, n_names, _)| here == n_names);
    bytes + gone.map(|(_, _, len)| len).sum::<u64>()
}

/// The name of a file without its folder.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn entry(dir: &Path, status: RunStatus) -> RunEntry {
        RunEntry {
            folder: RunFolder::at(dir),
            status,
            preset: String::new(),
            best_top1: None,
            steps: None,
            steps_per_epoch: None,
            images_per_update: None,
            date: Some(SystemTime::UNIX_EPOCH),
            bytes: 0,
        }
    }

    #[test]
    fn only_checkpoints_of_epochs_go_and_only_of_runs_that_rest() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let of = |status| Pruning::of(&entry(dir, status)).unwrap();
        for name in ["last", "best", "epoch-mine", "epoch-3", "my-epoch-0001"] {
            fs::write(dir.join(format!("{name}.safetensors")), "12345").unwrap();
        }
        assert_eq!(of(RunStatus::Finished), None);
        for name in ["epoch-0002", "epoch-0010", "epoch-12345"] {
            fs::write(dir.join(format!("{name}.safetensors")), "12345").unwrap();
        }
        let found = of(RunStatus::Stopped).unwrap();
        let names: Vec<String> = found.files.iter().map(|path| file_name(path)).collect();
        let expected = ["epoch-0002", "epoch-0010", "epoch-12345"];
        assert_eq!(names, expected.map(|name| format!("{name}.safetensors")));
        assert_eq!((found.bytes, found.kept), (15, None));
        for status in
            [RunStatus::Training, RunStatus::Diverged, RunStatus::Damaged("torn".to_owned())]
        {
            assert!(of(status.clone()).unwrap().kept.is_some(), "{status:?}");
        }
        // What is no checkpoint at all is not removed beside a `last` that cannot be read.
        assert!(of(RunStatus::Stopped).unwrap().carry_out().is_err());
        assert!(dir.join("epoch-0002.safetensors").is_file());
    }

    #[cfg(unix)]
    #[test]
    fn a_second_name_frees_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("last"), "12345").unwrap();
        fs::hard_link(path("last"), path("epoch-1")).unwrap();
        fs::write(path("epoch-2"), "1234567").unwrap();
        fs::hard_link(path("epoch-2"), path("epoch-3")).unwrap();
        let freed =
            |names: &[&str]| freed_bytes(&names.iter().map(|name| path(name)).collect::<Vec<_>>());
        for (names, bytes) in [
            (&["epoch-1"][..], 0),
            (&["epoch-2"], 0),
            (&["epoch-1", "epoch-2", "epoch-3"], 7),
            (&["epoch-1", "last"], 5),
            (&["not there"], 0),
        ] {
            assert_eq!(freed(names), bytes, "{names:?}");
        }
    }
}

//! What lies in a folder of runs: how far each run is, how good it is, and what it takes of the disk.

use std::collections::BTreeSet;
use std::fs::{self, Metadata as FileMetadata};
use std::path::Path;
use std::time::SystemTime;

use crate::run::checkpoint;
use crate::run::folder::RunFolder;
use crate::run::lock;
use crate::run::metadata::Metadata;
use crate::training::course::Course;

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// A process is training it now.
    Training,
    /// It is at its end, and evaluated there.
    Finished,
    /// It can go on.
    Stopped,
    /// It ended with a number that was not finite.
    Diverged,
    /// Its newest checkpoint is missing or cannot be read: why.
    Damaged(String),
}

impl RunStatus {
    /// One word.
    pub fn name(&self) -> &'static str {
        match self {
            RunStatus::Training => "training",
            RunStatus::Finished => "finished",
            RunStatus::Stopped => "stopped",
            RunStatus::Diverged => "diverged",
            RunStatus::Damaged(_) => "damaged",
        }
    }
}

/// A run, as its folder and the header of its newest checkpoint tell of it. The checksum of the checkpoint
/// is not looked at.
#[derive(Clone, Debug)]
pub struct RunEntry {
    /// Its folder.
    pub folder: RunFolder,
    /// How it stands.
    pub status: RunStatus,
    /// The preset of its recipe; empty where that is not known.
    pub preset: String,
    /// The best validation top-1 so far.
    pub best_top1: Option<f64>,
    /// Updates done, and those of the whole run; `None` without a checkpoint.
    pub steps: Option<(u64, u64)>,
    /// Batches of an epoch; `None` without a checkpoint.
    pub steps_per_epoch: Option<u64>,
    /// Images of an update, over all processes; `None` without a checkpoint.
    pub images_per_update: Option<usize>,
    /// When its newest checkpoint was written.
    pub date: Option<SystemTime>,
    /// Bytes of all its files; one that has several names counts once.
    pub bytes: u64,
}

impl RunEntry {
    /// Looks at the run in `path`. Changes nothing.
    pub fn of(path: &Path) -> RunEntry {
        let folder = RunFolder::at(path);
        let last = folder.last();
        let metadata = match last.is_file() {
            true => checkpoint::load_metadata(&last).map_err(|error| error.to_string()),
            false => Err(format!("{} has no last.safetensors", path.display())),
        };
        let status = match (&metadata, lock::is_held(path)) {
            (_, true) => RunStatus::Training,
            (Err(reason), false) => RunStatus::Damaged(reason.clone()),
            (Ok(_), false) if folder.diverged().exists() => RunStatus::Diverged,
            (Ok(metadata), false) => match is_finished(metadata) {
                true => RunStatus::Finished,
                false => RunStatus::Stopped,
            },
        };
        let metadata = metadata.ok();
        let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
        RunEntry {
            preset: metadata.as_ref().map(|about| about.recipe.preset.clone()).unwrap_or_default(),
            best_top1: metadata.as_ref().and_then(|about| Some(about.progress.best?.top1)),
            steps: metadata.as_ref().map(|about| (about.step, course(about).total_steps)),
            steps_per_epoch: metadata.as_ref().map(|about| about.steps_per_epoch),
            images_per_update: metadata
                .as_ref()
                .map(|about| about.config.train.images_per_update()),
            date: modified(&last).or_else(|| modified(path)),
            bytes: bytes_in(path, &mut BTreeSet::new()),
            folder,
            status,
        }
    }
}

/// How the steps of a checkpoint's run lie in its epochs.
fn course(metadata: &Metadata) -> Course {
    // As many images as make the epochs that the run has.
    let updates = usize::try_from(metadata.steps_per_epoch).unwrap_or(usize::MAX);
    let n_images = updates.saturating_mul(metadata.config.train.images_per_update());
    Course::new(&metadata.config, n_images, &metadata.progress)
}

fn is_finished(metadata: &Metadata) -> bool {
    let (step, course) = (metadata.step, course(metadata));
    let is_at_end = step >= course.total_steps && metadata.progress.evaluated_step == Some(step);
    is_at_end || course.is_stopped_early(&metadata.progress)
}

/// Bytes of the files in `folder` and below, without those in `seen`.
fn bytes_in(folder: &Path, seen: &mut BTreeSet<(u64, u64)>) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let mut bytes = 0;
    for entry in entries.flatten() {
        // Links lead elsewhere and are small themselves.
        let Ok(file) = entry.metadata() else { continue };
        if file.is_dir() {
            bytes += bytes_in(&entry.path(), seen);
        } else if file.is_file() && identity(&file).is_none_or(|(id, _)| seen.insert(id)) {
            bytes += file.len();
        }
    }
    bytes
}

/// What tells a file from all others, and how many names it has; `None` where the system does not say.
#[cfg(unix)]
pub(super) fn identity(file: &FileMetadata) -> Option<((u64, u64), u64)> {
    use std::os::unix::fs::MetadataExt;
    Some(((file.dev(), file.ino()), file.nlink()))
}

#[cfg(not(unix))]
pub(super) fn identity(_file: &FileMetadata) -> Option<((u64, u64), u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_its_checkpoint_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let entry = || RunEntry::of(dir.path());
        fs::write(dir.path().join("metrics.jsonl"), "12345").unwrap();
        assert_eq!((entry().status.name(), entry().bytes, entry().steps), ("damaged", 5, None));
        fs::write(dir.path().join("last.safetensors"), "no checkpoint").unwrap();
        let RunStatus::Damaged(reason) = entry().status else { panic!("{:?}", entry().status) };
        assert!(reason.contains("last.safetensors") && entry().bytes == 18, "{reason}");
        // A number that a killed process left is no lock; an open one is.
        fs::write(dir.path().join(lock::LOCK_FILE), "4194304\n").unwrap();
        assert_eq!(entry().status.name(), "damaged");
        let held = lock::RunLock::take(dir.path()).unwrap();
        assert_eq!(entry().status, RunStatus::Training);
        drop(held);
        assert_eq!(entry().status.name(), "damaged");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_of_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("last.safetensors"), "1234567").unwrap();
        let link = |name: &str| {
            fs::hard_link(dir.path().join("last.safetensors"), dir.path().join(name)).unwrap();
        };
        link("best.safetensors");
        link("epoch-0001.safetensors");
        assert_eq!(RunEntry::of(dir.path()).bytes, 7);
    }
}

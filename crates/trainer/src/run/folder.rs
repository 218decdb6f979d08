//! The folder of one run: what lies in it under which name, and which epochs are kept.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bninception_engine::model::ParameterTable;

use crate::file_error::FileError;
use crate::run::atomic_file;
use crate::run::checkpoint::{self, CheckpointError};
use crate::run::error::RunError;
use crate::run::lock::RunLock;
use crate::run::metadata::Metadata;
use crate::run::state::TrainState;
use crate::terminal::text::quoted;

/// How the file of a batch begins on which a run diverged.
const DIVERGED_PREFIX: &str = "diverged-step-";

/// What `report` writes into the folder of a run. It tells of that run alone.
const PAGES: [&str; 6] =
    ["report.html", "report.md", "curves.svg", "curves.png", "watch.svg", "watch.png"];

/// A name that a checkpoint gets besides that of the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The best so far.
    Best,
    /// That of an epoch, counted from 1.
    Epoch(u64),
}

/// Whether a file is [`RunFolder::log_of`] a rank.
fn is_log_of_rank(name: &str) -> bool {
    let number = name.strip_prefix("rank-").and_then(|rest| rest.strip_suffix(".log"));
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The folder of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder of a new run, and takes its lock: `wanted` if it is given, otherwise the
    /// first free one of `parent/name`, `parent/name-2` and so on.
    ///
    /// # Errors
    /// `wanted` holds a run already and `overwrite` is not set, another process is training there,
    /// or a folder cannot be made.
    pub fn create(
        wanted: Option<&Path>,
        parent: &Path,
        name: &str,
        overwrite: bool,
    ) -> Result<(RunFolder, RunLock), RunError> {
        let path = match wanted {
            Some(path) => path.to_owned(),
            None if overwrite => parent.join(name),
            None => make_free(parent, name)?,
        };
        fs::create_dir_all(&path).map_err(FileError::of("create", &path))?;
        let folder = RunFolder { path };
        if folder.holds_run() && !overwrite {
            return Err(RunError::Usage(format!(
                "{} holds a run already; continue it with: bninception resume {}, \
                 choose another --run-dir, or replace it with --overwrite",
                folder.path.display(),
                quoted(&folder.path)
            )));
        }
        let lock = folder.lock()?;
        if folder.holds_run() {
            folder.clear()?;
        }
        Ok((folder, lock))
    }

    /// The folder at `path`, whatever is in it.
    pub fn at(path: &Path) -> RunFolder {
        RunFolder { path: path.to_owned() }
    }

    /// The folder at `path`, or that of the checkpoint that it names.
    pub fn around(path: &Path) -> RunFolder {
        match path.parent() {
            Some(parent) if path.is_file() => RunFolder::at(parent),
            _ => RunFolder::at(path),
        }
    }

    /// The folder of a run that is to go on, and its lock. `path` may also name a checkpoint inside
    /// it.
    ///
    /// # Errors
    /// There is no run, or another process is training it.
    pub fn open(path: &Path) -> Result<(RunFolder, RunLock), RunError> {
        let folder = RunFolder::around(path);
        if !folder.last().is_file() {
            return Err(RunError::Unusable(format!(
                "{} is not the folder of a run: it has no last.safetensors",
                folder.path.display()
            )));
        }
        let lock = folder.lock()?;
        Ok((folder, lock))
    }

    /// The checkpoint that `path` means to a command that uses a network: a file is itself, and the
    /// folder of a run its best checkpoint, or its newest where nothing was evaluated. What is not
    /// there is left to whoever reads it.
    ///
    /// # Errors
    /// A folder that has neither.
    pub fn checkpoint_in(path: &Path) -> Result<PathBuf, RunError> {
        if !path.is_dir() {
            return Ok(path.to_owned());
        }
        if let Some(checkpoint) = RunFolder::at(path).best_or_last() {
            return Ok(checkpoint);
        }
        let entries = fs::read_dir(path).map_err(FileError::of("list", path))?;
        let inside = entries.flatten().map(|entry| entry.path()).filter(|inside| {
            inside.extension().is_some_and(|extension| extension == "safetensors")
                || RunFolder::at(inside).best_or_last().is_some()
        });
        // The first by name, whatever the order of the system.
        let hint =
            inside.min().map_or(String::new(), |inside| format!(", such as {}", inside.display()));
        Err(RunError::Unusable(format!(
            "{} is a folder without best.safetensors or last.safetensors; name a checkpoint or the \
             folder of a run{hint}",
            path.display()
        )))
    }

    /// The best checkpoint, or the newest where there is no best.
    pub fn best_or_last(&self) -> Option<PathBuf> {
        [self.best(), self.last()].into_iter().find(|path| path.is_file())
    }

    /// Takes the lock and removes what killed processes left half written.
    fn lock(&self) -> Result<RunLock, RunError> {
        let lock = RunLock::take(&self.path)?;
        let orphans = atomic_file::remove_orphans(&self.path);
        for path in orphans.map_err(FileError::of("clean", &self.path))? {
            tracing::info!("removed {}, which a process left half written", path.display());
        }
        Ok(lock)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name, that of `.` too.
    pub fn name(&self) -> String {
        let whole = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        match whole.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => whole.display().to_string(),
        }
    }

    /// The newest checkpoint.
    pub fn last(&self) -> PathBuf {
        self.path.join("last.safetensors")
    }

    /// The checkpoint with the best validation accuracy.
    pub fn best(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// The checkpoint behind an epoch.
    pub fn epoch(&self, epoch: u64) -> PathBuf {
        self.path.join(format!("epoch-{epoch:04}.safetensors"))
    }

    /// The settings of the run.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Class names, one a line, in the order of the labels.
    pub fn classes(&self) -> PathBuf {
        self.path.join("classes.txt")
    }

    /// One JSON object for each logged step and each evaluation.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// One row for each epoch.
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.csv")
    }

    /// What the run said.
    pub fn log(&self) -> PathBuf {
        self.path.join("train.log")
    }

    /// What a rank of it said; the first speaks for all.
    pub fn log_of(&self, rank: usize) -> PathBuf {
        match rank {
            0 => self.log(),
            rank => self.path.join(format!("rank-{rank}.log")),
        }
    }

    /// The mark of a run that ended because a number was no longer finite: the reason.
    pub fn diverged(&self) -> PathBuf {
        self.path.join("DIVERGED")
    }

    /// Marks the run as one that has diverged.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn mark_diverged(&self, reason: &str) -> Result<(), RunError> {
        let path = self.diverged();
        Ok(atomic_file::write(&path, |file| writeln!(file, "{reason}"))
            .map_err(FileError::of("write", &path))?)
    }

    /// Removes that mark, if there is one: the run goes on.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn unmark_diverged(&self) -> Result<(), RunError> {
        let path = self.diverged();
        Ok(atomic_file::remove(&path).map_err(FileError::of("remove", &path))?)
    }

    /// Event files for TensorBoard.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// The batch on which `step` diverged.
    pub fn diverged_batch(&self, step: u64) -> PathBuf {
        self.path.join(format!("{DIVERGED_PREFIX}{step:06}.safetensors"))
    }

    /// Writes the newest checkpoint.
    ///
    /// # Errors
    /// The folder cannot be written; the checkpoint before is then as it was.
    pub fn save_last(
        &self,
        metadata: &Metadata,
        table: &ParameterTable,
        state: &TrainState,
    ) -> Result<(), CheckpointError> {
        checkpoint::save(&self.last(), metadata, table, state)
    }

    /// Gives the newest checkpoint these names too, and removes the checkpoints of the oldest epochs
    /// so that `keep` are left (0 keeps all).
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn keep_as(&self, names: &[Name], keep: usize) -> Result<(), RunError> {
        for name in names {
            let path = match name {
                Name::Best => self.best(),
                Name::Epoch(epoch) => self.epoch(*epoch),
            };
            atomic_file::duplicate(&self.last(), &path).map_err(FileError::of("write", &path))?;
        }
        for old in superseded(&self.epochs()?, keep) {
            let path = self.epoch(old);
            fs::remove_file(&path).map_err(FileError::of("remove", &path))?;
        }
        Ok(())
    }

    /// The epochs that have a checkpoint, in no order.
    fn epochs(&self) -> Result<Vec<u64>, RunError> {
        let number = |name: &str| -> Option<u64> {
            name.strip_prefix("epoch-")?.strip_suffix(".safetensors")?.parse().ok()
        };
        Ok(self.names()?.iter().filter_map(|name| number(name)).collect())
    }

    /// The checkpoints of epochs, in the order of the epochs.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn epoch_files(&self) -> Result<Vec<PathBuf>, RunError> {
        let mut epochs = self.epochs()?;
        epochs.sort_unstable();
        epochs.dedup();
        // A file of such a name that this program would have called otherwise is somebody's own.
        Ok(epochs
            .into_iter()
            .map(|epoch| self.epoch(epoch))
            .filter(|path| path.is_file())
            .collect())
    }

    /// The names of the files in the folder, in no order.
    fn names(&self) -> Result<Vec<String>, RunError> {
        let entries = fs::read_dir(&self.path).map_err(FileError::of("list", &self.path))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    fn holds_run(&self) -> bool {
        self.last().exists() || self.config().exists()
    }

    /// Removes what a run leaves, its pages too, and nothing else.
    fn clear(&self) -> Result<(), RunError> {
        let mut files = vec![self.last(), self.best(), self.config(), self.classes()];
        files.extend([self.metrics(), self.summary(), self.log(), self.diverged()]);
        files.extend(PAGES.map(|name| self.path.join(name)));
        files.extend(self.epochs()?.into_iter().map(|epoch| self.epoch(epoch)));
        files.extend(
            self.names()?
                .into_iter()
                .filter(|name| name.starts_with(DIVERGED_PREFIX) || is_log_of_rank(name))
                .map(|name| self.path.join(name)),
        );
        for path in files.iter().filter(|path| path.exists()) {
            fs::remove_file(path).map_err(FileError::of("remove", path))?;
        }
        let events = self.tensorboard();
        if events.exists() {
            fs::remove_dir_all(&events).map_err(FileError::of("remove", &events))?;
        }
        Ok(())
    }
}

/// Makes the first folder of `name`, `name-2` and so on that is not there yet.
fn make_free(parent: &Path, name: &str) -> Result<PathBuf, RunError> {
    fs::create_dir_all(parent).map_err(FileError::of("create", parent))?;
    let mut path = parent.join(name);
    for number in 2_u64.. {
        match fs::create_dir(&path) {
            // Another run, or one that begins at the same time.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                path = parent.join(format!("{name}-{number}"));
            }
            Err(error) => return Err(FileError::of("create", &path)(error).into()),
            Ok(()) => break,
        }
    }
    Ok(path)
}

/// The epochs whose checkpoints go when `keep` of `epochs` are to stay, the newest (0: all stay).
pub fn superseded(epochs: &[u64], keep: usize) -> Vec<u64> {
    let mut epochs = epochs.to_vec();
    epochs.sort_unstable();
    let n_old = if keep == 0 { 0 } else { epochs.len().saturating_sub(keep) };
    epochs.truncate(n_old);
    epochs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_epochs_stay() {
        for (epochs, keep, gone) in [
            (vec![], 3, vec![]),
            (vec![1, 2, 3], 3, vec![]),
            (vec![4, 2, 3, 1], 3, vec![1]),
            (vec![10, 9, 2, 1], 2, vec![1, 2]),
            (vec![1, 2, 3], 0, vec![]),
        ] {
            assert_eq!(superseded(&epochs, keep), gone, "{epochs:?}, keep {keep}");
        }
    }

    #[test]
    fn a_run_stands_for_its_best_checkpoint() {
        let parent = tempfile::tempdir().unwrap();
        let run = RunFolder::at(&parent.path().join("run"));
        fs::create_dir(run.path()).unwrap();
        let error = RunFolder::checkpoint_in(run.path()).unwrap_err().to_string();
        assert!(error.ends_with("name a checkpoint or the folder of a run"), "{error}");
        for newest in [run.last(), run.best()] {
            fs::write(&newest, "a checkpoint").unwrap();
            assert_eq!(RunFolder::checkpoint_in(run.path()).unwrap(), newest);
        }
        for itself in [run.last(), parent.path().join("missing")] {
            assert_eq!(RunFolder::checkpoint_in(&itself).unwrap(), itself);
        }
        let error = RunFolder::checkpoint_in(parent.path()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("such as {}", run.path().display())), "{error}");
    }

    #[test]
    fn a_run_is_not_overwritten_unless_asked() {
        let parent = tempfile::tempdir().unwrap();
        let create = |wanted: Option<&Path>, overwrite| {
            RunFolder::create(wanted, parent.path(), "demo", overwrite)
        };
        let (first, lock) = create(None, false).unwrap();
        assert_eq!(first.path(), parent.path().join("demo"));
        assert_eq!(create(None, false).unwrap().0.path(), parent.path().join("demo-2"));
        // While another trains there, not even --overwrite may touch it.
        let error = create(Some(first.path()), true).unwrap_err().to_string();
        assert!(error.contains("is training into"), "{error}");
        drop(lock);

        fs::write(first.last(), "a run").unwrap();
        fs::write(first.epoch(7), "a run").unwrap();
        fs::write(first.path().join("notes.txt"), "mine").unwrap();
        let error = create(Some(first.path()), false).unwrap_err().to_string();
        assert!(error.contains("--overwrite"), "{error}");
        create(Some(first.path()), true).unwrap();
        assert!(!first.last().exists() && !first.epoch(7).exists());
        assert!(first.path().join("notes.txt").exists());
    }
}

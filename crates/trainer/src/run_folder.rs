//! The folder of one run: what lies in it under which name, and which epochs are kept.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, CheckpointError, Metadata};
use crate::error::Error;
use crate::state::TrainState;
use bninception_engine::model::ParameterTable;

/// The folder of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder of a new run: `wanted` if it is given, otherwise the first free one of
    /// `parent/name`, `parent/name-2` and so on.
    ///
    /// # Errors
    /// `wanted` holds a run already and `overwrite` is not set, or a folder cannot be made.
    pub fn create(
        wanted: Option<&Path>,
        parent: &Path,
        name: &str,
        overwrite: bool,
    ) -> Result<RunFolder, Error> {
        let path = match wanted {
            Some(path) => path.to_owned(),
            None if overwrite => parent.join(name),
            None => free_name(parent, name),
        };
        let folder = RunFolder { path };
        if folder.holds_run() {
            if !overwrite {
                return Err(Error::Usage(format!(
                    "{} holds a run already; continue it with: bninception resume {}, \
                     choose another --run-dir, or replace it with --overwrite",
                    folder.path.display(),
                    folder.path.display()
                )));
            }
            folder.clear()?;
        }
        fs::create_dir_all(&folder.path).map_err(Error::io("create", &folder.path))?;
        Ok(folder)
    }

    /// The folder of a run that is to go on. `path` may also name a checkpoint inside it.
    ///
    /// # Errors
    /// There is no run.
    pub fn open(path: &Path) -> Result<RunFolder, Error> {
        let path = match path.parent() {
            Some(parent) if path.is_file() => parent,
            _ => path,
        };
        let folder = RunFolder { path: path.to_owned() };
        if !folder.last().is_file() {
            return Err(Error::Unusable(format!(
                "{} is not the folder of a run: it has no last.safetensors",
                path.display()
            )));
        }
        Ok(folder)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
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

    /// Event files for TensorBoard.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
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

    /// Keeps the newest checkpoint under the name of its epoch, and removes the oldest such files
    /// so that `keep` are left (0 keeps all).
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn keep_epoch(&self, epoch: u64, keep: usize) -> Result<(), Error> {
        checkpoint::duplicate(&self.last(), &self.epoch(epoch))?;
        for old in superseded(&self.epochs()?, keep) {
            let path = self.epoch(old);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// The epochs that have a checkpoint, in no order.
    fn epochs(&self) -> Result<Vec<u64>, Error> {
        let entries = fs::read_dir(&self.path).map_err(Error::io("list", &self.path))?;
        let number = |name: &str| -> Option<u64> {
            name.strip_prefix("epoch-")?.strip_suffix(".safetensors")?.parse().ok()
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| number(&name)).collect())
    }

    fn holds_run(&self) -> bool {
        self.last().exists() || self.config().exists()
    }

    /// Removes what a run leaves, and nothing else.
    fn clear(&self) -> Result<(), Error> {
        let mut files = vec![self.last(), self.best(), self.config(), self.classes()];
        files.extend([self.metrics(), self.summary(), self.log()]);
        files.extend(self.epochs()?.into_iter().map(|epoch| self.epoch(epoch)));
        for path in files.iter().filter(|path| path.exists()) {
            fs::remove_file(path).map_err(Error::io("remove", path))?;
        }
        let events = self.tensorboard();
        if events.exists() {
            fs::remove_dir_all(&events).map_err(Error::io("remove", &events))?;
        }
        Ok(())
    }
}

fn free_name(parent: &Path, name: &str) -> PathBuf {
    let first = parent.join(name);
    if !first.exists() {
        return first;
    }
    let numbered = (2u64..).map(|number| parent.join(format!("{name}-{number}")));
    numbered.into_iter().find(|path| !path.exists()).unwrap_or(first)
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
    fn a_run_is_not_overwritten_unless_asked() {
        let parent = tempfile::tempdir().unwrap();
        let create = |wanted: Option<&Path>, overwrite| {
            RunFolder::create(wanted, parent.path(), "demo", overwrite)
        };
        let first = create(None, false).unwrap();
        assert_eq!(first.path(), parent.path().join("demo"));
        assert_eq!(create(None, false).unwrap().path(), parent.path().join("demo-2"));

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

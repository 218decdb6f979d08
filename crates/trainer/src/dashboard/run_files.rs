//! Which files a run has, and whether one of them is another than before.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use crate::run::folder::RunFolder;
use crate::run::lock::LOCK_FILE;

/// What tells a state of a file from another, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its number in the file system, and when anything of it changed: seconds and nanoseconds.
    change: (u64, i64, i64),
    /// Bytes.
    pub length: u64,
    /// When its content was written.
    pub written: SystemTime,
}

impl Stamp {
    /// That of a file with this metadata.
    pub fn of(file: &Metadata) -> Stamp {
        let written = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Stamp { change: change(file), length: file.len(), written }
    }

    /// A number that the file keeps while it grows, and that another in its place does not have; 0 where the
    /// system does not tell.
    pub fn identity(&self) -> u64 {
        self.change.0
    }
}

// A file that is replaced keeps its length and may get an old time; its number and the time of its change do not
// repeat.
#[cfg(unix)]
fn change(file: &Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (file.ino(), file.ctime(), file.ctime_nsec())
}

#[cfg(not(unix))]
fn change(_file: &Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

/// The files of a run that are read. `None` for one that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunFiles {
    /// `last.safetensors`.
    pub last: Option<Stamp>,
    /// `DIVERGED`.
    pub diverged: Option<Stamp>,
    /// `run.lock`.
    pub lock: Option<Stamp>,
    /// `config.toml`.
    pub config: Option<Stamp>,
    /// `metrics.jsonl`.
    pub metrics: Option<Stamp>,
    /// `summary.csv`.
    pub summary: Option<Stamp>,
    /// `train.log`.
    pub log: Option<Stamp>,
}

impl RunFiles {
    /// Looks at the run in `folder`, a path below `root`. Opens nothing.
    ///
    /// # Errors
    /// A file that must not be read: one that a link brings from outside of `root`, or something other than a
    /// file, which would be waited for; or the folder cannot be entered. Why, in words.
    pub fn look(root: &Path, folder: &RunFolder) -> Result<RunFiles, String> {
        let stamp = |path: &Path| stamp_inside(root, path);
        Ok(RunFiles {
            last: stamp(&folder.last())?,
            diverged: stamp(&folder.diverged())?,
            lock: stamp(&folder.path().join(LOCK_FILE))?,
            config: stamp(&folder.config())?,
            metrics: stamp(&folder.metrics())?,
            summary: stamp(&folder.summary())?,
            log: stamp(&folder.log())?,
        })
    }

    /// Those that tell how the run stands.
    pub fn of_status(&self) -> [Option<Stamp>; 3] {
        [self.last, self.diverged, self.lock]
    }

    /// Those that its curves and their settings come from.
    pub fn of_curves(&self) -> [Option<Stamp>; 4] {
        [self.config, self.metrics, self.summary, self.diverged]
    }

    /// When the last of them was written.
    pub fn updated(&self) -> Option<SystemTime> {
        let files = [self.last, self.diverged, self.metrics, self.summary, self.log];
        files.into_iter().flatten().map(|stamp| stamp.written).max()
    }
}

fn stamp_inside(root: &Path, path: &Path) -> Result<Option<Stamp>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let refused = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Ok(None),
        _ => Err(format!("{name} cannot be looked at: {error}")),
    };
    let file = match fs::symlink_metadata(path) {
        Ok(file) if file.is_symlink() => match path.canonicalize() {
            Ok(target) if !target.starts_with(root) => {
                return Err(format!(
                    "{name} is a link that leads out of the folder of runs, so the run is not read"
                ));
            }
            Ok(target) => fs::metadata(target),
            Err(error) => Err(error),
        },
        found => found,
    };
    match file {
        Ok(file) if file.is_file() => Ok(Some(Stamp::of(&file))),
        Ok(_) => Err(format!("{name} is not a file, so the run is not read")),
        Err(error) => refused(error),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_changes_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let folder = RunFolder::at(&root);
        let look = || RunFiles::look(&root, &folder).unwrap();
        assert_eq!(look(), RunFiles::default());
        fs::write(folder.metrics(), "1234").unwrap();
        let first = look();
        assert_eq!((look(), first.metrics.unwrap().length), (first, 4));
        // Replaced by one of the same length and time.
        let written = first.metrics.unwrap().written;
        let other = root.join("other");
        fs::write(&other, "4321").unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(written).unwrap();
        fs::rename(&other, folder.metrics()).unwrap();
        assert_eq!(look().metrics.unwrap().written, written);
        assert_ne!(look(), first);
        assert_eq!(look().updated(), Some(written));
    }

    #[test]
    fn what_must_not_be_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("runs");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::create_dir_all(root.join("b")).unwrap();
        let root = root.canonicalize().unwrap();
        let (outside, folder) = (dir.path().join("secret"), RunFolder::at(&root.join("a")));
        fs::write(&outside, "secret").unwrap();
        fs::write(root.join("b/train.log"), "open").unwrap();
        let look = || RunFiles::look(&root, &folder);
        let relink = |target: &Path| {
            let _ = fs::remove_file(folder.log());
            symlink(target, folder.log()).unwrap();
        };
        for target in [outside.as_path(), Path::new("../../secret"), Path::new("/dev/zero")] {
            relink(target);
            assert!(look().unwrap_err().contains("train.log is a link that leads out"));
        }
        relink(Path::new("../b/train.log"));
        assert_eq!(look().unwrap().log.unwrap().length, 4);
        relink(Path::new("nowhere"));
        assert_eq!(look().unwrap().log, None);
        fs::remove_file(folder.log()).unwrap();
        fs::create_dir(folder.log()).unwrap();
        assert!(look().unwrap_err().contains("train.log is not a file"));
    }
}

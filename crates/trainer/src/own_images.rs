//! The images that a checkpoint's run was trained and validated on, found again: exactly those, or an
//! error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bninception_data::{Sample, Splits};

use crate::checkpoint::Checkpoint;
use crate::classes;
use crate::config::Config;
use crate::data_dirs::{DataDirs, StoredDirs, is_same};
use crate::error::Error;
use crate::image_lists::ImageLists;
use crate::setup;

/// What a checkpoint tells of its run's images.
#[derive(Clone, Debug)]
pub struct OwnImages {
    /// The checkpoint.
    path: PathBuf,
    classes: Vec<String>,
    lists: ImageLists,
    data_dirs: StoredDirs,
}

/// A part of a run's images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What it is trained on.
    Training,
    /// What it is evaluated on.
    Validation,
}

impl OwnImages {
    /// What `checkpoint` tells.
    pub fn of(checkpoint: &Checkpoint) -> OwnImages {
        let metadata = &checkpoint.metadata;
        OwnImages {
            path: checkpoint.path.clone(),
            classes: metadata.classes.clone(),
            lists: metadata.images.clone(),
            data_dirs: metadata.data_dirs.clone(),
        }
    }

    /// The folders of the images, and those of `part`. Images that are held out of the training images
    /// are found again by the seed: an image more or less moves others from one part to the other.
    ///
    /// # Errors
    /// The images of that part are not those of the run.
    pub fn find(&self, config: &Config, part: Part) -> Result<(DataDirs, Vec<Sample>), Error> {
        let (dirs, splits) = self.scan(config)?;
        let found = ImageLists::of(&splits, &dirs.dir, dirs.of_val());
        let (difference, unknown) = match part {
            Part::Training => {
                (self.lists.train_difference(&found, &self.classes), self.lists.train.is_empty())
            }
            Part::Validation => {
                (self.lists.val_difference(&found, &self.classes), self.lists.val.is_empty())
            }
        };
        if unknown {
            tracing::warn!(
                "{} does not say which images its run was on: if any were added or removed since, \
                 training and validation images are mixed",
                self.path.display()
            );
        }
        if let Some(difference) = difference {
            return Err(Error::Unusable(format!(
                "{} no longer has the images of the run of {}: {difference}\nwhat was trained on and \
                 what was set aside can no longer be told apart; put the images back, or name a folder \
                 with --data-dir",
                dirs.dir.display(),
                self.path.display()
            )));
        }
        Ok(match part {
            Part::Training => (dirs, splits.train),
            Part::Validation => (dirs, splits.val),
        })
    }

    /// How many of `samples`, found in `dir`, the run was trained on, if `dir` is the run's own folder.
    pub fn count_trained_on(&self, config: &Config, dir: &Path, samples: &[Sample]) -> usize {
        let Ok((own, splits)) = self.scan(config) else { return 0 };
        if !is_same(&own.dir, dir) {
            return 0;
        }
        let inside = |path: &Path, dir: &Path| path.strip_prefix(dir).unwrap_or(path).to_owned();
        let trained: BTreeSet<PathBuf> =
            splits.train.iter().map(|sample| inside(&sample.path, &own.dir)).collect();
        samples.iter().filter(|sample| trained.contains(&inside(&sample.path, dir))).count()
    }

    fn scan(&self, config: &Config) -> Result<(DataDirs, Splits), Error> {
        let run = self.path.parent().unwrap_or(Path::new(""));
        let dirs = DataDirs::of_run(config, &self.data_dirs, run, None)?;
        let splits = setup::scan(config, &dirs)?;
        if splits.classes == self.classes {
            return Ok((dirs, splits));
        }
        Err(Error::Unusable(format!(
            "{} no longer has the classes of the run of {}: {}; name a folder with --data-dir",
            dirs.dir.display(),
            self.path.display(),
            classes::difference(&self.classes, &splits.classes)
        )))
    }
}

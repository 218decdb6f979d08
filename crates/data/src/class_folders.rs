//! Class folders and the images in them, files or shards.

use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::class_name::check_class_name;
use crate::left_out::LeftOut;
use crate::listing::{Entry, Kind, Lister};
use crate::pack::{self, Index};
use crate::packing;

/// Extensions of the files that count as images, in lower case.
pub const IMAGE_EXTENSIONS: [&str; 11] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "gif", "tif", "tiff"];

/// What the messages show as the expected layout.
pub(crate) const EXAMPLE: &str = "expected class folders of images, such as train/cat/1.jpg, \
                       train/dog/2.jpg, val/cat/3.jpg, or cat/1.jpg, dog/2.jpg";

/// Returns whether the extension of `path` is that of an image.
pub fn is_image_path(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|found| IMAGE_EXTENSIONS.iter().any(|e| e.eq_ignore_ascii_case(found)))
}

/// A folder inside the folder that is scanned.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) lossy_name: String,
}

impl Folder {
    pub(crate) fn is_named_one_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.lossy_name.eq_ignore_ascii_case(name))
    }
}

/// A class and its images, sorted.
pub(crate) struct ClassFolder {
    pub(crate) name: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
    pub(crate) images: Vec<PathBuf>,
}

/// Reads class folders, and gathers what else is found on the way.
pub(crate) struct Scanner<'a> {
    lister: &'a Lister<'a>,
    pub(crate) left_out: LeftOut,
    pub(crate) notes: Vec<String>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(lister: &'a Lister<'a>) -> Scanner<'a> {
        Scanner { lister, left_out: LeftOut::default(), notes: Vec::new() }
    }

    /// Reads every class folder of `dir`, in the byte order of their names.
    pub(crate) fn class_folders(&mut self, dir: &Path) -> Result<Vec<ClassFolder>, DataError> {
        packing::check_finished(dir)?;
        let folders = subfolders(self.lister, dir)?;
        if folders.is_empty() {
            return Err(no_images(dir, count_files(self.lister, dir)?));
        }
        let walks = self.lister.each(&folders, |folder| {
            Ok((class_name(folder)?, Walk::of(self.lister, &folder.path)?))
        })?;
        let mut classes = Vec::with_capacity(walks.len());
        for (folder, (name, walk)) in folders.into_iter().zip(walks) {
            let Walk { images, left_out, notes, .. } = walk;
            self.left_out.extend(left_out);
            self.notes.extend(notes);
            classes.push(ClassFolder { name, dir: folder.path, images });
        }
        Ok(classes)
    }
}

/// What lies below one folder.
#[derive(Default)]
pub(crate) struct Walk {
    pub(crate) images: Vec<PathBuf>,
    pub(crate) left_out: LeftOut,
    pub(crate) notes: Vec<String>,
    /// Canonical paths of the folders above the one that is being read.
    ancestors: Vec<PathBuf>,
}

impl Walk {
    /// Walks through `dir` and all folders below it.
    pub(crate) fn of(lister: &Lister<'_>, dir: &Path) -> Result<Walk, DataError> {
        let mut walk = Walk::default();
        walk.enter(lister, dir)?;
        Ok(walk)
    }

    /// Adds the images below `dir`. Entries come by name and folders are entered in their turn, so
    /// the images come in the order of their paths.
    fn enter(&mut self, lister: &Lister<'_>, dir: &Path) -> Result<(), DataError> {
        let canonical = fs::canonicalize(dir).map_err(DataError::io("resolve", dir))?;
        if self.ancestors.contains(&canonical) {
            self.notes.push(format!(
                "{} is skipped: it links to a folder that contains it",
                dir.display()
            ));
            return Ok(());
        }
        self.ancestors.push(canonical);
        let mut shards = Shards::default();
        for entry in lister.list(dir)? {
            match entry.kind {
                Kind::Folder => self.enter(lister, &entry.path)?,
                Kind::File if pack::is_shard(&entry.path) => {
                    shards.enter(&entry.path, &mut self.images)?;
                }
                Kind::File if is_image_path(&entry.path) => self.images.push(entry.path),
                Kind::File => self.left_out.add(entry.path),
                Kind::Other => self.left_out.add_special(),
                Kind::Broken => self.notes.push(format!(
                    "{} is skipped: it links to a file that is missing or cannot be read",
                    entry.path.display()
                )),
            }
        }
        self.ancestors.pop();
        shards.check(dir)
    }
}

/// The shards of one class folder.
#[derive(Default)]
struct Shards {
    found: u32,
    expected: u32,
}

impl Shards {
    /// Adds the images of a shard.
    fn enter(&mut self, path: &Path, images: &mut Vec<PathBuf>) -> Result<(), DataError> {
        let index = Index::open(path)?;
        self.found += 1;
        self.expected = self.expected.max(index.count);
        images.extend(index.entries.into_iter().map(|entry| path.join(entry.name)));
        Ok(())
    }

    fn check(&self, dir: &Path) -> Result<(), DataError> {
        if self.found > 0 {
            packing::check_finished(dir)?;
        }
        if self.found == self.expected {
            return Ok(());
        }
        let Shards { found, expected } = self;
        let problem = format!("{found} of {expected} shards are there; run `data pack` again");
        Err(DataError::layout(dir, problem))
    }
}

fn class_name(folder: &Folder) -> Result<String, DataError> {
    let name = folder.path.file_name().and_then(|name| name.to_str());
    let problem = match name.map(check_class_name) {
        Some(Ok(())) => return Ok(folder.lossy_name.clone()),
        Some(Err(problem)) => problem,
        None => "is not UTF-8 text",
    };
    Err(DataError::layout(
        &folder.path,
        format!("it cannot be a class, since its name {problem}; rename the folder"),
    ))
}

pub(crate) fn no_images(dir: &Path, ignored: usize) -> DataError {
    DataError::layout(
        dir,
        format!(
            "no image found in class folders ({ignored} other files); {EXAMPLE}, with one of the \
             extensions {}",
            IMAGE_EXTENSIONS.join(", ")
        ),
    )
}

/// The folders in `dir` that are not hidden, in the byte order of their names.
pub(crate) fn subfolders(lister: &Lister<'_>, dir: &Path) -> Result<Vec<Folder>, DataError> {
    let folders = lister.list(dir)?.into_iter().filter(|entry| entry.kind == Kind::Folder);
    let folder = |entry: Entry| {
        let lossy_name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Folder { path: entry.path, lossy_name }
    };
    Ok(folders.map(folder).collect())
}

fn count_files(lister: &Lister<'_>, dir: &Path) -> Result<usize, DataError> {
    Ok(lister.list(dir)?.iter().filter(|entry| entry.kind == Kind::File).count())
}

//! Class folders and the images in them, files or shards.

use std::fs;
use std::path::{Path, PathBuf};

use crate::class_name::check_class_name;
use crate::error::DataError;
use crate::left_out::LeftOut;
use crate::listing::{Entry, EntryKind, Lister};
use crate::shard::{self, Index};
use crate::text::counted;

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
    pub(crate) lister: &'a Lister<'a>,
    pub(crate) left_out: LeftOut,
    pub(crate) notes: Vec<String>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(lister: &'a Lister<'a>) -> Scanner<'a> {
        Scanner { lister, left_out: LeftOut::default(), notes: Vec::new() }
    }

    /// Reads every class folder of `dir`, in the byte order of their names; none if there is none.
    pub(crate) fn class_folders(&mut self, dir: &Path) -> Result<Vec<ClassFolder>, DataError> {
        shard::check_finished(dir)?;
        let (folders, files) = sorted_out(self.lister.list(dir)?);
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
        for file in self.note_pictures(dir, files) {
            self.left_out.add(file);
        }
        Ok(classes)
    }

    /// Notes pictures that lie in `dir` itself, which are in no class.
    pub(crate) fn note_pictures_in(&mut self, dir: &Path) -> Result<(), DataError> {
        let (_, files) = sorted_out(self.lister.list(dir)?);
        self.note_pictures(dir, files);
        Ok(())
    }

    /// Notes the pictures among the `files` of `dir`. Returns the others.
    fn note_pictures(&mut self, dir: &Path, files: Vec<PathBuf>) -> Vec<PathBuf> {
        let is_picture = |path: &PathBuf| is_image_path(path) || shard::is_shard(path);
        let (pictures, others): (Vec<_>, Vec<_>) = files.into_iter().partition(is_picture);
        if let Some(first) = pictures.first() {
            let (lie, are, them) = match pictures.len() {
                1 => ("lies", "is", "it"),
                _ => ("lie", "are", "them"),
            };
            self.notes.push(format!(
                "{} {lie} directly in {} and {are} not used, such as {}: move {them} into the folder \
                 of their class",
                counted(pictures.len(), "picture"),
                dir.display(),
                first.display()
            ));
        }
        others
    }

    /// The number of files that were left out, and the notes, beside a number of images.
    pub(crate) fn finish(self, images: usize) -> (usize, Vec<String>) {
        let Scanner { left_out, mut notes, .. } = self;
        notes.extend(left_out.notes(images));
        (left_out.total(), notes)
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
                EntryKind::Folder => self.enter(lister, &entry.path)?,
                EntryKind::File if shard::is_shard(&entry.path) => {
                    shards.enter(&entry.path, &mut self.images)?;
                }
                EntryKind::File if is_image_path(&entry.path) => self.images.push(entry.path),
                EntryKind::File => self.left_out.add(entry.path),
                EntryKind::Other => self.left_out.add_special(),
                EntryKind::Broken => self.notes.push(format!(
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
            shard::check_finished(dir)?;
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

/// The folders in `dir` that are not hidden, in the byte order of their names.
pub(crate) fn subfolders(lister: &Lister<'_>, dir: &Path) -> Result<Vec<Folder>, DataError> {
    Ok(sorted_out(lister.list(dir)?).0)
}

/// The folders among `entries`, and the files.
fn sorted_out(entries: Vec<Entry>) -> (Vec<Folder>, Vec<PathBuf>) {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for Entry { path, kind } in entries {
        match kind {
            EntryKind::Folder => {
                let name = path.file_name().unwrap_or_default();
                let lossy_name = name.to_string_lossy().into_owned();
                folders.push(Folder { path, lossy_name });
            }
            EntryKind::File => files.push(path),
            EntryKind::Broken | EntryKind::Other => {}
        }
    }
    (folders, files)
}

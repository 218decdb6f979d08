//! Why a folder is no data set, and what lies beside class folders without being used.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::class_folders::{
    ClassFolder, EXAMPLE, Folder, IMAGE_EXTENSIONS, Scanner, is_image_path, subfolders,
};
use crate::error::DataError;
use crate::shard;
use crate::split_folders::{TRAIN_NAMES, VAL_NAMES};
use crate::text::{counted, name_list};

/// Folders that one look for a picture enters at the most. Data sets nest by a few; the look serves
/// a message and must not cost more than the scan.
const LOOK: usize = 100;

/// The error for a folder in which no class has an image.
pub(crate) fn no_images(scanner: &Scanner<'_>, dir: &Path) -> DataError {
    let start = "no image found in class folders";
    let dir = &dir.components().collect::<PathBuf>(); // without a slash at its end
    let shown = dir.display();
    let direct = pictures_in(dir).count();
    let mut problem = if direct > 0 {
        let lie = if direct == 1 { "lies" } else { "lie" };
        let pictures = counted(direct, "picture");
        let mut problem = format!(
            "{start}: {pictures} {lie} directly in {shown}, and each class needs a folder of its \
             own: sort them, such as {shown}/cat/1.jpg, {shown}/dog/2.jpg"
        );
        if let Some(above) = classes_above(dir) {
            let above = above.display();
            problem.push_str(&format!("; if {shown} is one class of several, name {above}"));
        }
        problem
    } else {
        let others = match scanner.left_out.total() {
            0 => String::new(),
            n => format!(" ({}: {})", counted(n, "other file"), scanner.left_out.summary()),
        };
        let extensions = IMAGE_EXTENSIONS.join(", ");
        format!("{start}{others}; {EXAMPLE}, with one of the extensions {extensions}")
    };
    add_notes(&mut problem, scanner);
    DataError::layout(dir, problem)
}

/// The error for classes of which some have no image.
pub(crate) fn empty_classes(
    scanner: &Scanner<'_>,
    dir: &Path,
    classes: &[ClassFolder],
) -> Option<DataError> {
    let (empty, full): (Vec<_>, Vec<_>) = classes.iter().partition(|class| class.images.is_empty());
    if empty.is_empty() {
        return None;
    }
    let names: Vec<&str> = empty.iter().map(|class| class.name.as_str()).collect();
    let s = if empty.len() == 1 { "" } else { "s" };
    let mut problem = format!(
        "no image in the class folder{s} {}; put images there, or remove what is no class",
        name_list(&names)
    );
    if let [only] = full.as_slice()
        && let Some(inner) = data_set_inside(only)
    {
        problem.push_str(&format!("; {inner}"));
    }
    add_notes(&mut problem, scanner);
    Some(DataError::layout(dir, problem))
}

/// The error for a class without another.
pub(crate) fn one_class(scanner: &Scanner<'_>, dir: &Path, only: &ClassFolder) -> DataError {
    let mut problem = format!("found one class only, `{}`, and a classifier needs two", only.name);
    problem.push_str("; ");
    problem.push_str(&data_set_inside(only).unwrap_or_else(|| EXAMPLE.to_owned()));
    for note in &scanner.notes {
        problem.push_str(&format!("; {note}"));
    }
    add_notes(&mut problem, scanner);
    DataError::layout(dir, problem)
}

fn add_notes(problem: &mut String, scanner: &Scanner<'_>) {
    for note in scanner.left_out.notes(0) {
        problem.push_str(&format!("; {note}"));
    }
}

/// That the folders in `class` rather are the classes, if they are.
fn data_set_inside(class: &ClassFolder) -> Option<String> {
    let mut names: Vec<String> = folders_in(&class.dir)
        .filter(|folder| holds_pictures(folder, &mut LOOK.clone()))
        .filter_map(|folder| Some(folder.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort_unstable();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let is_split = |name: &&str| TRAIN_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name));
    let (list, dir) = (name_list(&names), class.dir.display());
    match names.len() >= 2 || names.iter().any(is_split) {
        true => {
            Some(format!("it holds folders of pictures, {list}: to train on those, name {dir}"))
        }
        false => None,
    }
}

/// The training folder among `folders`, if it has no class folders and the `classes` with images
/// are no others than the splits: pictures that nobody has sorted.
pub(crate) fn unsorted_train<'a>(
    folders: &'a [Folder],
    classes: &[ClassFolder],
) -> Option<&'a Path> {
    let is_split = |name: &str| {
        let mut names = TRAIN_NAMES.iter().chain(&VAL_NAMES);
        names.any(|known| known.eq_ignore_ascii_case(name))
    };
    let train = folders.iter().find(|folder| folder.is_named_one_of(&TRAIN_NAMES))?;
    let mut with_images = classes.iter().filter(|class| !class.images.is_empty());
    with_images.all(|class| is_split(&class.name)).then_some(train.path.as_path())
}

/// That each class is a folder of the same folders, which then may be the classes that were meant.
pub(crate) fn note_nested_classes(dir: &Path, classes: &[ClassFolder]) -> Option<String> {
    let mut shared: Option<BTreeSet<&str>> = None;
    for class in classes {
        let mut names = BTreeSet::new();
        for image in &class.images {
            let parts = image.strip_prefix(&class.dir).ok()?.iter();
            let mut parts = parts.filter(|part| !shard::is_shard(Path::new(part)));
            let first = parts.next()?.to_str()?;
            parts.next()?; // a picture that lies directly in its class: all is as it should be
            names.insert(first);
        }
        if *shared.get_or_insert_with(|| names.clone()) != names {
            return None;
        }
    }
    let inner: Vec<&str> = shared.filter(|names| names.len() >= 2)?.into_iter().collect();
    let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    Some(format!(
        "{}: the classes are {}, and each holds the folders {}: if those are the classes, name one of \
         the folders above them, or call them train and val",
        dir.display(),
        name_list(&names),
        name_list(&inner)
    ))
}

/// What holds pictures in `dir` beside the folders that are `used`.
pub(crate) fn note_unused(dir: &Path, folders: &[Folder], used: &[&Path]) -> Option<String> {
    let resolve = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let resolved: Vec<PathBuf> = used.iter().map(|path| resolve(path)).collect();
    let unused = folders.iter().filter(|folder| {
        !resolved.contains(&resolve(&folder.path))
            && holds_pictures(&folder.path, &mut LOOK.clone())
    });
    let unused: Vec<&str> = unused.map(|folder| folder.lossy_name.as_str()).collect();
    (!unused.is_empty()).then(|| {
        format!(
            "{}: {} not used, though there are pictures inside: the images are those of {}",
            dir.display(),
            match unused.as_slice() {
                [only] => format!("`{only}` is"),
                _ => format!("{} are", name_list(&unused)),
            },
            used.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
        )
    })
}

/// That the folders in one of the `unknown` folders of `dir` are named as the known `classes`.
pub(crate) fn known_inside(
    scanner: &Scanner<'_>,
    unknown: &[&ClassFolder],
    classes: &[String],
) -> Option<String> {
    let is_known = |folder: &Folder| classes.contains(&folder.lossy_name);
    let holds_known = |class: &&&ClassFolder| {
        subfolders(scanner.lister, &class.dir).is_ok_and(|folders| folders.iter().any(is_known))
    };
    let dir = unknown.iter().take(LOOK).find(holds_known)?.dir.display();
    Some(format!("the folders in {dir} are named as classes: name that folder"))
}

// --- Looks ---------------------------------------------------------------------------------------
// They read folders beside the data set, without a cache. A folder that cannot be read holds nothing:
// whoever needs what is in it reports that.

/// The folder above `dir` if another folder there holds pictures as `dir` does.
fn classes_above(dir: &Path) -> Option<PathBuf> {
    let dir = fs::canonicalize(dir).ok()?;
    let above = dir.parent()?;
    let mut others = folders_in(above).filter(|folder| *folder != dir).take(LOOK);
    others.any(|folder| pictures_in(&folder).next().is_some()).then(|| above.to_path_buf())
}

/// Whether a picture is in `dir` or below it, as far as a look into `left` folders tells.
fn holds_pictures(dir: &Path, left: &mut usize) -> bool {
    if *left == 0 {
        return false;
    }
    *left -= 1;
    pictures_in(dir).next().is_some() || folders_in(dir).any(|folder| holds_pictures(&folder, left))
}

/// Pictures and shards that lie in `dir` itself.
fn pictures_in(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let is_picture = |path: &Path| is_image_path(path) || shard::is_shard(path);
    let files = entries(dir).filter(|(_, is_folder)| !is_folder).map(|(path, _)| path);
    files.filter(move |path| is_picture(path))
}

fn folders_in(dir: &Path) -> impl Iterator<Item = PathBuf> {
    entries(dir).filter(|(_, is_folder)| *is_folder).map(|(path, _)| path)
}

/// What is in `dir` and not hidden, and whether it is a folder.
fn entries(dir: &Path) -> impl Iterator<Item = (PathBuf, bool)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    entries.map(|entry| {
        let path = entry.path();
        // The type comes with the listing; only links cost a further look.
        let is_folder = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => path.is_dir(),
            Ok(kind) => kind.is_dir(),
            Err(_) => false,
        };
        (path, is_folder)
    })
}

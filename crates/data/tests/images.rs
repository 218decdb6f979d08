//! What is found by the paths that a person names.

#![allow(clippy::unwrap_used)] // a temporary folder that cannot be written is a failed test

use std::fs;
use std::path::{Path, PathBuf};

use bninception_data::images::Found;
use bninception_data::{
    DataError, DecodeOptions, FileSource, Lister, PackOptions, RgbImage, find_images, pack,
};
use tempfile::TempDir;

/// A folder with the given files; a picture where the name is that of one.
fn tree(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match file.ends_with(".png") {
            true => RgbImage::new(8, 8).save(path).unwrap(),
            false => fs::write(path, b"").unwrap(),
        }
    }
    dir
}

fn find(paths: &[&Path]) -> Result<Found, DataError> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
    find_images(&Lister::new(1), &paths)
}

fn names(dir: &Path, found: &Found) -> Vec<String> {
    let name = |path: &Path| path.strip_prefix(dir).unwrap().to_str().unwrap().replace('\\', "/");
    found.samples.iter().map(|sample| name(&sample.path)).collect()
}

#[test]
fn files_are_taken_as_they_are_and_folders_by_the_rules_of_classes() {
    let dir = tree(&[
        "z.dat",
        "in/b.JPG",
        "in/a/deep/c.png",
        "in/._b.jpg",
        "in/.cache/d.jpg",
        "in/notes.txt",
        "in/e.heic",
    ]);
    let at = |path: &str| dir.path().join(path);
    let found = find(&[&at("z.dat"), &at("in"), &at("missing.jpg"), &at("in/e.heic")]).unwrap();
    let expected = ["z.dat", "in/a/deep/c.png", "in/b.JPG", "missing.jpg", "in/e.heic"];
    assert_eq!(names(dir.path(), &found), expected);
    assert!(found.samples.iter().all(|sample| sample.label == 0));
    assert_eq!((found.ignored, found.notes.len()), (2, 1));
    assert!(found.notes[0].contains("1 .heic (pictures of a format"), "{:?}", found.notes);
    assert_eq!(find(&[]).unwrap(), Found::default());
}

#[test]
fn a_folder_without_an_image_is_an_error_that_says_what_is_there() {
    let dir = tree(&["empty/.hidden.jpg", "other/deep/1.heic", "other/2.txt", "other/3.txt"]);
    let error = find(&[&dir.path().join("empty")]).unwrap_err().to_string();
    assert!(error.contains("empty: no image in this folder or below it; expected"), "{error}");
    let error = find(&[&dir.path().join("other")]).unwrap_err().to_string();
    for part in ["other: no image", "(other files: 2 .txt, 1 .heic)", "jpg, jpeg", "convert them"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_loops_end() {
    use std::os::unix::fs::symlink;
    let dir = tree(&["in/a.jpg", "else/b.jpg"]);
    let at = |path: &str| dir.path().join(path);
    symlink(at("else"), at("in/link")).unwrap();
    symlink(at("in"), at("in/loop")).unwrap();
    symlink(at("nowhere"), at("in/broken.jpg")).unwrap();
    let found = find(&[&at("in")]).unwrap();
    assert_eq!(names(dir.path(), &found), ["in/a.jpg", "in/link/b.jpg"]);
    let note = |part: &str| found.notes.iter().any(|note| note.contains(part));
    assert!(note("broken.jpg is skipped") && note("loop is skipped"), "{:?}", found.notes);
}

#[test]
fn packed_folders_give_their_images_and_unfinished_ones_an_error() {
    let dir = tree(&["train/cat/1.png", "train/dog/deep/2.png", "val/cat/3.png"]);
    let out = tempfile::tempdir().unwrap();
    let options = PackOptions { short_side: 8, decode: DecodeOptions::default() };
    pack(&Lister::new(1), dir.path(), out.path(), &options, |_, _| (), &|_| ()).unwrap();
    let shard = out.path().join("train/dog/images-0000.pack");
    let one = shard.join("deep/2.png");
    let found = find(&[out.path(), &shard, &one]).unwrap();
    let packed = names(out.path(), &found);
    assert_eq!(packed[0], "train/cat/images-0000.pack/1.png");
    assert_eq!(packed[1], "train/dog/images-0000.pack/deep/2.png");
    assert_eq!(packed[3..], [packed[1].clone(), packed[1].clone()]);
    let source = FileSource::new(found.samples, DecodeOptions::default()).unwrap();
    for index in 0..5 {
        assert_eq!(source.read(index, &mut Default::default()).unwrap(), 3 * 8 * 8);
    }

    fs::write(out.path().join(".packing"), b"").unwrap();
    for path in ["", "train", "train/cat", "train/cat/images-0000.pack"] {
        let error = find(&[&out.path().join(path)]).unwrap_err().to_string();
        assert!(error.contains("it is being packed"), "{path}: {error}");
    }
    let above = tempfile::tempdir().unwrap();
    fs::rename(out.path(), above.path().join("packed")).unwrap();
    let error = find(&[above.path()]).unwrap_err().to_string();
    assert!(error.contains("it is being packed"), "{error}");
}

//! What a person is told of folders that are laid out otherwise than they should be, and of files
//! and folders that are not used. The files are empty: scanning opens none.

#![allow(clippy::unwrap_used)] // a temporary folder that cannot be written is a failed test

mod common;

use std::fs;
use std::path::Path;

use bninception_data::{
    DecodeOptions, Lister, PackOptions, ScanOptions, check, pack, scan, scan_classes, split,
};
use common::tree;

fn error_of(dir: &Path) -> String {
    scan(dir, &ScanOptions::default()).unwrap_err().to_string()
}

fn notes_of(files: &[&str]) -> Vec<String> {
    let dir = tree(files);
    let options = ScanOptions { val_fraction: 0.0, ..ScanOptions::default() };
    let notes = scan(dir.path(), &options).unwrap().notes;
    notes.iter().map(|note| note.replace(&dir.path().display().to_string(), "DIR")).collect()
}

#[test]
fn each_wrong_layout_has_its_own_error() {
    for (files, inside, parts) in [
        // Flat folders, and flat folders inside a data set.
        (
            &["1.jpg", "2.jpg", "3.png", "n.txt"][..],
            "",
            &[
                "no image found in class folders: 3 pictures lie directly in DIR, and each class needs \
               a folder of its own: sort them, such as DIR/cat/1.jpg, DIR/dog/2.jpg",
            ][..],
        ),
        (&["1.jpg", "a/", "b/"], "", &["1 picture lies directly in DIR"]),
        (
            &["train/1.jpg", "train/2.jpg"],
            "",
            &["DIR/train: no image", "2 pictures lie directly in DIR/train"],
        ),
        (&["train/1.jpg", "val/2.jpg", "test/3.jpg"], "", &["lies directly in DIR/train"]),
        (&["Train/1.jpg", "val/cat/2.jpg", "val/dog/2.jpg"], "", &["lies directly in DIR/Train"]),
        (&["train/", "val/cat/2.jpg"], "", &["DIR/train: no image found in class folders"]),
        // One class, by itself or in a folder.
        (
            &["cat/1.jpg", "dog/2.jpg"],
            "cat",
            &["1 picture lies directly in DIR/cat", "if DIR/cat is one class of several, name DIR"],
        ),
        (&["cat/1.jpg", "n.txt"], "", &["one class only, `cat`", "expected class folders"]),
        (&["cat/1.jpg", "2.jpg"], "", &["one class only, `cat`", "1 picture lies directly in DIR"]),
        // One level too deep.
        (
            &["set/cat/1.jpg", "set/dog/2.jpg"],
            "",
            &[
                "one class only, `set`",
                "it holds folders of pictures, `cat`, `dog`",
                "name DIR/set",
            ],
        ),
        (
            &["set/train/cat/1.jpg", "set/train/dog/2.jpg"],
            "",
            &["`train`: to train", "name DIR/set"],
        ),
        (
            &["images/cat/1.jpg", "images/dog/2.jpg", "annotations/1.xml"],
            "",
            &["no image in the class folder `annotations`", "`cat`, `dog`", "name DIR/images"],
        ),
        // Nothing that is read.
        (&["cat/1.heic", "dog/2.HEIC"], "", &["(2 other files: 2 .heic)", "convert them to JPEG"]),
        (&["cat/1.jpg", "dog/2.heic"], "", &["class folder `dog`", "1 .heic (pictures"]),
        (&["cat.tar", "dog.tar"], "", &["2 .tar (archives: unpack them"]),
        (&[".hidden.jpg"], "", &["no image found in class folders; expected class folders"]),
    ] {
        let dir = tree(files);
        let error = error_of(&dir.path().join(inside));
        let canonical = fs::canonicalize(dir.path()).unwrap().display().to_string();
        let error = error.replace(&dir.path().display().to_string(), "DIR");
        let error = error.replace(&canonical, "DIR");
        for part in parts {
            assert!(error.contains(part), "{files:?}: {part:?} is not in {error:?}");
        }
    }
}

#[test]
fn what_is_not_used_is_noted() {
    let clean = ["train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "val/b/4.jpg"];
    for (more, expected) in [
        (&["labels.csv", "train/a/n.txt", "notes/1.txt"][..], &[][..]),
        (
            &["extra/deep/x.jpg"],
            &[
                "DIR: `extra` is not used, though there are pictures inside: the images are those of \
               DIR/train and DIR/val",
            ],
        ),
        (&["extra/x.jpg", "test/x.jpg"], &["DIR: `extra`, `test` are not used"]),
        (&["test/a/x.jpg"], &["DIR/test is not used: DIR/val is the validation folder"]),
        (
            &["x.jpg"],
            &["1 picture lies directly in DIR and is not used, such as DIR/x.jpg: move it"],
        ),
        (
            &["train/x.jpg", "train/y.jpg"],
            &["2 pictures lie directly in DIR/train and are not used"],
        ),
        (&["val/x.jpg"], &["1 picture lies directly in DIR/val and is not used"]),
        (&["train/a/1.heic", "val/a/2.HEIC"], &["2 files are left out: 2 .heic (pictures of a"]),
        (&["train/a.zip"], &["1 file is left out: 1 .zip (archives"]),
    ] {
        let notes = notes_of(&[&clean[..], more].concat());
        assert_eq!(
            notes.len(),
            expected.len() + usize::from(more == ["test/a/x.jpg"]),
            "{notes:?}"
        );
        for part in expected {
            assert!(notes.iter().any(|note| note.starts_with(part)), "{more:?}: {notes:?}");
        }
    }
    let files: Vec<String> = (0..12).map(|i| format!("a/IMG_{i}")).collect();
    let mut files: Vec<&str> = files.iter().map(String::as_str).collect();
    files.extend(["a/1.jpg", "b/2.jpg"]);
    let notes = notes_of(&files);
    assert!(notes[0].starts_with("12 files are left out: 12 without extension"), "{notes:?}");
}

#[test]
fn classes_that_hold_the_same_folders_are_noted() {
    let deep = ["set1/cat/1.jpg", "set1/dog/2.jpg", "set2/cat/3.jpg", "set2/dog/4.jpg"];
    let notes = notes_of(&deep);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0]
            .contains("the classes are `set1`, `set2`, and each holds the folders `cat`, `dog`")
    );
    for files in [
        &["a/x/1.jpg", "a/y/2.jpg", "b/x/3.jpg"][..],
        &["a/x/1.jpg", "b/x/3.jpg"],
        &["a/x/1.jpg", "a/y/2.jpg", "b/x/3.jpg", "b/y/4.jpg", "b/5.jpg"],
    ] {
        assert_eq!(notes_of(files), [""; 0], "{files:?}");
    }
}

#[test]
fn every_command_is_told_of_what_is_left_out() {
    let dir = tree(&["cat/1.jpg", "dog/2.jpg", "cat/3.heic", "dog/4.txt"]);
    let lister = Lister::new(1);
    let told = |notes: &[String]| notes.iter().any(|note| note.contains("1 .heic (pictures"));
    let report = check(&lister, dir.path(), &DecodeOptions::default(), |_| (), &|_| ()).unwrap();
    assert!(told(&report.notes));
    assert_eq!(
        report.left_out.into_iter().collect::<Vec<_>>(),
        [(".heic".to_owned(), 1), (".txt".to_owned(), 1)]
    );
    let out = tempfile::tempdir().unwrap();
    let made = split(&lister, dir.path(), &out.path().join("split"), 0.5, 0).unwrap();
    assert!(told(&made.notes));
    let options = PackOptions { short_side: 8, decode: DecodeOptions::default() };
    let mut is_told_first = false;
    let start = |_, notes: &[String]| is_told_first = told(notes);
    let packed =
        pack(&lister, dir.path(), &out.path().join("p"), &options, start, &|_| ()).unwrap();
    assert!(told(&packed.notes) && is_told_first);
    let classes = ["cat", "dog"].map(str::to_owned);
    assert!(told(&scan_classes(dir.path(), &classes).unwrap().notes));

    // Nothing to pack is no pack; and a layout that is refused keeps its notes.
    let none = tree(&["cat/1.heic", "dog/2.heic"]);
    let error = pack(&lister, none.path(), &out.path().join("q"), &options, |_, _| (), &|_| ());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no image found") && error.contains("2 .heic"), "{error}");
    assert!(!out.path().join("q").exists());
    let one = tree(&["cat/1.jpg", "cat/2.heic"]);
    let report = check(&lister, one.path(), &DecodeOptions::default(), |_| (), &|_| ()).unwrap();
    assert!(report.layout.is_some() && told(&report.notes));
}

#[test]
fn names_that_look_alike_are_named() {
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let files = [format!("{composed}/1.jpg"), format!("{decomposed}/2.jpg"), "z/3.jpg".to_owned()];
    let dir = tree(&files.each_ref().map(String::as_str));
    if fs::read_dir(dir.path()).unwrap().count() < 3 {
        return; // this file system takes the two for one
    }
    let notes = scan(dir.path(), &ScanOptions::default()).unwrap().notes;
    let note = notes.iter().find(|note| note.contains("look alike")).unwrap();
    assert!(note.contains(r"`cafe\u{301}` and `caf\u{e9}`"), "{note}");
    let refused = |classes: &[&str], files: &[&str]| {
        let classes: Vec<String> = classes.iter().map(|name| (*name).to_owned()).collect();
        scan_classes(tree(files).path(), &classes).unwrap_err().to_string()
    };
    let error = refused(&[composed, "z"], &[&files[1], "z/3.jpg"]);
    assert!(error.contains("1 of 2 class folders is unknown"), "{error}");
    assert!(error.contains("differ in the Unicode form of their letters"), "{error}");
    let error = refused(&["cat", "z"], &["Cat/1.jpg", "z/3.jpg"]);
    assert!(error.contains("`cat` and `Cat` look alike and differ in capital letters"), "{error}");
    let error = refused(&["cat", "dog"], &["set/cat/1.jpg", "set/dog/3.jpg"]);
    assert!(error.contains("/set are named as classes: name that folder"), "{error}");
}

#[test]
fn a_class_is_not_the_validation_folder_too() {
    let dir = tree(&["a/1.jpg", "b/2.jpg", "held/a/3.jpg"]);
    let val_dir = Some(dir.path().join("held"));
    let options = ScanOptions { val_dir, ..ScanOptions::default() };
    let error = scan(dir.path(), &options).unwrap_err().to_string();
    assert!(error.contains("held: it would be a class and the validation folder too"), "{error}");
}

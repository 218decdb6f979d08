//! What scanning makes of folders of every shape. The files are empty: scanning opens none.

#![allow(clippy::unwrap_used)] // a temporary folder that cannot be written is a failed test

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bninception_data::listing::Listed;
use bninception_data::{
    DataError, Lister, Sample, ScanOptions, Splits, scan, scan_classes, scan_with,
};
use common::tree;
use tempfile::TempDir;

/// `label:path relative to the folder` of each sample.
fn listing(dir: &TempDir, samples: &[Sample]) -> Vec<String> {
    let relative =
        |path: &Path| path.strip_prefix(dir.path()).unwrap().to_str().unwrap().replace('\\', "/");
    samples.iter().map(|s| format!("{}:{}", s.label, relative(&s.path))).collect()
}

fn scan_all(dir: &TempDir) -> Splits {
    scan(dir.path(), &ScanOptions { val_fraction: 0.0, ..ScanOptions::default() }).unwrap()
}

/// Asserts that scanning fails with a message that has every one of `parts`.
fn assert_refused(files: &[&str], parts: &[&str]) {
    let dir = tree(files);
    let error = scan(dir.path(), &ScanOptions::default()).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{files:?}: {part:?} is not in {error:?}");
    }
}

#[test]
fn splits_are_found_by_name_and_sorted_by_bytes() {
    let dir = tree(&[
        "train/dog/b.jpg",
        "train/dog/a.PNG",
        "train/Zebra/1.jpeg",
        "train/cat/deep/er/2.webp",
        "train/cat/deep-1.gif",
        "train/cat/.hidden.jpg",
        "train/cat/.cache/3.jpg",
        "train/cat/notes.txt",
        "train/readme.md",
        "val/dog/c.tif",
        "val/cat/d.JFIF",
        "val/Zebra/e.bmp",
        "labels.csv",
    ]);
    let splits = scan(dir.path(), &ScanOptions::default()).unwrap();
    assert_eq!(splits.classes, ["Zebra", "cat", "dog"]);
    let train = [
        "0:train/Zebra/1.jpeg",
        "1:train/cat/deep/er/2.webp",
        "1:train/cat/deep-1.gif",
        "2:train/dog/a.PNG",
        "2:train/dog/b.jpg",
    ];
    assert_eq!(listing(&dir, &splits.train), train);
    assert_eq!(
        listing(&dir, &splits.val),
        ["0:val/Zebra/e.bmp", "1:val/cat/d.JFIF", "2:val/dog/c.tif"]
    );
    // readme.md is beside the classes; labels.csv is beside the splits, where no image is looked for.
    assert_eq!((splits.ignored, splits.notes), (2, vec![]));
}

#[test]
fn synonyms_are_taken_in_their_order_and_without_case() {
    for (train, val) in [("training", "validation"), ("TRAIN", "Valid"), ("train", "test")] {
        let dir = tree(&[
            &format!("{train}/a/1.jpg"),
            &format!("{train}/b/1.jpg"),
            &format!("{val}/a/1.jpg"),
        ]);
        let splits = scan(dir.path(), &ScanOptions::default()).unwrap();
        assert_eq!(listing(&dir, &splits.val), [format!("0:{val}/a/1.jpg")]);
        assert_eq!(splits.notes.len(), 1, "b has no validation image: {:?}", splits.notes);
    }
    let dir = tree(&["train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "val/a/3.jpg"]);
    let splits = scan(dir.path(), &ScanOptions::default()).unwrap();
    assert_eq!(listing(&dir, &splits.val), ["0:val/a/3.jpg"]);
    assert!(splits.notes[0].contains("test is not used"), "{:?}", splits.notes);
    assert_refused(
        &["train/a/1.jpg", "train/b/1.jpg", "training/a/1.jpg"],
        &["both `train` and `training`"],
    );
}

#[test]
fn a_class_may_be_called_train_or_test() {
    let dir = tree(&["bus/1.jpg", "train/2.jpg", "test/3.jpg"]);
    assert_eq!(
        listing(&dir, &scan_all(&dir).train),
        ["0:bus/1.jpg", "1:test/3.jpg", "2:train/2.jpg"]
    );
}

#[test]
fn classes_are_matched_by_name_never_by_position() {
    let dir =
        tree(&["train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/c/1.jpg", "val/b/1.jpg"]);
    let splits = scan(dir.path(), &ScanOptions::default()).unwrap();
    assert_eq!(listing(&dir, &splits.val), ["1:val/b/1.jpg", "2:val/c/1.jpg"]);
    assert_eq!(splits.notes.len(), 1);
    assert!(splits.notes[0].contains("no image of 1 of 3 classes: `a`"), "{:?}", splits.notes);
    assert_refused(
        &["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/d/1.jpg"],
        &["unknown to the training classes: `d`", "known are `a`, `b`"],
    );
}

#[test]
fn a_part_of_each_class_is_held_out() {
    let files: Vec<String> = (0..40)
        .map(|i| format!("a/{i:02}.jpg"))
        .chain((0..10).map(|i| format!("b/{i}.jpg")))
        .chain(["c/only.jpg".to_owned()])
        .collect();
    let dir = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let split = |val_fraction, seed| {
        let options = ScanOptions { val_dir: None, val_fraction, seed };
        let splits = scan(dir.path(), &options).unwrap();
        (listing(&dir, &splits.train), listing(&dir, &splits.val), splits.notes)
    };
    let (train, val, notes) = split(0.2, 1);
    let count = |list: &[String], label: &str| list.iter().filter(|s| s.starts_with(label)).count();
    assert_eq!(["0", "1", "2"].map(|label| count(&val, label)), [8, 2, 0]);
    assert_eq!(["0", "1", "2"].map(|label| count(&train, label)), [32, 8, 1]);
    let all: BTreeSet<&String> = train.iter().chain(&val).collect();
    assert_eq!(all.len(), 51, "every image is in one part");
    assert!(notes[0].contains("no validation image of `c`"), "{notes:?}");
    assert!(train.is_sorted() && val.is_sorted());

    assert_eq!(split(0.2, 1).1, val, "repeats by seed");
    assert_ne!(split(0.2, 2).1, val, "differs by seed");
    assert_eq!(split(0.0, 1).1, [""; 0], "nothing held out");
    let most = split(0.999, 1).0;
    assert_eq!(["0", "1", "2"].map(|label| count(&most, label)), [1, 1, 1], "one stays");

    for fraction in [1.0, -0.1, f64::NAN] {
        let options = ScanOptions { val_fraction: fraction, ..ScanOptions::default() };
        let error = scan(dir.path(), &options).unwrap_err().to_string();
        assert!(error.starts_with("val_fraction"), "{error}");
    }
}

#[test]
fn a_validation_folder_may_lie_elsewhere() {
    let (dir, other) = (tree(&["a/1.jpg", "b/1.jpg"]), tree(&["b/2.jpg"]));
    let options =
        ScanOptions { val_dir: Some(other.path().to_path_buf()), ..ScanOptions::default() };
    let splits = scan(dir.path(), &options).unwrap();
    assert_eq!(splits.train.len(), 2);
    assert_eq!(listing(&other, &splits.val), ["1:b/2.jpg"]);
}

#[test]
fn folders_that_are_no_data_sets_are_refused_with_advice() {
    assert_refused(
        &["notes.txt", "more.csv"],
        &["no image found", "2 other files", "train/cat/1.jpg"],
    );
    assert_refused(&["a/notes.txt", "b/more.csv"], &["no image found", "2 other files"]);
    assert_refused(&["a/1.jpg"], &["one class only, `a`"]);
    assert_refused(
        &["a/1.jpg", "b/1.jpg", "c/", "d/x.txt"],
        &["no image in the class folders `c`, `d`"],
    );
    assert_refused(&["val/a/1.jpg", "val/b/1.jpg"], &["no training folder (train, training)"]);
    assert_refused(
        &["train/a/1.jpg", "train/b/1.jpg", "val/1.jpg"],
        &["val: this validation folder has no class folders"],
    );
    let many: Vec<String> = (0..25).map(|i| format!("c{i:02}/")).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    many.push("a/1.jpg");
    assert_refused(&many, &["`c00`", "`c09` and 15 more"]);
    let dir = tree(&[]);
    let error = scan(&dir.path().join("nowhere"), &ScanOptions::default()).unwrap_err();
    assert!(error.to_string().contains("cannot list"), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn evaluation_labels_by_the_classes_of_the_network() {
    let classes = ["x", "b", "a"].map(str::to_owned);
    let dir = tree(&["train/a/0.jpg", "val/a/1.jpg", "val/b/2.jpg", "val/b/3.jpg"]);
    let found = scan_classes(dir.path(), &classes).unwrap();
    assert_eq!(listing(&dir, &found.samples), ["1:val/b/2.jpg", "1:val/b/3.jpg", "2:val/a/1.jpg"]);
    assert!(found.notes[0].contains("`x`"), "{:?}", found.notes);

    let dir = tree(&["a/1.jpg", "b/2.jpg"]);
    assert_eq!(scan_classes(dir.path(), &classes).unwrap().samples.len(), 2);

    let refused = |files: &[&str], part: &str| {
        let dir = tree(files);
        let error = scan_classes(dir.path(), &classes).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&["a/1.jpg", "c/1.jpg"], "unknown to the training classes: `c`");
    refused(&["train/a/1.jpg"], "no validation folder");
    refused(&["train/a/1.jpg", "test/1.jpg"], "has no class folders");
    refused(&["a/1.txt"], "no image found");
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_loops_end() {
    use std::os::unix::fs::symlink;
    let dir = tree(&["data/a/1.jpg", "data/b/2.jpg", "elsewhere/deep/3.jpg", "elsewhere/4.jpg"]);
    let at = |path: &str| dir.path().join(path);
    symlink(at("elsewhere/4.jpg"), at("data/a/file.jpg")).unwrap();
    symlink(at("elsewhere/deep"), at("data/a/folder")).unwrap();
    symlink(at("data/a"), at("data/a/loop")).unwrap();
    symlink(at("data"), at("elsewhere/deep/up")).unwrap();
    symlink(at("nowhere.jpg"), at("data/b/broken.jpg")).unwrap();
    symlink(at("elsewhere"), at("data/c")).unwrap();
    let options = ScanOptions { val_fraction: 0.0, ..ScanOptions::default() };
    let splits = scan(&at("data"), &options).unwrap();
    assert_eq!(splits.classes, ["a", "b", "c"]);
    let listed = listing(&dir, &splits.train);
    for expected in
        ["0:data/a/1.jpg", "0:data/a/file.jpg", "0:data/a/folder/3.jpg", "2:data/c/4.jpg"]
    {
        assert!(listed.iter().any(|found| found == expected), "{expected} is not in {listed:?}");
    }
    let note = |part: &str| splits.notes.iter().any(|note| note.contains(part));
    assert!(note("loop is skipped: it links to a folder that contains it"), "{:?}", splits.notes);
    assert!(note("broken.jpg is skipped"), "{:?}", splits.notes);
}

#[cfg(target_os = "linux")]
#[test]
fn class_names_must_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    for name in [&b"caf\xe9"[..], b"two\nlines"] {
        let dir = tree(&["a/1.jpg"]);
        let folder = dir.path().join(OsStr::from_bytes(name));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("1.jpg"), b"").unwrap();
        let error = scan(dir.path(), &ScanOptions::default()).unwrap_err().to_string();
        assert!(error.contains("rename the folder"), "{error}");
    }
}

/// Waits until the folders have settled: nobody can set the time of their last change.
fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(2100));
}

/// The splits by way of the cache, and how many folders were listed and reused.
fn cached(dir: &Path, cache: &Path) -> (Splits, Listed) {
    let mut lister = Lister::new(2).with_cache(Some(cache.to_path_buf()));
    lister.load(dir);
    let splits = scan_with(&lister, dir, &ScanOptions::default()).unwrap();
    let counts = lister.counts();
    lister.save(dir, true).unwrap();
    (splits, counts)
}

#[cfg(target_os = "linux")]
#[test]
fn a_cached_scan_finds_what_a_fresh_one_does() {
    let dir = tree(&["train/a/1.jpg", "train/a/deep/2.png", "train/a/x.txt", "train/b/3.jpg"]);
    let elsewhere = tree(&["7.jpg"]);
    let at = |path: &str| dir.path().join(path);
    let add = |path: &str| {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), b"x").unwrap();
    };
    add("val/a/4.jpg");
    add("val/b/5.jpg");
    let cache = tempfile::tempdir().unwrap();
    let fresh = || scan(dir.path(), &ScanOptions::default()).unwrap();
    let check = |expected: Option<Listed>| {
        let (splits, counts) = cached(dir.path(), cache.path());
        assert_eq!(splits, fresh());
        if let Some(expected) = expected {
            assert_eq!(counts, expected);
        }
    };
    settle();
    check(None);
    if cached(dir.path(), cache.path()).1.reused == 0 {
        return; // temporary files lie on a file system that is not believed
    }
    // DIR, train, train/a, train/a/deep, train/b, val, val/a, val/b.
    let all = Listed { listed: 0, reused: 8 };
    check(Some(all));

    // A folder that has just changed is listed again each time until it has settled, even if its
    // modification time was set back, as tar and rsync do it.
    let time = fs::metadata(at("train/a/deep")).unwrap().modified().unwrap();
    add("train/a/deep/6.jpg");
    fs::File::open(at("train/a/deep")).unwrap().set_modified(time).unwrap();
    let some = Some(Listed { listed: 1, reused: 7 });
    check(some);
    check(some);
    std::os::unix::fs::symlink(elsewhere.path().join("7.jpg"), at("val/b/7.jpg")).unwrap();
    check(Some(Listed { listed: 2, reused: 6 }));
    settle();
    check(None);
    // The link's target may go without a trace in its folder, so the folder is never reused.
    check(some);
    fs::remove_file(elsewhere.path().join("7.jpg")).unwrap();
    check(some);
    assert!(fresh().notes.iter().any(|note| note.contains("7.jpg is skipped")));

    // An image goes, and another folder of the same name comes with the time of the first.
    let time = fs::metadata(at("train/b")).unwrap().modified().unwrap();
    fs::rename(at("train/b"), elsewhere.path().join("b")).unwrap();
    add("train/b/8.jpg");
    fs::File::open(at("train/b")).unwrap().set_modified(time).unwrap();
    check(None);

    // A damaged cache is none, and so is one of an older version.
    for entry in fs::read_dir(cache.path().join("listings")).unwrap() {
        fs::write(entry.unwrap().path(), b"bninception listings v1\nnonsense").unwrap();
    }
    let (splits, counts) = cached(dir.path(), cache.path());
    assert_eq!((splits, counts.reused), (fresh(), 0));
}

#[test]
fn a_scan_ends_when_it_is_asked_to() {
    let dir = tree(&["train/a/1.jpg", "train/b/2.jpg"]);
    let stop = || true;
    let lister = Lister::new(0).with_stop(&stop);
    let error = scan_with(&lister, dir.path(), &ScanOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::Stopped));
}

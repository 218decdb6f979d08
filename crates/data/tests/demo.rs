//! The demo data: complete or absent, the same for the same options.

#![allow(clippy::unwrap_used)] // a temporary folder that cannot be written is a failed test

use std::fs;
use std::path::Path;

use bninception_data::demo::{DEMO_CLASSES, DemoOutcome};
use bninception_data::{DecodeOptions, DemoOptions, ScanOptions, decode_file, scan, write_demo};

const FEW: DemoOptions = DemoOptions { train_per_class: 3, val_per_class: 2, size: 32, seed: 5 };

/// The bytes of every picture, in the order of the scan.
fn pictures(dir: &Path) -> Vec<Vec<u8>> {
    let splits = scan(dir, &ScanOptions::default()).unwrap();
    splits.train.iter().chain(&splits.val).map(|s| fs::read(&s.path).unwrap()).collect()
}

#[test]
fn pictures_are_an_image_folder_and_repeat_by_seed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert_eq!(write_demo(&at("a"), &FEW).unwrap(), DemoOutcome::Written);
    let splits = scan(&at("a"), &ScanOptions::default()).unwrap();
    assert_eq!(splits.classes, DEMO_CLASSES);
    assert_eq!((splits.train.len(), splits.val.len()), (30, 20));
    assert_eq!((splits.ignored, splits.notes), (0, vec![]));
    let path = at("a").join("train/star/0002.png");
    let picture = decode_file(&path, &DecodeOptions::default()).unwrap();
    assert_eq!(picture.dimensions(), (32, 32));

    let found = pictures(&at("a"));
    let distinct: std::collections::BTreeSet<&Vec<u8>> = found.iter().collect();
    assert_eq!(distinct.len(), 50, "no picture is drawn twice");
    write_demo(&at("again"), &FEW).unwrap();
    assert!(pictures(&at("again")) == found);
    write_demo(&at("other"), &DemoOptions { seed: 6, ..FEW }).unwrap();
    assert!(pictures(&at("other")) != found);
    // More pictures do not change the first ones.
    write_demo(&at("more"), &DemoOptions { train_per_class: 4, ..FEW }).unwrap();
    let same = |name: &str| fs::read(at(name).join("train/ring/0001.png")).unwrap();
    assert!(same("more") == same("a"));
}

#[test]
fn complete_folders_are_reused_and_others_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let demo = dir.path().join("deep/demo");
    assert_eq!(write_demo(&demo, &FEW).unwrap(), DemoOutcome::Written);
    assert_eq!(write_demo(&demo, &FEW).unwrap(), DemoOutcome::Reused);
    let error = write_demo(&demo, &DemoOptions { seed: 6, ..FEW }).unwrap_err().to_string();
    assert!(error.contains("other options"), "{error}");
    let left: Vec<_> = fs::read_dir(demo.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left beside the folder");

    let mine = dir.path().join("mine");
    fs::create_dir(&mine).unwrap();
    assert_eq!(write_demo(&mine, &FEW).unwrap(), DemoOutcome::Written, "an empty folder is taken");
    let photos = dir.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("holiday.jpg"), b"").unwrap();
    let error = write_demo(&photos, &FEW).unwrap_err().to_string();
    assert!(error.contains("no demo pictures"), "{error}");
    assert!(photos.join("holiday.jpg").exists());

    for options in [DemoOptions { size: 4, ..FEW }, DemoOptions { val_per_class: 0, ..FEW }] {
        assert!(write_demo(&dir.path().join("bad"), &options).is_err());
        assert!(!dir.path().join("bad").exists());
    }
}

/// A crude classifier on colours alone must stay near chance: the class is the form.
#[test]
fn colours_do_not_give_the_class_away() {
    let dir = tempfile::tempdir().unwrap();
    let demo = dir.path().join("demo");
    let options = DemoOptions { train_per_class: 60, val_per_class: 30, size: 24, seed: 1 };
    write_demo(&demo, &options).unwrap();
    let splits = scan(&demo, &ScanOptions::default()).unwrap();
    // Mean of each channel over the picture.
    let features = |path: &Path| {
        let picture = decode_file(path, &DecodeOptions::default()).unwrap();
        let mut means = [0.0; 3];
        for pixel in picture.pixels() {
            for c in 0..3 {
                means[c] += f64::from(pixel[c]) / 576.0;
            }
        }
        means
    };
    let train: Vec<_> = splits.train.iter().map(|s| (features(&s.path), s.label)).collect();
    let correct = splits.val.iter().filter(|sample| {
        let own = features(&sample.path);
        let distance = |other: &[f64; 3]| -> f64 {
            own.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        let nearest =
            train.iter().min_by(|(a, _), (b, _)| distance(a).total_cmp(&distance(b))).unwrap();
        nearest.1 == sample.label
    });
    // Chance is 30 of 300; 56 lies five standard deviations above.
    let correct = correct.count();
    assert!(correct < 56, "{correct} of 300 by colour alone");
}

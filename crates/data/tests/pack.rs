//! Packed folders against the folders that they were made from.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bninception_data::packing::PackSummary;
use bninception_data::{
    AugmentConfig, Batch, Colour, DataError, DecodeOptions, FileSource, Lister, LoadOptions,
    Loader, PackOptions, Preprocessing, RgbImage, Sample, ScanOptions, TrainPlan, check,
    check_headers, pack, scan, scan_classes,
};
use image::Rgb;
use tempfile::TempDir;

/// A picture with a smooth part and an edge, other for each `seed`.
fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = (f64::from(x * (1 + seed % 3)) / 9.0).sin() + (f64::from(y) / 7.0).cos();
        let level = (wave * 50.0 + 120.0) as u8;
        let edge = if (x / 40 + y / 30 + seed).is_multiple_of(2) { 30 } else { 0 };
        Rgb([level, level / 2 + edge, 255 - level - edge])
    })
}

fn save(dir: &Path, name: &str, image: &RgbImage) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

/// `train` and `val` with two classes, a nested folder, and images larger and smaller than 64 px.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, name) in [
        "train/cat/b.png",
        "train/cat/a/z.png",
        "train/cat/c d.png",
        "train/dog/ü.png",
        "train/dog/x.png",
        "val/dog/1.png",
        "val/cat/2.png",
    ]
    .into_iter()
    .enumerate()
    {
        let i = i as u32;
        let (width, height) = [(300, 200), (150, 290), (50, 40)][i as usize % 3];
        save(dir.path(), name, &picture(width, height, i));
    }
    dir
}

fn options() -> PackOptions {
    PackOptions { short_side: 64, decode: DecodeOptions::default() }
}

fn pack_into(dir: &Path, out: &Path) -> Result<PackSummary, DataError> {
    pack(&Lister::new(2), dir, out, &options(), |_, _| (), &|_| ())
}

/// Paths inside their root, without the names of shards, and labels.
fn inner(root: &Path, samples: &[Sample]) -> Vec<(String, u32)> {
    let name = |path: &PathBuf| {
        let parts = path.strip_prefix(root).unwrap().iter().map(|part| part.to_str().unwrap());
        parts.filter(|part| !part.ends_with(".pack")).collect::<Vec<_>>().join("/")
    };
    samples.iter().map(|sample| (name(&sample.path), sample.label)).collect()
}

fn source(samples: &[Sample]) -> Arc<FileSource> {
    Arc::new(FileSource::new(samples.to_vec(), DecodeOptions::default()).unwrap())
}

fn small() -> Preprocessing {
    Preprocessing { image_size: 56, ..Preprocessing::default() }
}

fn evaluate(samples: &[Sample]) -> Batch {
    let options = LoadOptions { batch_size: 100, workers: 0, prefetch: 1 };
    Loader::eval(source(samples), &small(), &options).unwrap().next().unwrap().unwrap()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn a_packed_folder_is_scanned_like_its_source() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    let summary = pack_into(dir.path(), out.path()).unwrap();
    assert_eq!((summary.images, summary.made, summary.kept), (7, 4, 0));
    assert!(summary.failed.is_empty());
    let options = ScanOptions::default();
    let (plain, packed) =
        (scan(dir.path(), &options).unwrap(), scan(out.path(), &options).unwrap());
    assert_eq!(packed.classes, plain.classes);
    assert_eq!(inner(out.path(), &packed.train), inner(dir.path(), &plain.train));
    assert_eq!(inner(out.path(), &packed.val), inner(dir.path(), &plain.val));
    let classes = scan_classes(out.path(), &plain.classes).unwrap();
    assert_eq!(classes.samples, packed.val);
}

#[test]
fn a_folder_without_splits_holds_out_the_same_images() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..40 {
        save(dir.path(), &format!("{}/{i}.png", ["a", "b"][i % 2]), &picture(20, 20, i as u32));
    }
    pack_into(dir.path(), out.path()).unwrap();
    let options = ScanOptions { val_fraction: 0.3, seed: 5, ..ScanOptions::default() };
    let (plain, packed) =
        (scan(dir.path(), &options).unwrap(), scan(out.path(), &options).unwrap());
    assert_eq!(packed.val.len(), 12);
    assert_eq!(inner(out.path(), &packed.val), inner(dir.path(), &plain.val));
    assert_eq!(inner(out.path(), &packed.train), inner(dir.path(), &plain.train));
}

#[test]
fn evaluation_sees_the_same_pixels_within_a_level() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    pack_into(dir.path(), out.path()).unwrap();
    let options = ScanOptions::default();
    let samples = |dir: &Path, train: bool| {
        let splits = scan(dir, &options).unwrap();
        if train { splits.train } else { splits.val }
    };
    for train in [true, false] {
        let plain = evaluate(&samples(dir.path(), train));
        let packed = evaluate(&samples(out.path(), train));
        assert_eq!(packed.labels, plain.labels);
        assert_eq!(packed.images.len(), plain.images.len());
        let apart = packed.images.iter().zip(&plain.images).map(|(a, b)| a.abs_diff(*b));
        let most = apart.max().unwrap();
        assert!(most <= 1, "{most} levels apart");
    }
}

#[test]
fn training_on_images_that_fit_sees_the_same_bits() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..12 {
        save(dir.path(), &format!("{}/{i}.png", ["a", "b"][i % 2]), &picture(64, 70, i as u32));
    }
    pack_into(dir.path(), out.path()).unwrap();
    let batches = |dir: &Path| {
        let options = ScanOptions { val_fraction: 0.0, ..ScanOptions::default() };
        let splits = scan(dir, &options).unwrap();
        let plan = TrainPlan {
            augment: AugmentConfig { colour: Colour::Full, ..AugmentConfig::default() },
            ..TrainPlan::new(3, 0..5)
        };
        let load = LoadOptions { batch_size: 4, workers: 2, prefetch: 1 };
        let loader = Loader::train(source(&splits.train), &small(), &load, &plan).unwrap();
        loader.map(|batch| batch.unwrap().images).collect::<Vec<_>>()
    };
    assert_eq!(batches(dir.path()), batches(out.path()));
}

#[test]
fn unreadable_images_keep_their_place_and_are_named() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("train/cat/broken.jpg"), b"<html>no image</html>").unwrap();
    let summary = pack_into(dir.path(), out.path()).unwrap();
    let [failure] = summary.failed.as_slice() else { panic!("{:?}", summary.failed) };
    assert!(failure.path.ends_with("train/cat/broken.jpg"));
    assert!(failure.error.contains("not a JPEG"), "{}", failure.error);

    let splits = scan(out.path(), &ScanOptions::default()).unwrap();
    let batch = evaluate(&splits.train);
    assert_eq!((batch.labels.len(), batch.failed.len()), (5, 1));
    assert!(batch.failed[0].error.contains("broken.jpg: not a JPEG"), "{}", batch.failed[0].error);
    let lister = Lister::new(1);
    let options = DecodeOptions::default();
    let bad = check_headers(&lister, &splits.train, &options, &|_| ()).unwrap();
    assert_eq!(bad, batch.failed);
    let report = check(&lister, out.path(), &options, |_| (), &|_| ()).unwrap();
    assert!(report.breaks_a_run());
    assert_eq!((report.images(), report.unreadable.len()), (8, 1));
}

#[test]
fn a_packing_that_was_stopped_goes_on_and_ends_the_same() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    let whole = tempfile::tempdir().unwrap();
    pack_into(dir.path(), whole.path()).unwrap();

    let looks = AtomicUsize::new(0);
    let stop = || looks.fetch_add(1, Ordering::Relaxed) > 22;
    let lister = Lister::new(1).with_stop(&stop);
    let stopped = pack(&lister, dir.path(), out.path(), &options(), |_, _| (), &|_| ());
    assert!(matches!(stopped, Err(DataError::Stopped)), "{stopped:?}");
    for place in [out.path().to_path_buf(), out.path().join("val")] {
        let error = scan_classes(&place, &["cat".into(), "dog".into()]).unwrap_err().to_string();
        assert!(error.contains("run `data pack`"), "{error}");
    }
    // What a process leaves behind that is killed.
    fs::write(out.path().join("train/cat/.images-0000.pack.partial"), b"half").unwrap();
    let summary = pack_into(dir.path(), out.path()).unwrap();
    assert!(summary.kept > 0 && summary.made > 0, "{summary:?}");
    let names = |root: &Path| -> Vec<PathBuf> {
        files_below(root).iter().map(|f| f.strip_prefix(root).unwrap().to_path_buf()).collect()
    };
    assert_eq!(names(out.path()), names(whole.path()));
    for name in names(out.path()) {
        assert!(
            fs::read(out.path().join(&name)).unwrap()
                == fs::read(whole.path().join(&name)).unwrap()
        );
    }
}

#[test]
fn packing_again_takes_up_what_changed() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    pack_into(dir.path(), out.path()).unwrap();
    save(dir.path(), "train/dog/x.png", &picture(90, 91, 77));
    save(dir.path(), "train/dog/y.png", &picture(90, 91, 78));
    let summary = pack_into(dir.path(), out.path()).unwrap();
    assert_eq!((summary.images, summary.made, summary.kept), (8, 1, 3));
    assert_eq!(scan(out.path(), &ScanOptions::default()).unwrap().train.len(), 6);

    fs::remove_dir_all(dir.path().join("train/dog")).unwrap();
    let error = pack_into(dir.path(), out.path()).unwrap_err().to_string();
    assert!(error.contains("dog") && error.contains("no class of the folder to pack"), "{error}");
}

#[test]
fn shards_follow_one_another_in_order_and_none_may_be_missing() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    save(dir.path(), "a/0.png", &picture(8, 8, 0));
    let bytes = fs::read(dir.path().join("a/0.png")).unwrap();
    for i in 1..1100 {
        fs::write(dir.path().join(format!("a/{i}.png")), &bytes).unwrap();
    }
    save(dir.path(), "b/0.png", &picture(8, 8, 1));
    let summary = pack_into(dir.path(), out.path()).unwrap();
    assert_eq!((summary.images, summary.made), (1101, 3));
    let options = ScanOptions { val_fraction: 0.0, ..ScanOptions::default() };
    let (plain, packed) =
        (scan(dir.path(), &options).unwrap(), scan(out.path(), &options).unwrap());
    assert_eq!(inner(out.path(), &packed.train), inner(dir.path(), &plain.train));

    // Fewer images, fewer shards.
    for i in 1000..1100 {
        fs::remove_file(dir.path().join(format!("a/{i}.png"))).unwrap();
    }
    let summary = pack_into(dir.path(), out.path()).unwrap();
    assert_eq!((summary.images, summary.made, summary.kept), (1001, 1, 1));
    assert!(!out.path().join("a/images-0001.pack").exists());

    for i in 1000..1100 {
        fs::write(dir.path().join(format!("a/{i}.png")), &bytes).unwrap();
    }
    pack_into(dir.path(), out.path()).unwrap();
    fs::remove_file(out.path().join("a/images-0000.pack")).unwrap();
    let error = scan(out.path(), &options).unwrap_err().to_string();
    assert!(error.contains("1 of 2 shards are there"), "{error}");
}

#[test]
fn damage_is_found_where_it_is() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    pack_into(dir.path(), out.path()).unwrap();
    let splits = scan(out.path(), &ScanOptions::default()).unwrap();
    let shard = out.path().join("train/cat/images-0000.pack");
    let whole = fs::read(&shard).unwrap();
    let mut damaged = whole.clone();
    damaged[100] ^= 1; // pixels of the first image
    fs::write(&shard, &damaged).unwrap();
    let batch = evaluate(&splits.train);
    assert_eq!((batch.labels.len(), batch.failed.len()), (4, 1));
    assert!(batch.failed[0].error.contains("are damaged; pack again"), "{}", batch.failed[0].error);
    let options = DecodeOptions::default();
    let report = check(&Lister::new(1), out.path(), &options, |_| (), &|_| ()).unwrap();
    assert_eq!(report.unreadable.len(), 1);

    fs::write(&shard, &whole[..whole.len() - 3]).unwrap();
    let error = scan(out.path(), &ScanOptions::default()).unwrap_err().to_string();
    assert!(error.contains("images-0000.pack") && error.contains("pack again"), "{error}");
    assert!(FileSource::new(splits.train, options).is_err());
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    let message = |dir: &Path, out: &Path| pack_into(dir, out).unwrap_err().to_string();
    assert!(message(dir.path(), &dir.path().join("packed")).contains("lies in the folder to pack"));
    fs::remove_dir(dir.path().join("packed")).unwrap();

    let marker = File::create(out.path().join(".packing")).unwrap();
    marker.try_lock().unwrap();
    assert!(message(dir.path(), out.path()).contains("another process is packing"));
    drop(marker);
    pack_into(dir.path(), out.path()).unwrap();

    let again = tempfile::tempdir().unwrap();
    assert!(message(out.path(), again.path()).contains("packed already"));

    let splits = scan(out.path(), &ScanOptions::default()).unwrap();
    let raw = DecodeOptions { exif: false, ..DecodeOptions::default() };
    let error = FileSource::new(splits.train, raw).unwrap_err().to_string();
    assert!(error.starts_with("data.exif = false"), "{error}");
}

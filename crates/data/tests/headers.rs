//! Which files a look at their headers finds unusable.

#![allow(clippy::unwrap_used)] // a temporary folder that cannot be written is a failed test

use std::fs;
use std::path::Path;

use bninception_data::{
    DecodeOptions, Lister, PackOptions, Sample, ScanOptions, check_headers, decode,
    median_short_side, pack, scan, scan_with,
};

fn sound_files() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode");
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if decode(&bytes, &DecodeOptions::default()).is_ok() {
            files.push((path.file_name().unwrap().to_str().unwrap().to_owned(), bytes));
        }
    }
    assert!(files.len() > 30, "the fixtures are there");
    files
}

fn check(dir: &Path, names: &[&str], options: &DecodeOptions) -> Vec<String> {
    let sample = |name: &&str| Sample { path: dir.join(name), label: 0 };
    let samples: Vec<Sample> = names.iter().map(sample).collect();
    let failures = check_headers(&Lister::new(2), &samples, options, &|_| {}).unwrap();
    failures.into_iter().map(|failure| failure.error).collect()
}

#[test]
fn whatever_decodes_has_a_sound_header() {
    let dir = tempfile::tempdir().unwrap();
    let files = sound_files();
    for (name, bytes) in &files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(check(dir.path(), &names, &DecodeOptions::default()), Vec::<String>::new());
}

#[test]
fn what_is_no_image_is_named_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    // A PNG header that announces 60,000 x 60,000 pixels.
    let mut huge =
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
    huge.extend(0x0fb0_e215_u32.to_be_bytes()); // its checksum
    huge.extend(b"\0\0\0\0IDAT");
    let cases: [(&str, &[u8], &str); 6] = [
        ("empty.jpg", b"", "the file is empty"),
        ("text.jpg", b"this is not a picture, whatever its name says", "not a JPEG"),
        ("page.png", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML page"),
        ("cut.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF", "truncated"),
        ("huge.png", &huge, "60000 x 60000"),
        ("missing.jpg", b"", "cannot read the file"),
    ];
    for (name, bytes, _) in &cases[..5] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let names: Vec<&str> = cases.iter().map(|case| case.0).collect();
    let errors = check(dir.path(), &names, &DecodeOptions::default());
    assert_eq!(errors.len(), cases.len(), "{errors:?}");
    for ((name, _, reason), error) in cases.iter().zip(&errors) {
        assert!(error.contains(name) && error.contains(reason), "{name}: {error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn sound_folders_are_passed_over_until_they_change() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, bytes) = &sound_files()[0];
    for name in ["a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png"] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    // A scan with a look at headers, which is noted if all are sound, as a run does it.
    let bad = |val_fraction: f64, max_pixels: u64| {
        let mut lister = Lister::new(1).with_cache(Some(cache.path().to_path_buf()));
        lister.load(dir.path());
        let scan_options = ScanOptions { val_fraction, ..ScanOptions::default() };
        let splits = scan_with(&lister, dir.path(), &scan_options).unwrap();
        let options = DecodeOptions { max_pixels, ..DecodeOptions::default() };
        let bad = check_headers(&lister, &splits.train, &options, &|_| {}).unwrap();
        if bad.is_empty() {
            lister.mark_sound(&splits.train, &options);
        }
        lister.save(dir.path(), true).unwrap();
        (bad.len(), lister.counts().reused)
    };
    // Folders are believed once they have not changed for two seconds.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let options = ScanOptions { val_fraction: 0.34, ..ScanOptions::default() };
    let held_out = scan_with(&Lister::new(1), dir.path(), &options).unwrap().val;
    let max = DecodeOptions::default().max_pixels;
    assert_eq!(bad(0.34, max).0, 0);
    if bad(0.34, max).1 == 0 {
        return; // temporary files lie on a file system that is not believed
    }
    // Written over in place: the folder does not change, and the file is met when it is decoded.
    let trained = ["a/1.png", "a/2.png"].map(|name| dir.path().join(name));
    let trained = trained.iter().find(|path| held_out.iter().all(|val| val.path != **path));
    fs::write(trained.unwrap(), b"broken").unwrap();
    assert_eq!(bad(0.34, max).0, 0, "a is known to be sound");
    // What was held out has not been looked at, nor was anything by other rules.
    fs::write(trained.unwrap(), bytes).unwrap();
    fs::write(&held_out[0].path, b"broken").unwrap();
    assert_eq!(bad(0.34, max).0, 0, "an image that is held out is not looked at");
    assert_eq!(bad(0.0, max).0, 1, "now it is");
    assert!(bad(0.34, 1).0 > 0, "one pixel is less than any picture has");
    // A folder that changes is looked at again.
    fs::write(trained.unwrap(), b"broken").unwrap();
    assert_eq!(bad(0.34, max).0, 0, "a is known to be sound");
    fs::write(dir.path().join("a/4.txt"), bytes).unwrap();
    assert_eq!(bad(0.34, max).0, 1, "a has changed");
}

#[test]
fn the_short_side_of_a_data_set_is_the_median() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    let options = DecodeOptions::default();
    for class in ["a", "b"] {
        fs::create_dir_all(photos.join("train").join(class)).unwrap();
        for (k, (width, height)) in
            [(40, 30), (32, 90), (70, 70), (20, 25), (50, 64)].iter().enumerate()
        {
            let path = photos.join("train").join(class).join(format!("{k}.png"));
            image::RgbImage::new(*width, *height).save(path).unwrap();
        }
        fs::write(photos.join("train").join(class).join("x.png"), "broken").unwrap();
    }
    let scan_of = |dir: &Path| scan(dir, &ScanOptions::default()).unwrap();
    let train = scan_of(&photos).train;
    // Short sides 20, 30, 32, 50 and 70, twice; what cannot be read has none.
    assert_eq!(median_short_side(&train, &options).unwrap(), Some(32));
    let few = DecodeOptions { max_pixels: 1_000, ..options };
    assert_eq!(
        median_short_side(&train, &few).unwrap(),
        Some(20),
        "the others count as unreadable"
    );
    assert_eq!(median_short_side(&train[..0], &options).unwrap(), None);
    let packed = dir.path().join("packed");
    let to_28 = PackOptions { short_side: 28, decode: options };
    pack(&Lister::new(1), &photos, &packed, &to_28, |_, _| (), &|_| ()).unwrap();
    let train = scan_of(&packed).train;
    assert_eq!(median_short_side(&train, &options).unwrap(), Some(28));
}

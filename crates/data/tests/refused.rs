//! Files that are not read, and what all who look at a file say of them.

#![allow(clippy::unwrap_used)] // a broken fixture is a failed test

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bninception_data::headers::{Look, look};
use bninception_data::{
    DecodeOptions, Lister, PackOptions, Sample, check, check_headers, decode, decode_file, pack,
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Names of the files that are not read, and a part of the reason.
fn refused() -> Vec<(String, String)> {
    let cases = fs::read_to_string(fixtures().join("refused/cases.txt")).unwrap();
    let case = |line: &str| {
        let (name, reason) = line.split_once('\t').unwrap();
        (name.to_owned(), reason.to_owned())
    };
    let cases: Vec<_> = cases.lines().map(case).collect();
    assert!(cases.len() > 40, "a fixture is missing");
    cases
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    for (name, reason) in refused() {
        let path = fixtures().join("refused").join(&name);
        let error = decode_file(&path, &DecodeOptions::default()).unwrap_err().to_string();
        assert!(error.contains(&name) && error.contains(&reason), "{error}");
        // What is not read is told before memory is taken for pixels.
        let none = DecodeOptions { max_pixels: 0, ..DecodeOptions::default() };
        let error = decode(&fs::read(&path).unwrap(), &none).unwrap_err().to_string();
        let is_size = error.contains("the limit is 0 pixels");
        assert!(
            error.contains(&reason) || is_size || error.contains("JPEGs of"),
            "{name}: {error}"
        );
    }
}

/// A folder of two classes with every fixture, sound or not.
fn folder() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (class, from) in [("a", "decode"), ("b", "kinds"), ("c", "refused")] {
        fs::create_dir(dir.path().join(class)).unwrap();
        for entry in fs::read_dir(fixtures().join(from)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().unwrap() != "txt" {
                let copy = dir.path().join(class).join(path.file_name().unwrap());
                fs::copy(&path, &copy).unwrap();
                files.push(copy);
            }
        }
    }
    files.sort();
    (dir, files)
}

#[test]
fn all_who_look_at_a_file_say_the_same() {
    let (dir, files) = folder();
    let options = DecodeOptions::default();
    let lister = Lister::new(2);
    let refused: BTreeMap<String, String> = refused().into_iter().collect();

    // The reason without the path in front of it, by file.
    let mut decoded = BTreeMap::new();
    for path in &files {
        let whole = decode_file(path, &options);
        let of_bytes = decode(&fs::read(path).unwrap(), &options);
        assert_eq!(whole.is_ok(), of_bytes.is_ok(), "{}", path.display());
        if let Err(reason) = of_bytes {
            let error = format!("{}: {reason}", path.display());
            assert_eq!(whole.unwrap_err().to_string(), error);
            decoded.insert(path.clone(), reason.to_string());
        }
    }
    assert_eq!(decoded.len(), refused.len());

    let sample = |path: &PathBuf| Sample { path: path.clone(), label: 0 };
    let samples: Vec<Sample> = files.iter().map(sample).collect();
    let looked: BTreeMap<PathBuf, String> = check_headers(&lister, &samples, &options, &|_| {})
        .unwrap()
        .into_iter()
        .map(|f| (f.path.clone(), f.error.replace(&format!("{}: ", f.path.display()), "")))
        .collect();
    // All are so small that they are looked at as a whole; JPEGs in a TIFF are checked then too.
    assert_eq!(looked, decoded);

    let checked = check(&lister, dir.path(), &options, |_| {}, &|_| {}).unwrap();
    let checked: BTreeMap<PathBuf, String> =
        checked.unreadable.into_iter().map(|found| (found.path, found.what)).collect();
    assert_eq!(checked, decoded);

    let out = tempfile::tempdir().unwrap();
    let pack_options = PackOptions { short_side: 16, decode: options };
    let packed =
        pack(&lister, dir.path(), &out.path().join("out"), &pack_options, |_, _| {}, &|_| {})
            .unwrap();
    let packed: BTreeMap<PathBuf, String> =
        packed.failed.into_iter().map(|failure| (failure.path, failure.error)).collect();
    assert_eq!(packed, decoded);
}

#[test]
fn the_first_bytes_condemn_no_file_that_decodes() {
    let (_dir, files) = folder();
    let options = DecodeOptions::default();
    let mut n_sound = 0;
    for path in files {
        let bytes = fs::read(&path).unwrap();
        let decoded = decode(&bytes, &options);
        for n_first in (512..bytes.len()).step_by(97) {
            match (look(&bytes[..n_first], false, &options), &decoded) {
                (Look::Bad(reason), Err(error)) => {
                    assert_eq!(reason.to_string(), error.to_string())
                }
                (Look::Bad(reason), Ok(_)) => panic!("{}: {reason}", path.display()),
                (Look::Sound, _) => n_sound += 1,
                (Look::Unknown, _) => {}
            }
        }
    }
    assert!(n_sound > 1000, "{n_sound} looks at a part found a header");
}

#[test]
fn foreign_files_and_limits_are_found_in_files_of_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("1.jpg");
    let options = DecodeOptions { max_pixels: 1000, ..DecodeOptions::default() };
    let sample = [Sample { path: path.clone(), label: 0 }];
    let looked = || {
        let failures = check_headers(&Lister::new(1), &sample, &options, &|_| {}).unwrap();
        failures.into_iter().map(|failure| failure.error).next().unwrap()
    };
    let cases = [
        ("refused/long_page.jpg", "an HTML page"),
        ("refused/photo_heic.jpg", "a HEIC or HEIF photo"),
        ("refused/zeros.jpg", "begins with"),
        ("decode/rgb_420.jpg", "61 x 47 pixels"),
        ("decode/rgb.png", "61 x 47 pixels"),
        ("decode/animated.gif", "61 x 47 pixels"),
        ("decode/rgb.bmp", "61 x 47 pixels"),
        ("decode/rgb.tiff", "61 x 47 pixels"),
    ];
    for (name, reason) in cases {
        // Longer than what is read of it, and damaged there.
        let mut bytes = fs::read(fixtures().join(name)).unwrap();
        bytes.resize(200_000, 0xEE);
        fs::write(&path, bytes).unwrap();
        let error = looked();
        assert!(error.contains(reason), "{name}: {error}");
        assert_eq!(error, decode_file(&path, &options).unwrap_err().to_string(), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_is_no_image_and_nobody_waits_for_it() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.jpg");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let link = dir.path().join("link.jpg");
    symlink(&pipe, &link).unwrap();
    let device = dir.path().join("device.png");
    symlink("/dev/zero", &device).unwrap();
    let options = DecodeOptions::default();
    for path in [&pipe, &link, &device, &dir.path().to_path_buf()] {
        let error = decode_file(path, &options).unwrap_err().to_string();
        assert!(error.contains("is no regular file"), "{error}");
        let sample = [Sample { path: path.clone(), label: 0 }];
        let failures = check_headers(&Lister::new(1), &sample, &options, &|_| {}).unwrap();
        assert_eq!(failures[0].error, error);
    }
}

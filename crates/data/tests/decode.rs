//! Every kind of image file against Pillow, and files that are none.
//!
//! The fixtures are written by `tools/reference/data_fixtures.py`.

#![allow(clippy::unwrap_used)] // a broken fixture is a failed test

use std::fs;
use std::path::{Path, PathBuf};

use bninception_data::random::{Purpose, sample_rng};
use bninception_data::{DataError, DecodeError, DecodeOptions, RgbImage, decode, decode_file};
use rand::RngExt;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode")
}

/// The image files among the fixtures, sorted.
fn image_files() -> Vec<PathBuf> {
    let folders = [fixtures(), fixtures().with_file_name("kinds")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut files: Vec<PathBuf> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.to_str().unwrap().ends_with(".expected.png"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 46 + 65, "a fixture is missing");
    files
}

fn expected(path: &Path) -> RgbImage {
    let name = format!("{}.expected.png", path.file_name().unwrap().to_str().unwrap());
    decode_file(&path.with_file_name(name), &DecodeOptions::default()).unwrap()
}

/// The largest difference, and the 99th percentile of the differences.
fn differences(found: &RgbImage, expected: &RgbImage) -> (u8, u8) {
    assert_eq!(found.dimensions(), expected.dimensions());
    let mut all: Vec<u8> = found.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
    all.sort_unstable();
    (all[all.len() - 1], all[all.len() * 99 / 100])
}

#[test]
fn every_format_decodes_as_pillow_does() {
    for path in image_files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let found = decode_file(&path, &DecodeOptions::default()).unwrap();
        let (largest, most) = differences(&found, &expected(&path));
        // All must agree but JPEG, whose transform and upsampling may round otherwise, and the colours
        // of YCbCr, which Pillow takes from tables.
        let (largest_allowed, most_allowed) = match name.split_once('.').unwrap() {
            (_, "jpg") => (6, 3),
            ("jpeg" | "jpeg_grey" | "jpeg_ycbcr", "tiff") => (6, 3),
            ("ycbcr", "tiff") => (1, 1),
            _ => (0, 0),
        };
        assert!(
            largest <= largest_allowed && most <= most_allowed,
            "{name}: largest difference {largest}, on 99 % at most {most}"
        );
    }
}

#[test]
fn exif_orientation_is_applied_unless_told_otherwise() {
    let upright = decode_file(&fixtures().join("exif_1.jpg"), &DecodeOptions::default()).unwrap();
    assert_eq!(upright.dimensions(), (40, 24));
    let as_stored = DecodeOptions { exif: false, ..DecodeOptions::default() };
    for orientation in 1..=8 {
        let path = fixtures().join(format!("exif_{orientation}.jpg"));
        assert_eq!(decode_file(&path, &as_stored).unwrap(), upright, "{orientation} as stored");
        let turned = decode_file(&path, &DecodeOptions::default()).unwrap();
        let swaps_sides = orientation >= 5;
        assert_eq!(turned.dimensions() == (24, 40), swaps_sides, "{orientation}");
        assert_eq!(turned == upright, orientation == 1, "{orientation}");
    }
}

#[test]
fn content_decides_not_the_extension() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("really_a_png.jpg");
    fs::copy(fixtures().join("rgb.png"), &path).unwrap();
    let found = decode_file(&path, &DecodeOptions::default()).unwrap();
    assert_eq!(found, expected(&fixtures().join("rgb.png")));
}

#[test]
fn limits_hold_before_decoding() {
    let options = DecodeOptions { max_pixels: 61 * 47 - 1, ..DecodeOptions::default() };
    for name in ["rgb_444.jpg", "rgb.png", "lossy.webp", "rgb.bmp", "animated.gif", "lzw.tiff"] {
        let bytes = fs::read(fixtures().join(name)).unwrap();
        let error = decode(&bytes, &options).unwrap_err();
        let expected = matches!(error, DecodeError::TooManyPixels { width: 61, height: 47, .. });
        assert!(expected, "{name}: {error}");
    }
    let options = DecodeOptions { max_bytes: 100, ..DecodeOptions::default() };
    let path = fixtures().join("rgb.png");
    let error = decode_file(&path, &options).unwrap_err().to_string();
    assert!(error.contains("rgb.png") && error.contains("the limit is 100"), "{error}");
    assert!(decode(&fs::read(path).unwrap(), &options).is_err());
}

#[test]
fn a_huge_header_takes_no_memory() {
    // The width and height of a PNG header, and its checksum, replaced by 60000 x 60000.
    let mut png = fs::read(fixtures().join("rgb.png")).unwrap();
    png[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    png[29..33].copy_from_slice(&0x0fb0_e215_u32.to_be_bytes());
    let error = decode(&png, &DecodeOptions::default()).unwrap_err();
    assert!(matches!(error, DecodeError::TooManyPixels { width: 60_000, .. }), "{error}");
}

#[test]
fn truncated_files_are_errors() {
    for path in image_files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = fs::read(&path).unwrap();
        for percent in [1, 10, 30, 50, 70, 90] {
            let part = &bytes[..bytes.len() * percent / 100];
            // What has several frames or pages is complete, for us, after its first.
            let complete_from = match name {
                "animated.gif" => 30,
                "second_frame.gif" | "pages.tiff" => 70,
                _ => 100,
            };
            if percent >= complete_from {
                continue;
            }
            let found = decode(part, &DecodeOptions::default());
            assert!(found.is_err(), "{name} decodes from its first {percent} %");
        }
    }
}

#[test]
fn files_that_are_no_images_are_errors_with_path_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], &str); 5] = [
        ("empty.jpg", b"", "the file is empty"),
        ("page.jpg", b"<!DOCTYPE html><html>", "not a JPEG, PNG, WebP, BMP, GIF or TIFF image"),
        ("zeros.png", &[0; 64], "not a JPEG, PNG, WebP, BMP, GIF or TIFF image"),
        ("start.jpg", &[0xFF, 0xD8, 0xFF], "truncated"),
        ("photo.ico", b"\0\0\x01\0\x01\0\x10\x10", "not a JPEG, PNG"),
    ];
    for (name, bytes, reason) in cases {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = decode_file(&path, &DecodeOptions::default()).unwrap_err();
        assert!(matches!(&error, DataError::Image { path: found, .. } if *found == path));
        let message = error.to_string();
        assert!(message.contains(name) && message.contains(reason), "{message}");
    }
    let missing = decode_file(&dir.path().join("missing.jpg"), &DecodeOptions::default());
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("missing.jpg: cannot read the file"), "{message}");
    assert!(decode_file(dir.path(), &DecodeOptions::default()).is_err(), "a folder");
}

/// Changed bytes give an image or an error; decoders may not panic, hang or take all memory.
#[test]
fn damaged_files_never_panic() {
    let options = DecodeOptions { max_pixels: 1_000_000, ..DecodeOptions::default() };
    let (mut n_images, mut n_errors) = (0, 0);
    for (file_idx, path) in image_files().into_iter().enumerate() {
        let original = fs::read(&path).unwrap();
        for case in 0..100 {
            let mut rng = sample_rng(11, file_idx as u64, case, Purpose::Augment);
            let mut bytes = original.clone();
            for _ in 0..rng.random_range(1..=8) {
                // Half of the changes meet the header, where they do the most harm.
                let end = if rng.random() { bytes.len().min(64) } else { bytes.len() };
                bytes[rng.random_range(0..end)] = rng.random();
            }
            if rng.random_range(0..4) == 0 {
                bytes.truncate(rng.random_range(0..=original.len()));
            }
            match decode(&bytes, &options) {
                Ok(image) => {
                    assert!(u64::from(image.width()) * u64::from(image.height()) <= 1_000_000);
                    n_images += 1;
                }
                Err(_) => n_errors += 1,
            }
        }
    }
    assert!(n_images > 500 && n_errors > 500, "{n_images} images, {n_errors} errors");
}

//! JPEGs decoded at a part of their size.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bninception_data::decode::{DecodeBuffers, Wanted, decode_file_with};
use bninception_data::resize::Resizer;
use bninception_data::{
    AugmentConfig, Colour, DecodeOptions, FileSource, Filter, LoadOptions, Loader, Preprocessing,
    RgbImage, Sample, TrainPlan,
};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, Rgb};
use tempfile::TempDir;

fn photo(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x), f64::from(y));
        let level =
            |k: f64| (120.0 + 60.0 * (x / (30.0 * k)).sin() + 50.0 * (y / (45.0 / k)).cos()) as u8;
        Rgb([level(1.0), level(1.7), level(2.3)])
    })
}

/// Writes a JPEG; `orientation` is that of its EXIF block.
fn write(path: &Path, image: &DynamicImage, orientation: Option<u8>) {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 92).encode_image(image).unwrap();
    if let Some(orientation) = orientation {
        // TIFF header, one entry: tag 0x0112, type SHORT, count 1 (CIPA DC-008, 4.6).
        let mut block = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        block.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        let length = (block.len() as u16 + 2).to_be_bytes();
        let segment = [&[0xFF, 0xE1], &length[..], &block].concat();
        bytes.splice(2..2, segment);
    }
    fs::write(path, bytes).unwrap();
}

fn decode(path: &Path, options: DecodeOptions, divisor: u32) -> ((u32, u32), RgbImage) {
    let mut told = Vec::new();
    let mut want = |width, height| {
        told.push((width, height));
        Wanted { divisor, ..Wanted::ALL }
    };
    let image = decode_file_with(path, &options, &mut want, &mut DecodeBuffers::default()).unwrap();
    assert_eq!(told.len(), 1, "told once");
    (told[0], image)
}

/// Largest distance in levels.
fn apart(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn the_scale_keeps_to_what_is_allowed_and_shows_the_same_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("photo.jpg");
    write(&path, &photo(803, 602).into(), None);
    let options = DecodeOptions::default();
    let (_, full) = decode(&path, options, 1);
    for (allowed, divisor) in [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 8), (100, 8)] {
        let (told, image) = decode(&path, options, allowed);
        assert_eq!(told, (803, 602));
        let size = (803_u32.div_ceil(divisor), 602_u32.div_ceil(divisor));
        assert_eq!(image.dimensions(), size, "allowed {allowed}");
        // Blocks are as wide as they would be without the edge that cuts the last ones off.
        let (width, height) = (803 / 8 * 8, 602 / 8 * 8);
        let whole = image::imageops::crop_imm(&full, 0, 0, width, height).to_image();
        let mut resizer = Resizer::default();
        let expected = resizer.fit(&whole, Filter::Area, width / divisor, height / divisor);
        let part = image::imageops::crop_imm(&image, 0, 0, width / divisor, height / divisor);
        let apart = apart(part.to_image().as_raw(), expected);
        assert!(apart <= 6, "1/{divisor}: {apart} levels apart");
        let plain = DecodeOptions { scaled: false, ..options };
        assert_eq!(decode(&path, plain, allowed).1.dimensions(), (803, 602));
    }
}

#[test]
fn grey_and_turned_photos_come_out_alike() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("photo.jpg");
    let options = DecodeOptions::default();
    write(&path, &DynamicImage::ImageRgb8(photo(640, 480)).into_luma8().into(), None);
    let (_, grey) = decode(&path, options, 4);
    assert_eq!(grey.dimensions(), (160, 120));
    assert!(grey.pixels().all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));

    for orientation in 1..=8 {
        write(&path, &photo(640, 480).into(), Some(orientation));
        let (told, small) = decode(&path, options, 4);
        let (_, full) = decode(&path, options, 1);
        assert_eq!(told, full.dimensions(), "orientation {orientation}");
        assert_eq!(small.dimensions(), (told.0 / 4, told.1 / 4));
        let mut resizer = Resizer::default();
        let expected = resizer.fit(&full, Filter::Area, small.width(), small.height());
        assert!(apart(small.as_raw(), expected) <= 6, "orientation {orientation}");
    }
}

#[test]
fn training_views_differ_by_little_and_only_where_photos_are_large() {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let views = |size: (u32, u32), scaled: bool| -> Vec<u8> {
        let path: PathBuf = dir.path().join("photo.jpg");
        write(&path, &photo(size.0, size.1).into(), None);
        let options = DecodeOptions { scaled, ..DecodeOptions::default() };
        let sample = Sample { path, label: 0 };
        let source = Arc::new(FileSource::new(vec![sample; 4], options).unwrap());
        let preprocessing = Preprocessing { image_size: 48, ..Preprocessing::default() };
        let plan = TrainPlan {
            augment: AugmentConfig { colour: Colour::None, ..AugmentConfig::default() },
            ..TrainPlan::new(1, 0..6)
        };
        let load = LoadOptions { batch_size: 4, workers: 0, prefetch: 1 };
        let loader = Loader::train(source, &preprocessing, &load, &plan).unwrap();
        loader.flat_map(|batch| batch.unwrap().images).collect()
    };
    // No crop of an image of 90 pixels has twice the 48.
    assert_eq!(views((90, 90), true), views((90, 90), false));
    let (small, full) = (views((1000, 750), true), views((1000, 750), false));
    assert_ne!(small, full);
    let apart = || small.iter().zip(&full).map(|(a, b)| a.abs_diff(*b));
    let mean = apart().map(f64::from).sum::<f64>() / full.len() as f64;
    let most = apart().max().unwrap();
    assert!(mean < 2.0 && most < 24, "mean {mean}, most {most} levels apart");
}

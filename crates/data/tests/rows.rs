//! JPEGs of which only the first rows are wanted.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bninception_data::decode::{DecodeBuffers, Want, Wanted, decode, decode_with};
use bninception_data::resize::Interpolation;
use bninception_data::{
    AugmentConfig, DataError, DecodeOptions, FileSource, LoadOptions, Loader, Preprocessing,
    RgbImage, Sample, Source, TrainPlan,
};
use image::codecs::jpeg::JpegEncoder;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode");
    fs::read(folder.join(name)).unwrap()
}

fn first_rows(bytes: &[u8], rows: u32) -> RgbImage {
    let wanted = Wanted { rows, ..Wanted::ALL };
    decode_with(bytes, &DecodeOptions::default(), &mut |_, _| wanted).unwrap()
}

fn n_black_rows(image: &RgbImage) -> usize {
    let row_bytes = image.width() as usize * 3;
    let rows = image.as_raw().chunks_exact(row_bytes).rev();
    rows.take_while(|row| row.iter().all(|level| *level == 0)).count()
}

#[test]
fn the_rows_that_are_wanted_are_those_of_the_whole_image() {
    // The rows of a block, where the decoder can stop early: 8, or 16 if colours have half the rows.
    let files = [
        ("rgb_444.jpg", Some(8)),
        ("rgb_422.jpg", Some(8)),
        ("rgb_420.jpg", Some(16)),
        ("restart.jpg", Some(16)),
        ("grey.jpg", Some(8)),
        ("cmyk.jpg", Some(8)),
        ("ycck.jpg", Some(8)),
        ("progressive.jpg", None), // every scan is about all rows
    ];
    for (name, block) in files {
        let bytes = fixture(name);
        let whole = decode(&bytes, &DecodeOptions::default()).unwrap();
        let (width, height) = whole.dimensions();
        for rows in 0..=height + 1 {
            let image = first_rows(&bytes, rows);
            assert_eq!(image.dimensions(), (width, height), "{name}, {rows} rows");
            let n_equal = rows.min(height) as usize * width as usize * 3;
            assert!(image.as_raw()[..n_equal] == whole.as_raw()[..n_equal], "{name}, {rows} rows");
            // The blocks that hold the rows, two at least, and one more are decoded.
            let kept = block.map_or(height, |block| (rows.div_ceil(block) + 1).max(2) * block);
            let skipped = height.saturating_sub(kept) as usize;
            assert_eq!(n_black_rows(&image), skipped, "{name}, {rows} rows");
        }
    }
}

#[test]
fn images_that_are_turned_are_decoded_in_full() {
    for orientation in 1..=8 {
        let bytes = fixture(&format!("exif_{orientation}.jpg"));
        let whole = decode(&bytes, &DecodeOptions::default()).unwrap();
        let image = first_rows(&bytes, 3);
        let is_cut = orientation <= 2; // upright, or mirrored left to right
        assert_eq!(image == whole, !is_cut, "orientation {orientation}");
        assert_eq!(image.dimensions(), whole.dimensions());
        let n_equal = 3 * whole.width() as usize * 3;
        assert!(image.as_raw()[..n_equal] == whole.as_raw()[..n_equal]);
    }
}

#[test]
fn scaled_decoding_stops_early_too() {
    for (name, block) in [("rgb_444.jpg", 8), ("rgb_420.jpg", 16), ("restart.jpg", 16)] {
        let bytes = fixture(name);
        let options = DecodeOptions::default();
        let at_half =
            |rows| decode_with(&bytes, &options, &mut |_, _| Wanted { divisor: 2, rows }).unwrap();
        let whole = at_half(u32::MAX);
        assert_eq!(whole.dimensions(), (31, 24), "{name}");
        for rows in 0..48 {
            let image = at_half(rows);
            assert_eq!(image.dimensions(), whole.dimensions(), "{name}, {rows} rows");
            let n_equal = rows as usize / 2 * 31 * 3;
            assert!(image.as_raw()[..n_equal] == whole.as_raw()[..n_equal], "{name}, {rows} rows");
            let kept = match cfg!(feature = "turbo") {
                true => 48, // libjpeg-turbo takes more rows than announced for damage
                false => (rows.div_ceil(block) + 1).max(2) * block,
            };
            let skipped = 24_usize.saturating_sub(kept as usize / 2);
            assert_eq!(n_black_rows(&image), skipped, "{name}, {rows} rows");
        }
    }
}

#[test]
fn a_broken_header_is_left_to_the_decoder() {
    let bytes = fixture("rgb_420.jpg");
    let scan = bytes.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
    // Every byte of every segment, to four values: no panic, and never other rows than in full.
    for at in 2..scan + 14 {
        for value in [0x00, 0x01, 0x7F, 0xFF] {
            let mut broken = bytes.clone();
            broken[at] = value;
            let whole = decode(&broken, &DecodeOptions::default());
            let wanted = Wanted { rows: 8, ..Wanted::ALL };
            let part = decode_with(&broken, &DecodeOptions::default(), &mut |_, _| wanted);
            match (whole, part) {
                (Ok(whole), Ok(part)) => {
                    assert_eq!(part.dimensions(), whole.dimensions(), "byte {at} = {value}");
                    let n = 8.min(whole.height() as usize) * whole.width() as usize * 3;
                    assert!(part.as_raw()[..n] == whole.as_raw()[..n], "byte {at} = {value}");
                }
                (Err(_), Err(_)) => {}
                // What is broken may lie behind the rows that are wanted.
                (Err(_), Ok(part)) => assert!(n_black_rows(&part) > 0, "byte {at} = {value}"),
                (Ok(_), Err(error)) => panic!("byte {at} = {value}: {error}"),
            }
        }
    }
}

/// Loads with all rows, or as asked, and counts the images of which some rows were left black.
struct Counted {
    files: FileSource,
    all_rows: bool,
    n_cut: AtomicUsize,
}

impl Source for Counted {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn label(&self, index: usize) -> u32 {
        self.files.label(index)
    }

    fn path(&self, index: usize) -> &Path {
        self.files.path(index)
    }

    fn load(
        &self,
        index: usize,
        want: Want<'_>,
        buffers: &mut DecodeBuffers,
    ) -> Result<RgbImage, DataError> {
        let mut with_all_rows = |width, height| match self.all_rows {
            true => Wanted { rows: u32::MAX, ..want(width, height) },
            false => want(width, height),
        };
        let image = self.files.load(index, &mut with_all_rows, buffers)?;
        self.n_cut.fetch_add(usize::from(n_black_rows(&image) > 0), Ordering::Relaxed);
        Ok(image)
    }
}

#[test]
fn training_views_are_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    // At 32 px, crops of the first are taken at full size, most of the second at a part of it.
    for (width, height) in [(60, 75), (403, 611)] {
        let path = dir.path().join("image.jpg");
        let image = RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([x * 7 + y, 40 + y % 200, x * y / 50].map(|level| level as u8 | 1))
        });
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&image).unwrap();
        fs::write(&path, bytes).unwrap();
        for interpolation in
            [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Random]
        {
            let views = |all_rows: bool| {
                let sample = Sample { path: path.clone(), label: 0 };
                let options = DecodeOptions::default();
                let files = FileSource::new(vec![sample; 8], options).unwrap();
                let source = Arc::new(Counted { files, all_rows, n_cut: AtomicUsize::new(0) });
                let preprocessing = Preprocessing { image_size: 32, ..Preprocessing::default() };
                let plan = TrainPlan {
                    augment: AugmentConfig { interpolation, ..AugmentConfig::default() },
                    ..TrainPlan::new(3, 0..10)
                };
                let load = LoadOptions { batch_size: 8, workers: 0, prefetch: 1 };
                let loader = Loader::train(source.clone(), &preprocessing, &load, &plan).unwrap();
                let views: Vec<u8> = loader.flat_map(|batch| batch.unwrap().images).collect();
                (views, source.n_cut.load(Ordering::Relaxed))
            };
            let (expected, none) = views(true);
            let (found, n_cut) = views(false);
            assert!(found == expected, "{width} x {height}, {interpolation:?}");
            assert_eq!(none, 0);
            let is_cut = width < 64 || cfg!(not(feature = "turbo"));
            assert!(n_cut > 20 || !is_cut, "{n_cut} of 80 images were decoded in part");
        }
    }
}

//! Resizing, evaluation crops and colours against Pillow and NumPy.
//!
//! The fixtures are written by `tools/reference/data_fixtures.py`.

#![allow(clippy::unwrap_used)] // a broken fixture is a failed test

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bninception_data::colour::Operation;
use bninception_data::crop::Region;
use bninception_data::crop::random_crop;
use bninception_data::random::{Purpose, sample_rng};
use bninception_data::resize::{Edge, Resizer};
use bninception_data::{
    DecodeOptions, Filter, Preprocessing, RgbImage, decode_file, preprocess_file,
};

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder)
}

fn read(path: &Path) -> RgbImage {
    decode_file(path, &DecodeOptions::default()).unwrap()
}

/// The lines of `cases.txt`, as words.
fn cases(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("cases.txt")).unwrap();
    text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

fn number<T: FromStr<Err: std::fmt::Debug>>(word: &str) -> T {
    word.parse().unwrap()
}

/// The largest difference, and the 99th percentile of the differences.
fn differences(found: &[u8], expected: &[u8]) -> (u8, u8) {
    assert_eq!(found.len(), expected.len());
    let mut all: Vec<u8> = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).collect();
    all.sort_unstable();
    (all[all.len() - 1], all[all.len() * 99 / 100])
}

#[test]
fn regions_are_resized_as_pillow_does() {
    let folder = fixtures("resize");
    let source = read(&folder.join("source.png"));
    let mut resizer = Resizer::default();
    let cases = cases(&folder);
    assert_eq!(cases.len(), 14);
    for case in cases {
        let edge = if case[1] == "cut" { Edge::Cut } else { Edge::Continue };
        let filter = match case[2].as_str() {
            "nearest" => Filter::Nearest,
            "area" => Filter::Area,
            "bilinear" => Filter::Bilinear,
            _ => Filter::Bicubic,
        };
        let size = number(&case[3]);
        let region = Region {
            left: number(&case[4]),
            top: number(&case[5]),
            width: number(&case[6]),
            height: number(&case[7]),
        };
        let expected = read(&folder.join(format!("{}.png", case[0])));
        let found = resizer.resize(&source, region, edge, filter, size);
        let (largest, most) = differences(found, expected.as_raw());
        // A cubic overshoots at edges, where the pass that comes first clips; ours is the vertical
        // one, Pillow's the horizontal one.
        let largest_allowed = if filter == Filter::Bicubic { 8 } else { 1 };
        assert!(
            largest <= largest_allowed && most <= 1,
            "{}: largest difference {largest}, on 99 % at most {most}",
            case[0]
        );
    }
}

#[test]
fn evaluation_sees_the_pixels_of_resize_and_centre_crop_within_one_level() {
    let folder = fixtures("eval");
    let cases = cases(&folder);
    assert_eq!(cases.len(), 5);
    for case in cases {
        let preprocessing = Preprocessing {
            image_size: number(&case[1]),
            crop_ratio: number(&case[2]),
            ..Preprocessing::default()
        };
        let path = folder.join(format!("{}.source.png", case[0]));
        let found = preprocess_file(&path, &preprocessing).unwrap();
        let expected = read(&folder.join(format!("{}.png", case[0])));
        assert_eq!(found.len(), 3 * preprocessing.image_size * preprocessing.image_size);
        let (difference, _) = differences(&found, expected.as_raw());
        assert!(difference <= 1, "case {}: largest difference {difference}", case[0]);
    }
}

#[test]
fn colours_are_torchvisions_within_two_levels() {
    let folder = fixtures("colour");
    let source = read(&folder.join("source.png"));
    let cases = cases(&folder);
    assert_eq!(cases.len(), 12);
    for case in cases {
        let mut planes: Vec<f32> = (0..3)
            .flat_map(|c| source.pixels().map(move |pixel| f32::from(pixel[c]) / 255.0))
            .collect();
        for operation in case[1..].chunks_exact(2) {
            let amount = number(&operation[1]);
            let operation = match operation[0].as_str() {
                "brightness" => Operation::Brightness(amount),
                "contrast" => Operation::Contrast(amount),
                "saturation" => Operation::Saturation(amount),
                "hue" => Operation::Hue(amount),
                other => panic!("an operation named {other}"),
            };
            operation.apply(&mut planes);
        }
        let n_pixels = planes.len() / 3;
        let level = |i: usize, c: usize| (planes[c * n_pixels + i] * 255.0).round() as u8;
        let found: Vec<u8> =
            (0..n_pixels).flat_map(|i| [level(i, 0), level(i, 1), level(i, 2)]).collect();
        let expected = read(&folder.join(format!("{}.png", case[0])));
        // The chains were computed on floats, the single operations on bytes, which torchvision
        // rounds down. (On Pillow's images its hue has 8 bits; that differs by up to 5 levels.)
        let limit = if case[0].starts_with("all") { 1 } else { 2 };
        let (difference, _) = differences(&found, expected.as_raw());
        assert!(difference <= limit, "{}: largest difference {difference}", case[0]);
    }
}

#[test]
fn random_crops_have_torchvisions_distribution() {
    const N: u64 = 100_000;
    let lines = fs::read_to_string(fixtures("crop").join("deciles.txt")).unwrap();
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (width, height) = (words[0].parse().unwrap(), words[1].parse().unwrap());
        let mut values: Vec<f64> = (0..N)
            .map(|index| {
                let mut rng = sample_rng(3, 0, index, Purpose::Augment);
                let crop = random_crop(width, height, [0.08, 1.0], [0.75, 4.0 / 3.0], &mut rng);
                match words[2] {
                    "left" => crop.left,
                    "top" => crop.top,
                    "width" => crop.width,
                    "height" => crop.height,
                    _ => crop.width * crop.height,
                }
            })
            .collect();
        values.sort_by(f64::total_cmp);
        for (i, decile) in words[3..].iter().enumerate() {
            let decile: f64 = decile.parse().unwrap();
            // Whole numbers come in lumps: the decile's own lump must reach across its rank. Five
            // standard errors of a rank: sqrt(p (1 - p) (1 / 100,000 + 1 / 200,000)), p = 1/2.
            let (rank, slack) = ((i + 1) as f64 / 10.0, 5.0 * 0.5 * (1.5e-5_f64).sqrt());
            let below = values.partition_point(|&value| value < decile) as f64 / N as f64;
            let through = values.partition_point(|&value| value <= decile) as f64 / N as f64;
            assert!(
                below <= rank + slack && through >= rank - slack,
                "{line}: decile {} lies between {below} and {through}",
                i + 1
            );
        }
    }
}

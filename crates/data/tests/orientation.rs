//! Orientations in every format, byte order and kind of number.

#![allow(clippy::unwrap_used)] // a broken fixture is a failed test

use std::fs;
use std::path::Path;

use bninception_data::decode::{Wanted, decode_with};
use bninception_data::{DecodeOptions, Lister, RgbImage, check, decode};
use image::metadata::Orientation;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode");
    fs::read(folder.join(name)).unwrap()
}

/// A directory with an orientation, as SHORT or LONG.
fn block(is_big_endian: bool, is_long: bool, number: u8) -> Vec<u8> {
    // TIFF header, one entry: tag 0x0112, kind 3 or 4, count 1 (CIPA DC-008, 4.6).
    let (head, value): (&[u8], _) = match (is_big_endian, is_long) {
        (false, false) => (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", [number, 0, 0, 0]),
        (false, true) => (b"II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0", [number, 0, 0, 0]),
        (true, false) => (b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01", [0, number, 0, 0]),
        (true, true) => (b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01", [0, 0, 0, number]),
    };
    [head, &value, &[0; 4]].concat()
}

fn jpeg(block: &[u8]) -> Vec<u8> {
    let mut bytes = fixture("exif_1.jpg");
    // Its own EXIF segment gives way.
    let at = bytes.windows(2).position(|two| two == [0xFF, 0xE1]).unwrap();
    let length = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]) as usize;
    let new = (block.len() as u16 + 8).to_be_bytes();
    bytes.splice(at..at + 2 + length, [&[0xFF, 0xE1], &new[..], b"Exif\0\0", block].concat());
    bytes
}

/// With a checksum that is wrong, which no decoder minds in a chunk that it need not read.
fn png(block: &[u8]) -> Vec<u8> {
    let mut bytes = fixture("rgb.png");
    let at = bytes.windows(4).position(|four| four == b"IEND").unwrap() - 4;
    let length = (block.len() as u32).to_be_bytes();
    bytes.splice(at..at, [&length[..], b"eXIf", block, &[0; 4]].concat());
    bytes
}

fn webp(block: &[u8]) -> Vec<u8> {
    let mut bytes = fixture("exif_6.webp");
    let at = bytes.windows(4).position(|four| four == b"EXIF").unwrap();
    bytes.truncate(at);
    let length = (block.len() as u32).to_le_bytes();
    bytes.extend([&b"EXIF"[..], &length, block].concat());
    let riff = (bytes.len() as u32 - 8).to_le_bytes();
    bytes[4..8].copy_from_slice(&riff);
    bytes
}

/// Grey, 3 x 2 pixels; the tags of `block` and those of the picture.
fn tiff(is_big_endian: bool, is_long: bool, number: u8) -> Vec<u8> {
    let short = |value: u16| match is_big_endian {
        true => value.to_be_bytes(),
        false => value.to_le_bytes(),
    };
    let long = |value: u32| match is_big_endian {
        true => value.to_be_bytes(),
        false => value.to_le_bytes(),
    };
    let mut bytes = if is_big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
    bytes.extend(long(14));
    bytes.extend([10, 60, 110, 160, 210, 250]);
    let entries = [
        (256, 3, 3),
        (257, 3, 2),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (274, if is_long { 4 } else { 3 }, u32::from(number)),
        (279, 4, 6),
    ];
    bytes.extend(short(entries.len() as u16));
    for (tag, kind, value) in entries {
        bytes.extend([&short(tag)[..], &short(kind), &long(1)].concat());
        match kind {
            3 => bytes.extend([&short(value as u16)[..], &[0, 0]].concat()),
            _ => bytes.extend(long(value)),
        }
    }
    bytes.extend([0; 4]);
    bytes
}

fn turned(image: &RgbImage, number: u8) -> RgbImage {
    let mut image = image::DynamicImage::ImageRgb8(image.clone());
    image.apply_orientation(Orientation::from_exif(number).unwrap());
    image.into_rgb8()
}

#[test]
fn every_format_is_turned_in_both_byte_orders_by_short_and_long_numbers() {
    let as_stored = DecodeOptions { exif: false, ..DecodeOptions::default() };
    for (is_big_endian, is_long) in [(false, false), (false, true), (true, false), (true, true)] {
        for number in 1..=8 {
            let block = block(is_big_endian, is_long, number);
            let files = [
                ("JPEG", jpeg(&block)),
                ("PNG", png(&block)),
                ("WebP", webp(&block)),
                ("TIFF", tiff(is_big_endian, is_long, number)),
            ];
            for (format, bytes) in files {
                let case =
                    format!("{format}, {number}, big endian {is_big_endian}, long {is_long}");
                let stored = decode(&bytes, &as_stored).expect(&case);
                let expected = turned(&stored, number);
                assert_eq!(decode(&bytes, &DecodeOptions::default()).unwrap(), expected, "{case}");
                // Whoever wants the first rows gets those of the turned picture.
                let wanted = Wanted { rows: 1, ..Wanted::ALL };
                let part = decode_with(&bytes, &DecodeOptions::default(), &mut |width, height| {
                    assert_eq!((width, height), expected.dimensions(), "{case}");
                    wanted
                });
                let part = part.unwrap();
                assert_eq!(part.dimensions(), expected.dimensions(), "{case}");
                let row = expected.width() as usize * 3;
                assert!(part.as_raw()[..row] == expected.as_raw()[..row], "{case}");
            }
        }
    }
}

#[test]
fn a_check_counts_what_decoding_turns() {
    let dir = tempfile::tempdir().unwrap();
    let mut n_turned = 0;
    for class in ["a", "b"] {
        fs::create_dir(dir.path().join(class)).unwrap();
        for number in 0..=9 {
            let block = block(class == "a", true, number);
            for (name, bytes) in
                [("j.jpg", jpeg(&block)), ("p.png", png(&block)), ("w.webp", webp(&block))]
            {
                fs::write(dir.path().join(class).join(format!("{number}{name}")), bytes).unwrap();
                n_turned += usize::from((2..=8).contains(&number));
            }
        }
    }
    let options = DecodeOptions::default();
    let report = check(&Lister::new(2), dir.path(), &options, |_| {}, &|_| {}).unwrap();
    assert!(report.unreadable.is_empty(), "{:?}", report.unreadable);
    assert_eq!(report.turned, n_turned);
}

//! `check` on a folder with every kind of bad file, and `split` on a good one.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // broken fixtures fail; says what it skips

use std::fs;
use std::path::Path;

use bninception_data::check::Report;
use bninception_data::{DataError, DecodeOptions, Lister, ScanOptions, check, decode, scan, split};
use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

/// A picture that compresses to a JPEG with real entropy-coded data.
fn picture(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let v = x.wrapping_mul(7 + seed).wrapping_add(y.wrapping_mul(13)) ^ (x * y / 5);
        Rgb([v as u8, (v / 3) as u8, (x + y + seed) as u8])
    })
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn report(dir: &Path, workers: usize) -> Report {
    let lister = Lister::new(workers);
    check(&lister, dir, &DecodeOptions::default(), |_| {}, &|_| {}).unwrap()
}

fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (class, name) in [("cat", "one"), ("cat", "two"), ("dog", "one"), ("dog", "two")] {
        let seed = class.len() as u32 * 100 + u32::from(class.as_bytes()[0]) + name.len() as u32;
        let image = picture(seed + u32::from(name.as_bytes()[0]), 64, 48);
        write(
            dir.path(),
            &format!("train/{class}/{name}.jpg"),
            &encoded(&image, ImageFormat::Jpeg),
        );
        let image = picture(seed + 1000 + u32::from(name.as_bytes()[0]), 64, 48);
        write(dir.path(), &format!("val/{class}/{name}.png"), &encoded(&image, ImageFormat::Png));
    }
    dir
}

#[test]
fn a_good_folder_passes() {
    let dir = folder();
    let report = report(dir.path(), 2);
    assert!(!report.breaks_a_run(), "{report:?}");
    assert_eq!(report.images(), 8);
    assert_eq!(report.formats.into_iter().collect::<Vec<_>>(), [("JPEG", 4), ("PNG", 4)]);
    assert_eq!(report.sizes.into_iter().collect::<Vec<_>>(), [(4096, 8)]);
    assert!(report.suspicious.is_empty() && report.misnamed.is_empty());
    assert!(report.duplicates.is_empty(), "{:?}", report.duplicates);
}

/// The checksum of a PNG chunk (<https://www.w3.org/TR/png-3/#5CRC-algorithm>).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    })
}

/// Files that cannot be decoded, with a part of the reason.
fn bad_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let jpeg = encoded(&picture(1, 80, 60), ImageFormat::Jpeg);
    let png = encoded(&picture(2, 80, 60), ImageFormat::Png);
    let mut huge_png = png.clone();
    huge_png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let checksum = crc32(&huge_png[12..29]);
    huge_png[29..33].copy_from_slice(&checksum.to_be_bytes());
    let mut huge_jpeg = jpeg.clone();
    let start_of_frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    huge_jpeg[start_of_frame + 5..start_of_frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    vec![
        ("cut at 1 byte.jpg", jpeg[..1].to_vec(), "not a JPEG"),
        ("cut at 10 bytes.jpg", jpeg[..10].to_vec(), "truncated"),
        ("cut in half.jpg", jpeg[..jpeg.len() / 2].to_vec(), "truncated"),
        ("cut by a byte.jpg", jpeg[..jpeg.len() - 1].to_vec(), "truncated"),
        ("cut.png", png[..png.len() / 2].to_vec(), ""),
        ("empty.jpg", Vec::new(), "empty"),
        ("text.jpg", b"no picture at all".to_vec(), "not a JPEG"),
        ("page.jpg", b"<html><body>404</body></html>".to_vec(), "not a JPEG"),
        ("huge.png", huge_png, "60000 x 60000"),
        ("huge.jpg", huge_jpeg, "60000"),
        ("umlaut-\u{fc}-\u{1f408}.jpg", b"x".to_vec(), "not a JPEG"),
        ("new\nline.jpg", b"x".to_vec(), "not a JPEG"),
    ]
}

#[test]
fn every_bad_file_is_named_with_a_reason_by_any_number_of_workers() {
    let dir = folder();
    let bad = bad_files();
    for (name, bytes, _) in &bad {
        write(dir.path(), &format!("train/cat/{name}"), bytes);
    }
    let first = report(dir.path(), 1);
    assert!(first.breaks_a_run());
    assert_eq!(first.unreadable.len(), bad.len(), "{:?}", first.unreadable);
    for (name, _, reason) in &bad {
        let found = first.unreadable.iter().find(|finding| finding.path.ends_with(name));
        let found = found.unwrap_or_else(|| panic!("{name} is not named"));
        assert!(found.what.contains(reason), "{name}: {}", found.what);
    }
    assert_eq!(first, report(dir.path(), 3));
}

#[test]
fn good_files_of_every_kind_pass_and_odd_ones_are_noted() {
    let dir = folder();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode");
    let mut good = 0;
    for entry in fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if decode(&bytes, &DecodeOptions::default()).is_ok() && !name.contains("expected") {
            write(dir.path(), &format!("train/dog/fixture {name}"), &bytes);
            good += 1;
        }
    }
    assert!(good > 15, "{good} fixtures: CMYK, 16 bits, palettes, animations, EXIF and others");
    let jpeg = encoded(&picture(5, 64, 64), ImageFormat::Jpeg);
    write(dir.path(), "train/dog/jpeg.png", &jpeg);
    let one_colour = RgbImage::from_pixel(64, 64, Rgb([9, 9, 9]));
    write(dir.path(), "train/dog/grey.png", &encoded(&one_colour, ImageFormat::Png));
    write(dir.path(), "train/dog/tiny.png", &encoded(&picture(6, 8, 64), ImageFormat::Png));
    write(dir.path(), "train/dog/long.png", &encoded(&picture(7, 640, 64), ImageFormat::Png));
    // The same bytes in another class, and in another split.
    let one = fs::read(dir.path().join("train/cat/one.jpg")).unwrap();
    write(dir.path(), "train/dog/again.jpg", &one);
    write(dir.path(), "val/cat/again.jpg", &one);

    let report = report(dir.path(), 2);
    assert!(!report.breaks_a_run(), "{:?} {:?}", report.layout, report.unreadable);
    assert!(report.turned > 0, "some fixtures are turned by EXIF");
    let what = |name: &str| {
        let all = report.suspicious.iter().chain(&report.misnamed);
        let found = all.into_iter().find(|finding| finding.path.ends_with(name));
        found.map(|finding| finding.what.clone()).unwrap_or_default()
    };
    assert_eq!(what("jpeg.png"), "its content is JPEG");
    assert!(what("grey.png").contains("one colour"));
    assert!(what("tiny.png").contains("tiny: 8 x 64"));
    assert!(what("long.png").contains("extreme shape: 640 x 64"));
    let again = report.duplicates.iter().find(|group| group.paths[0].ends_with("one.jpg")).unwrap();
    assert!(again.paths.len() == 3 && again.across_classes && again.across_splits, "{again:?}");
}

#[test]
fn damage_that_the_decoder_conceals_is_reported() {
    let dir = folder();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode");
    let names =
        ["rgb_444.jpg", "rgb_420.jpg", "progressive.jpg", "restart.jpg", "grey.jpg", "cmyk.jpg"];
    let mut damaged = Vec::new();
    for name in names {
        let whole = fs::read(fixtures.join(name)).unwrap();
        write(dir.path(), &format!("train/cat/whole {name}"), &whole);
        // The data of the first scan: a third of it, or with other bytes in the middle.
        let start = whole.windows(2).position(|two| two == [0xFF, 0xDA]).unwrap();
        let data = start + 2 + usize::from(whole[start + 3]);
        let length = whole[data..]
            .windows(2)
            .position(|two| two[0] == 0xFF && two[1] != 0 && !(0xD0..0xD8).contains(&two[1]));
        let (length, third) = (length.unwrap(), length.unwrap() / 3);
        let cut = [&whole[..data + third], &whole[data + length..]].concat();
        let mut overwritten = whole.clone();
        overwritten[data + third..data + third * 2].fill(0);
        for (how, bytes) in [("cut", cut), ("overwritten", overwritten)] {
            if decode(&bytes, &DecodeOptions::default()).is_err() {
                assert_eq!((how, name), ("overwritten", "progressive.jpg"));
                continue;
            }
            damaged.push(format!("{how} {name}"));
            write(dir.path(), &format!("train/cat/{how} {name}"), &bytes);
        }
    }
    damaged.sort();
    let report = report(dir.path(), 2);
    assert!(!report.breaks_a_run(), "{:?}", report.unreadable);
    let found = report.damaged.iter().map(|finding| {
        assert!(!finding.what.is_empty());
        finding.path.file_name().unwrap().to_str().unwrap().to_owned()
    });
    assert_eq!(found.collect::<Vec<_>>(), damaged);
}

#[test]
fn a_layout_that_a_run_refuses_is_reported_with_the_rest() {
    let dir = folder();
    fs::create_dir(dir.path().join("train/empty")).unwrap();
    write(dir.path(), "val/bird/1.jpg", b"x");
    let report = report(dir.path(), 2);
    assert!(report.layout.as_ref().unwrap().contains("`empty`"), "{:?}", report.layout);
    assert_eq!(report.unreadable.len(), 1);
    assert_eq!(report.splits[0].classes[2], ("empty".to_owned(), 0));
}

#[cfg(unix)]
#[test]
fn links_and_permissions_end_well() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = folder();
    symlink(dir.path().join("train"), dir.path().join("train/cat/loop")).unwrap();
    symlink("nowhere.jpg", dir.path().join("train/cat/dangling.jpg")).unwrap();
    let locked = dir.path().join("train/cat/locked.jpg");
    fs::copy(dir.path().join("train/cat/one.jpg"), &locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    let report = report(dir.path(), 2);
    assert!(report.notes.iter().any(|note| note.contains("dangling.jpg")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|note| note.contains("loop")), "{:?}", report.notes);
    if fs::read(&locked).is_ok() {
        println!("skipped: this user may read a file without permissions");
    } else {
        assert!(report.unreadable.iter().any(|finding| finding.path.ends_with("locked.jpg")));
    }
}

#[test]
fn a_split_links_what_training_would_hold_out() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        for i in 0..20 {
            write(
                dir.path(),
                &format!("all/{class}/deep/{i}.png"),
                format!("{class}{i}").as_bytes(),
            );
        }
    }
    let (all, out) = (dir.path().join("all"), dir.path().join("out"));
    let lister = Lister::new(2);
    let made = split(&lister, &all, &out, 0.25, 9).unwrap();
    assert_eq!((made.classes, made.train, made.val), (2, 30, 10));
    let options = ScanOptions { val_fraction: 0.25, seed: 9, ..ScanOptions::default() };
    let (held_out, linked) = (scan(&all, &options).unwrap(), scan(&out, &options).unwrap());
    let contents = |samples: &[bninception_data::Sample]| -> Vec<(u32, Vec<u8>)> {
        samples.iter().map(|sample| (sample.label, fs::read(&sample.path).unwrap())).collect()
    };
    assert_eq!(contents(&linked.train), contents(&held_out.train));
    assert_eq!(contents(&linked.val), contents(&held_out.val));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&linked.val[0].path), inode(&held_out.val[0].path), "a copy, no link");
    }
    assert!(split(&lister, &all, &out, 0.25, 9).unwrap_err().to_string().contains("it exists"));
    let error = split(&lister, &out, &dir.path().join("other"), 0.25, 9).unwrap_err();
    assert!(error.to_string().contains("validation folder already"));

    let stop = || true;
    let stopped = Lister::new(1).with_stop(&stop);
    let error = split(&stopped, &all, &dir.path().join("other"), 0.25, 9).unwrap_err();
    assert!(matches!(error, DataError::Stopped));
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

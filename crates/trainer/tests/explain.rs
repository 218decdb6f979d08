//! `explain`, and the maps beside the mistakes of `eval --out`, as a user meets them.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;

use bninception_data::{DecodeOptions, decode_file};
use common::Place;

#[test]
fn every_image_gets_a_map_for_each_class() {
    let place = Place::with_pictures();
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];
    place.succeed(&[&train[..], &["--steps", "2", "--image-size", "96"]].concat());
    fs::write(place.path("no.jpg"), "no image").unwrap();

    let explain = ["explain", "run", "pictures/val/circle", "--class", "square", "--json"];
    let found = place.json(&explain);
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 2);
    let mut files = Vec::new();
    for image in found {
        let classes = image["classes"].as_array().unwrap();
        assert!(!classes.is_empty() && classes.len() <= 2);
        assert!(classes.iter().any(|class| class["class"] == "square"));
        assert!(classes[0]["probability"].as_f64().unwrap() >= 0.1, "the likeliest of ten");
        files.extend(classes.iter().map(|class| class["file"].as_str().unwrap().to_owned()));
    }
    files.push("explained/explained.png".to_owned());
    let mut there: Vec<String> = fs::read_dir(place.path("explained"))
        .unwrap()
        .map(|entry| format!("explained/{}", entry.unwrap().file_name().display()))
        .collect();
    there.sort();
    files.sort();
    assert_eq!(there, files);
    let picture = decode_file(&place.path(&files[0]), &DecodeOptions::default()).unwrap();
    assert_eq!((picture.width(), picture.height()), (96, 96));

    // What cannot be read is named, and the others are explained.
    let output = place.run(&["explain", "run", "no.jpg", "pictures/val/ring", "--out", "some"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("no.jpg") && said.contains("1 of 3 images"), "{said}");
    assert_eq!(fs::read_dir(place.path("some")).unwrap().count(), 3);

    place.fail(&["explain", "run", "no.jpg", "--class", "sqare"], 2, &["did you mean `square`"]);
    place.fail(&["explain", "no.jpg", "run"], 2, &["bninception explain CHECKPOINT no.jpg"]);
    place.fail(
        &["explain", "run", "pictures/val/ring", "--out", "pictures/val/ring/why"],
        2,
        &["--out"],
    );

    place.succeed(&["eval", "run", "--out", "tables"]);
    let sheet = decode_file(&place.path("tables/mistakes.png"), &DecodeOptions::default()).unwrap();
    assert!(
        sheet.width() > 1500,
        "{} pixels: four mistakes in a row, two pictures each",
        sheet.width()
    );
}

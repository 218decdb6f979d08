//! A run and its images: found from anywhere, exactly those, and never written among.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;
use std::path::Path;

use common::Place;

const SMOKE: [&str; 5] = ["train", "--preset", "smoke", "--data-dir", "photos"];

/// Two classes without a validation folder: a fifth of each is set aside.
fn place() -> Place {
    let place = Place::with_pictures();
    let classes = fs::read_dir(place.path("pictures/train")).unwrap();
    let mut classes: Vec<_> = classes.map(|entry| entry.unwrap().path()).collect();
    classes.sort();
    for (name, sources) in [("cat", &classes[..5]), ("dog", &classes[5..])] {
        fs::create_dir_all(place.path("photos").join(name)).unwrap();
        let pictures = sources.iter().flat_map(|dir| common::listing(dir));
        for (index, picture) in pictures.enumerate() {
            let target = place.path("photos").join(name).join(format!("{index:02}.png"));
            fs::copy(picture, target).unwrap();
        }
    }
    place
}

fn train(place: &Place, more: &[&str]) {
    let fraction = ["--set", "data.val_fraction=0.2", "--steps", "2"];
    place.succeed(&[&SMOKE[..], &fraction, more].concat());
}

fn copy(place: &Place, from: &str, to: &str) {
    fs::copy(place.path(from), place.path(to)).unwrap();
}

fn copy_file(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

#[test]
fn eval_and_calibrate_take_the_images_of_the_run_or_none() {
    let place = place();
    train(&place, &["--run-dir", "run"]);
    let last = "run/last.safetensors";
    let whole = place.json(&["eval", last, "--json"]);
    assert_eq!(whole["images"], 8);
    place.succeed(&["calibrate", last, "-b", "4", "--out", "calibrated.safetensors"]);

    // One more picture moves others between the parts.
    copy(&place, "photos/cat/00.png", "photos/cat/zz.png");
    let parts = ["no longer has the images of the run", "`cat`", "--data-dir"];
    place.fail(&["eval", last], 3, &parts);
    place.fail(&["eval", last, "run"], 3, &parts);
    place.fail(&["calibrate", last, "-b", "4", "--out", "x.safetensors"], 3, &parts);
    place.fail(&["resume", "run"], 3, &["other images than the run", "`cat`", "data.images"]);

    // Whoever names the folder is told what is in it.
    let output = place.run(&["eval", last, "--data-dir", "photos"]);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && talk.contains("was trained on"), "{talk}");
    let calibrate =
        ["calibrate", last, "-b", "4", "--out", "x.safetensors", "--data-dir", "photos"];
    let output = place.run(&calibrate);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && talk.contains("photos has other images than the run"),
        "{talk}"
    );

    fs::remove_file(place.path("photos/cat/zz.png")).unwrap();
    assert_eq!(place.json(&["eval", last, "--json"])["top1"], whole["top1"]);

    // A folder that has exactly the run's images, here or elsewhere, is evaluated on what was set aside.
    let named = place.json(&["eval", last, "--data-dir", "photos", "--json"]);
    assert_eq!((&named["images"], &named["loss"]), (&whole["images"], &whole["loss"]));
    fs::rename(place.path("photos"), place.path("moved")).unwrap();
    let named = place.json(&["eval", last, "--data-dir", "moved", "--json"]);
    assert_eq!((&named["images"], &named["loss"]), (&whole["images"], &whole["loss"]));
}

#[test]
fn other_training_images_leave_a_validation_folder_as_it_is() {
    let place = Place::with_pictures();
    let smoke = ["train", "--preset", "smoke", "--data-dir", "pictures", "--steps", "1"];
    place.succeed(&[&smoke[..], &["--run-dir", "run"]].concat());
    let classes = fs::read_to_string(place.path("run/classes.txt")).unwrap();
    let class = classes.lines().next().unwrap();
    let of = |split: &str, name: &str| format!("pictures/{split}/{class}/{name}.png");
    copy(&place, &of("train", "0001"), &of("train", "more"));
    assert_eq!(place.json(&["eval", "run/last.safetensors", "--json"])["images"], 20);
    copy(&place, &of("train", "0001"), &of("val", "more"));
    place.fail(&["eval", "run/last.safetensors"], 3, &["validation images of", class]);
}

#[test]
fn a_run_finds_its_images_from_any_folder() {
    let place = place();
    train(&place, &["--run-dir", "run"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let run = place.path("run");
    let (run, last) = (run.to_str().unwrap(), run.join("last.safetensors"));
    let from_elsewhere = |arguments: &[&str]| {
        let output = place.command(arguments).current_dir(elsewhere.path()).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), talk)
    };
    let photos = place.path("photos").display().to_string();
    for arguments in [&["resume", run][..], &["eval", last.to_str().unwrap()]] {
        let (code, talk) = from_elsewhere(arguments);
        assert_eq!(code, Some(0), "{talk}");
        assert!(talk.contains(&photos), "it does not say which: {talk}");
    }

    // A copy of the project takes its own images, also when those of the first are gone.
    let copy = tempfile::tempdir().unwrap();
    for path in common::listing(&place.path(".")).iter().filter(|path| path.is_file()) {
        let target = copy.path().join(path.strip_prefix(place.path(".")).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, target).unwrap();
    }
    fs::remove_file(copy.path().join("photos/cat/00.png")).unwrap();
    let eval = |dir: &Path| place.command(&["eval", "run"]).current_dir(dir).output().unwrap();
    assert!(eval(copy.path()).status.success(), "the images where they were still have all");
    copy_file(&place.path("photos/cat/00.png"), &copy.path().join("photos/cat/00.png"));
    fs::rename(place.path("photos/cat/00.png"), place.path("photos/cat/aa.png")).unwrap();
    assert!(eval(copy.path()).status.success(), "its own images are those of the run");
    fs::rename(place.path("photos/cat/aa.png"), place.path("photos/cat/00.png")).unwrap();

    // The whole project moves: the path that was given holds, seen from its new place.
    let moved = tempfile::tempdir().unwrap();
    for name in ["photos", "run"] {
        fs::rename(place.path(name), moved.path().join(name)).unwrap();
    }
    let output = place.command(&["resume", "run"]).current_dir(moved.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // The images alone move: it is said what they were and what helps.
    fs::rename(moved.path().join("photos"), moved.path().join("pics")).unwrap();
    for arguments in [&["resume", "run"][..], &["eval", "run"], &["calibrate", "run", "-b", "4"]] {
        let output = place.command(arguments).current_dir(moved.path()).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{talk}");
        for part in ["photos is not a folder", "where it was", "--data-dir DIR"] {
            assert!(talk.contains(part), "{arguments:?}: no `{part}` in {talk}");
        }
    }
    let resume = ["resume", "run", "--data-dir", "pics"];
    let output = place.command(&resume).current_dir(moved.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_validation_folder_elsewhere_is_found_too() {
    let place = Place::with_pictures();
    fs::rename(place.path("pictures/val"), place.path("held-out")).unwrap();
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--val-dir", "held-out"];
    place.succeed(&[&train[..], &["--steps", "1", "--run-dir", "run"]].concat());
    let elsewhere = tempfile::tempdir().unwrap();
    let run = place.path("run");
    let eval = ["eval", run.to_str().unwrap(), "--json"];
    let output = place.command(&eval).current_dir(elsewhere.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(place.path("held-out"), place.path("moved")).unwrap();
    place.fail(&["resume", "run"], 3, &["held-out is not a folder", "--val-dir DIR"]);
    place.succeed(&["resume", "run", "--val-dir", "moved"]);
}

#[test]
fn nothing_is_written_among_images() {
    let place = place();
    let inside = |arguments: &[&str]| {
        let parts = ["lies in the folder of images", "/photos-"];
        place.fail(arguments, 2, &parts);
    };
    inside(&[&SMOKE[..], &["--run-dir", "photos/run"]].concat());
    inside(&[&SMOKE[..], &["--set", "checkpoint.dir=photos/runs"]].concat());
    inside(&[&SMOKE[..], &["--run-dir", "photos"]].concat());
    let around = [&SMOKE[..], &["--run-dir", "."]].concat();
    place.fail(&around, 2, &[". holds the folder of images photos", "/photos-"]);
    // As a person does it, inside the folder.
    let before = common::listing(&place.path("photos"));
    let here = ["train", "--preset", "smoke", "--data-dir", "."];
    let output = place.command(&here).current_dir(place.path("photos")).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{talk}");
    assert!(talk.contains("checkpoints/smoke lies in the folder of images ."), "{talk}");
    assert_eq!(common::listing(&place.path("photos")), before);

    train(&place, &["--run-dir", "run"]);
    inside(&["eval", "run", "--out", "photos/report"]);
    inside(&["eval", "run", "--data-dir", "photos", "--out", "photos/cat/report"]);
    inside(&["calibrate", "run", "-b", "4", "--out", "photos/x.safetensors"]);
    inside(&["compare", "run", "--out", "photos/compare"]);
    inside(&["data", "split", "photos", "--out", "photos/split"]);
    inside(&["data", "pack", "photos", "photos/packed"]);
    inside(&["data", "demo", "photos/demo"]);
    let pack = ["data", "pack", "photos", "."];
    place.fail(&pack, 2, &[". holds the folder of images photos"]);

    // A run that is there already, from before this was refused.
    fs::create_dir(place.path("photos/checkpoints")).unwrap();
    fs::rename(place.path("run"), place.path("photos/checkpoints/run")).unwrap();
    let parts = ["lies in the folder of images", "mv photos/checkpoints/run "];
    place.fail(&["resume", "photos/checkpoints/run"], 2, &parts);
    place.fail(&["report", "photos/checkpoints/run"], 2, &parts);

    // What is advised works.
    fs::rename(place.path("photos/checkpoints/run"), place.path("photos-run")).unwrap();
    fs::remove_dir(place.path("photos/checkpoints")).unwrap();
    place.succeed(&["resume", "photos-run"]);
    // What lies beside the images is not among them.
    place.succeed(&["calibrate", "photos-run", "-b", "4", "--out", "x.safetensors"]);
    place.succeed(&["eval", "photos-run", "--out", "."]);
    assert!(place.path("x.safetensors").is_file());
}

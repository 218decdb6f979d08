//! `runs`, `runs prune`, `lr-find`, `train --dry-run` and `--batch-size auto`, as a user meets them.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;

use common::{Place, listing};
use serde_json::Value;

const SMOKE: [&str; 5] = ["train", "--preset", "smoke", "--data-dir", "pictures"];

fn train(place: &Place, run: &str, more: &[&str]) {
    place.succeed(&[&SMOKE[..], &["--run-dir", run], more].concat());
}

#[test]
fn runs_are_listed_and_pruned() {
    let place = Place::with_pictures();
    place.fail(&["runs"], 2, &["checkpoints is no folder"]);
    train(&place, "all/whole", &["--set", "checkpoint.keep=0", "--steps", "20"]);
    train(&place, "all/deep/stopped", &["--max-time", "0s"]);
    let damaged = place.path("all/damaged");
    train(&place, "all/damaged", &["--steps", "1"]);
    fs::write(damaged.join("last.safetensors"), "torn").unwrap();

    let found = place.json(&["runs", "all", "--json"]);
    let runs = found["runs"].as_array().unwrap();
    let column = |key: &str| -> Vec<&Value> { runs.iter().map(|run| &run[key]).collect() };
    assert_eq!(column("run"), ["all/damaged", "all/deep/stopped", "all/whole"]);
    assert_eq!(column("state"), ["damaged", "stopped", "finished"]);
    assert_eq!((&runs[2]["step"], &runs[2]["steps"]), (&20.into(), &20.into()));
    assert_eq!((&runs[1]["step"], &runs[1]["preset"]), (&0.into(), &"smoke".into()));
    assert!(runs[2]["best_top1"].as_f64().is_some() && runs[1]["best_top1"].is_null());
    assert!(runs[2]["bytes"].as_u64().unwrap() > 100_000_000);
    assert!(runs[0]["reason"].as_str().unwrap().contains("last.safetensors"));
    let text = place.succeed(&["runs", "all"]);
    for part in ["all/whole", "finished", "20/20", "best top-1", "3 runs", "runs prune all"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }

    // Shown, not done; then done, for the run alone that can do without.
    let before = listing(&place.path("all"));
    let shown = place.succeed(&["runs", "prune", "all"]);
    for part in
        ["epoch-0001.safetensors", "4 files would go", "--yes", "all/damaged is left as it is"]
    {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    assert_eq!(listing(&place.path("all")), before);
    let done = place.json(&["runs", "prune", "all", "--yes", "--json"]);
    assert_eq!(done["removed"], true);
    let gone: Vec<_> = before
        .iter()
        .filter(|path| !listing(&place.path("all")).contains(path))
        .map(|path| path.strip_prefix(place.path("all")).unwrap().display().to_string())
        .collect();
    let expected = [1, 2, 3, 4].map(|epoch| format!("whole/epoch-{epoch:04}.safetensors"));
    assert_eq!(gone, expected);
    // One file was that of `last`, and one perhaps that of `best`.
    assert!(done["bytes"].as_u64().unwrap() > 200_000_000, "{done}");
    // The run is what it was.
    assert_eq!(place.json(&["resume", "all/whole", "--json"])["steps"], 20);
    place.succeed(&["eval", "all/whole/best.safetensors"]);
}

#[test]
fn a_run_that_trains_now_is_left_alone() {
    let place = Place::with_pictures();
    train(&place, "all/run", &["--set", "checkpoint.keep=0"]);
    let lock = bninception::run::lock::RunLock::take(&place.path("all/run")).unwrap();
    assert_eq!(place.json(&["runs", "all", "--json"])["runs"][0]["state"], "training");
    let text = place.succeed(&["runs", "prune", "all", "--yes"]);
    assert!(text.contains("all/run is left as it is: it is training now"), "{text}");
    assert!(place.path("all/run/epoch-0001.safetensors").is_file());
    drop(lock);
}

#[test]
fn a_dry_run_tells_time_and_writes_nothing() {
    let place = Place::new();
    // On the embedded pictures, which are drawn elsewhere and forgotten.
    let plan = place.json(&["train", "--preset", "smoke", "--dry-run", "--json"]);
    assert_eq!(listing(&place.path(".")), Vec::<std::path::PathBuf>::new());
    let number = |key: &str| plan[key].as_f64().unwrap();
    let (step, evaluation) = (number("step_seconds"), number("evaluation_seconds"));
    assert!(step > 0.0 && evaluation > 0.0 && number("disk_bytes") > 0.0);
    // Eight steps of the 250 of an epoch, and one evaluation.
    assert_eq!((&plan["steps"], &plan["steps_per_epoch"]), (&8.into(), &250.into()));
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9 * b;
    assert!(near(number("run_seconds"), 8.0 * step + evaluation), "{plan}");
    assert!(near(number("epoch_seconds"), 250.0 * step + evaluation), "{plan}");
    let text = place.succeed(&["train", "--preset", "smoke", "--dry-run"]);
    for part in
        ["data the embedded pictures: 10 classes", "an epoch, ", " in all (", "nothing was written"]
    {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert_eq!(listing(&place.path(".")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn an_open_batch_size_is_chosen_and_stored() {
    let place = Place::with_pictures();
    let plan = place.json(&[&SMOKE[..], &["-b", "auto", "--dry-run", "--json"]].concat());
    // 40 pictures make ten updates of four.
    assert_eq!((&plan["batch_size"], &plan["steps_per_epoch"]), (&4.into(), &10.into()));
    assert_eq!(plan["recipe"]["changed"]["train.batch_size"], "flag --batch-size");
    let output =
        place.run(&[&SMOKE[..], &["-b", "auto", "--run-dir", "run", "--steps", "1"]].concat());
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && talk.contains("--batch-size auto: batches of 4 images"),
        "{talk}"
    );
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(config.contains("batch_size = 4"), "{config}");
    place.fail(&["resume", "run", "-b", "auto"], 2, &["--batch-size auto", "give a number"]);
    place.fail(&["eval", "run", "-b", "auto"], 2, &["--batch-size auto"]);
}

#[test]
fn a_range_test_repeats_and_writes_its_figure_alone() {
    let place = Place::with_pictures();
    let settings = ["--preset", "smoke", "--data-dir", "pictures", "-b", "2"];
    let test =
        |more: &[&str]| place.json(&[&["lr-find"], &settings[..], more, &["--json"]].concat());
    let before = listing(&place.path("."));
    let first = test(&["--out", "a"]);
    let points = first["points"].as_array().unwrap();
    assert!(points.len() > 10 && points.len() <= 20, "{first}");
    let written: Vec<String> = listing(&place.path("."))
        .into_iter()
        .filter(|path| !before.contains(path))
        .map(|path| path.strip_prefix(place.path(".")).unwrap().display().to_string())
        .collect();
    assert_eq!(written, ["a", "a/lr-find.csv", "a/lr-find.png", "a/lr-find.svg"]);
    let read = |dir: &str| fs::read(place.path(dir).join("lr-find.csv")).unwrap();
    // The same bits, whatever the workers.
    test(&["--out", "b", "-j", "2"]);
    assert!(read("a") == read("b"));
    // Other seeds have other losses, and an update may be of several batches.
    test(&["--out", "c", "--seed", "7"]);
    assert!(read("a") != read("c"));
    let summed = test(&["--out", "d", "--accumulate", "2"]);
    assert!(summed["points"].as_array().unwrap().len() <= 10, "{summed}");

    let text = place.succeed(&[&["lr-find"], &settings[..]].concat());
    assert!(text.contains("checkpoints/lr-find"), "{text}");
    if let Some(lr) = first["lr"].as_f64() {
        let command = format!(
            "bninception train --preset smoke --data-dir pictures --batch-size 2 --lr {lr}"
        );
        assert_eq!(first["command"], command.as_str());
        assert!(text.ends_with(&format!("{command}\n")), "{text}");
    }
    // Too few updates say so, and so does a range that is none.
    let few = place.succeed(&[&["lr-find"], &settings[..4], &["-b", "8"]].concat());
    assert!(few.contains("no rate can be told: 5 updates are too few"), "{few}");
    let range = [&["lr-find"], &settings[..], &["--from", "1", "--to", "0.1"]].concat();
    place.fail(&range, 2, &["--from 1 --to 0.1", "below the last"]);
    place.fail(&["lr-find", "--preset", "bn-x5"], 2, &["--data-dir"]);
    let inside = [&["lr-find"], &settings[..], &["--out", "pictures/out"]].concat();
    place.fail(&inside, 2, &["pictures/out", "--out"]);
}

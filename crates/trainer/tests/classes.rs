//! Rare classes as a user meets them: warnings, weights by name, balanced epochs, the choice of the best
//! evaluation, and runs that stop early.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;

use common::Place;
use serde_json::Value;

const TRAIN: [&str; 7] =
    ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];

/// Two classes: `ants` with one training picture, `Honey Bees` with twelve; `ants` has no validation
/// pictures if `blind`.
fn imbalanced(blind: bool) -> Place {
    let place = Place::with_pictures();
    let folders = |split: &str| {
        let entries = fs::read_dir(place.path("pictures").join(split)).unwrap();
        let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        folders
    };
    for split in ["train", "val"] {
        let root = place.path("pictures").join(split);
        for (index, folder) in folders(split).into_iter().enumerate() {
            let to = root.join(if index == 0 { "ants" } else { "Honey Bees" });
            fs::create_dir_all(&to).unwrap();
            for (nth, entry) in fs::read_dir(&folder).unwrap().enumerate() {
                let is_kept = match (split, index) {
                    ("train", 0) => nth == 0,
                    ("val", 0) => !blind,
                    (_, index) => index < 4,
                };
                if is_kept {
                    let name = format!("{index}-{nth}.png");
                    fs::rename(entry.unwrap().path(), to.join(name)).unwrap();
                }
            }
            fs::remove_dir_all(folder).unwrap();
        }
    }
    place
}

fn talk(place: &Place, arguments: &[&str]) -> String {
    let output = place.run(arguments);
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}\n{talk}");
    talk
}

fn rows(place: &Place, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["kind"] == kind).collect()
}

#[test]
fn an_imbalance_and_blind_classes_are_told_before_a_run() {
    let imbalance = "classes are imbalanced: `Honey Bees` has 12 training images, 12 times as many as \
                     `ants` with 1";
    let blind = "1 of 2 classes has no validation images, so nothing tells how well they are known: \
                 `ants`";
    let place = imbalanced(true);
    for (arguments, advice) in [
        (&["--dry-run"][..], true),
        (&["--steps", "1"], true),
        (&["--steps", "1", "--overwrite", "--set", "train.class_weights=balanced"], false),
        (&["--steps", "1", "--overwrite", "--set", "data.balance=sqrt"], false),
    ] {
        let talk = talk(&place, &[&TRAIN, arguments].concat());
        for line in [imbalance, blind] {
            assert_eq!(talk.matches(line).count(), 1, "{arguments:?}: `{line}` in\n{talk}");
        }
        assert_eq!(talk.contains("--set data.balance=classes,"), advice, "{talk}");
    }
    // The advice names the other setting that it takes.
    let shards = ["--dry-run", "--set", "data.shuffle=shards"];
    let talk = talk(&place, &[&TRAIN, &shards[..]].concat());
    assert!(talk.contains("--set data.balance=classes --set data.shuffle=full,"), "{talk}");
    let report = place.succeed(&["data", "check", "pictures"]);
    assert!(report.contains(imbalance) && report.contains("`ants`"), "{report}");
    let even = Place::with_pictures();
    let talk = self::talk(&even, &[&TRAIN, &["--dry-run"][..]].concat());
    assert!(!talk.contains("imbalanced") && !talk.contains("no validation"), "{talk}");
    assert!(!even.succeed(&["data", "check", "pictures"]).contains("imbalanced"));
}

#[test]
fn weights_go_by_the_names_of_the_classes() {
    let place = imbalanced(false);
    let with = |weights: &'static str| [&TRAIN, &["--set", weights][..]].concat();
    place.fail(
        &with("train.class_weights={ants = 3.0, \"Honey Bee\" = 1.0}"),
        2,
        &["train.class_weights: there is no class `Honey Bee`; did you mean `Honey Bees`?"],
    );
    place.fail(
        &with("train.class_weights={ants = 3.0}"),
        2,
        &["train.class_weights: class `Honey Bees` has no weight; every class needs one"],
    );
    place.fail(
        &with("train.class_weights={ants = 0.0, \"Honey Bees\" = 1.0}"),
        2,
        &["`train.class_weights = ", "expected finite weights above 0"],
    );
    place.fail(
        &with("train.class_weights=evenly"),
        2,
        &["`train.class_weights = \"evenly\"` (--set): expected \"none\", \"balanced\", or a weight"],
    );
    place.fail(
        &[&with("data.balance=sqrt")[..], &["--set", "data.shuffle=shards"]].concat(),
        2,
        &["`data.balance = \"sqrt\"`", "unless data.shuffle = \"full\""],
    );

    // The weights are stored by name, shown, and refused where they change on resume.
    let weights = "train.class_weights={ants = 3, \"Honey Bees\" = 1.0}";
    let stopped = [&with(weights)[..], &["--max-time", "0s"]].concat();
    place.succeed(&stopped);
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(
        config.contains("[train.class_weights]\n\"Honey Bees\" = 1.0\nants = 3.0\n"),
        "{config}"
    );
    let shown = place.succeed(&["config", "show", "-c", "run/config.toml"]);
    assert!(shown.contains("ants = 3.0"), "{shown}");
    let other = ["resume", "run", "--set", "train.class_weights=none"];
    place.fail(&other, 2, &["train.class_weights: ", "--allow-change train.class_weights"]);
    assert_eq!(place.json(&["resume", "run", "--json"])["finished"], true);
    let other = [&other[..], &["--allow-change", "train.class_weights", "--json"]].concat();
    assert_eq!(place.json(&other)["finished"], true);
}

#[test]
fn the_best_is_chosen_and_explained_by_the_measure_asked_for() {
    let place = imbalanced(false);
    for (by, name) in [("top1", "top-1"), ("balanced", "balanced accuracy"), ("loss", "loss")] {
        let set = format!("checkpoint.best_by={by}");
        let own = ["--steps", "5", "--batch-size", "4", "--overwrite", "--set", set.as_str()];
        let text = place.succeed(&[&TRAIN, &own[..]].concat());
        let evaluations = rows(&place, "eval");
        assert_eq!(evaluations.len(), 2, "13 pictures in batches of 4 make 3 steps an epoch");
        // Two of the eight validation pictures are ants.
        for row in &evaluations {
            let (top1, balanced) =
                (row["top1"].as_f64().unwrap(), row["balanced"].as_f64().unwrap());
            let is_possible = |right: i32| {
                let (ants, bees) = (f64::from(right), 8.0 * top1 - f64::from(right));
                (balanced - (ants / 2.0 + bees / 6.0) / 2.0).abs() < 1e-9
            };
            assert!((0..3).any(is_possible), "{row}");
        }
        let value = |row: &Value| match by {
            "loss" => -row["loss"].as_f64().unwrap(),
            by => row[by].as_f64().unwrap(),
        };
        let best = usize::from(value(&evaluations[1]) > value(&evaluations[0]));
        let line = format!("best by {name}: epoch {} of 2, ", best + 1);
        assert!(text.contains(&line), "no `{line}` in\n{text}");
        let info = place.succeed(&["info", "run/best.safetensors"]);
        let step = [3, 5][best];
        assert!(info.contains(&format!("best {name} ")), "{info}");
        assert!(info.contains(&format!("at step {step}")), "{info}");
    }
    let other = ["resume", "run", "--set", "checkpoint.best_by=top1"];
    place.fail(&other, 2, &["checkpoint.best_by", "--allow-change checkpoint.best_by"]);
}

#[test]
fn a_run_stops_when_nothing_gets_better_and_goes_on_when_asked() {
    let place = imbalanced(false);
    // Weights that hardly move: top-1 stays what it is from the first epoch on, or soon after.
    let own = ["--set", "optimizer.lr=1e-12", "--set", "train.patience=2", "--epochs", "40"];
    let run = [&TRAIN, &own[..], &["--batch-size", "4", "--json"]].concat();
    let output = place.run(&run);
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let result: Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&result["finished"], &result["stopped_early"]),
        (&true.into(), &true.into()),
        "{talk}"
    );
    let (epochs, best) =
        (result["epochs"].as_u64().unwrap(), result["best_epoch"].as_u64().unwrap());
    assert_eq!(epochs, best + 2, "{talk}");
    let reason = format!("of epoch {best} for 2 epochs (train.patience)");
    assert!(
        talk.contains("stopped early: no better top-1 than ") && talk.contains(&reason),
        "{talk}"
    );
    assert_eq!(rows(&place, "eval").len() as u64, epochs);

    let again = self::talk(&place, &["resume", "run"]);
    let command = "bninception resume run --set train.patience=0";
    assert!(again.contains("it stopped early") && again.contains(command), "{again}");
    let steps = (epochs + 1) * 3;
    let more = ["resume", "run", "--set", "train.patience=0", "--steps", &steps.to_string()];
    let permits = ["--allow-change", "train.steps", "--allow-change", "train.epochs", "--json"];
    let more = [&more[..], &permits].concat();
    let result = place.json(&more);
    assert_eq!((&result["steps"], &result["stopped_early"]), (&steps.into(), &false.into()));

    // Other commands read such a run.
    assert!(place.succeed(&["compare", "run"]).contains("run"));

    // Without validation images nothing could tell.
    fs::remove_dir_all(place.path("pictures/val")).unwrap();
    for class in ["ants", "Honey Bees"] {
        let folder = place.path("pictures/train").join(class);
        let pictures = fs::read_dir(folder).unwrap().skip(1);
        pictures.for_each(|picture| fs::remove_file(picture.unwrap().path()).unwrap());
    }
    let run = [&TRAIN, &own[..], &["--batch-size", "2", "--overwrite"]].concat();
    place.fail(&run, 2, &["train.patience = 2", "--val-dir"]);
}

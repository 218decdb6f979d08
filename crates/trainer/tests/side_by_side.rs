//! Evaluations beside each other: with a baseline, with mirror images, at another size, and of averaged
//! weights.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;
use std::path::Path;

use bninception::run::checkpoint::{self, Checkpoint};
use bninception::run::initial::file_hash;
use bninception_data::RgbImage;
use bninception_engine::model::ParameterTable;
use common::{Place, reorder_classes};
use serde_json::Value;

const LAST: &str = "run/last.safetensors";
const OTHER: &str = "other/last.safetensors";

/// Pictures, and a run of some steps on them, with a moving average of the weights and moving statistics of
/// batch norm.
fn with_run() -> Place {
    let place = Place::with_pictures();
    train(&place, "run", &["--set", "train.ema=0.5"]);
    place
}

fn train(place: &Place, name: &str, more: &[&str]) {
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", name];
    let moving = ["--set", "train.eval_statistics=moving"];
    place.succeed(&[&train[..], &moving, more].concat());
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

/// The columns `names` of a table that `eval` wrote, row by row.
fn columns(place: &Place, file: &str, names: &[&str]) -> Vec<Vec<String>> {
    let text = fs::read_to_string(place.path(file)).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let at: Vec<usize> =
        names.iter().map(|name| header.iter().position(|title| title == name).unwrap()).collect();
    lines.map(|line| at.iter().map(|&column| line[column].to_owned()).collect()).collect()
}

#[test]
fn a_baseline_is_counted_image_by_image() {
    let place = with_run();
    train(&place, "other", &["--seed", "5", "--steps", "2"]);
    // A picture that nobody can read is wrong in both.
    let class = fs::read_to_string(place.path("run/classes.txt")).unwrap();
    let broken = format!("pictures/val/{}/0001.png", class.lines().next().unwrap());
    fs::write(place.path(&broken), "not a picture").unwrap();

    // What each says alone, as a table.
    let alone = [(LAST, "a"), (OTHER, "b")].map(|(checkpoint, out)| {
        place.succeed(&["eval", checkpoint, "--out", out]);
        columns(&place, &format!("{out}/predictions.csv"), &["path", "true", "predicted"])
    });
    let mut expected = [0_u64; 4];
    let mut changed = Vec::new();
    for (this, other) in alone[0].iter().zip(&alone[1]) {
        let right = |row: &[String]| row[1] == row[2];
        let kind = 2 * usize::from(!right(this)) + usize::from(!right(other));
        expected[kind] += 1;
        if let Some(who) = [(1, "this"), (2, "baseline")].iter().find(|(of, _)| *of == kind) {
            changed.push(vec![this[0].clone(), who.1.to_owned()]);
        }
    }
    assert!(!changed.is_empty() && expected[3] > 0, "the test tests nothing: {expected:?}");

    let compare = |this: &str, baseline: &str, more: &[&str]| {
        let eval = ["eval", this, "--baseline", baseline, "--json"];
        place.json(&[&eval[..], more].concat())["baseline"].clone()
    };
    let counts = |found: &Value| {
        ["both", "only_this", "only_baseline", "neither"].map(|key| found[key].as_u64().unwrap())
    };
    let found = compare(LAST, OTHER, &["--out", "side"]);
    assert_eq!(counts(&found), expected);
    assert_eq!(columns(&place, "side/changes.csv", &["path", "right"]), changed);
    let listed = found["changes"].as_array().unwrap();
    let listed: Vec<Vec<String>> = listed
        .iter()
        .map(|image| ["path", "right"].map(|key| image[key].as_str().unwrap().to_owned()).to_vec())
        .collect();
    assert_eq!(listed, changed);
    let difference = (expected[1] as f64 - expected[2] as f64) / 20.0;
    assert!((number(&found, "difference") - difference).abs() < 1e-12, "{found}");
    let turned = compare(OTHER, LAST, &[]);
    assert_eq!(counts(&turned), [expected[0], expected[2], expected[1], expected[3]]);
    assert_eq!(number(&turned, "p_value"), number(&found, "p_value"));

    let text = place.succeed(&["eval", LAST, "--baseline", OTHER, "--top", "1"]);
    for part in ["beside the baseline other/last.safetensors", "baseline wrong", "points (95 %: "] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(text.contains(found["verdict"].as_str().unwrap()), "{text}");
    let with_baseline = |line: &&str| line.contains(", here ") && line.contains(", baseline ");
    assert!((1..=2).contains(&text.lines().filter(with_baseline).count()), "{text}");

    // Beside itself, and beside itself with its classes in another order, nothing changes.
    reorder_classes(
        &place.path(LAST),
        &place.path("reversed.safetensors"),
        &(0..10).rev().collect::<Vec<_>>(),
    );
    for baseline in [LAST, "reversed.safetensors"] {
        let same = compare(LAST, baseline, &["--data-dir", "pictures", "--out", "same"]);
        assert_eq!(counts(&same), [expected[0] + expected[1], 0, 0, expected[2] + expected[3]]);
        assert_eq!((number(&same, "p_value"), number(&same, "difference")), (1.0, 0.0));
        assert_eq!(same["changes"], Value::Array(vec![]), "{baseline}");
        assert!(same["verdict"].as_str().unwrap().starts_with("not different"), "{same}");
        assert_eq!(fs::read_to_string(place.path("same/changes.csv")).unwrap().lines().count(), 1);
    }

    let mut loaded = checkpoint::load(&place.path(LAST)).unwrap();
    loaded.metadata.classes[3] = "zebra".to_owned();
    let (table, zebra) = (ParameterTable::new(&loaded.network), place.path("zebra.safetensors"));
    checkpoint::save(&zebra, &loaded.metadata, &table, &loaded.state).unwrap();
    let parts = ["zebra.safetensors", "it lacks `", "and adds `zebra`"];
    place.fail(&["eval", LAST, "--baseline", "zebra.safetensors"], 3, &parts);
}

/// Writes a copy of a checkpoint with something else in it.
fn edited(place: &Place, from: &str, to: &str, edit: impl Fn(&mut Checkpoint)) {
    let mut loaded = checkpoint::load(&place.path(from)).unwrap();
    edit(&mut loaded);
    let network = loaded.metadata.network().unwrap();
    let table = ParameterTable::new(&network);
    checkpoint::save(&place.path(to), &loaded.metadata, &table, &loaded.state).unwrap();
}

#[test]
fn a_mean_of_weights_is_a_checkpoint_without_a_run() {
    let place = with_run();
    train(&place, "other", &["--seed", "5", "--steps", "2", "--set", "train.ema=0"]);
    let load = |name: &str| checkpoint::load(&place.path(name)).unwrap();
    let (first, second) = (load(LAST), load(OTHER));
    assert!(first.state.model.ema.is_some() && second.state.model.ema.is_none());

    // With itself it is itself, bit by bit: what evaluation uses, the moving average.
    place.succeed(&["average", LAST, LAST, LAST, "same.safetensors"]);
    let same = load("same.safetensors");
    assert!(same.state.model.weights == *first.state.model.evaluation_weights());
    let answers = |checkpoint: &str| {
        place.succeed(&["predict", checkpoint, "pictures/val", "--topk", "10", "--json"])
    };
    assert_eq!(answers("same.safetensors"), answers(LAST));

    let output = place.run(&["average", LAST, OTHER, "mean.safetensors"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("do not fit") && log.contains("calibrate mean.safetensors\n"), "{log}");
    let mean = load("mean.safetensors");
    let weights =
        [&first, &second, &mean].map(|checkpoint| checkpoint.state.model.evaluation_weights());
    let parts = [weights.map(|part| &part.trainable), weights.map(|part| &part.statistics)];
    for [a, b, found] in parts {
        assert!(a != b);
        let expected: Vec<f32> =
            a.iter().zip(b).map(|(&a, &b)| ((f64::from(a) + f64::from(b)) / 2.0) as f32).collect();
        assert!(*found == expected);
    }
    assert!(mean.state.model.velocity.iter().all(|&value| value == 0.0));
    assert!(mean.state.model.ema.is_none() && mean.state.population.is_none());
    let sources: Vec<(String, String)> = mean
        .metadata
        .averaged
        .iter()
        .map(|source| (source.path.clone(), source.blake3.clone()))
        .collect();
    let expected =
        [LAST, OTHER].map(|path| (path.to_owned(), file_hash(&place.path(path)).unwrap()));
    assert_eq!(sources, expected);
    let about = place.succeed(&["info", "mean.safetensors"]);
    assert!(about.contains("mean of: other/last.safetensors (step 2, BLAKE3 "), "{about}");

    // It is used like any other, on the images of its runs.
    place.succeed(&["calibrate", "mean.safetensors", "--out", "made.safetensors"]);
    let found = place.json(&["eval", "made.safetensors", "--json"]);
    assert_eq!((&found["images"], &found["statistics"]), (&20.into(), &"population".into()));
    assert_eq!(load("made.safetensors").metadata.averaged, mean.metadata.averaged);
    let from = ["train", "--init-from", "made.safetensors", "--data-dir", "pictures"];
    place.succeed(&[&from[..], &["--run-dir", "further", "--steps", "1", "-b", "8"]].concat());
    let further = load("further/last.safetensors").metadata;
    assert_eq!(further.initial.unwrap().path, "made.safetensors");
    assert!(further.averaged.is_empty());
    let resume = ["resume", "mean.safetensors"];
    place.fail(&resume, 2, &["is the mean of 2 checkpoints", "train --init-from mean.safetensors"]);

    // Of runs on other images it has none of its own.
    edited(&place, OTHER, "moved.safetensors", |moved| moved.metadata.images.train[0].0 += 1);
    let result = place.json(&["average", LAST, "moved.safetensors", "apart.safetensors", "--json"]);
    assert_eq!(result["averaged"][1]["path"], "moved.safetensors");
    place.fail(&["eval", "apart.safetensors"], 2, &["no images of its own", "--data-dir"]);
    place.succeed(&["eval", "apart.safetensors", "--data-dir", "pictures/val"]);

    edited(&place, OTHER, "zebra.safetensors", |zebra| {
        zebra.metadata.classes[3] = "zebra".to_owned();
    });
    edited(&place, OTHER, "lrn.safetensors", |other| other.metadata.config.network.lrn = true);
    edited(&place, OTHER, "ratio.safetensors", |other| {
        other.metadata.preprocessing.crop_ratio = 0.5;
    });
    for (other, part) in [
        ("zebra.safetensors", "and adds `zebra`"),
        ("lrn.safetensors", "network.lrn is true, not false"),
        ("ratio.safetensors", "preprocessing.crop_ratio is 0.5, not "),
    ] {
        place.fail(&["average", LAST, other, "out.safetensors"], 3, &[other, part]);
    }
    for (arguments, part) in [
        (&[LAST, OTHER][..], "the last argument is the file to write"),
        (&[LAST, LAST, OTHER], "is there already"),
        (&[LAST, OTHER, LAST, "--overwrite"], "one of the checkpoints"),
        (&[LAST, OTHER, "run"], "is a folder"),
    ] {
        place.fail(&[&["average"], arguments].concat(), 2, &[part]);
    }
}

/// Writes each picture of `from`, a folder of classes, mirrored left to right into `to`.
fn mirror(from: &Path, to: &Path) {
    for class in fs::read_dir(from).unwrap() {
        let class = class.unwrap();
        let folder = to.join(class.file_name());
        fs::create_dir_all(&folder).unwrap();
        for file in fs::read_dir(class.path()).unwrap() {
            let file = file.unwrap();
            let picture =
                bninception_data::decode(&fs::read(file.path()).unwrap(), &Default::default());
            let picture = picture.unwrap();
            let (width, height) = picture.dimensions();
            RgbImage::from_fn(width, height, |x, y| *picture.get_pixel(width - 1 - x, y))
                .save(folder.join(file.file_name()))
                .unwrap();
        }
    }
}

#[test]
fn a_flip_is_the_mean_of_an_image_and_its_mirror_image() {
    let place = with_run();
    // With the moving statistics of so few steps all probabilities are 0 or 1.
    place.succeed(&["calibrate", LAST, "--out", "calibrated.safetensors"]);
    const CALIBRATED: &str = "calibrated.safetensors";
    mirror(&place.path("pictures/val"), &place.path("mirrored"));
    let probabilities = |dir: &str, more: &[&str]| -> Vec<f64> {
        let eval = ["eval", CALIBRATED, "--data-dir", dir, "--out", "out"];
        place.succeed(&[&eval[..], more].concat());
        let column = columns(&place, "out/predictions.csv", &["probability_of_true"]);
        column.into_iter().map(|row| row[0].parse().unwrap()).collect()
    };
    let apart = |a: &[f64], b: &[f64]| -> f64 {
        assert_eq!((a.len(), b.len()), (20, 20));
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let plain = ["pictures/val", "mirrored"].map(|dir| probabilities(dir, &[]));
    assert!(apart(&plain[0], &plain[1]) > 1e-3, "the test tests nothing: {plain:?}");
    let mean: Vec<f64> = plain[0].iter().zip(&plain[1]).map(|(a, b)| (a + b) / 2.0).collect();
    for dir in ["pictures/val", "mirrored"] {
        let found = probabilities(dir, &["--flip"]);
        // Batches of another size are summed in another order: logits differ by the rounding of f32, and so
        // do probabilities, by 1.2e-6 with AVX2.
        assert!(apart(&found, &mean) < 1e-5, "{dir}: {found:?}, expected {mean:?}");
        let seen = columns(&place, "out/predictions.csv", &["crops"]);
        assert!(seen.iter().all(|row| row[0] == "image and mirror"), "{seen:?}");
    }
    let result = place.json(&["eval", CALIBRATED, "--flip", "--json"]);
    assert_eq!((&result["crops"], &result["flip"]), (&1.into(), &true.into()));
    let text = place.succeed(&["eval", CALIBRATED, "--flip"]);
    assert!(text.contains("and its mirror image"), "{text}");
    for crops in ["10", "144"] {
        place.fail(
            &["eval", CALIBRATED, "--flip", "--crops", crops],
            2,
            &["--flip", "mirror images"],
        );
    }
}

#[test]
fn another_test_size_needs_statistics_of_that_size() {
    let place = with_run();
    // The result of an evaluation, and what it says on stderr.
    let eval = |arguments: &[&str]| -> (Value, String) {
        let output = place.run(&[&["eval"], arguments, &["--json"]].concat());
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        (serde_json::from_slice(&output.stdout).unwrap(), log)
    };
    let load = |name: &str| checkpoint::load(&place.path(name)).unwrap();
    let population = |name: &str| load(name).state.population.unwrap().statistics;

    let (plain, log) = eval(&[LAST]);
    assert!(!log.contains("px; make others"), "{log}");
    let (same, log) = eval(&[LAST, "--image-size", "32"]);
    assert!(!log.contains("px; make others") && same["loss"] == plain["loss"], "{log}");
    let (large, log) = eval(&[LAST, "--image-size", "48"]);
    assert!(large["models"][0]["image_size"] == 48 && large["loss"] != plain["loss"], "{large}");
    let advice = "bninception calibrate run/last.safetensors --image-size 48\n";
    assert!(log.contains("statistics of 32 px") && log.contains(advice), "{log}");

    // The advice is followed: the checkpoint is one of 48 px, with the weights and the rest as they were.
    place.succeed(&["calibrate", LAST, "--image-size", "48"]);
    const LARGE: &str = "run/last-48px.safetensors";
    let (old, new) = (load(LAST), load(LARGE));
    assert_eq!(
        (new.metadata.preprocessing.image_size, new.metadata.config.data.image_size),
        (48, 48)
    );
    assert_eq!(new.metadata.preprocessing.crop_ratio, old.metadata.preprocessing.crop_ratio);
    assert_eq!(new.metadata.trained_image_size, Some(32));
    assert!(new.state.model.ema == old.state.model.ema);
    let about = place.succeed(&["info", LARGE]);
    assert!(about.contains("calibrated at 48 px; trained"), "{about}");
    let (fitting, log) = eval(&[LARGE]);
    assert!(!log.contains("px; make others") && fitting["statistics"] == "population", "{log}");
    assert_eq!(fitting["models"][0]["image_size"], 48);
    for (more, taken_at) in [
        (["--statistics", "moving"], "statistics of 32 px"),
        (["--image-size", "32"], "statistics of 48 px"),
    ] {
        let (_, log) = eval(&[&[LARGE], &more[..]].concat());
        assert!(log.contains(taken_at), "{more:?}: {log}");
    }
    place.succeed(&["predict", LARGE, "pictures/val"]);
    place.fail(&["resume", LARGE], 2, &["calibrated at 48 px", "trains at 32 px", "--init-from"]);

    // Its statistics are those of a checkpoint that had 48 px all along, and go back to those of 32 px.
    edited(&place, LAST, "born.safetensors", |born| {
        born.metadata.preprocessing.image_size = 48;
        born.metadata.config.data.image_size = 48;
    });
    place.succeed(&["calibrate", "born.safetensors"]);
    assert!(population("born-calibrated.safetensors") == population(LARGE));
    place.succeed(&["calibrate", LAST]);
    place.succeed(&["calibrate", LARGE, "--image-size", "32", "--out", "back.safetensors"]);
    assert!(population("back.safetensors") == population("run/last-calibrated.safetensors"));
    assert!(population("back.safetensors") != population(LARGE));
    assert_eq!(load("back.safetensors").metadata.trained_image_size, None);

    for command in ["eval", "calibrate"] {
        place.fail(&[command, LAST, "--image-size", "20"], 2, &["--image-size 20", "32 to 512"]);
    }
    // Auxiliary heads fit one size alone, and evaluation does not need them.
    train(&place, "heads", &["--set", "network.aux=true", "--steps", "1"]);
    let heads = "heads/last.safetensors";
    eval(&[heads, "--image-size", "160"]);
    place.succeed(&["calibrate", heads, "--image-size", "160", "--images", "8"]);
    assert!(!load("heads/last-160px.safetensors").metadata.config.network.aux);
}

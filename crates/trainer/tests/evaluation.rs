//! Crops, ensembles, reports and population statistics, on the binary and by hand.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use bninception::distributed::Ranks;
use bninception::evaluation::calibrate;
use bninception::run::checkpoint;
use bninception::run::state::Calibration;
use bninception_data::decode::{DecodeBuffers, Want};
use bninception_data::{
    DataError, DemoOptions, LoadOptions, Loader, Preprocessing, RgbImage, Source, TrainPlan,
    write_demo,
};
use bninception_engine::model::init::initial_weights;
use bninception_engine::model::{Network, NetworkOptions, ParameterTable};
use bninception_engine::{
    EvaluationWeights, Executor, Fast, FastOptions, Images, Normaliser, Reference,
};
use serde_json::Value;

/// A temporary folder in which the binary runs.
struct Place {
    dir: tempfile::TempDir,
}

const LAST: &str = "run/last.safetensors";
const CALIBRATED: &str = "run/last-calibrated.safetensors";

impl Place {
    /// Small pictures of ten classes, 4 training and 2 validation pictures of each, and a run on them.
    /// Eight steps are too few for the preset's moving average of the weights, whose losses would be
    /// in the hundreds; half as long a memory gives sound ones.
    fn with_run(more: &[&str]) -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        let options = DemoOptions { train_per_class: 4, val_per_class: 2, size: 32, seed: 1 };
        write_demo(&place.path("pictures"), &options).unwrap();
        let moving = ["--set", "train.eval_statistics=moving"];
        place.train("run", &[&["--set", "train.ema=0.5"], &moving[..], more].concat());
        place
    }

    fn train(&self, name: &str, more: &[&str]) {
        let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", name];
        self.succeed(&[&train, more].concat());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_bninception"))
            .args(arguments)
            .current_dir(self.dir.path())
            .env_remove("BNINCEPTION_LOG")
            .output()
            .unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {:?}\n{errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.succeed(&[arguments, &["--json"]].concat());
        serde_json::from_str(output.lines().last().unwrap()).unwrap()
    }

    /// Runs a command that must fail with `code` and name each of `parts`.
    fn fail(&self, arguments: &[&str], code: i32, parts: &[&str]) {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{errors}");
        for part in parts {
            assert!(errors.contains(part), "{arguments:?}: no `{part}` in\n{errors}");
        }
        assert!(output.stdout.is_empty(), "{arguments:?} wrote to stdout");
    }

    /// [`common::reorder_classes`] of a checkpoint here.
    fn reorder(&self, from: &str, to: &str, order: &[usize]) {
        common::reorder_classes(&self.path(from), &self.path(to), order);
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

/// The same results, but for rounding.
fn assert_same_result(found: &Value, expected: &Value, what: &str) {
    for key in ["images", "top1", "top5"] {
        assert_eq!(found[key], expected[key], "{what}: {key}");
    }
    for key in ["loss", "ece"] {
        let (found, expected) = (number(found, key), number(expected, key));
        let near = (found - expected).abs() <= 1e-4 * expected.abs();
        assert!(near, "{what}: {key} {found}, expected {expected}");
    }
}

#[test]
fn many_crops_count_each_image_once() {
    let place = Place::with_run(&[]);
    let class = fs::read_to_string(place.path("run/classes.txt")).unwrap();
    let broken = format!("pictures/val/{}/0001.png", class.lines().next().unwrap());
    fs::write(place.path(&broken), "not a picture").unwrap();
    let mut losses = BTreeSet::new();
    for crops in ["1", "10", "144"] {
        let result = place.json(&["eval", LAST, "--crops", crops]);
        let expected = [
            "images",
            "top1",
            "top5",
            "loss",
            "crops",
            "failed",
            "images_per_second",
            "flip",
            "statistics",
            "models",
            "ece",
            "top1_interval",
            "top5_interval",
            "balanced_accuracy",
            "majority",
            "per_class",
            "confused_pairs",
            "mistakes",
        ];
        assert_eq!(keys(&result), expected);
        assert_eq!(result["crops"].to_string(), crops);
        assert_eq!((&result["images"], &result["statistics"]), (&20.into(), &"moving".into()));
        assert_eq!(result["failed"][0]["path"], broken.as_str());
        let rows = result["per_class"].as_array().unwrap();
        assert_eq!(rows.len(), 10);
        assert!(rows.iter().all(|row| row["images"] == 2), "{rows:?}");
        let mean = rows.iter().map(|row| number(row, "top1")).sum::<f64>() / 10.0;
        assert!((mean - number(&result, "top1")).abs() < 1e-12, "{mean}");
        losses.insert(result["loss"].to_string());
        // Workers and batch size change nothing beyond rounding.
        let other = ["eval", LAST, "--crops", crops, "-j", "0", "-b", "7"];
        assert_same_result(&place.json(&other), &result, crops);
    }
    assert_eq!(losses.len(), 3, "other crops give other losses: {losses:?}");
    place.fail(&["eval", LAST, "--crops", "12"], 2, &["--crops", "1, 10 or 144"]);
}

#[test]
fn an_ensemble_matches_classes_by_name() {
    let place = Place::with_run(&[]);
    let reversed: Vec<usize> = (0..10).rev().collect();
    place.reorder(LAST, "reversed.safetensors", &reversed);
    let alone = place.json(&["eval", LAST]);
    // With itself, and with itself under other labels, the mean is as it was.
    let folder = ["--data-dir", "pictures"];
    for second in [LAST, "reversed.safetensors"] {
        let both = place.json(&[&["eval", LAST, second], &folder[..]].concat());
        assert_same_result(&both, &alone, second);
        assert_eq!(both["models"][1]["path"], second);
    }
    let turned = place.json(&[&["eval", "reversed.safetensors", LAST], &folder[..]].concat());
    assert_same_result(&turned, &alone, "the other one first");
    let classes = |result: &Value| -> Vec<String> {
        let rows = result["per_class"].as_array().unwrap();
        rows.iter().map(|row| row["class"].to_string()).collect()
    };
    assert_eq!(classes(&turned), classes(&alone).into_iter().rev().collect::<Vec<_>>());

    // Another network, at another size.
    place.train("large", &["--image-size", "48", "--steps", "1"]);
    let large = "large/last.safetensors";
    let both = place.json(&["eval", LAST, large, "--crops", "10"]);
    assert_eq!(both["models"][1]["image_size"], 48);
    assert!(both["loss"] != place.json(&["eval", LAST, "--crops", "10"])["loss"]);
    let text = place.succeed(&["eval", LAST, large]);
    assert!(text.contains("mean of 2 models") && text.contains(large), "{text}");

    // Runs that hold out other images cannot be told to take their own.
    let halves = ["--val-dir", "pictures/train", "--steps", "1"];
    place.train("other", &halves);
    let other = "other/last.safetensors";
    place.fail(&["eval", LAST, other], 3, &["validated on other images", "--data-dir"]);

    let mut loaded = checkpoint::load(&place.path(LAST)).unwrap();
    loaded.metadata.classes[3] = "zebra".to_owned();
    let table = ParameterTable::new(&loaded.network);
    let zebra = place.path("zebra.safetensors");
    checkpoint::save(&zebra, &loaded.metadata, &table, &loaded.state).unwrap();
    let parts = ["zebra.safetensors", "it lacks `", "and adds `zebra`"];
    place.fail(&["eval", LAST, "zebra.safetensors"], 3, &parts);
}

#[test]
fn a_report_has_every_image_and_quotes_odd_names() {
    let place = Place::with_run(&[]);
    let classes = fs::read_to_string(place.path("run/classes.txt")).unwrap();
    let first = classes.lines().next().unwrap();
    let odd = format!("pictures/val/{first}/a, \"b\".png");
    fs::rename(place.path(&format!("pictures/val/{first}/0000.png")), place.path(&odd)).unwrap();
    let broken = format!("pictures/val/{first}/0001.png");
    fs::write(place.path(&broken), "not a picture").unwrap();
    let text =
        place.succeed(&["eval", LAST, "--data-dir", "pictures", "--out", "report", "--top", "2"]);
    assert!(text.starts_with("top-1 ") && text.contains(", ECE 0."), "{text}");
    assert!(text.contains("batch norm statistics: moving"), "{text}");
    assert!(
        text.contains("balanced accuracy ") && text.contains("always the same class"),
        "{text}"
    );
    for (title, lines) in
        [("classes", 11), ("confusion", 11), ("most confused", 2), ("worst mistakes", 2)]
    {
        let part = text.split("\n\n").find(|part| part.starts_with(title));
        let part = part.unwrap_or_else(|| panic!("no {title} in\n{text}"));
        assert_eq!(part.trim_end().lines().count(), 1 + lines, "{text}");
    }
    let bare = place.succeed(&["eval", LAST, "--data-dir", "pictures", "--top", "0"]);
    assert!(bare.lines().count() <= 4 && !bare.contains("\n\n"), "{bare}");

    let result = place.json(&["eval", LAST, "--data-dir", "pictures"]);
    assert_intervals_hold(&result);
    // 19 images got an answer, each for one class.
    let rows = result["per_class"].as_array().unwrap();
    let all = |key: &str| rows.iter().map(|row| number(row, key)).sum::<f64>();
    assert_eq!(
        (all("images"), all("predicted"), all("right") / 20.0),
        (20.0, 19.0, number(&result, "top1"))
    );
    assert!((all("recall") / 10.0 - number(&result, "balanced_accuracy")).abs() < 1e-12);
    for row in rows {
        let (right, images, predicted) =
            (number(row, "right"), number(row, "images"), number(row, "predicted"));
        assert_eq!(row["precision"].as_f64(), (predicted > 0.0).then(|| right / predicted));
        assert_eq!(number(row, "f1"), 2.0 * right / (images + predicted));
    }
    assert_eq!(number(&result["majority"], "top1"), 0.1);
    let read = |name: &str| -> Vec<String> {
        let text = fs::read_to_string(place.path("report").join(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let predictions = read("predictions.csv");
    assert_eq!(predictions.len(), 1 + 20);
    let quoted = format!("\"pictures/val/{first}/a, \"\"b\"\".png\",{first},");
    assert!(predictions.iter().any(|line| line.starts_with(&quoted)), "{predictions:?}");
    let line = predictions.iter().find(|line| line.starts_with(&broken)).unwrap();
    assert!(line.starts_with(&format!("{broken},{first},,,")) && line.contains("not a"), "{line}");
    // 19 images got an answer: as many in the cells of the confusion matrix and in the bins.
    let sum = |name: &str, column: usize| -> u64 {
        let cell = |line: &String| line.split(',').nth(column).unwrap().parse::<u64>().unwrap();
        read(name)[1..].iter().map(cell).sum()
    };
    assert_eq!((sum("confusion.csv", 2), sum("calibration.csv", 2)), (19, 19));
    assert_eq!((read("calibration.csv").len(), sum("per-class.csv", 1)), (1 + 15, 20));
    let wrong = 19 - (number(&result, "top1") * 20.0).round() as usize;
    assert_eq!(read("mistakes.csv").len(), 1 + wrong);
    let mistakes = result["mistakes"].as_array().unwrap();
    assert_eq!(mistakes.len(), wrong);
    let first = format!("{},", mistakes[0]["path"].as_str().unwrap());
    assert!(read("mistakes.csv")[1].replace('"', "").starts_with(&first), "{first}");
    assert_eq!(sum("confused-pairs.csv", 2), wrong as u64);
    let pairs = result["confused_pairs"].as_array().unwrap();
    assert_eq!(read("confused-pairs.csv").len(), 1 + pairs.len());
}

/// Every rate lies in its interval.
fn assert_intervals_hold(result: &Value) {
    let rows = result["per_class"].as_array().unwrap();
    let pairs = [(result, "top1", "top1_interval"), (result, "top5", "top5_interval")];
    for (value, rate, interval) in
        pairs.into_iter().chain(rows.iter().map(|row| (row, "recall", "recall_interval")))
    {
        let ends: Vec<f64> =
            value[interval].as_array().unwrap().iter().map(|end| end.as_f64().unwrap()).collect();
        let rate = number(value, rate);
        assert!(0.0 <= ends[0] && ends[0] <= rate && rate <= ends[1] && ends[1] <= 1.0, "{value}");
        assert!(ends[1] - ends[0] > 0.1, "20 images tell little: {value}");
    }
}

/// Two classes, one much larger: what says always the same is not taken for a network that has learnt.
#[test]
fn a_network_that_learnt_nothing_is_told_by_the_larger_class() {
    let place = Place { dir: tempfile::tempdir().unwrap() };
    let options = DemoOptions { train_per_class: 12, val_per_class: 12, size: 32, seed: 1 };
    write_demo(&place.path("all"), &options).unwrap();
    let classes: Vec<PathBuf> = {
        let entries = fs::read_dir(place.path("all/val")).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    for split in ["train", "val"] {
        for (class, keep) in [(&classes[0], 12), (&classes[1], 2)] {
            let name = class.file_name().unwrap();
            let to = place.path("pictures").join(split).join(name);
            fs::create_dir_all(&to).unwrap();
            for index in 0..keep {
                let file = format!("{index:04}.png");
                fs::copy(place.path("all").join(split).join(name).join(&file), to.join(&file))
                    .unwrap();
            }
        }
    }
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];
    let output = place.run(&[&train[..], &["--steps", "1", "--batch-size", "4"]].concat());
    let (text, log) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let larger = classes[0].file_name().unwrap().to_str().unwrap();
    let line = format!("always `{larger}` would score 85.71 %");
    assert!(log.contains(&format!("to beat in validation: {line}")), "{log}");
    assert!(log.contains("2 of 14 training images are left over each epoch (batch 4)"), "{log}");
    assert!(text.starts_with("top-1 ") && text.contains("(95 %: "), "{text}");
    assert!(text.contains(&format!("{line}: this result is")), "{text}");
    // Of two classes both are always among the first five.
    assert!(!text.contains("top-5") && !log.contains("top-5"), "{text}{log}");
    let evaluated = place.succeed(&["eval", LAST]);
    assert!(evaluated.contains(&format!("{line}: this result is")), "{evaluated}");
    assert!(!evaluated.contains("top-5"), "{evaluated}");
    let json = place.json(&["eval", LAST]);
    assert_eq!((&json["top5"], &json["majority"]["class"]), (&1.0.into(), &larger.into()));
}

/// Pictures of mistakes whatever becomes of the files, and names that no font has.
#[test]
fn mistakes_and_confusion_are_drawn() {
    let place = Place::with_run(&[]);
    let classes = fs::read_to_string(place.path("run/classes.txt")).unwrap();
    let first = classes.lines().next().unwrap();
    let odd = place.path(&format!("pictures/val/{first}/蚂蚁 {}.png", "long".repeat(40)));
    fs::rename(place.path(&format!("pictures/val/{first}/0000.png")), odd).unwrap();
    RgbImage::new(3, 900).save(place.path(&format!("pictures/val/{first}/0001.png"))).unwrap();
    place.succeed(&["eval", LAST, "--data-dir", "pictures", "--out", "report"]);
    for name in ["mistakes.png", "confusion.png"] {
        let bytes = fs::read(place.path("report").join(name)).unwrap();
        let picture = bninception_data::decode(&bytes, &Default::default()).unwrap();
        let (width, height) = picture.dimensions();
        assert!(width > 600 && height > 200, "{name}: {width} x {height}");
        let white = picture.pixels().filter(|pixel| pixel.0 == [255; 3]).count();
        assert!(white < (width * height) as usize, "{name} is empty");
    }
}

#[test]
fn calibration_adds_population_statistics_and_changes_nothing_else() {
    let place = Place::with_run(&[]);
    let before = fs::read(place.path(LAST)).unwrap();
    let moving = place.json(&["eval", LAST]);
    let calibrate = ["calibrate", LAST, "--data-dir", "pictures"];
    place.fail(&["eval", LAST, "--statistics", "population"], 2, &[LAST, "calibrate"]);
    let predict = ["predict", LAST, "a.png", "--statistics", "population"];
    place.fail(&predict, 2, &[LAST, "calibrate"]);
    place.fail(&[&calibrate[..], &["--images", "7"]].concat(), 2, &["batch of 8", "--images"]);
    place.fail(&[&calibrate[..], &["--out", LAST]].concat(), 2, &[LAST, "--overwrite"]);

    let made = place.json(&calibrate);
    assert_eq!(made["checkpoint"], CALIBRATED);
    // 40 training images in batches of 8.
    assert_eq!((&made["batches"], &made["images"]), (&5.into(), &40.into()));
    assert!(fs::read(place.path(LAST)).unwrap() == before, "the input has changed");
    let (old, new) = (
        checkpoint::load(&place.path(LAST)).unwrap(),
        checkpoint::load(&place.path(CALIBRATED)).unwrap(),
    );
    assert_eq!(old.state.model.weights, new.state.model.weights);
    assert_eq!(old.state.model.ema, new.state.model.ema);
    assert_eq!(old.state.model.velocity, new.state.model.velocity);
    assert!(old.state.population.is_none() && new.state.population.is_some());
    place.fail(&calibrate, 2, &[CALIBRATED, "--overwrite"]);
    assert!(place.succeed(&["info", CALIBRATED]).contains("over 5 batches of 8 training images"));

    // Both are there, the new ones are the default, and the result says which were used.
    let population = place.json(&["eval", CALIBRATED]);
    assert_eq!(population["statistics"], "population");
    assert!(population["loss"] != moving["loss"]);
    let asked = place.json(&["eval", CALIBRATED, "--statistics", "population"]);
    assert_same_result(&asked, &population, "asked for");
    let again = place.json(&["eval", CALIBRATED, "--statistics", "moving"]);
    assert_eq!((&again["statistics"], &again["loss"]), (&"moving".into(), &moving["loss"]));
    let mixed = place.json(&["eval", LAST, CALIBRATED]);
    assert_eq!(mixed["statistics"], "mixed");
    let picture = format!("pictures/val/{}", old.metadata.classes[0]);
    let predict = |statistics: &[&str]| {
        place.json(&[&["predict", CALIBRATED, &picture], statistics].concat()).to_string()
    };
    assert_eq!(predict(&[]), predict(&["--statistics", "population"]));
    assert!(predict(&[]) != predict(&["--statistics", "moving"]));

    // Workers change no byte; the seed does.
    let bytes = |more: &[&str]| {
        place.succeed(
            &[&calibrate[..], &["--out", "other.safetensors", "--overwrite"], more].concat(),
        );
        checkpoint::load(&place.path("other.safetensors")).unwrap().state.population.unwrap()
    };
    let expected = bytes(&["-j", "2"]);
    assert!(Some(&expected) == new.state.population.as_ref());
    assert!(expected == bytes(&["-j", "0"]));
    assert!(expected.statistics != bytes(&["--seed", "7"]).statistics);
    // The 4 images of each class make five batches; one broken image spoils one of them.
    let class = place.path("pictures/train").join(&old.metadata.classes[0]);
    let broken = fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    fs::write(broken, "not a picture").unwrap();
    let partly = ["--out", "other.safetensors", "--overwrite"];
    let partly = place.json(&[&calibrate[..], &partly].concat());
    assert_eq!((&partly["batches"], partly["failed"].as_array().unwrap().len()), (&4.into(), 1));

    // In place only when told to; a run that goes on has other weights, so they are dropped.
    place.succeed(&[&calibrate[..], &["--out", LAST, "--overwrite"]].concat());
    assert_eq!(place.json(&["eval", LAST])["statistics"], "population");
    let unchecked = ["--set", "data.check_headers=false"];
    let further = ["resume", "run", "--steps", "9", "--allow-change", "train.steps"];
    place.succeed(&[&further[..], &unchecked].concat());
    assert_eq!(place.json(&["eval", LAST])["statistics"], "moving");
}

#[test]
fn without_batch_norm_there_is_nothing_to_calibrate() {
    let off = ["--set", "network.batch_norm=false", "--set", "network.conv_bias=true"];
    let place = Place::with_run(&[&off[..], &["--steps", "1"]].concat());
    place.fail(&["calibrate", LAST], 2, &["nothing to calibrate"]);
    place.fail(&["eval", LAST, "--statistics", "population"], 2, &["no batch norm"]);
    assert_eq!(place.json(&["eval", LAST])["statistics"], "none");
}

/// Pictures of smooth colour in memory.
struct Pictures {
    path: PathBuf,
}

impl Source for Pictures {
    fn len(&self) -> usize {
        29
    }

    fn label(&self, index: usize) -> u32 {
        index as u32 % 3
    }

    fn path(&self, _: usize) -> &Path {
        &self.path
    }

    fn load(
        &self,
        index: usize,
        _: Want<'_>,
        _: &mut DecodeBuffers,
    ) -> Result<RgbImage, DataError> {
        let k = index as u32;
        let value =
            |x: u32, y: u32, c: u32| (x * (2 + k % 3) + y * (5 + c) + k * 31 * (c + 1)) as u8;
        Ok(RgbImage::from_fn(70, 64, |x, y| {
            let mut pixel = RgbImage::new(1, 1);
            pixel.get_pixel_mut(0, 0).0 = [0, 1, 2].map(|c| value(x, y, c));
            *pixel.get_pixel(0, 0)
        }))
    }
}

/// Mean and variance of the outputs of the first convolution by algorithm 2, in plain loops: 7x7,
/// stride 2, padding 3, filters `[64][3][7][7]`.
fn algorithm_2(batches: &[Vec<f32>], size: usize, filters: &[f32]) -> [Vec<f64>; 2] {
    let out = size / 2;
    let image = 3 * size * size;
    let (mut mean, mut variance) = (vec![0.0; 64], vec![0.0; 64]);
    for batch in batches {
        let m = (batch.len() / image * out * out) as f64;
        for channel in 0..64 {
            let filter = &filters[channel * 147..][..147];
            let (mut sum, mut squares) = (0.0, 0.0);
            for image in batch.chunks_exact(image) {
                for (row, column) in (0..out * out).map(|at| (at / out, at % out)) {
                    let mut value = 0.0;
                    for (at, weight) in filter.iter().enumerate() {
                        let (c, r, s) = (at / 49, at / 7 % 7, at % 7);
                        let (y, x) = (2 * row + r, 2 * column + s);
                        if (3..size + 3).contains(&y) && (3..size + 3).contains(&x) {
                            let pixel = image[(c * size + y - 3) * size + x - 3];
                            value += f64::from(pixel) * f64::from(*weight);
                        }
                    }
                    sum += value;
                    squares += value * value;
                }
            }
            let biased = squares / m - (sum / m).powi(2);
            mean[channel] += sum / m / batches.len() as f64;
            variance[channel] += m / (m - 1.0) * biased / batches.len() as f64;
        }
    }
    [mean, variance]
}

/// Norm of the difference over the norm of the expected values.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let pairs = found.iter().zip(expected);
    norm(&mut pairs.map(|(a, b)| f64::from(*a) - b)) / norm(&mut expected.iter().copied())
}

#[test]
fn population_statistics_are_those_of_algorithm_2_on_both_executors() {
    let options = NetworkOptions { classes: 3, image_size: 64, ..NetworkOptions::default() };
    let network = Network::bn_inception(options).unwrap();
    let table = ParameterTable::new(&network);
    let weights = initial_weights(&network, &table, 1);
    let preprocessing = Preprocessing { image_size: 64, ..Preprocessing::default() };
    let load = LoadOptions { batch_size: 8, workers: 0, prefetch: 1 };
    let plan = TrainPlan::new(3, 0..3);
    let source = || Arc::new(Pictures { path: PathBuf::from("picture") });
    let population = |executor: &mut dyn Executor| {
        executor.prepare_evaluation(EvaluationWeights::Given(&weights)).unwrap();
        let alone = &mut Ranks::alone();
        calibrate::population_statistics(executor, source(), &preprocessing, &load, &plan, alone)
            .unwrap()
            .population
    };
    let fast = population(&mut Fast::new(network.clone(), FastOptions::default()).unwrap());
    let reference = population(&mut Reference::in_f64(network.clone()));
    let made = Calibration { batches: 3, batch_size: 8, seed: 3 };
    assert_eq!((fast.made, reference.made), (made, made));

    let normaliser = Normaliser::new(preprocessing.mean, preprocessing.std);
    // The mean over batches by hand; `engine/tests/fast.rs` compares those of a batch with a step.
    let mut plain = Reference::in_f64(network.clone());
    plain.prepare_evaluation(EvaluationWeights::Given(&weights)).unwrap();
    let mut expected = vec![0.0; weights.statistics.len()];
    let mut batches = Vec::new();
    for batch in Loader::train(source(), &preprocessing, &load, &plan).unwrap() {
        let batch = batch.unwrap();
        let images = Images::Levels { levels: &batch.images, normaliser: &normaliser };
        let mut of_batch = Vec::new();
        plain.batch_statistics(images, &mut of_batch).unwrap();
        let parts = of_batch.iter().map(|&value| f64::from(value) / 3.0);
        expected.iter_mut().zip(parts).for_each(|(sum, value)| *sum += value);
        batches.push(images.to_values(preprocessing.image_size * preprocessing.image_size));
    }
    // Rounding of what is stored; and, for the fast engine, of f32 arithmetic through 69 layers.
    let (of_reference, of_fast) =
        (error(&reference.statistics, &expected), error(&fast.statistics, &expected));
    assert!(of_reference < 1e-6, "{of_reference}");
    assert!(of_fast < 1e-4, "{of_fast}");

    let spec = |name: &str| {
        let all = table.trainable.iter().chain(&table.statistics);
        all.clone().find(|spec| spec.name == name).unwrap().range.clone()
    };
    let filters = &weights.trainable[spec("conv1_7x7_s2.weight")];
    let by_hand = algorithm_2(&batches, 64, filters);
    for (name, by_hand) in ["running_mean", "running_var"].into_iter().zip(by_hand) {
        let range = spec(&format!("conv1_7x7_s2_bn.{name}"));
        for (what, found) in [("fast", &fast), ("reference", &reference)] {
            let error = error(&found.statistics[range.clone()], &by_hand);
            assert!(error < 1e-5, "{what}, {name}: {error}");
        }
    }
}

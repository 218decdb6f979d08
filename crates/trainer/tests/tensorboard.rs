//! The event files of runs, read by TensorBoard's own code, where there is a Python that has it:
//! `tools/tensorboard` says how to make one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // helpers of tests; says what it skips

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::Place;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Runs a script with the Python that has TensorBoard, and gives what it prints.
fn python(python: &Path, folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(python).args(arguments).current_dir(folder).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What TensorBoard reads below `runs`.
fn read(interpreter: &Path, place: &Place) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/tensorboard/read.py");
    let script = script.canonicalize().unwrap();
    let text = python(interpreter, &place.path("runs"), &[script.to_str().unwrap(), "."]);
    serde_json::from_str(&text).unwrap()
}

fn rows(place: &Place, run: &str, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path(run).join("metrics.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["kind"] == kind).collect()
}

/// Scalars are the fields of `metrics.jsonl`, as 32-bit numbers; pictures decode to the sides that they tell.
fn check_run(place: &Place, run: &str, read: &Value) {
    let read = &read["runs"][format!("{run}/tensorboard")];
    let of_tag = |tag: &str| -> Vec<(u64, f32)> {
        let points = read["scalars"][tag].as_array().unwrap_or_else(|| panic!("no {tag} in {run}"));
        let point = |point: &Value| (point[0].as_u64().unwrap(), point[1].as_f64().unwrap() as f32);
        points.iter().map(point).collect()
    };
    let runs = format!("runs/{run}");
    let train = ["loss", "top1", "lr", "grad_norm", "images_per_second", "data_wait"];
    let eval = ["loss", "top1", "top5", "balanced"];
    let mut n_tags = 0;
    for (kind, prefix, fields) in [("train", "train", &train[..]), ("eval", "val", &eval[..])] {
        let rows = rows(place, &runs, kind);
        for field in fields.iter().filter(|_| !rows.is_empty()) {
            let expected: Vec<(u64, f32)> = rows
                .iter()
                .map(|row| (row["step"].as_u64().unwrap(), row[field].as_f64().unwrap() as f32))
                .collect();
            assert_eq!(of_tag(&format!("{prefix}/{field}")), expected, "{run}: {prefix}/{field}");
            n_tags += 1;
        }
    }
    let evaluations = rows(place, &runs, "eval");
    if !evaluations.is_empty() {
        let mut best = 0.0;
        let expected: Vec<(u64, f32)> = evaluations
            .iter()
            .map(|row| {
                best = row["top1"].as_f64().unwrap().max(best);
                (row["step"].as_u64().unwrap(), best as f32)
            })
            .collect();
        assert_eq!(of_tag("val/best_top1"), expected, "{run}");
        n_tags += 1;
    }
    assert_eq!(read["scalars"].as_object().unwrap().len(), n_tags, "{run}: other scalars");

    let steps_of = |tag: &str| -> Vec<u64> {
        let empty = Vec::new();
        let images = read["images"][tag].as_array().unwrap_or(&empty);
        for image in images {
            // Step, the sides that it tells, and those of the PNG.
            let [_, width, height, own_width, own_height] = &image.as_array().unwrap()[..] else {
                panic!("{image}");
            };
            assert_eq!((width, height), (own_width, own_height));
            assert!(width.as_u64().unwrap() > 100 && height.as_u64().unwrap() > 100, "{image}");
        }
        images.iter().map(|image| image[0].as_u64().unwrap()).collect()
    };
    assert_eq!(steps_of("train/images"), [0], "{run}");
    let steps: Vec<u64> = evaluations.iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps_of("val/confusion"), steps, "{run}");
}

/// The one session of a run has the run's present settings, the status, and the last values of its metrics.
fn check_session(place: &Place, run: &str, read: &Value, status: &str) {
    let name = format!("{run}/tensorboard");
    let groups = read["sessions"].as_array().unwrap();
    let own: Vec<&Value> = groups.iter().filter(|group| group["name"] == name.as_str()).collect();
    let [group] = own[..] else { panic!("{run}: {own:?}") };
    let sessions = group["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    // An unknown status is the default, which JSON leaves out.
    let found = sessions[0]["status"].as_str().unwrap_or("STATUS_UNKNOWN");
    assert_eq!(found, status, "{run}");
    let ends = sessions[0]["endTimeSecs"].as_f64();
    assert_eq!(ends.is_some(), status != "STATUS_UNKNOWN", "{run}");
    let starts = sessions[0]["startTimeSecs"].as_f64().unwrap();
    assert!(ends.is_none_or(|ends| ends >= starts));

    let settings = fs::read_to_string(place.path("runs").join(run).join("config.toml")).unwrap();
    let settings: toml::Table = toml::from_str(&settings).unwrap();
    let hparams = group["hparams"].as_object().unwrap();
    assert!(hparams.len() > 30, "{hparams:?}");
    for (key, value) in hparams {
        if key == "preset" {
            assert_eq!(value, "smoke");
            continue;
        }
        let (section, field) = key.split_once('.').unwrap();
        match &settings[section][field] {
            toml::Value::Boolean(expected) => assert_eq!(value, expected, "{run}: {key}"),
            toml::Value::Integer(expected) => assert_eq!(*value, *expected as f64, "{run}: {key}"),
            toml::Value::Float(expected) => assert_eq!(value, expected, "{run}: {key}"),
            toml::Value::String(expected) => assert_eq!(value, expected, "{run}: {key}"),
            other => panic!("{key} = {other}"),
        }
    }
    if let Some(last) = rows(place, &format!("runs/{run}"), "eval").last() {
        let metrics = sessions[0]["metricValues"].as_array().unwrap();
        let metric = |tag: &str| {
            let own = |metric: &&Value| metric["name"]["tag"] == tag;
            metrics.iter().find(own).unwrap()["value"].as_f64().unwrap() as f32
        };
        assert_eq!(metric("val/top1"), last["top1"].as_f64().unwrap() as f32);
        assert_eq!(metric("val/loss"), last["loss"].as_f64().unwrap() as f32);
        assert!(metric("val/best_top1") >= metric("val/top1"));
    }
}

/// Ends a run in its third step or behind it.
fn stop(place: &Place, arguments: &[&str], metrics: &Path) {
    let mut child = place.command(arguments).spawn().unwrap();
    let start = Instant::now();
    while fs::read_to_string(metrics).map_or(0, |text| text.lines().count()) < 3 {
        assert!(start.elapsed() < Duration::from_secs(300), "no third line");
        thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

const TRAIN: [&str; 9] = [
    "train",
    "--preset",
    "smoke",
    "--data-dir",
    "pictures",
    "--set",
    "schedule.kind=constant",
    "--set",
    "log.every_steps=1",
];

fn train<'a>(run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&TRAIN[..], &["--run-dir", run], more].concat()
}

#[test]
fn tensorboard_reads_what_runs_wrote() {
    let Some(interpreter) = std::env::var_os("BNINCEPTION_TENSORBOARD_PYTHON").map(PathBuf::from)
    else {
        eprintln!("skipped: BNINCEPTION_TENSORBOARD_PYTHON names no Python that has TensorBoard");
        return;
    };
    let place = Place::with_pictures();
    let watch = ["--set", "log.watch=[\"conv1_7x7_s2\"]", "--set", "log.watch_every=4"];
    place.succeed(&train("runs/whole", &watch));
    let diverging = train("runs/diverging", &["--set", "optimizer.lr=1e38"]);
    assert_eq!(place.run(&diverging).status.code(), Some(4));
    let stopped = train("runs/stopped", &["--steps", "1000000", "--set", "train.seed=7"]);
    stop(&place, &stopped, &place.path("runs/stopped/metrics.jsonl"));

    let told = read(&interpreter, &place);
    assert_eq!(told["runs"].as_object().unwrap().len(), 3);
    check_run(&place, "whole", &told);
    check_run(&place, "stopped", &told);
    check_session(&place, "whole", &told, "STATUS_SUCCESS");
    check_session(&place, "diverging", &told, "STATUS_FAILURE");
    check_session(&place, "stopped", &told, "STATUS_UNKNOWN");
    assert_eq!(told["runs"]["whole/tensorboard"]["histograms"][0], "watch/conv1_7x7_s2");
    let infos = told["experiment"]["hparamInfos"].as_array().unwrap();
    let hparams = told["sessions"][0]["hparams"].as_object().unwrap();
    assert_eq!(infos.len(), hparams.len(), "each setting is announced");
    let metrics = told["experiment"]["metricInfos"].as_array().unwrap();
    let scalars = told["runs"]["whole/tensorboard"]["scalars"].as_object().unwrap();
    for metric in metrics {
        let tag = metric["name"]["tag"].as_str().unwrap();
        assert!(scalars.contains_key(tag), "{tag}");
    }

    // They go on: one that had ended, one that had failed, by another rate, and one that was stopped.
    let done = rows(&place, "runs/stopped", "train").last().unwrap()["step"].as_u64().unwrap();
    let further = (done + 7).to_string();
    place.succeed(&["resume", "runs/whole", "--steps", "11"]);
    place.succeed(&[
        "resume",
        "runs/diverging",
        "--set",
        "optimizer.lr=0.01",
        "--allow-change",
        "optimizer.lr",
    ]);
    place.succeed(&["resume", "runs/stopped", "--steps", &further]);
    // At its end already.
    place.succeed(&["resume", "runs/whole"]);
    let told = read(&interpreter, &place);
    for run in ["whole", "diverging", "stopped"] {
        check_run(&place, run, &told);
        check_session(&place, run, &told, "STATUS_SUCCESS");
    }
}

/// The example on the page of run folders.
#[test]
fn the_examples_in_python_run() {
    let Some(interpreter) = std::env::var_os("BNINCEPTION_TENSORBOARD_PYTHON").map(PathBuf::from)
    else {
        eprintln!("skipped: BNINCEPTION_TENSORBOARD_PYTHON names no Python");
        return;
    };
    let place = Place::with_pictures();
    place.succeed(&train("run", &[]));
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../checkpoints/README.md");
    let page = fs::read_to_string(page).unwrap();
    let example = |heading: &str| {
        let (_, below) = page.split_once(&format!("\n## {heading}\n")).unwrap();
        let (_, code) = below.split_once("```python\n").unwrap();
        python(&interpreter, &place.path("run"), &["-c", code.split_once("```").unwrap().0])
    };
    let evaluations = rows(&place, "run", "eval");
    let printed = example("metrics.jsonl");
    assert_eq!(printed.lines().count(), evaluations.len());
    assert!(printed.starts_with(&format!("{} ", evaluations[0]["step"])), "{printed}");
    let printed = example("summary.csv");
    let top1 = printed.trim().split_once(' ').unwrap().1.parse::<f64>().unwrap();
    let best = evaluations.iter().map(|row| row["top1"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!(top1, best);
}

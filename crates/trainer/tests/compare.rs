//! `compare` and `report` on made-up runs, as a user meets them.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bninception::config::{Sources, resolve};
use serde_json::Value;

/// Writes the folder of a run of a preset; `rows` are (step, top-1).
fn make_run(dir: &Path, preset: &str, seed: u64, rows: &[(u64, f64)]) -> PathBuf {
    let path = dir.join(format!("{preset}-seed-{seed}"));
    fs::create_dir_all(&path).unwrap();
    let sets = [format!("train.seed={seed}"), "data.dir=\"my pictures\"".to_owned()];
    let sources = Sources { preset: Some(preset), sets: &sets, ..Sources::default() };
    let config = resolve(&sources).unwrap().config;
    fs::write(path.join("config.toml"), config.to_toml().unwrap()).unwrap();
    let mut text = String::new();
    for (step, top1) in rows {
        text.push_str(&format!(
            "{{\"kind\":\"train\",\"step\":{step},\"epoch\":1.0,\"loss\":1.5,\"top1\":0.5,\
             \"lr\":0.0015,\"images_per_second\":30.0,\"data_wait\":0.0}}\n\
             {{\"kind\":\"eval\",\"step\":{step},\"epoch\":1.0,\"weights\":\"model\",\
             \"images\":400,\"failed\":0,\"loss\":1.25,\"top1\":{top1},\"top5\":1.0,\
             \"seconds\":2.0}}\n"
        ));
    }
    fs::write(path.join("metrics.jsonl"), text).unwrap();
    path
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_bninception");
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(dir).env_remove("BNINCEPTION_LOG").output().unwrap()
}

fn succeed(dir: &Path, arguments: &[&str]) -> (String, String) {
    let output = run(dir, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {:?}\n{errors}", output.status);
    (String::from_utf8(output.stdout).unwrap(), errors)
}

fn fail(dir: &Path, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = run(dir, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{errors}");
    for part in parts {
        assert!(errors.contains(part), "{arguments:?}: no `{part}` in\n{errors}");
    }
}

#[test]
fn two_runs_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let slow = [(100, 0.25), (200, 0.5), (300, 0.5)];
    make_run(dir, "inception", 1, &slow);
    make_run(dir, "bn-x5", 1, &[(50, 0.5), (100, 0.75)]);
    // A run that goes on writes while it is read.
    let metrics = dir.join("bn-x5-seed-1/metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap() + "{\"kind\":\"eval\",\"st";
    fs::write(&metrics, text).unwrap();

    let arguments = ["compare", "inception-seed-1", "bn-x5-seed-1", "--json", "--out", "out"];
    let (output, _) = succeed(dir, &arguments);
    let value: Value = serde_json::from_str(output.trim_end()).unwrap();
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    // The runs, and the paper's figure 3 because one of them is its Inception.
    assert_eq!(keys(&value), ["runs", "baseline", "target_top1", "models"]);
    let run = &value["runs"][1];
    assert_eq!((&run["run"], &run["preset"]), (&"bn-x5-seed-1".into(), &"bn-x5".into()));
    assert_eq!((&run["last_top1"], &run["images_seen"]), (&0.75.into(), &3200.into()));
    assert_eq!(run["settings"]["optimizer.lr"], 0.0075);
    assert_eq!((&value["baseline"], &value["target_top1"]), (&"inception".into(), &0.5.into()));
    let fast = &value["models"][1];
    let expected = [
        "model",
        "preset",
        "lr",
        "best_top1",
        "best_step",
        "steps_to_target",
        "n_reached",
        "ratio",
        "evaluated_every",
        "last_step",
        "runs",
    ];
    assert_eq!(keys(fast), expected);
    assert_eq!((&fast["model"], &fast["preset"]), (&"bn-x5".into(), &"bn-x5".into()));
    assert_eq!(fast["steps_to_target"]["mean"], 50.0);
    assert_eq!((&fast["ratio"], &fast["evaluated_every"]), (&4.0.into(), &50.into()));
    assert_eq!(fast["best_top1"]["mean"], 0.75);
    assert_eq!(fast["runs"][0]["best_step"], 100);
    assert_eq!(value["models"][0]["ratio"], 1.0);

    let read = |name: &str| fs::read(dir.join("out").join(name)).unwrap();
    assert!(read("compare.png").starts_with(b"\x89PNG"));
    for (name, part) in [
        ("compare.svg", "training images seen"),
        ("compare.csv", "\nbn-x5-seed-1,bn-x5,224,32,1,400,0.75,"),
        ("compare.md", "| bn-x5-seed-1 | bn-x5 | 224 | 32 | 75.00 % | 70.5 to 79.0 | 75.00 % |"),
        ("figure3.svg", "bn-x5 (lr 0.0075)"),
        ("figure3.csv", "\nbn-x5,bn-x5,bn-x5-seed-1,1,0.0075,false,0.5,50,0.75,100,50,100,false\n"),
        ("compare.md", "| bn-x5 | 0.0075 | 1 | 50 | 4.0 | 75.00 % | 100 | 50 | 100 |"),
    ] {
        let text = String::from_utf8(read(name)).unwrap();
        assert!(text.contains(part), "{name} lacks `{part}`:\n{text}");
    }

    // The folder of both, as a table; different intervals are said.
    let (output, errors) = succeed(dir, &["compare", "."]);
    for part in ["steps to 50.00 %", "inception", "4.0", "Baseline: inception"] {
        assert!(output.contains(part), "no `{part}` in\n{output}");
    }
    assert!(errors.contains("different intervals"), "{errors}");
    // The same run twice is one run.
    let (output, _) = succeed(dir, &["compare", ".", "bn-x5-seed-1", "--json"]);
    let value: Value = serde_json::from_str(output.trim_end()).unwrap();
    assert_eq!(value["models"].as_array().unwrap().len(), 2);
}

#[test]
fn ordinary_runs_are_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    make_run(dir, "bn-x5", 1, &[(50, 0.5), (100, 0.75)]);
    let other = make_run(dir, "modern", 2, &[(50, 0.6)]);
    let config = fs::read_to_string(other.join("config.toml")).unwrap();
    fs::write(other.join("config.toml"), config.replace("image_size = 224", "image_size = 64"))
        .unwrap();
    // A run that is validated on nothing, known by its summary alone.
    let summary = "epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,seconds\n\
                   1,40,0.1,1.5,0.25,,,,90.000\n";
    let blind = make_run(dir, "bn-x30", 3, &[]);
    fs::write(blind.join("summary.csv"), summary).unwrap();

    let (output, errors) = succeed(dir, &["compare", ".", "--out", "out"]);
    for part in ["last top-1", "75.00 %", "70.5 to 79.0", "optimizer.lr", "equal steps are not"] {
        assert!(output.contains(part), "no `{part}` in\n{output}");
    }
    assert!(!output.contains("Baseline") && !errors.contains("baseline"), "{output}{errors}");
    let row = output.lines().find(|line| line.starts_with("bn-x30-seed-3")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        cells,
        ["bn-x30-seed-3", "bn-x30", "224", "32", "-", "-", "-", "-", "-", "1.5", "1,280"]
    );
    assert!(dir.join("out/compare.png").is_file() && !dir.join("out/figure3.svg").exists());
    let (output, _) = succeed(dir, &["compare", ".", "--json"]);
    let value: Value = serde_json::from_str(output.trim_end()).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 1);
    assert_eq!(value["runs"][1]["seconds"], Value::Null);

    // With a baseline there is the paper's figure, with a word on the sizes.
    let (output, _) = succeed(dir, &["compare", ".", "--baseline", "bn-x5", "--out", "out"]);
    assert!(output.contains("Baseline: bn-x5") && output.contains("not equal work"), "{output}");
    assert!(dir.join("out/figure3.svg").is_file());
}

#[test]
fn runs_that_cannot_be_compared_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    make_run(dir, "inception", 1, &[(100, 0.5)]);
    make_run(dir, "bn-x5", 1, &[]);
    fail(
        dir,
        &["compare", "inception-seed-1", "bn-x5-seed-1"],
        3,
        &["bn-x5-seed-1 has recorded nothing"],
    );
    // In a folder, a run that has just begun is passed over.
    let (output, errors) = succeed(dir, &["compare", "."]);
    assert!(output.contains("inception") && !output.contains("bn-x5"), "{output}");
    assert!(errors.contains("bn-x5-seed-1 is left out"), "{errors}");
    fail(dir, &["compare", "nowhere"], 2, &["nowhere is no folder"]);
    fs::create_dir(dir.join("empty")).unwrap();
    fail(dir, &["compare", "empty"], 3, &["no run in empty", "metrics.jsonl"]);
    fail(dir, &["compare", ".", "--baseline", "resnet"], 2, &["--baseline resnet", "inception"]);

    let broken = make_run(dir, "bn-x30", 1, &[(100, 0.5)]);
    let metrics = broken.join("metrics.jsonl");
    fs::write(&metrics, "not a record\n").unwrap();
    let parts = ["bn-x30-seed-1", "line 1 is not a record", "bninception resume"];
    fail(dir, &["compare", "."], 3, &parts);
    fs::remove_file(broken.join("config.toml")).unwrap();
    fail(dir, &["compare", "bn-x30-seed-1"], 3, &["bn-x30-seed-1", "config.toml"]);
    fs::write(broken.join("config.toml"), "optimizer = 3").unwrap();
    fail(dir, &["compare", "bn-x30-seed-1"], 2, &["bn-x30-seed-1"]);
}

#[test]
fn a_report_of_markdown_is_a_page_in_the_run_folder() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let path = make_run(dir, "bn-x5", 7, &[(100, 0.25), (200, 0.75), (300, 0.5)]);
    let (output, _) = succeed(dir, &["report", "bn-x5-seed-7", "--format", "md"]);
    assert_eq!(output.trim_end(), "bn-x5-seed-7/report.md");
    let page = fs::read_to_string(path.join("report.md")).unwrap();
    for part in [
        "# bn-x5-seed-7",
        "| best | 200 | 1.00 | 400 | 75.00 % | 70.5 to 79.0 | 100.00 % | 1.2500 |",
        "| last | 300 |",
        "![loss, accuracy and learning rate](curves.svg)",
        "| `train.seed` | `42` | `7` |",
        "| `data.dir` | `\"\"` | `\"my pictures\"` |",
        "bninception resume bn-x5-seed-7",
        "bninception predict bn-x5-seed-7/last.safetensors IMAGE...",
    ] {
        assert!(page.contains(part), "no `{part}` in\n{page}");
    }
    let svg = fs::read_to_string(path.join("curves.svg")).unwrap();
    assert!(svg.contains("validation") && svg.contains("learning rate"), "{svg}");
    assert!(fs::read(path.join("curves.png")).unwrap().starts_with(b"\x89PNG"));

    // Of five classes the right one is always among the first five.
    fs::write(path.join("classes.txt"), "a\nb\n").unwrap();
    let (output, _) = succeed(dir, &["report", ".", "--format", "md", "--json"]);
    let page = fs::read_to_string(path.join("report.md")).unwrap();
    assert!(
        page.contains("75.00 % | 70.5 to 79.0 | 1.2500 |") && !page.contains("top-5"),
        "{page}"
    );
    let value: Value = serde_json::from_str(output.trim_end()).unwrap();
    assert!(value["reports"][0]["report"].as_str().unwrap().ends_with("bn-x5-seed-7/report.md"));

    // A short run that logged nothing, and was never validated, is drawn from its summary.
    let short = make_run(dir, "bn-x30", 1, &[]);
    let of_short = ["report", "bn-x30-seed-1", "--format", "md"];
    fail(dir, &of_short, 3, &["bn-x30-seed-1", "nothing yet"]);
    let header = "epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,seconds\n";
    let rows = "1,7,0.1,2.5,0.25,,,,1.0\n2,14,0.05,2.0,0.5,,,,1.0\n";
    fs::write(short.join("summary.csv"), format!("{header}{rows}")).unwrap();
    succeed(dir, &of_short);
    let svg = fs::read_to_string(short.join("curves.svg")).unwrap();
    assert!(svg.contains(">training<") && !svg.contains(">validation<"), "{svg}");
    fs::write(short.join("summary.csv"), format!("{header}1,7\n")).unwrap();
    fail(dir, &of_short, 3, &["summary.csv", "bninception resume"]);
}

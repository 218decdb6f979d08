//! The binary as a user meets it: training, resuming, evaluating, predicting, and every wrong input
//! with its message, its exit code, and nothing written.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Place, listing};
use serde_json::Value;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

const SMOKE: [&str; 6] = ["--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];

#[test]
fn a_run_from_training_to_prediction() {
    let place = Place::with_pictures();
    let keep = ["--set", "checkpoint.keep=2", "--json"];
    let train = [&["train"], SMOKE.as_slice(), &keep].concat();
    let result = place.json(&train);
    let expected =
        ["run_dir", "epochs", "steps", "best_top1", "top1", "top5", "loss", "seconds", "finished"];
    assert_eq!(keys(&result)[..9], expected);
    assert_eq!(result["finished"], true);
    assert_eq!(result["run_dir"], "run");
    // 40 pictures make 5 batches of 8 an epoch; the preset asks for 8 steps.
    assert_eq!((&result["epochs"], &result["steps"]), (&Value::from(1), &Value::from(8)));
    for file in [
        "config.toml",
        "classes.txt",
        "metrics.jsonl",
        "summary.csv",
        "train.log",
        "last.safetensors",
        "best.safetensors",
        "epoch-0001.safetensors",
        "epoch-0002.safetensors",
    ] {
        assert!(place.path("run").join(file).is_file(), "no {file}");
    }
    // The events, and the settings for TensorBoard.
    assert_eq!(fs::read_dir(place.path("run/tensorboard")).unwrap().count(), 2);
    let classes = fs::read_to_string(place.path("run/classes.txt")).unwrap();
    let classes: Vec<&str> = classes.lines().collect();
    let summary = fs::read_to_string(place.path("run/summary.csv")).unwrap();
    assert_eq!(summary.lines().count(), 3, "{summary}");

    // The evaluation of the last epoch, the one of `eval`, and that on the folder itself agree.
    let last = "run/last.safetensors";
    // The fixed keys come first; the rest is in `evaluation.rs`.
    let expected = ["images", "top1", "top5", "loss", "crops", "failed", "images_per_second"];
    for arguments in [
        vec!["eval", last, "--json"],
        vec!["eval", last, "--data-dir", "pictures", "--json"],
        vec!["eval", last, "--data-dir", "pictures/val", "--json", "-b", "7", "-j", "0"],
    ] {
        let evaluation = place.json(&arguments);
        assert_eq!(keys(&evaluation)[..7], expected);
        assert_eq!(evaluation["images"], 20);
        assert_eq!(evaluation["failed"], Value::Array(vec![]));
        assert_eq!(evaluation["top1"], result["top1"]);
        assert_eq!(evaluation["top5"], result["top5"]);
        let (loss, expected) =
            (evaluation["loss"].as_f64().unwrap(), result["loss"].as_f64().unwrap());
        // Batches of another size may round otherwise.
        assert!((loss - expected).abs() <= 1e-4 * expected.abs(), "{loss} for {expected}");
    }

    let picture = format!("pictures/val/{}/0000.png", classes[3]);
    let folder = format!("pictures/val/{}", classes[0]);
    let answer = place.json(&["predict", last, &picture, &folder, "--topk", "3", "--json"]);
    let answer = answer.as_array().unwrap();
    assert_eq!(answer.len(), 3);
    assert_eq!(answer[0]["path"], picture.as_str());
    for image in answer {
        let predictions = image["predictions"].as_array().unwrap();
        assert_eq!(predictions.len(), 3);
        let probability = |index: usize| predictions[index]["probability"].as_f64().unwrap();
        assert!(probability(0) >= probability(1) && probability(1) >= probability(2));
        assert!(probability(0) <= 1.0 && probability(2) >= 0.0);
        assert!(predictions.iter().all(|p| classes.contains(&p["class"].as_str().unwrap())));
    }

    // A finished run says so, and goes on when it is given more to do.
    let again = place.json(&["resume", "run", "--json"]);
    assert_eq!(again["steps"], 8);
    let further = ["resume", "run", "--steps", "10", "--allow-change", "train.steps", "--json"];
    assert_eq!(place.json(&further)["steps"], 10);

    place.fail(&train, 2, &["run holds a run already", "resume", "--overwrite"]);
    let overwrite = [train.as_slice(), &["--overwrite", "--steps", "1"]].concat();
    assert_eq!(place.json(&overwrite)["steps"], 1);
    assert!(!place.path("run/epoch-0002.safetensors").exists());
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    for dtype in ["f32", "bf16"] {
        check_resume(dtype);
    }
}

fn check_resume(dtype: &str) {
    let place = Place::with_pictures();
    // The schedule of the preset looks at the length of the run; a constant rate does not, so that
    // a run of 3 steps is the beginning of one of 7.
    let common = ["--preset", "smoke", "--data-dir", "pictures", "--set", "schedule.kind=constant"];
    let run = |name: &str, steps: &str, workers: &str| {
        let own = ["--run-dir", name, "--steps", steps, "-j", workers, "--dtype", dtype];
        place.succeed(&[&["train"], common.as_slice(), &own].concat());
    };
    run("whole", "7", "1");
    run("parts", "3", "2");
    place.succeed(&["resume", "parts", "--steps", "7", "-j", "0"]);
    run("other", "7", "1");

    let tensors = |name: &str| {
        let bytes = fs::read(place.path(name).join("last.safetensors")).unwrap();
        let (header, _) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        bytes[8 + header..].to_vec()
    };
    assert_eq!(tensors("whole").len(), tensors("parts").len());
    assert!(tensors("whole") == tensors("other"), "{dtype}: the same run twice differs");
    assert!(tensors("whole") == tensors("parts"), "{dtype}: a resumed run differs");
}

#[test]
fn watching_changes_no_bit_and_survives_a_stop() {
    let place = Place::with_pictures();
    let common = ["--preset", "smoke", "--data-dir", "pictures", "--set", "schedule.kind=constant"];
    let watch = [
        "--set",
        "log.watch=[\"conv1_7x7_s2\", \"inception_5b_1x1\"]",
        "--set",
        "log.watch_every=2",
    ];
    let run = |name: &str, steps: &str, more: &[&str]| {
        let own = ["--run-dir", name, "--steps", steps];
        place.succeed(&[&["train"], common.as_slice(), &own, more].concat());
    };
    run("plain", "6", &[]);
    run("watched", "6", &watch);
    run("parts", "3", &watch);
    place.succeed(&["resume", "parts", "--steps", "6"]);

    let tensors = |name: &str| {
        let bytes = fs::read(place.path(name).join("last.safetensors")).unwrap();
        let (header, _) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        bytes[8 + header..].to_vec()
    };
    assert!(tensors("plain") == tensors("watched"), "a watched run differs");
    assert!(tensors("plain") == tensors("parts"), "a resumed run differs");
    let rows = |name: &str| -> Vec<String> {
        let metrics = fs::read_to_string(place.path(name).join("metrics.jsonl")).unwrap();
        metrics.lines().filter(|row| row.contains("\"watch\"")).map(str::to_owned).collect()
    };
    assert_eq!(rows("plain").len(), 0);
    assert_eq!(rows("watched"), rows("parts"));
    let rows: Vec<Value> =
        rows("watched").iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let steps: Vec<u64> = rows.iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [2, 2, 4, 4, 6, 6]);
    for row in &rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!(number("p15") < number("p50") && number("p50") < number("p85"), "{row}");
        // Behind batch norm with its scale still near 1 and its shift near 0.
        assert!((number("variance") - 1.0).abs() < 0.2 && number("mean").abs() < 0.2, "{row}");
        assert!(number("gradient_norm") > 0.0, "{row}");
    }

    let wrong = ["--set", "log.watch=[\"inception_3a_3x33\"]", "--run-dir", "other"];
    let parts = ["log.watch", "`inception_3a_3x33`", "did you mean `inception_3a_3x3`?"];
    place.fail(&[&["train"], common.as_slice(), &wrong].concat(), 2, &parts);
}

#[test]
fn googlenet_trains_and_its_heads_stay_in_training() {
    let place = Place::with_pictures();
    let common = ["--preset", "smoke", "--data-dir", "pictures", "--set", "network.kind=googlenet"];
    let plain = ["--set", "network.batch_norm=false", "--set", "network.conv_bias=true"];
    let heads = ["--set", "network.aux=true", "--run-dir", "run", "--json"];
    let result =
        place.json(&[&["train"], common.as_slice(), &plain, &heads, &["--steps", "5"]].concat());
    let evaluation = place.json(&["eval", "run/last.safetensors", "--json"]);
    assert_eq!(evaluation["top1"], result["top1"]);
    let info = place.json(&["info", "run/last.safetensors", "--json"]);
    let layers = info["layers"].as_array().unwrap();
    assert!(layers.iter().any(|layer| layer["name"] == "aux2_linear"));
    let wide = ["--set", "network.pool_proj_4c4d=128", "--run-dir", "other"];
    let parts = ["network.pool_proj_4c4d = 128", "96, because network.kind = \"googlenet\""];
    place.fail(&[&["train"], common.as_slice(), &wide].concat(), 2, &parts);
}

#[test]
fn an_unreadable_picture_counts_as_wrong_and_is_named() {
    let place = Place::with_pictures();
    place.succeed(&[&["train"], SMOKE.as_slice(), &["--steps", "1"]].concat());
    let class = fs::read_to_string(place.path("run/classes.txt")).unwrap();
    let class = class.lines().next().unwrap();
    let broken = format!("pictures/val/{class}/0001.png");
    fs::write(place.path(&broken), "not a picture").unwrap();

    let last = "run/last.safetensors";
    let result = place.json(&["eval", last, "--data-dir", "pictures", "--json"]);
    assert_eq!(result["images"], 20);
    assert_eq!(result["failed"].as_array().unwrap().len(), 1);
    assert_eq!(result["failed"][0]["path"], broken.as_str());
    let correct = result["top1"].as_f64().unwrap() * 20.0;
    assert!((correct - correct.round()).abs() < 1e-9, "top-1 is not over all 20 images");

    let output = place.run(&["predict", last, &broken, "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer[0]["error"].as_str().unwrap().contains("0001.png"));
}

#[test]
fn unreadable_training_pictures_stop_a_run_before_its_first_step_or_are_counted() {
    let place = Place::with_pictures();
    let class = fs::read_dir(place.path("pictures/train")).unwrap().next().unwrap().unwrap();
    let pictures: Vec<PathBuf> =
        fs::read_dir(class.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    fs::write(&pictures[0], "not a picture").unwrap();
    let name = pictures[0].file_name().unwrap().to_str().unwrap().to_owned();
    let train = |more: &[&'static str]| [&["train"], SMOKE.as_slice(), more].concat();
    let steps = ["--steps", "10"];
    place.fail(
        &train(&steps),
        3,
        &["1 of 40 training images cannot be read", &name, "check_headers"],
    );

    // One in a hundred, rounded up, is one: it is left out, named once, and remembered.
    let lenient = ["--steps", "10", "--set", "data.check_headers=false"];
    let output = place.run(&train(&lenient));
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{talk}");
    assert_eq!(talk.matches("skipped in training").count(), 1, "{talk}");

    // The second one ends the run, saved.
    fs::write(&pictures[1], "not a picture").unwrap();
    let overwrite = [&lenient[..], &["--overwrite"]].concat();
    let output = place.run(&train(&overwrite));
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{talk}");
    assert!(talk.contains("2 training images could not be read"), "{talk}");
    assert!(place.path("run/last.safetensors").is_file());
}

#[test]
fn wrong_settings_are_named_before_anything_is_written() {
    let place = Place::with_pictures();
    place.fail(&["train", "--preset", "bn-x50"], 2, &["`bn-x50`", "did you mean `bn-x5`"]);
    place.fail(&["train", "--set", "train.epoch=3"], 2, &["`train.epoch`", "`train.epochs`"]);
    place.fail(&["train", "--set", "optimiser.lr=3"], 2, &["optimiser", "optimizer"]);
    place.fail(&["train", "--lr=-1"], 2, &["optimizer.lr", "-1", "--lr"]);
    place.fail(&["train", "--lr", "nan"], 2, &["optimizer.lr"]);
    place.fail(&["train", "--image-size", "31"], 2, &["data.image_size", "32"]);
    place.fail(&["train", "--batch-size", "zwei"], 2, &["batch-size"]);
    place.fail(&["train", "-c", "missing.toml"], 2, &["missing.toml"]);
    place.fail(&["train", "--preset", "bn-x5"], 2, &["--data-dir"]);
    let large = [&["train"], SMOKE.as_slice(), &["--batch-size", "64"]].concat();
    place.fail(&large, 2, &["batch_size", "40 training images"]);
    place.fail(&["frobnicate"], 2, &["frobnicate"]);
}

#[test]
fn wrong_data_is_named_before_anything_is_written() {
    let place = Place::with_pictures();
    let train = |dir: &'static str| ["train", "--preset", "smoke", "--data-dir", dir];
    place.fail(&train("nowhere"), 3, &["nowhere", "train/CLASS"]);

    fs::create_dir_all(place.path("pictures/train/empty")).unwrap();
    place.fail(&train("pictures"), 3, &["`empty`"]);
    fs::remove_dir(place.path("pictures/train/empty")).unwrap();

    fs::create_dir_all(place.path("pictures/val/zebra")).unwrap();
    let picture = listing(&place.path("pictures/val"))
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "png"))
        .unwrap();
    fs::copy(picture, place.path("pictures/val/zebra/1.png")).unwrap();
    place.fail(&train("pictures"), 3, &["zebra", "train"]);

    for class in ["a", "b"] {
        fs::create_dir_all(place.path("texts").join(class)).unwrap();
        fs::write(place.path("texts").join(class).join("1.txt"), "text").unwrap();
    }
    place.fail(&train("texts"), 3, &["texts", "no image", "train/cat/1.jpg"]);
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let place = Place::with_pictures();
    fs::write(place.path("text.safetensors"), "this is not a checkpoint").unwrap();
    fs::write(place.path("empty.safetensors"), "").unwrap();
    let tensors: Vec<(String, safetensors::tensor::TensorView<'_>)> = Vec::new();
    let foreign = safetensors::serialize(tensors, None).unwrap();
    fs::write(place.path("foreign.safetensors"), foreign).unwrap();
    for name in ["text.safetensors", "empty.safetensors", "foreign.safetensors"] {
        let eval = ["eval", name, "--data-dir", "pictures"];
        place.fail(&eval, 3, &[name, "not a checkpoint"]);
        place.fail(&["info", name], 3, &[name, "not a checkpoint"]);
    }
    place.fail(&["predict", "missing.safetensors", "a.png"], 3, &["missing.safetensors"]);
    place.fail(&["resume", "pictures"], 3, &["pictures", "last.safetensors"]);
}

#[test]
fn a_changed_recipe_is_refused_on_resume() {
    let place = Place::with_pictures();
    place.succeed(&[&["train"], SMOKE.as_slice(), &["--steps", "1"]].concat());
    let log = fs::read(place.path("run/train.log")).unwrap();
    place.fail(
        &["resume", "run", "--lr", "0.5"],
        2,
        &["optimizer.lr", "0.015 in the run", "0.5 now", "--allow-change optimizer.lr"],
    );
    assert_eq!(fs::read(place.path("run/train.log")).unwrap(), log);
    place.succeed(&["resume", "run", "--workers", "2"]);
}

#[test]
fn moved_images_are_recognised() {
    let place = Place::with_pictures();
    place.succeed(&[&["train"], SMOKE.as_slice(), &["--steps", "1"]].concat());
    fs::rename(place.path("pictures"), place.path("moved")).unwrap();
    place.fail(&["resume", "run"], 3, &["pictures is not a folder"]);
    place.succeed(&["resume", "run", "--data-dir", "moved"]);

    let classes = fs::read_to_string(place.path("run/classes.txt")).unwrap();
    let class = classes.lines().nth(2).unwrap();
    let picture = place.path(&format!("moved/train/{class}/0001.png"));
    fs::rename(&picture, picture.with_file_name("zzzz.png")).unwrap();
    let other = format!("training images of `{class}`: 4 as in the run, but of other names");
    place.fail(&["resume", "run"], 3, &["moved has other images", &other, "data.images"]);
    place.fail(&["resume", "run", "--allow-change", "data.image"], 2, &["no such setting"]);
    place.succeed(&["resume", "run", "--allow-change", "data.images"]);
    // From then on these are the images of the run.
    place.succeed(&["resume", "run"]);
}

#[test]
fn benchmarks_report_what_they_timed() {
    let place = Place::new();
    let small = ["--image-size", "64", "--batch-size", "2", "--threads", "2", "--repeats", "1"];
    let model =
        place.json(&[&["bench", "model", "--json", "--dtype", "bf16"], &small[..]].concat());
    assert_eq!((&model["dtype"], &model["image_size"]), (&"bf16".into(), &64.into()));
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap();
    assert!(number(&model, "gflops") > 0.0 && number(&model, "peak_gflops") > 1.0);

    // Seconds of a step by its layers, and by the clock around it.
    let both = |model: &Value| -> (f64, f64) {
        let seconds = model["profile"].as_array().unwrap().iter().flat_map(|row| {
            row["seconds"].as_object().unwrap().values().map(|s| s.as_f64().unwrap())
        });
        (seconds.sum(), number(model, "step_seconds_median"))
    };
    for mode in ["train", "eval"] {
        let args = ["bench", "model", "--json", "--profile", "--mode", mode];
        let model = place.json(&[&args, &small[..]].concat());
        let rows = model["profile"].as_array().unwrap();
        let macs: f64 = rows.iter().map(|row| number(row, "macs")).sum();
        assert!(macs > 2.0 * 150e6, "{macs} of two images of 64 px, 165 million each");
        let (parts, step) = both(&model);
        // The optimizer comes on top, and one timed step is the median of one.
        assert!(parts > 0.2 * step && parts < 1.01 * step, "{mode}: {parts} of {step} s");
        let table = ["bench", "model", "--profile", "--mode", mode];
        let table = place.succeed(&[&table, &small[..]].concat());
        assert!(table.contains("inception_5b_pool_proj"), "{table}");
    }
    // Evaluation takes 32 images at once, so this is two passes a step.
    let args = ["bench", "model", "--json", "--profile", "--mode", "eval", "--image-size", "32"];
    let model = place.json(&[&args[..], &["-b", "33", "--repeats", "2"]].concat());
    let (parts, step) = both(&model);
    assert!(parts > 0.6 * step, "{parts} of {step} s");
    let reference = ["bench", "model", "--profile", "--engine", "reference"];
    place.fail(
        &[&reference, &small[..]].concat(),
        2,
        &["reference engine does not know where its time goes"],
    );

    let ops = place.json(&[&["bench", "ops", "--json", "--warmup", "0"], &small[..]].concat());
    let rows = ops["ops"].as_array().unwrap();
    let first: Vec<&str> = rows[..5].iter().map(|row| row["direction"].as_str().unwrap()).collect();
    let (forward, weight) = ("forward", "backward_weight");
    assert_eq!(first, [forward, weight, forward, "backward_input", weight]);
    let last = rows.last().unwrap();
    assert_eq!(
        keys(last),
        ["name", "direction", "shape", "algorithm", "seconds_median", "gflops", "share_of_peak",]
    );
    assert!(rows.iter().all(|row| number(row, "seconds_median") > 0.0));
    let winograd = |ops: &Value| ops["ops"].to_string().contains("winograd");
    assert!(winograd(&ops));
    let direct = ["bench", "ops", "--json", "--warmup", "0", "--set", "engine.winograd=false"];
    assert!(!winograd(&place.json(&[&direct, &small[..]].concat())));
    let reference = ["bench", "ops", "--engine", "reference"];
    place.fail(&reference, 2, &["bench ops times the kernels of the fast engine"]);
}

#[test]
fn small_commands_answer() {
    let place = Place::new();
    let info = place.json(&["info", "--json"]);
    assert_eq!(info["parameters"], 11_194_984);
    assert_eq!(info["macs"], 2_018_851_840_u64);
    let layer = &info["layers"][0];
    assert_eq!(keys(layer), ["name", "kind", "input", "output", "parameters", "macs"]);
    assert_eq!(layer["output"], serde_json::json!([64, 112, 112]));
    let wide = ["info", "--json", "--set", "network.pool_proj_4c4d=128"];
    assert_eq!(place.json(&wide)["parameters"], 11_285_224);

    let presets = place.succeed(&["presets", "list"]);
    for name in
        ["inception", "bn-baseline", "bn-x5", "bn-x30", "bn-x5-sigmoid", "small", "modern", "demo"]
    {
        assert!(presets.lines().any(|line| line.starts_with(name)), "{presets}");
    }
    assert!(place.succeed(&["presets", "show", "bn-x30"]).contains("lr = 0.045"));
    let shown = place.succeed(&["config", "show", "--preset", "bn-x5", "--lr", "0.1"]);
    assert!(shown.contains("# flag --lr") && shown.contains("# preset bn-x5"), "{shown}");
    assert!(place.succeed(&["completions", "bash"]).contains("bninception"));
    place.succeed(&["data", "demo", "pics", "--train-per-class", "1", "--val-per-class", "1"]);
    assert!(place.path("pics/train").is_dir());
    let bench = place.json(&[
        "bench",
        "model",
        "--mode",
        "eval",
        "-b",
        "2",
        "--image-size",
        "32",
        "--repeats",
        "1",
        "--warmup",
        "0",
        "--json",
    ]);
    assert_eq!(bench["batch_size"], 2);
    assert!(bench["images_per_second"].as_f64().unwrap() > 0.0);
}

//! Evaluations and pictures that go wrong end no run, and are never the best.

use std::fs;

use bninception::config::BestBy;
use bninception::run::checkpoint::{self, CheckpointError};
use bninception::run::metadata::Metadata;

use super::common::Place;
use super::divergence::{Spoilt, spoil};
use super::job::Runs;

#[test]
fn a_loss_that_is_not_finite_is_no_best_and_no_end() {
    let runs = Runs::new();
    // The evaluation of epoch 1 overflows; behind it a step diverges, and the run goes back to it.
    let sets = ["train.on_divergence=rollback", "train.steps=10", "checkpoint.keep=0"];
    let wrap = |inner| spoil(Spoilt::Loss, 7, 1)(spoil(Spoilt::Logit, 0, 1)(inner));
    let outcome = runs.train_on("run", &sets, wrap).unwrap();
    assert!(outcome.finished);
    let progress = &outcome.progress;
    assert_eq!(progress.rollbacks, 1);
    assert_eq!(progress.best.unwrap().step, 10, "that of epoch 1 is not the best");
    for name in ["last", "best", "epoch-0001", "epoch-0002"] {
        checkpoint::load(&runs.path("run").join(format!("{name}.safetensors"))).unwrap();
    }
    let first = checkpoint::load(&runs.path("run").join("epoch-0001.safetensors")).unwrap();
    assert_eq!(first.metadata.progress.evaluation.unwrap().loss, None);
    assert_eq!(first.metadata.progress.best, None);
    let summary = fs::read_to_string(runs.path("run").join("summary.csv")).unwrap();
    let cells: Vec<&str> = summary.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(cells[5], "", "the loss that is none: {summary}");
}

/// Files of earlier programs hold null where a loss was not finite, for the best evaluation too.
#[test]
fn old_files_with_null_are_read() {
    let runs = Runs::new();
    let (job, state) = runs.job("run", &[], None);
    let text = serde_json::to_string(&job.metadata(&state.progress)).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let result = serde_json::json!({
        "step": 5, "images": 20, "failed": 20, "top1": 0.9, "top5": 1.0, "loss": null
    });
    json["format_version"] = 2.into();
    json["checksum"] = "0".into();
    json["progress"]["best"] = result.clone();
    json["progress"]["evaluation"] = result;
    json["progress"]["epoch_metrics"]["loss_sum"] = serde_json::Value::Null;
    for (part, keys) in [
        ("", &["recipe", "data_dirs"][..]),
        ("progress", &["batch_shift", "skipped_batches", "epoch_begun_again"]),
    ] {
        let object = if part.is_empty() { &mut json } else { &mut json[part] };
        keys.iter().for_each(|key| _ = object.as_object_mut().unwrap().remove(*key));
    }
    let metadata = Metadata::from_json(&json.to_string()).unwrap();
    let progress = metadata.progress;
    assert_eq!(progress.best.unwrap().loss, None);
    assert!(progress.epoch_metrics.loss().is_none_or(f64::is_nan));
    let next = bninception::run::state::EvaluationResult {
        loss: Some(3.0),
        top1: 0.1,
        ..progress.best.unwrap()
    };
    assert!(next.beats(progress.best, BestBy::Top1), "any evaluation that is one is better");
}

#[test]
fn a_file_that_nothing_could_read_does_not_replace_a_good_one() {
    let runs = Runs::new();
    let (job, state) = runs.job("run", &[], None);
    let before = fs::read(job.folder.last()).unwrap();
    let good = job.metadata(&state.progress);
    let classes = vec!["big\\cat".to_owned(); 10];
    let mut rate = good.config.clone();
    rate.optimizer.lr = f64::NAN;
    let mut network = good.config.clone();
    network.network.conv_bias = true;
    for (metadata, part) in [
        (Metadata { classes, ..good.clone() }, "backslash"),
        (Metadata { classes: job.classes[..9].to_vec(), ..good.clone() }, "its tensors"),
        (Metadata { config: rate, ..good.clone() }, "null"),
        (Metadata { config: network, ..good.clone() }, "its tensors"),
        (Metadata { program: "x".repeat(40 << 20), ..good.clone() }, "its header would have"),
    ] {
        let error = job.folder.save_last(&metadata, &job.table, &state).unwrap_err();
        assert!(matches!(error, CheckpointError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains(part), "no `{part}` in {error}");
        assert!(fs::read(job.folder.last()).unwrap() == before);
    }
}

const SMOKE: [&str; 9] = [
    "train",
    "--preset",
    "smoke",
    "--data-dir",
    "pictures",
    "--set",
    "schedule.kind=constant",
    "--run-dir",
    "run",
];

#[test]
fn validation_pictures_are_looked_at_before_a_run_and_lost_ones_end_none() {
    let place = Place::with_pictures();
    for picture in super::common::listing(&place.path("pictures/val")) {
        if picture.is_file() {
            fs::write(picture, "version https://git-lfs.github.com/spec/v1\noid sha256:0").unwrap();
        }
    }
    let parts = ["20 of 20 validation images cannot be read", "0000.png", "check_headers"];
    place.fail(&SMOKE, 3, &parts);
    let lenient = [&SMOKE[..], &["--set", "data.check_headers=false"]].concat();
    let output = place.run(&lenient);
    let (talk, result) =
        (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{talk}");
    assert!(
        talk.contains("never the best") && result.contains("none is the best"),
        "{talk}{result}"
    );
    assert!(!place.path("run/best.safetensors").exists());
    place.succeed(&["info", "run/last.safetensors"]);
    let resume = ["resume", "run", "--steps", "9", "--set", "data.check_headers=false"];
    place.succeed(&resume);
    let result = place.json(&[&resume[..], &["--json"]].concat());
    assert_eq!(
        (&result["loss"], &result["best_top1"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
}

#[test]
fn a_class_that_no_checkpoint_can_hold_is_refused_before_the_run() {
    let place = Place::with_pictures();
    let dir = fs::read_dir(place.path("pictures/train")).unwrap().next().unwrap().unwrap().path();
    fs::rename(&dir, dir.with_file_name("big\\cat")).unwrap();
    place.fail(&SMOKE, 3, &["big\\cat", "backslash", "rename the folder"]);
}

/// One picture of a batch of two is broken, or the one of a batch of one.
#[test]
fn a_batch_with_too_few_pictures_is_skipped_and_counted() {
    let place = Place::with_pictures();
    let picture = super::common::listing(&place.path("pictures/train"))
        .into_iter()
        .find(|path| path.is_file());
    fs::write(picture.unwrap(), "not a picture").unwrap();
    let plain = ["--set", "network.batch_norm=false", "--set", "network.conv_bias=true"];
    // (batch size, with batch norm, steps, batches skipped)
    for (batch_size, batch_norm, steps, skipped) in
        [("2", true, "20", 1), ("3", true, "13", 0), ("2", false, "20", 0), ("1", false, "40", 1)]
    {
        let more = [
            "-b",
            batch_size,
            "--steps",
            steps,
            "--set",
            "data.check_headers=false",
            "--overwrite",
            "--json",
        ];
        let network: &[&str] = if batch_norm { &[] } else { &plain };
        let run = place.json(&[&SMOKE[..], &more, network].concat());
        assert_eq!(
            run["skipped_batches"], skipped,
            "batches of {batch_size}, batch norm {batch_norm}"
        );
        assert_eq!(run["finished"], true);
    }
    // And it goes on behind it.
    let resume = ["resume", "run", "--steps", "90", "--set", "data.check_headers=false", "--json"];
    assert_eq!(place.json(&resume)["skipped_batches"], 2);
}

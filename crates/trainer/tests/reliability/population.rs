//! Population statistics inside a run: they change nothing but evaluations, and a checkpoint answers as
//! the log said.

use std::fs;

use bninception::distributed::Ranks;
use bninception::run::checkpoint::{self, Checkpoint};
use bninception::run::state::{Population, RunProgress};
use serde_json::Value;

use super::common::Place;
use super::divergence::{Spoilt, spoil};
use super::job::{Runs, STEPS_PER_EPOCH};

const POPULATION: &str = "train.eval_statistics=population";
const MOVING: &str = "train.eval_statistics=moving";

fn load(runs: &Runs, run: &str, name: &str) -> Checkpoint {
    checkpoint::load(&runs.path(run).join(format!("{name}.safetensors"))).unwrap()
}

fn rows(metrics: &str, kind: &str) -> Vec<Value> {
    let rows = metrics.lines().map(|row| serde_json::from_str(row).unwrap());
    rows.filter(|row: &Value| row["kind"] == kind).collect()
}

fn rows_of(runs: &Runs, run: &str, kind: &str) -> Vec<Value> {
    rows(&fs::read_to_string(runs.path(run).join("metrics.jsonl")).unwrap(), kind)
}

#[test]
fn they_change_nothing_but_evaluations() {
    for ema in ["train.ema=0", "train.ema=0.5"] {
        let runs = Runs::new();
        runs.train("moving", &[MOVING, ema], None);
        runs.train("population", &[POPULATION, ema], None);
        let [moving, population] = ["moving", "population"].map(|run| load(&runs, run, "last"));
        assert!(moving.state.model == population.state.model, "{ema}: the states differ");
        let sums =
            |progress: &RunProgress| (progress.step, progress.epoch_metrics, progress.log_metrics);
        let of = |checkpoint: &Checkpoint| sums(&checkpoint.metadata.progress);
        assert_eq!(of(&moving), of(&population), "{ema}");
        let losses = |run: &str, kind: &str| -> Vec<Value> {
            rows_of(&runs, run, kind).iter().map(|row| row["loss"].clone()).collect()
        };
        assert_eq!(losses("moving", "train"), losses("population", "train"), "{ema}");
        assert_eq!(losses("moving", "eval").len(), 3, "{ema}");
        for (moving, population) in
            losses("moving", "eval").iter().zip(losses("population", "eval"))
        {
            assert!(*moving != population, "{ema}: the same loss under other statistics");
        }
        for (run, name) in [("moving", "moving"), ("population", "population")] {
            let rows = rows_of(&runs, run, "eval");
            assert!(rows.iter().all(|row| row["statistics"] == name), "{ema}: {rows:?}");
        }
        assert!(moving.state.population.is_none());
        // All 40 pictures: a quarter would be fewer than 64.
        let Population { made, .. } = population.state.population.unwrap();
        assert_eq!((made.batches, made.batch_size, made.seed), (5, 8, 42));
    }
}

#[test]
fn a_run_with_them_resumes_exactly() {
    let runs = Runs::new();
    let sets = [POPULATION, "checkpoint.every_steps=1"];
    runs.train("whole", &sets, None);
    let whole = runs.result("whole");
    for stops in [&[STEPS_PER_EPOCH][..], &[2, STEPS_PER_EPOCH + 1], &[STEPS_PER_EPOCH - 1]] {
        let run = format!("stopped-{stops:?}");
        for &stop in stops {
            runs.train(&run, &sets, Some(stop));
            // They are in the checkpoint behind an evaluation, and in no other.
            let has_some = load(&runs, &run, "last").state.population.is_some();
            assert_eq!(has_some, stop == STEPS_PER_EPOCH, "stopped at {stop}");
        }
        assert!(runs.train(&run, &sets, None).finished);
        runs.result(&run).assert_equals(&whole, &run);
    }
    // A run at its end keeps what it has.
    assert!(runs.train("whole", &sets, None).finished);
    runs.result("whole").assert_equals(&whole, "resumed at its end");
    assert!(load(&runs, "whole", "best").state.population.is_some());
}

#[test]
fn without_validation_images_the_end_of_an_epoch_has_them_too() {
    let runs = Runs::new();
    let (mut job, state) = runs.job("run", &["train.steps=5", POPULATION], None);
    let options = bninception_data::DecodeOptions::default();
    job.val = std::sync::Arc::new(bninception_data::FileSource::new(Vec::new(), options).unwrap());
    let mut executor = bninception::setup::executor(&job.config, job.network.clone()).unwrap();
    bninception::training::train::train(&job, executor.as_mut(), &mut Ranks::alone(), state)
        .unwrap();
    assert!(load(&runs, "run", "last").state.population.is_some());
    assert_eq!(rows_of(&runs, "run", "eval").len(), 0);
}

/// An epoch of 50 steps is not short. The first evaluation is not finite, which is as far above a guess as
/// can be.
#[test]
fn moving_statistics_that_are_shown_to_lag_are_not_used() {
    let runs = Runs::with_training_pictures(10);
    let sets = |setting| [setting, "train.batch_size=2", "train.steps=3"];
    let train = |run: &str, setting, times| {
        runs.train_on(run, &sets(setting), spoil(Spoilt::Logit, 0, times)).unwrap().progress
    };
    let progress = train("auto", "train.eval_statistics=auto", 1);
    assert!(progress.best.is_some() && progress.evaluation.unwrap().loss.is_some());
    let evaluations = rows_of(&runs, "auto", "eval");
    assert_eq!(evaluations.len(), 1, "one row for both: {evaluations:?}");
    assert_eq!(evaluations[0]["statistics"], "population");
    let population = load(&runs, "auto", "last").state.population.unwrap();
    assert_eq!(population.made.batches, 32, "64 images in batches of two");
    // Only auto looks.
    assert_eq!(train("moving", MOVING, 1).evaluation.unwrap().loss, None);
    assert!(load(&runs, "moving", "last").state.population.is_none());
}

#[test]
fn a_checkpoint_answers_as_the_log_said() {
    let place = Place::with_pictures();
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];
    // Two epochs of five steps, evaluated with the moving average of the weights.
    let log = ["--epochs", "2", "--set", "checkpoint.every_epochs=1", "--set", "checkpoint.keep=2"];
    let talk = place.run(&[&train[..], &log].concat());
    let talk = String::from_utf8_lossy(&talk.stderr).into_owned();
    assert!(talk.contains("population statistics over 5 batches of 8 training images"), "{talk}");
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let evaluations = rows(&metrics, "eval");
    assert_eq!(evaluations.len(), 2);
    let best = checkpoint::load(&place.path("run/best.safetensors")).unwrap().metadata.step;
    for (name, step) in [("last", 10), ("best", best), ("epoch-0001", 5), ("epoch-0002", 10)] {
        let logged = evaluations.iter().find(|row| row["step"] == step).unwrap();
        let found = place.json(&["eval", &format!("run/{name}.safetensors"), "--json"]);
        for key in ["loss", "top1", "top5", "statistics"] {
            assert_eq!(found[key], logged[key], "{name}: {key}");
        }
        assert_eq!(found["statistics"], "population");
    }
    // `calibrate` over as many images makes the same ones.
    place.succeed(&["calibrate", "run/last.safetensors", "--out", "again.safetensors"]);
    let [again, last] = ["again.safetensors", "run/last.safetensors"]
        .map(|name| checkpoint::load(&place.path(name)).unwrap().state.population);
    assert!(again.is_some() && again == last);
}

#[test]
fn a_checkpoint_from_inside_a_short_epoch_says_how_to_mend_it() {
    let place = Place::with_pictures();
    let talk_of = |arguments: &[&str]| {
        let output = place.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let [talk, result] =
            [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
        format!("{talk}{result}")
    };
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];
    place.succeed(&[&train[..], &["--steps", "7", "--set", "checkpoint.every_steps=1"]].concat());
    // The end of a run is the end of its last epoch. What was saved a step earlier is not.
    let mut inside = checkpoint::load(&place.path("run/last.safetensors")).unwrap();
    let table = bninception_engine::model::ParameterTable::new(&inside.network);
    inside.state.population = None;
    checkpoint::save(&place.path("inside.safetensors"), &inside.metadata, &table, &inside.state)
        .unwrap();
    let picture = super::common::listing(&place.path("pictures/val"));
    let picture = picture.iter().find(|path| path.is_file()).unwrap().to_str().unwrap();
    let note = "moving statistics of batch norm alone, which lag in epochs of 5 steps; for better ones: \
                bninception calibrate inside.safetensors";
    let folder = ["--data-dir", "pictures"];
    for (command, says) in [
        (&["eval", "inside.safetensors", folder[0], folder[1]][..], true),
        (&["predict", "inside.safetensors", picture], true),
        (&["info", "inside.safetensors"], true),
        // Whoever asks for them knows.
        (&["eval", "inside.safetensors", folder[0], folder[1], "--statistics", "moving"], false),
        (&["eval", "run/last.safetensors"], false),
        (&["info", "run/last.safetensors"], false),
    ] {
        let talk = talk_of(command);
        assert_eq!(talk.contains(note), says, "{command:?}: {talk}");
    }
    talk_of(&["calibrate", "inside.safetensors", folder[0], folder[1]]);
    let talk = talk_of(&["eval", "inside-calibrated.safetensors", folder[0], folder[1]]);
    assert!(!talk.contains("lag") && talk.contains("statistics: population"), "{talk}");
}

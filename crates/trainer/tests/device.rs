//! Commands on a device, with the host in its place.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::fs;

use bninception::machine::gpu;
use bninception::run::checkpoint;
use common::Place;
use serde_json::Value;

/// A run of a few steps that do not depend on its length.
const TRAIN: [&str; 12] = [
    "train",
    "--preset",
    "smoke",
    "--data-dir",
    "pictures",
    "--set",
    "schedule.kind=constant",
    "--set",
    "log.every_steps=1",
    "--lr=0.0001",
    // With ReLUs, what rounding leaves grows tenfold with each step.
    "--set",
    "network.activation=sigmoid",
];

fn train(place: &Place, run: &str, device: &str, steps: &str) {
    let more = ["--run-dir", run, "--device", device, "--steps", steps];
    place.succeed(&[&TRAIN[..], &more].concat());
}

fn resume(place: &Place, run: &str, device: &str, steps: &str) -> String {
    let output = place.run(&["resume", run, "--device", device, "--steps", steps]);
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{talk}");
    talk
}

/// The bytes behind the header of the newest checkpoint.
fn tensors(place: &Place, run: &str) -> Vec<u8> {
    let bytes = fs::read(place.path(run).join("last.safetensors")).unwrap();
    let (header, _) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    bytes[8 + header..].to_vec()
}

fn losses(place: &Place, run: &str) -> Vec<f64> {
    let rows = fs::read_to_string(place.path(run).join("metrics.jsonl")).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
    rows.filter(|row| row["kind"] == "train").map(|row| row["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_run_on_a_device_resumes_exactly() {
    let place = Place::with_pictures();
    train(&place, "whole", "host", "6");
    train(&place, "stopped", "host", "4");
    let talk = resume(&place, "stopped", "host", "6");
    assert!(talk.contains("gpu engine, f32 on host") && !talk.contains("in place of"), "{talk}");
    assert!(tensors(&place, "stopped") == tensors(&place, "whole"));
    assert_eq!(losses(&place, "stopped"), losses(&place, "whole"));
}

#[test]
fn a_run_goes_on_on_another_device_and_says_so() {
    let place = Place::with_pictures();
    train(&place, "moved", "cpu", "2");
    let talk = resume(&place, "moved", "host", "4");
    assert!(talk.contains("goes on on host in place of cpu"), "{talk}");
    let talk = resume(&place, "moved", "cpu", "6");
    assert!(talk.contains("goes on on cpu in place of host"), "{talk}");
    let log = fs::read_to_string(place.path("moved/train.log")).unwrap();
    assert!(log.contains("in place of host"), "{log}");
    let stored = checkpoint::load(&place.path("moved/last.safetensors")).unwrap();
    let devices = stored.metadata.progress.devices;
    let devices: Vec<(u64, &str)> =
        devices.iter().map(|since| (since.step, since.device.as_str())).collect();
    assert_eq!(devices, [(2, "host"), (4, "cpu")]);
    train(&place, "cpu", "cpu", "6");
    let (moved, cpu) = (losses(&place, "moved"), losses(&place, "cpu"));
    assert_eq!(moved.len(), cpu.len());
    assert_eq!(moved[..2], cpu[..2]);
    for (step, (found, expected)) in moved.iter().zip(&cpu).enumerate() {
        assert!((found - expected).abs() < 1e-3 * expected, "step {step}: {moved:?}, {cpu:?}");
    }
}

#[test]
fn a_checkpoint_answers_alike_on_a_device() {
    let place = Place::with_pictures();
    train(&place, "run", "host", "2");
    let eval = |device| place.json(&["eval", "run", "--json", "--device", device]);
    let (found, expected) = (eval("host"), eval("cpu"));
    let loss = |result: &Value| result["loss"].as_f64().unwrap();
    assert!((loss(&found) - loss(&expected)).abs() < 1e-3, "{found} {expected}");
    assert_eq!(found["images"], expected["images"]);
    // Without a word it is used where that is possible, not where it was trained. Who has no GPU is not told so.
    let talk = |variables: &[(&str, &str)]| {
        let mut command = place.command(&["eval", "run", "--json"]);
        let output = command.env_remove("BNINCEPTION_LOG").envs(variables.iter().copied()).output();
        String::from_utf8_lossy(&output.unwrap().stderr).into_owned()
    };
    let plain = talk(&[]);
    let is_amiss = gpu::has_driver() || gpu::has_card();
    assert_eq!(plain.contains("no GPU: "), is_amiss, "{plain}");
    assert!(plain.contains("on the CPU"), "{plain}");
    let debug = talk(&[("BNINCEPTION_LOG", "debug")]);
    assert!(debug.contains("no GPU: "), "{debug}");
}

#[test]
fn what_is_not_there_is_refused() {
    let place = Place::with_pictures();
    let train = |more: &[&str], parts: &[&str]| {
        place.fail(&[&TRAIN[..], more].concat(), 2, parts);
    };
    train(&["--device", "cuda"], &["use --device cpu"]);
    train(&["--device", "cuda:99"], &["use --device cpu"]);
    train(&["--device", "gpu"], &["engine.device", "or \"cuda:N\""]);
    train(&["--device", "cpu", "--dtype", "tf32"], &["tf32 on the processor", "f32 or bf16"]);
    train(&["--device", "host", "--engine", "reference"], &["device host", "--engine fast"]);
    let bench = ["bench", "model", "--device", "cpu", "--predict", "h100"];
    place.fail(&bench, 2, &["--device host"]);
    place.fail(&["check-device", "networks", "--device", "cpu"], 2, &["--device"]);
}

#[test]
fn speed_and_memory_of_a_device_are_told() {
    let place = Place::with_pictures();
    let bench = ["bench", "model", "--device", "host", "-b", "2", "--image-size", "32", "--json"];
    let quick = ["--repeats", "1", "--warmup", "1"];
    let found = place.json(&[&bench[..], &quick, &["--profile"]].concat());
    assert_eq!((&found["device"], &found["engine"]), (&"host".into(), &"gpu".into()));
    assert!(found["peak_device_bytes"].as_u64().unwrap() > 100_000_000, "{found}");
    let kernels = found["profile"]["by_kernel"].as_array().unwrap();
    assert!(kernels.iter().any(|kernel| kernel["name"] == "convolution forward"), "{found}");
    assert!(kernels.iter().all(|kernel| kernel["seconds"].as_f64().unwrap() > 0.0), "{found}");

    let found = place.json(&[&bench[..], &["--predict", "h200", "--dtype", "bf16"]].concat());
    assert_eq!(found["card"], "h200");
    assert!(found["starts"].as_u64().unwrap() > 100, "{found}");
    assert!(found["predicted_step_seconds"].as_f64() > found["floor_seconds"].as_f64(), "{found}");

    let ops = ["bench", "ops", "--device", "host", "-b", "2", "--image-size", "32", "--json"];
    let found = place.json(&[&ops[..], &["--repeats", "1"]].concat());
    let rows = found["ops"].as_array().unwrap();
    assert!(rows.len() > 100 && rows.iter().all(|row| row["gflops"].as_f64().unwrap() > 0.0));

    let dry = [&TRAIN[..], &["--dry-run", "--device", "host"]].concat();
    assert!(place.succeed(&dry).contains("; device memory about "));
    let found = place.json(&[&dry[..], &["--json"]].concat());
    assert_eq!(found["device"], "host");
    assert!(found["device_memory_bytes"].as_u64() < found["device_memory_free_bytes"].as_u64());
}

#[test]
fn the_host_computes_what_the_processor_does() {
    let place = Place::new();
    let check = ["check-device", "--device", "host", "-b", "4", "--image-size", "32"];
    let told = place.succeed(&[&check[..], &["convolutions"]].concat());
    let rows = told.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
    let rows: Vec<Value> = rows.collect();
    assert!(rows.len() > 100 && rows.iter().all(|row| row["holds"] == true), "{told}");
    let told = place.succeed(&["check-device", "--device", "host", "kernels"]);
    assert!(told.contains("velocity") && told.contains("Bf16"), "{told}");
    let told = place.succeed(&[&check[..], &["networks", "--out", "out"]].concat());
    for part in ["logits, relu", "without captured steps, sigmoid", "\"tf32\"", "inception_5b"] {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
    let record = fs::read(place.path("out/bf16-sigmoid.safetensors")).unwrap();
    let record = safetensors::SafeTensors::deserialize(&record).unwrap();
    assert_eq!(record.tensor("images").unwrap().shape(), [4, 3, 32, 32]);
    let gradient = record.tensor("gradient.conv1_7x7_s2.weight").unwrap();
    assert_eq!(gradient.shape(), record.tensor("conv1_7x7_s2.weight").unwrap().shape());
}

//! The paper's first experiment: its two networks against candle's autograd, and the command on
//! digits made up here.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bninception::mnist::network::{Model, N_CLASSES, Network};
use bninception::mnist::stage::{Mode, StageSpec};
use bninception_data::random::{Purpose, sample_rng};
use candle_core::{D, DType, Device, Tensor, Var};
use flate2::Compression;
use flate2::write::GzEncoder;
use rand_distr::{Distribution, Uniform};
use serde_json::Value;

/// `n` values between `low` and `high`, decided by `key`.
fn uniform(key: u64, n: usize, low: f32, high: f32) -> Vec<f32> {
    let mut rng = sample_rng(1, 0, key, Purpose::Demo);
    let uniform = Uniform::new(low, high).unwrap();
    (0..n).map(|_| uniform.sample(&mut rng)).collect()
}

// ---- the networks against candle's autograd in f64 ----

/// A stage's parameters as candle sees them.
struct Reference {
    spec: StageSpec,
    weight: Var,
    scale: Var,
    shift: Var,
    running_mean: Vec<f32>,
    running_var: Vec<f32>,
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    tensor.to_dtype(DType::F64).unwrap()
}

/// The stages of `network`, whose weights are `[outputs][inputs][kernel][kernel]`.
fn references(network: &Network) -> Vec<Reference> {
    let stages = network.stages.iter();
    let reference = |stage: &bninception::mnist::stage::Stage| {
        let StageSpec { kernel, outputs, .. } = stage.spec;
        let inputs = stage.weight.len() / (outputs * kernel * kernel);
        let var = |values: &[f32], shape: &[usize]| Var::from_tensor(&tensor(values, shape));
        Reference {
            spec: stage.spec,
            weight: var(&stage.weight, &[outputs, inputs, kernel, kernel]).unwrap(),
            scale: var(&stage.scale, &[1, outputs, 1, 1]).unwrap(),
            shift: var(&stage.shift, &[1, outputs, 1, 1]).unwrap(),
            running_mean: stage.running_mean.clone(),
            running_var: stage.running_var.clone(),
        }
    };
    stages.map(reference).collect()
}

/// Logits `[image][class]`, and the running statistics behind the pass, stage by stage.
fn reference_forward(
    stages: &[Reference],
    x: &Tensor,
    mode: Mode,
) -> candle_core::Result<(Tensor, Vec<[Vec<f64>; 2]>)> {
    let mut x = x.clone();
    let mut running = Vec::new();
    for stage in stages {
        let channels = stage.spec.outputs;
        let per_channel = |values: &[f32]| tensor(values, &[1, channels, 1, 1]);
        let mut z = x.conv2d(&stage.weight, 0, 1, 1, 1)?;
        if stage.spec.normalised {
            let (old_mean, old_var) =
                (per_channel(&stage.running_mean), per_channel(&stage.running_var));
            let (mean, var) = match mode {
                Mode::Evaluate => (old_mean, old_var),
                Mode::Train => {
                    let mean = z.mean_keepdim((0, 2, 3))?;
                    let var = z.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 2, 3))?;
                    let n = (z.elem_count() / channels) as f64;
                    let mean_after = ((old_mean * 0.9)? + (&mean * 0.1)?)?;
                    let var_after = ((old_var * 0.9)? + (&var * (0.1 * n / (n - 1.0)))?)?;
                    let list = |tensor: Tensor| tensor.flatten_all()?.to_vec1::<f64>();
                    running.push([list(mean_after)?, list(var_after)?]);
                    (mean, var)
                }
            };
            z = z.broadcast_sub(&mean)?.broadcast_div(&(var + 1e-5)?.sqrt()?)?;
            z = z.broadcast_mul(&stage.scale)?;
        }
        z = z.broadcast_add(&stage.shift)?;
        x = if stage.spec.hidden { (z.neg()?.exp()? + 1.0)?.recip()? } else { z };
        if stage.spec.pooled {
            let (n, c, side, _) = x.dims4()?;
            x = x.reshape((n, c, side / 2, 2, side / 2, 2))?.mean(5)?.mean(3)?;
        }
    }
    Ok((x.flatten_from(1)?, running))
}

/// Equal within the rounding of f32, of which a gradient sums up thousands.
fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        let limit = 2e-5 * largest + 1e-9;
        assert!(error <= limit, "{what}[{i}]: {found}, expected {expected}, largest {largest}");
    }
}

fn list(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn losses_gradients_and_statistics_equal_autograd() {
    let images = 12;
    for model in [Model::Mlp, Model::Lenet] {
        for normalised in [false, true] {
            let what = format!("{model:?}, batch norm {normalised}");
            let mut network = Network::new(model, normalised, 0.1, 3);
            for (i, stage) in network.stages.iter_mut().enumerate() {
                let (key, n) = (10 * i as u64, stage.spec.outputs);
                stage.scale = uniform(key, n, 0.5, 1.5);
                stage.shift = uniform(key + 1, n, -0.5, 0.5);
                stage.running_mean = uniform(key + 2, n, -1.0, 1.0);
                stage.running_var = uniform(key + 3, n, 0.5, 1.5);
            }
            let side = model.side();
            let x: Vec<f32> =
                uniform(99, images * side * side, 0.0, 1.0).iter().map(|x| x.round()).collect();
            let labels: Vec<u8> = (0..images).map(|i| (i * 7 % N_CLASSES) as u8).collect();
            let stages = references(&network);
            let x_nchw = tensor(&x, &[images, 1, side, side]);

            for mode in [Mode::Evaluate, Mode::Train] {
                let (logits, _) = reference_forward(&stages, &x_nchw, mode).unwrap();
                // Ours are [class][image].
                let expected = list(&logits.t().unwrap());
                let found = if mode == Mode::Evaluate {
                    network.forward(&x, images, mode).to_vec()
                } else {
                    // As many images as before, and then others, must leave nothing behind.
                    let mut again = Network::new(model, normalised, 0.1, 3);
                    for (stage, from) in again.stages.iter_mut().zip(&network.stages) {
                        stage.scale.clone_from(&from.scale);
                        stage.shift.clone_from(&from.shift);
                    }
                    again.forward(&x[..5 * side * side], 5, mode);
                    again.forward(&x, images, mode).to_vec()
                };
                assert_close(&format!("{what}, {mode:?}: logits"), &found, &expected);
            }

            let (logits, running) = reference_forward(&stages, &x_nchw, Mode::Train).unwrap();
            let label_ids: Vec<u32> = labels.iter().map(|&label| u32::from(label)).collect();
            let label_ids = Tensor::new(label_ids, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
            let log_sum = logits.log_sum_exp(D::Minus1).unwrap();
            let picked = logits.gather(&label_ids, 1).unwrap().squeeze(1).unwrap();
            let expected_loss = (log_sum - picked).unwrap().mean_all().unwrap();
            let gradients = expected_loss.backward().unwrap();

            network.forward(&x, images, Mode::Train);
            let loss = network.backward(&labels);
            assert_close(&format!("{what}: loss"), &[loss as f32], &list(&expected_loss));
            let mut running = running.into_iter();
            for (i, (stage, reference)) in network.stages.iter().zip(&stages).enumerate() {
                let what = format!("{what}, stage {i}");
                let expected = |var: &Var| list(gradients.get(var).unwrap());
                let weight = expected(&reference.weight);
                assert_close(&format!("{what}: weight"), &stage.d_weight, &weight);
                let shift = expected(&reference.shift);
                assert_close(&format!("{what}: shift"), &stage.d_shift, &shift);
                if stage.spec.normalised {
                    let scale = expected(&reference.scale);
                    assert_close(&format!("{what}: scale"), &stage.d_scale, &scale);
                    let [mean, var] = running.next().unwrap();
                    assert_close(&format!("{what}: mean"), &stage.running_mean, &mean);
                    assert_close(&format!("{what}: variance"), &stage.running_var, &var);
                }
            }

            let before = network.stages[1].weight[0];
            let gradient = network.stages[1].d_weight[0];
            network.step(0.25);
            assert_eq!(network.stages[1].weight[0], before - 0.25 * gradient, "{what}");
        }
    }
}

#[test]
fn both_networks_of_a_comparison_start_from_the_same_weights() {
    for model in [Model::Mlp, Model::Lenet] {
        let weights = |normalised, seed| -> Vec<f32> {
            let network = Network::new(model, normalised, 0.1, seed);
            network.stages.iter().flat_map(|stage| stage.weight.clone()).collect()
        };
        assert_eq!(weights(false, 5), weights(true, 5));
        assert_ne!(weights(false, 5), weights(false, 6));
    }
}

// ---- the command ----

const NAMES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// An IDX file of images or labels.
fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    bytes.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend_from_slice(data);
    bytes
}

/// Digits that are noise but for a bright bar whose row is the label.
fn digits(key: u64, n: usize) -> [Vec<u8>; 2] {
    let labels: Vec<u8> = (0..n).map(|i| (i * 3 % N_CLASSES) as u8).collect();
    let noise = uniform(key, n * 784, 0.0, 160.0);
    let mut pixels: Vec<u8> = noise.iter().map(|&value| value as u8).collect();
    for (i, &label) in labels.iter().enumerate() {
        let row = 4 + 2 * usize::from(label);
        pixels[i * 784 + 28 * row..][..56].fill(255);
    }
    [idx(&[n as u32, 28, 28], &pixels), idx(&[n as u32], &labels)]
}

/// A temporary folder in which the binary runs.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// With 120 training and 50 test digits in `data`, one of the files packed.
    fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("data")).unwrap();
        let files = [digits(1, 120), digits(2, 50)].into_iter().flatten();
        for (name, bytes) in NAMES.into_iter().zip(files) {
            fs::write(place.path("data").join(name), bytes).unwrap();
        }
        let (plain, packed) = (place.file(NAMES[0]), place.file(&format!("{}.gz", NAMES[0])));
        let mut encoder = GzEncoder::new(fs::File::create(packed).unwrap(), Compression::fast());
        encoder.write_all(&fs::read(&plain).unwrap()).unwrap();
        encoder.finish().unwrap();
        fs::remove_file(plain).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path("data").join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bninception"));
        command.args(["mnist", "--data-dir", "data"]).args(arguments);
        command.current_dir(self.dir.path()).env_remove("BNINCEPTION_LOG");
        command
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The command must fail with `code`, name all `parts`, and write no results.
    fn fail(&self, arguments: &[&str], code: i32, parts: &[&str]) {
        let output = self.command(arguments).output().unwrap();
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{arguments:?}: no `{part}` in {errors}");
        }
        assert!(!errors.contains("panicked"), "{errors}");
        assert!(!self.path("checkpoints").exists(), "{arguments:?} left something behind");
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_command_learns_repeats_itself_and_writes_everything() {
    let place = Place::new();
    let arguments = ["--steps", "150", "--batch-size", "20", "--lr", "0.5", "--seed", "4"];
    let run = |out: &str, extra: &[&str]| -> Value {
        let arguments = [&arguments[..], &["--out", out, "--json"], extra].concat();
        serde_json::from_str(&place.succeed(&arguments)).unwrap()
    };
    let first = run("first", &[]);
    run("second", &[]);
    for name in ["curves.csv", "percentiles.csv", "result.json"] {
        let [a, b] = ["first", "second"].map(|out| read(&place.path(out).join(name)));
        if name == "result.json" {
            assert_eq!(serde_json::from_str::<Value>(&a).unwrap(), first);
        } else {
            assert_eq!(a, b, "{name}");
            // Four networks, evaluated at steps 50, 100 and 150.
            assert_eq!(a.lines().count(), 1 + 4 * 3, "{name}: {a}");
        }
    }
    for name in ["mnist.svg", "mnist.png", "lenet.svg", "lenet.png"] {
        assert!(place.path("first").join(name).metadata().unwrap().len() > 1_000, "{name}");
    }
    assert_eq!(first["complete"], true);
    assert_eq!((&first["train_images"], &first["test_images"]), (&120.into(), &50.into()));
    for (model, name) in first["models"].as_array().unwrap().iter().zip(["mlp", "lenet"]) {
        assert_eq!(model["model"], name);
        let top1 = model["with_batch_norm"]["best_top1"].as_f64().unwrap();
        assert!(top1 > 0.9, "{name} with batch norm names only {top1} of the bars");
        assert_eq!(model["with_batch_norm"]["steps"], 150);
    }

    let other = ["--seed", "5", "--model", "mlp"];
    run("third", &other[2..]);
    let rows = |out: &str| read(&place.path(out).join("curves.csv"));
    assert!(rows("first").starts_with(&rows("third")), "a model's curve depends on the other");
}

#[test]
fn a_table_and_a_sentence_for_each_network_go_to_stdout() {
    let place = Place::new();
    let text = place.succeed(&["--steps", "100", "--model", "mlp", "--batch-size", "60"]);
    for part in
        ["mlp-bn", "\n100 ", "without batch norm the best test accuracy", "checkpoints/mnist"]
    {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(place.path("checkpoints/mnist/curves.csv").is_file());
}

#[test]
fn wrong_files_and_flags_are_errors_that_name_them() {
    type Change = (&'static str, fn(&Path), &'static [&'static str]);
    let changes: [Change; 8] = [
        (
            NAMES[3],
            |path| fs::remove_file(path).unwrap(),
            &["no t10k-labels", "t10k-labels-idx1-ubyte.gz", "plain or packed"],
        ),
        (
            "train-images-idx3-ubyte.gz",
            |path| fs::write(path, b"no gzip").unwrap(),
            &["cannot be unpacked"],
        ),
        (NAMES[2], |path| fs::write(path, b"").unwrap(), &["begins with 2051, found nothing"]),
        (
            NAMES[1],
            |path| fs::write(path, digits(1, 120)[0].as_slice()).unwrap(),
            &["labels, which begins with 2049, found 2051"],
        ),
        (
            NAMES[2],
            |path| fs::write(path, &digits(2, 50)[0][..9000]).unwrap(),
            &["expected 39216 bytes for 50 images, found 9000"],
        ),
        (
            NAMES[2],
            |path| fs::write(path, idx(&[2, 20, 28], &[0; 1120])).unwrap(),
            &["expected images of 28 x 28, found 20 x 28"],
        ),
        (
            NAMES[3],
            |path| fs::write(path, idx(&[50], &[10; 50])).unwrap(),
            &["expected labels 0 to 9, found 10"],
        ),
        (
            NAMES[3],
            |path| fs::write(path, idx(&[49], &[1; 49])).unwrap(),
            &["49 labels for 50 images"],
        ),
    ];
    for (name, change, parts) in changes {
        let place = Place::new();
        change(&place.file(name));
        place.fail(&["--steps", "1"], 3, parts);
        place.fail(&["--steps", "1"], 3, &[name]);
    }
    let place = Place::new();
    place.fail(&["--batch-size", "121"], 2, &["--batch-size 121", "only 120"]);
    place.fail(&["--batch-size", "1"], 2, &["--batch-size"]);
    place.fail(&["--lr", "-1"], 2, &["--lr -1"]);
    place.fail(&["--lr", "1e38", "--steps", "50"], 4, &["diverged", "--lr"]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_writes_what_there_is() {
    let place = Place::new();
    let mut command = place.command(&["--steps", "9999999", "--model", "mlp"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("120 training and 50 test digits") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "ended before it began");
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut errors = String::new();
    log.read_to_string(&mut errors).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{errors}");
    assert!(errors.contains("checkpoints/mnist"), "{errors}");
    assert!(output.stdout.is_empty());
    let result: Value =
        serde_json::from_str(&read(&place.path("checkpoints/mnist/result.json"))).unwrap();
    assert_eq!(result["complete"], false);
    assert!(read(&place.path("checkpoints/mnist/curves.csv")).starts_with("step,model,"));
}

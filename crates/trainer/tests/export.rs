//! `export`: networks as other programs get them, judged by an independent runtime of ONNX, and by `import`.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::fs;

use bninception::config::{Sources, preset_names, resolve};
use bninception::export::exported::Exported;
use bninception::export::onnx::{GraphOptions, model};
use bninception::export::storage::Storage;
use bninception::setup;
use bninception_data::Preprocessing;
use bninception_engine::model::init::initial_weights;
use bninception_engine::model::layer::{Activation, Layer, Op};
use bninception_engine::model::{Kind, Network, NetworkOptions, ParameterTable, Weights};
use bninception_engine::{EvaluationWeights, Executor, Fast, FastOptions, Images};
use common::Place;
use rten::{Model, Value};
use safetensors::SafeTensors;

const CLASSES: usize = 7;
const BATCH: usize = 2;

/// Numbers without a pattern that a mistake could hide in, in -0.5 to 0.5.
fn noise(index: usize) -> f32 {
    ((index + 1) as f32 * 0.618_034).fract() - 0.5
}

/// Weights of which none is a default: batch norm does something everywhere.
fn weights_of(network: &Network) -> Weights {
    let table = ParameterTable::new(network);
    let mut weights = initial_weights(network, &table, 3);
    for (index, value) in weights.trainable.iter_mut().enumerate() {
        *value += 0.02 * noise(index);
    }
    for (index, value) in weights.statistics.iter_mut().enumerate() {
        *value += 0.2 * noise(index);
    }
    weights
}

fn classes() -> Vec<String> {
    (0..CLASSES).map(|class| format!("class {class}")).collect()
}

fn exported(network: &Network, weights: &Weights, options: GraphOptions) -> Vec<u8> {
    let (preprocessing, classes) = (Preprocessing::default(), classes());
    let preprocessing = &preprocessing;
    model(&Exported { network, weights, preprocessing, classes: &classes }, options).unwrap()
}

/// What rten answers to `images`.
fn answers(bytes: Vec<u8>, images: &[f32], size: usize) -> Vec<f32> {
    let model = Model::load(bytes).unwrap();
    let input = Value::from_shape([BATCH, 3, size, size], images.to_vec()).unwrap();
    let output = model.run_one(input.into(), None).unwrap();
    let ([batch, classes], values) = output.into_shape_vec::<f32, 2>().unwrap();
    assert_eq!((batch, classes), (BATCH, CLASSES));
    values
}

/// The largest difference over the largest value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max) / largest
}

/// Compares rten's logits with ours, batch norm folded and kept, and its probabilities.
fn judge(network: &Network, what: &str) {
    let size = network.options.image_size;
    let weights = weights_of(network);
    let images: Vec<f32> = (0..BATCH * 3 * size * size).map(|at| 3.0 * noise(at)).collect();
    let mut engine = Fast::new(network.clone(), FastOptions::default()).unwrap();
    engine.prepare_evaluation(EvaluationWeights::Given(&weights)).unwrap();
    let mut logits = Vec::new();
    engine.evaluate(Images::Values(&images), &mut logits).unwrap();
    let spread = error(&logits[CLASSES..], &logits[..CLASSES]);
    // Sigmoids one behind another leave little of what images differ in.
    let has_sigmoid = |layer: &Layer| layer.op == Op::Activation(Activation::Sigmoid);
    let least = if network.layers.iter().any(has_sigmoid) { 0.0 } else { 1e-3 };
    assert!(spread > least, "{what}: both images have the same logits");
    for keep_batch_norm in [false, true] {
        let options = GraphOptions { keep_batch_norm, ..GraphOptions::default() };
        let found = answers(exported(network, &weights, options), &images, size);
        let error = error(&found, &logits);
        assert!(error < 1e-4, "{what}, batch norm kept: {keep_batch_norm}: error {error:e}");
    }
    let options = GraphOptions { softmax: true, ..GraphOptions::default() };
    let found = answers(exported(network, &weights, options), &images, size);
    let expected = logits.chunks(CLASSES).flat_map(bninception_engine::metrics::softmax);
    let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    assert!(worst.fold(0.0, f64::max) < 1e-4, "{what}: probabilities differ");
}

#[test]
fn every_presets_network_answers_alike() {
    let mut judged: Vec<Network> = Vec::new();
    for name in preset_names() {
        let sources = Sources { preset: Some(name), ..Sources::default() };
        let mut config = resolve(&sources).unwrap().config;
        config.data.image_size = 64;
        let network = setup::network(&config, CLASSES).unwrap();
        if !judged.contains(&network) {
            judge(&network, name);
            judged.push(network);
        }
    }
    assert!(judged.len() >= 4, "presets have {} networks", judged.len());
}

#[test]
fn every_size_answers_alike() {
    for (kind, image_size) in [
        (Kind::BnInception, 224),
        (Kind::BnInception, 47),
        (Kind::BnInception, 75),
        (Kind::GoogLeNet, 224),
        (Kind::GoogLeNet, 77),
    ] {
        let lrn = kind == Kind::GoogLeNet;
        let batch_norm = if lrn { None } else { NetworkOptions::default().batch_norm };
        let options = NetworkOptions {
            classes: CLASSES,
            image_size,
            conv_bias: true,
            lrn,
            batch_norm,
            pool_proj_4c4d: if lrn { 96 } else { 128 },
            ..NetworkOptions::default()
        };
        judge(&Network::new(kind, options).unwrap(), &format!("{kind:?} at {image_size} px"));
    }
}

#[test]
fn sixteen_bits_halve_the_file() {
    let options = NetworkOptions { classes: CLASSES, image_size: 64, ..NetworkOptions::default() };
    let network = Network::bn_inception(options).unwrap();
    let weights = weights_of(&network);
    let len = |storage| {
        let options = GraphOptions { storage, ..GraphOptions::default() };
        exported(&network, &weights, options).len() as f64
    };
    for storage in [Storage::F16, Storage::Bf16] {
        let share = len(storage) / len(Storage::F32);
        assert!((0.49..0.52).contains(&share), "{storage:?}: {share}");
    }
}

/// A run of a few steps, and the probabilities of all classes for one picture.
fn trained(more: &[&str]) -> (Place, String) {
    let place = Place::with_pictures();
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];
    place.succeed(&[&train[..], more].concat());
    let picture = common::listing(&place.path("pictures/val"))
        .into_iter()
        .find(|path| path.is_file())
        .unwrap();
    (place, picture.to_str().unwrap().to_owned())
}

fn probabilities(place: &Place, checkpoint: &str, picture: &str) -> Vec<(String, f64)> {
    let found = place.json(&["predict", checkpoint, picture, "--json", "--topk", "10"]);
    let mut found: Vec<(String, f64)> = found[0]["predictions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (one["class"].as_str().unwrap().to_owned(), one["probability"].as_f64().unwrap())
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn worst(a: &[(String, f64)], b: &[(String, f64)]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).inspect(|(a, b)| assert_eq!(a.0, b.0));
    pairs.map(|(a, b)| (a.1 - b.1).abs()).fold(0.0, f64::max)
}

#[test]
fn what_is_exported_can_be_imported() {
    // Another epsilon and crop than the public port's, which the file has to make up for.
    let more = ["--set", "network.bn_epsilon=1e-3", "--set", "data.crop_ratio=0.8"];
    let (place, picture) = trained(&more);
    let expected = probabilities(&place, "run", &picture);
    for (storage, limit) in [("f32", 1e-5), ("f16", 2e-3), ("bf16", 2e-2)] {
        let file = format!("{storage}.safetensors");
        place.succeed(&["export", "run", "--safetensors", &file, "--storage", storage]);
        let checkpoint = format!("back-{storage}.safetensors");
        place.succeed(&["import", &file, &checkpoint]);
        let found = probabilities(&place, &checkpoint, &picture);
        let worst = worst(&found, &expected);
        assert!(worst < limit, "{storage}: probabilities differ by {worst}");
    }
    // The public port wants a bias in each convolution, and nothing of training.
    let bytes = fs::read(place.path("f32.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("conv1_7x7_s2.bias").unwrap().shape(), [64]);
    assert!(file.names().iter().all(|name| !name.starts_with("optimizer.")));
    // Equal weights make equal files.
    place.succeed(&["export", "run", "--safetensors", "again.safetensors"]);
    assert_eq!(fs::read(place.path("again.safetensors")).unwrap(), bytes);
    // Nothing is replaced unasked.
    let again = ["export", "run", "--safetensors", "again.safetensors"];
    place.fail(&again, 2, &["again.safetensors is there already", "--overwrite"]);
    place.succeed(&[&again[..], &["--overwrite"]].concat());
}

#[test]
fn a_hub_folder_tells_what_the_run_was() {
    let (place, picture) = trained(&[]);
    let result = place.json(&["export", "run/last.safetensors", "--hub", "my model", "--json"]);
    assert_eq!((&result["classes"], &result["storage"]), (&10.into(), &"f32".into()));
    let read = |name: &str| fs::read_to_string(place.path("my model").join(name)).unwrap();
    let config: serde_json::Value = serde_json::from_str(&read("config.json")).unwrap();
    let pretrained = &config["pretrained_cfg"];
    assert_eq!(pretrained["input_size"], serde_json::json!([3, 32, 32]));
    assert_eq!(pretrained["mean"], serde_json::json!([0.485, 0.456, 0.406]));
    assert_eq!((&config["num_classes"], &config["num_features"]), (&10.into(), &1024.into()));
    assert_eq!(config["label_names"].as_array().unwrap().len(), 10);
    let page = read("README.md");
    assert!(page.starts_with("---\n") && page.matches("\n---\n").count() == 1, "{page}");
    for part in [
        "# my model\n",
        "| images | 20 |",
        "always the same class would score 10.00 %",
        "- recipe: smoke",
        "](curves.png)",
        "of its list (10), whatever an image shows",
    ] {
        assert!(page.to_lowercase().contains(&part.to_lowercase()), "`{part}` is not in {page}");
    }
    assert!(place.path("my model/curves.png").is_file());
    // Its figures are those of the log.
    let log = fs::read_to_string(place.path("run/summary.csv")).unwrap();
    let (titles, rows) = log.split_once('\n').unwrap();
    let column = titles.split(',').position(|name| name == "val_top1").unwrap();
    let rows = rows.lines().map(|row| row.split(',').nth(column).unwrap().parse().unwrap());
    let rows: Vec<f64> = rows.collect();
    let (top1, best) = (rows[rows.len() - 1], rows.iter().copied().fold(0.0, f64::max));
    assert!(page.contains(&format!("| top-1 | {:.2} % |", 100.0 * top1)), "{top1}: {page}");
    assert!(page.contains(&format!("      value: {top1:.4}\n")), "{top1}: {page}");
    assert_eq!(page.contains("figures flatter"), best == top1, "{page}");
    // The page's own commands work.
    place.succeed(&["import", "my model/model.safetensors", "back.safetensors"]);
    let [expected, found] = ["run/last.safetensors", "back.safetensors"]
        .map(|path| probabilities(&place, path, &picture));
    assert!(worst(&found, &expected) < 1e-5);
    place.fail(&["export", "run", "--hub", "my model"], 2, &["config.json is there already"]);
}

#[test]
fn a_page_claims_nothing_that_was_not_measured() {
    let (place, _) = trained(&["--set", "train.eval_statistics=moving"]);
    let page_of = |checkpoint: &str, more: &[&str]| {
        place.succeed(&[&["export", checkpoint, "--hub", "hub", "--overwrite"], more].concat());
        fs::read_to_string(place.path("hub/README.md")).unwrap()
    };
    let unknown = "No evaluation of these weights";
    let page = page_of("run", &[]);
    assert!(page.contains("statistics: moving.") && !page.contains(unknown), "{page}");
    assert!(!page.contains("stored as") && page.contains("of pictures,"), "{page}");
    let page = page_of("run", &["--storage", "bf16"]);
    assert!(page.contains("used the weights before they were rounded"), "{page}");
    // Other statistics, and another size, than those of the evaluation.
    place.succeed(&["calibrate", "run/last.safetensors", "--out", "other.safetensors"]);
    place.succeed(&[
        "calibrate",
        "run/last.safetensors",
        "--image-size",
        "48",
        "--out",
        "48.safetensors",
    ]);
    for checkpoint in ["other.safetensors", "48.safetensors"] {
        let page = page_of(checkpoint, &[]);
        assert!(page.contains(unknown) && !page.contains("model-index"), "{page}");
        assert!(page.contains("- images: 32 px"), "{page}");
        assert!(!page.contains("other sources than those above"), "{page}");
    }
    // No run led to these, and a curve of another model does not stay.
    place.succeed(&["export", "run", "--safetensors", "weights.safetensors"]);
    place.succeed(&["import", "weights.safetensors", "imported.safetensors"]);
    place.succeed(&["average", "run", "run/last.safetensors", "mean.safetensors"]);
    for (checkpoint, origin) in [
        ("imported.safetensors", "it was imported"),
        ("mean.safetensors", "it is the mean of 2 checkpoints"),
    ] {
        let page = page_of(checkpoint, &[]);
        assert!(page.contains(origin) && page.contains(unknown), "{page}");
        assert!(!page.contains("Trained with") && !page.contains("updates"), "{page}");
        assert!(!place.path("hub/curves.png").exists(), "{checkpoint}");
    }
    // A folder of its own for validation.
    fs::rename(place.path("pictures/val"), place.path("judges")).unwrap();
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--val-dir", "judges"];
    place.succeed(&[&train[..], &["--run-dir", "judged"]].concat());
    let page = page_of("judged", &[]);
    assert!(
        page.contains("validation images of judges,") && page.contains("name: \"judges\""),
        "{page}"
    );
}

#[test]
fn a_checkpoint_is_never_overwritten() {
    let (place, picture) = trained(&[]);
    let before = fs::read(place.path("run/last.safetensors")).unwrap();
    for target in ["--safetensors", "--onnx"] {
        for file in ["run/last.safetensors", "run/best.safetensors"] {
            let export = ["export", "run", target, file, "--overwrite"];
            place.fail(&export, 2, &["is a checkpoint", "name another place"]);
        }
    }
    let folder = picture.rsplit_once('/').unwrap().0;
    let inside = format!("{folder}/a.onnx");
    place.fail(&["export", "run", "--onnx", &inside], 2, &["lies in"]);
    assert_eq!(fs::read(place.path("run/last.safetensors")).unwrap(), before);
}

#[test]
fn every_network_comes_back() {
    for (preset, more) in [
        ("bn-x5-sigmoid", &[][..]),
        ("bn-baseline", &[]),
        ("inception", &[]),
        ("googlenet", &[]),
        ("bn-x5", &["--set", "network.pool_proj_4c4d=128", "--set", "data.exif=false"]),
    ] {
        let place = Place::with_pictures();
        let train = ["train", "--preset", preset, "--data-dir", "pictures", "--image-size", "32"];
        let short = ["-b", "8", "--steps", "2", "--run-dir", "run"];
        place.succeed(&[&train[..], &short, more].concat());
        place.succeed(&["export", "run", "--safetensors", "out.safetensors"]);
        place.succeed(&["import", "out.safetensors", "back.safetensors"]);
        let [own, back] = ["run", "back.safetensors"].map(|path| {
            let found = place.json(&["predict", path, "pictures/val", "--json", "--topk", "10"]);
            found.to_string()
        });
        let numbers = |text: &str| -> Vec<f64> {
            let parts = text.split("\"probability\":").skip(1);
            parts.map(|part| part.split(['}', ',']).next().unwrap().parse().unwrap()).collect()
        };
        let [own, back] = [&own, &back].map(|text| numbers(text));
        assert_eq!(own.len(), 200, "{preset}");
        let worst = own.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5, "{preset}: probabilities differ by {worst}");
    }
}

#[test]
fn what_cannot_be_exported_is_said() {
    let (place, _) = trained(&["--set", "network.kind=googlenet", "--steps", "1"]);
    place.fail(&["export", "run", "--hub", "hub"], 2, &["GoogLeNet", "--onnx"]);
    assert!(!place.path("hub").exists());
    place.fail(&["export", "run"], 2, &["--onnx"]);
    place.fail(&["export", "run", "--softmax", "--safetensors", "a"], 2, &["--onnx"]);
    place.fail(&["export", "nothing", "--onnx", "a.onnx"], 3, &["nothing"]);
    place.fail(&["export", "run", "--onnx", "run/config.toml/a.onnx"], 3, &["config.toml"]);
    place.succeed(&["export", "run", "--onnx", "new/folder/a.onnx"]);
    let bytes = fs::read(place.path("new/folder/a.onnx")).unwrap();
    assert!(Model::load(bytes).is_ok());
}

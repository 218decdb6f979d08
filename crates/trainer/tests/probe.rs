//! `probe`: a linear classifier on the features of a network that stays as it is.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;

use bninception::evaluation::last_layer::LastLayer;
use bninception::run::checkpoint;
use bninception_engine::model::ParameterTable;
use common::Place;

/// A run of two steps on small pictures of ten classes, with a moving average.
fn with_run() -> Place {
    let place = Place::with_pictures();
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];
    place.succeed(&[&train[..], &["--steps", "2", "--set", "train.ema=0.5"]].concat());
    place
}

const PROBE: [&str; 4] = ["probe", "run/last.safetensors", "--data-dir", "pictures"];

#[test]
fn a_probe_is_a_checkpoint_that_answers_as_it_said() {
    let place = with_run();
    let found = place.json(&[&PROBE[..], &["--json"]].concat());
    assert_eq!(found["checkpoint"], "run/last-probe.safetensors");
    assert_eq!((&found["images"], &found["held_out"]), (&40.into(), &40.into()));
    assert_eq!(found["is_minimum"], true);
    let path = "run/last-probe.safetensors";

    // `eval` finds what was said, with the images that were named and with those that it finds itself.
    for more in [&["--data-dir", "pictures"][..], &[]] {
        let again = place.json(&[&["eval", path, "--json"], more].concat());
        for key in ["top1", "loss", "top1_interval", "majority", "per_class", "images"] {
            assert_eq!(again[key], found["validation"][key], "{key}");
        }
    }

    // All but the classifier is what evaluation used of the first checkpoint.
    let [first, probed] =
        ["run/last.safetensors", path].map(|path| checkpoint::load(&place.path(path)).unwrap());
    let weights = first.state.model.evaluation_weights();
    let population = first.state.population.as_ref().unwrap();
    assert_eq!(probed.state.model.weights.statistics, population.statistics);
    assert!(probed.state.model.ema.is_none() && probed.state.population.is_none());
    let LastLayer { matrix, bias, .. } = LastLayer::of(&probed.network);
    for spec in ParameterTable::new(&probed.network).trainable {
        let [own, new] = [&weights.trainable, &probed.state.model.weights.trainable]
            .map(|values| &values[spec.range.clone()]);
        let is_of_classifier = spec.range == matrix || spec.range == bias;
        assert_eq!(own != new, is_of_classifier, "{}", spec.name);
    }
    let source = probed.metadata.initial.unwrap();
    let bytes = fs::read(place.path("run/last.safetensors")).unwrap();
    assert_eq!(source.blake3, blake3::hash(&bytes).to_hex().to_string());
    assert!(source.kept_classes.is_empty() && source.step == 2);

    // It knows its training images far better than a classifier of two steps.
    let top1 = |path: &str| {
        let eval = ["eval", path, "--data-dir", "pictures/train", "--json"];
        place.json(&eval)["top1"].as_f64().unwrap()
    };
    let (before, behind) = (top1("run/last.safetensors"), top1(path));
    assert!(behind > 0.9 && behind > before + 0.3, "{before} {behind}");

    // The same again has the same weights, whatever the threads. Nothing is replaced unless it is asked for.
    place.fail(&PROBE, 2, &["run/last-probe.safetensors is there already", "--overwrite"]);
    let output = place.run(&[&PROBE[..], &["--overwrite", "--threads", "1"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("was trained on 40 of the 40 training images"), "{said}");
    assert!(!said.contains("so the result is too good"), "{said}");
    let again = checkpoint::load(&place.path(path)).unwrap();
    assert_eq!(again.state.model, probed.state.model);

    // And it can be used as any other.
    place.succeed(&["predict", path, "pictures/val/circle"]);
    place.succeed(&["explain", path, "pictures/val/circle", "--out", "why"]);
    let info = place.succeed(&["info", path]);
    assert!(info.contains("first weights: run/last.safetensors (step 2"), "{info}");
    let train = ["train", "--data-dir", "pictures", "--init-from", path, "--run-dir", "second"];
    let more = ["--batch-size", "8", "--max-time", "0s"];
    let output = place.run(&[&train[..], &more].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("10 of 10 classes kept by name"), "{said}");
}

#[test]
fn images_are_parted_as_in_training() {
    let place = with_run();
    fs::rename(place.path("pictures/train"), place.path("flat")).unwrap();
    let run = ["train", "--preset", "smoke", "--data-dir", "flat", "--run-dir", "flat-run"];
    let fraction = ["--set", "data.val_fraction=0.25"];
    place.succeed(&[&run[..], &fraction, &["--max-time", "0s"]].concat());
    let own = checkpoint::load(&place.path("flat-run/last.safetensors")).unwrap().metadata;
    let probe = ["probe", "run", "--data-dir", "flat", "--out", "flat.safetensors", "--json"];
    let found = place.json(&[&probe[..], &fraction].concat());
    let metadata = checkpoint::load(&place.path("flat.safetensors")).unwrap().metadata;
    assert_eq!(metadata.images, own.images);
    assert_eq!((&found["images"], &found["validation"]["images"]), (&30.into(), &10.into()));
    // With another seed the network is judged on images that it was trained on, and that is said.
    let probe_own =
        ["probe", "flat-run", "--data-dir", "flat", "--out", "x.safetensors", "--seed", "7"];
    let output = place.run(&[&probe_own[..], &fraction].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("so the result is too good"), "{said}");
    // A tenth of four images is none. Without any to validate on, the classifier is made all the same.
    let found = place.json(&[&probe[..], &["--overwrite", "--image-size", "48"]].concat());
    assert_eq!((&found["images"], found["validation"].is_null()), (&40.into(), true));
    let metadata = checkpoint::load(&place.path("flat.safetensors")).unwrap().metadata;
    assert_eq!((metadata.preprocessing.image_size, metadata.progress.evaluation), (48, None));
}

#[test]
fn what_cannot_be_probed_is_refused() {
    let place = with_run();
    place.fail(&["probe", "run"], 2, &["--data-dir"]);
    place.fail(&["probe", "run", "--data-dir", "nowhere"], 3, &["nowhere is not a folder"]);
    let inside = [&PROBE[..], &["--out", "pictures/x.safetensors"]].concat();
    place.fail(&inside, 2, &["--out", "lies in the folder of images"]);
    // A class whose images cannot be decoded leaves one alone.
    for class in ["circle", "square"] {
        let to = place.path("two/train").join(class);
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(place.path("pictures/train").join(class)).unwrap() {
            let file = file.unwrap();
            let mut bytes = fs::read(file.path()).unwrap();
            if class == "square" {
                bytes.truncate(bytes.len() / 2);
            }
            fs::write(to.join(file.file_name()), bytes).unwrap();
        }
    }
    let probe = ["probe", "run", "--data-dir", "two"];
    place.fail(&probe, 3, &["training images could not be read", "data.max_bad"]);
    fs::remove_dir_all(place.path("two/train/square")).unwrap();
    place.fail(&probe, 3, &["one class only", "circle"]);
}

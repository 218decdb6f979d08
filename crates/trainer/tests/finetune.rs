//! Runs that begin with the weights of a checkpoint, whole or partly frozen.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;
use std::path::Path;

use bninception::run::checkpoint::{self, Checkpoint};
use bninception_engine::model::ParameterTable;
use bninception_engine::model::parameters::TensorSpec;
use common::Place;

const SMOKE: [&str; 3] = ["train", "--preset", "smoke"];

/// Ends a run before its first update, with its state saved.
const AT_ONCE: [&str; 2] = ["--max-time", "0s"];

/// A place with pictures of ten classes, others of which two have other names, and a run of three steps on
/// the first, with a moving average.
fn with_run() -> Place {
    let place = Place::with_pictures();
    for split in ["train", "val"] {
        let [from, to] = ["pictures", "others"].map(|dir| place.path(dir).join(split));
        fs::create_dir_all(&to).unwrap();
        for (number, class) in fs::read_dir(from).unwrap().map(Result::unwrap).enumerate() {
            // The order of a folder's entries is the system's: the names alone decide.
            let name = class.file_name().into_string().unwrap();
            let renamed = match name.as_str() {
                _ if number > 10 => unreachable!("ten classes"),
                "circle" => "ant".to_owned(),
                "square" => "bee".to_owned(),
                _ => name,
            };
            let to = to.join(renamed);
            fs::create_dir(&to).unwrap();
            for file in fs::read_dir(class.path()).unwrap().map(Result::unwrap) {
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
    }
    let steps = ["--data-dir", "pictures", "--run-dir", "first", "--steps", "3"];
    place.succeed(&[&SMOKE[..], &steps, &["--set", "train.ema=0.5"]].concat());
    place
}

/// Trains with more arguments, which must succeed, and gives the newest checkpoint and what was said.
fn train(place: &Place, run: &str, more: &[&str]) -> (Checkpoint, String) {
    let output = place.run(&[&SMOKE[..], &["--run-dir", run], more].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (load(place, &format!("{run}/last.safetensors")), said)
}

fn load(place: &Place, path: &str) -> Checkpoint {
    checkpoint::load(&place.path(path)).unwrap()
}

/// The values of a tensor for evaluation, with population statistics where there are some.
fn tensor<'a>(of: &'a Checkpoint, spec: &TensorSpec, is_statistic: bool) -> &'a [f32] {
    let weights = of.state.model.evaluation_weights();
    let population = of.state.population.as_ref();
    let statistics = population.map_or(&weights.statistics, |found| &found.statistics);
    let values = if is_statistic { statistics } else { &weights.trainable };
    &values[spec.range.clone()]
}

/// All tensors of a network, and whether each is a running statistic.
fn specs(of: &Checkpoint) -> Vec<(TensorSpec, bool)> {
    let table = ParameterTable::new(&of.network);
    let trainable = table.trainable.into_iter().map(|spec| (spec, false));
    trainable.chain(table.statistics.into_iter().map(|spec| (spec, true))).collect()
}

#[test]
fn a_run_begins_with_the_weights_of_a_checkpoint() {
    let place = with_run();
    let first = load(&place, "first/last.safetensors");
    assert!(first.state.model.ema.is_some());
    let begin = ["--data-dir", "others", "--init-from", "first/last.safetensors"];
    let (second, said) = train(&place, "second", &[&begin[..], &AT_ONCE].concat());
    for part in ["8 of 10 classes kept by name", "2 drawn anew (ant, bee)", "step 3, BLAKE3"] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
    assert!(!said.contains("other settings"), "{said}");
    let place_of = |class: &str| first.metadata.classes.iter().position(|own| own == class);
    for (spec, is_statistic) in specs(&second) {
        let (own, found) =
            (tensor(&first, &spec, is_statistic), tensor(&second, &spec, is_statistic));
        if !spec.name.starts_with("last_linear") {
            assert_eq!(found, own, "{}", spec.name);
            continue;
        }
        let len = found.len() / 10;
        for (row, class) in found.chunks_exact(len).zip(&second.metadata.classes) {
            match place_of(class) {
                Some(place) => assert_eq!(row, &own[place * len..][..len], "{class}"),
                None => {
                    assert!(own.chunks_exact(len).all(|other| other != row || len == 1), "{class}")
                }
            }
        }
    }
    let source = second.metadata.initial.unwrap();
    let bytes = fs::read(place.path("first/last.safetensors")).unwrap();
    assert_eq!(source.blake3, blake3::hash(&bytes).to_hex().to_string());
    assert_eq!((source.step, source.kept_classes.len()), (3, 8));

    // The folder of a run means its best checkpoint, and what was there is told by `info`.
    place.succeed(&["resume", "second"]);
    let info = place.succeed(&["info", "second/last.safetensors"]);
    assert!(info.contains("first weights: first/last.safetensors (step 3"), "{info}");
}

#[test]
fn what_is_frozen_stays_and_the_run_resumes_exactly() {
    let place = with_run();
    let first = load(&place, "first/last.safetensors");
    let begin = [
        "--data-dir",
        "pictures",
        "--init-from",
        "first/last.safetensors",
        "--freeze",
        "stem..inception_4e",
        "--set",
        "optimizer.layer_decay=0.5",
        "--set",
        "optimizer.head_lr_factor=10",
        // So that the length of the run does not matter.
        "--set",
        "schedule.kind=\"constant\"",
        "--threads",
        "2",
        "--steps",
    ];
    let (whole, said) = train(&place, "whole", &[&begin[..], &["4"]].concat());
    assert!(said.contains("stem..inception_4e stays as it is"), "{said}");
    let frozen = whole.network.frozen;
    assert_eq!(whole.network.layers[frozen].name, "inception_4e_output");
    for (spec, is_statistic) in specs(&whole) {
        let is_same = tensor(&first, &spec, is_statistic) == tensor(&whole, &spec, is_statistic);
        assert_eq!(is_same, spec.layer <= frozen, "{}", spec.name);
    }
    train(&place, "parts", &[&begin[..], &["2"]].concat());
    place.succeed(&["resume", "parts", "--steps", "4"]);
    let parts = load(&place, "parts/last.safetensors");
    assert_eq!(parts.state.model, whole.state.model);
    assert_eq!(parts.metadata.initial, whole.metadata.initial);
}

#[test]
fn another_network_takes_what_fits() {
    let place = with_run();
    let begin = ["--data-dir", "pictures", "--init-from", "first"];
    let more = ["--image-size", "47", "--set", "network.dropout=0.4", "--set", "network.aux=true"];
    let (other, said) = train(&place, "other", &[&begin[..], &more, &AT_ONCE].concat());
    for part in [
        "10 of 10 classes kept by name",
        "so drawn: aux1_conv.weight",
        "data.image_size 32 -> 47",
        "network.dropout 0.0 -> 0.4",
        "network.aux false -> true",
    ] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
    assert_eq!(other.metadata.preprocessing.image_size, 47);
    // Biases are subtracted by batch norm; a network without them answers as before.
    let with_bias = ["--set", "network.conv_bias=true", "--run-dir", "biased", "--steps", "2"];
    place.succeed(&[&SMOKE[..], &["--data-dir", "pictures"], &with_bias].concat());
    let begin = ["--data-dir", "pictures", "--init-from", "biased/last.safetensors"];
    let without = ["--set", "network.conv_bias=false"];
    let (_, said) = train(&place, "without", &[&begin[..], &without, &AT_ONCE].concat());
    assert!(said.contains("not taken: conv1_7x7_s2.bias"), "{said}");
    let loss = |run: &str| {
        let path = format!("{run}/last.safetensors");
        place.json(&["eval", &path, "--data-dir", "pictures", "--json"])["loss"].clone()
    };
    let (biased, without) = (loss("biased").as_f64().unwrap(), loss("without").as_f64().unwrap());
    assert!((biased - without).abs() < 1e-4 * biased, "{biased} {without}");

    let fail = |more: &[&str], parts: &[&str]| {
        let begin = ["--data-dir", "pictures", "--run-dir", "never", "--init-from"];
        place.fail(&[&SMOKE[..], &begin, more].concat(), 3, parts);
    };
    fail(
        &["first", "--set", "network.pool_proj_4c4d=128"],
        &[
            "first/best.safetensors has another network",
            "inception_4c_pool_proj.weight",
            "[network]",
        ],
    );
    fail(
        &["first", "--set", "network.batch_norm=false", "--set", "network.conv_bias=true"],
        &["conv1_7x7_s2.bias is missing there"],
    );
    fail(&["nowhere.safetensors"], &["cannot read the checkpoint nowhere.safetensors"]);
}

#[test]
fn the_recipe_follows_from_the_checkpoint() {
    let place = with_run();
    let begin = ["--init-from", "first", "--data-dir", "others"];
    let shown = place.succeed(&[&["config", "show"][..], &begin].concat());
    for part in [
        "# recipe: finetune",
        "image_size = 32",
        "# the first checkpoint",
        "# preset finetune",
        "# flag --init-from",
    ] {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    let output = place.run(&[&["train", "--dry-run", "--batch-size", "8"][..], &begin].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("so this is finetune at 32 px"), "{said}");
    assert!(!Path::new(&place.path("checkpoints")).exists());
    for (freeze, part) in [
        ("stem..inception_9z", "no part `inception_9z`"),
        ("inception_3a..inception_4a", "begin with `stem`"),
    ] {
        place.fail(&[&["train"][..], &begin, &["--freeze", freeze]].concat(), 2, &[part]);
    }
    let watch = ["--freeze", "stem", "--set", "log.watch=[\"conv1_7x7_s2\"]", "--batch-size", "8"];
    place.fail(&[&["train"][..], &begin, &watch].concat(), 2, &["nothing to watch"]);
}

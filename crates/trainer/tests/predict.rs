//! `predict`: what is taken as an image, in which order answers come, and what ends it. And batches
//! of one image, which evaluation permits.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use bninception::evaluation::last_layer::LastLayer;
use bninception::evaluation::statistics;
use bninception::run::checkpoint;
use bninception_data::RgbImage;
use bninception_engine::metrics::softmax;
use common::Place;
use serde_json::Value;

const LAST: &str = "run/last.safetensors";

/// A run of two steps in `run`, with more settings.
fn with_run(more: &[&str]) -> Place {
    let place = Place::with_pictures();
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];
    place.succeed(&[&train, ["--steps", "2"].as_slice(), more].concat());
    place
}

/// Pictures of the validation set, relative to the place.
fn pictures(place: &Place) -> Vec<String> {
    let val = place.path("pictures/val");
    let mut pictures: Vec<PathBuf> = common::listing(&val);
    pictures.retain(|path| path.is_file());
    let name = |path: &PathBuf| path.strip_prefix(place.path("")).unwrap().display().to_string();
    pictures.iter().map(name).collect()
}

fn paths(answers: &Value) -> Vec<&str> {
    answers.as_array().unwrap().iter().map(|answer| answer["path"].as_str().unwrap()).collect()
}

fn probabilities(answer: &Value) -> Vec<f64> {
    let predictions = answer["predictions"].as_array().unwrap();
    predictions.iter().map(|one| one["probability"].as_f64().unwrap()).collect()
}

#[test]
fn answers_come_in_the_order_of_the_arguments_whatever_the_batches() {
    let place = with_run(&[]);
    let mut pictures = pictures(&place);
    pictures.reverse();
    fs::write(place.path("broken.png"), "not a picture").unwrap();
    pictures.insert(5, "broken.png".to_owned());
    pictures.insert(6, "missing.png".to_owned());
    // The last batch holds nothing that can be read.
    pictures.extend(["missing.png".to_owned(), "broken.png".to_owned()]);
    assert_eq!(pictures.len(), 24);
    let names: Vec<&str> = pictures.iter().map(String::as_str).collect();
    let call = |more: &[&str]| {
        let output = place.run(&[&["predict", LAST], names.as_slice(), more].concat());
        assert_eq!(output.status.code(), Some(3));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("4 of 24 images could not be read"), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = call(&["--topk", "1"]);
    let places: Vec<usize> = names.iter().take(22).map(|name| text.find(name).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains('%')).count(), 20);

    let all = call(&["--json"]);
    assert_eq!(all.lines().count(), 1, "one array on one line");
    let answers: Value = serde_json::from_str(&all).unwrap();
    assert_eq!(paths(&answers), names);
    for index in [5, 6, 22, 23] {
        assert!(answers[index]["error"].is_string(), "{}", answers[index]);
        assert_eq!(answers[index]["predictions"], Value::Array(vec![]));
    }
    assert_eq!(call(&["--json", "-j", "1"]), all);
    for size in ["1", "2", "64"] {
        let others: Value = serde_json::from_str(&call(&["--json", "-b", size])).unwrap();
        assert_eq!(paths(&others), names, "-b {size}");
        for (answer, other) in answers.as_array().unwrap().iter().zip(others.as_array().unwrap()) {
            assert_eq!(answer["error"], other["error"]);
            let (one, two) = (probabilities(answer), probabilities(other));
            assert_eq!(one.len(), two.len());
            // Batches of another size may round otherwise.
            assert!(one.iter().zip(&two).all(|(a, b)| (a - b).abs() < 1e-4), "{answer} {other}");
        }
    }
}

/// Runs the binary with `input` on standard input, and gives the code and the output.
fn with_input(place: &Place, arguments: &[&str], input: &[u8]) -> (Option<i32>, String) {
    use std::io::Write;
    use std::process::Stdio;

    let mut command = place.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn standard_input_is_a_list_or_an_image() {
    let place = with_run(&[]);
    let pictures = &pictures(&place)[..3];
    let expected = place.json(
        &[&["predict", LAST, "--json"], &*pictures.iter().map(String::as_str).collect::<Vec<_>>()]
            .concat(),
    );
    let call = |more: &[&str], input: &[u8]| -> Value {
        let arguments = [&["predict", LAST, "--json", "-"], more].concat();
        let (code, text) = with_input(&place, &arguments, input);
        assert_eq!(code, Some(0), "{text}");
        serde_json::from_str(&text).unwrap()
    };
    for separator in ["\n", "\0", "\r\n"] {
        assert_eq!(call(&[], pictures.join(separator).as_bytes()), expected);
    }
    // An image between others, in its place.
    let bytes = fs::read(place.path(&pictures[0])).unwrap();
    let mixed = call(&[&pictures[1]], &bytes);
    assert_eq!(paths(&mixed), ["-", pictures[1].as_str()]);
    for (found, expected) in [(&mixed[0], &expected[0]), (&mixed[1], &expected[1])] {
        let (found, expected) = (probabilities(found), probabilities(expected));
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
    }
    // What is damaged is an error in its place.
    let (code, text) = with_input(&place, &["predict", LAST, "--json", "-"], &bytes[..40]);
    let answers: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, paths(&answers)), (Some(3), vec!["-"]));
    assert!(answers[0]["error"].as_str().unwrap().starts_with("-: "), "{text}");
    let (code, text) = with_input(&place, &["predict", LAST, "-"], b"");
    assert_eq!((code, text.as_str()), (Some(3), ""));
    place.fail(&["predict", LAST, "-", "-"], 2, &["twice"]);
}

#[test]
fn answers_have_the_form_that_is_asked_for() {
    let place = with_run(&[]);
    fs::write(place.path("broken, \"png\".png"), "not a picture").unwrap();
    let names = [pictures(&place)[0].clone(), "broken, \"png\".png".to_owned()];
    let call_for = |topk: &str, more: &[&str]| {
        let images = ["predict", LAST, &names[0], &names[1], "--topk", topk];
        let output = place.run(&[images.as_slice(), more].concat());
        assert_eq!(output.status.code(), Some(3));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let call = |more: &[&str]| call_for("2", more);
    let (array, log) = call(&["--json"]);
    let array: Value = serde_json::from_str(&array).unwrap();
    assert!(log.contains("2 images in ") && log.contains(" img/s"), "{log}");

    let (lines, _) = call(&["--jsonl"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::Array(lines), array);

    let best = &array[0]["predictions"][0];
    let class = best["class"].as_str().unwrap();
    let (table, _) = call(&["--csv"]);
    let table: Vec<&str> = table.lines().collect();
    assert_eq!((table[0], table.len()), ("path,class,probability,error", 4));
    assert_eq!(table[1], format!("{},{class},{},", names[0], best["probability"]));
    assert!(table[3].starts_with("\"broken, \"\"png\"\".png\",,,"), "{}", table[3]);
    assert!(table[3].contains("not a picture"), "{}", table[3]);

    // Nothing is as sure as 1, anything as sure as 0.
    for (threshold, answer) in [("1", Value::Null), ("0", class.into())] {
        let (found, log) = call(&["--json", "--threshold", threshold]);
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!((&found[0]["answer"], &found[1]["answer"]), (&answer, &Value::Null));
        assert_eq!(found[0]["predictions"], array[0]["predictions"]);
        let n_unsure = usize::from(answer.is_null());
        assert!(log.contains(&format!("{n_unsure} of them unsure")), "{log}");
        let (table, _) = call(&["--csv", "--threshold", threshold]);
        let row = table.lines().nth(1).unwrap().to_owned();
        assert!(row.ends_with(&format!(",{},", answer.as_str().unwrap_or(""))), "{row}");
        let (text, _) = call(&["--threshold", threshold]);
        assert_eq!(text.lines().next().unwrap().ends_with(": unsure"), answer.is_null(), "{text}");
        let (line, _) = call_for("1", &["--threshold", threshold]);
        let fields: Vec<&str> = line.lines().next().unwrap().split('\t').collect();
        assert_eq!(fields[..2], [names[0].as_str(), answer.as_str().unwrap_or("unsure")]);
        assert!(fields[2].ends_with(" %"), "{line}");
    }
    for (arguments, parts) in [
        (["--threshold", "1.5"], ["--threshold 1.5", "from 0 to 1"]),
        (["--threshold", "-1"], ["--threshold -1", "from 0 to 1"]),
        (["--threshold", "nan"], ["--threshold NaN", "from 0 to 1"]),
        (["--jsonl", "--csv"], ["--jsonl", "--csv"]),
        (["--csv", "--json"], ["--json", "--csv"]),
    ] {
        place.fail(&[&["predict", LAST, "a.png"], arguments.as_slice()].concat(), 2, &parts);
    }
}

#[test]
fn patterns_are_replaced_where_the_shell_has_not() {
    let place = with_run(&[]);
    let classes = fs::read_to_string(place.path("run/classes.txt")).unwrap();
    let first = classes.lines().next().unwrap();
    let answers = place.json(&["predict", LAST, "--json", &format!("pictures/val/{first}/*.png")]);
    let expected = ["0000", "0001"].map(|name| format!("pictures/val/{first}/{name}.png"));
    assert_eq!(paths(&answers), expected);
    let answers = place.json(&["predict", LAST, "--json", "pictures/**/0001.png"]);
    assert_eq!(answers.as_array().unwrap().len(), 20);
    place.fail(&["predict", LAST, "pictures/*.jpg"], 3, &["no file or folder matches"]);
    fs::copy(place.path(&expected[0]), place.path("[01].png")).unwrap();
    let answers = place.json(&["predict", LAST, "--json", "[01].png"]);
    assert_eq!(paths(&answers), ["[01].png"]);
}

#[test]
fn images_are_found_as_training_finds_them() {
    let place = with_run(&["--set", "data.max_pixels=2000"]);
    fs::create_dir_all(place.path("album/deep/deeper")).unwrap();
    let picture = pictures(&place)[0].clone();
    for name in ["b.png", "deep/a.PNG", "deep/deeper/c.png"] {
        fs::copy(place.path(&picture), place.path("album").join(name)).unwrap();
    }
    for name in ["._b.png", ".hidden.png", "deep/notes.txt"] {
        fs::write(place.path("album").join(name), "not a picture").unwrap();
    }
    let answers = place.json(&["predict", LAST, "album", "--json"]);
    assert_eq!(paths(&answers), ["album/b.png", "album/deep/a.PNG", "album/deep/deeper/c.png"]);

    fs::create_dir(place.path("empty")).unwrap();
    place.fail(&["predict", LAST, "empty"], 3, &["empty", "no image"]);

    // A packed folder gives the answers of its source.
    place.succeed(&["data", "pack", "pictures", "packed", "--short-side", "32"]);
    let packed = place.json(&["predict", LAST, "packed/val", "--json"]);
    let plain = place.json(&["predict", LAST, "pictures/val", "--json"]);
    assert_eq!(packed.as_array().unwrap().len(), 20);
    for (packed, plain) in packed.as_array().unwrap().iter().zip(plain.as_array().unwrap()) {
        assert_eq!(packed["predictions"], plain["predictions"]);
    }

    // The limits of the run hold: 45 x 45 pixels are more than 2000.
    RgbImage::new(45, 45).save(place.path("large.png")).unwrap();
    let output = place.run(&["predict", LAST, "large.png"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("large.png") && text.contains("2000"), "{text}");
}

#[test]
fn the_folder_of_a_run_is_its_best_checkpoint() {
    let place = with_run(&[]);
    let picture = &pictures(&place)[0];
    let call = |checkpoint: &str| {
        let output = place.run(&["predict", checkpoint, picture]);
        assert!(output.status.success(), "{output:?}");
        (output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    let (answer, log) = call("run");
    assert!(log.contains("run/best.safetensors"), "{log}");
    assert_eq!(answer, call("run/best.safetensors").0);
    fs::remove_file(place.path("run/best.safetensors")).unwrap();
    let (_, log) = call("run");
    assert!(log.contains(LAST), "{log}");
    place.fail(&["predict", "pictures", picture], 3, &["name a checkpoint or the folder of a run"]);
}

#[test]
fn arguments_in_the_wrong_place_get_the_right_command() {
    let place = Place::new();
    for (arguments, parts) in [
        (vec!["a.jpg", "c.safetensors"], ["checkpoint comes first", "predict c.safetensors a.jpg"]),
        (vec!["pics", "c.safetensors"], ["checkpoint comes first", "predict c.safetensors pics"]),
        (vec!["a.jpg", "run"], ["a.jpg is an image", "predict CHECKPOINT a.jpg"]),
        (vec!["a.jpg"], ["a.jpg is an image", "predict CHECKPOINT a.jpg"]),
        (vec!["c.safetensors"], ["no image", "standard input"]),
        (vec!["a.safetensors", "b.safetensors", "c.jpg"], ["takes one", "b.safetensors"]),
    ] {
        place.fail(&[&["predict"], arguments.as_slice()].concat(), 2, &parts);
    }
    place.fail(&["predict"], 2, &["<CHECKPOINT> <IMAGE>..."]);
}

#[test]
fn one_image_is_a_batch_wherever_nothing_is_trained() {
    let place = with_run(&[]);
    let whole = place.json(&["eval", LAST, "--json"]);
    let single = place.json(&["eval", LAST, "--json", "-b", "1"]);
    for key in ["images", "top1", "top5"] {
        assert_eq!(single[key], whole[key]);
    }
    let bench = ["bench", "model", "--mode", "eval", "--preset", "smoke", "--json"];
    let one = ["-b", "1", "--repeats", "1", "--warmup", "0"];
    assert_eq!(place.json(&[bench.as_slice(), &one].concat())["batch_size"], 1);

    let range = "expected 1 to 65536";
    for size in ["0", "-1", "65537", "9223372036854775807"] {
        let flag = format!("--batch-size={size}");
        let named = format!("--batch-size {size}: {range}");
        place.fail(&["eval", LAST, &flag], 2, &[&named]);
        place.fail(&["predict", LAST, "a.png", &flag], 2, &[&named]);
    }
    // These statistics are variances over a batch.
    for size in ["0", "1", "65537"] {
        let parts = ["--batch-size", "2 to 65536: batch norm needs two images"];
        place.fail(&["calibrate", LAST, "-b", size], 2, &parts);
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_with_what_was_answered() {
    use std::io::Read;
    use std::process::Stdio;

    use rustix::process::{Pid, Signal, kill_process};

    const IMAGES: usize = 20_000;
    let place = with_run(&[]);
    let picture = pictures(&place)[0].clone();
    let images = vec![picture.as_str(); IMAGES];
    for as_json in [true, false] {
        let format: &[&str] = if as_json { &["--json"] } else { &[] };
        let mut command = place.command(&[&["predict", LAST, "-b", "4"], format].concat());
        command.args(&images).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The first answer is there long before the last, and its reader goes on.
        let mut stdout = child.stdout.take().unwrap();
        let mut answers = vec![0; 1];
        stdout.read_exact(&mut answers).unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        stdout.read_to_end(&mut answers).unwrap();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(143), "{errors}");
        assert!(errors.contains("stopped by SIGTERM"), "{errors}");
        let n = match as_json {
            true => serde_json::from_slice::<Vec<Value>>(&answers).unwrap().len(),
            false => String::from_utf8(answers).unwrap().matches(&picture).count(),
        };
        assert!(n > 0 && n % 4 == 0 && n < IMAGES, "{n} answers");
    }
}

/// The rows of a file of NumPy, format 1.0, of little-endian f32 in C order.
fn read_npy(path: &Path) -> Vec<Vec<f32>> {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, values) = bytes[10..].split_at(length);
    assert_eq!((header.last(), (10 + length) % 64), (Some(&b'\n'), 0));
    let header = std::str::from_utf8(header).unwrap().trim();
    let shape = header.strip_prefix("{'descr': '<f4', 'fortran_order': False, 'shape': (").unwrap();
    let (rows, columns) = shape.strip_suffix("), }").unwrap().split_once(", ").unwrap();
    let (rows, columns): (usize, usize) = (rows.parse().unwrap(), columns.parse().unwrap());
    assert_eq!(values.len(), rows * columns * 4);
    let values: Vec<f32> =
        values.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    values.chunks_exact(columns).map(<[f32]>::to_vec).collect()
}

#[test]
fn features_are_what_the_last_layer_reads() {
    let place = with_run(&[]);
    let pictures = &pictures(&place)[..2];
    fs::write(place.path("broken.png"), "not a picture").unwrap();
    let predict = ["predict", LAST, &pictures[0], "broken.png", &pictures[1], "--json"];
    let features = ["--features", "out/x.npy"];
    let output = place.run(&[&predict[..], &features].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("out/x.npy: 2 rows of 1024 features"), "{said}");
    assert_eq!(output.stdout, place.run(&predict).stdout, "the answers are the same");

    let rows = read_npy(&place.path("out/x.npy"));
    let lines = fs::read_to_string(place.path("out/x.paths.jsonl")).unwrap();
    let paths: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        paths.iter().map(|one| &one["path"]).collect::<Vec<_>>(),
        pictures.iter().collect::<Vec<_>>()
    );
    assert_eq!(rows.len(), 2);

    // By the definition of the last layer they give the probabilities that were printed.
    let checkpoint = checkpoint::load(&place.path(LAST)).unwrap();
    let (weights, _) = statistics::weights(&checkpoint, None).unwrap();
    let LastLayer { channels, matrix, bias } = LastLayer::of(&checkpoint.network);
    let (matrix, bias) = (&weights.trainable[matrix], &weights.trainable[bias]);
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (row, answer) in rows.iter().zip([&answers[0], &answers[2]]) {
        let logits: Vec<f32> = matrix
            .chunks_exact(channels)
            .zip(bias)
            .map(|(weights, bias)| bias + weights.iter().zip(row).map(|(w, x)| w * x).sum::<f32>())
            .collect();
        let mut expected = softmax(&logits);
        expected.sort_by(|a, b| b.total_cmp(a));
        for (found, expected) in probabilities(answer).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
    assert_ne!(rows[0], rows[1]);

    // Nothing is replaced unless it is asked for, and nothing is written among images.
    place.fail(&[&predict[..], &features].concat(), 2, &["out/x.npy is there", "--overwrite"]);
    place.fail(&["predict", LAST, "broken.png", "--features", "x"], 2, &["ends with .npy"]);
    let inside = ["predict", LAST, "pictures", "--features", "pictures/x.npy"];
    place.fail(&inside, 2, &["--features"]);
    let only_broken = ["predict", LAST, "broken.png", "--overwrite"];
    assert_eq!(place.run(&[&only_broken[..], &features].concat()).status.code(), Some(3));
    assert!(read_npy(&place.path("out/x.npy")).is_empty());
    assert_eq!(fs::read(place.path("out/x.paths.jsonl")).unwrap(), b"");
}

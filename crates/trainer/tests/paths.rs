//! Paths that are no UTF-8 text: commands work with them, or say what is wrong and where.
//! On Linux only: other systems refuse such names.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Output;

use common::Place;
use serde_json::{Value, json};

/// `café` in Latin-1, with something behind it.
fn latin1(more: &str) -> Vec<u8> {
    [b"caf\xe9", more.as_bytes()].concat()
}

fn run(place: &Place, arguments: &[&[u8]]) -> Output {
    let mut command = place.command(&[]);
    command.args(arguments.iter().map(|argument| OsStr::from_bytes(argument)));
    command.env("BNINCEPTION_CACHE", OsStr::from_bytes(&latin1("-cache")));
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
    output
}

fn answer(place: &Place, arguments: &[&[u8]], code: i32) -> Value {
    let output = run(place, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_at(object: &Value, key: &str, path: &[u8]) {
    assert_eq!(object[key], String::from_utf8_lossy(path).as_ref(), "{object}");
    assert_eq!(object[format!("{key}_bytes")], json!(path), "{object}");
}

fn write(place: &Place, dir: &str, name: &[u8], content: &[u8]) {
    fs::write(place.path(dir).join(OsStr::from_bytes(name)), content).unwrap();
}

#[test]
fn every_command_names_them_in_json() {
    let place = Place::with_pictures();
    let class = fs::read_dir(place.path("pictures/train")).unwrap().next().unwrap().unwrap();
    let class = class.file_name().into_string().unwrap();
    let val = format!("pictures/val/{class}");
    let picture = fs::read(place.path(&val).join("0000.png")).unwrap();
    write(&place, &format!("pictures/train/{class}"), &latin1(".png"), &picture);

    let run_dir = latin1("-run");
    let train: &[&[u8]] = &[b"train", b"--preset", b"smoke", b"--data-dir", b"pictures"];
    let train = [train, &[b"--steps", b"2", b"--run-dir", &run_dir, b"--json"]].concat();
    let result = answer(&place, &train, 0);
    is_at(&result, "run_dir", &run_dir);
    let result = answer(&place, &[b"resume", &run_dir, b"--json"], 0);
    is_at(&result, "run_dir", &run_dir);

    write(&place, &val, &latin1(".png"), &picture);
    write(&place, &val, &latin1("-broken.png"), b"no picture");
    let checkpoint = [&run_dir, b"/last.safetensors".as_slice()].concat();
    let inside = |name: &str| [val.as_bytes(), b"/", &latin1(name)].concat();
    let (good, broken) = (inside(".png"), inside("-broken.png"));
    let outcomes = answer(&place, &[b"predict", &checkpoint, &good, &broken, b"--json"], 3);
    is_at(&outcomes[0], "path", &good);
    is_at(&outcomes[1], "path", &broken);
    let result = answer(&place, &[b"eval", &checkpoint, b"--data-dir", b"pictures", b"--json"], 0);
    is_at(&result["failed"][0], "path", &broken);
    is_at(&result["models"][0], "path", &checkpoint);
    let result = answer(&place, &[b"calibrate", &checkpoint, b"--json"], 0);
    let calibrated = [&run_dir, b"/last-calibrated.safetensors".as_slice()].concat();
    is_at(&result, "checkpoint", &calibrated);
    assert!(Path::new(&place.path("").join(OsStr::from_bytes(&calibrated))).is_file());

    let report = answer(&place, &[b"data", b"check", b"pictures", b"--json"], 3);
    is_at(&report["unreadable"][0], "path", &broken);
    let same = report["duplicates"].as_array().unwrap();
    let good = json!(good);
    let is_listed = |one: &Value| one["paths_bytes"].as_array().is_some_and(|a| a.contains(&good));
    assert!(same.iter().any(is_listed), "{report}");

    let index = answer(&place, &[b"data", b"index", b"pictures", b"--json"], 0);
    assert!(index["cache_bytes"].is_array(), "{index}");
    // Two runs are compared, or one with itself.
    let result = answer(&place, &[b"compare", &run_dir, b"--json"], 0);
    is_at(&result["runs"][0], "run", &run_dir);
    let result = answer(&place, &[b"report", &run_dir, b"--json"], 0);
    is_at(&result["reports"][0], "run", &run_dir);
    is_at(&result["reports"][0], "report", &[&run_dir, b"/report.html".as_slice()].concat());
}

#[test]
fn where_only_text_is_possible_the_error_says_so() {
    let place = Place::with_pictures();
    let odd = latin1("");
    fs::rename(place.path("pictures"), place.path("").join(OsStr::from_bytes(&odd))).unwrap();
    let set = [b"data.dir=".as_slice(), &odd].concat();
    for flag in ["--data-dir", "--val-dir", "--set", "--preset", "--engine", "--dtype"] {
        let value = if flag == "--set" { &set } else { &odd };
        let output = run(&place, &[b"train", flag.as_bytes(), value, b"--dry-run"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flag}: {errors}");
        assert!(errors.contains(flag) && errors.contains("UTF-8"), "{flag}: {errors}");
    }
    // Settings in a file may have any name; a class may not.
    write(&place, "", &latin1(".toml"), b"extends = \"smoke\"\n");
    let output = run(&place, &[b"config", b"show", b"-c", &latin1(".toml")]);
    assert!(output.status.success());
    let classes = [&odd, b"/train".as_slice()].concat();
    let classes = place.path("").join(OsStr::from_bytes(&classes));
    fs::create_dir(classes.join(OsStr::from_bytes(&latin1("-class")))).unwrap();
    let output = run(&place, &[b"data", b"index", &odd]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("rename the folder"), "{errors}");
}

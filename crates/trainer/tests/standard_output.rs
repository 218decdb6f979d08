//! Standard output that nobody reads, or that is full.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs::OpenOptions;
use std::io::pipe;
use std::process::Stdio;

use common::Place;

/// Commands that print, each its own way, and need no files.
const COMMANDS: [&[&str]; 8] = [
    &["presets", "list"],
    &["presets", "show", "bn-x5"],
    &["config", "show"],
    &["info"],
    &["info", "--json"],
    &["completions", "bash"],
    &["--help"],
    &["--version"],
];

/// As in `bninception ... | head -0`. The code is that of a process that SIGPIPE ended.
#[test]
fn a_reader_that_leaves_is_no_failure() {
    let place = Place::new();
    for arguments in COMMANDS {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let output = place.command(arguments).stdout(writer).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {errors}");
        assert_eq!(errors, "", "{arguments:?}");
    }
}

#[test]
fn talk_that_nobody_reads_stops_nothing() {
    let place = Place::new();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let demo = ["data", "demo", "pictures", "--train-per-class", "1", "--val-per-class", "1"];
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--batch-size", "2"];
    for arguments in [demo.as_slice(), &[train.as_slice(), &["--steps", "1"]].concat()] {
        let stderr = writer.try_clone().unwrap();
        let output = place.command(arguments).stderr(stderr).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {:?}", output.status);
        assert!(!output.stdout.is_empty());
    }
    let stderr = writer.try_clone().unwrap();
    let status = place.command(&["info"]).stdout(writer).stderr(stderr).status().unwrap();
    assert_eq!(status.code(), Some(141));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error() {
    let place = Place::new();
    for arguments in COMMANDS {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = place.command(arguments).stdout(Stdio::from(full)).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {errors}");
        assert!(errors.contains("standard output"), "{arguments:?}: {errors}");
    }
}

#[test]
fn text_ends_with_one_newline() {
    let place = Place::new();
    for arguments in &COMMANDS[..6] {
        let text = place.succeed(arguments);
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{arguments:?}");
    }
}

//! What stays of what a run said and counted: `train.log` and the event files.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::common::{Place, listing};

const TRAIN: [&str; 11] = [
    "train",
    "--preset",
    "smoke",
    "--data-dir",
    "pictures",
    "--run-dir",
    "run",
    "--steps",
    "6",
    "--set",
    "schedule.kind=constant",
];

#[test]
fn a_quiet_run_keeps_its_log() {
    let place = Place::with_pictures();
    let log = |arguments: &[&str], variable: Option<&str>| {
        let mut command = place.command(arguments);
        if let Some(variable) = variable {
            command.env("BNINCEPTION_LOG", variable);
        }
        let output = command.output().unwrap();
        let talk = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{talk}");
        (talk, fs::read_to_string(place.path("run/train.log")).unwrap())
    };
    let quiet = [&["-q"], &TRAIN[..]].concat();
    let (said, kept) = log(&quiet, None);
    assert_eq!(said, "");
    let first = kept.lines().next().unwrap();
    let version = concat!("INFO bninception ", env!("CARGO_PKG_VERSION"), ": ");
    assert!(first.contains(version) && first.contains("-q train --preset smoke"), "{first}");
    for part in ["run folder run", "6 steps of 8 images", "epoch 2/2: train loss"] {
        assert!(kept.contains(part), "no `{part}` in {kept}");
    }
    assert!(!kept.contains("DEBUG") && !kept.contains('\u{1b}'), "{kept}");

    // More for the file by the variable, and still nothing on the terminal.
    let (said, kept) = log(&[&quiet[..], &["--overwrite"]].concat(), Some("debug"));
    assert_eq!(said, "");
    assert!(kept.contains("DEBUG looking at headers"), "{kept}");

    // A warning from before the folder was known is in both.
    let threads = (std::thread::available_parallelism().unwrap().get() + 1).to_string();
    let many = [&TRAIN[..], &["--overwrite", "--threads", &threads]].concat();
    let (said, kept) = log(&many, None);
    let warning = format!("train.threads = {threads}, but this process may use ");
    assert_eq!(said.matches(&format!("warning: {warning}")).count(), 1, "{said}");
    assert_eq!(kept.matches(&format!("WARN {warning}")).count(), 1, "{kept}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let place = Place::with_pictures();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = place.command(&TRAIN).stdout(Stdio::null()).stderr(full).status().unwrap();
    assert!(status.success());
}

#[test]
fn event_files_hold_something_each_and_follow_each_other() {
    let place = Place::with_pictures();
    // The file of the settings comes first of all.
    let hparams = place.path("run/tensorboard/events.out.tfevents.0000000000.bninception.hparams");
    let events = || {
        let mut files = listing(&place.path("run/tensorboard"));
        assert_eq!(files.remove(0), hparams);
        files
    };
    let count = |file: &Path, part: &str| {
        String::from_utf8_lossy(&fs::read(file).unwrap()).matches(part).count()
    };
    place.succeed(&TRAIN);
    let first = events();
    assert_eq!(first.len(), 1);
    // A run at its end has nothing to tell.
    let settings = fs::read(&hparams).unwrap();
    place.succeed(&["resume", "run"]);
    assert_eq!(events(), first);
    assert_eq!(fs::read(&hparams).unwrap(), settings);
    // One that goes on, by a clock that was put back: its first file gets a name of the year 2255.
    let later = place.path("run/tensorboard/events.out.tfevents.9000000000.bninception.0");
    fs::rename(&first[0], &later).unwrap();
    place.succeed(&["resume", "run", "--steps", "8", "--set", "log.every_steps=1"]);
    let both = events();
    assert_eq!(both.len(), 2);
    assert_eq!(both[0], later);
    let second = fs::read(&both[1]).unwrap();
    // The first images are shown once, the confusion matrix by each evaluation; a run has one session and one end.
    assert_eq!([&both[0], &both[1]].map(|file| count(file, "first training images")), [1, 0]);
    assert_eq!([&both[0], &both[1]].map(|file| count(file, "val/confusion")), [4, 2]);
    for record in ["experiment", "session_start_info", "session_end_info"] {
        assert_eq!(count(&hparams, &format!("_hparams_/{record}")), 1, "{record}");
    }
    // Version, and the step from which earlier files are dropped: 7, in the second record.
    let text = String::from_utf8_lossy(&second);
    assert!(text.contains("brain.Event:2") && text.contains("train/loss"));
    let version = u64::from_le_bytes(second[..8].try_into().unwrap()) as usize + 16;
    let start = &second[version + 12..];
    assert_eq!(&start[9..13], [0x10, 7, 0x3a, 2], "step 7, and the message that a session starts");
}

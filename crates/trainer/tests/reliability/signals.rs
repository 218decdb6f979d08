//! SIGINT, SIGTERM and SIGHUP in every phase of a run, and the time budget.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bninception::run::checkpoint;
use rustix::process::{Pid, Signal, kill_process};

use super::common::Place;
use super::job::RunResult;

/// The promise is five seconds, or a step. Tests share their cores with each other.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn send(child: &Child, signal: Signal) {
    // A process that has ended already is no failure of the test.
    let _ = kill_process(Pid::from_child(child), signal);
}

/// A run that writes at every step, and says what it does.
fn start(place: &Place, arguments: &[&str]) -> Child {
    let mut command = place.command(arguments);
    command.env("BNINCEPTION_LOG", "debug").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Reads what `child` says until a line has `part`; gives what was said.
fn wait_for(child: &mut Child, part: &str) -> (String, BufReader<std::process::ChildStderr>) {
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    loop {
        let before = said.len();
        let n = reader.read_line(&mut said).unwrap();
        assert!(n > 0, "it ended before `{part}`:\n{said}");
        if said[before..].contains(part) {
            return (said, reader);
        }
    }
}

/// Sends `signal` once the run has said `part`; gives exit code and what was said.
fn interrupt(place: &Place, arguments: &[&str], part: &str, signal: Signal) -> (i32, String) {
    let mut child = start(place, arguments);
    let (mut said, mut reader) = wait_for(&mut child, part);
    send(&child, signal);
    let sent = Instant::now();
    std::io::Read::read_to_string(&mut reader, &mut said).unwrap();
    let status = child.wait().unwrap();
    let seconds = sent.elapsed().as_secs_f64();
    println!("{part:?}: ended {seconds:.2} s after {signal:?}, with {:?}", status.code());
    assert!(sent.elapsed() < LIMIT, "{seconds} s after {signal:?}:\n{said}");
    (status.code().unwrap_or(-1), said)
}

/// What `attempt` gives once its signal was in time, or the third time. Beside other tests this one may be
/// kept from its core for longer than what is interrupted takes; a run that ignores signals is late each time.
fn in_time<T>(attempt: impl Fn() -> T, was_late: impl Fn(&T) -> bool) -> T {
    let again = (0..2).map(|_| attempt()).find(|found| !was_late(found));
    again.unwrap_or_else(attempt)
}

const TRAIN: [&str; 9] = [
    "train",
    "--preset",
    "smoke",
    "--data-dir",
    "pictures",
    "--run-dir",
    "run",
    "--set",
    "schedule.kind=constant",
];

#[test]
fn every_phase_saves_and_leaves() {
    let whole = Place::with_pictures();
    let steps = ["--steps", "12"];
    whole.succeed(&[&TRAIN[..], &steps].concat());
    let whole = RunResult::of(&whole.path("run"));

    let saving = ["--set", "checkpoint.every_steps=1"];
    // (what the run says before the signal comes, settings, signal, code)
    for (part, more, signal, code) in [
        // Setting up and the first step follow.
        ("12 steps of 8 images", &[][..], Signal::INT, 130),
        ("12 steps of 8 images", &[], Signal::TERM, 143),
        // Between two steps.
        ("step 4:", &[], Signal::INT, 130),
        ("step 4:", &[], Signal::HUP, 129),
        ("population statistics over 5 batches: begun", &[], Signal::TERM, 143),
        ("evaluating 20 images", &[], Signal::TERM, 143),
        ("saving the state of step 3", &saving, Signal::TERM, 143),
        ("saving the state of step 5", &saving, Signal::INT, 130),
    ] {
        let attempt = || {
            let place = Place::with_pictures();
            let arguments = [&TRAIN[..], &steps, more].concat();
            let (found, said) = interrupt(&place, &arguments, part, signal);
            (place, found, said)
        };
        // It ended before the signal came.
        let (place, found, said) = in_time(attempt, |(_, found, _)| *found == 0);
        let name = match signal {
            Signal::INT => "SIGINT",
            Signal::TERM => "SIGTERM",
            _ => "SIGHUP",
        };
        assert_eq!(found, code, "{part}: {said}");
        assert!(said.contains(&format!("stopped by {name}")), "{said}");
        assert!(said.contains("bninception resume run"), "{said}");
        checkpoint::load(&place.path("run/last.safetensors")).unwrap();
        place.succeed(&["resume", "run", "--workers", "0"]);
        RunResult::of(&place.path("run")).assert_equals(&whole, part);
    }
}

#[test]
fn while_images_are_looked_for() {
    let place = Place::with_pictures();
    multiply(&place.path("pictures/train"), 4000);
    // The names of folders come first, then the headers of 40,000 images.
    for (part, signal, code) in
        [("looking for images", Signal::INT, 130), ("looking at headers", Signal::TERM, 143)]
    {
        let attempt = || {
            let _ = fs::remove_dir_all(place.path("run"));
            interrupt(&place, &TRAIN, part, signal)
        };
        let (found, said) = in_time(attempt, |_| place.path("run").exists());
        assert_eq!(found, code, "{said}");
        assert!(!place.path("run").exists(), "nothing had been begun: {said}");
    }
}

#[test]
fn a_hangup_that_was_ignored_stays_ignored() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let place = Place::with_pictures();
    let train = place.command(&[&TRAIN[..], &["--steps", "12"]].concat());
    // As `nohup` does.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(train.get_program());
    command.args(train.get_args()).current_dir(place.path(".")).env("BNINCEPTION_LOG", "debug");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut said, mut reader) = wait_for(&mut child, "step 4:");
    send(&child, Signal::HUP);
    std::io::Read::read_to_string(&mut reader, &mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(checkpoint::load(&place.path("run/last.safetensors")).unwrap().metadata.step, 12);
}

#[test]
fn a_second_sigint_ends_it_at_once() {
    let place = Place::with_pictures();
    multiply(&place.path("pictures/val"), 400);
    // An evaluation in one batch, to be inside it when the signals come.
    let large = ["--steps", "5", "--set", "train.val_batch_size=4000"];
    let attempt = || {
        let _ = fs::remove_dir_all(place.path("run"));
        let mut child = start(&place, &[&TRAIN[..], &large].concat());
        let (mut said, mut reader) = wait_for(&mut child, "evaluating 4000 images");
        send(&child, Signal::INT);
        thread::sleep(Duration::from_millis(50));
        send(&child, Signal::INT);
        std::io::Read::read_to_string(&mut reader, &mut said).unwrap();
        (child.wait().unwrap().code(), said)
    };
    // The evaluation was over before both had come.
    let (code, said) = in_time(attempt, |(_, said)| said.contains("stopped by"));
    assert_eq!(code, Some(130), "{said}");
    assert!(!said.contains("stopped by"), "it took its time: {said}");
    checkpoint::load(&place.path("run/last.safetensors")).unwrap();
    place.succeed(&["resume", "run", "--set", "train.val_batch_size=32"]);
}

#[test]
fn the_time_budget_ends_a_run_well() {
    let place = Place::with_pictures();
    let train = [&TRAIN[..], &["--steps", "1000000", "--max-time", "2s", "--json"]].concat();
    let result = place.json(&train);
    assert_eq!(result["finished"], false);
    let steps = result["steps"].as_u64().unwrap();
    let stored = checkpoint::load(&place.path("run/last.safetensors")).unwrap().metadata;
    assert_eq!(stored.step, steps);
    let again = place.json(&["resume", "run", "--max-time", "0s", "--json"]);
    assert_eq!((&again["steps"], &again["finished"]), (&steps.into(), &false.into()));
    let text = place.succeed(&["resume", "run", "--max-time", "0s"]);
    assert!(text.contains("the time is up") && text.contains("resume run"), "{text}");
    place.fail(&["resume", "run", "--max-time", "soon"], 2, &["--max-time", "soon"]);
}

/// Gives every image of the class folders in `dir` so many names.
fn multiply(dir: &Path, names: usize) {
    for class in fs::read_dir(dir).unwrap() {
        let class = class.unwrap().path();
        let image = fs::read_dir(&class).unwrap().next().unwrap().unwrap().path();
        let already = fs::read_dir(&class).unwrap().count();
        for name in already..names {
            fs::hard_link(&image, class.join(format!("more-{name}.png"))).unwrap();
        }
    }
}

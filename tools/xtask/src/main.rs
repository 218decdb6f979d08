//! The project's own checks. `cargo xtask check` runs them all: format, lints, tests, docs, and the
//! rules of the tree that no compiler knows. `cargo xtask experiment` trains and compares the paper's
//! networks.

mod deny;
mod experiment;
mod gpu_libraries;
mod release;
mod rules;
mod shell;
mod structure;

use std::process::ExitCode;

use rules::{check_dependency_direction, check_sources, check_structure, show_structure};
use shell::{Outcome, cargo, cargo_with, say};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("experiment") => return experiment::main(&arguments[1..]),
        Some("check") => check(),
        Some("lint") => lint(),
        Some("structure") => show_structure(),
        Some("deny") => deny::check(deny::Advisories::Tell),
        Some("release") => release::main(&arguments[1..]),
        Some("sanitize") => sanitize(),
        Some("gpu-libraries") => gpu_libraries::fetch(arguments.get(1)),
        Some("kill") => kill(std::env::args().nth(2)),
        _ => {
            Err("usage: cargo xtask check | lint | structure | deny | release | sanitize | kill [N] | gpu-libraries DIR | experiment\n\
                  check: everything; lint: everything but the tests;\n\
                  structure: files, imports and their order in each crate;\n\
                  deny: licences, sources and known faults of the dependencies (deny.toml);\n\
                  release [--dirty] [--out DIR]: the binary in an archive, with licences and checksums;\n\
                  sanitize: the tests of the crate with unsafe code under AddressSanitizer;\n\
                  kill: a run that is killed N times (200) and must end as if it were not;\n\
                  gpu-libraries: NVIDIA's libraries into a folder, for runs on a GPU and their tests;\n\
                  experiment: the paper's networks, trained and compared"
                .to_owned())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&format!("xtask: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn check() -> Outcome {
    lint()?;
    cargo(&["test", "--release", "--workspace"])
}

/// Runs the tests of `kernels` with every access to memory checked, for all instruction sets of the
/// machine. The sanitizer is an unstable flag of the compiler, hence the variable that opens those.
fn sanitize() -> Outcome {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let arguments = ["test", "--release", "--package", "bninception-kernels", "--target", TARGET];
    cargo_with(&arguments, &[("RUSTC_BOOTSTRAP", "1"), ("RUSTFLAGS", "-Zsanitizer=address")])
}

/// The long form of the test that kills a run.
fn kill(times: Option<String>) -> Outcome {
    let times = times.unwrap_or_else(|| "200".to_owned());
    let test = "kill::a_run_that_is_killed_again_and_again_ends_as_if_it_were_not";
    let arguments = ["test", "--release", "--package", "bninception", "--test", "reliability"];
    let arguments = [&arguments[..], &["--", "--exact", "--nocapture", test]].concat();
    cargo_with(&arguments, &[("BNINCEPTION_KILLS", &times)])
}

/// All that is not a test, the quick things first.
fn lint() -> Outcome {
    cargo(&["fmt", "--all", "--check"])?;
    check_dependency_direction()?;
    check_sources()?;
    check_structure()?;
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    cargo(&clippy)?;
    cargo(&["doc", "--release", "--workspace", "--no-deps"])
}

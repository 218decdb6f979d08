//! The project's own checks. `cargo xtask check` runs them all: format, lints, tests, docs, and the
//! rules of the tree that no compiler knows. `cargo xtask experiment` trains and compares the paper's
//! networks.

mod experiment;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Which of our packages may depend on which (crates/README.md, "Dependencies point one way").
const ALLOWED_EDGES: &[(&str, &[&str])] = &[
    ("bninception-kernels", &[]),
    ("bninception-model", &[]),
    ("bninception-data", &[]),
    ("bninception-engine", &["bninception-model", "bninception-kernels"]),
    ("bninception", &["bninception-data", "bninception-engine"]),
    ("xtask", &[]),
];

/// Lines of code in one file, its tests not counted.
const MAX_LINES: usize = 600;

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("experiment") => return experiment::main(&arguments[1..]),
        Some("check") => check(),
        Some("lint") => lint(),
        Some("sanitize") => sanitize(),
        Some("kill") => kill(std::env::args().nth(2)),
        _ => Err("usage: cargo xtask check | lint | sanitize | kill [N] | experiment\n\
                  check: everything; lint: everything but the tests;\n\
                  sanitize: the tests of the crate with unsafe code under AddressSanitizer;\n\
                  kill: a run that is killed N times (200) and must end as if it were not;\n\
                  experiment: the paper's networks, trained and compared"
            .to_owned()),
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
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    cargo(&clippy)?;
    cargo(&["doc", "--release", "--workspace", "--no-deps"])
}

fn cargo(arguments: &[&str]) -> Outcome {
    cargo_with(arguments, &[("RUSTDOCFLAGS", "-D warnings")])
}

fn cargo_with(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    say(&format!("cargo {}", arguments.join(" ")));
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(root()).envs(environment.iter().copied());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo {} ended with {status}", arguments[0])),
        Err(error) => Err(format!("cannot run cargo: {error}")),
    }
}

/// Reads `cargo tree` for every package and refuses an edge that is not allowed.
fn check_dependency_direction() -> Outcome {
    say("dependency direction");
    for &(package, allowed) in ALLOWED_EDGES {
        let tree = ["tree", "--package", package, "--edges", "normal,build", "--depth", "1"];
        let output = Command::new(env!("CARGO"))
            .args(tree)
            .args(["--prefix", "none", "--format", "{p}"])
            .current_dir(root())
            .output()
            .map_err(|error| format!("cannot run cargo tree: {error}"))?;
        if !output.status.success() {
            return Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        for name in names {
            let is_ours = ALLOWED_EDGES.iter().any(|&(ours, _)| ours == name);
            if is_ours && !allowed.contains(&name) {
                return Err(format!("{package} must not depend on {name} (crates/README.md)"));
            }
        }
    }
    Ok(())
}

/// Rules for the sources: no long file, and unsafe code in the kernels only.
fn check_sources() -> Outcome {
    say("sources");
    let mut problems = Vec::new();
    for path in rust_files(&root().join("crates"))? {
        let text = fs::read_to_string(&path).map_err(|error| format!("{path:?}: {error}"))?;
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let is_test = name.contains("/tests/");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let n_lines = code.lines().count();
        if n_lines > MAX_LINES && !is_test {
            problems.push(format!("{name}: {n_lines} lines, more than {MAX_LINES}: split by noun"));
        }
        if name.ends_with("src/lib.rs")
            && !name.starts_with("crates/kernels/")
            && !text.contains("#![forbid(unsafe_code)]")
        {
            problems.push(format!("{name}: lacks #![forbid(unsafe_code)]"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n       ")) }
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).map_err(|error| format!("{folder:?}: {error}"))?;
    for entry in entries {
        let path = entry.map_err(|error| format!("{folder:?}: {error}"))?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn root() -> &'static Path {
    // tools/xtask lies two folders below the root.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

#[expect(clippy::print_stderr, reason = "a tool for the terminal, with no log")]
fn say(message: &str) {
    eprintln!("{message}");
}

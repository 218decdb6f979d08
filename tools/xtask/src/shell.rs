//! Commands, and what the terminal is told.

use std::path::Path;
use std::process::Command;

/// An error says what is wrong, in words for a person.
pub(crate) type Outcome = Result<(), String>;

pub(crate) fn cargo(arguments: &[&str]) -> Outcome {
    cargo_with(arguments, &[("RUSTDOCFLAGS", "-D warnings")])
}

pub(crate) fn cargo_with(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    say(&format!("cargo {}", arguments.join(" ")));
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(root()).envs(environment.iter().copied());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo {} ended with {status}", arguments[0])),
        Err(error) => Err(format!("cannot run cargo: {error}")),
    }
}

pub(crate) fn root() -> &'static Path {
    // tools/xtask lies two folders below the root.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

#[expect(clippy::print_stderr, reason = "a tool for the terminal, with no log")]
pub(crate) fn say(message: &str) {
    eprintln!("{message}");
}

//! Commands, and what the terminal is told.

use std::path::Path;
use std::process::{Command, Stdio};

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

/// What a program writes to stdout, run at the root of the tree.
///
/// # Errors
/// No such program; its own failure, with what it said.
pub(crate) fn output_of(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// As [`output_of`], for the cargo that runs this tool.
///
/// # Errors
/// As [`output_of`].
pub(crate) fn output_of_cargo(arguments: &[&str]) -> Result<String, String> {
    output_of(env!("CARGO"), arguments)
}

/// Whether a program is there and ends well; what it says is not shown.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
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

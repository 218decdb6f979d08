//! MPI libraries, each opened by a process of its own.

use std::env;
use std::process::{Command, Stdio};

use bninception_collective::{Family, FoundLibrary};
use serde_json::{Value, json};

use crate::commands::print;
use crate::error::Error;

/// A library by a name that ranks try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Library {
    pub name: String,
    /// What it is, or why it cannot be opened.
    pub found: Result<Found, String>,
}

/// What a library says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub path: String,
    pub version: String,
    pub interface: String,
    pub family: Family,
}

/// The libraries that were tried so far.
#[derive(Debug, Default)]
pub(super) struct Libraries(pub Vec<Library>);

impl Libraries {
    /// Tries the names up to the first that can be opened, as a rank does, and gives that one.
    pub(super) fn first_of(&mut self, names: &[String]) -> Option<Found> {
        names.iter().find_map(|name| self.library(name).found.clone().ok())
    }

    /// The library of a name, tried once.
    pub(super) fn library(&mut self, name: &str) -> &Library {
        let at = self.0.iter().position(|library| library.name == name).unwrap_or_else(|| {
            self.0.push(Library { name: name.to_owned(), found: ask(name) });
            self.0.len() - 1
        });
        &self.0[at]
    }
}

/// Has another process open a library, so that neither its faults nor what it leaves behind are ours.
fn ask(name: &str) -> Result<Found, String> {
    let exe = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(exe);
    command.args(["doctor", "--open", name]).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A library may say things too.
    let answer = text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    let answer =
        answer.ok_or_else(|| format!("the process that opened it ended with {}", output.status))?;
    found_in(&answer).ok_or_else(|| {
        answer["error"].as_str().unwrap_or("the process that opened it did not say why").to_owned()
    })
}

fn found_in(answer: &Value) -> Option<Found> {
    let text = |key: &str| answer[key].as_str().map(str::to_owned);
    let family = text("family")?;
    let all = [Family::OpenMpi, Family::Pmi, Family::Unknown];
    Some(Found {
        path: text("path")?,
        version: text("version")?,
        interface: text("interface")?,
        family: all.into_iter().find(|one| one.name() == family)?,
    })
}

/// Opens a library in this process, and answers [`ask`].
pub(super) fn open(name: &str) -> Result<(), Error> {
    print::json(&match FoundLibrary::open(name) {
        Ok(found) => json!({
            "path": found.path.to_string_lossy(),
            "version": found.version,
            "interface": found.interface,
            "family": found.family().name(),
        }),
        Err(reason) => json!({ "error": reason }),
    })
}

//! What can be wrong with a config, in words that say where and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::origin::Origin;

/// Why no config came about.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No preset has that name.
    #[error(
        "there is no preset `{}`; did you mean `{nearest}`? There are: {known}",
        printable(name)
    )]
    UnknownPreset {
        /// The name asked for.
        name: String,
        /// The preset whose name is nearest.
        nearest: String,
        /// All names, joined by commas.
        known: String,
    },
    /// A config file cannot be read.
    #[error("cannot read the config file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A config file is too large to be one.
    #[error(
        "the config file {} is larger than {limit} bytes; is it really a config?",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size accepted, in bytes.
        limit: u64,
    },
    /// A text is not TOML.
    #[error("{origin}, line {line}, column {column}: not valid TOML: {message}")]
    Syntax {
        /// Where the text comes from.
        origin: Origin,
        /// Line of the mistake, from 1.
        line: usize,
        /// Column of the mistake in characters, from 1.
        column: usize,
        /// What the parser expected.
        message: String,
    },
    /// An argument of `--set` has no value.
    #[error(
        "`--set {}`: expected key=value, such as `--set optimizer.lr=0.01`",
        printable(argument)
    )]
    Set {
        /// The argument.
        argument: String,
    },
    /// A batch size that only a look at images and memory gives, where there is no such look.
    #[error(
        "`--batch-size auto`: only `train` and `lr-find` look at images and memory to choose one; give a \
         number"
    )]
    AutoBatch,
    /// `extends` cannot be followed.
    #[error("{origin}: `extends = {}`: {reason}", printable(found))]
    Extends {
        /// The file or preset in which it stands.
        origin: Origin,
        /// Its value, as TOML.
        found: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// Settings are unknown, of the wrong type, out of range or at odds; all of them at once.
    #[error("{}", problem_list(.0))]
    Problems(Vec<Problem>),
    /// A number is too large for TOML, whose integers end at 2^63 - 1.
    #[error("the config cannot be written as TOML: {0}")]
    Write(#[from] toml::ser::Error),
}

/// One thing wrong with one setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// No setting has that key.
    UnknownKey {
        /// The key, with its section.
        key: String,
        /// Where it is set.
        origin: Origin,
        /// The setting that was probably meant.
        nearest: String,
    },
    /// A value is of the wrong type, out of range, or does not fit another setting.
    Value {
        /// The key, with its section.
        key: String,
        /// The value, as TOML.
        found: String,
        /// Where it is set.
        origin: Origin,
        /// What is accepted, and why.
        expected: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::UnknownKey { key, origin, nearest } => {
                let key = printable(key);
                write!(f, "`{key}` ({origin}) is not a setting; did you mean `{nearest}`?")
            }
            Problem::Value { key, found, origin, expected } => {
                write!(f, "`{key} = {}` ({origin}): expected {expected}", printable(found))
            }
        }
    }
}

fn problem_list(problems: &[Problem]) -> String {
    const MOST: usize = 30;
    let mut text = match problems.len() {
        1 => "the config has a problem:".to_owned(),
        n => format!("the config has {n} problems:"),
    };
    for problem in problems.iter().take(MOST) {
        text.push_str(&format!("\n  {problem}"));
    }
    if problems.len() > MOST {
        text.push_str(&format!("\n  and {} more", problems.len() - MOST));
    }
    text
}

/// What someone gave, fit for a message: at most 80 characters, control characters escaped.
fn printable(text: &str) -> String {
    const LONGEST: usize = 80;
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    let mut printable: String = text.chars().take(LONGEST).map(escape).collect();
    if text.chars().nth(LONGEST).is_some() {
        printable.push_str("...");
    }
    printable
}

//! What commands print: text, JSON, and what several of them put into it.

use bninception_data::Failure;
use serde_json::{Value, json};

use crate::error::Error;
use crate::terminal::output;

/// Writes text to stdout.
pub(super) fn text(text: &str) -> Result<(), Error> {
    output::line(text.trim_end()).map_err(Error::Stdout)
}

/// Writes a JSON value to stdout.
pub(super) fn json(value: &impl serde::Serialize) -> Result<(), Error> {
    output::json(value).map_err(Error::Stdout)
}

/// Images that could not be read, each with its path and the reason.
pub(super) fn failures_to_json(failed: &[Failure]) -> Vec<Value> {
    let one = |failure: &Failure| {
        output::with_path("path", &failure.path, json!({ "error": failure.error }))
    };
    failed.iter().map(one).collect()
}

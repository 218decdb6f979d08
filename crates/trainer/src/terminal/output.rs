//! Results on stdout, the only place that writes there.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

/// Writes a line of text.
///
/// # Errors
/// Stdout is closed.
pub fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Writes bytes that end their lines themselves.
///
/// # Errors
/// Stdout is closed or full.
pub fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Writes one JSON value as one line.
///
/// # Errors
/// Stdout is closed.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string(value)?)
}

/// A JSON array as one line, written piece by piece, so that a long one needs no memory.
#[derive(Debug, Default)]
pub struct JsonArray {
    has_elements: bool,
}

impl JsonArray {
    /// Writes further elements.
    ///
    /// # Errors
    /// Stdout is closed or full.
    pub fn extend(&mut self, values: &[Value]) -> io::Result<()> {
        let mut text = String::new();
        for value in values {
            text.push(if self.has_elements { ',' } else { '[' });
            text.push_str(&serde_json::to_string(value)?);
            self.has_elements = true;
        }
        raw(text.as_bytes())
    }

    /// Writes what ends the array and the line.
    ///
    /// # Errors
    /// Stdout is closed or full.
    pub fn end(self) -> io::Result<()> {
        line(if self.has_elements { "]" } else { "[]" })
    }
}

/// The JSON object `object` with a path in front of it, or in the place of what it has under `key`.
///
/// The path stands under `key` as text, in which what is not UTF-8 is replaced. Where that was
/// needed, its bytes stand under `KEY_bytes` as an array of numbers, so that a program finds the
/// file.
pub fn with_path(key: &str, path: &Path, object: Value) -> Value {
    let text = path.to_string_lossy().into();
    joined(key, text, bytes_unless_text(path), object)
}

/// [`with_path`] for a list. Where one of the paths is not UTF-8, the list under `KEY_bytes` has the
/// bytes of each such path, and null for the others.
pub fn with_paths(key: &str, paths: &[PathBuf], object: Value) -> Value {
    let texts = paths.iter().map(|path| path.to_string_lossy()).collect();
    let bytes: Vec<Option<Value>> = paths.iter().map(|path| bytes_unless_text(path)).collect();
    let bytes = bytes.iter().any(Option::is_some).then(|| bytes.into());
    joined(key, texts, bytes, object)
}

/// The bytes of a path that is not UTF-8.
fn bytes_unless_text(path: &Path) -> Option<Value> {
    match path.to_str() {
        Some(_) => None,
        None => Some(path.as_os_str().as_encoded_bytes().into()),
    }
}

fn joined(key: &str, text: Value, bytes: Option<Value>, object: Value) -> Value {
    let mut all = Map::new();
    all.insert(key.to_owned(), text);
    if let Some(bytes) = bytes {
        all.insert(format!("{key}_bytes"), bytes);
    }
    if let Value::Object(others) = object {
        for (key, value) in others {
            all.entry(key).or_insert(value);
        }
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_in_json_are_text() {
        let object = with_path("path", Path::new("a/ä"), json!({ "n": 1, "path": null }));
        assert_eq!(object.to_string(), r#"{"path":"a/ä","n":1}"#);
    }

    #[cfg(unix)]
    #[test]
    fn bytes_of_paths_that_are_no_text_are_not_lost() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let latin1 = Path::new(OsStr::from_bytes(b"caf\xe9"));
        let object = with_path("run_dir", latin1, json!({ "run_dir": null, "n": 1 }));
        let text = "caf\u{fffd}";
        let bytes = [99, 97, 102, 233];
        assert_eq!(object, json!({ "run_dir": text, "run_dir_bytes": bytes, "n": 1 }));
        let paths = [PathBuf::from("a"), latin1.to_owned()];
        let object = with_paths("paths", &paths, json!({}));
        assert_eq!(object, json!({ "paths": ["a", text], "paths_bytes": [null, bytes] }));
        assert_eq!(with_paths("paths", &paths[..1], json!({})), json!({ "paths": ["a"] }));
    }
}

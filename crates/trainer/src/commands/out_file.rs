//! The checkpoint that a command makes of another.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// The file to write: what `out` says, or `input` with `suffix` behind its name.
///
/// # Errors
/// A file that is there already, unless it may be replaced, or a folder that is none.
pub(super) fn out_file(
    input: &Path,
    suffix: &str,
    out: Option<&Path>,
    overwrite: bool,
) -> Result<PathBuf, Error> {
    let out = match out {
        Some(out) => out.to_owned(),
        None => {
            let mut name = input.file_stem().unwrap_or_default().to_owned();
            name.push(suffix);
            name.push(".safetensors");
            input.with_file_name(name)
        }
    };
    if out.exists() && !overwrite {
        return Err(Error::Usage(format!(
            "{} is there already; name another file with --out, or replace it with --overwrite",
            out.display()
        )));
    }
    let folder = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::Usage(format!("--out: {} is not a folder", folder.display())));
    }
    Ok(out)
}

//! Rules of the tree that no compiler knows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{Outcome, root, say};
use crate::structure::{Structure, lines_of_code};

/// Which of our packages may depend on which (crates/README.md, "Dependencies point one way").
const ALLOWED_EDGES: &[(&str, &[&str])] = &[
    ("bninception-kernels", &[]),
    ("bninception-model", &[]),
    ("bninception-data", &[]),
    ("bninception-cuda", &[]),
    ("bninception-engine", &["bninception-model", "bninception-kernels", "bninception-cuda"]),
    ("bninception-collective", &[]),
    (
        "bninception",
        &["bninception-data", "bninception-engine", "bninception-collective", "bninception-cuda"],
    ),
    ("xtask", &[]),
];

/// The crates that may hold unsafe code.
const MAY_BE_UNSAFE: [&str; 3] = ["crates/kernels/", "crates/cuda/", "crates/collective/"];

/// Lines of code in one file, its tests not counted.
const MAX_LINES: usize = 600;

/// Lint of the number of arguments, 7 at most: clippy holds it where nobody waives it, by its name, its
/// threshold or its group.
const NEVER_WAIVED: [&str; 3] =
    ["too_many_arguments", "too-many-arguments-threshold", "clippy::complexity"];

/// Reads `cargo tree` for every package and refuses an edge that is not allowed.
pub(crate) fn check_dependency_direction() -> Outcome {
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

/// Rules for the sources: no long file, no function of many arguments, and unsafe code where it may be
/// only.
pub(crate) fn check_sources() -> Outcome {
    say("sources");
    let mut problems = Vec::new();
    for path in rust_files(&root().join("crates"))? {
        let text = fs::read_to_string(&path).map_err(|error| format!("{path:?}: {error}"))?;
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let is_test = name.contains("/tests/");
        let n_lines = lines_of_code(&text);
        if n_lines > MAX_LINES && !is_test {
            problems.push(format!("{name}: {n_lines} lines, more than {MAX_LINES}: split by noun"));
        }
        if name.ends_with("src/lib.rs")
            && !MAY_BE_UNSAFE.iter().any(|unsafe_crate| name.starts_with(unsafe_crate))
            && !text.contains("#![forbid(unsafe_code)]")
        {
            problems.push(format!("{name}: lacks #![forbid(unsafe_code)]"));
        }
        problems.extend(waived(&name, &text));
    }
    for name in settings()? {
        let path = root().join(&name);
        let text = fs::read_to_string(&path).map_err(|error| format!("{path:?}: {error}"))?;
        problems.extend(waived(&name, &text));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n       ")) }
}

/// That a file waives what is never waived.
fn waived(name: &str, text: &str) -> Option<String> {
    let lint = NEVER_WAIVED.iter().find(|lint| text.contains(**lint))?;
    Some(format!(
        "{name}: names {lint}; a function has 7 arguments at most, others go into a struct"
    ))
}

/// The files that set lints.
fn settings() -> Result<Vec<String>, String> {
    let mut names = vec!["Cargo.toml".to_owned(), ".clippy.toml".to_owned()];
    names.extend(sources()?.iter().map(|(package, _)| format!("{package}/Cargo.toml")));
    Ok(names)
}

/// Refuses circles of imports, and more than a few that run back up.
pub(crate) fn check_structure() -> Outcome {
    say("structure");
    let mut problems = Vec::new();
    for (package, structure) in structures()? {
        let found = structure.problems().into_iter();
        problems.extend(found.map(|problem| format!("{package}/src: {problem}")));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n       ")) }
}

/// Tells the figures that [`check_structure`] holds down.
pub(crate) fn show_structure() -> Outcome {
    say("package          files   lines  circles  back up  longest file");
    for (package, structure) in structures()? {
        let [files, lines, circles, back_up] = structure.figures();
        let (longest, length) = structure.longest();
        say(&format!(
            "{package:<16} {files:>5} {lines:>7} {circles:>8} {back_up:>8}  {longest}, {length}"
        ));
    }
    Ok(())
}

fn structures() -> Result<Vec<(String, Structure)>, String> {
    let read = |(package, files): (String, Vec<PathBuf>)| {
        let structure = Structure::read(&root().join(&package).join("src"), &files)?;
        Ok((package, structure))
    };
    sources()?.into_iter().map(read).collect()
}

/// Our packages by their folders, with the files of their `src`.
fn sources() -> Result<Vec<(String, Vec<PathBuf>)>, String> {
    let crates = root().join("crates");
    let entries = fs::read_dir(&crates).map_err(|error| format!("{crates:?}: {error}"))?;
    let mut packages = vec!["tools/xtask".to_owned()];
    for entry in entries {
        let entry = entry.map_err(|error| format!("{crates:?}: {error}"))?;
        if entry.path().join("src").is_dir() {
            packages.push(format!("crates/{}", entry.file_name().to_string_lossy()));
        }
    }
    packages.sort();
    let files = |package: String| {
        let files = rust_files(&root().join(&package).join("src"))?;
        Ok((package, files))
    };
    packages.into_iter().map(files).collect()
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

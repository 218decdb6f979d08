//! `cargo xtask gpu-libraries DIR`: NVIDIA's libraries from Python's packages, for machines without CUDA's toolkit,
//! with or without a GPU.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{Outcome, say};

/// Packages that work together with each other and with drivers from 580 on, which are those of CUDA 13.0: code that
/// NVRTC 13.0 makes runs on all of them
/// (<https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/>). 0.9 GB to fetch, 1.7 GB on disk.
const PACKAGES: [&str; 3] =
    ["nvidia-cublas==13.0.2.14", "nvidia-cuda-nvrtc==13.0.88", "nvidia-cudnn-cu13==9.28.1.4"];

/// Makes a Python environment in a folder with the libraries, and prints the line that lets the program find them.
pub(crate) fn fetch(folder: Option<&String>) -> Outcome {
    let Some(folder) = folder else {
        return Err("usage: cargo xtask gpu-libraries DIR".to_owned());
    };
    let folder = Path::new(folder);
    let python = ["-m", "venv"].map(Path::new);
    run(Command::new("python3").args(python).arg(folder))?;
    let pip = folder.join("bin/pip");
    // Without what they depend on: the libraries themselves are all that is opened.
    let how = ["install", "--quiet", "--disable-pip-version-check", "--no-deps"];
    run(Command::new(pip).args(how).args(["--only-binary", ":all:"]).args(PACKAGES))?;
    for headers in headers(folder) {
        fs::remove_dir_all(&headers).map_err(|error| format!("{}: {error}", headers.display()))?;
    }
    let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
    writeln!(std::io::stdout(), "export BNINCEPTION_CUDA_PATH={}", folder.display())
        .map_err(|error| format!("stdout: {error}"))
}

/// The folders `lib/python3*/site-packages/nvidia/*/include`.
fn headers(folder: &Path) -> Vec<PathBuf> {
    let within = |folder: PathBuf| {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    within(folder.join("lib"))
        .flat_map(|python| within(python.join("site-packages/nvidia")))
        .map(|package| package.join("include"))
        .filter(|headers| headers.is_dir())
        .collect()
}

fn run(command: &mut Command) -> Outcome {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    say(&words.join(" "));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} ended with {status}", words[0])),
        Err(error) => Err(format!("cannot run {}: {error}", words[0])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_and_nothing_else() {
        let root = std::env::temp_dir().join(format!("gpu-libraries-{}", std::process::id()));
        let packages = root.join("lib/python3.12/site-packages");
        for path in ["nvidia/cudnn/lib", "nvidia/cudnn/include", "pip/include"] {
            fs::create_dir_all(packages.join(path)).unwrap();
        }
        assert_eq!(headers(&root), [packages.join("nvidia/cudnn/include")]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_folder_must_be_named() {
        assert!(fetch(None).is_err());
    }
}

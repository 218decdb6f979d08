//! The folders in which NVIDIA's libraries are looked for.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Names folders with the libraries, separated by `:`; each may also be a Python environment or a toolkit.
pub const PATH_VARIABLE: &str = "BNINCEPTION_CUDA_PATH";

/// How long Python may take to name its folders: a start takes 20 ms, on a network file system seconds.
const PYTHON_LIMIT: Duration = Duration::from_secs(5);

/// What the environment says of a variable.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The folders that exist, best first: those that the user names, Python's packages, conda's, CUDA's toolkit. The
/// order is that of NVIDIA's cuda-pathfinder
/// (<https://nvidia.github.io/cuda-python/cuda-pathfinder/latest/>), behind the user's own folders.
pub(super) fn folders(variables: Variables<'_>) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for folder in env::split_paths(&variables(PATH_VARIABLE).unwrap_or_default()) {
        folders.extend(inside(&folder));
    }
    let variable = |name| variables(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let conda = variable("CONDA_PREFIX");
    let mut prefixes: Vec<PathBuf> =
        [variable("VIRTUAL_ENV"), conda.clone()].into_iter().flatten().collect();
    prefixes.extend(python_prefixes(&variables("PATH").unwrap_or_default()));
    prefixes.extend(variable("HOME").map(|home| home.join(".local")));
    for prefix in &prefixes {
        folders.extend(wheels(prefix));
    }
    folders.extend(conda.map(|prefix| prefix.join("lib")));
    for toolkit in ["CUDA_HOME", "CUDA_PATH"] {
        let root = variable(toolkit);
        folders.extend(root.iter().flat_map(|root| [root.join("lib64"), root.join("lib")]));
    }
    let mut seen: Vec<PathBuf> = Vec::new();
    for folder in folders {
        if folder.is_dir() && !seen.contains(&folder) {
            seen.push(folder);
        }
    }
    seen
}

/// The folders that Python itself names, where the file `python3` does not lie beside them (pyenv and others put a
/// script in its place).
pub(super) fn folders_of_python(variables: Variables<'_>) -> Vec<PathBuf> {
    let Some(python) = on_path("python3", &variables("PATH").unwrap_or_default()) else {
        return Vec::new();
    };
    let said = output(&python, &["-c", "import sys; print('\\n'.join(sys.path))"], PYTHON_LIMIT);
    let paths = said.unwrap_or_default();
    let packages = paths.lines().filter(|line| !line.is_empty()).map(Path::new);
    packages.flat_map(wheels_in).filter(|folder| folder.is_dir()).collect()
}

/// What a folder that the user names may be: one with libraries, a toolkit, a Python environment, unpacked wheels.
fn inside(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    folders.extend(wheels(folder));
    folders.extend(wheels_in(folder));
    folders.extend(libs_in(folder));
    folders.extend([folder.join("lib64"), folder.join("lib")]);
    folders
}

/// The folders of NVIDIA's wheels below `PREFIX/lib/python3*/{site,dist}-packages`.
fn wheels(prefix: &Path) -> Vec<PathBuf> {
    let mut versions = entries(&prefix.join("lib"), "python3");
    versions.reverse(); // the newest first, roughly
    let packages = versions
        .iter()
        .flat_map(|version| [version.join("site-packages"), version.join("dist-packages")]);
    packages.flat_map(|packages| wheels_in(&packages)).collect()
}

/// `PACKAGES/nvidia/*/lib`.
fn wheels_in(packages: &Path) -> Vec<PathBuf> {
    libs_in(&packages.join("nvidia"))
}

/// `FOLDER/*/lib`.
fn libs_in(folder: &Path) -> Vec<PathBuf> {
    let libs = entries(folder, "").into_iter().map(|entry| entry.join("lib"));
    libs.filter(|lib| lib.is_dir()).collect()
}

/// What lies in a folder and begins with `start`, by name.
fn entries(folder: &Path, start: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// The prefixes of the `python3` on PATH: where it lies, and where its file lies. Debian's packages of pip
/// go to `/usr/local`.
fn python_prefixes(path: &OsStr) -> Vec<PathBuf> {
    let Some(python) = on_path("python3", path) else {
        return Vec::new();
    };
    let target = python.canonicalize().ok();
    let mut prefixes: Vec<PathBuf> = [Some(python), target]
        .into_iter()
        .flatten()
        .filter_map(|file| Some(file.parent()?.parent()?.to_owned()))
        .collect();
    if prefixes.iter().any(|prefix| prefix == Path::new("/usr")) {
        prefixes.push(PathBuf::from("/usr/local"));
    }
    prefixes
}

fn on_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What a program prints, if it ends well and in time.
fn output(program: &Path, arguments: &[&str], limit: Duration) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() < limit => thread::sleep(Duration::from_millis(5)),
            _ => {
                // It may have ended meanwhile; either way it is not waited for any longer.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(root: &Path, path: &str) -> PathBuf {
        let folder = root.join(path);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn variables(pairs: &[(&'static str, PathBuf)]) -> impl Fn(&str) -> Option<OsString> {
        let pairs = pairs.to_vec();
        move |name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.clone().into_os_string())
        }
    }

    #[test]
    fn the_users_folders_come_before_wheels_and_those_before_conda_and_the_toolkit() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let own = folder(root, "own");
        let venv = folder(root, "venv/lib/python3.12/site-packages/nvidia/cudnn/lib");
        let beside = folder(root, "usr/lib/python3.11/site-packages/nvidia/cu13/lib");
        let conda = folder(root, "conda/lib");
        let toolkit = folder(root, "cuda/lib64");
        let bin = folder(root, "usr/bin");
        fs::write(bin.join("python3"), "").unwrap();
        let given = [
            (PATH_VARIABLE, own.clone()),
            ("VIRTUAL_ENV", root.join("venv")),
            ("CONDA_PREFIX", root.join("conda")),
            ("CUDA_HOME", root.join("cuda")),
            ("PATH", bin),
        ];
        assert_eq!(folders(&variables(&given)), [own, venv, beside, conda, toolkit]);
    }

    #[test]
    fn a_folder_of_the_user_may_be_an_environment_or_unpacked_wheels() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let of_env = folder(root, "env/lib/python3.12/site-packages/nvidia/cudnn/lib");
        let of_wheels = folder(root, "wheels/nvidia/cu13/lib");
        let both = env::join_paths([root.join("env"), root.join("wheels")]).unwrap();
        let found = folders(&variables(&[(PATH_VARIABLE, PathBuf::from(both))]));
        assert_eq!(
            found,
            [root.join("env"), of_env, root.join("env/lib"), root.join("wheels"), of_wheels]
        );
    }

    #[test]
    fn nothing_in_the_environment_gives_no_folder() {
        assert_eq!(folders(&variables(&[])), Vec::<PathBuf>::new());
    }

    #[test]
    fn python_is_asked_and_not_waited_for_too_long() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let lib = folder(root.path(), "shim/nvidia/cudnn/lib");
        let bin = folder(root.path(), "bin");
        let python = bin.join("python3");
        let script = |text: String| {
            fs::write(&python, text).unwrap();
            fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        };
        script(format!("#!/bin/sh\necho; echo {}\n", root.path().join("shim").display()));
        assert_eq!(folders_of_python(&variables(&[("PATH", bin.clone())])), [lib]);
        script("#!/bin/sh\nexec sleep 60\n".to_owned());
        let start = Instant::now();
        assert_eq!(output(&python, &[], Duration::from_millis(50)), None);
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}

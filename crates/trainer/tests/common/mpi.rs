//! MPIs for tests: real ones, and programs in the place of mpiexec.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::Place;

/// The folders that `BNINCEPTION_MPI_DIRS` names, each with `bin/mpiexec` and `lib`; says so if there are none.
#[allow(clippy::print_stderr)]
pub(crate) fn installed() -> Vec<PathBuf> {
    let dirs = env::var_os("BNINCEPTION_MPI_DIRS").unwrap_or_default();
    let found: Vec<PathBuf> =
        env::split_paths(&dirs).filter(|dir| dir.join("bin/mpiexec").exists()).collect();
    if found.is_empty() {
        eprintln!("skipped: BNINCEPTION_MPI_DIRS names no folder with bin/mpiexec");
    }
    found
}

/// The binary on `n` ranks of an MPI, whose library it has to find by itself.
pub(crate) fn starts_ranks(mpi: &Path, n: usize, place: &Place, arguments: &[&str]) -> Command {
    let mut command = with_path(Command::new(mpi.join("bin/mpiexec")), &mpi.join("bin"));
    command.args(["-n", &n.to_string(), env!("CARGO_BIN_EXE_bninception")]).args(arguments);
    command
        .current_dir(place.path("."))
        .env_remove("BNINCEPTION_MPI_LIB")
        // Open MPI refuses root and more ranks than cores unless it is told.
        .envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")])
        .envs([("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")])
        .envs([("OMPI_MCA_rmaps_base_oversubscribe", "true")]);
    command
}

/// The command with a folder in front of the PATH.
pub(crate) fn with_path(mut command: Command, dir: &Path) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = [dir.to_owned()].into_iter().chain(env::split_paths(&path));
    command.env("PATH", env::join_paths(dirs).unwrap());
    command
}

/// Writes an executable shell script into the place's `bin`.
pub(crate) fn script(place: &Place, name: &str, body: &str) -> PathBuf {
    let file = place.path("bin").join(name);
    fs::create_dir_all(place.path("bin")).unwrap();
    fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    file
}

/// All that a process wrote.
pub(crate) fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

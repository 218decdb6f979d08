//! What of its machine this process takes, where other processes of the same run take as much.

use std::sync::OnceLock;
use std::thread::available_parallelism;

/// What a process takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allotment {
    /// Cores.
    pub cores: usize,
    /// Processes that share the machine's memory.
    pub processes: usize,
    /// Its number among the processes of the run on this machine.
    pub place: usize,
}

static OF_THIS_PROCESS: OnceLock<Allotment> = OnceLock::new();

impl Allotment {
    /// That of this process: all that the system lets it have, unless [`Allotment::take`] was called.
    pub fn of_process() -> Allotment {
        OF_THIS_PROCESS.get().copied().unwrap_or_else(|| Allotment {
            cores: available_parallelism().map_or(1, |cores| cores.get()),
            processes: 1,
            place: 0,
        })
    }

    /// Takes no more than this from now on. Call once, before anything is built.
    pub fn take(self) {
        let _ = OF_THIS_PROCESS.set(self);
    }
}

//! What can go wrong between ranks.

use std::path::PathBuf;

/// Why ranks cannot tell each other something.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// There is no MPI library, or none that can be opened.
    #[error("no MPI library can be opened. Looked for: {}. {hint}", looked_for.join("; "))]
    NoLibrary {
        /// Names and the system's reasons.
        looked_for: Vec<String>,
        /// What to do.
        hint: String,
    },
    /// A library lacks a function that it should have.
    #[error("{} is no MPI library: it has no {symbol}", path.display())]
    NoSymbol {
        /// The library.
        path: PathBuf,
        /// The function.
        symbol: &'static str,
    },
    /// The library and the launcher are of different MPIs.
    #[error(
        "{launcher} started {expected} processes, but the library {} ({version}) knows of {found}: it is not \
         the launcher's own. Name the launcher's library with BNINCEPTION_MPI_LIB, or take the launcher beside \
         it. Going on would train {expected} runs in one folder",
        path.display()
    )]
    OtherLibrary {
        /// The launcher.
        launcher: &'static str,
        /// Processes that it started.
        expected: usize,
        /// Processes that the library knows of.
        found: usize,
        /// The library.
        path: PathBuf,
        /// What it says of itself.
        version: String,
    },
    /// A call failed.
    #[error("{call} failed on rank {rank}: {reason}")]
    Call {
        /// The function.
        call: &'static str,
        /// The rank that saw it.
        rank: usize,
        /// The library's words.
        reason: String,
    },
    /// A measured call gave a wrong answer.
    #[error(
        "{call} of {bytes} bytes gave a wrong answer on rank {rank}: the library is broken, or not what it says"
    )]
    Wrong {
        /// The call.
        call: &'static str,
        /// Bytes of the message.
        bytes: usize,
        /// The rank that saw it.
        rank: usize,
    },
    /// A message is larger than the library's counts.
    #[error("a message of {len} values is more than the {} that MPI counts", i32::MAX)]
    TooLong {
        /// Values.
        len: usize,
    },
}

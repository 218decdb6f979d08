//! What can go wrong between ranks.

use bninception_collective::CollectiveError;

use crate::terminal::text::counted;

/// Why the ranks of a run cannot go on together.
#[derive(Debug, thiserror::Error)]
pub enum RanksError {
    /// They cannot tell each other something.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// A message that is not what was expected: the ranks are at different places, or of different programs.
    #[error(
        "a message between ranks cannot be understood: {0}; all ranks must run the same program"
    )]
    Message(String),
    /// A rank is about to compute something else.
    #[error(
        "rank {rank} has other {what} than rank 0: {found} in place of {expected}. All ranks need the same command \
         line, the same program and the same images"
    )]
    Different {
        /// The rank.
        rank: usize,
        /// What differs.
        what: &'static str,
        /// That of rank 0, or its digest.
        expected: String,
        /// That of the rank.
        found: String,
    },
    /// A recipe that names another number of processes than there are.
    #[error(
        "train.ranks = {asked}, but {} started; use: bninception launch -n {asked} -- train ...",
        match found { 1 => "one process was".to_owned(), n => format!("{} were", counted(*n as u64, "process")) }
    )]
    Number {
        /// `train.ranks`.
        asked: usize,
        /// Processes.
        found: usize,
    },
    /// A command that several processes would do several times.
    #[error("{command} is for one process: start it without mpiexec, mpirun or srun")]
    OneProcess {
        /// The command.
        command: &'static str,
    },
}

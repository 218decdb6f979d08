//! Why a command ended without success, and the exit code that says so.

use std::io;
use std::path::PathBuf;

use bninception_data::DataError;
use bninception_engine::EngineError;
use bninception_engine::cuda::DeviceError;

use crate::config::ConfigError;
use crate::distributed::error::RanksError;
use crate::file_error::FileError;
use crate::import::error::ImportError;
use crate::run::checkpoint::CheckpointError;
use crate::run::error::RunError;
use crate::setup::SetupError;
use crate::terminal::signals::SignalError;
use crate::terminal::text::quoted;

/// The number of the signal for a pipe without reader, the same on all systems that have it (POSIX
/// leaves it open; Linux, the BSDs and macOS say 13).
const SIGPIPE: u8 = 13;

/// Any failure of a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that do not hold together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A command line that asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// Images that cannot be found or read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Something about the data that only the command can judge.
    #[error("{0}")]
    Unusable(String),
    /// A checkpoint that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A network that cannot be built or run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The processes of a run cannot go on together.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// A file or folder other than images and checkpoints.
    #[error(transparent)]
    File(#[from] FileError),
    /// Standard output cannot be written, or nobody reads it any more.
    #[error("cannot write standard output: {0}")]
    Stdout(io::Error),
    /// A number of the training is no longer finite.
    #[error(
        "{reason} at step {step} (learning rate {lr:e}): the run has diverged\n\
         images of the batch, which is kept in {}: {files}\n\
         the last checkpoint holds an earlier state; try a lower optimizer.lr, \
         more schedule.warmup_epochs, or train.on_divergence = \"rollback\"",
        dump.display()
    )]
    Diverged {
        /// The step that failed, counted from 0.
        step: u64,
        /// What was not finite, in words.
        reason: Box<str>,
        /// Learning rate of the step.
        lr: f64,
        /// Paths of the first images of the batch.
        files: String,
        /// The file that holds the batch.
        dump: PathBuf,
    },
    /// A run could not write its state into its folder.
    #[error("{source}\n{outcome}")]
    Unsaved {
        /// Why not.
        source: Box<RunError>,
        /// Where the state is, and what to do.
        outcome: String,
    },
    /// A loss of a small network of `mnist` is no longer a finite number.
    #[error(
        "the loss of {network} is {loss} at step {step} (learning rate {lr}): the network has \
         diverged; try a lower --lr"
    )]
    NetworkDiverged {
        /// The network's name in the experiment.
        network: String,
        /// The loss.
        loss: f64,
        /// The step that failed, counted from 0.
        step: usize,
        /// Learning rate.
        lr: f64,
    },
    /// A signal ended the run after it was saved.
    #[error(
        "stopped by {name}; the state of step {step} is saved, go on with: bninception resume {}",
        quoted(run)
    )]
    Stopped {
        /// The signal's name.
        name: &'static str,
        /// Its number.
        signal: i32,
        /// Updates done.
        step: u64,
        /// The run folder.
        run: PathBuf,
    },
    /// The processes that `launch` started ended without success.
    #[error("{message}")]
    Job {
        /// Their exit code, which is not 0.
        code: u8,
        /// What ended how.
        message: String,
    },
    /// A signal ended a command that has nothing to go on from.
    #[error("stopped by {name}")]
    Interrupted {
        /// The signal's name.
        name: &'static str,
        /// Its number.
        signal: i32,
    },
}

impl Error {
    /// Whether the reader of standard output has left, as `head` does: it has what it wanted, and
    /// there is nothing to complain of.
    pub fn is_of_reader_that_left(&self) -> bool {
        matches!(self, Error::Stdout(source) if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether a run ended because a number of it is no longer finite.
    pub fn is_divergence(&self) -> bool {
        matches!(
            self,
            Error::Diverged { .. } | Error::Checkpoint(CheckpointError::NotFinite { .. })
        )
    }

    /// Whether all ranks of a run come to it together, so that each can end by itself; in any other case the
    /// first that sees an error ends all. A signal may interrupt one rank alone, while it lists images.
    pub fn is_of_all_ranks(&self) -> bool {
        matches!(self, Error::Stopped { .. })
    }

    /// 2 for usage and configuration, 3 for data, checkpoints and standard output, 4 for divergence,
    /// and 128 plus the signal's number for a run that a signal stopped. `launch` ends as its processes
    /// do. A command whose reader has left ends like one that SIGPIPE stopped, which is what a shell
    /// expects of a pipe.
    pub fn exit_code(&self) -> u8 {
        match self {
            error if error.is_divergence() => 4,
            Error::Config(_) | Error::Usage(_) => 2,
            Error::Data(DataError::Setting { .. }) => 2,
            Error::Data(_) | Error::Unusable(_) | Error::Checkpoint(_) | Error::File(_) => 3,
            Error::Stdout(_) if self.is_of_reader_that_left() => 128 + SIGPIPE,
            Error::Unsaved { .. } | Error::Stdout(_) => 3,
            Error::Engine(
                EngineError::Model(_)
                | EngineError::Unsupported { .. }
                | EngineError::Device(DeviceError::Unavailable(_)),
            ) => 2,
            Error::Ranks(RanksError::Number { .. } | RanksError::OneProcess { .. }) => 2,
            Error::Engine(_) | Error::Ranks(_) => 1,
            Error::Diverged { .. } | Error::NetworkDiverged { .. } => 4,
            Error::Job { code, .. } => (*code).max(1),
            Error::Stopped { signal, .. } | Error::Interrupted { signal, .. } => {
                u8::try_from(128 + signal).unwrap_or(1)
            }
        }
    }
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Error {
        match error {
            RunError::Usage(text) => Error::Usage(text),
            RunError::Unusable(text) => Error::Unusable(text),
            RunError::Checkpoint(error) => Error::Checkpoint(error),
            RunError::File(error) => Error::File(error),
        }
    }
}

impl From<ImportError> for Error {
    fn from(error: ImportError) -> Error {
        match error {
            ImportError::File(error) => Error::File(error),
            ImportError::Format { .. } => Error::Unusable(error.to_string()),
            ImportError::Classes(text) => Error::Usage(text),
            ImportError::Config(error) => Error::Config(error),
            ImportError::Run(error) => error.into(),
        }
    }
}

impl From<SetupError> for Error {
    fn from(error: SetupError) -> Error {
        match error {
            SetupError::Classes { .. } | SetupError::ClassWeights(_) => {
                Error::Usage(error.to_string())
            }
            SetupError::Engine(error) => Error::Engine(error),
        }
    }
}

impl From<SignalError> for Error {
    fn from(error: SignalError) -> Error {
        match error {
            SignalError::Deaf(_) => Error::Usage(error.to_string()),
            SignalError::Received { name, signal } => Error::Interrupted { name, signal },
        }
    }
}

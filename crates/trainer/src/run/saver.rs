//! Writes checkpoints on a thread of its own, so that training does not wait for the disk.
//!
//! A save copies the state into memory kept for that, hands it over, and goes on. One checkpoint is
//! written at a time; a save that comes while the last is being written waits for it. A write that
//! fails is tried again for some time, in which the training goes on, before the run is told.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bninception_engine::model::ParameterTable;

use crate::file_error::FileError;
use crate::run::error::RunError;
use crate::run::folder::{Name, RunFolder};
use crate::run::metadata::Metadata;
use crate::run::state::TrainState;

/// Pause before a failed write is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// A thread that writes the checkpoints of a run.
pub struct Saver {
    /// `None` once the saver is being dropped.
    requests: Option<SyncSender<Request>>,
    replies: Receiver<Reply>,
    thread: Option<JoinHandle<()>>,
    /// Memory for the next state; none while it is with the thread.
    spare: Option<Box<TrainState>>,
    /// Step and evaluated step of the state that was handed over last.
    handed_over: Option<(u64, Option<u64>)>,
}

/// A state to be written.
struct Request {
    metadata: Metadata,
    state: Box<TrainState>,
    /// Names that the checkpoint gets besides that of the newest.
    names: Vec<Name>,
    /// Files that must be on the disk before it.
    before: Vec<std::fs::File>,
}

/// What came of a request; the memory comes back.
struct Reply {
    state: Box<TrainState>,
    outcome: Result<(), RunError>,
}

impl Saver {
    /// Starts the thread. It writes into `folder`, keeps the newest `keep` epochs (0 for all), and
    /// tries a failing write again for `patience`. `state` is the state of the run, whose copy is made
    /// now because memory that is taken for the first time costs several times what it costs later.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        folder: &RunFolder,
        table: &ParameterTable,
        keep: usize,
        patience: Duration,
        state: &TrainState,
    ) -> Result<Saver, RunError> {
        let (requests, inbox) = sync_channel::<Request>(1);
        let (outbox, replies) = sync_channel(1);
        let (run, table) = (folder.clone(), table.clone());
        let serve = move || {
            for request in inbox {
                let outcome = write(&run, &table, keep, patience, &request);
                if outbox.send(Reply { state: request.state, outcome }).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("saver".to_owned())
            .spawn(serve)
            .map_err(FileError::of("start a thread for", folder.path()))?;
        Ok(Saver {
            requests: Some(requests),
            replies,
            thread: Some(thread),
            spare: Some(Box::new(state.clone())),
            handed_over: None,
        })
    }

    /// Hands over a copy of `state`, which has been written when [`Saver::wait`] returns. Does
    /// nothing if the same state was handed over last.
    ///
    /// # Errors
    /// The checkpoint before could not be written.
    pub fn save(
        &mut self,
        metadata: Metadata,
        state: &TrainState,
        names: Vec<Name>,
        before: Vec<std::fs::File>,
    ) -> Result<(), RunError> {
        let identity = (state.progress.step, state.progress.evaluated_step);
        self.wait()?;
        if self.handed_over == Some(identity) {
            return Ok(());
        }
        let start = Instant::now();
        let copy = match self.spare.take() {
            Some(mut spare) => {
                spare.copy_from(state);
                spare
            }
            None => Box::new(state.clone()),
        };
        tracing::debug!("copied the state in {:.0} ms", 1e3 * start.elapsed().as_secs_f64());
        let request = Request { metadata, state: copy, names, before };
        self.handed_over = Some(identity);
        match &self.requests {
            Some(requests) if requests.send(request).is_ok() => Ok(()),
            _ => Err(ended()),
        }
    }

    /// Tells whether a write has failed, without waiting for one that goes on.
    ///
    /// # Errors
    /// The failure.
    pub fn check(&mut self) -> Result<(), RunError> {
        match self.replies.try_recv() {
            Ok(reply) => self.take_back(reply),
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => Err(ended()),
        }
    }

    /// Waits until what was handed over is on the disk.
    ///
    /// # Errors
    /// It could not be written.
    pub fn wait(&mut self) -> Result<(), RunError> {
        if self.handed_over.is_none() || self.spare.is_some() {
            return Ok(());
        }
        match self.replies.recv() {
            Ok(reply) => self.take_back(reply),
            Err(_) => Err(ended()),
        }
    }

    fn take_back(&mut self, reply: Reply) -> Result<(), RunError> {
        self.spare = Some(reply.state);
        if reply.outcome.is_err() {
            // The same state may be handed over again.
            self.handed_over = None;
        }
        reply.outcome
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ended() -> RunError {
    RunError::Unusable("the thread that writes checkpoints ended".to_owned())
}

/// Writes a checkpoint under all its names, trying for `patience`.
fn write(
    folder: &RunFolder,
    table: &ParameterTable,
    keep: usize,
    patience: Duration,
    request: &Request,
) -> Result<(), RunError> {
    let attempt = || -> Result<(), RunError> {
        for file in &request.before {
            file.sync_data().map_err(FileError::of("flush files of", folder.path()))?;
        }
        folder.save_last(&request.metadata, table, &request.state)?;
        folder.keep_as(&request.names, keep)
    };
    persist(patience, attempt)
}

/// Tries `attempt` again until it succeeds or `patience` is over. What waiting cannot mend fails at
/// once.
///
/// # Errors
/// Those of the last attempt.
pub fn persist(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<(), RunError>,
) -> Result<(), RunError> {
    let start = Instant::now();
    let mut said = false;
    loop {
        let error = match attempt() {
            Ok(()) => return Ok(()),
            Err(RunError::Checkpoint(error)) if error.is_of_content() => return Err(error.into()),
            Err(error) => error,
        };
        // With a signal waiting there is no time for patience.
        if start.elapsed() + PAUSE > patience || crate::terminal::signals::received().is_some() {
            return Err(error);
        }
        if !said {
            tracing::warn!("{error}; trying again for {} s", patience.as_secs());
            said = true;
        }
        thread::sleep(PAUSE);
    }
}

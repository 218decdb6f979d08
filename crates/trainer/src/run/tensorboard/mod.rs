//! What a run tells TensorBoard: `tensorboard/` of its folder.
//!
//! ```text
//! hyperparameters: settings           -> the names and values that runs are told apart by
//! hparams_file:    these, an end      -> the file of the hparams plugin
//! event_file:      scalars, images    -> a file of events, one for each process that trained
//! histogram:       values             -> their distribution
//! record:          an event          <-> bytes with checksums
//! schema:          the messages of TensorBoard that all of these are made of
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

mod event_file;
mod histogram;
mod hparams_file;
mod hyperparameters;
mod record;
mod schema;

pub use event_file::{EventImage, EventWriter};
pub use hparams_file::{SessionStatus, begin_session, end_session};
pub use hyperparameters::Hyperparameters;

pub(super) use event_file::has_events;

/// Now, in seconds since 1970.
pub fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

//! The folder of a run: what lies in it, and how it gets there whole.
//!
//! ```text
//! folder:      names of the files, which checkpoints are kept; lock: one process at a time
//! state:       what survives a stop; stop: why there is one
//! checkpoint:  state, metadata      <-> one file; metadata: what a checkpoint says about itself
//! transfer:    weights               -> those of another network
//! initial:     checkpoint            -> the first weights of another run
//! resized:     checkpoint            -> the same for images of another size
//! average:     checkpoints           -> the mean of their weights
//! image_lists, classes:             which images and classes those are
//! saver:       state                 -> checkpoints, on a thread of its own
//! records:     rows                 <-> metrics.jsonl, summary.csv; tensorboard/: event files
//! journal:     rows                  -> all of these, in step with the checkpoints
//! atomic_file: bytes                 -> a file that is replaced in one step
//! ```

pub mod atomic_file;
pub mod average;
pub mod checkpoint;
pub mod classes;
pub mod error;
pub mod folder;
pub mod image_lists;
pub mod initial;
pub mod journal;
pub mod lock;
pub mod metadata;
pub mod records;
pub mod resized;
pub mod saver;
pub mod state;
pub mod stop;
pub mod tensorboard;
pub mod transfer;

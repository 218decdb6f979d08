//! A run of several processes, its ranks: what they tell each other so that all of them do the same.
//!
//! ```text
//! error:     what can go wrong between ranks
//! ranks:     a collective     -> values told to all ranks
//! report:    a step           -> what a rank says beside its sums
//! exchange:  gradients        -> sums over ranks, in buckets
//! norm:      sums of batch norm -> those of all ranks
//! checkpoint: a file         -> its content on all ranks
//! agreement: settings, images -> that all ranks have the same
//! failures:  images that could not be read <-> what ranks tell of them
//! round:     batches side by side -> those of all ranks
//! seats:     machines of ranks -> cores and memory for each
//! ```

pub mod agreement;
pub mod checkpoint;
pub mod error;
pub mod exchange;
pub mod failures;
pub mod norm;
pub mod ranks;
pub mod report;
pub mod round;
pub mod seats;

pub use ranks::Ranks;

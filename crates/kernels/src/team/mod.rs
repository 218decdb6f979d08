//! Threads that share the work of a kernel, and how buffers and units of work are dealt to them.

pub(crate) mod pieces;
pub(crate) mod share;
pub mod threads;
pub(crate) mod units;

pub use threads::Team;

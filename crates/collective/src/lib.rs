//! What the processes of one run, its ranks, tell each other.
//!
//! ```text
//! error:         what can go wrong between ranks
//! collective:    the trait: sums in the order of ranks, lists, flags
//! segments:      which rank adds up which values
//! solo:          one rank: nothing to tell
//! launcher:      who started this process, by its environment
//! mpiexec:       the program that starts ranks, and the library beside it
//! found_library: what an MPI library says of itself
//! threads:       many ranks in one process, for tests
//! mpi:           many ranks, through a library that is found at run time
//! connect:       solo or mpi
//! bench:         the time of sums, broadcasts, gathers and barriers
//! ```
//!
//! Every call is one that all ranks make, in the same order. A sum adds the ranks' values one by one, from rank 0
//! on, whatever the library: N ranks give, bit by bit, what one process gives that adds the same N vectors.
#![allow(unsafe_code)] // calls into the MPI library; each block says why it is sound

pub mod bench;
pub mod collective;
pub mod connect;
pub mod error;
pub mod found_library;
pub mod launcher;
pub mod mpi;
pub mod mpiexec;
pub mod segments;
pub mod solo;
pub mod threads;

pub use collective::{BUCKET, Collective, Flags, Reduce};
pub use connect::{Choice, connect};
pub use error::CollectiveError;
pub use found_library::FoundLibrary;
pub use launcher::{Family, LIBRARY_VARIABLE, Launcher};
pub use mpiexec::Mpiexec;
pub use solo::Solo;
pub use threads::Threads;

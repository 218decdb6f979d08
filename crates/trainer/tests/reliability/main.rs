//! A run is never lost: what `docs/reliability.md` promises, promise by promise.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests; they say what they skip

#[path = "../common/mod.rs"]
mod common;
mod delegates;
mod disk;
mod divergence;
mod evaluation;
mod hostile;
mod in_flight;
mod job;
mod kill;
mod memory;
mod mpi;
mod population;
mod ranks;
mod record;
mod resume;
mod signals;

//! The instruction sets of the machine, and registers of each.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub mod isa;
pub(crate) mod lanes;
pub(crate) mod vector;

pub use isa::{ISA_VARIABLE, Isa};

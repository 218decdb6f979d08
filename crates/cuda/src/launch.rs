//! One start of a kernel: its arguments and what it costs.

use crate::memory::Region;

/// A number that a kernel is given.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// An unsigned integer of 32 bits.
    U32(u32),
    /// A number of single precision.
    F32(f32),
}

/// What a kernel moves and computes, from which the least time that it can take follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes that have to be read and written, each once.
    pub bytes: usize,
    /// Operations: two for a multiply-accumulate.
    pub operations: usize,
}

/// One start of a kernel. A kernel's arguments are one structure: addresses first, then scalars, as they
/// are declared in `kernels/`.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks of threads.
    pub blocks: usize,
    /// Threads of a block.
    pub threads: usize,
    /// The arguments that are addresses.
    pub regions: &'a [Region],
    /// The arguments behind them.
    pub scalars: &'a [Scalar],
    /// What it costs.
    pub cost: Cost,
}

//! How a kernel is run.

use crate::dtype::Dtype;
use crate::simd::isa::Isa;
use crate::team::threads::Team;

/// Who runs a kernel, by which instructions, and what it rounds to.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The threads that share the work.
    pub team: &'a Team,
    /// Instruction set.
    pub isa: Isa,
    /// Format that results are rounded to where they are factors of convolutions, as that of their map
    /// does in any case.
    pub dtype: Dtype,
}

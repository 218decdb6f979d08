//! What runs over registers, and the choice of their width.
//!
//! A kernel is a [`Kernel`]: a body generic over [`Vector`] and over the tile sizes that suit the
//! register file. [`dispatch`] compiles it for each instruction set and runs the one asked for.
//! Bodies are `#[inline(always)]` so that they end up inside a function that enables the features.

use crate::simd::isa::Isa;
use crate::simd::vector::{Portable, Vector};

/// A kernel body, compiled once per instruction set.
pub(super) trait Kernel {
    /// Runs the kernel over vectors `V`. The tile sizes fill the registers of the instruction set:
    /// `PX` pixels x `NV` vectors of output channels forward, `NI` input channels x `NV` vectors
    /// for the weights; a group of channels that is one block wide has `NB` vectors.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`; further conditions are the kernel's own.
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector;
}

/// Sizes that [`dispatch`] hands to a kernel and that geometry and packing must agree with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Pixels of a register tile.
    pub pixels: usize,
    /// Channel blocks of a full output group: `NV * LANES / BLOCK`.
    pub group_blocks: usize,
}

impl Tile {
    /// The tile of an instruction set.
    pub(super) fn of(isa: Isa) -> Tile {
        match isa {
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => Tile { pixels: 14, group_blocks: 2 },
            Isa::Avx2 => Tile { pixels: 6, group_blocks: 1 },
            Isa::Scalar => Tile { pixels: 2, group_blocks: 1 },
        }
    }
}

/// Runs `kernel` with the vectors of `isa`.
///
/// # Safety
/// The machine must have `isa`, and the kernel's own conditions must hold.
pub(super) unsafe fn dispatch<K: Kernel>(isa: Isa, kernel: &K) {
    // SAFETY: the caller vouches for the instruction set and for the kernel's conditions.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 | Isa::Amx => x86::avx512bf16(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::avx2(kernel),
            _ => kernel.run::<Portable, 2, 2, 4, 4>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Kernel;
    use crate::simd::vector::{Avx2, Avx512, Avx512Bf16};

    /// As [`avx512`].
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) fn avx512bf16<K: Kernel>(kernel: &K) {
        // SAFETY: this function runs only where the features exist; `dispatch` passes on the rest.
        unsafe { kernel.run::<Avx512Bf16, 14, 8, 2, 1>() }
    }

    /// 14 x 2 sums, two weights and a broadcast fill 31 of the 32 registers.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn avx512<K: Kernel>(kernel: &K) {
        // SAFETY: this function runs only where the features exist; `dispatch` passes on the rest.
        unsafe { kernel.run::<Avx512, 14, 8, 2, 1>() }
    }

    /// 6 x 2 sums, two weights and a broadcast fill 15 of the 16 registers.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2<K: Kernel>(kernel: &K) {
        // SAFETY: this function runs only where the features exist; `dispatch` passes on the rest.
        unsafe { kernel.run::<Avx2, 6, 4, 2, 2>() }
    }
}

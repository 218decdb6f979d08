//! The machine's floor: how fast it multiplies and adds when nothing else is in the way.

use std::hint::black_box;
use std::time::Instant;

use crate::dtype::Dtype;
use crate::simd::isa::Isa;
use crate::team::threads::Team;

/// Rounds of one measurement, about 10 ms.
const ROUNDS: usize = 2_000_000;
/// Independent sums, enough to hide the latency of an addition (at most 5 cycles, two a cycle).
const SUMS: usize = 10;
/// Sums of tiles, as many as the kernels have, and the rounds of other sums that one of theirs takes.
const TILE_SUMS: usize = 4;
const TILE_ROUNDS: usize = 16;
/// Measurements, of which the best counts: whatever else the machine does only slows them.
const TRIES: usize = 10;

/// The best GFLOP/s, two for each multiply-add of factors of `dtype`, of all threads of `team`
/// together.
pub fn peak_gflops(team: &Team, isa: Isa, dtype: Dtype) -> f64 {
    let isa = match dtype {
        // Without instructions for bf16 it is multiplied as f32.
        Dtype::F32 => isa.min(Isa::Avx512),
        Dtype::Bf16 => isa,
    };
    let isa = isa.min(Isa::strongest());
    // Multiply-adds of an instruction, instructions of a round, and rounds.
    let (lanes, sums, rounds) = match isa {
        Isa::Scalar => (4, SUMS, ROUNDS),
        Isa::Avx2 => (8, SUMS, ROUNDS),
        Isa::Avx512 => (16, SUMS, ROUNDS),
        Isa::Avx512Bf16 => (32, SUMS, ROUNDS),
        Isa::Amx => (16 * 16 * 32, TILE_SUMS, ROUNDS / TILE_ROUNDS),
    };
    let flops = (2 * lanes * sums * rounds * team.len()) as f64;
    let mut best = 0.0_f64;
    for _ in 0..TRIES {
        let start = Instant::now();
        team.run(&|_| match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `isa` is not above the strongest set of this machine; rounds are not zero.
            Isa::Amx => unsafe { crate::simd::amx::multiply_registers(rounds) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512Bf16 => unsafe { x86::avx512bf16() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 => unsafe { x86::avx512() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { x86::avx2() },
            _ => portable(),
        });
        best = best.max(flops / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// Multiplies and adds in four lanes, which is what the portable kernels do.
fn portable() {
    let mut sums = [[0.0_f32; 4]; SUMS];
    let factor = black_box([1.0_f32; 4]);
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            for lane in 0..4 {
                sum[lane] = sum[lane] * factor[lane] + factor[lane];
            }
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{ROUNDS, SUMS};

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn avx512bf16() {
        let ones = _mm512_set1_epi32(black_box(0x3F80_3F80)); // pairs of 1.0
        // SAFETY: both types are 512 bits of any content.
        let factor = unsafe { std::mem::transmute::<__m512i, __m512bh>(ones) };
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512() {
        let factor = _mm512_set1_ps(black_box(1.0));
        let mut sums = [factor; SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(factor, factor, *sum);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2() {
        let factor = _mm256_set1_ps(black_box(1.0));
        let mut sums = [factor; SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(factor, factor, *sum);
            }
        }
        black_box(sums);
    }
}

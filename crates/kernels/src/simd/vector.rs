//! The register that kernels of convolutions are written over, once.

use crate::dtype::{Bf16, round_to_bf16};

/// A register of `f32` lanes.
///
/// Only the unsafe constructors make a value, and their contract is that the machine has the
/// instruction set; so the arithmetic on existing values is safe.
pub trait Vector: Copy {
    /// Lanes of the register.
    const LANES: usize;

    /// Whether the machine has AVX-512 F, BW, DQ and VL, whose integers other code may use beside it.
    const AVX512: bool;

    /// All lanes set to `value`.
    ///
    /// # Safety
    /// The machine must have the instruction set of the implementing type.
    unsafe fn splat(value: f32) -> Self;

    /// Reads `LANES` values.
    ///
    /// # Safety
    /// As [`Vector::splat`], and `LANES` values must be readable at `from`; any alignment.
    unsafe fn load(from: *const f32) -> Self;

    /// Writes `LANES` values.
    ///
    /// # Safety
    /// `LANES` values must be writable at `to`; any alignment.
    unsafe fn store(self, to: *mut f32);

    /// Reads `LANES` bf16 numbers.
    ///
    /// # Safety
    /// As [`Vector::load`].
    unsafe fn load_bf16(from: *const Bf16) -> Self;

    /// Writes the upper halves of `LANES` values.
    ///
    /// # Safety
    /// As [`Vector::store`].
    unsafe fn store_bf16(self, to: *mut Bf16);

    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    fn sub(self, other: Self) -> Self;
    /// `self * other`.
    fn mul(self, other: Self) -> Self;
    /// The greater of `self` and `floor` in each lane; NaN stays NaN, so that a diverged run shows.
    fn at_least(self, floor: Self) -> Self;
    /// `self * factor + addend`, rounded once where the machine can.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// The nearest bf16 numbers, see [`round_to_bf16`]; subnormal ones may become zero.
    fn round_to_bf16(self) -> Self;

    /// Asks for the cache line of `at`; any address is allowed.
    fn prefetch(at: *const f32);
}

/// Four lanes in plain Rust, which the compiler keeps in a register of any target.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|lane| op(self.0[lane], other.0[lane])))
    }
}

impl Vector for Portable {
    const LANES: usize = 4;
    const AVX512: bool = false;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for four readable values; the read is unaligned.
        unsafe { Portable(from.cast::<[f32; 4]>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for four writable values; the write is unaligned.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self {
        // SAFETY: the caller vouches for four readable values; the read is unaligned.
        unsafe { Portable(from.cast::<[Bf16; 4]>().read_unaligned().map(Bf16::value)) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut Bf16) {
        // SAFETY: the caller vouches for four writable values; the write is unaligned.
        unsafe { to.cast::<[Bf16; 4]>().write_unaligned(self.0.map(Bf16::cut)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn at_least(self, floor: Self) -> Self {
        self.zip(floor, |value, floor| if value < floor { floor } else { value })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Without the instruction, `f32::mul_add` is a call into the maths library.
        let fused = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
        Portable(std::array::from_fn(|lane| {
            let (a, b, c) = (self.0[lane], factor.0[lane], addend.0[lane]);
            if fused { a.mul_add(b, c) } else { a * b + c }
        }))
    }

    #[inline(always)]
    fn round_to_bf16(self) -> Self {
        Portable(self.0.map(round_to_bf16))
    }

    #[inline(always)]
    fn prefetch(_at: *const f32) {}
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512, Avx512Bf16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;
    use crate::dtype::Bf16;
    use crate::dtype::x86::{
        convert_512, cut_256, cut_512, round_256, round_512, widen_256, widen_512,
    };

    /// Implements [`Vector`] for a register type by naming its intrinsics.
    macro_rules! x86_vector {
        ($name:ident, $register:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident,
         $add:ident, $sub:ident, $mul:ident, $max:ident, $mul_add:ident, $round:ident,
         $load_halves:ident, $widen:ident, $store_halves:ident, $cut:ident) => {
            #[derive(Clone, Copy)]
            pub(crate) struct $name($register);

            impl Vector for $name {
                const LANES: usize = $lanes;
                const AVX512: bool = $lanes == 16;

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: the caller vouches for the instruction set.
                    unsafe { $name($splat(value)) }
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: the caller vouches for the instruction set and the address.
                    unsafe { $name($load(from)) }
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the caller vouches for the address; a value exists only where the
                    // instruction set does.
                    unsafe { $store(to, self.0) }
                }

                #[inline(always)]
                unsafe fn load_bf16(from: *const Bf16) -> Self {
                    // SAFETY: the caller vouches for the instruction set and the address.
                    unsafe { $name($widen($load_halves(from.cast()))) }
                }

                #[inline(always)]
                unsafe fn store_bf16(self, to: *mut Bf16) {
                    // SAFETY: the caller vouches for the address; a value exists only where the
                    // instruction set does.
                    unsafe { $store_halves(to.cast(), $cut(self.0)) }
                }

                #[inline(always)]
                fn add(self, other: Self) -> Self {
                    // SAFETY: a value exists only where the instruction set does.
                    unsafe { $name($add(self.0, other.0)) }
                }

                #[inline(always)]
                fn sub(self, other: Self) -> Self {
                    // SAFETY: a value exists only where the instruction set does.
                    unsafe { $name($sub(self.0, other.0)) }
                }

                #[inline(always)]
                fn mul(self, other: Self) -> Self {
                    // SAFETY: a value exists only where the instruction set does.
                    unsafe { $name($mul(self.0, other.0)) }
                }

                #[inline(always)]
                fn at_least(self, floor: Self) -> Self {
                    // SAFETY: a value exists only where the instruction set does. Of a NaN and a
                    // number the instruction returns its second operand.
                    unsafe { $name($max(floor.0, self.0)) }
                }

                #[inline(always)]
                fn mul_add(self, factor: Self, addend: Self) -> Self {
                    // SAFETY: a value exists only where the instruction set does.
                    unsafe { $name($mul_add(self.0, factor.0, addend.0)) }
                }

                #[inline(always)]
                fn round_to_bf16(self) -> Self {
                    // SAFETY: a value exists only where the instruction set does.
                    unsafe { $name($round(self.0)) }
                }

                #[inline(always)]
                fn prefetch(at: *const f32) {
                    // SAFETY: a prefetch never faults, and every x86-64 machine has it.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
                }
            }
        };
    }

    /// Implements all of [`Vector`] by registers of sixteen lanes that `$round` rounds to bf16.
    macro_rules! vector_512 {
        ($name:ident, $round:ident) => {
            x86_vector!(
                $name,
                __m512,
                16,
                _mm512_set1_ps,
                _mm512_loadu_ps,
                _mm512_storeu_ps,
                _mm512_add_ps,
                _mm512_sub_ps,
                _mm512_mul_ps,
                _mm512_max_ps,
                _mm512_fmadd_ps,
                $round,
                _mm256_loadu_si256,
                widen_512,
                _mm256_storeu_si256,
                cut_512
            );
        };
    }

    vector_512!(Avx512, round_512);
    vector_512!(Avx512Bf16, convert_512);

    x86_vector!(
        Avx2,
        __m256,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_max_ps,
        _mm256_fmadd_ps,
        round_256,
        _mm_loadu_si128,
        widen_256,
        _mm_storeu_si128,
        cut_256
    );
}

//! The formats in which maps lie in memory.

use std::fmt::Debug;

use crate::dtype::{Bf16, Dtype, round_to_bf16};
use crate::simd::lanes::{LANES, Simd};
use crate::simd::vector::Vector;

/// A number as maps hold it: f32, or [`Bf16`] in half of the memory. Arithmetic is f32 in both; the
/// kernels are written once and compiled for each.
///
/// Maps lie in regions of f32 ([`Arena`](crate::arena::Arena)), of which [`Element::of_region`] and
/// [`Element::of_region_mut`] make slices of either.
///
/// The kernels rely on what the two implementations are, so there can be no others. The default is zero.
pub trait Element: Sealed + Copy + Debug + Default + PartialEq + Send + Sync + 'static {
    /// The format.
    const DTYPE: Dtype;

    /// The nearest number of this format.
    fn of(value: f32) -> Self;

    /// The value.
    fn value(self) -> f32;

    /// The value as bf16; what that does not hold of it is cut off.
    fn cut(self) -> Bf16;

    /// `values`, if they are bf16.
    fn as_bf16(values: &[Self]) -> Option<&[Bf16]>;

    /// `values`, if they are f32.
    fn as_f32(values: &[Self]) -> Option<&[f32]>;

    /// As [`Element::as_f32`], to write.
    fn as_f32_mut(values: &mut [Self]) -> Option<&mut [f32]>;

    /// A region of f32 as numbers of this format.
    fn of_region(region: &[f32]) -> &[Self];

    /// As [`Element::of_region`], to write.
    fn of_region_mut(region: &mut [f32]) -> &mut [Self];

    /// Reads sixteen values.
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::Value;

    /// Writes sixteen values that `dtype` or this format rounds.
    fn store<S: Simd>(s: S, dtype: Dtype, value: S::Value, to: &mut [Self; LANES]);

    /// Reads the lanes of a register.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and its lanes must be readable at `from`.
    unsafe fn load_vector<V: Vector>(from: *const Self) -> V;

    /// Writes the lanes of a register; what this format does not hold of them is cut off.
    ///
    /// # Safety
    /// The lanes must be writable at `to`.
    unsafe fn store_cut<V: Vector>(value: V, to: *mut Self);

    /// [`Element::cut`] of the numbers from `from` on whose bits in `mask` are set, and zero in place
    /// of the others, which are not touched.
    ///
    /// # Safety
    /// The machine must have AVX-512 F, BW and VL, and the numbers must be readable.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_cut(mask: u16, from: *const Self) -> std::arch::x86_64::__m256i;
}

mod sealed {
    /// Nobody outside this module can implement [`Element`](super::Element).
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for super::Bf16 {}
}
use sealed::Sealed;

/// Evaluates `$body`, in which `$element` is the [`Element`] of the format that `$dtype` names.
#[macro_export]
macro_rules! with_element {
    ($dtype:expr, $element:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::Dtype::F32 => {
                type $element = f32;
                $body
            }
            $crate::dtype::Dtype::Bf16 => {
                type $element = $crate::dtype::Bf16;
                $body
            }
        }
    };
}

/// Values of a region of f32 that `len` numbers of `dtype` take.
pub fn region_len(dtype: Dtype, len: usize) -> usize {
    (len * dtype.size()).div_ceil(size_of::<f32>())
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline(always)]
    fn of(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self
    }

    #[inline(always)]
    fn cut(self) -> Bf16 {
        Bf16::cut(self)
    }

    fn as_bf16(_values: &[f32]) -> Option<&[Bf16]> {
        None
    }

    fn as_f32(values: &[f32]) -> Option<&[f32]> {
        Some(values)
    }

    fn as_f32_mut(values: &mut [f32]) -> Option<&mut [f32]> {
        Some(values)
    }

    fn of_region(region: &[f32]) -> &[f32] {
        region
    }

    fn of_region_mut(region: &mut [f32]) -> &mut [f32] {
        region
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[f32; LANES]) -> S::Value {
        s.load(from)
    }

    #[inline(always)]
    fn store<S: Simd>(s: S, dtype: Dtype, value: S::Value, to: &mut [f32; LANES]) {
        let value = match dtype {
            Dtype::F32 => value,
            Dtype::Bf16 => s.round_to_bf16(value),
        };
        s.store(value, to);
    }

    #[inline(always)]
    unsafe fn load_vector<V: Vector>(from: *const f32) -> V {
        // SAFETY: as the caller vouches.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn store_cut<V: Vector>(value: V, to: *mut f32) {
        // SAFETY: as the caller vouches.
        unsafe { value.store(to) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_cut(mask: u16, from: *const f32) -> std::arch::x86_64::__m256i {
        use std::arch::x86_64::*;
        // SAFETY: as the caller vouches.
        unsafe {
            let bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, from));
            _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(bits))
        }
    }
}

impl Element for Bf16 {
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn of(value: f32) -> Bf16 {
        Bf16::cut(round_to_bf16(value))
    }

    #[inline(always)]
    fn value(self) -> f32 {
        Bf16::value(self)
    }

    #[inline(always)]
    fn cut(self) -> Bf16 {
        self
    }

    fn as_bf16(values: &[Bf16]) -> Option<&[Bf16]> {
        Some(values)
    }

    fn as_f32(_values: &[Bf16]) -> Option<&[f32]> {
        None
    }

    fn as_f32_mut(_values: &mut [Bf16]) -> Option<&mut [f32]> {
        None
    }

    fn of_region(region: &[f32]) -> &[Bf16] {
        let len = size_of_val(region) / size_of::<Bf16>();
        // SAFETY: same memory and lifetime, stricter alignment, and every bit pattern is a Bf16.
        unsafe { std::slice::from_raw_parts(region.as_ptr().cast(), len) }
    }

    fn of_region_mut(region: &mut [f32]) -> &mut [Bf16] {
        let len = size_of_val(region) / size_of::<Bf16>();
        // SAFETY: as above, and every bit pattern is an f32.
        unsafe { std::slice::from_raw_parts_mut(region.as_mut_ptr().cast(), len) }
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Bf16; LANES]) -> S::Value {
        s.load_bf16(from)
    }

    #[inline(always)]
    fn store<S: Simd>(s: S, _dtype: Dtype, value: S::Value, to: &mut [Bf16; LANES]) {
        s.store_bf16(s.round_to_bf16(value), to);
    }

    #[inline(always)]
    unsafe fn load_vector<V: Vector>(from: *const Bf16) -> V {
        // SAFETY: as the caller vouches.
        unsafe { V::load_bf16(from) }
    }

    #[inline(always)]
    unsafe fn store_cut<V: Vector>(value: V, to: *mut Bf16) {
        // SAFETY: as the caller vouches.
        unsafe { value.store_bf16(to) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_cut(mask: u16, from: *const Bf16) -> std::arch::x86_64::__m256i {
        // SAFETY: as the caller vouches.
        unsafe { std::arch::x86_64::_mm256_maskz_loadu_epi16(mask, from.cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_nearest_ones() {
        for value in [0.0, -0.0, 1.0, 1.0 / 3.0, -2.7e-39, f32::MAX, f32::INFINITY] {
            let found = Bf16::of(value).value();
            assert_eq!(found.to_bits(), round_to_bf16(value).to_bits(), "{value}");
            assert_eq!(f32::of(value).to_bits(), value.to_bits());
        }
        assert!(Bf16::of(f32::NAN).value().is_nan());
    }

    #[test]
    fn regions_hold_as_many_numbers_as_they_have_room_for() {
        for len in [0, 1, 2, 7] {
            let mut region = vec![0.0; region_len(Dtype::Bf16, len)];
            let numbers = Bf16::of_region_mut(&mut region);
            assert!((len..len + 2).contains(&numbers.len()));
            numbers.fill(Bf16::of(1.5));
            assert!(Bf16::of_region(&region).iter().all(|number| number.value() == 1.5));
            assert_eq!(f32::of_region(&region).len(), region.len());
        }
    }
}

//! Number formats of what convolutions multiply, and of maps in memory.

/// The number format of activations, of their gradients and of filters where convolutions multiply
/// them. Sums, statistics, parameters and gradients of parameters are f32 (or f64) in both.
///
/// With [`Dtype::Bf16`] every factor is rounded to bf16 where it is made or packed, and stored as
/// such or as the f32 of that value ([`Element`](crate::element::Element)). A product of two bf16
/// numbers is exact in f32, so f32 arithmetic on such values computes what bf16 instructions with
/// f32 sums do ([`Algorithm::Bf16`](crate::conv::Algorithm::Bf16)), up to the order of the sum and to
/// subnormal numbers, which they take for zero; and algorithms that multiply sums of factors
/// (Winograd's) stay as accurate as they are in f32.
///
/// Where maps are bf16 in memory ([`Algorithms::maps`](crate::conv::Algorithms::map_dtype)) all that lies in
/// one is rounded: outputs in front of batch norm and gradients of activations too, as under PyTorch's
/// autocast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    #[default]
    F32,
    /// The upper half of it: 8 bits of significand, the same exponents.
    Bf16,
}

impl Dtype {
    /// The name in options and logs.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        }
    }

    /// The nearest number of this format.
    #[inline(always)]
    pub(crate) fn round(self, value: f32) -> f32 {
        match self {
            Dtype::F32 => value,
            Dtype::Bf16 => round_to_bf16(value),
        }
    }
}

/// A bf16 number: the upper half of an f32. Compared bit by bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(u16);

impl Bf16 {
    /// The upper half of `value`.
    #[inline(always)]
    pub(crate) fn cut(value: f32) -> Bf16 {
        Bf16((value.to_bits() >> 16) as u16)
    }

    /// The value.
    #[inline(always)]
    pub fn value(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// Sign, exponent and significand.
    #[inline(always)]
    pub(crate) fn bits(self) -> u16 {
        self.0
    }
}

/// The nearest bf16 number, of two equally near ones the even one; NaN stays NaN.
#[inline(always)]
pub fn round_to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    // Adding just less than half a unit of bf16, or just half to odd numbers, carries into the
    // upper half where rounding up is right; beyond the largest number it carries into infinity.
    let rounded = bits.wrapping_add(0x7FFF).wrapping_add((bits >> 16) & 1) & 0xFFFF_0000;
    if value.is_nan() { f32::NAN } else { f32::from_bits(rounded) }
}

/// [`round_to_bf16`] of every lane of a register, and the upper halves of lanes.
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::*;

    /// Of sixteen lanes.
    ///
    /// # Safety
    /// The machine must have AVX-512 F.
    #[inline(always)]
    pub(crate) unsafe fn round_512(values: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let bits = _mm512_castps_si512(values);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let carried = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
            let rounded = _mm512_and_si512(carried, _mm512_set1_epi32(0xFFFF_0000_u32 as i32));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
            _mm512_mask_mov_ps(_mm512_castsi512_ps(rounded), nan, _mm512_set1_ps(f32::NAN))
        }
    }

    /// Of sixteen lanes, by the machine's instruction; subnormal numbers become zero.
    ///
    /// # Safety
    /// The machine must have AVX-512 F and BF16.
    #[inline(always)]
    pub(crate) unsafe fn convert_512(values: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set; both types are 256 bits of any content.
        unsafe {
            let halves = _mm512_cvtneps_pbh(values);
            widen_512(std::mem::transmute::<__m256bh, __m256i>(halves))
        }
    }

    /// Of eight lanes.
    ///
    /// # Safety
    /// The machine must have AVX2.
    #[inline(always)]
    pub(crate) unsafe fn round_256(values: __m256) -> __m256 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let bits = _mm256_castps_si256(values);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let carried = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
            let rounded = _mm256_and_si256(carried, _mm256_set1_epi32(0xFFFF_0000_u32 as i32));
            let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values);
            _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_set1_ps(f32::NAN), nan)
        }
    }

    /// The values of sixteen bf16 numbers.
    ///
    /// # Safety
    /// The machine must have AVX-512 F.
    #[inline(always)]
    pub(crate) unsafe fn widen_512(halves: __m256i) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves))) }
    }

    /// The values of eight bf16 numbers.
    ///
    /// # Safety
    /// The machine must have AVX2.
    #[inline(always)]
    pub(crate) unsafe fn widen_256(halves: __m128i) -> __m256 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves))) }
    }

    /// The upper halves of sixteen lanes.
    ///
    /// # Safety
    /// The machine must have AVX-512 F.
    #[inline(always)]
    pub(crate) unsafe fn cut_512(values: __m512) -> __m256i {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_castps_si512(values))) }
    }

    /// The upper halves of eight lanes.
    ///
    /// # Safety
    /// The machine must have AVX2.
    #[inline(always)]
    pub(crate) unsafe fn cut_256(values: __m256) -> __m128i {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let halves = _mm256_srli_epi32::<16>(_mm256_castps_si256(values));
            let (low, high) =
                (_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
            _mm_packus_epi32(low, high)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_even() {
        let unit = 1.0 / 128.0; // of bf16 between 1 and 2
        let cases = [
            (1.0, 1.0),
            (1.0 + 0.49 * unit, 1.0),
            (1.0 + 0.5 * unit, 1.0),
            (1.0 + 0.51 * unit, 1.0 + unit),
            (1.0 + 1.5 * unit, 1.0 + 2.0 * unit),
            (-1.0 - 1.5 * unit, -1.0 - 2.0 * unit),
            (0.0, 0.0),
            (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
        ];
        for (value, expected) in cases {
            assert_eq!(round_to_bf16(value), expected, "{value}");
        }
        assert_eq!(round_to_bf16(-0.0).to_bits(), (-0.0_f32).to_bits());
        // The payload of this NaN lies in the lower half, which is cut off.
        assert!(round_to_bf16(f32::from_bits(0x7F80_0001)).is_nan());
    }

    #[test]
    fn every_result_is_the_nearest() {
        for step in 0..2_000_000_u32 {
            let value = f32::from_bits(step.wrapping_mul(2147));
            if !value.is_finite() {
                continue;
            }
            let rounded = round_to_bf16(value);
            assert_eq!(rounded.to_bits() & 0xFFFF, 0, "{value} became no bf16 number");
            let below = f32::from_bits(value.to_bits() & 0xFFFF_0000);
            let above = f32::from_bits((value.to_bits() & 0xFFFF_0000).wrapping_add(0x1_0000));
            let distance = |to: f32| (f64::from(to) - f64::from(value)).abs();
            let least = distance(below).min(distance(above));
            assert!(rounded.is_infinite() || distance(rounded) == least, "{value}: {rounded}");
        }
    }
}

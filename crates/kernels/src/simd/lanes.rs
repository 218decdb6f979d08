//! Sixteen channels of one pixel in registers, and the choice of registers.
//!
//! The memory-bound kernels are written once over [`Simd`] and compiled for each instruction set by
//! [`dispatch`]. A value of type [`HasAvx512`] or [`HasAvx2`] is the proof that the machine has the set,
//! so that its methods are safe; plain loops over arrays would do if the compiler vectorised
//! accumulators and comparisons reliably, which it does not.

use super::isa::Isa;
use crate::dtype::{Bf16, round_to_bf16};

/// Channels of one pixel of a block.
pub(crate) type Lanes = [f32; LANES];

/// Values of [`Lanes`].
pub(crate) const LANES: usize = 16;

/// A slice as pixels; values behind the last whole pixel are left out.
#[inline(always)]
pub(crate) fn pixels<E>(values: &[E]) -> &[[E; LANES]] {
    values.as_chunks().0
}

/// As [`pixels`], to write.
#[inline(always)]
pub(crate) fn pixels_mut<E>(values: &mut [E]) -> &mut [[E; LANES]] {
    values.as_chunks_mut().0
}

/// The lanes of channel block `block` in a vector with one value per channel.
#[inline(always)]
pub(crate) fn block(values: &[f32], block: usize) -> Lanes {
    values.as_chunks().0[block]
}

/// Arithmetic on sixteen lanes. Every method works lane by lane.
pub trait Simd: Copy {
    /// Sixteen values.
    type Value: Copy;
    /// Sixteen truths.
    type Mask: Copy;

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::Value;
    /// Reads sixteen values.
    fn load(self, from: &Lanes) -> Self::Value;
    /// Writes sixteen values.
    fn store(self, value: Self::Value, to: &mut Lanes);
    /// Reads sixteen bf16 numbers.
    fn load_bf16(self, from: &[Bf16; LANES]) -> Self::Value;
    /// Writes the upper halves of sixteen values.
    fn store_bf16(self, value: Self::Value, to: &mut [Bf16; LANES]);
    /// Reads sixteen small integers.
    fn load_bytes(self, from: &[u8; LANES]) -> Self::Value;
    /// Writes sixteen integers below 256.
    fn store_bytes(self, value: Self::Value, to: &mut [u8; LANES]);
    /// a + b.
    fn add(self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// a - b.
    fn sub(self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// a * b.
    fn mul(self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// a / b.
    fn div(self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// The square root.
    fn sqrt(self, a: Self::Value) -> Self::Value;
    /// a * b + c, rounded once where the machine can.
    fn mul_add(self, a: Self::Value, b: Self::Value, c: Self::Value) -> Self::Value;
    /// max(a, 0), but NaN stays NaN so that a diverged run is seen.
    fn relu(self, a: Self::Value) -> Self::Value;
    /// Whether a > b.
    fn greater(self, a: Self::Value, b: Self::Value) -> Self::Mask;
    /// Whether a > b or a is NaN, for b that is NaN or not.
    fn greater_or_nan(self, a: Self::Value, b: Self::Value) -> Self::Mask;
    /// Whether a == b.
    fn equal(self, a: Self::Value, b: Self::Value) -> Self::Mask;
    /// a where the mask holds, b elsewhere.
    fn select(self, mask: Self::Mask, a: Self::Value, b: Self::Value) -> Self::Value;

    /// The nearest bf16 numbers, see [`round_to_bf16`]; subnormal ones may become zero.
    fn round_to_bf16(self, a: Self::Value) -> Self::Value;

    /// Zero in every lane.
    #[inline(always)]
    fn zero(self) -> Self::Value {
        self.splat(0.0)
    }

    /// The values as an array.
    #[inline(always)]
    fn array(self, value: Self::Value) -> Lanes {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        lanes
    }
}

/// Compiles `$body`, in which `$simd` is the [`Simd`] of the set, for each instruction set, and
/// runs the one that `$isa` names. Functions that it calls must be `#[inline(always)]`.
macro_rules! dispatch {
    ($isa:expr, $simd:ident => $body:expr) => {
        match $crate::simd::lanes::Level::of($isa) {
            #[cfg(target_arch = "x86_64")]
            $crate::simd::lanes::Level::Avx512Bf16($simd) => $simd.run(
                #[inline(always)]
                || $body,
            ),
            #[cfg(target_arch = "x86_64")]
            $crate::simd::lanes::Level::Avx512($simd) => $simd.run(
                #[inline(always)]
                || $body,
            ),
            #[cfg(target_arch = "x86_64")]
            $crate::simd::lanes::Level::Avx2($simd) => $simd.run(
                #[inline(always)]
                || $body,
            ),
            $crate::simd::lanes::Level::Plain($simd) => $body,
        }
    };
}
pub(crate) use dispatch;

/// The registers to use.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(HasAvx512Bf16),
    #[cfg(target_arch = "x86_64")]
    Avx512(HasAvx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(HasAvx2),
    Plain(Plain),
}

impl Level {
    /// The registers of `isa`, or of the best set below it that the machine has.
    #[inline]
    pub(crate) fn of(isa: Isa) -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let isa = isa.min(Isa::strongest());
            if isa >= Isa::Avx512Bf16 {
                return Level::Avx512Bf16(HasAvx512Bf16(()));
            }
            if isa == Isa::Avx512 {
                return Level::Avx512(HasAvx512(()));
            }
            if isa == Isa::Avx2 {
                return Level::Avx2(HasAvx2(()));
            }
        }
        let _ = isa;
        Level::Plain(Plain)
    }
}

/// Arrays, for any machine: the definition of the result.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

#[inline(always)]
fn zip(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    std::array::from_fn(|l| f(a[l], b[l]))
}

impl Simd for Plain {
    type Value = Lanes;
    type Mask = [bool; LANES];

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Lanes {
        *from
    }

    #[inline(always)]
    fn store(self, value: Lanes, to: &mut Lanes) {
        *to = value;
    }

    #[inline(always)]
    fn load_bf16(self, from: &[Bf16; LANES]) -> Lanes {
        from.map(Bf16::value)
    }

    #[inline(always)]
    fn store_bf16(self, value: Lanes, to: &mut [Bf16; LANES]) {
        *to = value.map(Bf16::cut);
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; LANES]) -> Lanes {
        from.map(f32::from)
    }

    #[inline(always)]
    fn store_bytes(self, value: Lanes, to: &mut [u8; LANES]) {
        *to = value.map(|value| value as u8);
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn sqrt(self, a: Lanes) -> Lanes {
        a.map(f32::sqrt)
    }

    #[inline(always)]
    fn mul_add(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        std::array::from_fn(|l| a[l] * b[l] + c[l])
    }

    #[inline(always)]
    fn relu(self, a: Lanes) -> Lanes {
        a.map(|a| if a < 0.0 { 0.0 } else { a })
    }

    #[inline(always)]
    fn greater(self, a: Lanes, b: Lanes) -> [bool; LANES] {
        std::array::from_fn(|l| a[l] > b[l])
    }

    #[inline(always)]
    fn greater_or_nan(self, a: Lanes, b: Lanes) -> [bool; LANES] {
        std::array::from_fn(|l| a[l] > b[l] || a[l].is_nan())
    }

    #[inline(always)]
    fn equal(self, a: Lanes, b: Lanes) -> [bool; LANES] {
        std::array::from_fn(|l| a[l] == b[l])
    }

    #[inline(always)]
    fn select(self, mask: [bool; LANES], a: Lanes, b: Lanes) -> Lanes {
        std::array::from_fn(|l| if mask[l] { a[l] } else { b[l] })
    }

    #[inline(always)]
    fn round_to_bf16(self, a: Lanes) -> Lanes {
        a.map(round_to_bf16)
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{HasAvx2, HasAvx512, HasAvx512Bf16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Lanes, Simd};
    use crate::dtype::Bf16;
    use crate::dtype::x86::{
        convert_512, cut_256, cut_512, round_256, round_512, widen_256, widen_512,
    };

    /// Declares the proof that a machine has some features.
    macro_rules! proof {
        ($(#[$doc:meta])* $name:ident, $features:literal) => {
            $(#[$doc])*
            #[derive(Clone, Copy)]
            pub(crate) struct $name(pub(super) ());

            impl $name {
                /// Runs `pass` compiled for this set.
                #[inline]
                pub(crate) fn run<R>(self, pass: impl FnOnce() -> R) -> R {
                    #[target_feature(enable = $features)]
                    fn run<R>(pass: impl FnOnce() -> R) -> R {
                        pass()
                    }
                    // SAFETY: `self` exists only where the machine has the features.
                    unsafe { run(pass) }
                }
            }
        };
    }

    proof!(
        /// The machine has AVX-512 F, BW, DQ, VL and BF16.
        HasAvx512Bf16,
        "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma"
    );
    proof!(
        /// The machine has AVX-512 F, BW, DQ and VL.
        HasAvx512,
        "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
    );
    proof!(
        /// The machine has AVX2 and FMA.
        HasAvx2,
        "avx2,fma"
    );

    /// A method that is one expression of intrinsics.
    macro_rules! by {
        ($($name:ident($($arg:ident: $kind:ty),*) -> $result:ty = $body:expr;)*) => {$(
            #[inline(always)]
            fn $name(self, $($arg: $kind),*) -> $result {
                // SAFETY: `self` exists only where the machine has the features; addresses are
                // those of borrowed arrays that are as long as what is read or written.
                unsafe { $body }
            }
        )*};
    }

    /// Implements [`Simd`] by registers of sixteen lanes, rounded by `$round`.
    macro_rules! simd_512 {
        ($name:ident, $round:ident) => {
            impl Simd for $name {
                type Value = __m512;
                type Mask = __mmask16;

                by! {
                    splat(value: f32) -> __m512 = _mm512_set1_ps(value);
                    load(from: &Lanes) -> __m512 = _mm512_loadu_ps(from.as_ptr());
                    store(value: __m512, to: &mut Lanes) -> () = _mm512_storeu_ps(to.as_mut_ptr(), value);
                    load_bf16(from: &[Bf16; LANES]) -> __m512 =
                        widen_512(_mm256_loadu_si256(from.as_ptr().cast()));
                    store_bf16(value: __m512, to: &mut [Bf16; LANES]) -> () =
                        _mm256_storeu_si256(to.as_mut_ptr().cast(), cut_512(value));
                    load_bytes(from: &[u8; LANES]) -> __m512 =
                        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())));
                    store_bytes(value: __m512, to: &mut [u8; LANES]) -> () = _mm_storeu_si128(
                        to.as_mut_ptr().cast(),
                        _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(value)),
                    );
                    add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
                    sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
                    mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
                    div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
                    sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
                    mul_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
                    // The maximum is its second operand if either is NaN.
                    relu(a: __m512) -> __m512 = _mm512_max_ps(_mm512_setzero_ps(), a);
                    greater(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b);
                    greater_or_nan(a: __m512, b: __m512) -> __mmask16 =
                        _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) | _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
                    equal(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b);
                    select(mask: __mmask16, a: __m512, b: __m512) -> __m512 =
                        _mm512_mask_blend_ps(mask, b, a);
                    round_to_bf16(a: __m512) -> __m512 = $round(a);
                }
            }
        };
    }

    simd_512!(HasAvx512, round_512);
    simd_512!(HasAvx512Bf16, convert_512);

    type Pair = [__m256; 2];

    /// Calls `$f` on both halves.
    macro_rules! halves {
        ($f:ident($($arg:expr),*)) => { [$f($($arg[0]),*), $f($($arg[1]),*)] };
    }

    impl Simd for HasAvx2 {
        type Value = Pair;
        type Mask = Pair;

        #[inline(always)]
        fn store_bytes(self, value: Pair, to: &mut [u8; LANES]) {
            *to = self.array(value).map(|value| value as u8);
        }

        by! {
            splat(value: f32) -> Pair = [_mm256_set1_ps(value); 2];
            load(from: &Lanes) -> Pair =
                [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))];
            store(value: Pair, to: &mut Lanes) -> () = {
                _mm256_storeu_ps(to.as_mut_ptr(), value[0]);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), value[1]);
            };
            load_bf16(from: &[Bf16; LANES]) -> Pair = [
                widen_256(_mm_loadu_si128(from.as_ptr().cast())),
                widen_256(_mm_loadu_si128(from.as_ptr().add(8).cast())),
            ];
            store_bf16(value: Pair, to: &mut [Bf16; LANES]) -> () = {
                _mm_storeu_si128(to.as_mut_ptr().cast(), cut_256(value[0]));
                _mm_storeu_si128(to.as_mut_ptr().add(8).cast(), cut_256(value[1]));
            };
            load_bytes(from: &[u8; LANES]) -> Pair = {
                let bytes = _mm_loadu_si128(from.as_ptr().cast());
                [
                    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
                    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes))),
                ]
            };
            add(a: Pair, b: Pair) -> Pair = halves!(_mm256_add_ps(a, b));
            sub(a: Pair, b: Pair) -> Pair = halves!(_mm256_sub_ps(a, b));
            mul(a: Pair, b: Pair) -> Pair = halves!(_mm256_mul_ps(a, b));
            div(a: Pair, b: Pair) -> Pair = halves!(_mm256_div_ps(a, b));
            sqrt(a: Pair) -> Pair = halves!(_mm256_sqrt_ps(a));
            mul_add(a: Pair, b: Pair, c: Pair) -> Pair = halves!(_mm256_fmadd_ps(a, b, c));
            // The maximum is its second operand if either is NaN.
            relu(a: Pair) -> Pair = halves!(_mm256_max_ps([_mm256_setzero_ps(); 2], a));
            greater(a: Pair, b: Pair) -> Pair = [
                _mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0]),
                _mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1]),
            ];
            greater_or_nan(a: Pair, b: Pair) -> Pair = {
                let greater = [
                    _mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0]),
                    _mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1]),
                ];
                let nan = [
                    _mm256_cmp_ps::<_CMP_UNORD_Q>(a[0], a[0]),
                    _mm256_cmp_ps::<_CMP_UNORD_Q>(a[1], a[1]),
                ];
                halves!(_mm256_or_ps(greater, nan))
            };
            equal(a: Pair, b: Pair) -> Pair = [
                _mm256_cmp_ps::<_CMP_EQ_OQ>(a[0], b[0]),
                _mm256_cmp_ps::<_CMP_EQ_OQ>(a[1], b[1]),
            ];
            select(mask: Pair, a: Pair, b: Pair) -> Pair = halves!(_mm256_blendv_ps(b, a, mask));
            round_to_bf16(a: Pair) -> Pair = halves!(round_256(a));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method of one set, on values that include NaN, infinities and zeros of both signs.
    fn all<S: Simd>(s: S) -> Vec<Lanes> {
        let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.5, -1.5, 3.0];
        let a: Lanes = std::array::from_fn(|l| special[l % 8]);
        let b: Lanes = std::array::from_fn(|l| special[(l * 3 + l / 8) % 8]);
        let (x, y) = (s.load(&a), s.load(&b));
        let bytes: [u8; LANES] = std::array::from_fn(|l| 17 * l as u8);
        let mut back = [0; LANES];
        s.store_bytes(s.load_bytes(&bytes), &mut back);
        assert_eq!(bytes, back);
        let mut halves = [Bf16::default(); LANES];
        s.store_bf16(s.mul(x, s.splat(1.0 / 3.0)), &mut halves);
        let pick = |mask| s.select(mask, s.splat(1.0), s.zero());
        let results = [
            s.add(x, y),
            s.sub(x, y),
            s.mul(x, y),
            s.div(x, y),
            s.sqrt(x),
            s.mul_add(x, y, s.splat(2.0)),
            s.relu(x),
            s.round_to_bf16(s.mul(x, s.splat(1.0 / 3.0))),
            pick(s.greater(x, y)),
            pick(s.greater_or_nan(x, y)),
            pick(s.equal(x, y)),
            s.load_bytes(&bytes),
            s.load_bf16(&halves),
        ];
        results.map(|value| s.array(value)).to_vec()
    }

    /// Rounds the numbers of a sweep, sixteen at a time, and writes them as bf16.
    fn rounded<S: Simd>(s: S, sweep: &[Lanes]) -> Vec<f32> {
        let mut rounded = Vec::new();
        for values in sweep {
            let value = s.round_to_bf16(s.load(values));
            let mut halves = [Bf16::default(); LANES];
            s.store_bf16(value, &mut halves);
            let (value, back) = (s.array(value), s.array(s.load_bf16(&halves)));
            assert!(value.iter().zip(back).all(|(a, b)| a.to_bits() == b.to_bits()));
            rounded.extend(value);
        }
        rounded
    }

    #[test]
    fn every_set_rounds_to_the_nearest() {
        let value = |i: u32| f32::from_bits(i.wrapping_mul(2147));
        let sweep: Vec<Lanes> =
            (0..100_000).map(|i| std::array::from_fn(|l| value(16 * i + l as u32))).collect();
        for isa in Isa::available() {
            let found = dispatch!(isa, simd => rounded(simd, &sweep));
            for (&value, found) in sweep.as_flattened().iter().zip(found) {
                let expected = round_to_bf16(value);
                let same = match value {
                    _ if value.is_nan() => found.is_nan(),
                    _ if value.is_subnormal() => found == expected || found == 0.0,
                    _ => found.to_bits() == expected.to_bits(),
                };
                assert!(same, "{isa:?}: {value} became {found}, not {expected}");
            }
        }
    }

    #[test]
    fn sets_agree_lane_by_lane() {
        let expected = all(Plain);
        for isa in Isa::available() {
            let found = dispatch!(isa, simd => all(simd));
            for (found, expected) in found.as_flattened().iter().zip(expected.as_flattened()) {
                let same = found == expected || found.is_nan() && expected.is_nan();
                assert!(same, "{isa:?}: {found} for {expected}");
            }
        }
    }
}

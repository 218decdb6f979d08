//! Values of maps that are bf16 numbers, joined in pairs, sixteen words at a time.
//!
//! Values are bf16 numbers already, in f32 maps too, so that the upper halves of their bits are all of
//! them.

use super::{SIDE, WORDS};
use crate::dtype::Bf16;
use crate::element::Element;
use crate::simd::vector::Vector;

/// Up to sixteen values of up to two steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<E> {
    /// The values of the first step.
    pub first: *const E,
    /// How many they are.
    pub count: usize,
    /// The values of the next step.
    pub next: *const E,
    /// Values of both steps, at most 16.
    pub total: usize,
}

impl<E: Element> Values<E> {
    /// Sixteen neighbours.
    pub(super) fn block(first: *const E) -> Values<E> {
        Values { first, count: SIDE, next: first, total: SIDE }
    }

    /// Value `i`, zero beyond the last.
    ///
    /// # Safety
    /// The values must be readable.
    #[inline(always)]
    unsafe fn get(&self, i: usize) -> Bf16 {
        // SAFETY: the caller vouches for the values.
        unsafe {
            match i {
                i if i < self.count => (*self.first.add(i)).cut(),
                i if i < self.total => (*self.next.add(i - self.count)).cut(),
                _ => Bf16::default(),
            }
        }
    }
}

/// Writes sixteen words: the pairs of neighbours among `first` and those among `second`, eight pairs
/// from each; missing values are zero.
///
/// # Safety
/// The machine must have the instruction set of `V`, the values must be readable, and sixteen words
/// writable.
#[inline(always)]
pub(super) unsafe fn join<V: Vector, E: Element>(
    first: Values<E>,
    second: Values<E>,
    to: *mut u32,
) {
    #[cfg(target_arch = "x86_64")]
    if V::AVX512 {
        // SAFETY: as the caller vouches.
        return unsafe { x86::join(first, second, to) };
    }
    // SAFETY: the caller vouches for the addresses.
    unsafe {
        for (half, values) in [first, second].into_iter().enumerate() {
            for pair in 0..SIDE / 2 {
                let (even, odd) = (values.get(2 * pair), values.get(2 * pair + 1));
                *to.add(half * SIDE / 2 + pair) = word(even, odd);
            }
        }
    }
}

/// Writes sixteen words, each of a value of `first` and one of `second`; missing values are zero.
///
/// # Safety
/// As [`join`].
#[inline(always)]
pub(super) unsafe fn pair<V: Vector, E: Element>(
    first: Values<E>,
    second: Values<E>,
    to: *mut u32,
) {
    #[cfg(target_arch = "x86_64")]
    if V::AVX512 {
        // SAFETY: as the caller vouches.
        return unsafe { x86::pair(first, second, to) };
    }
    // SAFETY: the caller vouches for the addresses.
    unsafe {
        for i in 0..SIDE {
            *to.add(i) = word(first.get(i), second.get(i));
        }
    }
}

/// Swaps rows and columns of a tile of 16x16 words.
///
/// # Safety
/// The machine must have the instruction set of `V`, and the tile must be readable and writable.
#[inline(always)]
pub(super) unsafe fn transpose<V: Vector>(tile: *mut u32) {
    #[cfg(target_arch = "x86_64")]
    if V::AVX512 {
        // SAFETY: as the caller vouches.
        return unsafe { x86::transpose(tile) };
    }
    // SAFETY: the caller vouches for the address.
    let tile = unsafe { &mut *tile.cast::<[u32; WORDS]>() };
    for row in 0..SIDE {
        for column in 0..row {
            tile.swap(row * SIDE + column, column * SIDE + row);
        }
    }
}

/// Two bf16 numbers in one word, the first in the lower half.
#[inline(always)]
pub(super) fn word(first: Bf16, second: Bf16) -> u32 {
    u32::from(first.bits()) | (u32::from(second.bits()) << 16)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::SIDE;
    use super::Values;
    use crate::element::Element;

    /// Sixteen values, those that are missing zero.
    #[inline(always)]
    unsafe fn load<E: Element>(values: Values<E>) -> __m256i {
        let mask = |count: usize| ((1_u32 << count) - 1) as __mmask16;
        // SAFETY: the caller vouches for the set and the values; others are not touched, and nothing
        // is read where the mask is empty.
        unsafe {
            let loaded = E::load_cut(mask(values.count), values.first);
            if values.total == values.count {
                return loaded;
            }
            let rest = mask(values.total) & !mask(values.count);
            let next = E::load_cut(rest, values.next.wrapping_sub(values.count));
            _mm256_or_si256(loaded, next)
        }
    }

    /// [`join`](super::join).
    #[inline(always)]
    pub(super) unsafe fn join<E: Element>(first: Values<E>, second: Values<E>, to: *mut u32) {
        // SAFETY: the caller vouches for the set and the addresses.
        unsafe {
            let first = _mm512_castsi256_si512(load(first));
            let words = _mm512_inserti64x4::<1>(first, load(second));
            _mm512_storeu_si512(to.cast(), words);
        }
    }

    /// [`pair`](super::pair).
    #[inline(always)]
    pub(super) unsafe fn pair<E: Element>(first: Values<E>, second: Values<E>, to: *mut u32) {
        // SAFETY: the caller vouches for the set and the addresses.
        unsafe {
            let even = _mm512_cvtepu16_epi32(load(first));
            let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load(second)));
            _mm512_storeu_si512(to.cast(), _mm512_or_si512(even, odd));
        }
    }

    /// [`transpose`](super::transpose): squares of 2, of 4, of 8 and of 16 in turn.
    #[inline(always)]
    pub(super) unsafe fn transpose(tile: *mut u32) {
        // SAFETY: the caller vouches for the set and the address.
        unsafe {
            let mut rows = [_mm512_setzero_si512(); SIDE];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_si512(tile.add(i * SIDE).cast());
            }
            // Within each quarter of a register: word `c` of four neighbouring rows.
            let mut quads = [_mm512_setzero_si512(); SIDE];
            for i in (0..SIDE).step_by(4) {
                let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
                let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                quads[i] = _mm512_unpacklo_epi64(ab_low, cd_low);
                quads[i + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
                quads[i + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
                quads[i + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
            }
            // Quarter `q` of `quads[4 * i + c]` is the part of rows 4i.. of column 4q + c.
            for c in 0..4 {
                let [a, b] = [quads[c], quads[4 + c]];
                let [x, y] = [quads[8 + c], quads[12 + c]];
                let ab_even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
                let ab_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
                let xy_even = _mm512_shuffle_i32x4::<0b10_00_10_00>(x, y);
                let xy_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(x, y);
                let columns = [
                    _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_even, xy_even),
                    _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_odd, xy_odd),
                    _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_even, xy_even),
                    _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_odd, xy_odd),
                ];
                for (q, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_si512(tile.add((4 * q + c) * SIDE).cast(), column);
                }
            }
        }
    }
}

//! Products of panels of bf16 pairs with f32 sums, by the instructions of the machine.

use super::pieces::PieceSource;
use super::{PANEL, SIDE, WORDS};
use crate::dtype::Bf16;
#[cfg(target_arch = "x86_64")]
use crate::simd::amx;
use crate::simd::isa::Isa;

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conv) enum Multiplier {
    /// Plain Rust: the definition of the result. The others may differ from it by the rounding of f32,
    /// because the order of a sum is free, and they take subnormal numbers for zero.
    Portable,
    /// The dot products of AVX-512 BF16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// The tiles of AMX.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Multiplier {
    /// The best of `isa`.
    pub(in crate::conv) fn of(isa: Isa) -> Multiplier {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Multiplier::Amx,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Multiplier::Avx512Bf16,
            _ => Multiplier::Portable,
        }
    }
}

impl Multiplier {
    /// Whether tiles are read wherever they lie, and not from panels or pixel by pixel.
    pub(in crate::conv) fn reads_tiles(self) -> bool {
        match self {
            Multiplier::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Multiplier::Avx512Bf16 => false,
            #[cfg(target_arch = "x86_64")]
            Multiplier::Amx => true,
        }
    }
}

/// Where the column tiles of a product lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    /// Both tiles of the first step.
    pub tiles: [*const u32; 2],
    /// Words from a step's to the next one's.
    pub stride: usize,
}

impl Columns {
    /// A panel: the two tiles of a step follow one another, and so do the steps.
    pub(super) fn panel(first: *const u32) -> Columns {
        Columns { tiles: [first, first.wrapping_add(WORDS)], stride: 2 * WORDS }
    }
}

/// A multiplier made ready on the thread that holds it.
pub(super) struct Ready(Multiplier);

impl Ready {
    /// Makes `multiplier` ready on this thread.
    ///
    /// # Safety
    /// The machine must have the instructions.
    pub(super) unsafe fn new(multiplier: Multiplier) -> Ready {
        #[cfg(target_arch = "x86_64")]
        if multiplier == Multiplier::Amx {
            // SAFETY: the caller vouches for the machine.
            unsafe { amx::configure() };
        }
        Ready(multiplier)
    }

    /// The products of two row tiles and two column tiles: for each of `depth` steps `rows` holds
    /// two tiles of 16 rows x 16 words, and `columns` names two of 16 words x 16 columns, as each
    /// instruction reads them. `sums` is four tiles of 16x16 f32, `[row tile][column tile]`, that
    /// are overwritten if `fresh` and added to if not.
    ///
    /// # Safety
    /// All addresses must be valid, and `depth` not zero.
    pub(super) unsafe fn multiply(
        &self,
        rows: *const u32,
        columns: Columns,
        depth: usize,
        sums: *mut f32,
        fresh: bool,
    ) {
        // SAFETY: a value exists only where the machine has the instructions; the caller vouches
        // for the addresses.
        unsafe {
            match self.0 {
                Multiplier::Portable => {
                    let row = |step, tile, row| rows.add((2 * step + tile) * WORDS + row * SIDE);
                    portable(row, columns, depth, sums, fresh);
                }
                #[cfg(target_arch = "x86_64")]
                Multiplier::Avx512Bf16 => x86::avx512bf16(rows, columns, depth, sums, fresh),
                #[cfg(target_arch = "x86_64")]
                Multiplier::Amx => {
                    let stride = columns.stride * size_of::<u32>();
                    amx::multiply(rows, columns.tiles, stride, depth, sums, fresh);
                }
            }
        }
    }

    /// Whether [`Ready::multiply_in_place`] can be called.
    pub(super) fn reads_tiles(&self) -> bool {
        self.0.reads_tiles()
    }

    /// As a fresh [`Ready::multiply`] of two row tiles that lie anywhere: their rows are `pitch` bytes
    /// apart, and for step `i` they start `steps[i]` bytes behind `rows`.
    ///
    /// # Safety
    /// As [`Ready::multiply`]; [`Ready::reads_tiles`] must hold.
    pub(super) unsafe fn multiply_in_place(
        &self,
        rows: [*const u8; 2],
        pitch: usize,
        steps: &[usize],
        columns: *const u32,
        sums: *mut f32,
    ) {
        #[cfg(target_arch = "x86_64")]
        if self.0 == Multiplier::Amx {
            // SAFETY: as the caller vouches.
            return unsafe { amx::multiply_in_place(rows, pitch, steps, columns, sums) };
        }
        debug_assert!(self.reads_tiles());
        let row = |step: usize, tile: usize, row: usize| {
            rows[tile].wrapping_add(steps[step] + row * pitch).cast()
        };
        // SAFETY: as the caller vouches.
        unsafe { portable(row, Columns::panel(columns), steps.len(), sums, true) }
    }

    /// Whether [`Ready::multiply_map`] can be called.
    pub(super) fn reads_maps(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Multiplier::Avx512Bf16;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// As a fresh [`Ready::multiply`] of rows that lie in a map: those of the windows from `rows` on,
    /// where `sources` are blocks of channels, or nothing.
    ///
    /// # Safety
    /// As [`Ready::multiply`]; [`Ready::reads_maps`] must hold.
    pub(super) unsafe fn multiply_map(
        &self,
        rows: &[*const Bf16; PANEL],
        sources: &[[PieceSource; 2]],
        columns: *const u32,
        sums: *mut f32,
    ) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller vouches for the addresses and the instructions.
        unsafe {
            x86::avx512bf16_map(rows, sources, columns, sums)
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (rows, sources, columns, sums);
            unreachable!("no multiplier of this machine reads maps")
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.0 == Multiplier::Amx {
            // SAFETY: a value exists only where the machine has the instructions.
            unsafe { amx::release() };
        }
    }
}

/// Adds products to four tiles of sums; `row` says where the words of a step's row of a tile lie.
///
/// # Safety
/// As [`Ready::multiply`].
unsafe fn portable(
    row: impl Fn(usize, usize, usize) -> *const u32,
    columns: Columns,
    depth: usize,
    sums: *mut f32,
    fresh: bool,
) {
    let halves = |word: u32| (f32::from_bits(word << 16), f32::from_bits(word & 0xFFFF_0000));
    for tile in 0..4 {
        let (row_tile, column_tile) = (tile / 2, tile % 2);
        for index in 0..SIDE {
            // SAFETY: the caller vouches for every address.
            let sums = unsafe { &mut *sums.add(tile * WORDS + index * SIDE).cast::<[f32; SIDE]>() };
            if fresh {
                sums.fill(0.0);
            }
            for step in 0..depth {
                let words = row(step, row_tile, index);
                for k in 0..SIDE {
                    // SAFETY: as above.
                    let (word, columns) = unsafe {
                        let columns = columns.tiles[column_tile].add(step * columns.stride);
                        let columns = columns.add(k * SIDE).cast::<[u32; SIDE]>();
                        (words.add(k).read_unaligned(), &*columns)
                    };
                    let (even, odd) = halves(word);
                    for (sum, &column) in sums.iter_mut().zip(columns) {
                        let (first, second) = halves(column);
                        *sum += even * first + odd * second;
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Bf16, Columns, PANEL, PieceSource, SIDE, WORDS};

    /// Rows of a register tile of [`avx512bf16`]: with two columns of 16 sums, two of words and what
    /// hides their latency, half of the registers.
    const ROWS: usize = 8;

    /// Sums of some rows with both column tiles.
    type Sums = [[__m512; 2]; ROWS];

    /// Where row `row` of a panel keeps its sums with a column tile.
    fn place(sums: *mut f32, row: usize, column_tile: usize) -> *mut f32 {
        let (row_tile, row) = (row / SIDE, row % SIDE);
        sums.wrapping_add((2 * row_tile + column_tile) * WORDS + row * SIDE)
    }

    /// Adds the products of the first `K` words at each of `rows` with as many of both column tiles.
    ///
    /// # Safety
    /// The machine must have AVX-512 BF16, and the words must be readable.
    #[inline(always)]
    unsafe fn add<const K: usize>(
        sums: &mut Sums,
        rows: [*const u32; ROWS],
        columns: [*const u32; 2],
    ) {
        // SAFETY: as the caller vouches; the types are 512 bits of any content.
        unsafe {
            let load = |from: *const u32| {
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast()))
            };
            for k in 0..K {
                let [first, second] = columns.map(|tile| load(tile.add(k * SIDE)));
                for (row, sums) in rows.iter().zip(&mut *sums) {
                    let word = _mm512_set1_epi32(row.add(k).read_unaligned() as i32);
                    let word = std::mem::transmute::<__m512i, __m512bh>(word);
                    sums[0] = _mm512_dpbf16_ps(sums[0], word, first);
                    sums[1] = _mm512_dpbf16_ps(sums[1], word, second);
                }
            }
        }
    }

    /// Writes the sums of the rows from `first` on.
    ///
    /// # Safety
    /// As [`add`]; four tiles must be writable at `to`.
    #[inline(always)]
    unsafe fn store(sums: &Sums, first: usize, to: *mut f32) {
        for (i, pair) in sums.iter().enumerate() {
            for (column_tile, sum) in pair.iter().enumerate() {
                // SAFETY: as the caller vouches.
                unsafe { _mm512_storeu_ps(place(to, first + i, column_tile), *sum) };
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn avx512bf16(
        rows: *const u32,
        columns: Columns,
        depth: usize,
        to: *mut f32,
        fresh: bool,
    ) {
        // SAFETY: the caller vouches for every address.
        unsafe {
            for first in (0..PANEL).step_by(ROWS) {
                let rows = rows.add(first / SIDE * WORDS + first % SIDE * SIDE);
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                if !fresh {
                    for (i, pair) in sums.iter_mut().enumerate() {
                        for (column_tile, sum) in pair.iter_mut().enumerate() {
                            *sum = _mm512_loadu_ps(place(to, first + i, column_tile));
                        }
                    }
                }
                for step in 0..depth {
                    let at = 2 * step * WORDS;
                    let rows = std::array::from_fn(|i| rows.wrapping_add(at + i * SIDE));
                    let columns = columns.tiles.map(|tile| tile.add(step * columns.stride));
                    add::<SIDE>(&mut sums, rows, columns);
                }
                store(&sums, first, to);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn avx512bf16_map(
        rows: &[*const Bf16; PANEL],
        sources: &[[PieceSource; 2]],
        columns: *const u32,
        to: *mut f32,
    ) {
        // SAFETY: the caller vouches for every address.
        unsafe {
            for first in (0..PANEL).step_by(ROWS) {
                let windows: [*const Bf16; ROWS] = std::array::from_fn(|i| rows[first + i]);
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                for (step, pieces) in sources.iter().enumerate() {
                    for (half, piece) in pieces.iter().enumerate() {
                        if piece.total == 0 {
                            continue;
                        }
                        let rows = windows.map(|window| window.wrapping_add(piece.offset).cast());
                        let first = columns.add(2 * step * WORDS + half * WORDS / 2);
                        add::<{ SIDE / 2 }>(&mut sums, rows, [first, first.add(WORDS)]);
                    }
                }
                store(&sums, first, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::round_to_bf16;

    fn values(len: usize) -> Vec<f32> {
        let value = |i: usize| round_to_bf16((i * 7919 % 1009) as f32 / 500.0 - 1.0);
        (0..len).map(value).collect()
    }

    /// Every multiplier of this machine against sums in f64.
    #[test]
    fn products_are_sums_of_products() {
        let depth = 3;
        let k = 2 * SIDE * depth;
        let (a, b) = (values(2 * SIDE * k), values(2 * SIDE * k + 5)[5..].to_vec());
        let word = |first, second| super::super::words::word(Bf16::cut(first), Bf16::cut(second));
        // a is [32 rows][k], b is [k][32 columns].
        let (mut rows, mut columns) = (vec![0; 2 * depth * WORDS], vec![0; 2 * depth * WORDS]);
        for step in 0..depth {
            for half in 0..2 {
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        let at = (2 * step + half) * WORDS + i * SIDE + j;
                        let row = &a[(half * SIDE + i) * k + 2 * (step * SIDE + j)..];
                        rows[at] = word(row[0], row[1]);
                        let column = &b[2 * (step * SIDE + i) * 2 * SIDE + half * SIDE + j..];
                        columns[at] = word(column[0], column[2 * SIDE]);
                    }
                }
            }
        }
        for isa in Isa::available() {
            for fresh in [true, false] {
                let mut sums = vec![2.0; 4 * WORDS];
                // SAFETY: the machine has the set, and the slices hold what is read and written.
                unsafe {
                    let ready = Ready::new(Multiplier::of(isa));
                    let columns = Columns::panel(columns.as_ptr());
                    ready.multiply(rows.as_ptr(), columns, depth, sums.as_mut_ptr(), fresh);
                }
                for (at, &found) in sums.iter().enumerate() {
                    let (tile, row, column) = (at / WORDS, at % WORDS / SIDE, at % SIDE);
                    let row = tile / 2 * SIDE + row;
                    let column = tile % 2 * SIDE + column;
                    let product =
                        |i| f64::from(a[row * k + i]) * f64::from(b[i * 2 * SIDE + column]);
                    let expected: f64 = (0..k).map(product).sum();
                    let expected = if fresh { expected } else { expected + 2.0 };
                    let error = (f64::from(found) - expected).abs();
                    assert!(error < 1e-4, "{isa:?}, {fresh}, {row}, {column}: {found} {expected}");
                }
            }
        }
    }
}

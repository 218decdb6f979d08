//! Which rank adds up which values: each gets a segment from all, and hands its sums to all. A rank sends and
//! receives 2 (N - 1) / N times the values in all, as in a ring.

use std::ops::Range;

/// The segment of `rank` of `n` values over `size` ranks: the first `n % size` have one value more.
///
/// # Panics
/// If `rank` is not below `size`.
pub fn segment(n: usize, size: usize, rank: usize) -> Range<usize> {
    assert!(rank < size, "rank {rank} of {size}");
    let (each, more) = (n / size, n % size);
    let start = rank * each + rank.min(more);
    start..start + each + usize::from(rank < more)
}

/// Adds the segments of the ranks, which stand one behind the other in `parts`, from the first on.
///
/// # Panics
/// If `parts` has not as many values as `size` segments like `sum`.
pub fn add_in_order(parts: &[f32], size: usize, sum: &mut [f32]) {
    assert_eq!(parts.len(), size * sum.len(), "segments of {size} ranks");
    if sum.is_empty() {
        return;
    }
    for (rank, part) in parts.chunks_exact(sum.len()).enumerate() {
        match rank {
            0 => sum.copy_from_slice(part),
            _ => sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_all_values_once() {
        for (n, size) in [(0, 3), (1, 3), (2, 3), (3, 3), (10, 4), (11_194_984, 7)] {
            let segments: Vec<_> = (0..size).map(|rank| segment(n, size, rank)).collect();
            assert_eq!(segments[0].start, 0);
            assert!(segments.windows(2).all(|pair| pair[0].end == pair[1].start), "{n} {size}");
            assert_eq!(segments[size - 1].end, n);
            let lens = segments.iter().map(ExactSizeIterator::len);
            assert!(lens.clone().max().unwrap() - lens.min().unwrap() <= 1, "{n} {size}");
        }
    }

    #[test]
    fn sums_are_those_of_a_plain_loop() {
        // In another order the small values would be lost, or not.
        let parts = [1e8_f32, 1.0, -1e8, 2.0, 1.0, 4.0];
        let mut sum = [0.0; 2];
        add_in_order(&parts, 3, &mut sum);
        assert_eq!(sum, [(1e8_f32 + -1e8) + 1.0, (1.0 + 2.0) + 4.0]);
        add_in_order(&[], 3, &mut []);
    }
}

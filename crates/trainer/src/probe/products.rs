//! The two products of a logistic regression over a block of rows, in f64. Each sum has one order, whatever
//! the number of threads.

/// `out[row][class]` becomes the product of a row and that class's `weights`; both are `channels` long.
pub(super) fn multiply(rows: &[f64], weights: &[f64], channels: usize, out: &mut [f64]) {
    let classes = weights.len() / channels;
    let (fours, rest) = weights.split_at(classes / 4 * 4 * channels);
    for (four, weights) in fours.chunks_exact(4 * channels).enumerate() {
        let class = |at: usize| &weights[at * channels..][..channels];
        let weights = [class(0), class(1), class(2), class(3)];
        for (row, out) in rows.chunks_exact(channels).zip(out.chunks_exact_mut(classes)) {
            out[4 * four..][..4].copy_from_slice(&dots(row, weights));
        }
    }
    for (at, weights) in rest.chunks_exact(channels).enumerate() {
        for (row, out) in rows.chunks_exact(channels).zip(out.chunks_exact_mut(classes)) {
            [out[classes / 4 * 4 + at]] = dots(row, [weights]);
        }
    }
}

/// The products of a row with `N` others. Four sums for each, which a processor adds at once.
fn dots<const N: usize>(row: &[f64], others: [&[f64]; N]) -> [f64; N] {
    let mut sums = [[0.0; 4]; N];
    let whole = row.len() / 4 * 4;
    let others = others.map(|other| &other[..row.len()]);
    for at in (0..whole).step_by(4) {
        for (sums, other) in sums.iter_mut().zip(&others) {
            for lane in 0..4 {
                sums[lane] += row[at + lane] * other[at + lane];
            }
        }
    }
    let mut products = sums.map(|[a, b, c, d]| (a + b) + (c + d));
    for (product, other) in products.iter_mut().zip(&others) {
        for at in whole..row.len() {
            *product += row[at] * other[at];
        }
    }
    products
}

/// Adds to `sums`, which is a class's, every row times its factor, which `factor` tells.
pub(super) fn add_weighted(
    rows: &[f64],
    channels: usize,
    factor: impl Fn(usize) -> f64,
    sums: &mut [f64],
) {
    let mut fours = rows.chunks_exact(4 * channels);
    let mut first = 0;
    for four in &mut fours {
        let row = |at: usize| &four[at * channels..][..channels];
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        let [fa, fb, fc, fd] = [0, 1, 2, 3].map(|at| factor(first + at));
        for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *sum += (fa * a + fb * b) + (fc * c + fd * d);
        }
        first += 4;
    }
    for (at, row) in fours.remainder().chunks_exact(channels).enumerate() {
        let factor = factor(first + at);
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_plain_loops() {
        let numbers = |n: usize, step: usize| -> Vec<f64> {
            (0..n).map(|at| ((at * step) % 17) as f64 / 8.0 - 1.0).collect()
        };
        for (n, classes, channels) in [(1, 1, 1), (3, 2, 5), (9, 7, 8), (6, 4, 13), (4, 9, 4)] {
            let (rows, weights) = (numbers(n * channels, 7), numbers(classes * channels, 5));
            let mut out = vec![f64::NAN; n * classes];
            multiply(&rows, &weights, channels, &mut out);
            for row in 0..n {
                for class in 0..classes {
                    let product = |at| rows[row * channels + at] * weights[class * channels + at];
                    let expected: f64 = (0..channels).map(product).sum();
                    assert!((out[row * classes + class] - expected).abs() < 1e-12);
                }
            }
            let mut sums = vec![0.5; channels];
            add_weighted(&rows, channels, |row| row as f64 - 1.0, &mut sums);
            for (at, sum) in sums.iter().enumerate() {
                let part = |row| (row as f64 - 1.0) * rows[row * channels + at];
                let expected = 0.5 + (0..n).map(part).sum::<f64>();
                assert!((sum - expected).abs() < 1e-12);
            }
        }
    }
}

//! The transforms of F(4x4, 3x3), with the matrices of Lavin & Gray 2015
//! (<https://arxiv.org/abs/1509.09308>, section 4.3): points 0, 1, -1, 2, -2 and infinity.
//!
//! In one dimension, outputs are y = A^T [(G g) * (B^T d)] for a filter g and inputs d; in two, each
//! transform is applied to the columns and then to the rows. The gradient of the filter is the
//! transposed algorithm: dg = G^T [(A dy) * (B^T d)].

use crate::element::Element;
use crate::simd::vector::Vector;

/// Outputs of a tile along one dimension.
pub(super) const OUT: usize = 4;
/// Inputs of a tile along one dimension, and products.
pub(super) const IN: usize = 6;
/// Products of a two-dimensional tile.
pub(super) const POINTS: usize = IN * IN;

/// A transform of `I` values into `O`.
pub(super) trait Transform<const I: usize, const O: usize> {
    /// Transforms each lane.
    fn apply<V: Vector>(values: [V; I]) -> [V; O];
}

/// Applies a transform to the columns and then to the rows.
///
/// A type names the transform, and all loops are plain: a closure or an array combinator that is
/// not inlined is compiled without the vector instructions, ten times slower.
#[inline(always)]
pub(super) fn both<T: Transform<I, O>, V: Vector, const I: usize, const O: usize>(
    tile: &[[V; I]; I],
) -> [[V; O]; O] {
    // SAFETY: a value of V exists, so the machine has its instruction set.
    let zero = unsafe { V::splat(0.0) };
    let mut columns = [[zero; I]; O];
    for c in 0..I {
        let mut column = [zero; I];
        for r in 0..I {
            column[r] = tile[r][c];
        }
        let column = T::apply(column);
        for r in 0..O {
            columns[r][c] = column[r];
        }
    }
    let mut result = [[zero; O]; O];
    for r in 0..O {
        result[r] = T::apply(columns[r]);
    }
    result
}

/// Reads a tile of `N` x `N` vectors whose rows and columns lie `row` and `column` elements apart.
///
/// # Safety
/// The machine must have the instruction set of `V`, and every vector must be readable.
#[inline(always)]
pub(super) unsafe fn load<E: Element, V: Vector, const N: usize>(
    from: *const E,
    row: usize,
    column: usize,
) -> [[V; N]; N] {
    // SAFETY: the caller vouches for the addresses and the instruction set.
    unsafe {
        let mut tile = [[V::splat(0.0); N]; N];
        for r in 0..N {
            for c in 0..N {
                tile[r][c] = E::load_vector(from.add(r * row + c * column));
            }
        }
        tile
    }
}

/// B^T d.
pub(super) struct Input;

impl Transform<IN, IN> for Input {
    #[inline(always)]
    fn apply<V: Vector>(d: [V; IN]) -> [V; IN] {
        // SAFETY: a value of V exists, so the machine has its instruction set.
        let (two, minus4, four, minus5) =
            unsafe { (V::splat(2.0), V::splat(-4.0), V::splat(4.0), V::splat(-5.0)) };
        let even = d[2].mul_add(minus4, d[4]);
        let odd = d[1].mul_add(minus4, d[3]);
        let even2 = d[4].sub(d[2]);
        let odd2 = d[3].sub(d[1]);
        [
            d[0].mul_add(four, d[2].mul_add(minus5, d[4])),
            even.add(odd),
            even.sub(odd),
            odd2.mul_add(two, even2),
            even2.sub(odd2.mul(two)),
            d[1].mul_add(four, d[3].mul_add(minus5, d[5])),
        ]
    }
}

/// A^T m.
pub(super) struct Output;

impl Transform<IN, OUT> for Output {
    #[inline(always)]
    fn apply<V: Vector>(m: [V; IN]) -> [V; OUT] {
        // SAFETY: a value of V exists, so the machine has its instruction set.
        let (two, four, eight) = unsafe { (V::splat(2.0), V::splat(4.0), V::splat(8.0)) };
        let (sum1, difference1) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (sum2, difference2) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(sum1).add(sum2),
            difference2.mul_add(two, difference1),
            sum2.mul_add(four, sum1),
            difference2.mul_add(eight, difference1.add(m[5])),
        ]
    }
}

/// A dy.
pub(super) struct OutputGradient;

impl Transform<OUT, IN> for OutputGradient {
    #[inline(always)]
    fn apply<V: Vector>(y: [V; OUT]) -> [V; IN] {
        // SAFETY: a value of V exists, so the machine has its instruction set.
        let (two, four) = unsafe { (V::splat(2.0), V::splat(4.0)) };
        let (even, odd) = (y[0].add(y[2]), y[1].add(y[3]));
        let even2 = y[2].mul_add(four, y[0]);
        let odd2 = y[3].mul_add(four, y[1]).mul(two);
        [y[0], even.add(odd), even.sub(odd), even2.add(odd2), even2.sub(odd2), y[3]]
    }
}

/// G g.
pub(super) struct Filter;

impl Transform<3, IN> for Filter {
    #[inline(always)]
    fn apply<V: Vector>(g: [V; 3]) -> [V; IN] {
        // SAFETY: a value of V exists, so the machine has its instruction set.
        let (quarter, sixth, twelfth, twenty_fourth) = unsafe {
            (V::splat(1.0 / 4.0), V::splat(1.0 / 6.0), V::splat(1.0 / 12.0), V::splat(1.0 / 24.0))
        };
        let minus_sixth = sixth.sub(sixth).sub(sixth);
        let even = g[0].add(g[2]).mul(minus_sixth);
        let odd = g[1].mul(minus_sixth);
        let even2 = g[0].mul_add(twenty_fourth, g[2].mul(sixth));
        let odd2 = g[1].mul(twelfth);
        [g[0].mul(quarter), even.add(odd), even.sub(odd), even2.add(odd2), even2.sub(odd2), g[2]]
    }
}

/// G^T u.
pub(super) struct FilterGradient;

impl Transform<IN, 3> for FilterGradient {
    #[inline(always)]
    fn apply<V: Vector>(u: [V; IN]) -> [V; 3] {
        // SAFETY: a value of V exists, so the machine has its instruction set.
        let (quarter, sixth, twelfth, twenty_fourth) = unsafe {
            (V::splat(1.0 / 4.0), V::splat(1.0 / 6.0), V::splat(1.0 / 12.0), V::splat(1.0 / 24.0))
        };
        let (sum1, difference1) = (u[1].add(u[2]).mul(sixth), u[2].sub(u[1]).mul(sixth));
        let (sum2, difference2) = (u[3].add(u[4]), u[3].sub(u[4]));
        [
            sum2.mul_add(twenty_fourth, u[0].mul(quarter).sub(sum1)),
            difference2.mul_add(twelfth, difference1),
            sum2.mul_add(sixth, u[5].sub(sum1)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::vector::Portable;

    const B_T: [[f32; 6]; 6] = [
        [4., 0., -5., 0., 1., 0.],
        [0., -4., -4., 1., 1., 0.],
        [0., 4., -4., -1., 1., 0.],
        [0., -2., -1., 2., 1., 0.],
        [0., 2., -1., -2., 1., 0.],
        [0., 4., 0., -5., 0., 1.],
    ];
    const A_T: [[f32; 6]; 4] = [
        [1., 1., 1., 1., 1., 0.],
        [0., 1., -1., 2., -2., 0.],
        [0., 1., 1., 4., 4., 0.],
        [0., 1., -1., 8., -8., 1.],
    ];
    const G: [[f32; 3]; 6] = [
        [1. / 4., 0., 0.],
        [-1. / 6., -1. / 6., -1. / 6.],
        [-1. / 6., 1. / 6., -1. / 6.],
        [1. / 24., 1. / 12., 1. / 6.],
        [1. / 24., -1. / 12., 1. / 6.],
        [0., 0., 1.],
    ];

    /// The matrix of a transform, read off from the unit vectors.
    fn matrix<T: Transform<I, O>, const I: usize, const O: usize>() -> [[f32; I]; O] {
        let mut matrix = [[0.0; I]; O];
        for i in 0..I {
            // SAFETY: the portable vector runs everywhere, and four values are written.
            unsafe {
                let unit = std::array::from_fn(|j| Portable::splat(f32::from(j == i)));
                for (o, value) in T::apply(unit).into_iter().enumerate() {
                    let mut lanes = [0.0; 4];
                    value.store(lanes.as_mut_ptr());
                    matrix[o][i] = lanes[0];
                }
            }
        }
        matrix
    }

    fn transpose<const I: usize, const O: usize>(matrix: [[f32; I]; O]) -> [[f32; O]; I] {
        std::array::from_fn(|i| std::array::from_fn(|o| matrix[o][i]))
    }

    #[test]
    fn transforms_are_the_published_matrices() {
        assert_eq!(matrix::<Input, _, _>(), B_T);
        assert_eq!(matrix::<Output, _, _>(), A_T);
        assert_eq!(matrix::<OutputGradient, _, _>(), transpose(A_T));
        assert_eq!(matrix::<Filter, _, _>(), G);
        assert_eq!(matrix::<FilterGradient, _, _>(), transpose(G));
    }
}

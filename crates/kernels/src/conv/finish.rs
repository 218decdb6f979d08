//! What is done to a tile of results on its way to memory, whichever algorithm computed it.

use crate::activation::{Activation, sigmoid};
use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::BLOCK;
use crate::simd::vector::Vector;
use crate::team::share::Shared;

/// The steps after the sum, in this order: bias, activation, addition to the target, rounding, sums for
/// batch norm.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    /// One value per output channel to add.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias; `None` leaves values as they are.
    pub activation: Option<Activation>,
    /// Format that results are rounded to, as that of the target does in any case.
    pub dtype: Dtype,
    /// Whether to add to what the target holds.
    pub accumulate: bool,
    /// Where each unit of work leaves the sums and sums of squares of its results for batch norm,
    /// `[unit][2][k]`.
    pub sums: Option<Shared<'a>>,
}

impl Finish<'_> {
    /// Finishes and stores the first `valid` of `PX` pixels. A pixel's `NV` vectors belong to the
    /// channels from `channel` on; those of the second block lie `plane` elements behind the first.
    /// Sums and sums of squares are added to `sums` where they are wanted.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`; every vector of a valid target must be
    /// writable, and the bias must reach beyond the last channel.
    #[inline(always)]
    pub(super) unsafe fn store<E: Element, V: Vector, const PX: usize, const NV: usize>(
        &self,
        tile: &mut [[V; NV]; PX],
        target: &[*mut E; PX],
        plane: usize,
        valid: usize,
        channel: usize,
        sums: &mut [[V; NV]; 2],
    ) {
        let lane = |v: usize| (v * V::LANES / BLOCK) * plane + v * V::LANES % BLOCK;
        // SAFETY: the caller vouches for the targets, the bias and the instruction set.
        unsafe {
            if let Some(bias) = self.bias {
                for v in 0..NV {
                    let bias = V::load(bias.as_ptr().add(channel + v * V::LANES));
                    for p in 0..PX {
                        tile[p][v] = tile[p][v].add(bias);
                    }
                }
            }
            if self.activation == Some(Activation::Relu) {
                let zero = V::splat(0.0);
                for p in 0..PX {
                    for v in 0..NV {
                        tile[p][v] = tile[p][v].at_least(zero);
                    }
                }
            }
            if self.activation == Some(Activation::Sigmoid) {
                for p in 0..PX {
                    for v in 0..NV {
                        let mut values = [0.0; BLOCK];
                        tile[p][v].store(values.as_mut_ptr());
                        values[..V::LANES].iter_mut().for_each(|value| *value = sigmoid(*value));
                        tile[p][v] = V::load(values.as_ptr());
                    }
                }
            }
            if self.accumulate {
                for p in 0..PX {
                    for v in 0..NV {
                        tile[p][v] = tile[p][v].add(E::load_vector(target[p].add(lane(v))));
                    }
                }
            }
            if self.dtype == Dtype::Bf16 || E::DTYPE == Dtype::Bf16 {
                for p in 0..PX {
                    for v in 0..NV {
                        tile[p][v] = tile[p][v].round_to_bf16();
                    }
                }
            }
            if valid == PX {
                for p in 0..PX {
                    for v in 0..NV {
                        E::store_cut(tile[p][v], target[p].add(lane(v)));
                    }
                }
            } else {
                for p in 0..valid {
                    for v in 0..NV {
                        E::store_cut(tile[p][v], target[p].add(lane(v)));
                    }
                }
            }
            if self.sums.is_some() {
                // The tile is summed first: short sums round less.
                let zero = V::splat(0.0);
                let mut tile_sums = [[zero; NV]; 2];
                for p in 0..PX {
                    for v in 0..NV {
                        let value = if p < valid { tile[p][v] } else { zero };
                        tile_sums[0][v] = tile_sums[0][v].add(value);
                        tile_sums[1][v] = value.mul_add(value, tile_sums[1][v]);
                    }
                }
                for (sum, tile_sum) in sums.iter_mut().zip(tile_sums) {
                    for v in 0..NV {
                        sum[v] = sum[v].add(tile_sum[v]);
                    }
                }
            }
        }
    }
}

//! 3x3 pools as an operation of candle, by plain loops in f64.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::pointwise::{from_f64, to_f64};
use crate::layer::{Pool, PoolKind};

/// A 3x3 pool over `[n, c, h, w]`, with the padding rule of [`Pool`].
///
/// The gradient of a maximum goes to one place of each window: the first in reading order that holds
/// the maximum, as in PyTorch. The average counts places outside the map as zero.
#[derive(Clone, Copy, Debug)]
pub struct PoolOp(pub Pool);

impl PoolOp {
    /// Calls `visit(plane, output place, row range, column range)` for every window.
    fn windows(
        &self,
        planes: usize,
        (h, w): (usize, usize),
        mut visit: impl FnMut(usize, usize, std::ops::Range<usize>, std::ops::Range<usize>),
    ) {
        let (out_h, out_w) = (self.0.output_len(h), self.0.output_len(w));
        for plane in 0..planes {
            for p in 0..out_h {
                for q in 0..out_w {
                    let place = (plane * out_h + p) * out_w + q;
                    visit(plane, place, self.0.window(p, h), self.0.window(q, w));
                }
            }
        }
    }
}

impl CustomOp1 for PoolOp {
    fn name(&self) -> &'static str {
        "pool3x3"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = layout.shape().dims4()?;
        let x = to_f64(storage, layout)?;
        let (out_h, out_w) = (self.0.output_len(h), self.0.output_len(w));
        let mut y = vec![0.0; n * c * out_h * out_w];
        self.windows(n * c, (h, w), |plane, place, rows, columns| {
            let values = rows
                .flat_map(|r| columns.clone().map(move |s| (r, s)))
                .map(|(r, s)| x[(plane * h + r) * w + s]);
            y[place] = match self.0.kind {
                PoolKind::Max => values.fold(f64::NEG_INFINITY, larger),
                PoolKind::Average => values.sum::<f64>() / (Pool::KERNEL * Pool::KERNEL) as f64,
            };
        });
        Ok((from_f64(y, storage)?, (n, c, out_h, out_w).into()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let (n, c, h, w) = arg.dims4()?;
        let f64_values = |tensor: &Tensor| -> Result<Vec<f64>> {
            tensor.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1()
        };
        let (x, dy) = (f64_values(arg)?, f64_values(grad_res)?);
        let mut dx = vec![0.0; x.len()];
        self.windows(n * c, (h, w), |plane, place, rows, columns| {
            let at = |r: usize, s: usize| (plane * h + r) * w + s;
            match self.0.kind {
                PoolKind::Max => {
                    let mut best = at(rows.start, columns.start);
                    for r in rows {
                        for s in columns.clone() {
                            if x[at(r, s)] > x[best] || x[at(r, s)].is_nan() {
                                best = at(r, s);
                            }
                        }
                    }
                    dx[best] += dy[place];
                }
                PoolKind::Average => {
                    for r in rows {
                        for s in columns.clone() {
                            dx[at(r, s)] += dy[place] / (Pool::KERNEL * Pool::KERNEL) as f64;
                        }
                    }
                }
            }
        });
        let dx = Tensor::from_vec(dx, arg.shape(), arg.device())?;
        Ok(Some(dx.to_dtype(arg.dtype())?))
    }
}

/// The larger of two values; not-a-number wins, so that a broken activation is not hidden.
fn larger(best: f64, value: f64) -> f64 {
    if value > best || value.is_nan() { value } else { best }
}

//! The average pool of auxiliary heads as an operation of candle, by plain loops in f64.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::pointwise::{from_f64, to_f64};
use crate::layer::AuxPool;

/// The mean of each window of [`AuxPool`] over `[n, c, h, w]`.
#[derive(Clone, Copy, Debug)]
pub struct AuxPoolOp(pub AuxPool);

impl AuxPoolOp {
    /// Calls `visit(output place, place of the window)` for every place of every window.
    fn places(&self, planes: usize, (h, w): (usize, usize), mut visit: impl FnMut(usize, usize)) {
        let (out_h, out_w) = (self.0.output_len(h), self.0.output_len(w));
        for plane in 0..planes {
            for p in 0..out_h {
                for q in 0..out_w {
                    for r in self.0.window(p, h) {
                        for s in self.0.window(q, w) {
                            visit((plane * out_h + p) * out_w + q, (plane * h + r) * w + s);
                        }
                    }
                }
            }
        }
    }

    /// Weight of a place in its mean.
    fn share(&self, (h, w): (usize, usize)) -> f64 {
        1.0 / (self.0.window_len(h) * self.0.window_len(w)) as f64
    }
}

impl CustomOp1 for AuxPoolOp {
    fn name(&self) -> &'static str {
        "aux_pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = layout.shape().dims4()?;
        let x = to_f64(storage, layout)?;
        let (out_h, out_w) = (self.0.output_len(h), self.0.output_len(w));
        let mut y = vec![0.0; n * c * out_h * out_w];
        self.places(n * c, (h, w), |out, place| y[out] += x[place] * self.share((h, w)));
        Ok((from_f64(y, storage)?, (n, c, out_h, out_w).into()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let (n, c, h, w) = arg.dims4()?;
        let dy: Vec<f64> = grad_res.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        let mut dx = vec![0.0; n * c * h * w];
        self.places(n * c, (h, w), |out, place| dx[place] += dy[out] * self.share((h, w)));
        let dx = Tensor::from_vec(dx, arg.shape(), arg.device())?;
        Ok(Some(dx.to_dtype(arg.dtype())?))
    }
}

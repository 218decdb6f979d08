//! Local response normalisation as an operation of candle, by plain loops in f64.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::pointwise::{from_f64, to_f64};
use crate::layer::Lrn;

/// LRN over the channels of `[n, c, h, w]`.
#[derive(Clone, Copy, Debug)]
pub struct LrnOp(pub Lrn);

impl LrnOp {
    /// The normaliser `1 + alpha / size * sum of squares` of every value.
    fn scale(&self, x: &[f64], (n, c, pixels): (usize, usize, usize)) -> Vec<f64> {
        let mut scale = vec![1.0; x.len()];
        for image in 0..n {
            for channel in 0..c {
                for neighbour in self.neighbours(channel, c) {
                    for pixel in 0..pixels {
                        let value = x[(image * c + neighbour) * pixels + pixel];
                        scale[(image * c + channel) * pixels + pixel] +=
                            self.0.alpha / self.0.size as f64 * value * value;
                    }
                }
            }
        }
        scale
    }

    /// The channels summed over for `channel`; symmetric for the odd sizes in use.
    fn neighbours(&self, channel: usize, c: usize) -> std::ops::Range<usize> {
        let half = self.0.size / 2;
        channel.saturating_sub(half)..(channel + half + 1).min(c)
    }
}

impl CustomOp1 for LrnOp {
    fn name(&self) -> &'static str {
        "lrn"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = layout.shape().dims4()?;
        let x = to_f64(storage, layout)?;
        let scale = self.scale(&x, (n, c, h * w));
        let y = x.iter().zip(&scale).map(|(x, scale)| x * scale.powf(-self.0.beta)).collect();
        Ok((from_f64(y, storage)?, layout.shape().clone()))
    }

    /// `dx_i = dy_i s_i^-beta - 2 alpha beta / size * x_i * sum_j dy_j x_j s_j^(-beta-1)`, j over
    /// the channels whose sums contain i.
    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let (n, c, h, w) = arg.dims4()?;
        let pixels = h * w;
        let x: Vec<f64> = arg.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        let dy: Vec<f64> = grad_res.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        let scale = self.scale(&x, (n, c, pixels));
        let Lrn { size, alpha, beta } = self.0;
        let factor = 2.0 * alpha * beta / size as f64;
        let mut dx = vec![0.0; x.len()];
        for image in 0..n {
            for channel in 0..c {
                for pixel in 0..pixels {
                    let at = |channel: usize| (image * c + channel) * pixels + pixel;
                    let shared: f64 = self
                        .neighbours(channel, c)
                        .map(|j| dy[at(j)] * x[at(j)] * scale[at(j)].powf(-beta - 1.0))
                        .sum();
                    let i = at(channel);
                    dx[i] = dy[i] * scale[i].powf(-beta) - factor * x[i] * shared;
                }
            }
        }
        let dx = Tensor::from_vec(dx, arg.shape(), arg.device())?;
        Ok(Some(dx.to_dtype(arg.dtype())?))
    }
}

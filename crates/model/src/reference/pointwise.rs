//! ReLU and masks as operations of candle, and the way between candle's storage and f64.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

/// max(x, 0). Unlike candle's own, its gradient at exactly 0 is 0, as in PyTorch.
#[derive(Clone, Copy, Debug)]
pub struct ReluOp;

impl CustomOp1 for ReluOp {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = to_f64(storage, layout)?;
        // Not `max`, which would turn not-a-number into 0.
        let y = x.into_iter().map(|x| if x < 0.0 { 0.0 } else { x }).collect();
        Ok((from_f64(y, storage)?, layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let mask = res.gt(0.0)?.to_dtype(grad_res.dtype())?;
        Ok(Some(grad_res.mul(&mask)?))
    }
}

/// Multiplies by a fixed mask of the same length, as dropout does.
#[derive(Clone, Debug)]
pub struct MaskOp(pub Vec<f32>);

impl CustomOp1 for MaskOp {
    fn name(&self) -> &'static str {
        "mask"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = to_f64(storage, layout)?;
        if x.len() != self.0.len() {
            bail!("mask of {} values for {} values", self.0.len(), x.len());
        }
        let y = x.iter().zip(&self.0).map(|(x, &mask)| x * f64::from(mask)).collect();
        Ok((from_f64(y, storage)?, layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let mask = Tensor::from_slice(&self.0, arg.shape(), arg.device())?;
        Ok(Some(grad_res.mul(&mask.to_dtype(grad_res.dtype())?)?))
    }
}

/// The values of a contiguous tensor, as f64.
pub(super) fn to_f64(storage: &CpuStorage, layout: &Layout) -> Result<Vec<f64>> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("our operations read contiguous tensors; call contiguous() first")
    };
    Ok(match storage {
        CpuStorage::F32(values) => values[start..end].iter().map(|&v| f64::from(v)).collect(),
        CpuStorage::F64(values) => values[start..end].to_vec(),
        other => bail!("the reference executor computes in f32 or f64, found {:?}", dtype(other)),
    })
}

/// Storage of the same number type as `like`.
pub(super) fn from_f64(values: Vec<f64>, like: &CpuStorage) -> Result<CpuStorage> {
    Ok(match like {
        CpuStorage::F32(_) => {
            CpuStorage::F32(values.into_iter().map(|value| value as f32).collect())
        }
        CpuStorage::F64(_) => CpuStorage::F64(values),
        other => bail!("the reference executor computes in f32 or f64, found {:?}", dtype(other)),
    })
}

fn dtype(storage: &CpuStorage) -> DType {
    candle_core::backend::BackendStorage::dtype(storage)
}

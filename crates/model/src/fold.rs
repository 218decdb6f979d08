//! Batch norm of evaluation, folded into the convolution before it (paper, section 3.2: it is a linear
//! transform once its statistics are fixed).

/// The tensors of a batch norm, a value for each channel.
#[derive(Clone, Copy, Debug)]
pub struct NormTensors<'a> {
    /// Scale.
    pub gamma: &'a [f32],
    /// Shift.
    pub beta: &'a [f32],
    /// Running mean.
    pub mean: &'a [f32],
    /// Running variance.
    pub variance: &'a [f32],
}

/// Folds `norm` into the filters `[k][...]` and the bias `[k]` of the convolution before it: with
/// `m = gamma / sqrt(variance + epsilon)`, the filters times m, and `beta + (bias - mean) * m`, both
/// computed in f64. All tensors belong to the same channels.
pub fn fold_batch_norm(filters: &mut [f32], bias: &mut [f32], norm: NormTensors<'_>, epsilon: f64) {
    let filter_len = filters.len() / bias.len().max(1);
    let filters = filters.chunks_exact_mut(filter_len.max(1));
    for (k, (filter, bias)) in filters.zip(bias).enumerate() {
        let m = f64::from(norm.gamma[k]) / (f64::from(norm.variance[k]) + epsilon).sqrt();
        for weight in filter {
            *weight = (f64::from(*weight) * m) as f32;
        }
        let centred = f64::from(*bias) - f64::from(norm.mean[k]);
        *bias = (f64::from(norm.beta[k]) + centred * m) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folded_convolution_gives_what_both_give() {
        let norm = NormTensors {
            gamma: &[2.0, -1.0],
            beta: &[0.5, 0.25],
            mean: &[1.0, -2.0],
            variance: &[4.0, 0.25],
        };
        let (filters, bias) = ([1.0, -3.0, 0.5, 2.0], [0.5, -1.0]);
        let (mut folded, mut shifted) = (filters, bias);
        fold_batch_norm(&mut folded, &mut shifted, norm, 0.0);
        let x = [0.75, -0.5];
        let sum = |filters: &[f32], k: usize| filters[2 * k] * x[0] + filters[2 * k + 1] * x[1];
        for k in 0..2 {
            let y = sum(&filters, k) + bias[k];
            let y = norm.gamma[k] * (y - norm.mean[k]) / norm.variance[k].sqrt() + norm.beta[k];
            assert!((sum(&folded, k) + shifted[k] - y).abs() < 1e-6, "channel {k}");
        }
    }
}

//! Stochastic gradient descent with momentum, weight decay, and clipping of the gradient's norm.
//!
//! For every trainable value w with gradient g and velocity v:
//! `g <- g + weight_decay * w` (filters and matrices only), `v <- momentum * v + g`,
//! `w <- w - lr * v`, or with Nesterov's form `w <- w - lr * (g + momentum * v)`: PyTorch's
//! convention (<https://pytorch.org/docs/stable/generated/torch.optim.SGD.html>), in which the
//! learning rate stands outside the velocity.

use bninception_kernels::sgd;
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;
use bninception_model::ParameterTable;

/// Constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep<'a> {
    /// Learning rate.
    pub lr: f64,
    /// Factor on the velocity of the step before.
    pub momentum: f64,
    /// Weight of the L2 penalty's gradient.
    pub weight_decay: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Factor on the learning rate of each trainable tensor, in the order of the table; 0 leaves a tensor and
    /// its velocity as they are. Empty for 1 everywhere.
    pub lr_factors: &'a [f64],
}

/// The factor on a gradient of Euclidean norm `norm` that makes it no longer than `clip_norm`, where that is
/// not 0: `min(1, clip_norm / norm)` (Pascanu et al. 2013, algorithm 1, <https://arxiv.org/abs/1211.5063>).
///
/// PyTorch's `clip_grad_norm_` adds 1e-6 to the norm, which is not needed here: a norm of 0 is not above the
/// limit. A norm that is not finite gives 1, so that the number that made it so reaches the weights and is
/// found there; `clip_norm / infinity` would make an update of nothing.
pub fn clip_scale(clip_norm: f64, norm: f64) -> f64 {
    let is_clipped = clip_norm > 0.0 && norm > clip_norm && norm.is_finite();
    if is_clipped { clip_norm / norm } else { 1.0 }
}

/// Moves `weights` and `velocity` by one step with `scale` times `gradients`, on the threads of `team`;
/// their number never changes a bit. All vectors have the trainable layout of `table`; velocity starts as zeros. Returns whether
/// all weights are finite afterwards.
///
/// # Panics
/// If a vector has another length than the table.
pub fn sgd_step(
    team: &Team,
    table: &ParameterTable,
    step: &SgdStep<'_>,
    scale: f32,
    gradients: &[f32],
    velocity: &mut [f32],
    weights: &mut [f32],
) -> bool {
    let mut finite = true;
    let n_factors = step.lr_factors.len();
    assert!([0, table.trainable.len()].contains(&n_factors), "factors of another layout");
    for len in [gradients.len(), velocity.len(), weights.len()] {
        assert_eq!(len, table.n_trainable(), "vector of another layout");
    }
    for (index, spec) in table.trainable.iter().enumerate() {
        let lr_factor = step.lr_factors.get(index).copied().unwrap_or(1.0);
        if lr_factor == 0.0 {
            continue;
        }
        let range = spec.range.clone();
        let decay = if spec.role.decays() { step.weight_decay } else { 0.0 };
        let step = sgd::Step {
            scale,
            lr: (step.lr * lr_factor) as f32,
            momentum: step.momentum as f32,
            weight_decay: decay as f32,
            nesterov: step.nesterov,
        };
        let (gradients, velocity) = (&gradients[range.clone()], &mut velocity[range.clone()]);
        finite &= sgd::step(team, Isa::chosen(), &step, gradients, velocity, &mut weights[range]);
    }
    finite
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_finite_norm_above_the_limit_is_scaled() {
        for (clip_norm, norm, scale) in [
            (0.0, 5.0, 1.0),
            (1.0, 0.0, 1.0),
            (1.0, 1.0, 1.0),
            (1.0, 4.0, 0.25),
            (2.0, 4.0, 0.5),
            (1e-3, 1e3, 1e-6),
            (1.0, f64::INFINITY, 1.0),
            (1.0, f64::NAN, 1.0),
        ] {
            assert_eq!(clip_scale(clip_norm, norm), scale, "clip {clip_norm}, norm {norm}");
        }
    }
}

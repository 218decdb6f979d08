//! Stochastic gradient descent with momentum and weight decay.
//!
//! For every trainable value w with gradient g and velocity v:
//! `g <- g + weight_decay * w` (filters and matrices only), `v <- momentum * v + g`,
//! `w <- w - lr * v`, or with Nesterov's form `w <- w - lr * (g + momentum * v)`: PyTorch's
//! convention (<https://pytorch.org/docs/stable/generated/torch.optim.SGD.html>), in which the
//! learning rate stands outside the velocity.

use bninception_model::ParameterTable;

/// Constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    /// Share of the velocity that is kept.
    pub momentum: f64,
    /// Weight of the L2 penalty's gradient.
    pub weight_decay: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
}

/// Moves `weights` and `velocity` by one step. All vectors have the trainable layout of `table`;
/// velocity starts as zeros.
///
/// # Panics
/// If a vector has another length than the table.
pub fn sgd_step(
    table: &ParameterTable,
    step: &SgdStep,
    gradients: &[f32],
    velocity: &mut [f32],
    weights: &mut [f32],
) {
    for len in [gradients.len(), velocity.len(), weights.len()] {
        assert_eq!(len, table.n_trainable(), "vector of another layout");
    }
    let (lr, momentum) = (step.lr as f32, step.momentum as f32);
    for spec in &table.trainable {
        let decay = if spec.role.decays() { step.weight_decay as f32 } else { 0.0 };
        let range = spec.range.clone();
        let values = weights[range.clone()].iter_mut().zip(&mut velocity[range.clone()]);
        for ((w, v), &g) in values.zip(&gradients[range]) {
            let g = g + decay * *w;
            *v = momentum * *v + g;
            *w -= lr * if step.nesterov { g + momentum * *v } else { *v };
        }
    }
}

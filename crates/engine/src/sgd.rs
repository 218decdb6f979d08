//! Stochastic gradient descent with momentum and weight decay.
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
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    /// Factor on the velocity of the step before.
    pub momentum: f64,
    /// Weight of the L2 penalty's gradient.
    pub weight_decay: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
}

/// [`sgd_step_on`] one thread.
///
/// # Panics
/// If a vector has another length than the table.
pub fn sgd_step(
    table: &ParameterTable,
    step: &SgdStep,
    gradients: &[f32],
    velocity: &mut [f32],
    weights: &mut [f32],
) -> bool {
    sgd_step_on(&Team::new(1), table, step, gradients, velocity, weights)
}

/// Moves `weights` and `velocity` by one step, on the threads of `team`; their number never changes
/// a bit. All vectors have the trainable layout of `table`; velocity starts as zeros. Returns whether
/// all weights are finite afterwards.
///
/// # Panics
/// If a vector has another length than the table.
pub fn sgd_step_on(
    team: &Team,
    table: &ParameterTable,
    step: &SgdStep,
    gradients: &[f32],
    velocity: &mut [f32],
    weights: &mut [f32],
) -> bool {
    let mut finite = true;
    for len in [gradients.len(), velocity.len(), weights.len()] {
        assert_eq!(len, table.n_trainable(), "vector of another layout");
    }
    for spec in &table.trainable {
        let range = spec.range.clone();
        let decay = if spec.role.decays() { step.weight_decay } else { 0.0 };
        let step = sgd::Step {
            lr: step.lr as f32,
            momentum: step.momentum as f32,
            weight_decay: decay as f32,
            nesterov: step.nesterov,
        };
        let (gradients, velocity) = (&gradients[range.clone()], &mut velocity[range.clone()]);
        finite &= sgd::step(team, Isa::chosen(), &step, gradients, velocity, &mut weights[range]);
    }
    finite
}

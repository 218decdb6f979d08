//! One step of training through the trait, as tests look at it.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // helpers of tests; each test uses some of them

use bninception_engine::model::Weights;
use bninception_engine::sgd::SgdStep;
use bninception_engine::{
    Alone, EngineError, Executor, Hooks, ModelState, StepResult, TrainBatch, Update,
};

pub mod comparison;
pub mod device;
pub mod ranks;

/// An update that moves nothing but the running statistics.
pub const NO_UPDATE: Update = Update {
    sgd: SgdStep { lr: 0.0, momentum: 0.0, weight_decay: 0.0, nesterov: false, lr_factors: &[] },
    clip_norm: 0.0,
    tell_norm: false,
    ema_decay: 0.0,
};

/// What one micro-batch gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub loss: f64,
    pub logits: Vec<f32>,
    pub gradients: Vec<f32>,
    pub statistics: Vec<f32>,
}

/// One step on `weights`, with its gradients as computed and the running statistics behind it.
pub fn step(
    executor: &mut dyn Executor,
    weights: &Weights,
    batch: &TrainBatch<'_>,
    hooks: Hooks<'_>,
) -> Result<Step, EngineError> {
    executor.load(ModelState::of(weights.clone()))?;
    let loss = executor.gradients(batch, hooks)?.loss;
    let (mut logits, mut gradients) = (Vec::new(), Vec::new());
    executor.store_logits(&mut logits)?;
    executor.store_gradients(&mut gradients)?;
    executor.exchange(&mut Alone)?;
    executor.update(&NO_UPDATE)?;
    Ok(Step { loss, logits, gradients, statistics: stored(executor).weights.statistics })
}

/// One update of the micro-batches, on one rank.
pub fn update(
    executor: &mut dyn Executor,
    batches: &[TrainBatch<'_>],
    update: &Update,
) -> StepResult {
    for batch in batches {
        executor.gradients(batch, Hooks::default()).unwrap();
    }
    let result = executor.exchange(&mut Alone).unwrap();
    executor.update(update).unwrap();
    result
}

/// A copy of the state that `executor` holds.
pub fn stored(executor: &mut dyn Executor) -> ModelState {
    let weights = Weights { trainable: Vec::new(), statistics: Vec::new() };
    let mut state = ModelState::of(weights);
    executor.store(&mut state).unwrap();
    state
}

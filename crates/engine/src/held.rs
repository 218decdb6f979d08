//! The state that an executor on the CPU holds, and the sums of the update under way.

use bninception_kernels::sgd;
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;
use bninception_model::{Network, ParameterTable, Weights};

use crate::counted::Counted;
use crate::error::EngineError;
use crate::exchange::Exchange;
use crate::executor::{BatchResult, EvaluationWeights, Ready, StepResult, Update, UpdateResult};
use crate::sgd::{SgdStep, clip_scale, sgd_step};
use crate::state::{ModelState, check_weights};

/// A state and an update under way.
pub(crate) struct Held {
    pub(crate) table: ParameterTable,
    /// The last layer that updates leave as it is.
    frozen: usize,
    /// Running statistics of the layers up to that one; they are the first.
    n_frozen_statistics: usize,
    /// Factors on the learning rates of an update.
    lr_factors: Vec<f64>,
    model: Option<ModelState>,
    /// Running statistics behind the last update. Those of `model` move while a micro-batch runs, and are
    /// these again behind it.
    settled: Vec<f32>,
    /// Sum over the micro-batches so far, and behind an update what it divided them to.
    gradients: Vec<f32>,
    /// Gradients of one micro-batch behind the first.
    partial: Vec<f32>,
    /// Scratch of the gradient's norm.
    norm_sums: Vec<f64>,
    /// Sum of the running statistics that the micro-batches would leave.
    statistics: Vec<f32>,
    counted: Counted,
    prepared: Prepared,
}

/// What evaluation runs with.
enum Prepared {
    Nothing,
    /// The state that is held.
    Held,
    /// Its weights, with other statistics.
    HeldWith(Weights),
    Given(Weights),
}

impl Held {
    pub(crate) fn new(network: &Network) -> Held {
        let table = ParameterTable::new(network);
        let frozen = table.statistics.iter().take_while(|spec| spec.layer <= network.frozen);
        let n_frozen_statistics = frozen.map(|spec| spec.range.len()).sum();
        Held {
            frozen: network.frozen,
            n_frozen_statistics,
            lr_factors: Vec::new(),
            model: None,
            settled: vec![0.0; table.n_statistics()],
            gradients: Vec::new(),
            partial: Vec::new(),
            norm_sums: Vec::new(),
            statistics: vec![0.0; table.n_statistics()],
            counted: Counted::default(),
            prepared: Prepared::Nothing,
            table,
        }
    }

    pub(crate) fn load(&mut self, state: ModelState) -> Result<(), EngineError> {
        state.check(&self.table)?;
        self.settled.copy_from_slice(&state.weights.statistics);
        self.gradients.resize(self.table.n_trainable(), 0.0);
        self.model = Some(state);
        self.state_changes();
        self.begin_update();
        Ok(())
    }

    pub(crate) fn store(&self, to: &mut ModelState) -> Result<(), EngineError> {
        to.copy_from(self.model()?);
        Ok(())
    }

    pub(crate) fn store_gradients(&self, to: &mut Vec<f32>) -> Result<(), EngineError> {
        self.model()?;
        to.clone_from(&self.gradients);
        Ok(())
    }

    pub(crate) fn model(&self) -> Result<&ModelState, EngineError> {
        self.model.as_ref().ok_or(EngineError::NotLoaded)
    }

    pub(crate) fn prepare_evaluation(
        &mut self,
        weights: EvaluationWeights<'_>,
    ) -> Result<(), EngineError> {
        self.prepared = match weights {
            EvaluationWeights::Held => {
                self.model()?;
                Prepared::Held
            }
            EvaluationWeights::HeldWith(statistics) => {
                let trainable = self.model()?.evaluation_weights().trainable.clone();
                let weights = Weights { trainable, statistics: statistics.to_vec() };
                check_weights(&self.table, &weights)?;
                Prepared::HeldWith(weights)
            }
            EvaluationWeights::Given(weights) => {
                check_weights(&self.table, weights)?;
                Prepared::Given(weights.clone())
            }
        };
        Ok(())
    }

    /// The weights that evaluation runs with.
    pub(crate) fn prepared(&self) -> Result<&Weights, EngineError> {
        match &self.prepared {
            Prepared::Nothing => Err(EngineError::NotPrepared),
            Prepared::Held => Ok(self.model()?.evaluation_weights()),
            Prepared::HeldWith(weights) | Prepared::Given(weights) => Ok(weights),
        }
    }

    /// Evaluation with the state that is held is over, as that state changes.
    fn state_changes(&mut self) {
        if let Prepared::Held | Prepared::HeldWith(_) = self.prepared {
            self.prepared = Prepared::Nothing;
        }
    }

    fn begin_update(&mut self) {
        self.counted = Counted::default();
    }

    /// Adds one micro-batch to the update under way. `run` fills gradients, moves the running statistics
    /// in the weights, and says when ranges of the gradients are computed.
    pub(crate) fn micro_batch(
        &mut self,
        team: &Team,
        exchange: Option<&mut dyn Exchange>,
        run: impl FnOnce(&mut Weights, &mut [f32], &mut Ready<'_>) -> Result<BatchResult, EngineError>,
    ) -> Result<BatchResult, EngineError> {
        let Held { model, settled, gradients, partial, statistics, .. } = self;
        let weights = &mut model.as_mut().ok_or(EngineError::NotLoaded)?.weights;
        let mut told = exchange;
        let outcome = if self.counted.micro_batches == 0 {
            run(weights, gradients, &mut |range, values| {
                if let Some(exchange) = &mut told {
                    exchange.ready(range, values);
                }
            })
        } else {
            partial.resize(gradients.len(), 0.0);
            run(weights, partial, &mut |range, values| {
                let sum = &mut gradients[range.clone()];
                sgd::add(team, Isa::chosen(), values, sum);
                if let Some(exchange) = &mut told {
                    exchange.ready(range, sum);
                }
            })
        };
        if outcome.is_ok() && self.counted.micro_batches == 0 {
            statistics.copy_from_slice(&weights.statistics);
        } else if outcome.is_ok() {
            sgd::add(team, Isa::chosen(), &weights.statistics, statistics);
        }
        weights.statistics.copy_from_slice(settled);
        match &outcome {
            Ok(result) => {
                self.counted.add(result);
            }
            Err(_) => self.begin_update(),
        }
        outcome
    }

    /// Fills `to` with the statistics that `run` puts into the weights that evaluation was prepared for;
    /// their own are there again behind it.
    pub(crate) fn batch_statistics(
        &mut self,
        to: &mut Vec<f32>,
        run: impl FnOnce(&mut Weights) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let weights = match &mut self.prepared {
            Prepared::Nothing => return Err(EngineError::NotPrepared),
            Prepared::Held => {
                let ModelState { weights, ema, .. } =
                    self.model.as_mut().ok_or(EngineError::NotLoaded)?;
                ema.as_mut().unwrap_or(weights)
            }
            Prepared::HeldWith(weights) | Prepared::Given(weights) => weights,
        };
        let own = weights.statistics.clone();
        let outcome = run(weights);
        to.clone_from(&weights.statistics);
        weights.statistics.copy_from_slice(&own);
        outcome
    }

    pub(crate) fn exchange(
        &mut self,
        exchange: &mut dyn Exchange,
    ) -> Result<StepResult, EngineError> {
        self.model()?;
        if self.counted.micro_batches == 0 {
            // Adding -0 changes no bit of another rank's value; adding 0 would make 0 of -0.
            self.gradients.fill(-0.0);
            self.statistics.fill(-0.0);
        }
        exchange.sum(self.counted.sums(&mut self.gradients, &mut self.statistics))?;
        Ok(self.counted.result())
    }

    pub(crate) fn update(
        &mut self,
        team: &Team,
        update: &Update<'_>,
    ) -> Result<UpdateResult, EngineError> {
        let n = self.counted.micro_batches;
        self.state_changes();
        let model = self.model.as_mut().ok_or(EngineError::NotLoaded)?;
        if n == 0 {
            return Err(EngineError::NoGradients);
        }
        let isa = Isa::chosen();
        if n > 1 {
            sgd::divide(team, isa, n as f32, &mut self.gradients);
            sgd::divide(team, isa, n as f32, &mut self.statistics);
        }
        let gradient_norm = (update.tell_norm || update.clip_norm > 0.0)
            .then(|| sgd::squared_norm(team, isa, &self.gradients, &mut self.norm_sums).sqrt());
        let scale = clip_scale(update.clip_norm, gradient_norm.unwrap_or(0.0)) as f32;
        // The mean of equal values rounds, and what is frozen must not move by a bit.
        let moving = self.n_frozen_statistics..;
        self.settled[moving.clone()].copy_from_slice(&self.statistics[moving]);
        let ModelState { weights, velocity, ema } = model;
        weights.statistics.copy_from_slice(&self.settled);
        let trainable = &mut weights.trainable;
        self.lr_factors.clear();
        self.lr_factors.extend_from_slice(update.sgd.lr_factors);
        if self.frozen > 0 {
            if self.lr_factors.is_empty() {
                self.lr_factors.resize(self.table.trainable.len(), 1.0);
            }
            let frozen = self.table.trainable.iter().take_while(|spec| spec.layer <= self.frozen);
            self.lr_factors.iter_mut().zip(frozen).for_each(|(factor, _)| *factor = 0.0);
        }
        let step = SgdStep { lr_factors: &self.lr_factors, ..update.sgd };
        let gradients = &self.gradients;
        let mut is_finite =
            sgd_step(team, &self.table, &step, scale, gradients, velocity, trainable);
        is_finite &= self.settled.iter().all(|value| value.is_finite());
        if let (true, Some(ema)) = (is_finite, ema) {
            let share = (1.0 - update.ema_decay) as f32;
            sgd::average(team, isa, share, &weights.trainable, &mut ema.trainable);
            sgd::average(team, isa, share, &weights.statistics, &mut ema.statistics);
        }
        self.begin_update();
        Ok(UpdateResult { is_finite, gradient_norm })
    }
}

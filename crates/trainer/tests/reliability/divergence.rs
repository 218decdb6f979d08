//! Numbers that are not finite end a run within a step, and never reach a checkpoint.

use std::fs;
use std::ops::Range;

use bninception::error::Error;
use bninception::run::checkpoint::{self, CheckpointError};
use bninception_engine::model::Weights;
use bninception_engine::{
    BatchResult, EngineError, EvaluationWeights, Exchange, Executor, Hooks, Images, ModelState,
    StepResult, Sums, TrainBatch, Update, UpdateResult,
};
use serde_json::Value;

use super::common::Place;
use super::delegates::inner_answers;
use super::job::Runs;

/// What an executor spoils.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Spoilt {
    /// An answer of an evaluation, whatever the step.
    Logit,
    Loss,
    Gradient,
    Parameter,
    Statistic,
}

/// An executor whose numbers go wrong at a step, a number of times.
struct Spoiling {
    inner: Box<dyn Executor>,
    spoilt: Spoilt,
    step: u64,
    times: u32,
    /// Of the present micro-batch.
    number: u64,
}

impl Spoiling {
    /// Whether the present micro-batch is to be spoilt, which counts.
    fn is_due(&mut self, spoilt: &[Spoilt]) -> bool {
        let due = spoilt.contains(&self.spoilt) && self.number == self.step && self.times > 0;
        self.times -= u32::from(due);
        due
    }
}

/// Spoils what one rank gives.
struct SpoiltSums(Spoilt);

impl Exchange for SpoiltSums {
    fn ready(&mut self, _: Range<usize>, _: &[f32]) {}

    fn sum(&mut self, sums: Sums<'_>) -> Result<(), EngineError> {
        match self.0 {
            Spoilt::Gradient => sums.gradients[sums.gradients.len() / 2] = f32::NAN,
            _ => sums.statistics[1] = f32::NEG_INFINITY,
        }
        Ok(())
    }
}

impl Executor for Spoiling {
    inner_answers!();

    fn load(&mut self, state: ModelState) -> Result<(), EngineError> {
        self.inner.load(state)
    }

    fn gradients(
        &mut self,
        batch: &TrainBatch<'_>,
        hooks: Hooks<'_>,
    ) -> Result<BatchResult, EngineError> {
        self.number = batch.number;
        let result = self.inner.gradients(batch, hooks)?;
        match self.is_due(&[Spoilt::Loss]) {
            true => Ok(BatchResult { loss: f64::NAN, ..result }),
            false => Ok(result),
        }
    }

    fn exchange(&mut self, exchange: &mut dyn Exchange) -> Result<StepResult, EngineError> {
        match self.is_due(&[Spoilt::Gradient, Spoilt::Statistic]) {
            true => self.inner.exchange(&mut SpoiltSums(self.spoilt)),
            false => self.inner.exchange(exchange),
        }
    }

    fn update(&mut self, update: &Update) -> Result<UpdateResult, EngineError> {
        let result = self.inner.update(update)?;
        if !self.is_due(&[Spoilt::Parameter]) {
            return Ok(result);
        }
        let weights = Weights { trainable: Vec::new(), statistics: Vec::new() };
        let mut state = ModelState::of(weights);
        self.inner.store(&mut state)?;
        let middle = state.weights.trainable.len() / 2;
        state.weights.trainable[middle] = f32::INFINITY;
        self.inner.load(state)?;
        Ok(UpdateResult { is_finite: false, ..result })
    }

    fn store_gradients(&mut self, to: &mut Vec<f32>) -> Result<(), EngineError> {
        self.inner.store_gradients(to)
    }

    fn prepare_evaluation(&mut self, weights: EvaluationWeights<'_>) -> Result<(), EngineError> {
        self.inner.prepare_evaluation(weights)
    }

    fn evaluate(&mut self, images: Images<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        self.inner.evaluate(images, logits)?;
        if matches!(self.spoilt, Spoilt::Logit) && self.times > 0 {
            self.times -= 1;
            logits[0] = f32::INFINITY;
        }
        Ok(())
    }
}

pub(crate) fn spoil(
    spoilt: Spoilt,
    step: u64,
    times: u32,
) -> impl FnOnce(Box<dyn Executor>) -> Box<dyn Executor> {
    move |inner| Box::new(Spoiling { inner, spoilt, step, times, number: 0 })
}

#[test]
fn every_kind_of_number_stops_the_run_in_its_step() {
    let runs = Runs::new();
    for (spoilt, part) in [
        (Spoilt::Loss, "the loss is NaN"),
        (Spoilt::Gradient, "the gradient "),
        (Spoilt::Parameter, "the parameter "),
        (Spoilt::Statistic, "the statistic conv1_7x7_s2_bn.running_mean is -inf at value 1"),
    ] {
        let run = format!("{spoilt:?}");
        let sets = ["checkpoint.every_steps=2"];
        let error = runs.train_on(&run, &sets, spoil(spoilt, 6, 1)).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        let message = error.to_string();
        assert!(message.contains(part) && message.contains("at step 6"), "{message}");
        assert!(message.contains(".png"), "no file of the batch: {message}");
        // The batch is kept, the checkpoint is that of the step before, and the run can go on.
        let dump = fs::read(runs.path(&run).join("diverged-step-000006.safetensors")).unwrap();
        let dump = safetensors::SafeTensors::deserialize(&dump).unwrap();
        assert_eq!(dump.tensor("images").unwrap().shape(), [8, 3, 32, 32]);
        assert_eq!(dump.tensor("labels").unwrap().shape(), [8]);
        let last = checkpoint::load(&runs.path(&run).join("last.safetensors")).unwrap();
        assert_eq!(last.metadata.step, 6, "{spoilt:?}");
    }
    // Clipping does not make an update of nothing out of a gradient that is not finite.
    let sets = ["optimizer.clip_norm=0.01"];
    let error = runs.train_on("clipped", &sets, spoil(Spoilt::Gradient, 6, 1)).unwrap_err();
    assert!(error.to_string().contains("the gradient "), "{error}");
    // What was resumed without the fault ends as if there had been none.
    runs.train("whole", &[], None);
    runs.train("Gradient", &[], None);
    runs.result("Gradient").assert_equals(&runs.result("whole"), "resumed behind a divergence");
}

#[test]
fn a_run_goes_back_three_times_with_half_the_rate() {
    let runs = Runs::new();
    let sets = ["train.on_divergence=rollback", "checkpoint.every_steps=2", "log.every_steps=1"];
    let outcome = runs.train_on("twice", &sets, spoil(Spoilt::Gradient, 7, 2)).unwrap();
    assert!(outcome.finished);
    assert_eq!(outcome.progress.rollbacks, 2);
    let metrics = fs::read_to_string(runs.path("twice").join("metrics.jsonl")).unwrap();
    let rows: Vec<Value> = metrics.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let rates: Vec<(u64, f64)> = rows
        .iter()
        .filter(|row| row["kind"] == "train")
        .map(|row| (row["step"].as_u64().unwrap(), row["lr"].as_f64().unwrap()))
        .collect();
    assert_eq!(rates.len(), 12, "each step once: {rates:?}");
    let full = rates[0].1;
    for (step, rate) in rates {
        // Back to the checkpoint of step 6 both times.
        assert_eq!(rate, if step <= 6 { full } else { full / 4.0 }, "step {step}");
    }

    let error = runs.train_on("always", &sets, spoil(Spoilt::Loss, 7, 99)).unwrap_err();
    assert!(matches!(*error, Error::Diverged { step: 7, .. }), "{error}");
    let last = checkpoint::load(&runs.path("always").join("last.safetensors")).unwrap();
    assert_eq!((last.metadata.step, last.state.progress.rollbacks), (6, 3));
}

#[test]
fn what_is_not_finite_is_not_saved() {
    let runs = Runs::new();
    let (job, mut state) = runs.job("run", &[], None);
    let before = fs::read(job.folder.last()).unwrap();
    let spec = &job.table.trainable[4];
    state.model.weights.trainable[spec.range.start + 3] = f32::NAN;
    let error =
        job.folder.save_last(&job.metadata(&state.progress), &job.table, &state).unwrap_err();
    assert!(matches!(error, CheckpointError::NotFinite { .. }));
    let expected = format!("{} at value 3 is not finite", spec.name);
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(fs::read(job.folder.last()).unwrap() == before);
}

#[test]
fn the_binary_says_so_with_code_4() {
    let place = Place::with_pictures();
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "run"];
    let output = place.run(&[&train[..], &["--lr", "1e38"]].concat());
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{talk}");
    for part in ["conv1_7x7_s2.weight", "at step 0", "1e38", ".png", "diverged-step-000000"] {
        assert!(talk.contains(part), "no `{part}` in {talk}");
    }
    assert!(output.stdout.is_empty());
    assert_eq!(checkpoint::load(&place.path("run/last.safetensors")).unwrap().metadata.step, 0);
    assert!(!place.path("run/best.safetensors").exists());
    // The mark stays until the run goes on.
    let mark = fs::read_to_string(place.path("run/DIVERGED")).unwrap();
    assert!(mark.contains("at step 0"), "{mark}");
    let resume = ["resume", "run", "--set", "optimizer.lr=0.01", "--allow-change", "optimizer.lr"];
    let output = place.run(&resume);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!place.path("run/DIVERGED").exists());
}

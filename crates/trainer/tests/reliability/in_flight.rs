//! An executor that computes while training goes on leaves what one leaves that is waited for.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bninception::distributed::Ranks;
use bninception::error::Error;
use bninception::run::checkpoint;
use bninception::run::state::RunProgress;
use bninception::setup;
use bninception::training::train::train;
use bninception_engine::model::Weights;
use bninception_engine::{
    Alone, BatchResult, EngineError, EvaluationWeights, Exchange, Executor, Fate, Finished, Hooks,
    Images, ModelState, Pipeline, StepResult, TrainBatch, Update, UpdateResult,
};

use super::common::listing;
use super::delegates::inner_answers;
use super::divergence::{Spoilt, spoil};
use super::job::Runs;

/// Updates whose results are held back.
const LAG: usize = 3;

/// An executor that tells what became of an update some updates later.
struct Late {
    inner: Box<dyn Executor>,
    held_back: VecDeque<Finished>,
    /// Whether one was refused or broken, so that nothing is computed.
    is_off: bool,
    started: Arc<AtomicUsize>,
}

fn late(inner: Box<dyn Executor>, started: &Arc<AtomicUsize>) -> Box<dyn Executor> {
    let started = Arc::clone(started);
    Box::new(Late { inner, held_back: VecDeque::new(), is_off: false, started })
}

impl Late {
    fn make(
        &mut self,
        batch: &TrainBatch<'_>,
        update: &Update<'_>,
    ) -> Result<Finished, EngineError> {
        let loss = self.inner.gradients(batch, Hooks::default())?.loss;
        let step = self.inner.exchange(&mut Alone)?;
        let mut gradients = Vec::new();
        self.inner.store_gradients(&mut gradients)?;
        if !loss.is_finite() || gradients.iter().any(|gradient| !gradient.is_finite()) {
            // Takes back what was added to the update.
            let mut state = ModelState::of(Weights { trainable: vec![], statistics: vec![] });
            self.inner.store(&mut state)?;
            self.inner.load(state)?;
            let update = UpdateResult { is_finite: true, gradient_norm: None };
            return Ok(Finished { step, update, fate: Fate::Refused });
        }
        let update = self.inner.update(update)?;
        let fate = if update.is_finite { Fate::Done } else { Fate::Broken };
        Ok(Finished { step, update, fate })
    }
}

impl Pipeline for Late {
    fn start(&mut self, batch: &TrainBatch<'_>, update: &Update<'_>) -> Result<(), EngineError> {
        self.started.fetch_add(1, Ordering::Relaxed);
        let finished = match self.is_off {
            true => {
                let step = StepResult { micro_batches: 1, loss: 9e9, metrics: Default::default() };
                let update = UpdateResult { is_finite: true, gradient_norm: Some(9e9) };
                Finished { step, update, fate: Fate::Skipped }
            }
            false => self.make(batch, update)?,
        };
        self.is_off = finished.fate != Fate::Done;
        self.held_back.push_back(finished);
        Ok(())
    }

    fn finished(&mut self, wait: bool) -> Result<Vec<Finished>, EngineError> {
        let left = if wait { 0 } else { LAG };
        Ok(self.held_back.drain(..self.held_back.len().saturating_sub(left)).collect())
    }

    fn idle_seconds(&mut self) -> f64 {
        0.0
    }
}

impl Executor for Late {
    inner_answers!();

    fn load(&mut self, state: ModelState) -> Result<(), EngineError> {
        self.is_off = false;
        self.held_back.clear();
        self.inner.load(state)
    }

    fn gradients(
        &mut self,
        batch: &TrainBatch<'_>,
        hooks: Hooks<'_>,
    ) -> Result<BatchResult, EngineError> {
        assert!(self.held_back.is_empty(), "updates are under way");
        self.is_off = false;
        self.inner.gradients(batch, hooks)
    }

    fn exchange(&mut self, exchange: &mut dyn Exchange) -> Result<StepResult, EngineError> {
        self.inner.exchange(exchange)
    }

    fn update(&mut self, update: &Update<'_>) -> Result<UpdateResult, EngineError> {
        self.inner.update(update)
    }

    fn store_gradients(&mut self, to: &mut Vec<f32>) -> Result<(), EngineError> {
        self.inner.store_gradients(to)?;
        if self.is_off {
            // A device that goes on computes with what is not finite.
            to.fill(f32::NAN);
        }
        Ok(())
    }

    fn prepare_evaluation(&mut self, weights: EvaluationWeights<'_>) -> Result<(), EngineError> {
        assert!(self.held_back.is_empty(), "updates are under way");
        self.inner.prepare_evaluation(weights)
    }

    fn evaluate(&mut self, images: Images<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        self.inner.evaluate(images, logits)
    }

    fn pipeline(&mut self) -> Option<&mut dyn Pipeline> {
        Some(self)
    }
}

#[test]
fn a_run_leaves_the_same() {
    let runs = Runs::new();
    let watch = "log.watch=[\"conv1_7x7_s2\"]";
    // (settings, updates that are started without waiting)
    let table: [(&[&str], usize); 7] = [
        (&[], 12),
        (&["log.every_steps=2", "checkpoint.every_steps=5"], 12),
        (&["log.every_steps=1", "train.ema=0.9", "optimizer.clip_norm=0.5"], 12),
        (&["train.eval_statistics=population", "network.dropout=0.4"], 12),
        (&["train.patience=1", "optimizer.lr=1e-9"], 10),
        // Watched updates are waited for: those of steps 3, 6, 9 and 12.
        (&[watch, "log.watch_every=3"], 8),
        (&["train.accumulate=2", "train.steps=4"], 0),
    ];
    for (row, (sets, expected)) in table.iter().enumerate() {
        let (plain, piped) = (format!("plain-{row}"), format!("late-{row}"));
        runs.train(&plain, sets, None);
        let started = Arc::new(AtomicUsize::new(0));
        runs.train_on(&piped, sets, |inner| late(inner, &started)).unwrap();
        runs.result(&piped).assert_equals(&runs.result(&plain), &format!("{sets:?}"));
        assert_eq!(started.load(Ordering::Relaxed), *expected, "{sets:?}");
    }
}

#[test]
fn a_stop_leaves_all_that_was_started() {
    let runs = Runs::new();
    runs.train("whole", &[], None);
    for stop_at in [7, 10] {
        let run = format!("stopped-{stop_at}");
        let (job, state) = runs.job(&run, &[], Some(stop_at));
        let inner = setup::executor(&job.config, job.network.clone()).unwrap();
        let started = Arc::default();
        let mut executor = late(inner, &started);
        let outcome = train(&job, executor.as_mut(), &mut Ranks::alone(), state).unwrap();
        assert!(!outcome.finished && outcome.progress.step == stop_at);
        let plain = format!("plain-{stop_at}");
        runs.train(&plain, &[], Some(stop_at));
        let [found, expected] = [&run, &plain].map(|run| {
            let path = runs.path(run).join("last.safetensors");
            (super::job::tensors(&path), progress_of(&path))
        });
        assert_eq!(found.1, expected.1, "stopped at {stop_at}");
        assert!(found.0 == expected.0, "stopped at {stop_at}");
        runs.train(&run, &[], None);
        runs.result(&run).assert_equals(&runs.result("whole"), "resumed");
    }
}

/// How a run on which something is spoilt ends: the error without its run, and what it leaves.
fn end(runs: &Runs, run: &str, error: &Error) -> String {
    let files = listing(&runs.path(run));
    let names = files.iter().map(|path| path.strip_prefix(runs.path(run)).unwrap().display());
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    format!("{error}\n{names:?}").replace(&format!("/{run}/"), "/RUN/")
}

#[test]
fn an_update_that_was_refused_is_found_in_its_step() {
    let runs = Runs::new();
    let sets = ["checkpoint.every_steps=2", "log.every_steps=3"];
    for (spoilt, step) in [
        (Spoilt::Loss, 6),
        (Spoilt::Gradient, 6),
        (Spoilt::Parameter, 6),
        (Spoilt::Statistic, 6),
        (Spoilt::Loss, 0),
        (Spoilt::Gradient, 11),
    ] {
        let (plain, piped) =
            (format!("plain-{spoilt:?}-{step}"), format!("late-{spoilt:?}-{step}"));
        let error = runs.train_on(&plain, &sets, spoil(spoilt, step, 1)).unwrap_err();
        let expected = end(&runs, &plain, &error);
        let started = Arc::new(AtomicUsize::new(0));
        // What was refused is spoilt when it is made again, too.
        let times = if matches!(spoilt, Spoilt::Loss | Spoilt::Gradient) { 2 } else { 1 };
        let wrap = |inner| late(spoil(spoilt, step, times)(inner), &started);
        let error = runs.train_on(&piped, &sets, wrap).unwrap_err();
        assert_eq!(end(&runs, &piped, &error), expected);
        assert!(started.load(Ordering::Relaxed) > step as usize);
        let dump = |run: &str| {
            let name = format!("diverged-step-{step:06}.safetensors");
            super::job::tensors(&runs.path(run).join(name))
        };
        assert!(dump(&piped) == dump(&plain), "{spoilt:?}: another batch");
        // It goes on as if nothing had been wrong: behind one that was refused, and one that was made.
        if !matches!((spoilt, step), (Spoilt::Loss | Spoilt::Parameter, 6)) {
            continue;
        }
        runs.train(&piped, &sets, None);
        runs.train(&plain, &sets, None);
        runs.result(&piped).assert_equals(&runs.result(&plain), &format!("{spoilt:?}"));
    }
}

#[test]
fn a_number_that_is_finite_when_made_again_changes_nothing() {
    let runs = Runs::new();
    let sets = ["log.every_steps=4"];
    runs.train("whole", &sets, None);
    for spoilt in [Spoilt::Loss, Spoilt::Gradient] {
        let run = format!("{spoilt:?}");
        let started = Arc::new(AtomicUsize::new(0));
        let wrap = |inner| late(spoil(spoilt, 6, 1)(inner), &started);
        runs.train_on(&run, &sets, wrap).unwrap();
        runs.result(&run).assert_equals(&runs.result("whole"), &run);
    }
}

#[test]
fn a_run_goes_back_as_one_that_waits() {
    let runs = Runs::new();
    let sets = ["train.on_divergence=rollback", "checkpoint.every_steps=2", "log.every_steps=1"];
    runs.train_on("plain", &sets, spoil(Spoilt::Gradient, 7, 1)).unwrap();
    let started = Arc::new(AtomicUsize::new(0));
    let wrap = |inner| late(spoil(Spoilt::Gradient, 7, 2)(inner), &started);
    runs.train_on("late", &sets, wrap).unwrap();
    runs.result("late").assert_equals(&runs.result("plain"), "rolled back");
}

#[test]
fn images_that_cannot_be_read_leave_the_same() {
    // Batches of two, of which one image is too few: once, and then more broken images than are allowed.
    let sets = ["train.batch_size=2", "train.steps=24"];
    for broken in [&[3][..], &[3, 17, 30]] {
        let runs = Runs::new();
        let mut files = listing(&runs.path("pictures").join("train"));
        files.retain(|path| path.is_file());
        for &index in broken {
            fs::write(&files[index], "no image").unwrap();
        }
        let started = Arc::new(AtomicUsize::new(0));
        let expected = runs.train_on("plain", &sets, |inner| inner);
        let found = runs.train_on("late", &sets, |inner| late(inner, &started));
        assert_eq!([found.is_ok(), expected.is_ok()], [broken.len() == 1; 2]);
        let [found, expected] = ["late", "plain"].map(|run| {
            let path = runs.path(run).join("last.safetensors");
            (progress_of(&path), super::job::tensors(&path))
        });
        assert_eq!(found.0, expected.0, "{broken:?}");
        assert!(found.0.skipped_batches > 0, "{broken:?}: {:?}", found.0);
        assert!(found.1 == expected.1, "{broken:?}");
    }
}

/// The progress in a checkpoint, without times.
fn progress_of(path: &Path) -> RunProgress {
    let mut progress = checkpoint::load(path).unwrap().metadata.progress;
    (progress.seconds, progress.epoch_start_seconds) = (0.0, 0.0);
    progress
}

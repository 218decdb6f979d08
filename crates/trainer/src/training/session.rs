//! A run while it goes on: its executor, its files, and how far it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bninception_data::{Batch, Loader};
use bninception_engine::model::Weights;
use bninception_engine::{Executor, ModelState};

use crate::distributed::Ranks;
use crate::distributed::exchange::Buckets;
use crate::error::Error;
use crate::run::checkpoint;
use crate::run::error::RunError;
use crate::run::journal::Journal;
use crate::run::records::Record;
use crate::run::saver::{Saver, persist};
use crate::run::state::{Population, RunProgress, TrainState};
use crate::run::tensorboard::Hyperparameters;
use crate::setup;
use crate::terminal::text::quoted;
use crate::training::course::Course;
use crate::training::divergence::lr_factor;
use crate::training::feeding::{Fed, Feeding};
use crate::training::in_flight::InFlight;
use crate::training::job::Job;
use crate::training::recent::RecentUpdates;
use crate::training::watch::Watcher;

/// A run while it goes on. The executor holds the state of its network.
pub(super) struct Session<'a> {
    pub(super) job: &'a Job,
    pub(super) executor: &'a mut dyn Executor,
    pub(super) ranks: &'a mut Ranks,
    /// Gradients on their way to other ranks.
    pub(super) buckets: Buckets,
    pub(super) progress: RunProgress,
    /// Population statistics of the present weights, if some were estimated.
    pub(super) population: Option<Population>,
    pub(super) course: Course,
    /// Factors on the learning rate of each trainable tensor.
    pub(super) lr_factors: Vec<f64>,
    pub(super) loader: Loader,
    /// Updates under way on a device, with their batches. [`RunProgress::step`] counts them, and the rest of the
    /// progress what is over.
    pub(super) in_flight: InFlight<(Batch, UpdatePlace)>,
    /// Whether the loader keeps up with a device.
    pub(super) feeding: Feeding,
    /// What is written, by rank 0 alone.
    pub(super) files: Option<Files>,
    pub(super) watcher: Watcher,
    pub(super) line: LineClock,
    /// For the line beside the bar.
    pub(super) recent: RecentUpdates,
    /// Whether this process has said how long the run will take.
    pub(super) has_told_time: bool,
    start: Instant,
    last_save: Instant,
    seconds_before: f64,
    steps_before: u64,
}

/// Where an update lies in its run.
#[derive(Clone, Copy, Debug)]
pub(super) struct UpdatePlace {
    /// Updates before it.
    pub(super) step: u64,
    /// Those of them that changed something.
    pub(super) updates: u64,
    /// Its learning rate.
    pub(super) lr: f64,
}

/// The files of a run that are written while it goes on.
pub(super) struct Files {
    pub(super) journal: Journal,
    saver: Saver,
}

/// Time and images since the last line of the log, and what the next one tells of its own step.
pub(super) struct LineClock {
    pub(super) start: Instant,
    pub(super) waited: Duration,
    pub(super) images: u64,
    /// Norm of the gradient of the last update, if it is known.
    pub(super) gradient_norm: Option<f64>,
}

impl LineClock {
    fn start() -> LineClock {
        LineClock { start: Instant::now(), waited: Duration::ZERO, images: 0, gradient_norm: None }
    }

    /// What happened since the last line.
    pub(super) fn fed(&self) -> Fed {
        let (seconds, waited) = (self.start.elapsed().as_secs_f64(), self.waited.as_secs_f64());
        Fed { seconds, waited, images: self.images }
    }

    /// Counts from now on.
    pub(super) fn restart(&mut self) {
        *self = LineClock::start();
    }
}

impl<'a> Session<'a> {
    /// Opens the files of `job` and hands `state` to the executor.
    pub(super) fn open(
        job: &'a Job,
        executor: &'a mut dyn Executor,
        ranks: &'a mut Ranks,
        state: TrainState,
    ) -> Result<Session<'a>, Error> {
        let Job { config, folder, table, .. } = job;
        let course = job.course(&state.progress);
        let per_update = config.train.micro_batches_per_update() as u64;
        let micro_batches = |step| course.batches(step).saturating_mul(per_update);
        let range = micro_batches(state.progress.step)..micro_batches(course.total_steps);
        let plan = setup::train_plan(config, ranks.share(), range);
        let options = setup::load_options(config, config.train.batch_size);
        let loader = Loader::train(Arc::clone(&job.train), &job.preprocessing, &options, &plan)?;
        let files = match ranks.is_first() {
            true => {
                let events = config.log.tensorboard;
                let events = events.then(|| Hyperparameters::of(config, &job.recipe));
                let journal = Journal::open(folder, &state.progress, events)?;
                let keep = config.checkpoint.keep;
                // A process that was killed may have written the checkpoint and not all its names.
                folder.keep_as(&job.names(&state.progress), keep)?;
                let saver = Saver::start(folder, table, keep, job.patience(), &state)?;
                Some(Files { journal, saver })
            }
            false => None,
        };
        let TrainState { model, progress, population } = state;
        executor.load(model)?;
        Ok(Session {
            watcher: Watcher::new(config, &job.network)?,
            line: LineClock::start(),
            recent: RecentUpdates::default(),
            has_told_time: false,
            start: Instant::now(),
            last_save: Instant::now(),
            seconds_before: progress.seconds,
            steps_before: progress.step,
            job,
            executor,
            ranks,
            buckets: Buckets::new(table.n_trainable(), config.train.reduce),
            progress,
            population,
            lr_factors: setup::lr_factors(config, &job.network, table),
            course,
            loader,
            in_flight: InFlight::default(),
            feeding: Feeding::default(),
            files,
        })
    }

    /// Where the next update lies.
    pub(super) fn next_place(&self) -> UpdatePlace {
        let step = self.progress.step;
        let (updates, lr) = (self.progress.updates(), self.learning_rate(step));
        UpdatePlace { step, updates, lr }
    }

    /// How long training waited for `batch`: on a device that had work meanwhile, no longer than it had none.
    pub(super) fn waited_for(&mut self, batch: &Batch) -> Duration {
        let is_busy = !self.in_flight.is_empty();
        match self.executor.pipeline() {
            Some(pipeline) => {
                let idle = pipeline.idle_seconds();
                match is_busy {
                    true => batch.wait.min(Duration::try_from_secs_f64(idle).unwrap_or_default()),
                    false => batch.wait,
                }
            }
            None => batch.wait,
        }
    }

    /// The learning rate of the update behind `step`.
    pub(super) fn learning_rate(&self, step: u64) -> f64 {
        let config = &self.job.config;
        let lr = self.course.learning_rate(&config.schedule, config.optimizer.lr, step);
        lr_factor(self.progress.rollbacks) * lr
    }

    /// Whether batch norm takes its statistics over all ranks, of which there are several.
    pub(super) fn synchronises_norm(&self) -> bool {
        let network = &self.job.config.network;
        network.sync_bn && network.batch_norm && self.ranks.are_many()
    }

    /// Writes a row of the run's metrics.
    pub(super) fn record(&mut self, record: &Record) {
        if let Some(Files { journal, .. }) = &mut self.files {
            journal.record(record);
        }
    }

    /// Whether a line of the log follows the update before `step`.
    pub(super) fn is_log_step(&self, step: u64) -> bool {
        let interval = self.course.log_interval(self.job.config.log.every_steps);
        step.is_multiple_of(interval) || step == self.course.total_steps
    }

    /// Brings the seconds of the run up to now.
    pub(super) fn count_seconds(&mut self) {
        self.progress.seconds = self.seconds_before + self.start.elapsed().as_secs_f64();
    }

    /// Seconds until the end of the run, at the speed of this process, or of the whole run while this
    /// process has not made an epoch's steps.
    pub(super) fn seconds_left(&self) -> f64 {
        let done = self.progress.step - self.steps_before;
        let (seconds, steps) = match done >= self.course.steps_per_epoch {
            true => (self.start.elapsed().as_secs_f64(), done),
            false => (self.progress.seconds, self.progress.step),
        };
        (self.course.total_steps - self.progress.step) as f64 * seconds / steps.max(1) as f64
    }

    /// Time since the last checkpoint was handed over.
    pub(super) fn since_save(&self) -> Duration {
        self.last_save.elapsed()
    }

    /// Hands the state over to be written, behind all rows of the journal.
    ///
    /// # Errors
    /// The checkpoint before could not be written. The state is then somewhere else, if possible.
    pub(super) fn save(&mut self) -> Result<(), Error> {
        self.last_save = Instant::now();
        let saved = self.hand_over();
        saved.map_err(|error| self.rescue(error))
    }

    /// Saves and waits until it is done.
    ///
    /// # Errors
    /// As [`Session::save`].
    pub(super) fn save_now(&mut self) -> Result<(), Error> {
        let mut saved = self.hand_over();
        if let (Ok(()), Some(Files { saver, .. })) = (&saved, &mut self.files) {
            saved = saver.wait();
        }
        saved.map_err(|error| self.rescue(error))
    }

    /// Tells whether a write has failed, without waiting for one that goes on.
    ///
    /// # Errors
    /// The failure, for [`Session::rescue`].
    pub(super) fn check_saver(&mut self) -> Result<(), RunError> {
        self.files.as_mut().map_or(Ok(()), |files| files.saver.check())
    }

    fn hand_over(&mut self) -> Result<(), RunError> {
        debug_assert!(
            self.in_flight.is_empty(),
            "the state is behind updates that are not counted"
        );
        let Session { job, executor, progress, population, files, .. } = self;
        let Some(Files { journal, saver }) = files else { return Ok(()) };
        let mut rows = Vec::new();
        persist(job.patience(), || {
            rows = journal.flush()?;
            Ok(())
        })?;
        tracing::debug!("saving the state of step {}", progress.step);
        saver.save(job.metadata(progress), job.names(progress), rows, |state| {
            state.progress.clone_from(progress);
            state.population.clone_from(population);
            executor.store(&mut state.model)
        })
    }

    /// What a run ends with that cannot write its checkpoints: the error, and where else its state is.
    pub(super) fn rescue(&mut self, error: RunError) -> Error {
        if matches!(&error, RunError::Checkpoint(error) if error.is_of_content()) {
            return error.into();
        }
        let Session { job, executor, progress, population, .. } = self;
        let name = format!("bninception-rescued-{}", std::process::id());
        let path = std::env::temp_dir().join(name).join("last.safetensors");
        let run = quoted(job.folder.path());
        let (progress, population) = (progress.clone(), population.clone());
        let mut state = TrainState { model: no_model(), progress, population };
        let saved =
            executor.store(&mut state.model).map_err(|error| error.to_string()).and_then(|()| {
                let saved =
                    checkpoint::save(&path, &job.metadata(&state.progress), &job.table, &state);
                saved.map_err(|error| error.to_string())
            });
        let outcome = match saved {
            Ok(()) => format!(
                "the state of step {} is in {} instead: make room, then put it in its place and go on \
                 with: cp {} {} && bninception resume {run}",
                state.progress.step,
                path.display(),
                quoted(&path),
                quoted(&job.folder.last())
            ),
            Err(other) => format!(
                "nor could it be written elsewhere ({other}); go on from the last checkpoint with: \
                 bninception resume {run}"
            ),
        };
        Error::Unsaved { source: Box::new(error), outcome }
    }
}

/// A state to be filled by an executor.
pub(super) fn no_model() -> ModelState {
    ModelState::of(Weights { trainable: Vec::new(), statistics: Vec::new() })
}

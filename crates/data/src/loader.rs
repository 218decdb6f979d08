//! Batches in order, made by threads ahead of their use.
//!
//! Worker w of W makes the batches w, w + W, w + 2W, ... of the sequence and puts them into its own
//! bounded queue; the loader takes from the queues in turn. That gives the order without any
//! sorting or locking, bounds the memory at `workers * (prefetch + 1)` batches beside the one in
//! use, and leaves nothing to chance: a batch is a function of its number alone. With no workers
//! the calling thread runs the very same function.
//!
//! What was rejected: handing out single images (a batch would need shared mutable memory, for an
//! advantage in the first batch only), and a shared queue of numbers (it must be sorted again).

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::augment::{AugmentConfig, RenderMemory, View};
use crate::balance::{Balance, Draw, balanced_order, images_by_class};
use crate::crops::Crops;
use crate::decode::{DecodeBuffers, Wanted};
use crate::error::DataError;
use crate::guard::{lock, panic_message};
use crate::mixup::Mixture;
use crate::order::{DEFAULT_SHARD_SIZE, Shuffle, epoch_order};
use crate::preprocess::{Preprocessing, preprocess};
use crate::random::ViewKey;
use crate::share::{OwnBatches, Share};
use crate::source::Source;

/// How batches are made, which never changes what is in them (except for their size).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Samples in a batch.
    pub batch_size: usize,
    /// Threads that make batches; 0 makes them in the calling thread when they are asked for.
    pub workers: usize,
    /// Finished batches that each worker may have waiting, at least 1.
    pub prefetch: usize,
}

impl Default for LoadOptions {
    /// The paper's batch of 32 (Ioffe & Szegedy 2015, section 4.2). Two workers keep ahead of a
    /// network that trains on a CPU.
    fn default() -> Self {
        LoadOptions { batch_size: 32, workers: 2, prefetch: 2 }
    }
}

/// Which batches a training loader makes.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainPlan {
    /// How images are varied.
    pub augment: AugmentConfig,
    /// How each epoch is ordered.
    pub shuffle: Shuffle,
    /// Samples in a shard, for the orders that have shards.
    pub shard_size: usize,
    /// How often each class comes in an epoch; any but [`Balance::None`] needs [`Shuffle::Full`].
    pub balance: Balance,
    /// The seed of the order and of the augmentation.
    pub seed: u64,
    /// Batches that make one update together: an epoch ends with the last update that it fills.
    pub accumulate: usize,
    /// Which of several processes this is: each makes as many of the batches of an update as the others, one
    /// behind the other. With `accumulate` = 1 they take turns.
    pub share: Share,
    /// The batches to make of all processes, counted over all epochs from 0: batch b is number `b % n` of epoch `b / n`,
    /// with n = [`batches_per_epoch`]. Any start is reached at once.
    pub batches: Range<u64>,
}

impl TrainPlan {
    /// The plan with default settings for the given batches.
    pub fn new(seed: u64, batches: Range<u64>) -> TrainPlan {
        TrainPlan {
            augment: AugmentConfig::default(),
            shuffle: Shuffle::Full,
            shard_size: DEFAULT_SHARD_SIZE,
            balance: Balance::None,
            seed,
            accumulate: 1,
            share: Share::default(),
            batches,
        }
    }
}

/// Returns the number of training batches in an epoch of `n_samples`, of which `accumulate` make an
/// update.
///
/// The rest that fills no update is dropped; another order drops others in the next epoch. A smaller
/// batch would have other batch statistics and a heavier weight on each of its samples.
pub fn batches_per_epoch(n_samples: usize, batch_size: usize, accumulate: usize) -> u64 {
    (n_samples / (batch_size * accumulate) * accumulate) as u64
}

/// A sample that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its position in the source.
    pub index: u32,
    /// Its file.
    pub path: PathBuf,
    /// The reason, with the path.
    pub error: String,
}

/// Some samples, ready for a network.
#[derive(Debug)]
pub struct Batch {
    /// Levels of red, green and blue, n x crops x size x size x 3, n being the length of `labels`. There
    /// is one crop but for [`Loader::eval_crops`]. The network normalises them where it reads them.
    pub images: Vec<u8>,
    /// Classes of the n images.
    pub labels: Vec<u32>,
    /// The share of an image's own label in its target, where images were mixed in pairs
    /// ([`AugmentConfig::mixup`]): the first with the last, and so on inwards. The other image's label has
    /// the rest.
    pub own_share: Option<f64>,
    /// Positions of the n images in the source.
    pub indices: Vec<u32>,
    /// Samples of this batch that could not be used. They are missing above and never replaced, so
    /// n may be less than the batch size, even 0. The caller decides how many are too many.
    pub failed: Vec<Failure>,
    /// The number of the batch: the step in training, counted from 0 in evaluation.
    pub step: u64,
    /// How long the caller waited for the batch. Of all fields, this one alone differs from run to
    /// run.
    pub wait: Duration,
}

/// An iterator over batches, in order.
///
/// It ends after the last batch, or after the first error. Dropping it stops its threads: each
/// finishes at most the image in hand.
pub struct Loader {
    recipe: Arc<Recipe>,
    /// The batches still to be delivered, counted from 0; the first is worker 0's.
    turns: Range<u64>,
    /// Their numbers among the batches of all processes.
    own: OwnBatches,
    makers: Makers,
}

enum Makers {
    Caller(Box<Worker>),
    Threads(Vec<Thread>),
}

struct Thread {
    /// `None` once the loader is being dropped, which wakes a worker that waits for room.
    batches: Option<Receiver<Result<Batch, DataError>>>,
    handle: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts making the training batches of `plan`.
    ///
    /// # Errors
    /// A setting is out of its range, the source has fewer samples than a batch, or a thread cannot
    /// be started.
    pub fn train(
        source: Arc<dyn Source>,
        preprocessing: &Preprocessing,
        options: &LoadOptions,
        plan: &TrainPlan,
    ) -> Result<Loader, DataError> {
        plan.augment.validate()?;
        check_batch_size(options)?;
        if plan.accumulate == 0 {
            return Err(DataError::setting("accumulate", 0, "at least 1"));
        }
        if source.len() / plan.accumulate < options.batch_size {
            let batch = match plan.accumulate {
                1 => options.batch_size.to_string(),
                accumulate => format!("{accumulate} x {}", options.batch_size),
            };
            return Err(DataError::Setting {
                field: "batch_size",
                found: format!("{batch} with {} training images", source.len()),
                expected: "a batch that is no larger than the training set",
            });
        }
        let classes = match plan.balance {
            Balance::None => Vec::new(),
            _ if plan.shuffle != Shuffle::Full => {
                let found = format!("{:?} with {:?}", plan.balance, plan.shuffle);
                let expected = "a full shuffle where classes are balanced";
                return Err(DataError::Setting { field: "balance", found, expected });
            }
            _ => {
                let labels = || (0..source.len()).map(|index| source.label(index));
                let n_classes = labels().max().map_or(0, |label| label as usize + 1);
                images_by_class(labels(), n_classes)
            }
        };
        let kind = Kind::Train { plan: plan.clone(), classes, order: Mutex::new(None) };
        // Batches that are no part of an update are dealt one by one.
        let run = if plan.accumulate == 1 { 1 } else { plan.accumulate / plan.share.ranks };
        let is_shared = plan.accumulate == 1 || run * plan.share.ranks == plan.accumulate;
        if !is_shared || plan.share.rank >= plan.share.ranks {
            let found =
                format!("{} batches an update on {} processes", plan.accumulate, plan.share.ranks);
            let expected = "as many batches of an update on each process";
            return Err(DataError::Setting { field: "accumulate", found, expected });
        }
        let own = OwnBatches::new(plan.batches.clone(), run as u64, plan.share);
        Loader::start(source, preprocessing, options, kind, own)
    }

    /// Starts making the batches that evaluate every sample once, in the order of the source. The
    /// last batch holds the rest.
    ///
    /// # Errors
    /// A setting is out of its range, or a thread cannot be started.
    pub fn eval(
        source: Arc<dyn Source>,
        preprocessing: &Preprocessing,
        options: &LoadOptions,
    ) -> Result<Loader, DataError> {
        Loader::eval_crops(source, Crops::One, preprocessing, options)
    }

    /// [`Loader::eval`] with the given crops of every sample, which is decoded once for all of them.
    /// The batch size counts samples.
    ///
    /// # Errors
    /// As [`Loader::eval`].
    pub fn eval_crops(
        source: Arc<dyn Source>,
        crops: Crops,
        preprocessing: &Preprocessing,
        options: &LoadOptions,
    ) -> Result<Loader, DataError> {
        Loader::eval_share(source, crops, preprocessing, options, Share::default())
    }

    /// [`Loader::eval_crops`] of every batch that is this process's own: together, the processes evaluate each
    /// sample once.
    ///
    /// # Errors
    /// As [`Loader::eval`].
    pub fn eval_share(
        source: Arc<dyn Source>,
        crops: Crops,
        preprocessing: &Preprocessing,
        options: &LoadOptions,
        share: Share,
    ) -> Result<Loader, DataError> {
        check_batch_size(options)?;
        let n_batches = source.len().div_ceil(options.batch_size) as u64;
        let own = OwnBatches::new(0..n_batches, 1, share);
        Loader::start(source, preprocessing, options, Kind::Eval(crops), own)
    }

    /// Takes back the memory of a batch, so that the next ones need no more.
    pub fn recycle(&mut self, batch: Batch) {
        let mut spare = lock(&self.recipe.spare);
        // More than one for each batch in flight is never needed.
        if spare.len() < self.recipe.max_spare {
            spare.push(batch.images);
        }
    }

    fn start(
        source: Arc<dyn Source>,
        preprocessing: &Preprocessing,
        options: &LoadOptions,
        kind: Kind,
        own: OwnBatches,
    ) -> Result<Loader, DataError> {
        preprocessing.validate()?;
        let prefetch = options.prefetch.max(1);
        let recipe = Arc::new(Recipe {
            source,
            preprocessing: preprocessing.clone(),
            batch_size: options.batch_size,
            kind,
            stop: AtomicBool::new(false),
            spare: Mutex::new(Vec::new()),
            max_spare: options.workers * (prefetch + 1) + 1,
        });
        let makers = match options.workers {
            0 => Makers::Caller(Box::new(Worker::new(&recipe))),
            _ => Makers::Threads(Vec::new()),
        };
        // The loader exists before its threads, so that an error below drops and stops them.
        let mut loader = Loader { recipe, turns: 0..own.count(), own, makers };
        if let Makers::Threads(threads) = &mut loader.makers {
            for worker_idx in 0..options.workers {
                let (sender, batches) = sync_channel(prefetch);
                let mut worker = Worker::new(&loader.recipe);
                let mine = loader.turns.clone().skip(worker_idx).step_by(options.workers);
                let own = loader.own.clone();
                let run = move || {
                    for turn in mine {
                        let Some(made) = worker.make(own.number(turn)) else { return };
                        let is_last = made.is_err();
                        // The loader was dropped if nobody receives.
                        if sender.send(made).is_err() || is_last {
                            return;
                        }
                    }
                };
                let name = format!("data-{worker_idx}");
                let handle =
                    thread::Builder::new().name(name).spawn(run).map_err(DataError::Thread)?;
                threads.push(Thread { batches: Some(batches), handle: Some(handle) });
            }
        }
        Ok(loader)
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = Instant::now();
        let turn = self.turns.next()?;
        let step = self.own.number(turn);
        let made = match &mut self.makers {
            Makers::Caller(worker) => worker.make(step)?,
            Makers::Threads(threads) => {
                let worker = (turn % threads.len() as u64) as usize;
                let batches = threads[worker].batches.as_ref()?;
                batches.recv().unwrap_or_else(|_| {
                    let message = "its thread ended early".to_owned();
                    Err(DataError::Panic { step, message })
                })
            }
        };
        if made.is_err() {
            self.turns = 0..0;
        }
        Some(made.map(|batch| Batch { wait: start.elapsed(), ..batch }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.turns.size_hint()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.recipe.stop.store(true, Ordering::Relaxed);
        let Makers::Threads(threads) = &mut self.makers else { return };
        for thread in threads.iter_mut() {
            thread.batches = None;
        }
        for thread in threads {
            if let Some(handle) = thread.handle.take() {
                // Panics are caught inside and were delivered as errors.
                let _ = handle.join();
            }
        }
    }
}

// --- Making one batch --------------------------------------------------------------------------

/// All that the content of a batch depends on, beside its number; shared by the workers.
struct Recipe {
    source: Arc<dyn Source>,
    preprocessing: Preprocessing,
    batch_size: usize,
    kind: Kind,
    /// Set when the loader is dropped; looked at before every image.
    stop: AtomicBool,
    /// Memory of used batches.
    spare: Mutex<Vec<Vec<u8>>>,
    max_spare: usize,
}

enum Kind {
    Train {
        plan: TrainPlan,
        /// The samples of each class, if classes are balanced.
        classes: Vec<Vec<u32>>,
        /// The order of the latest epoch that a worker asked for.
        order: Mutex<Option<EpochOrder>>,
    },
    Eval(Crops),
}

impl Kind {
    fn crops(&self) -> Crops {
        match self {
            Kind::Train { .. } => Crops::One,
            Kind::Eval(crops) => *crops,
        }
    }
}

/// An epoch and its order.
type EpochOrder = (u64, Arc<Order>);

/// The samples of an epoch.
enum Order {
    /// Each once.
    Once(Vec<u32>),
    /// Some more often than others.
    Balanced(Vec<Draw>),
}

impl Order {
    /// The samples at `places` of epoch `epoch`.
    fn draws(&self, epoch: u64, places: Range<usize>) -> Vec<Draw> {
        match self {
            Order::Once(indices) => {
                let draw = |&index: &u32| Draw { index, round: epoch };
                indices[places].iter().map(draw).collect()
            }
            Order::Balanced(draws) => draws[places].to_vec(),
        }
    }
}

/// A recipe with the memory to follow it.
struct Worker {
    recipe: Arc<Recipe>,
    decode: DecodeBuffers,
    render: RenderMemory,
    /// The order of the epoch that this worker is in.
    order: Option<EpochOrder>,
}

impl Worker {
    fn new(recipe: &Arc<Recipe>) -> Worker {
        Worker {
            recipe: Arc::clone(recipe),
            decode: DecodeBuffers::default(),
            render: RenderMemory::default(),
            order: None,
        }
    }

    /// Makes batch `step`; `None` if the loader is being dropped.
    fn make(&mut self, step: u64) -> Option<Result<Batch, DataError>> {
        let made = catch_unwind(AssertUnwindSafe(|| self.make_unguarded(step)));
        made.map(|batch| batch.map(Ok)).unwrap_or_else(|panic| {
            Some(Err(DataError::Panic { step, message: panic_message(panic.as_ref()) }))
        })
    }

    fn make_unguarded(&mut self, step: u64) -> Option<Batch> {
        let recipe = Arc::clone(&self.recipe);
        let draws = self.samples_of(&recipe, step);
        let crops = recipe.kind.crops();
        let n_values = crops.count() * recipe.preprocessing.n_values();
        let mut images = lock(&recipe.spare).pop().unwrap_or_default();
        images.resize(draws.len() * n_values, 0);
        let mut batch = Batch {
            images,
            labels: Vec::with_capacity(draws.len()),
            own_share: None,
            indices: Vec::with_capacity(draws.len()),
            failed: Vec::new(),
            step,
            wait: Duration::ZERO,
        };
        for Draw { index, round } in draws {
            if recipe.stop.load(Ordering::Relaxed) {
                return None;
            }
            let draw = |width, height| match &recipe.kind {
                Kind::Eval(_) => None,
                Kind::Train { plan, .. } => {
                    let size = recipe.preprocessing.image_size;
                    let key = ViewKey { seed: plan.seed, epoch: round, index: index.into() };
                    Some(View::draw(width, height, &plan.augment, size, &key))
                }
            };
            let mut view = None;
            let mut want = |width, height| {
                view = draw(width, height);
                view.as_ref().map_or(Wanted::ALL, View::wanted)
            };
            let image = match recipe.source.load(index as usize, &mut want, &mut self.decode) {
                Ok(image) => image,
                Err(error) => {
                    let path = recipe.source.path(index as usize).to_path_buf();
                    batch.failed.push(Failure { index, path, error: error.to_string() });
                    continue;
                }
            };
            let slot = batch.labels.len();
            let levels = &mut batch.images[slot * n_values..][..n_values];
            let memory = &mut self.render;
            // A source that has its images at hand may not have asked.
            match view.or_else(|| draw(image.width(), image.height())) {
                Some(view) => view.render(&image, memory, levels),
                None => {
                    preprocess(&image, crops, &recipe.preprocessing, &mut memory.resizer, levels);
                }
            }
            self.decode.recycle(image);
            batch.labels.push(recipe.source.label(index as usize));
            batch.indices.push(index);
        }
        batch.images.truncate(batch.labels.len() * n_values);
        if let Kind::Train { plan, .. } = &recipe.kind
            && let Some(mixture) = Mixture::draw(plan.augment.mixup, plan.seed, step)
        {
            mixture.apply(&mut batch.images, batch.labels.len());
            batch.own_share = Some(mixture.own_share());
        }
        Some(batch)
    }

    /// The samples of batch `step`.
    fn samples_of(&mut self, recipe: &Recipe, step: u64) -> Vec<Draw> {
        let n_samples = recipe.source.len();
        let batch_size = recipe.batch_size;
        match &recipe.kind {
            Kind::Eval(_) => {
                let start = step as usize * batch_size;
                let end = n_samples.min(start + batch_size);
                (start as u32..end as u32).map(|index| Draw { index, round: 0 }).collect()
            }
            Kind::Train { plan, classes, order: shared } => {
                let n_batches = batches_per_epoch(n_samples, batch_size, plan.accumulate);
                let (epoch, position) = (step / n_batches, step % n_batches);
                let order = match &self.order {
                    Some((known, order)) if *known == epoch => order,
                    _ => {
                        let order = shared_order(shared, plan, classes, n_samples, epoch);
                        &self.order.insert((epoch, order)).1
                    }
                };
                let start = position as usize * batch_size;
                order.draws(epoch, start..start + batch_size)
            }
        }
    }
}

/// The order of `epoch`, computed by the first worker that needs it.
fn shared_order(
    shared: &Mutex<Option<EpochOrder>>,
    plan: &TrainPlan,
    classes: &[Vec<u32>],
    n_samples: usize,
    epoch: u64,
) -> Arc<Order> {
    let mut latest = lock(shared);
    match &*latest {
        Some((known, order)) if *known == epoch => Arc::clone(order),
        _ => {
            let TrainPlan { shuffle, shard_size, balance, seed, .. } = *plan;
            let order = Arc::new(match balance {
                Balance::None => {
                    Order::Once(epoch_order(n_samples, shuffle, shard_size, seed, epoch))
                }
                _ => Order::Balanced(balanced_order(classes, balance, seed, epoch)),
            });
            *latest = Some((epoch, Arc::clone(&order)));
            order
        }
    }
}

fn check_batch_size(options: &LoadOptions) -> Result<(), DataError> {
    match options.batch_size {
        0 => Err(DataError::setting("batch_size", 0, "at least 1")),
        _ => Ok(()),
    }
}

//! What a run will take of memory and disk, beside what there is.

use std::fmt;
use std::fs;
use std::path::Path;

use bninception_engine::model::ParameterTable;
use bninception_engine::{DeviceMemory, Executor};

use crate::config::{Config, EvalStatistics};
use crate::error::Error;
use crate::setup;
use crate::terminal::text::{bytes, counted};
use crate::training::device_memory;
use crate::training::memory_limit::{FreeMemory, Limit, free_memory};

/// Bytes that a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Required {
    /// Memory: engine, weights and what goes with them, batches on their way. `None` if the engine
    /// cannot say.
    pub memory: Option<u64>,
    /// Disk, at the most: checkpoints, and one more while it is written.
    pub disk: u64,
    /// One checkpoint.
    pub checkpoint: u64,
}

/// What is free; `None` where the system does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// Memory that can be had without swapping, inside all limits of the process.
    pub memory: Option<FreeMemory>,
    /// Bytes of disk, where the run folder is or will be.
    pub disk: Option<u64>,
}

impl Required {
    /// The needs of a run of `config` with batches of `batch` images, on `n_images` training images.
    pub fn of(
        config: &Config,
        table: &ParameterTable,
        executor: &dyn Executor,
        batch: usize,
        n_images: usize,
    ) -> Required {
        let weights = table.n_trainable() + table.n_statistics();
        let ema = if config.train.keeps_average() { weights } else { 0 };
        let state = 4 * (weights + table.n_trainable() + ema) as u64;
        // What population statistics add: themselves to a checkpoint, and to memory the weights that are
        // evaluated with them.
        let has_population =
            config.network.batch_norm && config.train.eval_statistics != EvalStatistics::Moving;
        let n_or_0 = |n: usize| if has_population { 4 * n as u64 } else { 0 };
        let checkpoint = state + n_or_0(table.n_statistics());
        let (per_epoch, total) = setup::steps(config, n_images);
        let n_epochs = total.div_ceil(per_epoch.max(1));
        // The state, its copy on the way to the disk, and gradients: of micro-batches twice, and on their way to
        // other processes twice more.
        let gradients = if config.train.accumulate > 1 { 2 } else { 1 };
        let gradients = gradients + if config.train.ranks > 1 { 2 } else { 0 };
        let vectors = 2 * state + gradients * 4 * table.n_trainable() as u64 + n_or_0(weights);
        let memory = match free_memory() {
            // An engine takes memory itself to say how much it takes: it is not asked for nothing.
            Some(free) if free.bytes < vectors => Some(vectors),
            _ => executor.memory_bytes(batch).map(|engine| {
                let options = setup::load_options(config, batch);
                let batches = options.workers * (options.prefetch.max(1) + 1) + 2;
                let image = 3 * config.data.image_size as u64 * config.data.image_size as u64;
                engine as u64 + vectors + batches as u64 * batch as u64 * image
            }),
        };
        Required { memory, disk: checkpoint * n_files(config, n_epochs), checkpoint }
    }

    /// Refuses what does not fit. `fewer` gives the needs with a smaller batch, for the advice.
    ///
    /// # Errors
    /// More is needed than is free.
    pub fn check(
        &self,
        free: &Available,
        batch: usize,
        fewer: impl Fn(usize) -> Required,
    ) -> Result<(), Error> {
        if let (Some(needed), Some(free)) = (self.memory, &free.memory)
            && needed > free.bytes
        {
            let fits =
                |batch: &usize| fewer(*batch).memory.is_some_and(|needed| needed <= free.bytes);
            let smaller = std::iter::successors(Some(batch / 2), |batch| Some(batch / 2));
            let advice = match smaller.take_while(|&batch| batch >= 2).find(fits) {
                Some(batch) => format!("--batch-size {batch} would fit"),
                None if free.limit == Limit::Machine => {
                    "make some free, or lower --image-size".to_owned()
                }
                None => "raise that limit, or lower --image-size".to_owned(),
            };
            return Err(Error::Usage(format!(
                "training on batches of {} takes about {} of memory, and {} are free {}; {advice}",
                counted(batch as u64, "image"),
                bytes(needed),
                bytes(free.bytes),
                free.limit
            )));
        }
        if let Some(free) = free.disk
            && self.disk > free
        {
            return Err(Error::Usage(format!(
                "the checkpoints of the run take up to {}, and {} are free on its disk; lower \
                 checkpoint.keep or raise checkpoint.every_epochs, or choose another --run-dir",
                bytes(self.disk),
                bytes(free)
            )));
        }
        Ok(())
    }
}

/// Checkpoint files at one time: the newest, the one being written, the best, and those of epochs.
fn n_files(config: &Config, n_epochs: u64) -> u64 {
    let checkpoint = &config.checkpoint;
    let epochs = match checkpoint.every_epochs {
        0 => 0,
        every => n_epochs.div_ceil(every),
    };
    3 + match checkpoint.keep {
        0 => epochs,
        keep => epochs.min(keep as u64),
    }
}

impl Available {
    /// What is free for a run in `folder`, which need not exist yet. What checkpoints in it take
    /// counts as free: they will be replaced.
    pub fn now(folder: &Path) -> Available {
        let disk = folder.ancestors().find(|path| path.exists() || path.as_os_str().is_empty());
        let disk = disk.and_then(free_disk).map(|free| free.saturating_add(checkpoints(folder)));
        Available { memory: free_memory(), disk }
    }
}

#[cfg(unix)]
fn free_disk(path: &Path) -> Option<u64> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let system = rustix::fs::statvfs(path).ok()?;
    // Such as /proc, which is no place for files and says nothing of space.
    if system.f_blocks == 0 {
        return None;
    }
    system.f_bavail.checked_mul(system.f_frsize)
}

#[cfg(not(unix))]
fn free_disk(_path: &Path) -> Option<u64> {
    None
}

/// Bytes of the checkpoints in `folder`.
fn checkpoints(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let is_checkpoint = |path: &Path| path.extension().is_some_and(|e| e == "safetensors");
    let files = entries.flatten().filter(|entry| is_checkpoint(&entry.path()));
    files.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// What a run needs of its machine, and what is free there.
pub struct Room {
    /// What it needs.
    pub needs: Required,
    /// What is free.
    pub free: Available,
    /// The same of its device, if it computes on one.
    pub device: Option<DeviceMemory>,
}

impl Room {
    /// Refuses a run that its machine has no room for.
    ///
    /// # Errors
    /// More is needed than is free.
    pub fn of(
        config: &Config,
        table: &ParameterTable,
        executor: &mut dyn Executor,
        n_images: usize,
        folder: &Path,
    ) -> Result<Room, Error> {
        Room::within(config, table, executor, n_images, Available::now(folder))
    }

    /// [`Room::of`] for what writes no checkpoint.
    ///
    /// # Errors
    /// More memory is needed than is free.
    pub fn of_memory(
        config: &Config,
        table: &ParameterTable,
        executor: &mut dyn Executor,
        n_images: usize,
    ) -> Result<Room, Error> {
        let free = Available { memory: free_memory(), disk: None };
        Room::within(config, table, executor, n_images, free)
    }

    fn within(
        config: &Config,
        table: &ParameterTable,
        executor: &mut dyn Executor,
        n_images: usize,
        free: Available,
    ) -> Result<Room, Error> {
        let batch = config.train.batch_size;
        let device = device_memory::check(executor, batch, config.network.fewest_images())?;
        let needs_with = |batch| Required::of(config, table, executor, batch, n_images);
        let needs = needs_with(batch);
        needs.check(&free, batch, needs_with)?;
        Ok(Room { needs, free, device })
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Room { needs, free, device } = self;
        let of_free = |needed: u64, free: Option<u64>| match free {
            Some(free) => format!("{} of {} free", bytes(needed), bytes(free)),
            None => bytes(needed),
        };
        let memory =
            needs.memory.map(|needed| of_free(needed, free.memory.as_ref().map(|free| free.bytes)));
        write!(
            f,
            "memory about {}; disk up to {} ({} a checkpoint)",
            memory.as_deref().unwrap_or("unknown"),
            of_free(needs.disk, free.disk),
            bytes(needs.checkpoint)
        )?;
        match device {
            Some(memory) => write!(f, "; {}", device_memory::to_text(memory)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};

    #[test]
    fn what_does_not_fit_is_refused_with_advice() {
        let needs = |batch: usize| Required {
            memory: Some(1000 + 100 * batch as u64),
            disk: 600,
            checkpoint: 100,
        };
        let check_by = |limit: Limit, memory: Option<u64>, disk| {
            let memory = memory.map(|bytes| FreeMemory { bytes, limit });
            let outcome = needs(32).check(&Available { memory, disk }, 32, needs);
            outcome.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let check = |memory, disk| check_by(Limit::Machine, memory, disk);
        assert_eq!(check(Some(4200), Some(600)), "");
        assert_eq!(check(None, None), "");
        assert!(check(Some(4199), None).contains("--batch-size 16 would fit"));
        assert!(check(Some(1250), None).contains("--batch-size 2 would fit"));
        assert!(check(Some(1100), None).contains("--image-size"));
        assert!(check(Some(9999), Some(599)).contains("checkpoint.keep"));
        // The limit has a name.
        assert!(check(Some(1100), None).contains("are free on this machine; make some free"));
        let of_group = check_by(Limit::Group("/sys/fs/cgroup/a/memory.max".into()), Some(0), None);
        assert!(
            of_group.contains("by /sys/fs/cgroup/a/memory.max); raise that limit"),
            "{of_group}"
        );
        assert!(check_by(Limit::AddressSpace, Some(0), None).contains("ulimit -v"));
    }

    #[test]
    fn files_are_counted_at_the_most() {
        let mut config = resolve(&Sources::default()).unwrap().config;
        // (every epochs, keep, epochs of the run, files)
        for (every, keep, n_epochs, files) in
            [(1, 3, 90, 6), (1, 3, 2, 5), (0, 3, 90, 3), (1, 0, 90, 93), (20, 0, 90, 8)]
        {
            config.checkpoint.every_epochs = every;
            config.checkpoint.keep = keep;
            assert_eq!(n_files(&config, n_epochs), files, "every {every}, keep {keep}");
        }
    }

    #[test]
    fn the_system_answers() {
        let dir = tempfile::tempdir().unwrap();
        let free = Available::now(&dir.path().join("not/yet/there"));
        if cfg!(target_os = "linux") {
            assert!(free.disk.is_some() && free.memory.is_some(), "{free:?}");
        }
    }
}

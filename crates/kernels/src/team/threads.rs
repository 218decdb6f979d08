//! A fixed team of threads that runs one closure on every member.
//!
//! A training step hands out several hundred pieces of work of some 50 microseconds to 20
//! milliseconds. Waiting members therefore spin for a moment before they sleep: waking a sleeping
//! thread costs tens of microseconds, and spinning for ever would take the core from others.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::units::{Slot, Units, deal};

/// How long a member spins for the next piece of work, or for the others to end theirs, before it
/// sleeps: about what falling asleep and being woken costs.
const SPIN: Duration = Duration::from_micros(50);

/// A team of `len` threads, the caller included.
pub struct Team {
    shared: Arc<TeamState>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a piece of work runs; what is left of its units of work.
    running: Mutex<()>,
    slots: Vec<Slot>,
}

/// ErasedWork with the lifetime of its borrows taken away.
type ErasedWork = *const (dyn Fn(usize) + Sync);

struct TeamState {
    /// Counts the pieces of work; a change is the signal to start.
    round: AtomicUsize,
    /// Workers that have not ended the current piece.
    pending: AtomicUsize,
    /// The current piece, and the caller that waits for it.
    job: UnsafeCell<Option<(ErasedWork, Thread)>>,
    stop: AtomicBool,
    panicked: AtomicBool,
}

// SAFETY: `job` is written by the caller alone, while `pending` is zero, and read by workers only
// between the round's signal and their decrement of `pending`; the other fields are atomics.
unsafe impl Send for TeamState {}
// SAFETY: as above.
unsafe impl Sync for TeamState {}

impl Team {
    /// A team of `len` threads (at least one). If `len` is the number of cores that the process may
    /// use, worker `i` is pinned to core `i` (Linux). The caller is never pinned: threads that it
    /// starts later, such as those that load images, would inherit its one core.
    pub fn new(len: usize) -> Team {
        let len = len.max(1);
        let shared = Arc::new(TeamState {
            round: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let cores = affinity::cores();
        let start = |index: usize| {
            let shared = Arc::clone(&shared);
            let core = (cores.len() == len).then(|| cores[index]);
            let name = format!("kernel-{index}");
            let worker = move || {
                if let Some(core) = core {
                    affinity::pin(core);
                }
                shared.serve(index);
            };
            std::thread::Builder::new().name(name).spawn(worker)
        };
        // A team with fewer threads than asked for would split its work otherwise, so a system
        // that refuses a thread is refused in turn.
        let workers = (1..len)
            .map(|index| start(index).unwrap_or_else(|e| panic!("thread {index} of {len}: {e}")))
            .collect();
        let slots = (0..len).map(|_| Slot::default()).collect();
        Team { shared, workers, running: Mutex::new(()), slots }
    }

    /// Threads in the team.
    pub fn len(&self) -> usize {
        self.workers.len() + 1
    }

    /// Whether the team is the caller alone; a team is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Runs `work(thread)` once on every thread and returns when all have ended.
    /// The work splits itself by the thread's index, so that the split never depends on timing.
    ///
    /// # Panics
    /// If `work` panics on any thread, or if the team is already running a piece of work.
    pub fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        self.run_units(0, &|thread, _| work(thread));
    }

    /// Runs `work(thread, units)` once on every thread and returns when all have ended; between them the
    /// threads take `total` units of work, each thread as many as it finds time for.
    ///
    /// # Panics
    /// As [`Team::run`].
    pub(crate) fn run_units(&self, total: usize, work: &(dyn Fn(usize, Units) + Sync)) {
        let work = |thread| work(thread, Units::new(&self.slots, thread));
        let running = self.running.try_lock();
        if matches!(running, Err(TryLockError::WouldBlock)) {
            panic!("the team is already running: work must not start further work on its own team");
        }
        deal(&self.slots, total);
        if self.workers.is_empty() {
            return work(0);
        }
        let (shared, work): (_, &(dyn Fn(usize) + Sync)) = (&*self.shared, &work);
        // SAFETY: only the lifetime changes; no worker touches the closure after its decrement of
        // `pending`, and this function does not return, not even by a panic, before that is zero.
        let erased = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), ErasedWork>(work) };
        // SAFETY: `pending` is zero, so no worker reads the job, and the lock keeps callers apart.
        unsafe { *shared.job.get() = Some((erased, std::thread::current())) };
        shared.pending.store(self.workers.len(), Ordering::Release);
        shared.round.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        wait_until(|| shared.pending.load(Ordering::Acquire) == 0);
        let panicked = shared.panicked.swap(false, Ordering::AcqRel);
        drop(running);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!panicked, "a thread of the team panicked; its message stands above");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.round.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker's panics are caught and were handed to the caller of `run`.
            let _ = worker.join();
        }
    }
}

impl TeamState {
    /// A worker's life: one piece of work per round, until the team is dropped.
    fn serve(&self, index: usize) {
        let mut seen = 0;
        loop {
            wait_until(|| self.round.load(Ordering::Acquire) != seen);
            seen = seen.wrapping_add(1);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            // SAFETY: the round's signal says that the job is written, and it stays until this
            // worker has decremented `pending`.
            let Some((work, caller)) = (unsafe { (*self.job.get()).clone() }) else { continue };
            // SAFETY: `run` keeps the closure borrowed until `pending` is zero.
            let work = unsafe { &*work };
            if catch_unwind(AssertUnwindSafe(|| work(index))).is_err() {
                self.panicked.store(true, Ordering::Release);
            }
            self.pending.fetch_sub(1, Ordering::AcqRel);
            caller.unpark();
        }
    }
}

/// Spins until `done`, then sleeps between looks. Whoever makes `done` true unparks this thread.
fn wait_until(done: impl Fn() -> bool) {
    let mut start = None;
    loop {
        for _ in 0..64 {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > SPIN {
            break;
        }
    }
    while !done() {
        std::thread::park();
    }
}

/// Which cores the process may use, and pinning a thread to one of them.
#[cfg(target_os = "linux")]
mod affinity {
    /// Room for 1024 cores, as in glibc's `cpu_set_t`.
    type Mask = [u64; 16];

    unsafe extern "C" {
        fn sched_getaffinity(pid: i32, size: usize, mask: *mut Mask) -> i32;
        fn sched_setaffinity(pid: i32, size: usize, mask: *const Mask) -> i32;
    }

    /// The cores that this thread may run on; empty if the system does not say.
    pub(super) fn cores() -> Vec<usize> {
        let mut mask: Mask = [0; 16];
        // SAFETY: the mask is as long as said, and 0 names the calling thread.
        let failed = unsafe { sched_getaffinity(0, size_of::<Mask>(), &mut mask) } != 0;
        if failed {
            return Vec::new();
        }
        (0..1024).filter(|core| mask[core / 64] >> (core % 64) & 1 == 1).collect()
    }

    /// Keeps the calling thread on `core`. A refusal costs speed only and is not reported.
    pub(super) fn pin(core: usize) {
        let mut mask: Mask = [0; 16];
        mask[core / 64] |= 1 << (core % 64);
        // SAFETY: the mask is as long as said, and 0 names the calling thread.
        let _ = unsafe { sched_setaffinity(0, size_of::<Mask>(), &mask) };
    }
}

/// Other systems place threads themselves.
#[cfg(not(target_os = "linux"))]
mod affinity {
    pub(super) fn cores() -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn pin(_core: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_runs_every_piece_once() {
        for len in [1, 2, 3, 5] {
            let team = Team::new(len);
            assert_eq!(team.len(), len);
            let counts: Vec<AtomicUsize> = (0..len).map(|_| AtomicUsize::new(0)).collect();
            for round in 0..2000 {
                // Longer than the spin at times, so that sleeping and waking are tried too.
                if round % 500 == 0 {
                    std::thread::sleep(4 * SPIN);
                }
                team.run(&|thread| {
                    counts[thread].fetch_add(1, Ordering::Relaxed);
                });
                let total: usize = counts.iter().map(|c| c.load(Ordering::Relaxed)).sum();
                assert_eq!(total, (round + 1) * len, "run returned before all had ended");
            }
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 2000));
        }
    }

    #[test]
    fn panics_reach_the_caller_and_leave_the_team_usable() {
        let team = Team::new(3);
        for culprit in 0..3 {
            let run = || team.run(&|thread| assert!(thread != culprit, "thread {thread}"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            let ran = AtomicUsize::new(0);
            team.run(&|_| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.load(Ordering::Relaxed), 3);
        }
    }

    #[test]
    fn work_within_work_is_refused() {
        for len in [1, 2] {
            let team = Team::new(len);
            let nested = || {
                team.run(&|thread| {
                    if thread == 0 {
                        team.run(&|_| {})
                    }
                })
            };
            assert!(catch_unwind(AssertUnwindSafe(nested)).is_err(), "{len} threads");
        }
    }

    #[test]
    fn every_unit_is_taken_once_however_slow_a_member_is() {
        for threads in [1, 2, 3, 5] {
            let team = Team::new(threads);
            for total in [0, 1, 2, 100] {
                let counts: Vec<_> = (0..total).map(|_| AtomicUsize::new(0)).collect();
                team.run_units(total, &|thread, units| {
                    while let Some(unit) = units.take() {
                        counts[unit].fetch_add(1, Ordering::Relaxed);
                        if thread == 1 {
                            std::thread::sleep(Duration::from_micros(200));
                        }
                    }
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads}");
            }
        }
    }
}

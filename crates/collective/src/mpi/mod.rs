//! Ranks through MPI. The library is found at run time: nothing is needed to build, and nothing is opened without a
//! launcher.
//!
//! Every call is begun and then waited for by asking whether it is done, so that a rank lets others have its core
//! while it waits, and can say for whom it does.

mod abi;
mod library;
mod names;
mod sum;
mod waiting;

use std::collections::VecDeque;
use std::env;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::time::Duration;

use self::abi::Handle;
use self::library::{Library, Request};
use self::sum::{Stage, Sum, count};
use self::waiting::{Next, Waiting, ranks_in_words};
use crate::collective::{Collective, Reduce};
use crate::error::CollectiveError;
use crate::launcher::Launcher;
use crate::segments::add_in_order;

/// `MPI_SUCCESS` of all interfaces.
const SUCCESS: c_int = 0;

/// Tag of the messages by which ranks tell that they wait. Nothing else has a tag.
const NOTICE_TAG: c_int = 7;

/// The ranks of `MPI_COMM_WORLD`. All calls come from the thread that opened it.
pub struct Mpi {
    library: Library,
    rank: usize,
    size: usize,
    /// A second communicator: the second half of a sum begins when its first half is done, which is not at the
    /// same moment on all ranks, and calls on one communicator must begin in the same order.
    gathering: Handle,
    /// Sums under way, the oldest first.
    sums: VecDeque<Box<Sum>>,
    /// Memory of earlier sums: parts and own segment.
    spare: Vec<(Vec<f32>, Vec<f32>)>,
    /// Calls that were waited for; the same on all ranks that are at the same place.
    waits: u64,
    place: String,
    patience: Duration,
    /// Waits that this rank told the others of.
    n_told: u64,
    /// How many waits each rank told this one of, and the last.
    heard: Vec<(u64, u64)>,
    /// Nothing more is told, because nobody would hear it.
    is_ending: bool,
    /// MPI was told that one thread makes all calls.
    one_thread: PhantomData<*const ()>,
}

impl Mpi {
    /// Opens the library and joins the other ranks of the launcher.
    ///
    /// # Errors
    /// No library, or one that knows of another number of processes than the launcher: it belongs to another MPI.
    pub fn open(launcher: Option<Launcher>) -> Result<Mpi, CollectiveError> {
        let names = names::names(env::var(names::VARIABLE).ok(), launcher);
        let library = Library::open(&names)?;
        let mut provided: c_int = 0;
        // SAFETY: no arguments are handed over, as MPI allows; it is called once, since whoever has an `Mpi` or
        // an error of this function does not come here again in one process.
        let code = unsafe {
            (library.init_thread)(
                ptr::null_mut(),
                ptr::null_mut(),
                library.abi.thread_funneled,
                &raw mut provided,
            )
        };
        let ask = |function: library::Ask| {
            let mut answer: c_int = -1;
            // SAFETY: the communicator is the library's own, and the answer is one int.
            let code = unsafe { function(library.abi.comm_world, &raw mut answer) };
            usize::try_from(answer).ok().filter(|_| code == SUCCESS)
        };
        let (rank, size) = (ask(library.comm_rank), ask(library.comm_size));
        let (Some(rank), Some(size), SUCCESS) = (rank, size, code) else {
            let reason = library.reason(code);
            return Err(CollectiveError::Call { call: "MPI_Init_thread", rank: 0, reason });
        };
        let mut mpi = Mpi {
            gathering: library.abi.comm_world,
            library,
            rank,
            size,
            sums: VecDeque::new(),
            spare: Vec::new(),
            waits: 0,
            place: "the start".to_owned(),
            patience: waiting::patience(),
            n_told: 0,
            heard: vec![(0, 0); size],
            is_ending: false,
            one_thread: PhantomData,
        };
        // A launcher that does not say how many processes there are says which one this is.
        let as_expected = |Launcher { size: n, rank: number, .. }: Launcher| {
            n.is_none_or(|n| n == size) && number.is_none_or(|number| number == rank)
        };
        if let Some(launcher) = launcher
            && !as_expected(launcher)
        {
            let Launcher { name, size: started, rank: number, .. } = launcher;
            let expected = started.or(number.map(|number| number + 1)).unwrap_or(1);
            return Err(CollectiveError::OtherLibrary {
                launcher: name,
                expected,
                found: size,
                path: mpi.library.path.clone(),
                version: mpi.library.version(),
            });
        }
        // An int of an interface with ints fills the lower half, the first on the machines that this runs on.
        let mut gathering: Handle = 0;
        // SAFETY: it writes one handle.
        let code =
            unsafe { (mpi.library.comm_dup)(mpi.library.abi.comm_world, &raw mut gathering) };
        mpi.check("MPI_Comm_dup", code)?;
        mpi.gathering = gathering;
        Ok(mpi)
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<(), CollectiveError> {
        match code {
            SUCCESS => Ok(()),
            code => Err(CollectiveError::Call {
                call,
                rank: self.rank,
                reason: self.library.reason(code),
            }),
        }
    }

    /// Whether a call is done.
    fn is_done(&self, request: &mut Request) -> Result<bool, CollectiveError> {
        let mut flag: c_int = 0;
        // SAFETY: the request is one that the library gave, and the status is the one that is ignored.
        let code = unsafe {
            let ignored = self.library.abi.status_ignore as *mut c_void;
            (self.library.test)(request, &raw mut flag, ignored)
        };
        self.check("MPI_Test", code)?;
        Ok(flag != 0)
    }

    /// Waits until `is_done` says so. All ranks make the same waits in the same order.
    fn wait(
        &mut self,
        call: &'static str,
        mut is_done: impl FnMut(&mut Mpi) -> Result<bool, CollectiveError>,
    ) -> Result<(), CollectiveError> {
        self.waits += 1;
        let mut waiting = Waiting::start(self.patience);
        while !is_done(self)? {
            match waiting.pause() {
                Next::Ask => {}
                Next::Tell if self.is_ending => {}
                Next::Tell => self.tell_that_it_waits()?,
                Next::Warn => {
                    self.hear_who_waits()?;
                    let is_here = |rank: &usize| self.heard[*rank].1 == self.waits;
                    let missing: Vec<usize> = self.others().filter(|rank| !is_here(rank)).collect();
                    tracing::warn!(
                        "rank {} has waited {:.0} s in {call} of {}, for {}",
                        self.rank,
                        waiting.waited().as_secs_f64(),
                        self.place,
                        match missing.is_empty() {
                            true => "the network: all ranks are here".to_owned(),
                            false => ranks_in_words(&missing),
                        }
                    );
                }
            }
        }
        if waiting.has_warned() {
            let seconds = waiting.waited().as_secs_f64();
            tracing::warn!("rank {} goes on, {seconds:.0} s later", self.rank);
        }
        Ok(())
    }

    fn wait_for(
        &mut self,
        call: &'static str,
        mut request: Request,
    ) -> Result<(), CollectiveError> {
        self.wait(call, |mpi| mpi.is_done(&mut request))
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.rank;
        (0..self.size).filter(move |&rank| rank != own)
    }

    /// Tells all others which wait this rank is in.
    fn tell_that_it_waits(&mut self) -> Result<(), CollectiveError> {
        self.n_told += 1;
        // The library may read it at any time later on.
        let number: &'static u64 = Box::leak(Box::new(self.waits));
        for rank in self.others() {
            let mut request: Request = 0;
            let abi = self.library.abi;
            // SAFETY: the eight bytes live for ever.
            let code = unsafe {
                let start = ptr::from_ref(number).cast();
                (self.library.send)(
                    start,
                    8,
                    abi.byte,
                    rank as c_int,
                    NOTICE_TAG,
                    abi.comm_world,
                    &raw mut request,
                )
            };
            self.check("MPI_Isend", code)?;
            // SAFETY: the request is the one above; nobody waits for it, and the message goes on its way.
            let code = unsafe { (self.library.request_free)(&raw mut request) };
            self.check("MPI_Request_free", code)?;
        }
        Ok(())
    }

    /// Reads what others have told.
    fn hear_who_waits(&mut self) -> Result<(), CollectiveError> {
        let abi = self.library.abi;
        let ignored = abi.status_ignore as *mut c_void;
        for rank in self.others() {
            let from = rank as c_int;
            loop {
                let mut flag: c_int = 0;
                // SAFETY: it writes one int.
                let code = unsafe {
                    (self.library.probe)(from, NOTICE_TAG, abi.comm_world, &raw mut flag, ignored)
                };
                self.check("MPI_Iprobe", code)?;
                if flag == 0 {
                    break;
                }
                self.hear(rank)?;
            }
        }
        Ok(())
    }

    /// Reads the next that a rank has told.
    fn hear(&mut self, rank: usize) -> Result<(), CollectiveError> {
        let abi = self.library.abi;
        let mut number: u64 = 0;
        // SAFETY: messages with this tag have eight bytes, and there is room for them.
        let code = unsafe {
            (self.library.receive)(
                (&raw mut number).cast(),
                8,
                abi.byte,
                rank as c_int,
                NOTICE_TAG,
                abi.comm_world,
                abi.status_ignore as *mut c_void,
            )
        };
        self.check("MPI_Recv", code)?;
        self.heard[rank] = (self.heard[rank].0 + 1, number);
        Ok(())
    }

    /// Reads all that others have told: libraries refuse to end with messages that nobody has read.
    fn hear_all(&mut self) -> Result<(), CollectiveError> {
        self.is_ending = true;
        let told = self.gather(&self.n_told.to_le_bytes())?;
        for rank in self.others() {
            let told = told[rank].as_slice().try_into().map_or(0, u64::from_le_bytes);
            while self.heard[rank].0 < told {
                self.hear(rank)?;
            }
        }
        Ok(())
    }

    /// Begins a sum.
    fn start(&mut self, mut sum: Box<Sum>, reduce: Reduce) -> Result<(), CollectiveError> {
        let abi = self.library.abi;
        let (call, code) = match reduce {
            Reduce::Ordered => {
                sum.stage = Stage::Scattering;
                // SAFETY: counts and places lie inside `values` and `parts` (`Sum::new`); every rank sends as much
                // as the others expect, because all have as many values. The buffers stay until it is done.
                let code = unsafe {
                    (self.library.all_to_all)(
                        sum.values.as_ptr().cast(),
                        sum.all.counts.as_ptr(),
                        sum.all.places.as_ptr(),
                        abi.byte,
                        sum.parts.as_mut_ptr().cast(),
                        sum.received.counts.as_ptr(),
                        sum.received.places.as_ptr(),
                        abi.byte,
                        abi.comm_world,
                        &raw mut sum.request,
                    )
                };
                ("MPI_Ialltoallv", code)
            }
            Reduce::Fast => {
                sum.stage = Stage::Reducing;
                let n = count(sum.values.len())?;
                // SAFETY: `values` has that many floats and stays until it is done.
                let code = unsafe {
                    (self.library.all_reduce)(
                        abi.in_place as *const c_void,
                        sum.values.as_mut_ptr().cast(),
                        n,
                        abi.float,
                        abi.sum,
                        abi.comm_world,
                        &raw mut sum.request,
                    )
                };
                ("MPI_Iallreduce", code)
            }
        };
        self.sums.push_back(sum);
        self.check(call, code)
    }

    /// Begins the second half of a sum whose first half is done.
    fn gather_sums(&self, sum: &mut Sum) -> Result<(), CollectiveError> {
        add_in_order(&sum.parts, self.size, &mut sum.own);
        sum.stage = Stage::Gathering;
        // SAFETY: `own` is this rank's segment of `values`, where those of all ranks have their places.
        let code = unsafe {
            (self.library.all_gather)(
                sum.own.as_ptr().cast(),
                sum.all.counts[self.rank],
                self.library.abi.byte,
                sum.values.as_mut_ptr().cast(),
                sum.all.counts.as_ptr(),
                sum.all.places.as_ptr(),
                self.library.abi.byte,
                self.gathering,
                &raw mut sum.request,
            )
        };
        self.check("MPI_Iallgatherv", code)
    }

    /// Moves sums on, in their order, as far as that goes without waiting. Gives whether the oldest is done.
    fn move_on(&mut self) -> Result<bool, CollectiveError> {
        let mut sums = std::mem::take(&mut self.sums);
        let outcome = self.move_sums(&mut sums);
        self.sums = sums;
        outcome?;
        Ok(self.sums.front().is_none_or(|sum| sum.stage == Stage::Done))
    }

    fn move_sums(&self, sums: &mut VecDeque<Box<Sum>>) -> Result<(), CollectiveError> {
        for sum in sums {
            match sum.stage {
                Stage::Done => {}
                Stage::Scattering if self.is_done(&mut sum.request)? => self.gather_sums(sum)?,
                // The next must not begin their second half before this.
                Stage::Scattering => return Ok(()),
                Stage::Gathering | Stage::Reducing => {
                    if self.is_done(&mut sum.request)? {
                        sum.stage = Stage::Done;
                    }
                }
            }
        }
        Ok(())
    }

    /// Gathers as many bytes of each rank as `counts` says, at these places of `all`.
    fn all_gather(
        &mut self,
        own: &[u8],
        all: &mut [u8],
        (counts, places): (&[c_int], &[c_int]),
    ) -> Result<(), CollectiveError> {
        let end =
            counts.iter().zip(places).map(|(count, place)| i64::from(*count) + i64::from(*place));
        let fits = end.max().unwrap_or(0) <= all.len() as i64 && counts.len() == self.size;
        assert!(fits && counts[self.rank] as usize == own.len(), "places outside of the buffer");
        let abi = self.library.abi;
        let mut request: Request = 0;
        // SAFETY: checked above; sender and receiver have buffers of their own, which stay until the wait below
        // is over.
        let code = unsafe {
            (self.library.all_gather)(
                own.as_ptr().cast(),
                counts[self.rank],
                abi.byte,
                all.as_mut_ptr().cast(),
                counts.as_ptr(),
                places.as_ptr(),
                abi.byte,
                abi.comm_world,
                &raw mut request,
            )
        };
        self.check("MPI_Iallgatherv", code)?;
        self.wait_or_end("a gathering", request)
    }

    /// Waits for a call that has borrowed memory: should that fail, the process ends, because the library may
    /// still write there.
    fn wait_or_end(&mut self, call: &'static str, request: Request) -> Result<(), CollectiveError> {
        self.wait_for(call, request).inspect_err(|error| {
            tracing::error!("rank {}: {error}", self.rank);
            self.abort(1);
        })
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn describe(&self) -> String {
        let Library { path, abi, .. } = &self.library;
        format!(
            "{} processes through {} ({}, {} interface)",
            self.size,
            path.display(),
            self.library.version(),
            abi.name
        )
    }

    fn set_place(&mut self, place: &str) {
        self.place.clear();
        self.place.push_str(place);
    }

    fn broadcast(&mut self, bytes: &mut [u8]) -> Result<(), CollectiveError> {
        let abi = self.library.abi;
        for piece in bytes.chunks_mut(c_int::MAX as usize) {
            let len = count(piece.len())?;
            let mut request: Request = 0;
            // SAFETY: the piece has that many bytes and stays until the wait below is over; rank 0 is there.
            let code = unsafe {
                let start = piece.as_mut_ptr().cast::<c_void>();
                (self.library.broadcast)(start, len, abi.byte, 0, abi.comm_world, &raw mut request)
            };
            self.check("MPI_Ibcast", code)?;
            self.wait_or_end("a broadcast", request)?;
        }
        Ok(())
    }

    fn start_sum(&mut self, values: Vec<f32>, reduce: Reduce) -> Result<(), CollectiveError> {
        let spare = self.spare.pop().unwrap_or_default();
        let sum = Sum::new(values, (self.rank, self.size), spare)?;
        if self.size == 1 {
            self.sums.push_back(Box::new(sum));
            return Ok(());
        }
        self.start(Box::new(sum), reduce)
    }

    fn advance(&mut self) -> Result<(), CollectiveError> {
        self.move_on().map(|_| ())
    }

    fn finish_sum(&mut self) -> Result<Vec<f32>, CollectiveError> {
        self.wait("the exchange", Mpi::move_on)?;
        let Some(sum) = self.sums.pop_front() else { return Ok(Vec::new()) };
        let Sum { values, parts, own, .. } = *sum;
        self.spare.push((parts, own));
        Ok(values)
    }

    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        // Lengths first, 8 bytes of each rank.
        let eights: Vec<c_int> = vec![8; self.size];
        let places: Vec<c_int> = (0..self.size).map(|rank| 8 * rank as c_int).collect();
        let mut lens = vec![0; 8 * self.size];
        let own_len = own.len() as u64;
        self.all_gather(&own_len.to_le_bytes(), &mut lens, (&eights, &places))?;
        let lens: Vec<usize> = lens
            .chunks_exact(8)
            .filter_map(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?) as usize))
            .collect();
        let total = lens.iter().sum::<usize>();
        count(total)?;
        let counts: Vec<c_int> = lens.iter().map(|&len| len as c_int).collect();
        let places: Vec<c_int> =
            (0..self.size).map(|rank| lens[..rank].iter().sum::<usize>() as c_int).collect();
        let mut all = vec![0; total];
        self.all_gather(own, &mut all, (&counts, &places))?;
        let mut rest = all.as_slice();
        Ok(lens
            .into_iter()
            .map(|len| {
                let (own, behind) = rest.split_at(len);
                rest = behind;
                own.to_vec()
            })
            .collect())
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        let mut request: Request = 0;
        // SAFETY: the communicator is the library's own.
        let code = unsafe { (self.library.barrier)(self.library.abi.comm_world, &raw mut request) };
        self.check("MPI_Ibarrier", code)?;
        self.wait_for("a barrier", request)
    }

    #[allow(clippy::exit)] // MPI_Abort ends the process; if it came back, this must not go on
    fn abort(&self, code: u8) -> ! {
        std::thread::sleep(LAST_WORDS);
        // SAFETY: as above. The exit code must not be 0: MPICH would call the job a success.
        unsafe { (self.library.abort)(self.library.abi.comm_world, c_int::from(code.max(1))) };
        std::process::exit(i32::from(code.max(1)))
    }
}

/// How long a rank that ends all others lives on. What it wrote just before, the reason, is in a pipe to the launcher,
/// and MPICH's launcher drops what it has not read when it hears of the end: on busy cores 4 of 150 reasons.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl Drop for Mpi {
    fn drop(&mut self) {
        if std::thread::panicking() || !self.sums.is_empty() {
            // The others would wait for this rank, and the library may still write into the sums.
            self.abort(101);
        }
        if let Err(error) = self.hear_all() {
            tracing::error!("rank {}: {error}", self.rank);
            self.abort(1);
        }
        // SAFETY: it was initialised, and nobody calls it behind this.
        unsafe { (self.library.finalize)() };
    }
}

//! Ranks through MPI. The library is found at run time: nothing is needed to build, and nothing is opened without a
//! launcher.

mod abi;
mod library;
mod names;

use std::env;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;

use self::library::Library;
use crate::collective::Collective;
use crate::error::CollectiveError;
use crate::launcher::Launcher;
use crate::segments::{add_in_order, segment};

/// `MPI_SUCCESS` of all interfaces.
const SUCCESS: c_int = 0;

/// The ranks of `MPI_COMM_WORLD`. All calls come from the thread that opened it.
pub struct Mpi {
    library: Library,
    rank: usize,
    size: usize,
    /// The segments that other ranks sent.
    parts: Vec<f32>,
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
                std::ptr::null_mut(),
                std::ptr::null_mut(),
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
        let mpi = Mpi { library, rank, size, parts: Vec::new(), one_thread: PhantomData };
        match launcher {
            Some(Launcher { name, size: Some(expected), .. }) if expected != size => {
                Err(CollectiveError::OtherLibrary {
                    launcher: name,
                    expected,
                    found: size,
                    path: mpi.library.path.clone(),
                    version: mpi.library.version(),
                })
            }
            _ => Ok(mpi),
        }
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

    /// Bytes of f32 segments and where they begin, one for each rank.
    fn segments(&self, n: usize) -> Result<(Vec<c_int>, Vec<c_int>), CollectiveError> {
        // The largest place must be countable too.
        count(n * size_of::<f32>())?;
        let bytes = |n: usize| (n * size_of::<f32>()) as c_int;
        let segments = (0..self.size).map(|rank| segment(n, self.size, rank));
        Ok(segments.map(|segment| (bytes(segment.len()), bytes(segment.start))).unzip())
    }

    /// Sends segment r of `values` to rank r, and fills `parts` with this rank's segment of every rank.
    fn exchange(&mut self, values: &[f32]) -> Result<(), CollectiveError> {
        let own = segment(values.len(), self.size, self.rank).len();
        let (send_counts, send_places) = self.segments(values.len())?;
        count(own * self.size * size_of::<f32>())?;
        let own_bytes = (own * size_of::<f32>()) as c_int;
        let receive_counts = vec![own_bytes; self.size];
        let receive_places: Vec<c_int> =
            (0..self.size).map(|rank| rank as c_int * own_bytes).collect();
        self.parts.resize(own * self.size, 0.0);
        let abi = self.library.abi;
        // SAFETY: counts and places are in bytes and lie inside `values` and `parts`; every rank sends as much as
        // the others expect, because all have as many values.
        let code = unsafe {
            (self.library.all_to_all)(
                values.as_ptr().cast(),
                send_counts.as_ptr(),
                send_places.as_ptr(),
                abi.byte,
                self.parts.as_mut_ptr().cast(),
                receive_counts.as_ptr(),
                receive_places.as_ptr(),
                abi.byte,
                abi.comm_world,
            )
        };
        self.check("MPI_Alltoallv", code)
    }

    /// Gathers the bytes of every rank at their places.
    fn all_gather(
        &self,
        own: &[u8],
        all: &mut [u8],
        (counts, places): (&[c_int], &[c_int]),
    ) -> Result<(), CollectiveError> {
        let end =
            counts.iter().zip(places).map(|(count, place)| i64::from(*count) + i64::from(*place));
        let fits = end.max().unwrap_or(0) <= all.len() as i64 && counts.len() == self.size;
        assert!(fits && counts[self.rank] as usize == own.len(), "places outside of the buffer");
        let abi = self.library.abi;
        // SAFETY: checked above; sender and receiver have buffers of their own.
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
            )
        };
        self.check("MPI_Allgatherv", code)
    }
}

/// A length as MPI counts.
fn count(len: usize) -> Result<c_int, CollectiveError> {
    c_int::try_from(len).map_err(|_| CollectiveError::TooLong { len })
}

/// Values as their bytes.
fn bytes_of(values: &[f32]) -> &[u8] {
    // SAFETY: any f32 is four bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Values as their bytes, to be filled.
fn bytes_of_mut(values: &mut [f32]) -> &mut [u8] {
    // SAFETY: any four bytes are an f32.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
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

    fn broadcast(&mut self, bytes: &mut [u8]) -> Result<(), CollectiveError> {
        let abi = self.library.abi;
        for piece in bytes.chunks_mut(c_int::MAX as usize) {
            let len = count(piece.len())?;
            // SAFETY: the piece has that many bytes; rank 0 is there.
            let code = unsafe {
                let start = piece.as_mut_ptr().cast::<c_void>();
                (self.library.broadcast)(start, len, abi.byte, 0, abi.comm_world)
            };
            self.check("MPI_Bcast", code)?;
        }
        Ok(())
    }

    fn sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        if self.size == 1 {
            return Ok(());
        }
        self.exchange(values)?;
        let own = segment(values.len(), self.size, self.rank);
        let mut sum = vec![0.0; own.len()];
        add_in_order(&self.parts, self.size, &mut sum);
        let (counts, places) = self.segments(values.len())?;
        self.all_gather(bytes_of(&sum), bytes_of_mut(values), (&counts, &places))
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
        // SAFETY: the communicator is the library's own.
        let code = unsafe { (self.library.barrier)(self.library.abi.comm_world) };
        self.check("MPI_Barrier", code)
    }

    #[allow(clippy::exit)] // MPI_Abort ends the process; if it came back, this must not go on
    fn abort(&self, code: u8) -> ! {
        // SAFETY: as above. The exit code must not be 0: MPICH would call the job a success.
        unsafe { (self.library.abort)(self.library.abi.comm_world, c_int::from(code.max(1))) };
        std::process::exit(i32::from(code.max(1)))
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The others would wait for this rank.
            self.abort(101);
        }
        // SAFETY: it was initialised, and nobody calls it behind this.
        unsafe { (self.library.finalize)() };
    }
}

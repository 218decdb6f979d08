//! Ranks that are threads of one process: for tests of what stands on a [`Collective`], where no MPI is.

use std::collections::VecDeque;
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use crate::collective::{Collective, Reduce};
use crate::error::CollectiveError;
use crate::segments::add_in_order;

/// One of several threads.
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
    sums: VecDeque<Vec<f32>>,
}

struct Shared {
    barrier: Barrier,
    /// What each rank told last.
    told: Mutex<Vec<Vec<u8>>>,
}

impl Threads {
    /// `size` ranks, each for a thread of its own.
    pub fn group(size: usize) -> Vec<Threads> {
        let told = Mutex::new(vec![Vec::new(); size]);
        let shared = Arc::new(Shared { barrier: Barrier::new(size), told });
        let thread = |rank| Threads { rank, shared: Arc::clone(&shared), sums: VecDeque::new() };
        (0..size).map(thread).collect()
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn describe(&self) -> String {
        format!("{} threads", self.size())
    }

    fn broadcast(&mut self, bytes: &mut [u8]) -> Result<(), CollectiveError> {
        let all = self.gather(bytes)?;
        bytes.copy_from_slice(&all[0]);
        Ok(())
    }

    fn start_sum(&mut self, values: Vec<f32>, _reduce: Reduce) -> Result<(), CollectiveError> {
        let own: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let all = self.gather(&own)?.concat();
        let four = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let parts: Vec<f32> = all.chunks_exact(4).map(four).collect();
        let mut sum = values;
        add_in_order(&parts, self.size(), &mut sum);
        self.sums.push_back(sum);
        Ok(())
    }

    fn finish_sum(&mut self) -> Result<Vec<f32>, CollectiveError> {
        Ok(self.sums.pop_front().unwrap_or_default())
    }

    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let Shared { barrier, told } = self.shared.as_ref();
        told.lock().unwrap_or_else(PoisonError::into_inner)[self.rank] = own.to_vec();
        barrier.wait();
        let all = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Nobody tells anything new before all have read.
        barrier.wait();
        Ok(all)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.shared.barrier.wait();
        Ok(())
    }

    #[allow(clippy::exit)] // as MPI's abort: no other rank goes on
    fn abort(&self, code: u8) -> ! {
        std::process::exit(i32::from(code.max(1)))
    }
}

//! One rank.

use std::collections::VecDeque;

use crate::collective::{Collective, Reduce};
use crate::error::CollectiveError;

/// A process that trains alone: all calls are done at once.
#[derive(Clone, Debug, Default)]
pub struct Solo {
    sums: VecDeque<Vec<f32>>,
}

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn describe(&self) -> String {
        "one process".to_owned()
    }

    fn broadcast(&mut self, _bytes: &mut [u8]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn start_sum(&mut self, values: Vec<f32>, _reduce: Reduce) -> Result<(), CollectiveError> {
        self.sums.push_back(values);
        Ok(())
    }

    fn finish_sum(&mut self) -> Result<Vec<f32>, CollectiveError> {
        Ok(self.sums.pop_front().unwrap_or_default())
    }

    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok(vec![own.to_vec()])
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        Ok(())
    }

    #[allow(clippy::exit)] // as MPI's abort, which ends the process
    fn abort(&self, code: u8) -> ! {
        std::process::exit(i32::from(code))
    }
}

//! One rank.

use crate::collective::Collective;
use crate::error::CollectiveError;

/// A process that trains alone: all calls are done at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

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

    fn sum(&mut self, _values: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
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

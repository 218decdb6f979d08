//! The calls that all ranks make together.

use crate::error::CollectiveError;

/// What a rank has to say beside its numbers. One rank's word holds for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u64);

impl Flags {
    /// Save and leave.
    pub const STOP: Flags = Flags(1);
    /// A number of this update was not finite.
    pub const NOT_FINITE: Flags = Flags(1 << 1);
    /// An error that the others do not see; the run ends.
    pub const FAILED: Flags = Flags(1 << 2);

    /// Both.
    #[must_use]
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    pub(crate) fn of_bytes(bytes: [u8; 8]) -> Flags {
        Flags(u64::from_le_bytes(bytes))
    }
}

/// Values of a sum that are best begun at once, 4 MB: what a rank receives is still in its cache when it is added up.
/// PyTorch's DDP takes 25 MB
/// (<https://pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html>).
pub const BUCKET: usize = 1 << 20;

/// Who adds the values of the ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduce {
    /// This crate, from rank 0 on: the same bits on any library.
    #[default]
    Ordered,
    /// The library, in an order of its own: the same bits on all ranks, but not on another library.
    Fast,
}

/// Ranks of one run. Each call is made by all of them, in the same order.
pub trait Collective {
    /// This process, from 0 on.
    fn rank(&self) -> usize;

    /// Processes.
    fn size(&self) -> usize;

    /// What connects them, for logs: library and version.
    fn describe(&self) -> String;

    /// What the calls that follow are made for, as `update 7`: a rank that waits long says so, where it can.
    fn set_place(&mut self, _place: &str) {}

    /// Gives all ranks the bytes of rank 0, which are as many everywhere.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    fn broadcast(&mut self, bytes: &mut [u8]) -> Result<(), CollectiveError>;

    /// Begins to turn each value into the sum over ranks; as many values everywhere. Other calls may be made
    /// before it is finished.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    fn start_sum(&mut self, values: Vec<f32>, reduce: Reduce) -> Result<(), CollectiveError>;

    /// Lets the sums under way go on, without waiting, where they do not by themselves. Ranks may call it as often as
    /// they like.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    fn advance(&mut self) -> Result<(), CollectiveError> {
        Ok(())
    }

    /// Waits for the sum that was begun first of those under way, and gives its values; none if there is no sum
    /// under way.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    fn finish_sum(&mut self) -> Result<Vec<f32>, CollectiveError>;

    /// The bytes of each rank, in their order, on every rank. They may be of different lengths.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// The flags that any rank has set.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    fn agree(&mut self, own: Flags) -> Result<Flags, CollectiveError> {
        let all = self.gather(&own.to_bytes())?;
        let flags = all.into_iter().filter_map(|bytes| bytes.try_into().ok()).map(Flags::of_bytes);
        Ok(flags.fold(own, Flags::with))
    }

    /// Waits for all ranks.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    fn barrier(&mut self) -> Result<(), CollectiveError>;

    /// Ends the processes of all ranks, at once and with this exit code. No other call ends them all: a rank that
    /// leaves alone lets the others wait.
    fn abort(&self, code: u8) -> !;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_kept_apart() {
        let both = Flags::STOP.with(Flags::FAILED);
        assert!(both.has(Flags::STOP) && both.has(Flags::FAILED) && !both.has(Flags::NOT_FINITE));
        assert!(!Flags::default().has(Flags::STOP));
        assert_eq!(Flags::of_bytes(both.to_bytes()), both);
    }
}

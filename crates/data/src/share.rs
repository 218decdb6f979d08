//! Which batches are a rank's own, where several processes train one run.

use std::ops::Range;

/// One of several processes, each of which makes its share of all batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// This process, from 0 on.
    pub rank: usize,
    /// Processes.
    pub ranks: usize,
}

impl Default for Share {
    /// One process, which makes all batches.
    fn default() -> Share {
        Share { rank: 0, ranks: 1 }
    }
}

/// The numbers of a rank's batches among those of all ranks: `run` batches one behind the other, then as many of
/// each other rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnBatches {
    all: Range<u64>,
    run: u64,
    share: Share,
}

impl OwnBatches {
    /// Those of the batches `all`, which begin with the first of rank 0.
    ///
    /// # Panics
    /// If the rank is not below the number of ranks, or `run` is 0.
    pub fn new(all: Range<u64>, run: u64, share: Share) -> OwnBatches {
        assert!(share.rank < share.ranks && run > 0, "{share:?}, {run} batches in a row");
        OwnBatches { all, run, share }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        let (n, of_all) =
            (self.all.end.saturating_sub(self.all.start), self.run * self.share.ranks as u64);
        let rest = (n % of_all).saturating_sub(self.share.rank as u64 * self.run);
        n / of_all * self.run + rest.min(self.run)
    }

    /// The number of own batch `own`, counted from 0.
    pub fn number(&self, own: u64) -> u64 {
        let Share { rank, ranks } = self.share;
        let before = own / self.run * ranks as u64 + rank as u64;
        self.all.start + before * self.run + own % self.run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(all: Range<u64>, run: u64, rank: usize, ranks: usize) -> Vec<u64> {
        let own = OwnBatches::new(all, run, Share { rank, ranks });
        (0..own.count()).map(|index| own.number(index)).collect()
    }

    #[test]
    fn one_process_makes_all() {
        assert_eq!(numbers(5..9, 1, 0, 1), [5, 6, 7, 8]);
        assert_eq!(numbers(5..9, 3, 0, 1), [5, 6, 7, 8]);
        assert!(numbers(5..5, 1, 0, 1).is_empty());
    }

    #[test]
    fn ranks_take_turns() {
        // Two updates of 2 ranks with 3 micro-batches each.
        assert_eq!(numbers(12..24, 3, 0, 2), [12, 13, 14, 18, 19, 20]);
        assert_eq!(numbers(12..24, 3, 1, 2), [15, 16, 17, 21, 22, 23]);
        // An evaluation of 7 batches on 3 ranks, and of fewer batches than ranks.
        assert_eq!(numbers(0..7, 1, 0, 3), [0, 3, 6]);
        assert_eq!(numbers(0..7, 1, 2, 3), [2, 5]);
        assert!(numbers(0..1, 1, 2, 3).is_empty());
    }

    #[test]
    fn every_batch_is_made_once() {
        for (n, run, ranks) in
            [(0, 1, 2), (1, 2, 3), (10, 1, 4), (24, 2, 3), (25, 2, 3), (29, 2, 3)]
        {
            let mut all: Vec<u64> =
                (0..ranks).flat_map(|rank| numbers(100..100 + n, run, rank, ranks)).collect();
            all.sort_unstable();
            assert_eq!(
                all,
                (100..100 + n).collect::<Vec<_>>(),
                "{n} batches, {run}, {ranks} ranks"
            );
        }
    }
}

//! The order in which an epoch shows the training samples.
//!
//! Ioffe & Szegedy (2015), section 4.2.1, "Shuffle training examples more thoroughly": shuffling
//! within shards "prevents the same examples from always appearing in a mini-batch together",
//! which the baseline, shuffling whole shards, does not prevent. Both are here, beside the plain
//! permutation that trainers use today.

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::random::{Purpose, sample_rng};

/// How much an epoch is shuffled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shuffle {
    /// Not at all: the order of the scanned list, class after class.
    None,
    /// Fixed shards in a new order every epoch; the order inside each shard stays.
    Shards,
    /// Fixed shards in a new order every epoch, and a new order inside each shard.
    WithinShards,
    /// A new permutation of all samples every epoch.
    Full,
}

/// Samples in a shard when a config says nothing.
///
/// The paper does not give its shard size. Two batches of 32 is our choice: small data sets still
/// have many shards, and each image meets the same images again, as the paper's baseline has it.
pub const DEFAULT_SHARD_SIZE: usize = 64;

/// Returns the order of epoch `epoch` (counted from 0): a permutation of `0..n`.
///
/// For the two sharded kinds the samples are permuted once by `seed` and cut into shards of
/// `shard_size`, the last one smaller when it does not divide `n`; without that first permutation
/// a shard would hold one class only. `shard_size` 0 counts as 1.
///
/// # Panics
/// If `n` exceeds `u32::MAX`; scanning a folder refuses so many files before.
pub fn epoch_order(
    n: usize,
    shuffle: Shuffle,
    shard_size: usize,
    seed: u64,
    epoch: u64,
) -> Vec<u32> {
    let n = u32::try_from(n).expect("a data set has at most u32::MAX samples");
    let mut list: Vec<u32> = (0..n).collect();
    match shuffle {
        Shuffle::None => list,
        Shuffle::Full => {
            list.shuffle(&mut sample_rng(seed, epoch, 0, Purpose::EpochOrder));
            list
        }
        Shuffle::Shards | Shuffle::WithinShards => {
            list.shuffle(&mut sample_rng(seed, 0, 0, Purpose::Shards));
            let mut shards: Vec<(usize, &mut [u32])> =
                list.chunks_mut(shard_size.max(1)).enumerate().collect();
            if shuffle == Shuffle::WithinShards {
                for (shard_idx, shard) in &mut shards {
                    let index = *shard_idx as u64;
                    shard.shuffle(&mut sample_rng(seed, epoch, index, Purpose::WithinShard));
                }
            }
            shards.shuffle(&mut sample_rng(seed, epoch, 0, Purpose::EpochOrder));
            shards.iter().flat_map(|(_, shard)| shard.iter().copied()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const KINDS: [Shuffle; 4] =
        [Shuffle::None, Shuffle::Shards, Shuffle::WithinShards, Shuffle::Full];

    /// The shards of an order as sets, for sizes that divide the list.
    fn shards(order: &[u32], shard_size: usize) -> BTreeSet<BTreeSet<u32>> {
        order.chunks(shard_size).map(|shard| shard.iter().copied().collect()).collect()
    }

    #[test]
    fn every_order_is_a_permutation() {
        for shuffle in KINDS {
            for n in [0, 1, 2, 63, 64, 65, 1000] {
                for shard_size in [0, 1, 7, 64, 5000] {
                    let mut order = epoch_order(n, shuffle, shard_size, 3, 5);
                    order.sort_unstable();
                    let all: Vec<u32> = (0..n as u32).collect();
                    assert_eq!(order, all, "{shuffle:?} n={n} shard_size={shard_size}");
                }
            }
        }
    }

    #[test]
    fn orders_repeat_by_key_and_differ_by_epoch_and_seed() {
        for shuffle in KINDS {
            let order = |seed, epoch| epoch_order(640, shuffle, 32, seed, epoch);
            assert_eq!(order(1, 2), order(1, 2), "{shuffle:?}");
            if shuffle == Shuffle::None {
                assert_eq!(order(1, 2), order(9, 9));
            } else {
                assert_ne!(order(1, 2), order(1, 3), "{shuffle:?}");
                assert_ne!(order(1, 2), order(2, 2), "{shuffle:?}");
            }
        }
    }

    #[test]
    fn shards_keep_their_members_and_only_within_shards_moves_them() {
        for (shuffle, keeps_order) in [(Shuffle::Shards, true), (Shuffle::WithinShards, false)] {
            let (a, b) = (epoch_order(640, shuffle, 32, 7, 0), epoch_order(640, shuffle, 32, 7, 1));
            assert_eq!(shards(&a, 32), shards(&b, 32), "{shuffle:?}");
            let lists = |order: &[u32]| -> BTreeSet<Vec<u32>> {
                order.chunks(32).map(<[u32]>::to_vec).collect()
            };
            assert_eq!(lists(&a) == lists(&b), keeps_order, "{shuffle:?}");
            // The members of a shard come from all over the list, not from one class.
            let shard = &a[..32];
            assert!(shard.iter().max().unwrap() - shard.iter().min().unwrap() > 320, "{shard:?}");
        }
        let (a, b) = (epoch_order(640, Shuffle::Full, 32, 7, 0), {
            epoch_order(640, Shuffle::Full, 32, 7, 1)
        });
        assert_ne!(shards(&a, 32), shards(&b, 32));
    }
}

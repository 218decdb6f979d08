//! Random numbers that depend on nothing but their key.
//!
//! A generator is made for each (seed, epoch, index, purpose), used for one image or one list, and
//! dropped. There is no generator that lives longer, so there is no state to save, and threads
//! cannot disturb each other. The four numbers are the 256-bit key of ChaCha as they are: distinct
//! keys give independent streams, which a hash of them would only make less certain.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What the random numbers are for, so that two uses of one (seed, epoch, index) differ.
///
/// The numbers are part of what a checkpoint resumes: they are never reused or renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The augmentation of sample `index` in `epoch`.
    Augment = 0,
    /// The order of an epoch: of its samples, or of its shards.
    EpochOrder = 1,
    /// The fixed assignment of samples to shards.
    Shards = 2,
    /// The order inside shard `index` in `epoch`.
    WithinShard = 3,
    /// Which samples of class `index` are held out for validation.
    Split = 4,
    /// The drawing of picture `index` of the demo data.
    Demo = 5,
    /// Whether sample `index` is mirrored in the first epoch, where it is by turns.
    Mirror = 6,
    /// The order in which round `epoch` of class `index` shows its samples.
    ClassRound = 7,
    /// The share at which batch `index` is mixed.
    Mixup = 8,
}

/// What the random view of a training image depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewKey {
    /// Seed of the run.
    pub seed: u64,
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// Position of the image in the source.
    pub index: u64,
}

/// Returns the generator of (seed, epoch, index, purpose).
///
/// The key is the four numbers in this order, each as 8 bytes, little-endian.
pub fn sample_rng(seed: u64, epoch: u64, index: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, epoch, index, purpose as u64]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn each_part_of_the_key_changes_the_stream() {
        let first = |seed, epoch, index, purpose| {
            let mut rng = sample_rng(seed, epoch, index, purpose);
            [rng.next_u64(), rng.next_u64()]
        };
        let base = first(1, 2, 3, Purpose::Augment);
        assert_eq!(base, first(1, 2, 3, Purpose::Augment));
        let others = [
            first(0, 2, 3, Purpose::Augment),
            first(1, 0, 3, Purpose::Augment),
            first(1, 2, 0, Purpose::Augment),
            first(1, 2, 3, Purpose::EpochOrder),
            first(2, 1, 3, Purpose::Augment),
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(base, *other, "key {i}");
            assert!(!others[..i].contains(other), "key {i}");
        }
    }

    /// Checkpoints rely on this stream: the test fails if a new version of the generator, or
    /// another platform, gives different numbers.
    #[test]
    fn the_stream_is_fixed() {
        let mut zero = sample_rng(0, 0, 0, Purpose::Augment);
        // First block of ChaCha8 for the zero key and nonce: `3e00ef2f895f40d6...`, test vector
        // TC1 of https://datatracker.ietf.org/doc/html/draft-strombergson-chacha-test-vectors-01
        assert_eq!(zero.next_u64().to_le_bytes(), [0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6]);
    }
}

//! The dropout mask: a function of seed, step and layer, so that every executor and every resumed
//! run draws the same one.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Fills `mask` for one step of training: 0 with probability `probability`, or else
/// `1 / (1 - probability)`, the factor that keeps the expected value.
pub fn dropout_mask(seed: u64, step: u64, layer: usize, probability: f64, mask: &mut [f32]) {
    let mut key = [0; 32];
    // The last word keeps these streams apart from those of the initial weights.
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, step, layer as u64, 1]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut rng = ChaCha8Rng::from_seed(key);
    let scale = (1.0 / (1.0 - probability)) as f32;
    let threshold = (probability * 2f64.powi(32)) as u64;
    for value in mask {
        *value = if u64::from(rng.next_u32()) < threshold { 0.0 } else { scale };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_repeats_and_keeps_the_expected_share() {
        let draw = |seed, step, layer| {
            let mut mask = vec![0.0; 100_000];
            dropout_mask(seed, step, layer, 0.4, &mut mask);
            mask
        };
        let mask = draw(1, 2, 3);
        assert_eq!(mask, draw(1, 2, 3));
        for other in [draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4)] {
            assert_ne!(mask, other);
        }
        let dropped = mask.iter().filter(|&&value| value == 0.0).count() as f64 / 1e5;
        // Standard deviation of the share is sqrt(0.4 * 0.6 / 1e5) = 0.0015.
        assert!((dropped - 0.4).abs() < 0.008, "dropped {dropped}");
        assert!(mask.iter().all(|&value| value == 0.0 || value == (1.0 / 0.6) as f32));
    }
}

//! How often the images of each class come in an epoch.
//!
//! Data sets of few pictures often have ten times more of one class than of another. A network that
//! sees them as they are learns to say the frequent class. An epoch can show classes equally often
//! (Buda et al. 2018, <https://arxiv.org/abs/1710.05381>, found that this oversampling helps most), or
//! by the square roots of their counts, which is half way (Mahajan et al. 2018,
//! <https://arxiv.org/abs/1805.00932>, section 2.2; Mikolov et al. 2013 draw words so).

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::random::{Purpose, sample_rng};

/// How often the images of each class come in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Each image once.
    #[default]
    None,
    /// All classes equally often.
    Classes,
    /// Each class by the square root of its number of images.
    Sqrt,
}

impl Balance {
    /// The share of an epoch's images that each class has, where the classes have `counts` images. The
    /// shares of all classes together are 1; a class without images has none.
    pub fn shares(self, counts: &[u64]) -> Vec<f64> {
        let weight = |&count: &u64| match (self, count) {
            (_, 0) => 0.0,
            (Balance::None, count) => count as f64,
            (Balance::Classes, _) => 1.0,
            (Balance::Sqrt, count) => (count as f64).sqrt(),
        };
        let weights: Vec<f64> = counts.iter().map(weight).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| if sum > 0.0 { weight / sum } else { 0.0 }).collect()
    }

    /// How many images of each class come in an epoch: as many in all as there are images, divided by
    /// [`Balance::shares`] with the method of the largest remainder, the first of equals. A class with
    /// images gets at least one.
    pub fn quotas(self, counts: &[u64]) -> Vec<u64> {
        let total: u64 = counts.iter().sum();
        let exact: Vec<f64> =
            self.shares(counts).iter().map(|share| share * total as f64).collect();
        let mut quotas: Vec<u64> = exact.iter().map(|exact| exact.floor() as u64).collect();
        let remainder = |class: &usize| exact[*class] - exact[*class].floor();
        let mut by_remainder: Vec<usize> = (0..counts.len()).collect();
        by_remainder.sort_by(|a, b| remainder(b).total_cmp(&remainder(a)));
        let given: u64 = quotas.iter().sum();
        for &class in by_remainder.iter().take(total.saturating_sub(given) as usize) {
            quotas[class] += 1;
        }
        quotas
    }
}

/// An image of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Draw {
    /// Its position in the list of images.
    pub index: u32,
    /// How often it came before, in all epochs. It may come several times in one; its variation is drawn
    /// from this number, so that no two are the same.
    pub round: u64,
}

/// The images of each of `n_classes` classes, given the class of each image.
///
/// # Panics
/// If there are more than `u32::MAX` labels, or one that is not below `n_classes`.
pub fn images_by_class(labels: impl Iterator<Item = u32>, n_classes: usize) -> Vec<Vec<u32>> {
    let mut classes = vec![Vec::new(); n_classes];
    for (index, label) in labels.enumerate() {
        let index = u32::try_from(index).expect("a data set has at most u32::MAX samples");
        classes[label as usize].push(index);
    }
    classes
}

/// Returns the order of epoch `epoch` (counted from 0): as many images as there are, of each class as
/// many as [`Balance::quotas`] says.
///
/// A class goes through its images in rounds. Each round is a permutation by (seed, round, class), and an
/// epoch goes on where the one before ended; that place is a product, so any epoch is reached at once.
/// So no image of a class comes twice more than another, in an epoch or in many.
pub fn balanced_order(classes: &[Vec<u32>], balance: Balance, seed: u64, epoch: u64) -> Vec<Draw> {
    let counts: Vec<u64> = classes.iter().map(|images| images.len() as u64).collect();
    let mut draws = Vec::with_capacity(counts.iter().sum::<u64>() as usize);
    for ((class, images), quota) in classes.iter().enumerate().zip(balance.quotas(&counts)) {
        let len = images.len() as u128;
        let mut next = u128::from(epoch) * u128::from(quota);
        let end = next + u128::from(quota);
        while next < end {
            let round = (next / len) as u64;
            let mut images = images.clone();
            images.shuffle(&mut sample_rng(seed, round, class as u64, Purpose::ClassRound));
            let first = (next % len) as usize;
            let n = (len - next % len).min(end - next) as usize;
            draws.extend(images[first..first + n].iter().map(|&index| Draw { index, round }));
            next += n as u128;
        }
    }
    draws.shuffle(&mut sample_rng(seed, epoch, 0, Purpose::EpochOrder));
    draws
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const KINDS: [Balance; 3] = [Balance::None, Balance::Classes, Balance::Sqrt];

    /// Classes of the given sizes, whose images stand in turn in the list.
    fn classes(counts: &[u64]) -> Vec<Vec<u32>> {
        let mut labels = Vec::new();
        for place in 0..counts.iter().copied().max().unwrap_or(0) {
            let with_more = counts.iter().enumerate().filter(|(_, count)| place < **count);
            labels.extend(with_more.map(|(class, _)| class as u32));
        }
        images_by_class(labels.into_iter(), counts.len())
    }

    #[test]
    fn quotas_add_up_to_the_images() {
        use Balance::{Classes, None, Sqrt};
        // (balance, images, images of an epoch)
        let table: [(Balance, &[u64], &[u64]); 11] = [
            (None, &[5, 121], &[5, 121]),
            (Classes, &[5, 121], &[63, 63]),
            (Classes, &[1, 1, 98], &[34, 33, 33]),
            // Square roots 2, 11 of 13: 125 * 2 / 13 = 19.2
            (Sqrt, &[4, 121], &[19, 106]),
            (Sqrt, &[100, 100], &[100, 100]),
            (Classes, &[0, 3, 5], &[0, 4, 4]),
            (Sqrt, &[0, 1, 16], &[0, 3, 14]),
            (Classes, &[1, 1, 1], &[1, 1, 1]),
            (Sqrt, &[1, 1, 1], &[1, 1, 1]),
            (Classes, &[0, 0], &[0, 0]),
            (Sqrt, &[], &[]),
        ];
        for (balance, counts, quotas) in table {
            assert_eq!(balance.quotas(counts), quotas, "{balance:?} {counts:?}");
        }
        for balance in KINDS {
            for n in 1..40_u64 {
                let counts: Vec<u64> = (0..n).map(|class| 1 + class * class % 17).collect();
                let quotas = balance.quotas(&counts);
                assert_eq!(quotas.iter().sum::<u64>(), counts.iter().sum::<u64>());
                assert!(quotas.iter().all(|&quota| quota > 0), "{balance:?} {counts:?}");
            }
        }
    }

    #[test]
    fn shares_add_up_to_one() {
        for balance in KINDS {
            assert!((balance.shares(&[5, 0, 121]).iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert_eq!(balance.shares(&[0, 0]), [0.0, 0.0]);
        }
        assert_eq!(Balance::Classes.shares(&[5, 0, 121]), [0.5, 0.0, 0.5]);
        assert_eq!(Balance::Sqrt.shares(&[4, 36]), [0.25, 0.75]);
    }

    #[test]
    fn within_a_class_all_images_come_equally_often_across_epochs() {
        for balance in KINDS {
            for counts in [&[5_u64, 121, 30][..], &[1, 40], &[7]] {
                let classes = classes(counts);
                let total = counts.iter().sum::<u64>() as usize;
                let quotas = balance.quotas(counts);
                let mut seen: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
                for epoch in 0..23 {
                    let order = balanced_order(&classes, balance, 3, epoch);
                    assert_eq!(order.len(), total);
                    for (images, &quota) in classes.iter().zip(&quotas) {
                        let of_class = order.iter().filter(|draw| images.contains(&draw.index));
                        assert_eq!(of_class.count() as u64, quota, "{balance:?} epoch {epoch}");
                    }
                    for draw in order {
                        seen.entry(draw.index).or_default().push(draw.round);
                    }
                    for images in &classes {
                        let times = |image| seen.get(image).map_or(0, Vec::len);
                        let most = images.iter().map(times).max().unwrap();
                        let least = images.iter().map(times).min().unwrap();
                        assert!(most - least <= 1, "{balance:?} {counts:?} epoch {epoch}");
                    }
                }
                // Every time that an image comes has a number of its own, without gaps.
                for (image, mut rounds) in seen {
                    rounds.sort_unstable();
                    let expected: Vec<u64> = (0..rounds.len() as u64).collect();
                    assert_eq!(rounds, expected, "image {image}");
                }
            }
        }
    }

    #[test]
    fn orders_repeat_by_key_and_are_mixed() {
        let classes = classes(&[5, 121]);
        let order = |seed, epoch| balanced_order(&classes, Balance::Classes, seed, epoch);
        assert_eq!(order(1, 2), order(1, 2));
        assert_ne!(order(1, 2), order(1, 3));
        assert_ne!(order(1, 2), order(2, 2));
        // Rare and frequent images stand everywhere: each half has about half of the rare ones.
        let rare = |draws: &[Draw]| draws.iter().filter(|d| classes[0].contains(&d.index)).count();
        let order = order(1, 2);
        assert_eq!(rare(&order), 63);
        assert!((20..=43).contains(&rare(&order[..63])), "{}", rare(&order[..63]));
    }

    #[test]
    fn far_epochs_do_not_overflow() {
        let classes = classes(&[5, 121]);
        for epoch in [u64::MAX - 1, u64::MAX] {
            assert_eq!(balanced_order(&classes, Balance::Classes, 1, epoch).len(), 126);
        }
    }
}

//! Training images that fill no update at the end of an epoch.

use bninception_data::Shuffle;
use bninception_data::loader::batches_per_epoch;

use crate::config::TrainConfig;

/// Fewer than this part of the images are not worth a line.
const WORTH_A_LINE: f64 = 0.01;

/// What a person should know of the images that an epoch leaves over, of `n_images`; `None` if they are
/// too few to matter.
pub fn left_over(train: &TrainConfig, shuffle: Shuffle, n_images: usize) -> Option<String> {
    let n_batches = batches_per_epoch(n_images, train.batch_size, train.micro_batches_per_update());
    let used = n_batches as usize * train.batch_size;
    let left = n_images - used.min(n_images);
    if (left as f64) < WORTH_A_LINE * n_images as f64 || left == 0 {
        return None;
    }
    let update = match train.micro_batches_per_update() {
        1 => format!("batch {}", train.batch_size),
        n => format!("{n} x batch {}", train.batch_size),
    };
    let which = match shuffle {
        Shuffle::None => "always the same, as nothing is shuffled",
        Shuffle::Shards | Shuffle::WithinShards | Shuffle::Full => "a new choice each epoch",
    };
    Some(format!(
        "{left} of {n_images} training images are left over each epoch ({update}): {which}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};

    #[test]
    fn what_is_left_over_is_said_where_it_matters() {
        for (batch, accumulate, n_images, expected) in [
            (32, 1, 244, Some("20 of 244 training images are left over each epoch (batch 32)")),
            (16, 2, 244, Some("20 of 244 training images are left over each epoch (2 x batch 16)")),
            (16, 1, 244, Some("4 of 244 training images are left over each epoch (batch 16)")),
            (32, 1, 256, None),
            (32, 1, 4001, None),
        ] {
            let sets =
                [format!("train.batch_size={batch}"), format!("train.accumulate={accumulate}")];
            let config = resolve(&Sources { sets: &sets, ..Sources::default() }).unwrap().config;
            let found = left_over(&config.train, Shuffle::Full, n_images);
            match expected {
                Some(text) => {
                    assert_eq!(found.unwrap(), format!("{text}: a new choice each epoch"))
                }
                None => assert_eq!(found, None),
            }
            let same = left_over(&config.train, Shuffle::None, n_images);
            assert!(same.is_none_or(|text| text.contains("always the same")));
        }
    }
}

//! The batch size that `--batch-size auto` takes.

use std::fmt;

/// The largest batch that is taken: that of the residual networks, for which most published rates of SGD
/// are given (He et al. 2015, <https://arxiv.org/abs/1512.03385>, section 3.4).
pub const MOST_IMAGES: usize = 256;

/// Updates that an epoch keeps at least, as far as there are images for them: a handful an epoch are too few
/// to follow a schedule, and too few for running statistics.
pub const FEWEST_STEPS: usize = 10;

/// A batch size, and why it is no larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchChoice {
    /// Images in a micro-batch, a power of two.
    pub images: usize,
    /// What the next power of two runs against.
    pub limit: BatchLimit,
}

/// What limits the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchLimit {
    /// [`MOST_IMAGES`].
    Most,
    /// [`FEWEST_STEPS`], with so many training images.
    Steps(usize),
    /// The memory that is free.
    Memory,
}

/// The largest power of two, at most [`MOST_IMAGES`], that `fits` the memory and leaves [`FEWEST_STEPS`]
/// updates of `accumulate` batches in an epoch of `n_images`; no less than `fewest`, a power of two, whatever
/// fits.
pub fn choose_batch(
    n_images: usize,
    accumulate: usize,
    fewest: usize,
    mut fits: impl FnMut(usize) -> bool,
) -> BatchChoice {
    let mut limit = BatchLimit::Most;
    let mut images = MOST_IMAGES;
    while images > fewest {
        let steps = n_images / (images * accumulate.max(1));
        if steps < FEWEST_STEPS {
            limit = BatchLimit::Steps(n_images);
        } else if !fits(images) {
            limit = BatchLimit::Memory;
        } else {
            break;
        }
        images /= 2;
    }
    BatchChoice { images: images.max(fewest), limit }
}

/// `batches of 16 images, the largest power of two with which an epoch of 244 images has 10 updates`
impl fmt::Display for BatchChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batches of {} images, ", self.images)?;
        match self.limit {
            BatchLimit::Most => f.write_str("the most that is taken unasked"),
            BatchLimit::Steps(n_images) => write!(
                f,
                "the largest power of two that leaves {FEWEST_STEPS} updates in an epoch of {n_images} \
                 images"
            ),
            BatchLimit::Memory => f.write_str("the largest power of two that fits the free memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_fits_the_images_and_the_memory() {
        use BatchLimit::{Memory, Most, Steps};
        // (images, accumulate, most that fits, batch, limit)
        for (n_images, accumulate, fitting, images, limit) in [
            (1_000_000, 1, 1000, 256, Most),
            (2560, 1, 1000, 256, Most),
            (2559, 1, 1000, 128, Steps(2559)),
            (244, 1, 1000, 16, Steps(244)),
            (244, 4, 1000, 4, Steps(244)),
            (1_000_000, 1, 100, 64, Memory),
            (1_000_000, 1, 0, 2, Memory),
            // What is found first, from above, is not what limits in the end.
            (1000, 1, 8, 8, Memory),
            (19, 1, 1000, 2, Steps(19)),
            (3, 1, 1000, 2, Steps(3)),
            (0, 0, 1000, 2, Steps(0)),
        ] {
            let choice = choose_batch(n_images, accumulate, 2, |batch| batch <= fitting);
            assert_eq!(
                choice,
                BatchChoice { images, limit },
                "{n_images}, {accumulate}, {fitting}"
            );
        }
        assert_eq!(choose_batch(3, 1, 1, |_| true).images, 1);
        let text = choose_batch(244, 1, 2, |_| true).to_string();
        assert!(text.starts_with("batches of 16 images, the largest power of two"), "{text}");
    }
}

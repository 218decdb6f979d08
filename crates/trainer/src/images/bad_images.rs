//! Training images that turn out broken when they are decoded.

/// How many unreadable training images are put up with: `max_bad`, but no more than one in a hundred of
/// `n_images`, rounded up. Without more than these the rest would be another set of images.
pub fn bad_limit(max_bad: usize, n_images: usize) -> usize {
    max_bad.min(n_images.div_ceil(100))
}

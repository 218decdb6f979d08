//! Zeroing the halo of a reused buffer.

use super::{BLOCK, View};
use crate::element::Element;
use crate::map::{GUARD_PIXELS, Map};

/// Zeroes the halo of the planes of `map` that `view` names in a buffer of `batch` images, the first
/// halo pixel of the plane that follows them, which the last of them shares as its lower right
/// corner, and the guard behind the buffer's last plane.
///
/// # Panics
/// If `buffer` is shorter than the images and the guard.
pub fn zero_halo<E: Element>(map: &Map, batch: usize, buffer: &mut [E], view: View) {
    let (plane, zero) = (map.plane(), E::default());
    let end = batch * view.blocks * plane;
    assert!(buffer.len() >= end + GUARD_PIXELS * BLOCK, "zero_halo: the buffer is too short");
    buffer[end..end + GUARD_PIXELS * BLOCK].fill(zero);
    for n in 0..batch {
        for block in view.first..view.first + map.blocks() {
            map.zero_halo(&mut buffer[(n * view.blocks + block) * plane..][..plane]);
        }
        let next = (n * view.blocks + view.first + map.blocks()) * plane;
        buffer[next..next + BLOCK].fill(zero);
    }
}

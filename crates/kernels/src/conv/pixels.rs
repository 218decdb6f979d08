//! Images that come as bytes: every level becomes the network's value of it on the way into the layout of
//! the first convolution.

use super::plan::Conv;
use crate::dtype::{Dtype, round_to_bf16};
use crate::element::Element;
use crate::team::Team;
use crate::team::share::Shared;
use crate::team::units::part;

/// The network's value of each of the 256 levels of red, green and blue.
pub type LevelValues = [[f32; 256]; 3];

impl Conv {
    /// As [`Conv::pack_image`], from the levels of red, green and blue that images have in memory,
    /// `[n][height][width][3]`, and with the same result as from the values that `values` gives them.
    ///
    /// # Panics
    /// If the convolution does not read images of three channels, or a slice has the wrong length.
    pub fn pack_pixels<E: Element>(
        &self,
        team: &Team,
        pixels: &[u8],
        values: &LevelValues,
        x: &mut [E],
    ) {
        let s = *self.shape();
        assert!(s.reads_image() && s.in_channels == 3, "no images of three channels: {s:?}");
        let row_len = 3 * s.in_width;
        let image_len = s.in_height * row_len;
        assert_eq!(pixels.len(), s.batch * image_len, "levels of the images");
        assert!(x.len() >= self.image_len(), "elements of x");
        let layout = &self.forward.passes.layout;
        let rounds = self.dtype == Dtype::Bf16 || E::DTYPE == Dtype::Bf16;
        let value = |value: f32| E::of(if rounds { round_to_bf16(value) } else { value });
        let values = values.each_ref().map(|levels| levels.map(value));
        let x = Shared::new(x);
        team.run(&|thread| {
            for n in part(s.batch, team.len(), thread) {
                // SAFETY: each image belongs to one thread.
                let to = unsafe { x.slice(n * layout.plane..(n + 1) * layout.plane) };
                to.fill(E::default());
                for row in 0..s.in_height {
                    let from = &pixels[n * image_len + row * row_len..][..row_len];
                    let to = &mut to[layout.at(row as isize, 0)..][..row_len];
                    for (to, from) in to.chunks_exact_mut(3).zip(from.chunks_exact(3)) {
                        for c in 0..3 {
                            to[c] = values[c][usize::from(from[c])];
                        }
                    }
                }
            }
        });
    }
}

//! Batch norm of a stage with the statistics of all ranks.
//!
//! It costs a second walk over the maps from memory: all sums of a stage are exchanged at once, so its gradients
//! are not finished group by group in the cache as those of one rank are.

use std::ops::Range;

use bninception_kernels::batch_norm::{self, BatchSums, GradientSums, Moments};
use bninception_kernels::element::Element;
use bninception_kernels::map::{BLOCK, View};
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::run::Run;

use super::plan::{Context, Settings};
use crate::error::EngineError;
use crate::lowering::memory::Buffer;
use crate::lowering::stage::{Member, Norm};
use crate::norm_merge::NormMerge;

/// Turns the sums of `count` values of each channel and those of their squares into means and M2 of all
/// ranks. Returns the number of values on all ranks.
///
/// # Errors
/// Those of [`NormMerge::moments`].
pub(super) fn merge_sums(
    merge: &mut NormMerge<'_>,
    name: &str,
    count: usize,
    sums: &mut [f64],
) -> Result<f64, EngineError> {
    let (sums, squares) = sums.split_at_mut(sums.len() / 2);
    for c in 0..sums.len() {
        let (mean, variance) = BatchSums { sums, squares, count }.moments(c);
        (sums[c], squares[c]) = (mean, variance * count as f64);
    }
    merge.moments(name, count as f64, sums, squares)
}

/// Batch norm of a stage with the statistics of all ranks.
pub(super) struct MergedNorm<'a> {
    pub members: &'a [Member],
    /// The buffer of the convolution's output.
    pub raw: Buffer,
    /// The view of all members in that buffer.
    pub whole: View,
    pub moments: &'a [Moments],
}

impl MergedNorm<'_> {
    /// Replaces the convolution's output by its gradient. The gradients of scale and shift stay those of this
    /// rank; they are summed over ranks with all others. `sums` is overwritten; `count` is the number of values
    /// on all ranks.
    ///
    /// # Errors
    /// Those of [`NormMerge::sum`].
    pub(super) fn backward<E: Element>(
        &self,
        cx: &mut Context<'_>,
        gradients: &mut [f32],
        sums: &mut [f64],
        count: f64,
    ) -> Result<(), EngineError> {
        let (batch, slots) = (cx.batch, cx.slots);
        let Settings { isa, dtype, .. } = *cx.settings;
        let run = Run { team: cx.team, isa, dtype };
        let n_channels = sums.len() / 2;
        let (betas, gammas) = sums.split_at_mut(n_channels);
        for (member, moments, channels) in self.each() {
            let Some(Norm { gamma, beta, .. }) = &member.norm else { continue };
            if let Some(bias) = &member.bias {
                // Subtracting the mean removes what a bias adds.
                gradients[bias.clone()].fill(0.0);
            }
            let output = &member.output;
            let [dy, x] = slots.places.get(cx.arena, [slots.gradient(output), self.raw]);
            let dy = output.of(E::of_region(dy), batch);
            let view = View { first: channels.start / BLOCK, ..self.whole };
            let x = Planes::new(E::of_region(x), &output.map, view, batch);
            let own = [&mut betas[channels.clone()], &mut gammas[channels.clone()]];
            batch_norm::gradient_sums(run, member.activation, moments, dy, x, own, cx.partial);
            for (place, sums) in [(beta, &*betas), (gamma, &*gammas)] {
                let gradient = gradients[place.clone()].iter_mut();
                gradient.zip(&sums[channels.clone()]).for_each(|(g, &sum)| *g = sum as f32);
            }
        }
        if let Some(merge) = &mut cx.merge {
            merge.sum(sums)?;
        }
        let (betas, gammas) = sums.split_at(n_channels);
        for (member, moments, channels) in self.each() {
            let output = &member.output;
            let [dy, x] = slots.places.get(cx.arena, [slots.gradient(output), self.raw]);
            let dy = output.of(E::of_region(dy), batch);
            let view = View { first: channels.start / BLOCK, ..self.whole };
            let x = PlanesMut::new(E::of_region_mut(x), &output.map, view, batch);
            let (beta, gamma) = (&betas[channels.clone()], &gammas[channels]);
            let sums = GradientSums { beta, gamma, count };
            batch_norm::input_gradient(run, member.activation, moments, dy, x, sums);
        }
        Ok(())
    }

    /// The members with their statistics and their channels in the stage.
    fn each(&self) -> impl Iterator<Item = (&Member, &Moments, Range<usize>)> {
        let mut end = 0;
        self.members.iter().zip(self.moments).map(move |(member, moments)| {
            let first = end;
            end += member.output.map.channels;
            (member, moments, first..end)
        })
    }
}

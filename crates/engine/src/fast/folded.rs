//! The filters of evaluation: batch norm is folded into them, and they lie as the convolution reads them.

use std::ops::Range;
use std::sync::Arc;

use bninception_kernels::arena::{ALIGNMENT, Arena};
use bninception_kernels::conv::{Algorithm, Conv};
use bninception_kernels::team::Team;
use bninception_model::{NormTensors, Weights, fold_batch_norm};

use crate::lowering::padded::Padded;
use crate::lowering::stage::Member;

/// Packed filters and the bias of one convolution. Plans of several batch sizes share them.
#[derive(Clone)]
pub(super) struct Folded {
    /// The order of the filters is this algorithm's own; the batch size does not matter.
    algorithm: Algorithm,
    arena: Arc<Arena>,
    place: Range<usize>,
    bias: Arc<[f32]>,
}

/// What is folded and packed for one convolution.
pub(super) struct Unfolded<'a> {
    pub conv: &'a Conv,
    pub member: &'a Member,
    /// Whether its tensors lie in the store of padded layers.
    pub is_stored: bool,
    /// What another plan has of the same convolution.
    pub known: Option<&'a Folded>,
}

impl Unfolded<'_> {
    /// What is known, if it lies in the order of this convolution.
    fn shared(&self) -> Option<&Folded> {
        self.known.filter(|known| known.algorithm == self.conv.algorithms().forward)
    }

    /// Values of the packed filters, up to the next place where a buffer may begin.
    fn room(&self) -> usize {
        self.conv.packed_len().next_multiple_of(ALIGNMENT)
    }
}

impl Folded {
    /// Folds and packs convolutions. What is known in the same order is taken as it is; the rest gets one
    /// arena, because each arena begins with a huge page of its own: on Zen 4 a first image of 64 px took 26
    /// to 34 ms so, and 41 to 263 ms with an arena for each convolution.
    pub(super) fn all(
        convs: &[Unfolded<'_>],
        team: &Team,
        padded: &Padded,
        weights: &Weights,
        epsilon: f64,
    ) -> Vec<Folded> {
        let new = convs.iter().filter(|unfolded| unfolded.shared().is_none());
        let mut arena = Arena::new(new.clone().map(Unfolded::room).sum());
        let mut start = 0;
        let packed: Vec<(Range<usize>, Arc<[f32]>)> = new
            .map(|unfolded| {
                let place = start..start + unfolded.conv.packed_len();
                start += unfolded.room();
                let weights = if unfolded.is_stored { &padded.weights } else { weights };
                let (filters, bias) = fold(unfolded.member, weights, epsilon);
                unfolded.conv.pack(team, &[&filters], &mut arena[place.clone()]);
                (place, bias.into())
            })
            .collect();
        let arena = Arc::new(arena);
        let mut packed = packed.into_iter();
        let folded = convs.iter().map(|unfolded| {
            let new = || {
                let (place, bias) = packed.next()?;
                let algorithm = unfolded.conv.algorithms().forward;
                Some(Folded { algorithm, arena: Arc::clone(&arena), place, bias })
            };
            let folded = unfolded.shared().cloned().or_else(new);
            folded.unwrap_or_else(|| unreachable!("what is not shared was packed above"))
        });
        folded.collect()
    }

    /// The filters in the order of the convolution.
    pub(super) fn packed(&self) -> &[f32] {
        &self.arena[self.place.clone()]
    }

    /// What is added to each output channel.
    pub(super) fn bias(&self) -> &[f32] {
        &self.bias
    }
}

/// Filters and bias of a convolution with the batch norm after it.
fn fold(member: &Member, weights: &Weights, epsilon: f64) -> (Vec<f32>, Vec<f32>) {
    let mut filters = weights.trainable[member.weight.clone()].to_vec();
    let mut bias = match &member.bias {
        Some(bias) => weights.trainable[bias.clone()].to_vec(),
        None => vec![0.0; member.output.map.channels],
    };
    if let Some(norm) = &member.norm {
        let norm = NormTensors {
            gamma: &weights.trainable[norm.gamma.clone()],
            beta: &weights.trainable[norm.beta.clone()],
            mean: &weights.statistics[norm.mean.clone()],
            variance: &weights.statistics[norm.variance.clone()],
        };
        fold_batch_norm(&mut filters, &mut bias, norm, epsilon);
    }
    (filters, bias)
}

//! The filters of evaluation: batch norm is folded into them, and they lie as the convolution reads them.

use std::ops::Range;
use std::sync::Arc;

use bninception_kernels::arena::{ALIGNMENT, Arena};
use bninception_kernels::conv::{Algorithm, Conv};
use bninception_kernels::team::Team;
use bninception_model::{NormTensors, Weights, fold_batch_norm};

use super::padded::Padded;
use super::stage::Member;

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

impl Folded {
    /// Folds and packs convolutions. What is known in the same order is taken as it is; the rest gets one
    /// arena.
    pub(super) fn all(
        convs: &[Unfolded<'_>],
        team: &Team,
        padded: &Padded,
        weights: &Weights,
        epsilon: f64,
    ) -> Vec<Folded> {
        let mut len = 0;
        let places: Vec<Option<Range<usize>>> = convs
            .iter()
            .map(|unfolded| {
                let algorithm = unfolded.conv.algorithms().forward;
                if unfolded.known.is_some_and(|known| known.algorithm == algorithm) {
                    return None;
                }
                let start = len;
                len += unfolded.conv.packed_len().next_multiple_of(ALIGNMENT);
                Some(start..start + unfolded.conv.packed_len())
            })
            .collect();
        let mut arena = Arena::new(len);
        let biases: Vec<Option<Arc<[f32]>>> = convs
            .iter()
            .zip(&places)
            .map(|(unfolded, place)| {
                let packed = &mut arena[place.clone()?];
                let weights = if unfolded.is_stored { &padded.weights } else { weights };
                let (filters, bias) = fold(unfolded.member, weights, epsilon);
                unfolded.conv.pack(team, &[&filters], packed);
                Some(bias.into())
            })
            .collect();
        let arena = Arc::new(arena);
        let folded = convs.iter().zip(places).zip(biases).map(|((unfolded, place), bias)| {
            let algorithm = unfolded.conv.algorithms().forward;
            match (place, bias, unfolded.known) {
                (Some(place), Some(bias), _) => {
                    Folded { algorithm, arena: arena.clone(), place, bias }
                }
                (_, _, Some(known)) => known.clone(),
                _ => unreachable!("what is not known got a place and a bias"),
            }
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

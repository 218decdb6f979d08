//! Convolutions whose channels are not a multiple of a block. They get channels of zeros until they
//! are.
//!
//! GoogLeNet reduces to 24 channels before the 5x5 filters of 4b and 4c, and maps hold channels in
//! blocks of 16. The stage that writes such a map gets filters of zeros for the missing channels, and
//! so does the stage that reads it. Both keep their tensors in a store of their own, and a step copies
//! to and from it. The rest of the network stays as it is.

use bninception_kernels::map::BLOCK;
use std::ops::Range;

use bninception_model::layer::Op;
use bninception_model::parameters::TensorSpec;
use bninception_model::{Network, ParameterTable, Role, Weights};

/// The padded layers of a network, and their tensors.
pub(crate) struct Padded {
    /// The network with channels added.
    network: Network,
    /// Whether the tensors of each layer lie in the store.
    stored: Vec<bool>,
    /// What the channels of all maps are a multiple of.
    multiple: usize,
    /// Their places in the store.
    table: ParameterTable,
    trainable: Vec<TensorPair>,
    statistics: Vec<TensorPair>,
    /// Weights of the stored layers.
    pub weights: Weights,
    /// Gradients of the stored layers.
    pub gradients: Vec<f32>,
}

/// Where a tensor lies in the caller's vector and in the store. A row is an output channel; it begins
/// with the values that both have.
struct TensorPair {
    outer: Range<usize>,
    inner: Range<usize>,
    rows: [usize; 2],
}

impl TensorPair {
    fn new(outer: &TensorSpec, inner: &TensorSpec) -> TensorPair {
        let rows = [outer.shape[0], inner.shape[0]];
        TensorPair { outer: outer.range.clone(), inner: inner.range.clone(), rows }
    }

    /// Lengths of a row.
    fn lens(&self) -> [usize; 2] {
        [self.outer.len() / self.rows[0], self.inner.len() / self.rows[1]]
    }

    fn widen(&self, outer: &[f32], inner: &mut [f32]) {
        let [len, wide] = self.lens();
        let rows = inner[self.inner.clone()].chunks_exact_mut(wide);
        for (from, to) in outer[self.outer.clone()].chunks_exact(len).zip(rows) {
            to[..len].copy_from_slice(from);
        }
    }

    fn narrow(&self, inner: &[f32], outer: &mut [f32]) {
        let [len, wide] = self.lens();
        let rows = outer[self.outer.clone()].chunks_exact_mut(len);
        for (to, from) in rows.zip(inner[self.inner.clone()].chunks_exact(wide)) {
            to.copy_from_slice(&from[..len]);
        }
    }
}

impl Padded {
    /// Pads the layers that need it and allow it. A layer that needs it and does not allow it is
    /// refused later, by name.
    pub(crate) fn new(network: &Network) -> Padded {
        Padded::to(BLOCK, network)
    }

    /// Pads to a multiple of `multiple` channels.
    pub(crate) fn to(multiple: usize, network: &Network) -> Padded {
        let mut wide = network.clone();
        let mut stored = vec![false; network.layers.len()];
        for (index, layer) in network.layers.iter().enumerate() {
            if let Op::Conv(conv) = layer.op
                && !conv.out_channels.is_multiple_of(multiple)
                && let Some(reader) = reading_conv(network, index)
            {
                let channels = conv.out_channels.next_multiple_of(multiple);
                let mut at = index;
                while at != reader {
                    wide.layers[at].output.channels = channels;
                    if let Op::Conv(conv) = &mut wide.layers[at].op {
                        conv.out_channels = channels;
                    }
                    stored[at] = true;
                    at = network.only_reader(at).unwrap_or(reader);
                }
                if let Op::Conv(conv) = &mut wide.layers[reader].op {
                    conv.in_channels = channels;
                }
                stored[reader] = true;
                if let Some(norm) = network.only_reader(reader) {
                    stored[norm] = true;
                }
            }
        }

        let (outer, whole) = (ParameterTable::new(network), ParameterTable::new(&wide));
        let table = ParameterTable {
            trainable: compact(&whole.trainable, &stored),
            statistics: compact(&whole.statistics, &stored),
        };
        let pairs = |outer: &[TensorSpec], inner: &[TensorSpec]| -> Vec<TensorPair> {
            let outer = outer.iter().filter(|spec| stored[spec.layer]);
            outer.zip(inner).map(|(outer, inner)| TensorPair::new(outer, inner)).collect()
        };
        Padded {
            trainable: pairs(&outer.trainable, &table.trainable),
            statistics: pairs(&outer.statistics, &table.statistics),
            weights: Weights {
                trainable: vec![0.0; table.n_trainable()],
                statistics: vec![0.0; table.n_statistics()],
            },
            gradients: vec![0.0; table.n_trainable()],
            network: wide,
            stored,
            multiple,
            table,
        }
    }

    /// The network to run.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// What the channels of all maps are a multiple of.
    pub(crate) fn multiple(&self) -> usize {
        self.multiple
    }

    /// Whether the tensors of `layer` lie in the store.
    pub(crate) fn stores(&self, layer: usize) -> bool {
        self.stored[layer]
    }

    /// Place in the store of a trainable tensor of a stored layer.
    pub(crate) fn trainable(&self, layer: usize, role: Role) -> Option<Range<usize>> {
        self.table.trainable_of(layer, role).map(|spec| spec.range.clone())
    }

    /// Place in the store of a running statistic of a stored layer.
    pub(crate) fn statistic(&self, layer: usize, role: Role) -> Option<Range<usize>> {
        self.table.statistic_of(layer, role).map(|spec| spec.range.clone())
    }

    /// Copies the weights of the stored layers from `weights`. Added values stay zero.
    pub(crate) fn load(&mut self, weights: &Weights) {
        let store = &mut self.weights;
        self.trainable.iter().for_each(|p| p.widen(&weights.trainable, &mut store.trainable));
        self.statistics.iter().for_each(|p| p.widen(&weights.statistics, &mut store.statistics));
    }

    /// Copies gradients and running statistics of the stored layers back.
    pub(crate) fn store(&self, weights: &mut Weights, gradients: &mut [f32]) {
        self.trainable.iter().for_each(|p| p.narrow(&self.gradients, gradients));
        self.store_statistics(weights);
    }

    /// The ranges of the caller's trainable vector that belong to stored layers.
    pub(crate) fn outer_ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.trainable.iter().rev().map(|pair| pair.outer.clone())
    }

    /// Copies running statistics of the stored layers back.
    pub(crate) fn store_statistics(&self, weights: &mut Weights) {
        let statistics = &self.weights.statistics;
        self.statistics.iter().for_each(|p| p.narrow(statistics, &mut weights.statistics));
    }
}

/// The specs of stored layers, one after another.
fn compact(specs: &[TensorSpec], stored: &[bool]) -> Vec<TensorSpec> {
    let mut end = 0;
    let specs = specs.iter().filter(|spec| stored[spec.layer]);
    specs
        .map(|spec| {
            let range = end..end + spec.range.len();
            end = range.end;
            TensorSpec { range, ..spec.clone() }
        })
        .collect()
}

/// The only convolution that reads convolution `index`, with nothing between them but batch norm
/// and nonlinearity.
fn reading_conv(network: &Network, index: usize) -> Option<usize> {
    let mut at = network.only_reader(index)?;
    while matches!(network.layers[at].op, Op::BatchNorm | Op::Activation(_)) {
        at = network.only_reader(at)?;
    }
    matches!(network.layers[at].op, Op::Conv(_)).then_some(at)
}

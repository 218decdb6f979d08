//! The last layer of a network, which makes logits of features.

use std::ops::Range;

use bninception_engine::model::{Network, ParameterTable, Role};

/// Where the values of the last layer stand among the trainable ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastLayer {
    /// What it reads of an image: the mean of each channel.
    pub channels: usize,
    /// Its matrix, `[classes][channels]`.
    pub matrix: Range<usize>,
    /// A value for each class.
    pub bias: Range<usize>,
}

impl LastLayer {
    /// That of `network`.
    pub fn of(network: &Network) -> LastLayer {
        let (table, last) = (ParameterTable::new(network), network.layers.len() - 1);
        let place = |role| table.trainable_of(last, role).map_or(0..0, |spec| spec.range.clone());
        let matrix = place(Role::LinearWeight);
        let channels = matrix.len() / network.options.classes;
        LastLayer { channels, matrix, bias: place(Role::Bias) }
    }
}

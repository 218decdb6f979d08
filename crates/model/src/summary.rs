//! What `info` prints: every layer with its shapes, parameters and multiply-accumulates.

use crate::layer::{Op, Shape};
use crate::network::Network;
use crate::parameters::ParameterTable;

/// One layer of the summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSummary {
    /// Name of the layer.
    pub name: String,
    /// What it computes, as [`Op::kind`] names it.
    pub kind: &'static str,
    /// Shape that it reads; for a concatenation the joined shape.
    pub input: Shape,
    /// Shape that it gives.
    pub output: Shape,
    /// Trainable values.
    pub parameters: usize,
    /// Multiply-accumulates of the forward pass of one image; convolutions and the last layer only.
    pub macs: usize,
}

/// The layers of `network`, the image left out.
pub fn summarise(network: &Network) -> Vec<LayerSummary> {
    let table = ParameterTable::new(network);
    let mut summaries = Vec::new();
    for (index, layer) in network.layers.iter().enumerate().skip(1) {
        let input = network.input_shape(index);
        let macs = match layer.op {
            Op::Conv(conv) => {
                let per_output = conv.in_channels * conv.kernel * conv.kernel;
                layer.output.len() * per_output
            }
            Op::Linear => input.channels * layer.output.channels,
            _ => 0,
        };
        let own = table.trainable.iter().filter(|spec| spec.layer == index);
        summaries.push(LayerSummary {
            name: layer.name.clone(),
            kind: layer.op.kind(),
            input,
            output: layer.output,
            parameters: own.map(|spec| spec.range.len()).sum(),
            macs,
        });
    }
    summaries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkOptions;

    fn totals(options: NetworkOptions) -> (usize, usize) {
        let network = Network::bn_inception(options).unwrap();
        let summary = summarise(&network);
        let parameters = summary.iter().map(|layer| layer.parameters).sum();
        (parameters, summary.iter().map(|layer| layer.macs).sum())
    }

    #[test]
    fn totals_match_independent_counts() {
        // Counts of the PyTorch port at 224 pixels and 1000 classes; 11,295,240 is also asserted by
        // pytorchcv (`pytorchcv/models/bninception.py`).
        let base = NetworkOptions::default();
        assert_eq!(totals(base.clone()), (11_194_984, 2_018_851_840));
        let wide = NetworkOptions { pool_proj_4c4d: 128, ..base };
        assert_eq!(totals(wide.clone()), (11_285_224, 2_032_600_064));
        let biased = NetworkOptions { conv_bias: true, ..wide };
        assert_eq!(totals(biased), (11_295_240, 2_032_600_064));
    }

    #[test]
    fn every_size_builds_and_joins_equal_maps() {
        for image_size in NetworkOptions::IMAGE_SIZES {
            let options = NetworkOptions { image_size, ..NetworkOptions::default() };
            let network = Network::bn_inception(options).unwrap();
            for layer in &network.layers {
                if layer.op == Op::Concat {
                    for &branch in &layer.inputs {
                        let shape = network.layers[branch].output;
                        let size = (shape.height, shape.width);
                        assert_eq!(size, (layer.output.height, layer.output.width));
                    }
                }
            }
            let last_map = &network.layers[network.layers.len() - 2];
            assert_eq!(last_map.output, Shape { channels: 1024, height: 1, width: 1 });
        }
    }

    #[test]
    fn figure_5_output_column() {
        let network = Network::bn_inception(NetworkOptions::default()).unwrap();
        let output = |name: &str| {
            let layer = network.layers.iter().find(|layer| layer.name == name).unwrap();
            layer.output.to_string()
        };
        let column = [
            ("conv1_7x7_s2", "64x112x112"),
            ("pool1_3x3_s2", "64x56x56"),
            ("conv2_3x3", "192x56x56"),
            ("pool2_3x3_s2", "192x28x28"),
            ("inception_3a_output", "256x28x28"),
            ("inception_3b_output", "320x28x28"),
            ("inception_3c_output", "576x14x14"),
            ("inception_4a_output", "576x14x14"),
            ("inception_4b_output", "576x14x14"),
            ("inception_4c_output", "576x14x14"),
            ("inception_4d_output", "576x14x14"),
            ("inception_4e_output", "1024x7x7"),
            ("inception_5a_output", "1024x7x7"),
            ("inception_5b_output", "1024x7x7"),
            ("global_pool", "1024x1x1"),
        ];
        for (name, shape) in column {
            assert_eq!(output(name), shape, "{name}");
        }
    }
}

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
    /// Shape of its input; for a concatenation the joined shape.
    pub input: Shape,
    /// Shape of its output.
    pub output: Shape,
    /// Trainable values.
    pub parameters: usize,
    /// Multiply-accumulates of the forward pass of one image; convolutions and fully connected layers
    /// only.
    pub macs: usize,
    /// Whether it belongs to an auxiliary head, which evaluation leaves out.
    pub auxiliary: bool,
}

/// The layers of `network`, without the image.
pub fn summarise(network: &Network) -> Vec<LayerSummary> {
    let table = ParameterTable::new(network);
    let evaluated = network.evaluated_layers();
    let mut summaries = Vec::new();
    for (index, layer) in network.layers.iter().enumerate().skip(1) {
        let input = network.input_shape(index);
        let macs = match layer.op {
            Op::Conv(conv) => {
                let per_output = conv.in_channels * conv.kernel * conv.kernel;
                layer.output.len() * per_output
            }
            Op::Linear { .. } => input.len() * layer.output.channels,
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
            auxiliary: !evaluated[index],
        });
    }
    summaries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{AuxOptions, Kind, NetworkOptions};

    fn totals(options: NetworkOptions) -> (usize, usize) {
        totals_of(&Network::bn_inception(options).unwrap(), false)
    }

    /// Parameters and multiply-accumulates of the auxiliary heads, or of all other layers.
    fn totals_of(network: &Network, auxiliary: bool) -> (usize, usize) {
        let summary = summarise(network);
        let layers = || summary.iter().filter(|layer| layer.auxiliary == auxiliary);
        (layers().map(|layer| layer.parameters).sum(), layers().map(|layer| layer.macs).sum())
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
    fn googlenet_has_the_parameters_of_its_publication() {
        // As in BVLC's Caffe model with a dense stem: 6,998,552 parameters with two heads of
        // 3,188,840 and 3,190,888 more, 1.583 GMAC.
        let options = NetworkOptions { aux: Some(AuxOptions::default()), ..googlenet_options() };
        let network = Network::googlenet(options).unwrap();
        let (parameters, macs) = totals_of(&network, false);
        assert_eq!(parameters, 6_998_552);
        assert_eq!((macs as f64 / 1e6).round(), 1583.0, "{macs}");
        assert_eq!(totals_of(&network, true).0, 6_379_728);
        let without = Network::googlenet(googlenet_options()).unwrap();
        assert_eq!(totals_of(&without, false), (parameters, macs));
        assert_eq!(totals_of(&without, true), (0, 0));
    }

    fn googlenet_options() -> NetworkOptions {
        NetworkOptions {
            batch_norm: None,
            conv_bias: true,
            lrn: true,
            dropout: 0.4,
            ..NetworkOptions::default()
        }
    }

    #[test]
    fn googlenet_output_column() {
        // Table 1 of GoogLeNet, which prints 4d's 528 channels in text (section 5).
        let options = NetworkOptions { aux: Some(AuxOptions::default()), ..googlenet_options() };
        let network = Network::googlenet(options).unwrap();
        let column = [
            ("conv1_7x7_s2", "64x112x112"),
            ("pool1_3x3_s2", "64x56x56"),
            ("conv2_3x3", "192x56x56"),
            ("pool2_3x3_s2", "192x28x28"),
            ("inception_3a_output", "256x28x28"),
            ("inception_3b_output", "480x28x28"),
            ("pool3_3x3_s2", "480x14x14"),
            ("inception_4a_output", "512x14x14"),
            ("aux1_pool", "512x4x4"),
            ("aux1_conv", "128x4x4"),
            ("aux1_fc", "1024x1x1"),
            ("inception_4b_output", "512x14x14"),
            ("inception_4c_output", "512x14x14"),
            ("inception_4d_output", "528x14x14"),
            ("aux2_pool", "528x4x4"),
            ("inception_4e_output", "832x14x14"),
            ("pool4_3x3_s2", "832x7x7"),
            ("inception_5a_output", "832x7x7"),
            ("inception_5b_output", "1024x7x7"),
            ("global_pool", "1024x1x1"),
            ("last_linear", "1000x1x1"),
        ];
        for (name, shape) in column {
            let layer = network.layers.iter().find(|layer| layer.name == name).unwrap();
            assert_eq!(layer.output.to_string(), shape, "{name}");
        }
    }

    #[test]
    fn every_loss_reads_its_own_classifier_and_the_last_is_the_main_one() {
        let aux = Some(AuxOptions { weight: 0.25, dropout: 0.5 });
        let options = NetworkOptions { aux, ..NetworkOptions::default() };
        for kind in Kind::ALL {
            let network = Network::new(kind, options.clone()).unwrap();
            let losses: Vec<(&str, f64)> = network
                .losses
                .iter()
                .map(|loss| (network.layers[loss.logits].name.as_str(), loss.weight))
                .collect();
            assert_eq!(
                losses,
                [("aux1_linear", 0.25), ("aux2_linear", 0.25), ("last_linear", 1.0)]
            );
            let names = |wanted: bool| -> Vec<String> {
                let layers = network.layers.iter().zip(network.evaluated_layers());
                layers.filter(|(_, used)| *used == wanted).map(|(l, _)| l.name.clone()).collect()
            };
            let plain = NetworkOptions { aux: None, ..options.clone() };
            let plain = Network::new(kind, plain).unwrap();
            let plain: Vec<String> = plain.layers.iter().map(|l| l.name.clone()).collect();
            assert_eq!(names(true), plain, "evaluation sees the network without heads");
            assert!(names(false).iter().all(|name| name.starts_with("aux")));
        }
    }

    #[test]
    fn every_size_builds_and_joins_equal_maps() {
        for (image_size, kind) in
            NetworkOptions::IMAGE_SIZES.flat_map(|size| Kind::ALL.map(|kind| (size, kind)))
        {
            let aux = Some(AuxOptions::default());
            let options = NetworkOptions { image_size, aux, ..NetworkOptions::default() };
            let network = Network::new(kind, options).unwrap();
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

//! What a foreign network wants to see, in our terms: red, green and blue from 0 to 1, of which a mean is
//! taken and which are divided by a deviation.

use bninception_engine::model::{Network, ParameterTable, Role, Weights};
use clap::ValueEnum;

/// How images become the input of a foreign network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ForeignInput {
    /// Blue, green, red from 0 to 255, less 104, 117 and 128: Caffe's, and that of the public BN-Inception.
    Caffe,
    /// Red, green, blue from 0 to 1, less ImageNet's mean, over its deviation: torchvision's.
    Imagenet,
}

impl ForeignInput {
    /// The mean of red, green and blue in units of the full range.
    pub fn mean(self) -> [f64; 3] {
        match self {
            // <https://github.com/Cadene/pretrained-models.pytorch>, `pretrainedmodels/models/bninception.py`
            ForeignInput::Caffe => [128.0 / 255.0, 117.0 / 255.0, 104.0 / 255.0],
            // <https://pytorch.org/vision/stable/models.html>
            ForeignInput::Imagenet => [0.485, 0.456, 0.406],
        }
    }

    /// Their deviation, in the same units.
    pub fn std(self) -> [f64; 3] {
        match self {
            ForeignInput::Caffe => [1.0 / 255.0; 3],
            ForeignInput::Imagenet => [0.229, 0.224, 0.225],
        }
    }

    /// Turns the order of colours in the filters of the first convolution, where they expect blue first.
    pub fn turn_colours(self, network: &Network, weights: &mut Weights) {
        if self == ForeignInput::Imagenet {
            return;
        }
        let table = ParameterTable::new(network);
        let Some(first) = table.trainable.iter().find(|spec| spec.role == Role::ConvWeight) else {
            return;
        };
        let [_, colours, height, width] = first.shape[..] else { return };
        for filter in
            weights.trainable[first.range.clone()].chunks_exact_mut(colours * height * width)
        {
            let (blue, rest) = filter.split_at_mut(height * width);
            let red = &mut rest[(colours - 2) * height * width..];
            blue.swap_with_slice(red);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bninception_engine::model::NetworkOptions;
    use bninception_engine::model::init::initial_weights;

    #[test]
    fn only_the_order_of_colours_changes() {
        let options = NetworkOptions { classes: 2, image_size: 32, ..NetworkOptions::default() };
        let network = Network::bn_inception(options).unwrap();
        let table = ParameterTable::new(&network);
        let before = initial_weights(&network, &table, 1);
        let mut after = before.clone();
        ForeignInput::Caffe.turn_colours(&network, &mut after);
        let colour = |weights: &Weights, filter: usize, colour: usize| {
            weights.trainable[(filter * 3 + colour) * 49..][..49].to_vec()
        };
        for filter in 0..64 {
            for (own, other) in [(0, 2), (1, 1), (2, 0)] {
                assert_eq!(colour(&after, filter, own), colour(&before, filter, other));
            }
        }
        assert_eq!(after.trainable[64 * 147..], before.trainable[64 * 147..]);
        ForeignInput::Caffe.turn_colours(&network, &mut after);
        assert_eq!(after, before);
        ForeignInput::Imagenet.turn_colours(&network, &mut after);
        assert_eq!(after, before);
    }
}

//! Where a network sees a class: class activation maps (Zhou et al. 2016, <https://arxiv.org/abs/1512.04150>).
//!
//! The last layer is linear in the means of its maps, so what it says of a class can be parted among the
//! positions exactly: position p adds `w_c . x(p) / positions` to the logit of class c. A softmax does not change
//! when all logits rise together, so what is shown is the logit of a class less the mean of all logits.
//!
//! Zeros around maps let a network tell places apart, and a small map is all border: some places may speak for
//! a class whatever the picture shows. To take off the map of an empty picture made that worse on photographs of
//! ants and bees, because such a picture is far from all that the network has seen.

use bninception_engine::model::{Network, Weights};

use crate::evaluation::last_layer::LastLayer;
use crate::figure::Thumbnail;

/// The last layer of a network, less the mean over the classes.
pub struct CentredClassifier {
    channels: usize,
    /// `[classes][channels]`.
    weights: Vec<f64>,
    bias: Vec<f64>,
}

impl CentredClassifier {
    /// That of `network` with these weights.
    pub fn of(network: &Network, weights: &Weights) -> CentredClassifier {
        let LastLayer { channels, matrix, bias } = LastLayer::of(network);
        let classes = network.options.classes;
        CentredClassifier {
            channels,
            weights: centred(&weights.trainable[matrix], channels, classes),
            bias: centred(&weights.trainable[bias], 1, classes),
        }
    }

    /// What each position of `maps` (channels x positions) adds to the logit of `class`, less the mean of all
    /// logits. The mean over the positions is that of the image.
    pub fn activation_map(&self, class: usize, maps: &[f32]) -> Vec<f64> {
        let positions = maps.len() / self.channels;
        let row = &self.weights[class * self.channels..][..self.channels];
        let mut map = vec![self.bias[class]; positions];
        for (weight, channel) in row.iter().zip(maps.chunks_exact(positions)) {
            for (sum, &value) in map.iter_mut().zip(channel) {
                *sum += weight * f64::from(value);
            }
        }
        map
    }
}

/// Rows of `len`, each less the mean of all.
fn centred(rows: &[f32], len: usize, classes: usize) -> Vec<f64> {
    let mut mean = vec![0.0; len];
    for row in rows.chunks_exact(len) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(sum, &value)| *sum += f64::from(value) / classes as f64);
    }
    let rows = rows.chunks_exact(len).flat_map(|row| row.iter().zip(&mean));
    rows.map(|(&value, mean)| f64::from(value) - mean).collect()
}

/// Colours from what adds a little to what adds the most.
const COLOURS: [[f64; 3]; 2] = [[255.0, 210.0, 40.0], [215.0, 25.0, 0.0]];

/// How much of the picture the strongest colour hides. Our choice: shapes stay visible below it.
const STRONGEST: f64 = 0.65;

/// A square picture in gray with its activation map in colours over it: `levels` are red, green and blue,
/// `side` x `side` x 3. Only what speaks for the class is coloured; the strongest place is red.
pub fn overlay(levels: &[u8], side: usize, map: &[f64]) -> Thumbnail {
    let cells = (map.len() as f64).sqrt().round() as usize;
    let strongest = map.iter().copied().fold(0.0, f64::max);
    let mut rgb = Vec::with_capacity(levels.len());
    for (pixel, colour) in levels.chunks_exact(3).enumerate() {
        let place = |at: usize| (at as f64 + 0.5) / side as f64 * cells as f64 - 0.5;
        let value = between(map, cells, place(pixel / side), place(pixel % side));
        let share = if strongest > 0.0 { (value / strongest).clamp(0.0, 1.0) } else { 0.0 };
        // Rec. 601, as Pillow turns colours into gray.
        let [red, green, blue] = [colour[0], colour[1], colour[2]].map(f64::from);
        let gray = 0.299 * red + 0.587 * green + 0.114 * blue;
        let hidden = STRONGEST * share;
        for (low, high) in COLOURS[0].into_iter().zip(COLOURS[1]) {
            let tint = low + (high - low) * share;
            rgb.push((gray * (1.0 - hidden) + tint * hidden).round().clamp(0.0, 255.0) as u8);
        }
    }
    Thumbnail { width: side as u32, height: side as u32, rgb }
}

/// The value between the centres of the cells of a square map, in proportion; beyond the outer centres that
/// of the nearest.
fn between(map: &[f64], cells: usize, row: f64, column: f64) -> f64 {
    if map.is_empty() {
        return 0.0;
    }
    let last = cells.saturating_sub(1);
    let near = |at: f64| {
        let at = at.clamp(0.0, last as f64);
        let low = (at.floor() as usize).min(last);
        (low, (low + 1).min(last), at - low as f64)
    };
    let ((top, bottom, down), (left, right, along)) = (near(row), near(column));
    let in_row =
        |row: usize| map[row * cells + left] * (1.0 - along) + map[row * cells + right] * along;
    in_row(top) * (1.0 - down) + in_row(bottom) * down
}

#[cfg(test)]
mod tests {
    use super::*;
    use bninception_engine::model::init::initial_weights;
    use bninception_engine::model::{NetworkOptions, ParameterTable};
    use bninception_engine::{EvaluationWeights, Executor, Fast, FastOptions, Features, Images};

    #[test]
    fn the_mean_of_a_map_is_the_logit() {
        let options = NetworkOptions { classes: 5, image_size: 96, ..NetworkOptions::default() };
        let network = Network::bn_inception(options).unwrap();
        let weights = initial_weights(&network, &ParameterTable::new(&network), 4);
        let images: Vec<f32> =
            (0..2 * 3 * 96 * 96).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let mut fast = Fast::new(network.clone(), FastOptions::default()).unwrap();
        fast.prepare_evaluation(EvaluationWeights::Given(&weights)).unwrap();
        let (mut logits, mut features) =
            (Vec::new(), Features { maps: Some(vec![]), ..Default::default() });
        fast.evaluate_features(Images::Values(&images), &mut logits, &mut features).unwrap();
        let classifier = CentredClassifier::of(&network, &weights);
        let maps = features.maps.unwrap();
        for (logits, maps) in logits.chunks_exact(5).zip(maps.chunks_exact(1024 * 9)) {
            let mean = logits.iter().map(|&z| f64::from(z)).sum::<f64>() / 5.0;
            for (class, &logit) in logits.iter().enumerate() {
                let map = classifier.activation_map(class, maps);
                assert_eq!(map.len(), 9);
                let found = map.iter().sum::<f64>() / 9.0;
                let expected = f64::from(logit) - mean;
                assert!(
                    (found - expected).abs() < 1e-4 * (1.0 + expected.abs()),
                    "{found} {expected}"
                );
            }
        }
    }

    #[test]
    fn only_what_speaks_for_a_class_is_coloured() {
        let gray = vec![100; 4 * 4 * 3];
        let pixel = |picture: &Thumbnail, row: usize, column: usize| {
            let at = (row * 4 + column) * 3;
            [picture.rgb[at], picture.rgb[at + 1], picture.rgb[at + 2]]
        };
        let picture = overlay(&gray, 4, &[2.0, -1.0, -1.0, -1.0]);
        let [red, green, blue] = pixel(&picture, 0, 0);
        assert!(red > 150 && green < red && blue < green, "{red} {green} {blue}");
        assert_eq!(pixel(&picture, 3, 3), [100; 3]);
        for map in [&[-1.0; 4][..], &[0.0; 4], &[f64::NAN; 4], &[]] {
            assert_eq!(overlay(&gray, 4, map).rgb, gray);
        }
        // One cell is the whole picture.
        assert_eq!(
            pixel(&overlay(&gray, 4, &[1.0]), 3, 3),
            pixel(&overlay(&gray, 4, &[1.0]), 0, 0)
        );
    }

    #[test]
    fn values_lie_between_those_of_the_cells() {
        let map = [0.0, 1.0, 2.0, 3.0];
        for (row, column, expected) in [
            (0.0, 0.0, 0.0),
            (0.0, 0.5, 0.5),
            (0.5, 0.5, 1.5),
            (1.0, 1.0, 3.0),
            (-0.5, -0.5, 0.0),
            (1.5, 0.25, 2.25),
        ] {
            assert_eq!(between(&map, 2, row, column), expected, "{row} {column}");
        }
        assert_eq!(between(&[7.0], 1, 0.3, -0.4), 7.0);
    }
}

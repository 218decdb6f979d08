//! The convolutions that a device has to have algorithms for, as `crates/cuda` tests them without one.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use std::collections::BTreeSet;

use bninception_engine::cuda::{Direction, Precision};
use bninception_engine::gpu::check::convolutions;
use bninception_engine::model::{AuxOptions, BatchNormOptions, Kind, Network, NetworkOptions};

/// The list that `crates/cuda/tests/libraries.rs` reads.
const LIST: &str = include_str!("../../cuda/tests/convolutions.txt");

/// Image sizes of the presets that differ most.
const IMAGE_SIZES: [usize; 2] = [64, 224];

#[test]
fn the_list_has_the_convolutions_of_all_presets() {
    let mut all = BTreeSet::new();
    for image_size in IMAGE_SIZES {
        let options = NetworkOptions { image_size, ..NetworkOptions::default() };
        let aux = Some(AuxOptions::default());
        let plain = NetworkOptions { batch_norm: None, conv_bias: true, ..options.clone() };
        let norm = Some(BatchNormOptions { epsilon: 1e-5 });
        for (kind, options) in [
            (Kind::BnInception, options.clone()),
            (Kind::BnInception, NetworkOptions { pool_proj_4c4d: 128, ..options.clone() }),
            (Kind::BnInception, plain.clone()),
            (Kind::GoogLeNet, NetworkOptions { aux, ..plain }),
            (Kind::GoogLeNet, NetworkOptions { aux, batch_norm: norm, ..options }),
        ] {
            let network = Network::new(kind, options).unwrap();
            for convolution in convolutions(&network, Precision::Bf16, 1).unwrap() {
                let c = convolution;
                assert_eq!((c.in_height, c.pad), (c.in_width, c.kernel / 2), "{c}");
                if c.direction == Direction::Forward {
                    let sizes = [c.in_channels, c.out_channels, c.in_height, c.kernel, c.stride];
                    all.insert(sizes);
                }
            }
        }
    }
    let line = |sizes: &[usize; 5]| sizes.map(|size| size.to_string()).join(" ") + "\n";
    let list: String = all.iter().map(line).collect();
    let found: String = LIST
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(found == list, "crates/cuda/tests/convolutions.txt should have these lines:\n{list}");
}

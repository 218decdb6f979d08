//! The GPU engine with the host in the place of a device.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // helpers of tests; each test uses some of them

use bninception_engine::cuda::{Device, Host, Precision};
use bninception_engine::model::{Kind, Network, NetworkOptions, Weights};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{
    Gpu, GpuOptions, HostConvolutions, Images, ModelState, Normaliser, TrainBatch, Update,
};

use super::comparison::{CLASSES, random};

/// A host on which convolutions run on two threads.
pub fn device() -> Box<dyn Device> {
    Box::new(Host::new(Box::new(HostConvolutions::new(2)), 2))
}

/// The engine with all options but the precision as they are by default.
pub fn gpu(network: &Network, precision: Precision) -> Gpu {
    with_options(network, GpuOptions { precision, ..GpuOptions::default() })
}

/// The engine with these options.
pub fn with_options(network: &Network, options: GpuOptions) -> Gpu {
    Gpu::new(network.clone(), device(), options).unwrap()
}

/// What a training run's update looks like.
pub const UPDATE: Update = Update {
    sgd: SgdStep { lr: 0.02, momentum: 0.9, weight_decay: 1e-3, nesterov: false, lr_factors: &[] },
    clip_norm: 0.0,
    tell_norm: true,
    ema_decay: 0.9,
};

pub fn bn(options: NetworkOptions) -> Network {
    Network::bn_inception(options).unwrap()
}

pub fn googlenet(options: NetworkOptions) -> Network {
    Network::new(Kind::GoogLeNet, options).unwrap()
}

/// Images of levels, labels, weights of classes and shares that change from one batch to the next.
pub struct Levels {
    levels: Vec<u8>,
    normaliser: Normaliser,
    labels: Vec<u32>,
    class_weights: Vec<f64>,
}

impl Levels {
    pub fn new(network: &Network, n: usize, seed: u64) -> Levels {
        let noise = random(seed, n * network.layers[0].output.len());
        Levels {
            levels: noise.iter().map(|value| (value * 127.0 + 128.0) as u8).collect(),
            normaliser: Normaliser::new([0.48, 0.46, 0.41], [0.23, 0.22, 0.23]),
            labels: (0..n).map(|i| ((i as u64 * 7 + seed) % CLASSES as u64) as u32).collect(),
            class_weights: (0..CLASSES).map(|class| 0.5 + class as f64 / 10.0).collect(),
        }
    }

    pub fn lend(&self, number: u64) -> TrainBatch<'_> {
        TrainBatch {
            images: Images::Levels { levels: &self.levels, normaliser: &self.normaliser },
            labels: &self.labels,
            label_smoothing: 0.1,
            class_weights: (number % 2 == 1).then_some(&self.class_weights[..]),
            own_share: (number % 3 == 2).then_some(0.7),
            seed: 5,
            number,
            bn_momentum: 0.1 + 0.1 * number as f64,
        }
    }
}

pub fn with_average(weights: &Weights) -> ModelState {
    ModelState { ema: Some(weights.clone()), ..ModelState::of(weights.clone()) }
}

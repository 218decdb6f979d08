//! Initial values of a network.
//!
//! The paper leaves initialisation open. Our reading: He et al. 2015
//! (<https://arxiv.org/abs/1502.01852>, equation 10) for filters followed by ReLU, because the
//! network without batch norm has to train too. Glorot & Bengio 2010, equation 16, for filters followed
//! by a sigmoid and for the last layer of each head. The option `init_gain` multiplies the deviation of
//! the convolutions' filters: members of the paper's ensemble start from larger weights (section
//! 4.2.3). Biases, shifts and running means start at 0, scales and running variances at 1.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

use crate::layer::Activation;
use crate::network::Network;
use crate::parameters::{ParameterTable, Role, TensorSpec, Weights};

/// Initial weights of `network`. Each tensor has its own stream of random numbers, keyed by the
/// seed and its name. An option that adds a tensor therefore leaves the others unchanged.
pub fn initial_weights(network: &Network, table: &ParameterTable, seed: u64) -> Weights {
    let mut weights = Weights {
        trainable: vec![0.0; table.n_trainable()],
        statistics: vec![0.0; table.n_statistics()],
    };
    for spec in &table.trainable {
        let values = &mut weights.trainable[spec.range.clone()];
        match spec.role {
            Role::Scale => values.fill(1.0),
            Role::ConvWeight | Role::LinearWeight => {
                let deviation = deviation(network, spec);
                let mut rng = tensor_rng(seed, &spec.name);
                for value in values {
                    let normal: f64 = StandardNormal.sample(&mut rng);
                    *value = (normal * deviation) as f32;
                }
            }
            Role::Bias | Role::Shift | Role::RunningMean | Role::RunningVar => {}
        }
    }
    for spec in &table.statistics {
        if spec.role == Role::RunningVar {
            weights.statistics[spec.range.clone()].fill(1.0);
        }
    }
    weights
}

/// Standard deviation of the initial values of a filter or matrix.
fn deviation(network: &Network, spec: &TensorSpec) -> f64 {
    let places: usize = spec.shape[2..].iter().product();
    let fan_out = (spec.shape[0] * places) as f64;
    let fan_in = (spec.shape[1] * places) as f64;
    let is_classifier = network.losses.iter().any(|loss| loss.logits == spec.layer);
    let deviation = match (is_classifier, network.options.activation) {
        (false, Activation::Relu) => (2.0 / fan_in).sqrt(),
        _ => (2.0 / (fan_in + fan_out)).sqrt(),
    };
    let gain = if spec.role == Role::ConvWeight { network.options.init_gain } else { 1.0 };
    deviation * gain
}

/// A generator keyed by seed and tensor name: the seed fills the first eight bytes of the key,
/// and the name, folded by FNV-1a (64 bit), the next eight.
fn tensor_rng(seed: u64, name: &str) -> ChaCha8Rng {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

//! A microscope on batch normalisation: at some steps, how the inputs of chosen nonlinearities are
//! spread over the mini-batch, and how large the gradients of their filters are.
//!
//! The 15th, 50th and 85th percentiles are those of the paper's figure 1 (section 4.1), which shows
//! them for one activation; here they are taken over all activations of a layer.

use bninception_engine::model::{Network, ParameterTable};
use bninception_engine::model::{Role, parameters::TensorSpec};
use bninception_engine::{BatchResult, Executor, Hooks, NormExchange, TrainBatch, Watch};

use crate::config::{Config, nearest};
use crate::error::Error;
use crate::run::records::Record;

/// The watched layers of a run, and what the last watched step showed.
#[derive(Debug)]
pub struct Watcher {
    layers: Vec<Layer>,
    /// The layers' indices in the network.
    indices: Vec<usize>,
    every_steps: u64,
}

#[derive(Debug)]
struct Layer {
    name: String,
    /// Its filters.
    filters: TensorSpec,
    seen: Option<InputStatistics>,
}

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputStatistics {
    /// The 15th, 50th and 85th percentile, between two values in proportion.
    pub percentiles: [f64; 3],
    /// The mean.
    pub mean: f64,
    /// The variance, divided by the number of values.
    pub variance: f64,
}

/// Sees the name of a watched layer and its values.
pub type OnWatched<'a> = dyn FnMut(&str, &[f32]) + 'a;

impl Watcher {
    /// The layers that `config` names.
    ///
    /// # Errors
    /// A name that no layer with a nonlinearity behind it has.
    pub fn new(config: &Config, network: &Network) -> Result<Watcher, Error> {
        let table = ParameterTable::new(network);
        let mut watcher = Watcher {
            layers: Vec::new(),
            indices: Vec::new(),
            every_steps: config.log.watch_every,
        };
        for name in &config.log.watch {
            let watchable = || {
                let layers = network.layers.iter().enumerate();
                layers.filter(|(index, _)| network.nonlinearity_input(*index).is_some())
            };
            let found = watchable().find(|(_, layer)| layer.name == *name);
            let filters = found.and_then(|(index, _)| {
                let of = |role| table.trainable_of(index, role);
                of(Role::ConvWeight).or_else(|| of(Role::LinearWeight)).cloned()
            });
            let Some(filters) = filters else {
                let nearest = nearest(name, watchable().map(|(_, layer)| layer.name.as_str()));
                return Err(Error::Usage(format!(
                    "log.watch: no layer with a nonlinearity behind it is called `{}`; did you \
                     mean `{nearest}`? `bninception info` lists all layers",
                    name.escape_debug()
                )));
            };
            if filters.layer <= network.frozen {
                return Err(Error::Usage(format!(
                    "log.watch: train.freeze = \"{}\" leaves `{name}` as it is, so there is nothing to watch",
                    config.train.freeze
                )));
            }
            watcher.indices.push(filters.layer);
            watcher.layers.push(Layer { name: name.clone(), filters, seen: None });
        }
        Ok(watcher)
    }

    /// Whether the update that makes `step` is watched.
    pub fn is_due(&self, step: u64) -> bool {
        !self.layers.is_empty() && step.is_multiple_of(self.every_steps)
    }

    /// [`Executor::gradients`] of a micro-batch that is watched; its result is that of any other.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn gradients(
        &mut self,
        executor: &mut dyn Executor,
        batch: &TrainBatch<'_>,
        norm: Option<&mut dyn NormExchange>,
        see: &mut OnWatched<'_>,
    ) -> Result<BatchResult, Error> {
        let layers = &mut self.layers;
        let mut show = |index: usize, mut values: Vec<f32>| {
            for layer in layers.iter_mut().filter(|layer| layer.filters.layer == index) {
                see(&layer.name, &values);
                layer.seen = InputStatistics::of(&mut values);
            }
        };
        let watch = Watch { layers: &self.indices, see: &mut show };
        let mut hooks = Hooks { watch: Some(watch), ..Hooks::default() };
        if let Some(norm) = norm {
            hooks.norm = Some(norm);
        }
        Ok(executor.gradients(batch, hooks)?)
    }

    /// The rows of the step that was watched, which made `step`.
    pub fn records(&mut self, step: u64, gradients: &[f32]) -> Vec<Record> {
        let mut records = Vec::new();
        for layer in &mut self.layers {
            let Some(InputStatistics { percentiles, mean, variance }) = layer.seen.take() else {
                continue;
            };
            let [p15, p50, p85] = percentiles;
            let squares = gradients[layer.filters.range.clone()].iter();
            let squares: f64 = squares.map(|&gradient| f64::from(gradient).powi(2)).sum();
            records.push(Record::Watch {
                step,
                layer: layer.name.clone(),
                p15,
                p50,
                p85,
                mean,
                variance,
                gradient_norm: squares.sqrt(),
            });
        }
        records
    }
}

impl InputStatistics {
    /// How `values`, which change their order, are spread; `None` without any.
    pub fn of(values: &mut [f32]) -> Option<InputStatistics> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
        let squares = values.iter().map(|&value| (f64::from(value) - mean).powi(2));
        let variance = squares.sum::<f64>() / n;
        let percentiles = [0.15, 0.5, 0.85].map(|share| quantile(values, share));
        Some(InputStatistics { percentiles, mean, variance })
    }
}

/// The value below which a share of `values` lies; between two values in proportion, as NumPy's
/// `quantile` by default. `values` is not empty.
fn quantile(values: &mut [f32], share: f64) -> f64 {
    let rank = share * (values.len() - 1) as f64;
    let below = rank.floor() as usize;
    let (_, &mut at, above) = values.select_nth_unstable_by(below, f32::total_cmp);
    let at = f64::from(at);
    match above.iter().copied().min_by(f32::total_cmp) {
        Some(next) if rank > below as f64 => at + (f64::from(next) - at) * (rank - below as f64),
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use bninception_engine::model::NetworkOptions;

    use super::*;
    use crate::config::{Sources, resolve};

    #[test]
    fn spreads_are_numpys() {
        // numpy.quantile(values, [0.15, 0.5, 0.85]), numpy.mean, numpy.var
        let cases: [(&[f32], [f64; 3], f64, f64); 4] = [
            (&[2.0], [2.0; 3], 2.0, 0.0),
            (&[3.0, 1.0], [1.3, 2.0, 2.7], 2.0, 1.0),
            (&[5.0, 1.0, 4.0, 2.0, 3.0], [1.6, 3.0, 4.4], 3.0, 2.0),
            (&[-1.0, 0.0, 0.0, 0.0, 7.0], [-0.4, 0.0, 2.8], 1.2, 8.56),
        ];
        for (values, percentiles, mean, variance) in cases {
            let found = InputStatistics::of(&mut values.to_vec()).unwrap();
            let found = [&found.percentiles[..], &[found.mean, found.variance]].concat();
            let expected = [&percentiles[..], &[mean, variance]].concat();
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-12, "{values:?}: {found:?} for {expected:?}");
            }
        }
        assert_eq!(InputStatistics::of(&mut []), None);
        let broken = InputStatistics::of(&mut [f32::NAN, 1.0]).unwrap();
        assert!(broken.mean.is_nan() && broken.variance.is_nan());
    }

    #[test]
    fn layers_are_found_by_name() {
        let network = Network::bn_inception(NetworkOptions::default()).unwrap();
        let watcher = |watch: &[&str]| {
            let mut config = resolve(&Sources::default()).unwrap().config;
            config.log.watch = watch.iter().map(|&name| name.to_owned()).collect();
            Watcher::new(&config, &network)
        };
        let due = |watcher: &Watcher| (0..=200).filter(|&step| watcher.is_due(step)).count();
        let found = watcher(&["conv1_7x7_s2", "inception_5b_1x1"]).unwrap();
        assert_eq!((found.layers.len(), due(&found)), (2, 3));
        assert_eq!(due(&watcher(&[]).unwrap()), 0);
        for (name, nearest) in [
            ("conv1_7x7", "conv1_7x7_s2"),
            ("inception_3a_3x3_bn", "inception_3a_3x3"),
            ("inception_5b_5x5", "inception_5b_3x3"),
        ] {
            let message = watcher(&[name]).unwrap_err().to_string();
            assert!(message.contains(&format!("`{name}`; did you mean `{nearest}`?")), "{message}");
        }
        assert!(watcher(&["last_linear"]).is_err(), "no nonlinearity stands behind it");
    }
}

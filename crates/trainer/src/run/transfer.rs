//! The weights of one network for another.
//!
//! The other gets every tensor that both networks have, and of a classifier the rows of the classes that both
//! know. What only one of them has is no obstacle where the rest does not depend on it: auxiliary heads, and
//! biases in front of a batch norm, which subtracts them again.

use bninception_engine::model::parameters::TensorSpec;
use bninception_engine::model::{Network, ParameterTable, Role, Weights};

/// A network and its values, to be taken over.
pub struct Given<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its trainable values, in the layout of its table.
    pub trainable: &'a [f32],
    /// Its running statistics, in the same.
    pub statistics: &'a [f32],
}

/// What became of the tensors.
#[derive(Clone, Debug)]
pub struct Transferred {
    /// The values of the other network.
    pub weights: Weights,
    /// Tensors that were taken over whole.
    pub n_taken: usize,
    /// Tensors of the other network that stayed as they were, classifiers left out.
    pub drawn: Vec<String>,
    /// Tensors that the other network has no use for.
    pub left_out: Vec<String>,
}

impl Given<'_> {
    /// The values of `network`; what is not given is that of `drawn`. `places` has for each class of that
    /// network its place among the classes given, if it is one of them.
    ///
    /// # Errors
    /// Every tensor that does not fit.
    pub fn transfer(
        &self,
        network: &Network,
        places: &[Option<usize>],
        drawn: Weights,
    ) -> Result<Transferred, Vec<String>> {
        let (own_table, table) = (ParameterTable::new(self.network), ParameterTable::new(network));
        let mut weights = drawn;
        let (mut n_taken, mut drawn, mut problems) = (0, Vec::new(), Vec::new());
        let trainable = table.trainable.iter().map(|spec| (spec, true));
        let statistics = table.statistics.iter().map(|spec| (spec, false));
        for (spec, is_trainable) in trainable.chain(statistics) {
            let vector = match is_trainable {
                true => &mut weights.trainable,
                false => &mut weights.statistics,
            };
            let to = &mut vector[spec.range.clone()];
            match self.tensors(&own_table).find(|(own, _)| own.name == spec.name) {
                Some((own, values)) if is_of_classifier(network, spec) => {
                    match own.shape[1..] == spec.shape[1..] {
                        true => copy_rows(values, to, places),
                        false => problems.push(other_shape(spec, own)),
                    }
                }
                Some((own, values)) if own.shape == spec.shape => {
                    to.copy_from_slice(values);
                    n_taken += 1;
                }
                _ if is_optional(network, spec) => drawn.push(spec.name.clone()),
                Some((own, _)) => problems.push(other_shape(spec, own)),
                None => problems.push(format!("{} is missing there", spec.name)),
            }
        }
        let has = |name: &String| {
            table.trainable.iter().chain(&table.statistics).any(|spec| spec.name == *name)
        };
        let mut left_out = Vec::new();
        for (spec, values) in self.tensors(&own_table).filter(|(spec, _)| !has(&spec.name)) {
            if !is_optional(self.network, spec) {
                problems.push(format!("{} is there and not here", spec.name));
            } else if spec.role == Role::Bias {
                let norm = format!("{}_bn.running_mean", self.network.layers[spec.layer].name);
                if let Some(mean) = table.statistics.iter().find(|spec| spec.name == norm) {
                    // The mean of Wx + b is that of Wx plus b.
                    let mean = &mut weights.statistics[mean.range.clone()];
                    mean.iter_mut().zip(values).for_each(|(mean, bias)| *mean -= bias);
                }
            }
            left_out.push(spec.name.clone());
        }
        match problems.is_empty() {
            true => Ok(Transferred { weights, n_taken, drawn, left_out }),
            false => Err(problems),
        }
    }

    /// All tensors with their values.
    fn tensors<'a>(
        &'a self,
        table: &'a ParameterTable,
    ) -> impl Iterator<Item = (&'a TensorSpec, &'a [f32])> {
        let trainable = table.trainable.iter();
        let trainable = trainable.map(|spec| (spec, &self.trainable[spec.range.clone()]));
        let statistics = table.statistics.iter();
        trainable.chain(statistics.map(|spec| (spec, &self.statistics[spec.range.clone()])))
    }
}

/// Copies the row of each class that has a place among `rows`.
fn copy_rows(rows: &[f32], to: &mut [f32], places: &[Option<usize>]) {
    let len = to.len() / places.len();
    for (row, place) in to.chunks_exact_mut(len).zip(places) {
        if let Some(place) = place {
            row.copy_from_slice(&rows[place * len..][..len]);
        }
    }
}

fn is_of_classifier(network: &Network, spec: &TensorSpec) -> bool {
    network.losses.iter().any(|loss| loss.logits == spec.layer)
}

/// Whether the rest of a network works without this tensor: it is an auxiliary head's, or batch norm
/// subtracts it.
fn is_optional(network: &Network, spec: &TensorSpec) -> bool {
    let is_auxiliary = !network.evaluated_layers()[spec.layer];
    let has_norm = network.options.batch_norm.is_some();
    is_auxiliary || spec.role == Role::Bias && has_norm && !is_of_classifier(network, spec)
}

fn other_shape(spec: &TensorSpec, own: &TensorSpec) -> String {
    format!("{} has the shape {:?} there and {:?} here", spec.name, own.shape, spec.shape)
}

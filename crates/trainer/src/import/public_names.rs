//! The names of the public BN-Inception in PyTorch
//! (<https://github.com/Cadene/pretrained-models.pytorch>, and yjxiong/tsn-pytorch, which it comes from), which
//! are also ours, and what a file with such names says of its network.

use std::collections::BTreeMap;

use bninception_engine::model::layer::Activation;
use bninception_engine::model::{
    BatchNormOptions, Kind, Network, NetworkOptions, ParameterTable, Weights,
};

use super::own_words::OwnNetwork;
use super::tensor::ForeignTensor;
use crate::run::transfer::Given;

/// What training programs put in front of all names: `DataParallel`, TSN, and models inside of others.
const PREFIXES: [&str; 3] = ["module.", "base_model.", "model."];

/// Names of the classifier: of the first public file, of programs that trained it further, and ours.
const CLASSIFIERS: [&str; 4] = ["last_linear", "fc", "new_fc", "classifier"];

/// Inputs of the classifier in both kinds of network.
const FEATURES: usize = 1024;

/// A network with its weights, as a file of another program has them.
#[derive(Clone, Debug)]
pub struct ImportedNetwork {
    /// The network, at the image size asked for.
    pub network: Network,
    /// Its weights and running statistics.
    pub weights: Weights,
    /// Tensors of the file that the network has no place for.
    pub left_out: Vec<String>,
}

/// What to make of a file's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// Rows and columns of the input.
    pub image_size: usize,
    /// Whether biases of convolutions are subtracted from the running means behind them, so that the network
    /// has none.
    pub fold_biases: bool,
    /// What the file says of its network beside its tensors.
    pub own: Option<OwnNetwork>,
}

impl ImportedNetwork {
    /// The network that these tensors make up.
    ///
    /// # Errors
    /// Tensors of another network, or some that are missing or have another shape.
    pub fn of(
        tensors: BTreeMap<String, ForeignTensor>,
        options: ImportOptions,
    ) -> Result<ImportedNetwork, String> {
        let mut tensors = renamed(tensors)?;
        let network = recognise(&tensors, options)?;
        let table = ParameterTable::new(&network);
        let mut weights = zeros(&table);
        let Weights { trainable, statistics } = &mut weights;
        let mut problems = Vec::new();
        let places = table.trainable.iter().map(|spec| (spec, true));
        let places = places.chain(table.statistics.iter().map(|spec| (spec, false)));
        for (spec, is_trainable) in places {
            let vector = if is_trainable { &mut *trainable } else { &mut *statistics };
            match tensors.remove(&spec.name) {
                None => problems.push(format!("{} is missing", spec.name)),
                Some(tensor) if !fits(&tensor.shape, &spec.shape) => problems.push(format!(
                    "{} has the shape {:?} in place of {:?}",
                    spec.name, tensor.shape, spec.shape
                )),
                Some(tensor) => match tensor.values.iter().position(|value| !value.is_finite()) {
                    Some(at) => problems.push(format!("{} is not finite at value {at}", spec.name)),
                    None => vector[spec.range.clone()].copy_from_slice(&tensor.values),
                },
            }
        }
        if let Some(first) = problems.first() {
            return Err(match problems.len() {
                1 => format!("its tensors do not make up the network: {first}"),
                n => format!("its tensors do not make up the network: {first}, and {} more", n - 1),
            });
        }
        let imported =
            ImportedNetwork { network, weights, left_out: tensors.into_keys().collect() };
        match options.fold_biases {
            true => imported.without_biases(),
            false => Ok(imported),
        }
    }

    /// The same with the biases of convolutions subtracted from the running means behind them.
    fn without_biases(self) -> Result<ImportedNetwork, String> {
        let ImportedNetwork { network, weights, left_out } = self;
        if network.options.conv_bias && network.options.batch_norm.is_none() {
            return Err("it has no batch norm that could take in its biases".to_owned());
        }
        let options = NetworkOptions { conv_bias: false, ..network.options.clone() };
        let without = Network::new(network.kind, options).map_err(|error| error.to_string())?;
        let given = Given {
            network: &network,
            trainable: &weights.trainable,
            statistics: &weights.statistics,
        };
        let places: Vec<Option<usize>> = (0..network.options.classes).map(Some).collect();
        let table = ParameterTable::new(&without);
        let taken = given.transfer(&without, &places, zeros(&table));
        let weights = taken.map_err(|problems| problems.join(", "))?.weights;
        Ok(ImportedNetwork { network: without, weights, left_out })
    }
}

/// Values of a table, all zero.
fn zeros(table: &ParameterTable) -> Weights {
    Weights {
        trainable: vec![0.0; table.n_trainable()],
        statistics: vec![0.0; table.n_statistics()],
    }
}

/// Whether a tensor has this shape, or one with extents of 1 in addition: the first public file has
/// batch norm's tensors as `[1, channels]`.
fn fits(found: &[usize], expected: &[usize]) -> bool {
    let long = |shape: &[usize]| -> Vec<usize> {
        shape.iter().copied().filter(|&extent| extent != 1).collect()
    };
    found == expected || expected.len() == 1 && long(found) == long(expected)
}

/// The tensors under our names. Counters of batches and prefixes go.
fn renamed(
    tensors: BTreeMap<String, ForeignTensor>,
) -> Result<BTreeMap<String, ForeignTensor>, String> {
    let mut found = BTreeMap::new();
    for (name, tensor) in tensors {
        if name.ends_with(".num_batches_tracked") {
            continue;
        }
        let mut own = name.as_str();
        while let Some(rest) = PREFIXES.iter().find_map(|prefix| own.strip_prefix(prefix)) {
            own = rest;
        }
        let own = match own.split_once('.') {
            Some((layer, part)) if CLASSIFIERS.contains(&layer) => format!("last_linear.{part}"),
            _ => own.to_owned(),
        };
        if found.insert(own.clone(), tensor).is_some() {
            return Err(format!("it has two tensors for {own}; one of them is {name}"));
        }
    }
    Ok(found)
}

/// The network that tensors belong to, by their names and shapes.
fn recognise(
    tensors: &BTreeMap<String, ForeignTensor>,
    ImportOptions { image_size, own, .. }: ImportOptions,
) -> Result<Network, String> {
    let rows = |name: &str| tensors.get(name).and_then(|tensor| tensor.shape.first().copied());
    if tensors.contains_key("inception3a.branch1.conv.weight") {
        return Err(
            "it is torchvision's GoogLeNet, whose network cannot be expressed here: its pool in front of \
             module 5a has windows of 2x2 where that of the paper has 3x3, and its 5x5 branches have 3x3 \
             filters"
                .to_owned(),
        );
    }
    if !tensors.contains_key("conv1_7x7_s2.weight") {
        let mut names: Vec<&str> = tensors.keys().take(3).map(String::as_str).collect();
        names.push("...");
        return Err(format!(
            "it has no tensor conv1_7x7_s2.weight, so it is not BN-Inception in its public naming; it has \
             {}",
            names.join(", ")
        ));
    }
    let classes = match tensors.get("last_linear.weight").map(|tensor| &tensor.shape[..]) {
        None => {
            return Err(format!(
                "it has no classifier; expected one of {}",
                CLASSIFIERS.join(", ")
            ));
        }
        // Other extents could stand for more classes than the file has values.
        Some(&[classes, FEATURES]) => classes,
        Some(shape) => {
            return Err(format!(
                "its classifier has the shape {shape:?}; expected [classes, {FEATURES}]"
            ));
        }
    };
    let kind = match tensors.contains_key("inception_3a_5x5.weight") {
        true => Kind::GoogLeNet,
        false => Kind::BnInception,
    };
    let has_norm = tensors.contains_key("conv1_7x7_s2_bn.weight");
    let options = NetworkOptions {
        classes,
        image_size,
        // As in Caffe, PyTorch and the public files.
        batch_norm: has_norm.then_some(BatchNormOptions { epsilon: 1e-5 }),
        lrn: own.map_or(kind == Kind::GoogLeNet && !has_norm, |own| own.lrn),
        activation: own.map_or(Activation::Relu, |own| own.activation),
        conv_bias: tensors.contains_key("conv1_7x7_s2.bias"),
        pool_proj_4c4d: match rows("inception_4c_pool_proj.weight") {
            Some(128) if kind == Kind::BnInception => 128,
            _ => 96,
        },
        ..NetworkOptions::default()
    };
    Network::new(kind, options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_may_have_extents_of_one_in_addition() {
        for (found, expected, fit) in [
            (&[64][..], &[64][..], true),
            (&[1, 64], &[64], true),
            (&[64, 1], &[64], true),
            (&[64, 3, 7, 7], &[64, 3, 7, 7], true),
            (&[64, 1, 3, 7, 7], &[64, 3, 7, 7], false),
            (&[65], &[64], false),
            (&[2, 32], &[64], false),
        ] {
            assert_eq!(fits(found, expected), fit, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn names_lose_what_training_programs_add() {
        let tensor = |values: &[f32]| ForeignTensor { shape: vec![1], values: values.to_vec() };
        let names = |names: &[&str]| -> BTreeMap<String, ForeignTensor> {
            names.iter().map(|name| ((*name).to_owned(), tensor(&[1.0]))).collect()
        };
        let found = renamed(names(&[
            "module.base_model.conv1_7x7_s2.weight",
            "conv1_7x7_s2_bn.num_batches_tracked",
            "module.new_fc.bias",
        ]));
        let found: Vec<String> = found.unwrap().into_keys().collect();
        assert_eq!(found, ["conv1_7x7_s2.weight", "last_linear.bias"]);
        let twice = renamed(names(&["fc.weight", "last_linear.weight"]));
        assert!(twice.unwrap_err().contains("two tensors for last_linear.weight"));
    }
}

//! What the last layer reads: the pooled features and the maps that they are means of.
#![allow(clippy::unwrap_used)] // an executor that refuses its input is a failed test

use bninception_engine::model::{Kind, Network, NetworkOptions, ParameterTable, Role};
use bninception_engine::{
    Dtype, EvaluationWeights, Executor, Fast, FastOptions, Features, Reference,
};

mod common;

use common::comparison::{Batch, CLASSES, error, fast, options, weights};

/// Logits follow from the features by their definition, features from the maps, and both from the network as
/// the reference runs it.
#[test]
fn features_are_those_of_the_reference() {
    let aux = Some(Default::default());
    let cases = [
        // More images than run at once.
        (Kind::BnInception, options(33), 37),
        (Kind::BnInception, NetworkOptions { aux, dropout: 0.4, ..options(64) }, 3),
        (Kind::GoogLeNet, options(47), 4),
    ];
    for (kind, options, n) in cases {
        let network = Network::new(kind, options).unwrap();
        let (weights, batch) = (weights(&network), Batch::new(&network, n));
        let table = ParameterTable::new(&network);
        let last = network.layers.len() - 1;
        let row = |role| &weights.trainable[table.trainable_of(last, role).unwrap().range.clone()];
        let (matrix, bias) = (row(Role::LinearWeight), row(Role::Bias));
        let channels = matrix.len() / CLASSES;
        let mut reference = Reference::in_f64(network.clone());
        let mut bf16 = Fast::new(
            network.clone(),
            FastOptions { threads: 2, dtype: Dtype::Bf16, ..FastOptions::default() },
        )
        .unwrap();
        let mut found = Vec::new();
        for executor in [&mut reference as &mut dyn Executor, &mut fast(&network, 2), &mut bf16] {
            executor.prepare_evaluation(EvaluationWeights::Given(&weights)).unwrap();
            let mut logits = Vec::new();
            let mut features = Features { maps: Some(vec![f32::NAN]), pooled: vec![f32::NAN] };
            executor.evaluate_features(batch.images(), &mut logits, &mut features).unwrap();
            let mut plain = Vec::new();
            executor.evaluate(batch.images(), &mut plain).unwrap();
            assert_eq!(logits, plain, "they change nothing");

            let Features { pooled, maps } = features;
            let maps = maps.unwrap();
            assert_eq!(pooled.len(), n * channels);
            let pixels = maps.len() / pooled.len();
            let means: Vec<f32> = maps
                .chunks_exact(pixels)
                .map(|map| (map.iter().map(|&v| f64::from(v)).sum::<f64>() / pixels as f64) as f32)
                .collect();
            assert!(error(&means, &pooled) < 1e-6, "{kind:?}: {}", error(&means, &pooled));
            let again: Vec<f32> = pooled
                .chunks_exact(channels)
                .flat_map(|x| {
                    matrix.chunks_exact(channels).zip(bias).map(move |(row, bias)| {
                        let products = row.iter().zip(x).map(|(w, x)| f64::from(w * x));
                        (f64::from(*bias) + products.sum::<f64>()) as f32
                    })
                })
                .collect();
            assert!(error(&again, &logits) < 1e-5, "{kind:?}: {}", error(&again, &logits));
            found.push((pooled, maps));
        }
        let [(pooled, maps), (fast_pooled, fast_maps), _] = &found[..] else { unreachable!() };
        assert!(error(fast_pooled, pooled) < 1e-5, "{kind:?}: {}", error(fast_pooled, pooled));
        assert!(error(fast_maps, maps) < 1e-5, "{kind:?}: {}", error(fast_maps, maps));
    }
}

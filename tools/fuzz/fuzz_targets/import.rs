//! A file of another program: it ends in tensors or in an error, in the memory that its size allows.
#![no_main]

use bninception::import::own_words;
use bninception::import::public_names::{ImportOptions, ImportedNetwork};
use bninception::import::tensors::ForeignTensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match ForeignTensors::parse(bytes) {
        Ok(found) => {
            for (name, tensor) in &found.tensors {
                let count: usize = tensor.shape.iter().product();
                assert_eq!(tensor.values.len(), count, "{name} {:?}", tensor.shape);
            }
            let _ = own_words::input(&found.metadata);
            let _ = own_words::classes(&found.metadata);
            let own = own_words::network(&found.metadata).unwrap_or_default();
            let options = ImportOptions { image_size: 32, fold_biases: true, own };
            // No network of ours has so few values that a fuzzer's input could hold them.
            let network = ImportedNetwork::of(found.tensors, options);
            let error = network.map(|found| found.network.layers.len()).unwrap_err();
            assert!(error.len() < 100_000, "{} bytes", error.len());
        }
        Err(error) => assert!(error.len() < 100_000, "{} bytes", error.len()),
    }
});

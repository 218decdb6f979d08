//! A file as a checkpoint: it ends in a checkpoint or in an error, in the memory that its size allows.
#![no_main]

use std::path::Path;

use bninception::run::checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match checkpoint::parse(bytes, Path::new("fuzz.safetensors")) {
        // No network of ours has so few values that a fuzzer's input could hold them.
        Ok(checkpoint) => panic!("accepted {} classes", checkpoint.metadata.classes.len()),
        Err(error) => assert!(error.to_string().len() < 10_000, "{error}"),
    }
});

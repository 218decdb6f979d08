//! A text as the metadata of a checkpoint: what is accepted can be written, read back equal, and
//! names no class that would lead out of a folder.
#![no_main]

use bninception::run::metadata::Metadata;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &str| {
    match Metadata::from_json(json) {
        Ok(metadata) => {
            for class in &metadata.classes {
                assert!(!class.contains(['/', '\\', '\n', '\0']) && class != "..", "{class:?}");
            }
            let again = serde_json::to_string(&metadata).expect("it was read from JSON");
            let again = Metadata::from_json(&again).expect("it was accepted before");
            // Numbers such as NaN cannot be in JSON, so equality is equality.
            assert_eq!(metadata, again);
        }
        Err(error) => assert!(error.len() < 10_000, "{error}"),
    }
});

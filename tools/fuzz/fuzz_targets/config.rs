//! A text as a config file and as a `--set`: what is accepted can be written as TOML and read back
//! equal.
#![no_main]

use bninception::config::{ConfigFile, Sources, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let name = "fuzz.toml".to_owned();
    let files = [ConfigFile { name: name.clone(), text: text.to_owned() }];
    let sets = [text.lines().next().unwrap_or_default().to_owned()];
    let outcomes = [
        resolve(&Sources { files: &files, ..Sources::default() }),
        resolve(&Sources { sets: &sets, ..Sources::default() }),
    ];
    for outcome in outcomes {
        match outcome {
            Ok(resolved) => {
                let text = resolved.config.to_toml().expect("a checked config is TOML");
                let files = [ConfigFile { name: name.clone(), text }];
                let again = resolve(&Sources { files: &files, ..Sources::default() });
                assert_eq!(again.expect("it was accepted before").config, resolved.config);
            }
            Err(error) => assert!(error.to_string().len() < 100_000, "{error}"),
        }
    }
});

//! What a file that this program exported says of its network, in its metadata.

use std::collections::{BTreeMap, HashSet};

use bninception_data::{Preprocessing, check_class_name};
use bninception_engine::model::layer::Activation;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::export::public_file::{CLASSES_KEY, INPUT_KEY, NETWORK_KEY};

/// What tensors do not tell of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnNetwork {
    /// The nonlinearity.
    pub activation: Activation,
    /// Whether it has local response normalisation.
    pub lrn: bool,
}

/// What images go through; `None` if another program wrote the file.
///
/// # Errors
/// Words that cannot be understood, or values that no network takes.
pub fn input(metadata: &BTreeMap<String, String>) -> Result<Option<Preprocessing>, String> {
    let help = "choose with --preprocessing and --image-size";
    let Some(mut found) = parsed::<Map<String, Value>>(metadata, INPUT_KEY, help)? else {
        return Ok(None);
    };
    // A sentence for people.
    found.shift_remove("colours");
    let broken =
        |error: &dyn std::fmt::Display| format!("its metadata `{INPUT_KEY}`: {error}; {help}");
    let input: Preprocessing =
        serde_json::from_value(Value::Object(found)).map_err(|error| broken(&error))?;
    input.validate().map_err(|error| broken(&error))?;
    Ok(Some(input))
}

/// The names of its classes; `None` if another program wrote the file.
///
/// # Errors
/// Words that cannot be understood, or names that are none.
pub fn classes(metadata: &BTreeMap<String, String>) -> Result<Option<Vec<String>>, String> {
    let help = "name the classes with --classes";
    let Some(classes) = parsed::<Vec<String>>(metadata, CLASSES_KEY, help)? else {
        return Ok(None);
    };
    let mut seen = HashSet::with_capacity(classes.len());
    for name in &classes {
        let short: String = name.chars().take(40).collect();
        if let Err(problem) = check_class_name(name) {
            return Err(format!(
                "its metadata `{CLASSES_KEY}` has {short:?}, which is not the name of a class: it {problem}; {help}"
            ));
        }
        if !seen.insert(name) {
            return Err(format!("its metadata `{CLASSES_KEY}` has `{short}` twice; {help}"));
        }
    }
    Ok(Some(classes))
}

/// What tensors do not tell; `None` if another program wrote the file.
///
/// # Errors
/// Words that cannot be understood.
pub fn network(metadata: &BTreeMap<String, String>) -> Result<Option<OwnNetwork>, String> {
    #[derive(Deserialize)]
    struct Words {
        activation: String,
        lrn: bool,
    }
    let found = parsed::<Words>(metadata, NETWORK_KEY, "export the checkpoint again")?;
    found
        .map(|Words { activation, lrn }| {
            let known = [Activation::Relu, Activation::Sigmoid];
            match known.into_iter().find(|known| known.name() == activation) {
                Some(activation) => Ok(OwnNetwork { activation, lrn }),
                None => Err(format!(
                    "its metadata `{NETWORK_KEY}` has another activation than relu and sigmoid"
                )),
            }
        })
        .transpose()
}

fn parsed<T: DeserializeOwned>(
    metadata: &BTreeMap<String, String>,
    key: &str,
    help: &str,
) -> Result<Option<T>, String> {
    let parsed = metadata.get(key).map(|text| serde_json::from_str(text)).transpose();
    parsed.map_err(|error| format!("its metadata `{key}` cannot be understood ({error}); {help}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(key: &str, text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), text.to_owned())])
    }

    #[test]
    fn words_that_lie_are_refused_with_a_way_round() {
        let input_of = |crop: &str| {
            let text = format!(
                "{{\"image_size\":64,\"crop_ratio\":{crop},\"mean\":[0,0,0],\"std\":[1,1,1],\
                 \"exif\":true,\"interpolation\":\"bilinear\",\"colours\":\"any\"}}"
            );
            input(&words(INPUT_KEY, &text))
        };
        assert_eq!(input_of("0.875").unwrap().unwrap().image_size, 64);
        for crop in ["0", "-1", "1e300", "\"a\"", "null"] {
            let error = input_of(crop).unwrap_err();
            assert!(error.contains("--preprocessing"), "{crop}: {error}");
        }
        for text in ["[\"a\",\"a\"]", "[\"\"]", "[\"../b\"]", "{}", "[1]", "["] {
            let error = classes(&words(CLASSES_KEY, text)).unwrap_err();
            assert!(error.contains("--classes"), "{text}: {error}");
        }
        assert!(network(&words(NETWORK_KEY, "{\"activation\":\"tanh\",\"lrn\":true}")).is_err());
        let nothing = BTreeMap::new();
        assert_eq!(
            (input(&nothing), classes(&nothing), network(&nothing)),
            (Ok(None), Ok(None), Ok(None))
        );
    }
}

//! Weights of classes in the loss: the setting, and what it says of given classes.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::presets::nearest;

/// How much the images of each class weigh in the training loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ClassWeights {
    /// All the same.
    #[default]
    None,
    /// So that all classes weigh the same in an epoch.
    Balanced,
    /// As given, by the names of the classes. Only their ratios matter.
    Table(BTreeMap<String, f64>),
}

/// What is accepted.
const EXPECTED: &str =
    "\"none\", \"balanced\", or a weight for every class, such as { ants = 3.0, bees = 1.0 }";

impl Serialize for ClassWeights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ClassWeights::None => serializer.serialize_str("none"),
            ClassWeights::Balanced => serializer.serialize_str("balanced"),
            ClassWeights::Table(weights) => weights.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClassWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ClassWeights, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ClassWeights;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ClassWeights, E> {
                match text {
                    "none" => Ok(ClassWeights::None),
                    "balanced" => Ok(ClassWeights::Balanced),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ClassWeights, A::Error> {
                let mut weights = BTreeMap::new();
                while let Some((class, weight)) = map.next_entry::<String, f64>()? {
                    weights.insert(class, weight);
                }
                Ok(ClassWeights::Table(weights))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl ClassWeights {
    /// The weight of each class, in the order of `classes`; `None` where all weigh the same. `shares` are the
    /// fractions of an epoch's images that the classes have.
    ///
    /// `balanced` gives all classes the same weight in an epoch. Where each image comes once this is
    /// scikit-learn's rule, images / (classes * images of the class)
    /// (<https://scikit-learn.org/stable/modules/generated/sklearn.utils.class_weight.compute_class_weight.html>);
    /// where rare classes come more often already, it makes up for the rest.
    ///
    /// All weights are divided by their mean over the images of an epoch. So the loss keeps its size, and
    /// with it the learning rate its meaning; a batch's loss can be divided by its number of images,
    /// which keeps micro-batches and ranks exact. PyTorch's `CrossEntropyLoss(weight)` divides by the sum of
    /// the weights in the batch instead, so that the same image counts for more in some batches.
    ///
    /// # Errors
    /// A class without a weight, or a weight of something that is no class.
    pub fn of_classes(
        &self,
        classes: &[String],
        shares: &[f64],
    ) -> Result<Option<Vec<f64>>, String> {
        let weights: Vec<f64> = match self {
            ClassWeights::None => return Ok(None),
            // No image will have the weight of a class without images.
            ClassWeights::Balanced => {
                shares.iter().map(|&share| if share > 0.0 { 1.0 / share } else { 1.0 }).collect()
            }
            ClassWeights::Table(table) => {
                if let Some(stranger) = table.keys().find(|name| !classes.contains(name)) {
                    let meant = nearest(stranger, classes.iter().map(String::as_str));
                    return Err(format!("there is no class `{stranger}`; did you mean `{meant}`?"));
                }
                let weight = |class: &String| {
                    table.get(class).copied().ok_or_else(|| {
                        format!("class `{class}` has no weight; every class needs one")
                    })
                };
                classes.iter().map(weight).collect::<Result<_, _>>()?
            }
        };
        let mean: f64 = weights.iter().zip(shares).map(|(weight, share)| weight * share).sum();
        Ok(Some(weights.iter().map(|weight| weight / mean).collect()))
    }

    /// What is wrong with the weights themselves, if anything is.
    pub(super) fn expected(&self) -> Option<&'static str> {
        let ClassWeights::Table(table) = self else { return None };
        let are_valid = table.values().all(|weight| *weight > 0.0 && weight.is_finite());
        match table.is_empty() {
            true => Some(EXPECTED),
            false if are_valid => None,
            false => Some("finite weights above 0; a class of weight 0 is a folder to leave out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn table(weights: &[(&str, f64)]) -> ClassWeights {
        ClassWeights::Table(weights.iter().map(|&(name, w)| (name.to_owned(), w)).collect())
    }

    #[test]
    fn weights_have_a_mean_of_one_over_the_images() {
        let natural = |counts: &[u64]| -> Vec<f64> {
            let n = counts.iter().sum::<u64>() as f64;
            counts.iter().map(|&count| count as f64 / n).collect()
        };
        let (ants, three) = (names(&["ants", "bees"]), names(&["a", "b", "c"]));
        let even = vec![0.5, 0.5];
        let rule = ClassWeights::Balanced;
        // (setting, classes, shares of an epoch, weights)
        let cases = [
            (rule.clone(), &ants, natural(&[5, 120]), vec![12.5, 125.0 / 240.0]),
            (rule.clone(), &ants, natural(&[7, 7]), vec![1.0, 1.0]),
            // The class without images weighs nothing in the mean: 4 images of 2 classes.
            (rule.clone(), &three, natural(&[1, 0, 3]), vec![2.0, 0.5, 2.0 / 3.0]),
            // What comes equally often already weighs the same; half way, the rest is made up for.
            (rule.clone(), &ants, even.clone(), vec![1.0, 1.0]),
            (rule, &ants, vec![0.25, 0.75], vec![2.0, 2.0 / 3.0]),
            (table(&[("ants", 3.0), ("bees", 1.0)]), &ants, even.clone(), vec![1.5, 0.5]),
            (table(&[("ants", 30.0), ("bees", 10.0)]), &ants, even, vec![1.5, 0.5]),
            (table(&[("ants", 2.0), ("bees", 1.0)]), &ants, natural(&[1, 3]), vec![1.6, 0.8]),
        ];
        for (setting, classes, shares, expected) in cases {
            let found = setting.of_classes(classes, &shares).unwrap().unwrap();
            let is_close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(is_close, "{setting:?} {shares:?}: {found:?} for {expected:?}");
            let mean: f64 = found.iter().zip(&shares).map(|(w, share)| w * share).sum();
            assert!((mean - 1.0).abs() < 1e-12, "{setting:?}");
        }
        assert_eq!(ClassWeights::None.of_classes(&ants, &[0.5, 0.5]), Ok(None));
    }

    #[test]
    fn names_must_be_those_of_the_classes() {
        let classes = names(&["Honey Bees", "ants"]);
        for (weights, message) in [
            (
                table(&[("ants", 1.0), ("Honey Bee", 1.0)]),
                "there is no class `Honey Bee`; did you mean `Honey Bees`?",
            ),
            (table(&[("ants", 1.0)]), "class `Honey Bees` has no weight; every class needs one"),
        ] {
            let error = weights.of_classes(&classes, &[0.5, 0.5]).unwrap_err();
            assert_eq!(error, message);
        }
    }

    #[test]
    fn a_weight_is_finite_and_above_zero() {
        for (weight, holds) in [
            (1e-9, true),
            (1e9, true),
            (0.0, false),
            (-1.0, false),
            (f64::NAN, false),
            (1.0 / 0.0, false),
        ] {
            assert_eq!(table(&[("a", weight)]).expected().is_none(), holds, "{weight}");
        }
        assert!(table(&[]).expected().is_some());
        assert!(ClassWeights::Balanced.expected().is_none());
    }
}

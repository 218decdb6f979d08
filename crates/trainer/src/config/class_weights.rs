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
    /// Inversely to the number of the class's training images.
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
    /// The weight of each class, in the order of `classes`; `None` where all weigh the same. `counts` are
    /// the training images of the classes, `shares` the fractions of an epoch's images that they have.
    ///
    /// `balanced` takes scikit-learn's rule, images / (classes * images of the class)
    /// (<https://scikit-learn.org/stable/modules/generated/sklearn.utils.class_weight.compute_class_weight.html>).
    /// All weights are then divided by their mean over the images of an epoch. So the loss keeps its size, and
    /// with it the learning rate its meaning; a batch's loss can be divided by its number of images,
    /// which keeps micro-batches and ranks exact. PyTorch's `CrossEntropyLoss(weight)` divides by the sum of
    /// the weights in the batch instead, so that the same image counts for more in some batches.
    ///
    /// # Errors
    /// A class without a weight, or a weight of something that is no class.
    pub fn of_classes(
        &self,
        classes: &[String],
        counts: &[u64],
        shares: &[f64],
    ) -> Result<Option<Vec<f64>>, String> {
        let weights: Vec<f64> = match self {
            ClassWeights::None => return Ok(None),
            ClassWeights::Balanced => {
                let n_images = counts.iter().sum::<u64>() as f64;
                let n_classes = counts.iter().filter(|&&count| count > 0).count() as f64;
                let rule = |&count: &u64| match count {
                    // No image will have this weight.
                    0 => 1.0,
                    count => n_images / (n_classes * count as f64),
                };
                counts.iter().map(rule).collect()
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
        // (setting, classes, counts, shares, weights)
        let cases = [
            (rule.clone(), &ants, vec![5, 120], natural(&[5, 120]), vec![12.5, 125.0 / 240.0]),
            (rule.clone(), &ants, vec![7, 7], natural(&[7, 7]), vec![1.0, 1.0]),
            // The class without images weighs nothing in the mean.
            (rule.clone(), &three, vec![1, 0, 3], natural(&[1, 0, 3]), vec![2.0, 1.0, 2.0 / 3.0]),
            (
                table(&[("ants", 3.0), ("bees", 1.0)]),
                &ants,
                vec![1, 1],
                even.clone(),
                vec![1.5, 0.5],
            ),
            (
                table(&[("ants", 30.0), ("bees", 10.0)]),
                &ants,
                vec![9, 1],
                even.clone(),
                vec![1.5, 0.5],
            ),
            (
                table(&[("ants", 2.0), ("bees", 1.0)]),
                &ants,
                vec![1, 3],
                natural(&[1, 3]),
                vec![1.6, 0.8],
            ),
            // Where an epoch shows classes equally often, the mean is that over what it shows.
            (rule, &ants, vec![1, 3], even, vec![1.5, 0.5]),
        ];
        for (setting, classes, counts, shares, expected) in cases {
            let found = setting.of_classes(classes, &counts, &shares).unwrap().unwrap();
            let is_close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(is_close, "{setting:?} {counts:?} {shares:?}: {found:?} for {expected:?}");
            let mean: f64 = found.iter().zip(&shares).map(|(w, share)| w * share).sum();
            assert!((mean - 1.0).abs() < 1e-12, "{setting:?}");
        }
        assert_eq!(ClassWeights::None.of_classes(&ants, &[1, 2], &[0.5, 0.5]), Ok(None));
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
            let error = weights.of_classes(&classes, &[1, 1], &[0.5, 0.5]).unwrap_err();
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

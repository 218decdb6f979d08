//! Which training images are mirrored, left to right.

use std::fmt;

use rand::{Rng, RngExt};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

use crate::random::{Purpose, ViewKey, sample_rng};

/// Which training images are mirrored, left to right. Read from a boolean too, as earlier settings have
/// it: true is `Random`, false `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mirror {
    /// None.
    None,
    /// Each with probability 1/2 in every epoch.
    Random,
    /// In the first epoch each with probability 1/2, and from then on by turns: in any two epochs that
    /// follow each other every image is seen both ways (Jordan 2024, <https://arxiv.org/abs/2404.00498>).
    Alternating,
}

impl Mirror {
    /// Whether the view of `key` is mirrored. `Random` alone takes a number from `rng`, the generator of
    /// that view.
    pub(crate) fn is_due<R: Rng>(self, key: &ViewKey, rng: &mut R) -> bool {
        match self {
            Mirror::None => false,
            Mirror::Random => rng.random(),
            Mirror::Alternating => {
                let first: bool = sample_rng(key.seed, 0, key.index, Purpose::Mirror).random();
                first != (key.epoch % 2 == 1)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Mirror {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mirror, D::Error> {
        struct NameOrBool;

        impl Visitor<'_> for NameOrBool {
            type Value = Mirror;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`none`, `random` or `alternating`")
            }

            fn visit_bool<E: Error>(self, mirror: bool) -> Result<Mirror, E> {
                Ok(if mirror { Mirror::Random } else { Mirror::None })
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Mirror, E> {
                match name {
                    "none" => Ok(Mirror::None),
                    "random" => Ok(Mirror::Random),
                    "alternating" => Ok(Mirror::Alternating),
                    _ => Err(E::unknown_variant(name, &["none", "random", "alternating"])),
                }
            }
        }

        deserializer.deserialize_any(NameOrBool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(mirror: Mirror, epoch: u64) -> Vec<bool> {
        let view = |index| {
            let key = ViewKey { seed: 7, epoch, index };
            mirror.is_due(&key, &mut sample_rng(7, epoch, index, Purpose::Augment))
        };
        (0..1000).map(view).collect()
    }

    #[test]
    fn by_turns_every_image_is_seen_both_ways() {
        let epochs: Vec<Vec<bool>> =
            (0..6).map(|epoch| views(Mirror::Alternating, epoch)).collect();
        for pair in epochs.windows(2) {
            assert!(pair[0].iter().zip(&pair[1]).all(|(first, next)| first != next));
        }
        assert_eq!(epochs[0], epochs[4]);
        for mirror in [Mirror::Alternating, Mirror::Random] {
            let n_mirrored = views(mirror, 0).iter().filter(|&&is_mirrored| is_mirrored).count();
            // Five standard deviations of 1,000 throws of a coin.
            assert!((421..=579).contains(&n_mirrored), "{mirror:?}: {n_mirrored}");
        }
        // At random a quarter of them would be seen mirrored twice.
        let [first, next] = [0, 1].map(|epoch| views(Mirror::Random, epoch));
        let twice = first.iter().zip(&next).filter(|(first, next)| **first && **next).count();
        assert!((180..=320).contains(&twice), "{twice}");
        assert!(views(Mirror::None, 0).iter().all(|is_mirrored| !is_mirrored));
    }

    #[test]
    fn settings_of_two_choices_are_read() {
        for (text, expected) in [
            ("true", Mirror::Random),
            ("false", Mirror::None),
            ("\"none\"", Mirror::None),
            ("\"random\"", Mirror::Random),
            ("\"alternating\"", Mirror::Alternating),
        ] {
            let mirror: Mirror = serde_json::from_str(text).unwrap();
            assert_eq!(mirror, expected, "{text}");
            let again = serde_json::to_string(&mirror).unwrap();
            assert_eq!(serde_json::from_str::<Mirror>(&again).unwrap(), mirror, "{again}");
        }
        for text in ["\"yes\"", "1", "null", "[true]"] {
            let message = serde_json::from_str::<Mirror>(text).unwrap_err().to_string();
            let names = message.contains("`none`, `random`") && message.contains("`alternating`");
            assert!(names, "{text}: {message}");
        }
    }
}

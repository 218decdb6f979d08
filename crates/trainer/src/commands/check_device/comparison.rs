//! How far two results lie apart, and how far they may.

use bninception_engine::gpu::check;
use serde_json::{Value, json};

/// Two results of the same thing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Comparison {
    /// What was computed.
    pub(super) name: String,
    /// The number format of products.
    pub(super) dtype: &'static str,
    /// Norm of the difference over the norm of what was expected.
    pub(super) error: f64,
    /// The largest error that is accepted.
    pub(super) limit: f64,
}

impl Comparison {
    /// That of a kernel or a convolution, which knows its own limit.
    pub(super) fn of_operation(found: check::Comparison, dtype: &'static str) -> Comparison {
        let check::Comparison { name, error, limit } = found;
        Comparison { name, dtype, error, limit }
    }

    /// Whether the error is small enough.
    pub(super) fn holds(&self) -> bool {
        self.error <= self.limit
    }

    pub(super) fn to_json(&self) -> Value {
        let Comparison { name, dtype, error, limit } = self;
        // JSON has no number for what is not finite.
        let error = error.is_finite().then_some(error);
        json!({ "name": name, "dtype": dtype, "error": error, "limit": limit, "holds": self.holds() })
    }
}

/// 0 if all bits are equal, else 1.
pub(super) fn differs(found: &[f32], expected: &[f32]) -> f64 {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    f64::from(u8::from(bits(found) != bits(expected)))
}

#[cfg(test)]
mod tests {
    use bninception_engine::gpu::check::error;

    use super::*;

    #[test]
    fn errors_are_relative_and_never_lost() {
        for (found, expected, size) in [
            (&[3.0, 4.0][..], &[3.0, 4.0][..], 0.0),
            (&[3.0, 4.5], &[3.0, 4.0], 0.1),
            (&[0.0], &[0.0], 0.0),
        ] {
            assert!((error(found, expected) - size).abs() < 1e-12);
        }
        let comparison =
            |error| Comparison { name: String::new(), dtype: "f32", error, limit: 0.1 };
        assert!(comparison(0.1).holds() && !comparison(0.11).holds());
        // What is not finite, or has another length, is no match.
        for found in [&[f32::NAN][..], &[f32::INFINITY], &[1.0, 1.0]] {
            assert!(!comparison(error(found, &[1.0])).holds(), "{found:?}");
        }
        assert!(!comparison(error(&[1.0], &[0.0])).holds());
        assert_eq!(comparison(f64::NAN).to_json()["error"], Value::Null);
        assert_eq!((differs(&[0.0], &[0.0]), differs(&[0.0], &[-0.0])), (0.0, 1.0));
    }
}

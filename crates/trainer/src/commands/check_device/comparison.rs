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

/// Norm of the difference over the norm of what is expected; not a number if a value is none.
pub(super) fn error(found: &[f32], expected: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    if found.len() != expected.len() {
        return f64::NAN;
    }
    let differences = &mut found.iter().zip(expected).map(|(&a, &b)| f64::from(a) - f64::from(b));
    let (apart, norm) =
        (squares(differences), squares(&mut expected.iter().map(|&value| f64::from(value))));
    match apart {
        0.0 => 0.0,
        _ => (apart / norm.max(f64::MIN_POSITIVE)).sqrt(),
    }
}

/// 0 if all bits are equal, else 1.
pub(super) fn differs(found: &[f32], expected: &[f32]) -> f64 {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    f64::from(u8::from(bits(found) != bits(expected)))
}

/// Values between -1 and 1 from a linear congruential generator (Knuth's MMIX constants).
pub(super) fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    (0..len).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
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

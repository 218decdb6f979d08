//! The number type in which an exported file stores weights.

use clap::ValueEnum;
use half::{bf16, f16};

/// Number type of the filters of convolutions and of the classifier's matrix. They are 99 % of the values;
/// the rest, some of which squares are near, stays in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Storage {
    /// IEEE 754 single precision, as trained.
    #[default]
    F32,
    /// IEEE 754 half precision: half the file, 11 bits of each number, up to 65504.
    F16,
    /// The upper half of single precision: half the file, 8 bits of each number.
    Bf16,
}

impl Storage {
    /// The values as little-endian bytes of this type, each rounded to the nearest.
    ///
    /// # Errors
    /// The place of a value that is beyond the type.
    pub fn bytes(self, values: &[f32]) -> Result<Vec<u8>, usize> {
        match self {
            Storage::F32 => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Storage::Bf16 => {
                halves(values, |value| bf16::from_f32(value).to_bits(), bf16::MAX.to_f32())
            }
            Storage::F16 => {
                halves(values, |value| f16::from_f32(value).to_bits(), f16::MAX.to_f32())
            }
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Storage::F32 => "f32",
            Storage::F16 => "f16",
            Storage::Bf16 => "bf16",
        }
    }
}

fn halves(values: &[f32], bits: fn(f32) -> u16, most: f32) -> Result<Vec<u8>, usize> {
    match values.iter().position(|value| value.abs() > most) {
        Some(at) => Err(at),
        None => Ok(values.iter().flat_map(|&value| bits(value).to_le_bytes()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_and_never_become_infinite() {
        let values = [1.0, -0.1, 3.0e-6, 65504.0];
        for (storage, width, worst) in
            [(Storage::F32, 4, 0.0), (Storage::F16, 2, 1.0 / 64.0), (Storage::Bf16, 2, 1.0 / 256.0)]
        {
            let bytes = storage.bytes(&values).unwrap();
            assert_eq!(bytes.len(), width * values.len(), "{storage:?}");
            let read = |chunk: &[u8]| match *chunk {
                [a, b] if storage == Storage::F16 => f16::from_le_bytes([a, b]).to_f32(),
                [a, b] => bf16::from_le_bytes([a, b]).to_f32(),
                [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                _ => unreachable!("two or four bytes"),
            };
            for (chunk, value) in bytes.chunks(width).zip(values) {
                let error = (read(chunk) - value).abs() / value.abs();
                assert!(error <= worst, "{storage:?}: {value} has the relative error {error}");
            }
        }
        assert_eq!(Storage::F16.bytes(&[0.0, 65536.0]), Err(1));
        assert!(Storage::Bf16.bytes(&[65536.0]).is_ok());
        assert_eq!(Storage::Bf16.bytes(&[f32::MAX]), Err(0));
    }
}

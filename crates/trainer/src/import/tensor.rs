//! A tensor of another program, and its numbers.

use half::{bf16, f16};

/// A tensor of another program.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignTensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Its values in the order of its indices.
    pub values: Vec<f32>,
}

/// How a number is stored; all are little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F32,
    F64,
    F16,
    Bf16,
    /// Of so many bytes; weights have none.
    Integer {
        bytes: usize,
    },
}

impl Number {
    /// Bytes of a number.
    pub(super) fn size(self) -> usize {
        match self {
            Number::F64 => 8,
            Number::F32 => 4,
            Number::F16 | Number::Bf16 => 2,
            Number::Integer { bytes } => bytes,
        }
    }

    /// The numbers in `bytes`.
    pub(super) fn values(self, bytes: &[u8]) -> Vec<f32> {
        let two = |at: &[u8]| [at[0], at[1]];
        let four = |at: &[u8]| [at[0], at[1], at[2], at[3]];
        let eight = |at: &[u8]| {
            let ([a, b, c, d], [e, f, g, h]) = (four(at), four(&at[4..]));
            [a, b, c, d, e, f, g, h]
        };
        let numbers = bytes.chunks_exact(self.size());
        match self {
            Number::F32 => numbers.map(|at| f32::from_le_bytes(four(at))).collect(),
            Number::F64 => numbers.map(|at| f64::from_le_bytes(eight(at)) as f32).collect(),
            Number::F16 => numbers.map(|at| f16::from_le_bytes(two(at)).to_f32()).collect(),
            Number::Bf16 => numbers.map(|at| bf16::from_le_bytes(two(at)).to_f32()).collect(),
            Number::Integer { .. } => Vec::new(),
        }
    }
}

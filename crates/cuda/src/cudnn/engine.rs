//! Engines: the algorithms that cuDNN offers for a graph, and what it says of them.

use std::ffi::c_int;
use std::fmt;

use crate::convolution::{Convolution, Precision};

/// What cuDNN says of an engine: `cudnnBackendNumericalNote_t` and `cudnnBackendBehaviorNote_t` of
/// `cudnn_graph_v9.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Multiplies on tensor cores: f32 in TF32, or in less where it converts its inputs.
    TensorCore,
    /// Converts its inputs to a shorter format.
    DownConvertInputs,
    /// Adds in a shorter format than f32.
    ReducedPrecisionReduction,
    /// By way of a Fourier transform.
    Fft,
    /// The order of its sums is not fixed.
    Nondeterministic,
    /// By way of Winograd's transform.
    Winograd,
    /// Keeps what is not a number as it is.
    StrictNanPropagation,
    /// Compiled when the plan is made.
    RuntimeCompilation,
    /// Needs cuBLASLt.
    CublasLt,
    /// Another one.
    Other(i32),
}

impl Note {
    pub(super) fn numerical(number: c_int) -> Note {
        match number {
            0 => Note::TensorCore,
            1 => Note::DownConvertInputs,
            2 => Note::ReducedPrecisionReduction,
            3 => Note::Fft,
            4 => Note::Nondeterministic,
            5..=8 => Note::Winograd,
            9 => Note::StrictNanPropagation,
            other => Note::Other(other),
        }
    }

    pub(super) fn behaviour(number: c_int) -> Note {
        match number {
            0 => Note::RuntimeCompilation,
            4 => Note::CublasLt,
            other => Note::Other(1000 + other),
        }
    }
}

/// An engine with its settings, for a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Its number among cuDNN's.
    pub index: i64,
    /// What cuDNN says of it.
    pub notes: Vec<Note>,
}

impl Engine {
    /// Why it must not compute this convolution, if so.
    pub(super) fn objection(&self, convolution: &Convolution) -> Option<&'static str> {
        let has = |note| self.notes.contains(&note);
        if convolution.deterministic && has(Note::Nondeterministic) {
            return Some("its sums have no fixed order");
        }
        if has(Note::ReducedPrecisionReduction) {
            return Some("it adds in less than f32");
        }
        match convolution.precision {
            Precision::F32 if has(Note::TensorCore) || has(Note::DownConvertInputs) => {
                Some("it rounds its inputs")
            }
            Precision::Tf32 if has(Note::DownConvertInputs) => {
                Some("it rounds its inputs to less than TF32")
            }
            _ => None,
        }
    }

    /// Whether it is compiled when its plan is made.
    pub(super) fn is_compiled(&self) -> bool {
        self.notes.contains(&Note::RuntimeCompilation)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine {}", self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convolution::Direction;

    fn engine(notes: &[Note]) -> Engine {
        Engine { index: 7, notes: notes.to_vec() }
    }

    fn convolution(precision: Precision, deterministic: bool) -> Convolution {
        Convolution {
            direction: Direction::Forward,
            precision,
            batch: 1,
            in_channels: 8,
            out_channels: 8,
            in_height: 4,
            in_width: 4,
            kernel: 1,
            stride: 1,
            pad: 0,
            accumulate: false,
            deterministic,
        }
    }

    #[test]
    fn f32_refuses_what_rounds_and_tf32_only_what_rounds_more() {
        let (f32, tf32) = (convolution(Precision::F32, false), convolution(Precision::Tf32, false));
        let on_tensor_cores = engine(&[Note::TensorCore]);
        assert!(on_tensor_cores.objection(&f32).is_some());
        assert!(on_tensor_cores.objection(&tf32).is_none());
        assert!(engine(&[Note::DownConvertInputs]).objection(&tf32).is_some());
        assert!(engine(&[Note::Winograd]).objection(&f32).is_none());
        assert!(on_tensor_cores.objection(&convolution(Precision::Bf16, false)).is_none());
    }

    #[test]
    fn sums_without_order_are_refused_where_bits_must_repeat() {
        let any_order = engine(&[Note::Nondeterministic]);
        assert!(any_order.objection(&convolution(Precision::Bf16, true)).is_some());
        assert!(any_order.objection(&convolution(Precision::Bf16, false)).is_none());
    }
}

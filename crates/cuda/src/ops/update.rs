//! Passes over whole vectors: the optimizer, averages, sums over micro-batches.
//!
//! The gate is two words of u32. While the first is not 0, [`sgd`], [`average`] and [`move_statistics`] leave
//! everything as it is. Whoever finds a number that is not finite sets the second, and [`settle`] sets the first if the second is
//! set. So what was started behind a step that fails changes nothing.

use super::arguments::{THREADS, apart, count, flag, floats, holds};
use crate::device::Device;
use crate::error::DeviceError;
use crate::launch::{Cost, Launch, Scalar};
use crate::memory::Region;

/// Bytes of a gate.
pub const GATE_BYTES: usize = 8;

/// Values of one piece of a vector that [`Sgd`] goes through: all of one tensor.
pub const PIECE: usize = super::arguments::PIECE;

/// A piece of a vector: u32 each, in device memory `[pieces][4]`: first value, values, number of the tensor, and 0.
pub const PIECE_WORDS: usize = 4;

/// One step of stochastic gradient descent, with `g = scale * gradient + decay * w`: `v <- momentum * v + g`, then
/// `w <- w - lr * v`, or with Nesterov's form `w <- w - lr * (g + momentum * v)`. A tensor whose rate is below 0 stays as
/// it is, its velocity too. A weight that is not finite behind it sets the gate's second word.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// The pieces ([`PIECE_WORDS`]).
    pub pieces: Region,
    /// Rate and decay of each tensor: `[tensors][2]`.
    pub rates: Region,
    /// `scale` (the factor that clips) and `momentum`: `[2]`.
    pub constants: Region,
    /// Nesterov's form.
    pub nesterov: bool,
    /// Gradients.
    pub gradients: Region,
    /// Velocity.
    pub velocity: Region,
    /// Weights.
    pub weights: Region,
    /// Weights in bf16, written too where they are wanted.
    pub rounded: Option<Region>,
    /// The gate.
    pub gate: Region,
}

/// Runs [`Sgd`].
pub fn sgd(device: &mut dyn Device, sgd: &Sgd) -> Result<(), DeviceError> {
    let Sgd { pieces, rates, constants, nesterov, gradients, velocity, weights, rounded, gate } =
        *sgd;
    let (n_pieces, tensors) = (pieces.bytes() / (4 * PIECE_WORDS), rates.bytes() / 8);
    let values = floats(weights, "weights");
    let lengths = [floats(gradients, "gradients"), floats(velocity, "velocity")];
    assert_eq!(lengths, [values; 2], "values of gradients and velocity for {values} weights");
    holds(pieces, PIECE_WORDS * n_pieces, 4, "pieces");
    holds(rates, 2 * tensors, 4, "rates");
    holds(constants, 2, 4, "constants");
    let mut written = vec![velocity, weights];
    if let Some(rounded) = rounded {
        assert_eq!(rounded.bytes(), 2 * values, "bytes of {values} rounded weights");
        holds(rounded, values, 2, "rounded weights");
        written.push(rounded);
    }
    check_gate(gate, &written);
    apart(&written, &[pieces, rates, constants, gradients]);
    let moved = if rounded.is_some() { 22 } else { 20 };
    // SAFETY: the kernel leaves a piece alone that is not inside the vectors, and reads and writes the values of the
    // others in all vectors, the rates of a tensor that there is, and the gate.
    unsafe {
        device.launch(&Launch {
            kernel: "sgd",
            blocks: n_pieces,
            threads: THREADS,
            regions: &[
                pieces,
                rates,
                constants,
                gradients,
                velocity,
                weights,
                rounded.unwrap_or(weights),
                gate,
            ],
            scalars: &[count(values), count(tensors), flag(nesterov), flag(rounded.is_some())],
            cost: Cost { bytes: moved * values, operations: 7 * values },
        })
    }
}

/// `average <- average + share * (values - average)` with one number `share`, while the gate is open.
pub fn average(
    device: &mut dyn Device,
    values: Region,
    share: Region,
    average: Region,
    gate: Region,
) -> Result<(), DeviceError> {
    let count = same_length(values, average);
    holds(share, 1, 4, "share");
    check_gate(gate, &[average]);
    apart(&[average], &[values, share]);
    // SAFETY: the kernel reads the gate, the share and both vectors, and writes the second.
    unsafe { vector(device, "average", &[values, share, average, gate], count, (12, 3)) }
}

/// Copies running statistics, while the gate is open; one that is not finite sets its second word.
pub fn move_statistics(
    device: &mut dyn Device,
    from: Region,
    to: Region,
    gate: Region,
) -> Result<(), DeviceError> {
    let count = same_length(from, to);
    check_gate(gate, &[from, to]);
    apart(&[to], &[from]);
    // SAFETY: the kernel reads the gate and the first vector, and writes the second and the gate.
    unsafe { vector(device, "move_statistics", &[from, to, gate], count, (8, 0)) }
}

/// Closes the gate for good if its second word is set.
pub fn settle(device: &mut dyn Device, gate: Region) -> Result<(), DeviceError> {
    check_gate(gate, &[]);
    // SAFETY: the kernel reads and writes the gate.
    unsafe {
        device.launch(&Launch {
            kernel: "settle",
            blocks: 1,
            threads: THREADS,
            regions: &[gate],
            scalars: &[],
            cost: Cost { bytes: GATE_BYTES, operations: 0 },
        })
    }
}

/// `sum <- sum + values`.
pub fn add(device: &mut dyn Device, values: Region, sum: Region) -> Result<(), DeviceError> {
    let count = same_length(values, sum);
    apart(&[sum], &[values]);
    // SAFETY: the kernel reads both vectors and writes the second.
    unsafe { vector(device, "add", &[values, sum], count, (12, 1)) }
}

/// `values <- values / divisor`.
pub fn divide(device: &mut dyn Device, values: Region, divisor: f32) -> Result<(), DeviceError> {
    let length = floats(values, "values");
    // SAFETY: the kernel reads and writes the vector.
    unsafe {
        device.launch(&Launch {
            kernel: "divide",
            blocks: length.div_ceil(PIECE),
            threads: THREADS,
            regions: &[values],
            scalars: &[count(length), Scalar::F32(divisor)],
            cost: Cost { bytes: 8 * length, operations: length },
        })
    }
}

/// Bytes of scratch of [`norm`].
pub fn norm_scratch_bytes(values: Region) -> usize {
    (values.bytes() / 4).div_ceil(PIECE) * 8
}

/// What [`norm`] reads and writes besides the values.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Largest norm, f64: 0 for no limit.
    pub limit: Region,
    /// The norm, f64.
    pub norm: Region,
    /// The factor that makes it no longer than the limit, f32: 1 where there is none, or the norm is not above it.
    pub scale: Region,
    /// A norm that is not finite sets its second word.
    pub gate: Region,
}

/// The Euclidean norm of `values`, summed in f64 in a fixed order. `scratch` is of [`norm_scratch_bytes`].
pub fn norm(
    device: &mut dyn Device,
    values: Region,
    to: &Norm,
    scratch: Region,
) -> Result<(), DeviceError> {
    let Norm { limit, norm, scale, gate } = *to;
    let length = floats(values, "values");
    let pieces = length.div_ceil(PIECE);
    holds(limit, 1, 8, "limit");
    holds(norm, 1, 8, "norm");
    holds(scale, 1, 4, "scale");
    holds(scratch, pieces, 8, "scratch");
    apart(&[norm, scale, scratch], &[values, limit]);
    check_gate(gate, &[norm, scale, scratch]);
    // SAFETY: the kernel reads the vector and writes a number of each piece.
    unsafe {
        vector(device, "squared_norm", &[values, scratch], length, (4, 2))?;
    }
    // SAFETY: the kernel reads these numbers and the limit, and writes three numbers.
    unsafe {
        device.launch(&Launch {
            kernel: "norm_merge",
            blocks: 1,
            threads: THREADS,
            regions: &[scratch, limit, norm, scale, gate],
            scalars: &[count(pieces)],
            cost: Cost { bytes: 8 * pieces, operations: pieces },
        })
    }
}

/// The length of two vectors of f32.
///
/// # Panics
/// They have not the same.
fn same_length(from: Region, to: Region) -> usize {
    let length = floats(from, "values");
    assert_eq!(floats(to, "values"), length, "values of two vectors");
    length
}

/// Panics unless `gate` is one and meets none of `written`.
fn check_gate(gate: Region, written: &[Region]) {
    holds(gate, GATE_BYTES / 4, 4, "gate");
    apart(&[gate], written);
}

/// Starts a kernel over vectors of one length; what it costs are bytes and operations for each value.
///
/// # Safety
/// As [`Device::launch`].
unsafe fn vector(
    device: &mut dyn Device,
    kernel: &'static str,
    regions: &[Region],
    length: usize,
    (bytes, operations): (usize, usize),
) -> Result<(), DeviceError> {
    // SAFETY: the caller vouches for it.
    unsafe {
        device.launch(&Launch {
            kernel,
            blocks: length.div_ceil(PIECE),
            threads: THREADS,
            regions,
            scalars: &[count(length)],
            cost: Cost { bytes: bytes * length, operations: operations * length },
        })
    }
}

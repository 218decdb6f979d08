//! What can go wrong on a device.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no such device, or a library for it is missing: what was looked for, where, and what to do.
    #[error("{0}")]
    Unavailable(String),
    /// A buffer does not fit.
    #[error("out of memory on {device}: {wanted} bytes are needed, {free} of {total} are free")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes that were asked for.
        wanted: usize,
        /// Bytes that are free.
        free: usize,
        /// Bytes that the device has.
        total: usize,
    },
    /// A call into the driver or a library failed.
    #[error("{call} failed: {reason}")]
    Call {
        /// The function.
        call: &'static str,
        /// The error's name and text, as the library tells them.
        reason: String,
    },
    /// The kernels could not be compiled.
    #[error("the kernels cannot be compiled for {architecture}: {log}")]
    Compile {
        /// For example `sm_90`.
        architecture: String,
        /// What the compiler says.
        log: String,
    },
    /// No algorithm for a convolution.
    #[error("no algorithm on {device} for the convolution {convolution}: {reason}")]
    NoPlan {
        /// The device's name.
        device: String,
        /// Sizes and direction.
        convolution: String,
        /// Why each candidate was refused.
        reason: String,
    },
}

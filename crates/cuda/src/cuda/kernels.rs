//! Compiled kernels on a device, and their arguments as they take them.

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};

use cudarc::driver::result::{self, module};
use cudarc::driver::sys::{CUdeviceptr, CUfunction, CUmodule, CUstream};

use super::driver::Checked;
use crate::error::DeviceError;
use crate::launch::Scalar;

/// The kernels of a device.
pub(super) struct Kernels {
    module: CUmodule,
    functions: BTreeMap<&'static str, CUfunction>,
}

// SAFETY: the driver lets any thread use them whose current context is theirs.
unsafe impl Send for Kernels {}

impl Kernels {
    /// Loads machine code for the current context's device, and finds its kernels.
    pub(super) fn load(code: &[u8], names: &[&'static str]) -> Result<Kernels, DeviceError> {
        // SAFETY: the code is NVRTC's, whole (its size is inside).
        let module = unsafe { module::load_data(code.as_ptr().cast()) }.of("cuModuleLoadData")?;
        let mut kernels = Kernels { module, functions: BTreeMap::new() };
        for name in names {
            let text = CString::new(*name).map_err(|error| DeviceError::Call {
                call: "cuModuleGetFunction",
                reason: error.to_string(),
            })?;
            // SAFETY: the module is loaded.
            let function = unsafe { module::get_function(module, text) };
            let function = function.of("cuModuleGetFunction").map_err(|error| match error {
                DeviceError::Call { call, reason } => {
                    DeviceError::Call { call, reason: format!("{name}: {reason}") }
                }
                other => other,
            })?;
            kernels.functions.insert(name, function);
        }
        Ok(kernels)
    }

    /// A kernel by its name.
    ///
    /// # Panics
    /// There is no such kernel.
    pub(super) fn function(&self, name: &str) -> CUfunction {
        match self.functions.get(name) {
            Some(function) => *function,
            None => panic!("there is no kernel {name}"),
        }
    }

    pub(super) fn unload(&mut self) {
        // SAFETY: nothing runs its kernels any more. An error has no remedy here.
        let _ = unsafe { module::unload(self.module) };
    }
}

/// Arguments of a kernel: one structure, addresses first, then words of four bytes, to a multiple of eight. It is an
/// array of words of eight bytes, so that it is aligned as the structure.
pub(super) fn pack(addresses: &[CUdeviceptr], scalars: &[Scalar]) -> Vec<u64> {
    let word = |scalar: &Scalar| match *scalar {
        Scalar::U32(value) => value,
        Scalar::F32(value) => value.to_bits(),
    };
    let pairs = scalars.chunks(2).map(|pair| {
        let [low, high] = [pair.first(), pair.get(1)].map(|scalar| scalar.map_or(0, word));
        // The first word lies at the lower address: NVIDIA's machines and their hosts are little-endian.
        u64::from(low) | u64::from(high) << 32
    });
    addresses.iter().copied().chain(pairs).collect()
}

/// Starts a kernel with packed arguments.
///
/// # Safety
/// The arguments are those of the kernel, and it stays inside the memory that they name.
pub(super) unsafe fn start(
    function: CUfunction,
    (blocks, threads): (u32, u32),
    arguments: &mut [u64],
    stream: CUstream,
) -> Result<(), DeviceError> {
    let structure: *mut c_void = arguments.as_mut_ptr().cast();
    // SAFETY: the kernel has one parameter, a structure, which the driver copies; the rest is the caller's.
    unsafe {
        result::launch_kernel(
            function,
            (blocks, 1, 1),
            (threads, 1, 1),
            0,
            stream,
            &mut [structure],
        )
    }
    .of("cuLaunchKernel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_lie_as_in_a_structure_of_c() {
        let packed = pack(&[0x10, 0x20], &[Scalar::U32(7), Scalar::F32(1.0), Scalar::U32(9)]);
        let bytes: Vec<u8> = packed.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut wanted = Vec::new();
        wanted.extend(0x10u64.to_le_bytes());
        wanted.extend(0x20u64.to_le_bytes());
        wanted.extend(7u32.to_le_bytes());
        wanted.extend(1.0f32.to_le_bytes());
        wanted.extend(9u32.to_le_bytes());
        wanted.extend([0; 4]);
        assert_eq!(bytes, wanted);
    }
}

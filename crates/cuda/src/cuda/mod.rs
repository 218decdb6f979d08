//! An NVIDIA GPU.
//!
//! ```text
//! driver:       the driver, its errors, the devices that it has
//! context:      a device's context and its two streams
//! buffers:      buffers in its memory, by their numbers
//! pinned:       memory of the host that it copies from and to
//! events:       moments of streams
//! kernels:      compiled kernels, and their arguments
//! graphs:       what was captured
//! notes:        what is noted of starts
//! convolutions: which engine of cuDNN computes each
//! fastest:      the engines' times
//! device:       the trait
//! ```
//!
//! The driver is called through cudarc (<https://docs.rs/cudarc>). cuDNN and NVRTC are called through the libraries that
//! [`crate::libraries`] has opened: cudarc would open others of the same name that the system finds before, and two
//! versions of cuDNN in one process do not work.

mod buffers;
mod context;
mod convolutions;
mod device;
mod driver;
mod events;
mod fastest;
mod graphs;
mod kernels;
mod notes;
mod pinned;
#[cfg(test)]
mod tests;

use cudarc::driver::result;

use crate::compile::{Cache, Nvrtc, compile};
use crate::cudnn::Cudnn;
use crate::device::Properties;
use crate::error::DeviceError;
use crate::libraries::{Libraries, LibraryName};
use crate::sources::{KERNELS, source};
use buffers::Buffers;
use context::Context;
use convolutions::Convolutions;
use driver::Checked;
pub use driver::devices;
use events::Events;
use graphs::Graphs;
use kernels::Kernels;
use notes::Notes;
use pinned::PinnedMemory;

/// A GPU. It may move to another thread; its memory is given back when it is dropped.
pub struct Cuda {
    properties: Properties,
    convolutions: Convolutions,
    notes: Notes,
    graphs: Graphs,
    kernels: Kernels,
    events: Events,
    pinned: PinnedMemory,
    buffers: Buffers,
    // Last: all others are of it.
    context: Context,
}

/// Kernels in CUDA C, with their names.
struct Program<'a> {
    source: &'a str,
    kernels: &'a [&'static str],
}

impl Cuda {
    /// Opens a device, by its place in the driver's order. What has to be compiled for it is looked for in `cache`.
    ///
    /// # Errors
    /// There is no such device, or a library is missing; the kernels do not compile; a failed call.
    pub fn open(ordinal: usize, libraries: &Libraries, cache: &Cache) -> Result<Cuda, DeviceError> {
        let program = Program { source: &source(), kernels: KERNELS };
        Cuda::open_with(ordinal, libraries, cache, &program)
    }

    /// The same with other kernels.
    ///
    /// # Errors
    /// There is no such device, or a library is missing; the kernels do not compile; a failed call.
    fn open_with(
        ordinal: usize,
        libraries: &Libraries,
        cache: &Cache,
        program: &Program<'_>,
    ) -> Result<Cuda, DeviceError> {
        driver::start(libraries)?;
        let count = result::device::get_count().of("cuDeviceGetCount")?;
        let number = i32::try_from(ordinal).ok().filter(|number| *number < count);
        let Some(number) = number else {
            return Err(DeviceError::Unavailable(format!(
                "there is no GPU {ordinal}: the driver has {count}, counted from 0"
            )));
        };
        let device = result::device::get(number).of("cuDeviceGet")?;
        let properties = driver::properties(device)?;
        // Both before anything is taken from the device: what is missing is told at once.
        let (nvrtc, cudnn) = (Nvrtc::open(libraries)?, Cudnn::open(libraries)?);
        let driver = libraries.need(LibraryName::Driver)?.version.as_deref();
        driver::check_version(driver, nvrtc.version())?;
        let code = compile(&nvrtc, cache, program.source, &properties.architecture)?;
        let context = Context::open(device)?;
        let kernels = Kernels::load(&code, program.kernels)?;
        // SAFETY: the stream is of the context, which is current and lives longer.
        let handle = unsafe { cudnn.handle(context.compute()) }?;
        let convolutions = Convolutions::new(handle, cudnn.version(), &properties, cache.clone());
        let notes = Notes::new(&context)?;
        Ok(Cuda {
            properties,
            convolutions,
            notes,
            graphs: Graphs::default(),
            kernels,
            events: Events::default(),
            pinned: PinnedMemory::default(),
            buffers: Buffers::default(),
            context,
        })
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Errors have no remedy here: a kernel may have broken the context.
        let _ = self.context.enter();
        let _ = self.context.wait_for_all();
        self.graphs.free_all();
        self.notes.free();
        self.events.free_all();
        self.pinned.free_all();
        self.buffers.free_all();
        self.kernels.unload();
    }
}

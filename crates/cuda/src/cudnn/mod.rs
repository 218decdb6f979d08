//! Convolutions by cuDNN's graph API: <https://docs.nvidia.com/deeplearning/cudnn/backend/latest/>.
//!
//! ```text
//! api:         its functions and numbers
//! descriptor:  an object of the graph API
//! operation:   a convolution as a graph of one operation
//! engine:      an algorithm, and what cuDNN says of it
//! plan:        the engines that fit a convolution, ready to run
//! ```

mod api;
mod descriptor;
mod engine;
mod operation;
mod plan;

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use api::{Functions, Kind, attribute};
use descriptor::Descriptor;
pub use engine::{Engine, Note};
pub(crate) use operation::{ALIGNMENT, is_widened};
use plan::Target;
pub(crate) use plan::{Plan, Plans};

use crate::convolution::Convolution;
use crate::error::DeviceError;
use crate::libraries::{Libraries, LibraryName};

/// cuDNN, opened, with what it needs.
#[derive(Clone)]
pub(crate) struct Cudnn {
    functions: Arc<Functions>,
}

impl Cudnn {
    /// Finds its functions.
    ///
    /// # Errors
    /// A library is missing, or cuDNN is not of version 9, or of another CUDA than cuBLASLt.
    pub(crate) fn open(libraries: &Libraries) -> Result<Cudnn, DeviceError> {
        // cuDNN ends the process where it does not find this one.
        let cublas = libraries.need(LibraryName::CublasLt)?;
        let found = libraries.need(LibraryName::Cudnn)?;
        let functions = Functions::of(found)?;
        let cudnn = Cudnn { functions: Arc::new(functions) };
        if cudnn.version() / 10_000 != 9 {
            return Err(DeviceError::Unavailable(format!(
                "{} is cuDNN {}, and version 9 is needed",
                found.path.display(),
                cudnn.version()
            )));
        }
        // SAFETY: it has no arguments.
        let cuda = unsafe { (cudnn.functions.cudart_version)() } / 1000;
        let of_cublas = cublas.version.as_deref().and_then(|version| version.split('.').next());
        if of_cublas.is_some_and(|major| major != cuda.to_string()) {
            return Err(DeviceError::Unavailable(format!(
                "{} is for CUDA {cuda}, and {} for another one: both must be of the same",
                found.path.display(),
                cublas.path.display()
            )));
        }
        Ok(cudnn)
    }

    /// For example 92801 for 9.28.1.
    pub(crate) fn version(&self) -> usize {
        // SAFETY: it has no arguments.
        unsafe { (self.functions.version)() }
    }

    /// A handle for the current context, whose work runs on `stream`.
    ///
    /// # Safety
    /// The stream is one of the current context, and lives longer.
    pub(crate) unsafe fn handle(&self, stream: *mut c_void) -> Result<Handle, DeviceError> {
        let mut raw = ptr::null_mut();
        // SAFETY: it writes one pointer.
        let status = unsafe { (self.functions.create)(&raw mut raw) };
        self.functions.check("cudnnCreate", status)?;
        let handle = Handle { functions: Arc::clone(&self.functions), raw };
        // SAFETY: the handle is new; the stream is the caller's.
        let status = unsafe { (self.functions.set_stream)(raw, stream) };
        self.functions.check("cudnnSetStream", status)?;
        Ok(handle)
    }
}

/// cuDNN on a device.
pub(crate) struct Handle {
    functions: Arc<Functions>,
    raw: *mut c_void,
}

// SAFETY: a handle may be used by any thread, one at a time.
unsafe impl Send for Handle {}

impl Handle {
    /// The first `most` plans of a convolution.
    ///
    /// # Errors
    /// A failed call.
    pub(crate) fn plans(
        &self,
        convolution: &Convolution,
        most: usize,
    ) -> Result<Plans, DeviceError> {
        plan::plans(&self.functions, &Target::Handle(self.raw), convolution, most)
    }

    /// Starts a plan.
    ///
    /// # Safety
    /// As [`Plan::run`], and the plan is of this handle.
    pub(crate) unsafe fn run(
        &self,
        plan: &Plan,
        operands: [u64; 3],
        workspace: u64,
    ) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { plan.run(&self.functions, self.raw, operands, workspace) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any more. An error has no remedy here.
        unsafe { (self.functions.destroy)(self.raw) };
    }
}

/// cuDNN for a device that is not there: it makes plans by a description, and runs none. For tests of what a version of
/// cuDNN can do on a device.
pub struct WithoutDevice {
    functions: Arc<Functions>,
    target: Target,
}

/// A plan without a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanInfo {
    /// The engine.
    pub engine: Engine,
    /// Bytes of scratch that it needs, without what [`crate::cuda`] adds.
    pub workspace: usize,
}

impl WithoutDevice {
    /// `description` is JSON with the fields of those in `crates/cuda/devices`.
    ///
    /// # Errors
    /// A library is missing, cuDNN is older than 9.11, or does not like the description.
    pub fn new(libraries: &Libraries, description: &str) -> Result<WithoutDevice, DeviceError> {
        let functions = Cudnn::open(libraries)?.functions;
        let device = Descriptor::new(&functions, Kind::DeviceDescription)?
            .text(attribute::DEVICE_JSON, description)?
            .finish()?;
        Ok(WithoutDevice { functions, target: Target::Description(device) })
    }

    /// The first `most` plans of a convolution, in the order in which cuDNN thinks that they are fast.
    ///
    /// # Errors
    /// A failed call, or none.
    pub fn plans(
        &self,
        convolution: &Convolution,
        most: usize,
    ) -> Result<Vec<PlanInfo>, DeviceError> {
        let Plans { plans, refused } =
            plan::plans(&self.functions, &self.target, convolution, most)?;
        if plans.is_empty() {
            return Err(DeviceError::NoPlan {
                device: "the described device".to_owned(),
                convolution: convolution.to_string(),
                reason: refused.join("; "),
            });
        }
        let info = |plan: Plan| PlanInfo { engine: plan.engine, workspace: plan.workspace };
        Ok(plans.into_iter().map(info).collect())
    }
}

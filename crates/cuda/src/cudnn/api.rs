//! cuDNN's functions, and the numbers of its graph API. All are from `cudnn_graph_v9.h` of cuDNN 9 and have been there
//! since 9.0, but the device descriptions, which are used where there is no device.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::error::DeviceError;
use crate::libraries::functions::functions;

functions! {
    /// The functions.
    Functions {
        version = "cudnnGetVersion": fn() -> usize;
        cudart_version = "cudnnGetCudartVersion": fn() -> usize;
        error_string = "cudnnGetErrorString": fn(c_int) -> *const c_char;
        last_error_string = "cudnnGetLastErrorString": fn(*mut c_char, usize) -> ();
        create = "cudnnCreate": fn(*mut *mut c_void) -> c_int;
        destroy = "cudnnDestroy": fn(*mut c_void) -> c_int;
        set_stream = "cudnnSetStream": fn(*mut c_void, *mut c_void) -> c_int;
        create_descriptor = "cudnnBackendCreateDescriptor": fn(c_int, *mut *mut c_void) -> c_int;
        destroy_descriptor = "cudnnBackendDestroyDescriptor": fn(*mut c_void) -> c_int;
        set_attribute = "cudnnBackendSetAttribute": fn(*mut c_void, c_int, c_int, i64, *const c_void) -> c_int;
        get_attribute = "cudnnBackendGetAttribute": fn(*mut c_void, c_int, c_int, i64, *mut i64, *mut c_void) -> c_int;
        finalize = "cudnnBackendFinalize": fn(*mut c_void) -> c_int;
        execute = "cudnnBackendExecute": fn(*mut c_void, *mut c_void, *mut c_void) -> c_int;
    }
}

impl Functions {
    /// An error unless `status` is success: its text, and what cuDNN says of the last failure.
    pub(super) fn check(&self, call: &'static str, status: c_int) -> Result<(), DeviceError> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: it returns a text that lives as long as the library, for any number.
        let name = unsafe { (self.error_string)(status) };
        let name = if name.is_null() {
            format!("status {status}")
        } else {
            // SAFETY: as above; it ends with 0.
            unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
        };
        let mut text: [c_char; 1024] = [0; 1024];
        // SAFETY: it writes at most 1024 bytes, the last of them 0.
        unsafe { (self.last_error_string)(text.as_mut_ptr(), text.len()) };
        // SAFETY: as above.
        let detail = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
        let detail = detail.trim();
        let reason = if detail.is_empty() { name } else { format!("{name}: {detail}") };
        Err(DeviceError::Call { call, reason })
    }
}

/// `cudnnBackendDescriptorType_t`.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(super) enum Kind {
    Convolution = 1,
    Engine = 2,
    EngineConfig = 3,
    Heuristics = 4,
    Plan = 5,
    Forward = 10,
    BackwardFilter = 11,
    BackwardData = 12,
    Graph = 15,
    VariantPack = 16,
    Tensor = 17,
    DeviceDescription = 38,
}

/// `cudnnBackendAttributeType_t`.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(super) enum Type {
    Handle = 0,
    Data = 1,
    Int64 = 3,
    Double = 5,
    Pointer = 6,
    ConvolutionMode = 7,
    HeuristicsMode = 8,
    NumericalNote = 11,
    Descriptor = 15,
    BehaviourNote = 19,
    Char = 24,
}

/// `cudnnBackendAttributeName_t`.
pub(super) mod attribute {
    use std::ffi::c_int;

    pub(in crate::cudnn) const CONVOLUTION_COMPUTE_TYPE: c_int = 100;
    pub(in crate::cudnn) const CONVOLUTION_MODE: c_int = 101;
    pub(in crate::cudnn) const CONVOLUTION_DILATIONS: c_int = 102;
    pub(in crate::cudnn) const CONVOLUTION_STRIDES: c_int = 103;
    pub(in crate::cudnn) const CONVOLUTION_POST_PADDINGS: c_int = 104;
    pub(in crate::cudnn) const CONVOLUTION_PRE_PADDINGS: c_int = 105;
    pub(in crate::cudnn) const CONVOLUTION_SPATIAL_DIMS: c_int = 106;
    pub(in crate::cudnn) const HEURISTICS_MODE: c_int = 200;
    pub(in crate::cudnn) const HEURISTICS_GRAPH: c_int = 201;
    pub(in crate::cudnn) const HEURISTICS_RESULTS: c_int = 202;
    pub(in crate::cudnn) const HEURISTICS_DEVICE: c_int = 204;
    pub(in crate::cudnn) const CONFIG_ENGINE: c_int = 300;
    pub(in crate::cudnn) const PLAN_HANDLE: c_int = 400;
    pub(in crate::cudnn) const PLAN_CONFIG: c_int = 401;
    pub(in crate::cudnn) const PLAN_WORKSPACE: c_int = 402;
    pub(in crate::cudnn) const PLAN_DEVICE: c_int = 407;
    /// Alpha, beta, the convolution, and three tensors, from the first number on, in the order of
    /// [`crate::cudnn::operation`].
    pub(in crate::cudnn) const FORWARD: [c_int; 6] = [700, 701, 702, 704, 703, 705];
    pub(in crate::cudnn) const BACKWARD_DATA: [c_int; 6] = [706, 707, 708, 710, 709, 711];
    pub(in crate::cudnn) const BACKWARD_FILTER: [c_int; 6] = [712, 713, 714, 716, 715, 717];
    pub(in crate::cudnn) const GRAPH_HANDLE: c_int = 800;
    pub(in crate::cudnn) const GRAPH_OPERATIONS: c_int = 801;
    pub(in crate::cudnn) const TENSOR_ALIGNMENT: c_int = 900;
    pub(in crate::cudnn) const TENSOR_DATA_TYPE: c_int = 901;
    pub(in crate::cudnn) const TENSOR_DIMENSIONS: c_int = 902;
    pub(in crate::cudnn) const TENSOR_STRIDES: c_int = 903;
    pub(in crate::cudnn) const TENSOR_ID: c_int = 906;
    pub(in crate::cudnn) const PACK_IDS: c_int = 1000;
    pub(in crate::cudnn) const PACK_POINTERS: c_int = 1001;
    pub(in crate::cudnn) const PACK_WORKSPACE: c_int = 1003;
    pub(in crate::cudnn) const ENGINE_INDEX: c_int = 1301;
    pub(in crate::cudnn) const ENGINE_NUMERICAL_NOTES: c_int = 1303;
    pub(in crate::cudnn) const ENGINE_BEHAVIOUR_NOTES: c_int = 1305;
    /// Since 9.8; for plans without a device since 9.11.
    pub(in crate::cudnn) const DEVICE_JSON: c_int = 2702;
}

/// `CUDNN_DATA_FLOAT`.
pub(super) const FLOAT: c_int = 0;
/// `CUDNN_DATA_BFLOAT16`.
pub(super) const BFLOAT16: c_int = 9;
/// `CUDNN_CROSS_CORRELATION`: filters are not turned.
pub(super) const CROSS_CORRELATION: c_int = 1;
/// `CUDNN_HEUR_MODE_FALLBACK`: engines that work for most sizes, unordered.
pub(super) const MODE_FALLBACK: c_int = 2;
/// `CUDNN_HEUR_MODE_A`: engines by the time that they should take.
pub(super) const MODE_A: c_int = 3;

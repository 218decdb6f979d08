//! NVIDIA's compiler as a library: <https://docs.nvidia.com/cuda/nvrtc/>. It needs neither a device nor a driver.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use crate::error::DeviceError;
use crate::libraries::functions::functions;
use crate::libraries::{Libraries, LibraryName};

/// The language of the kernels.
pub(super) const STANDARD: &str = "--std=c++17";

functions! {
    /// The functions, as `nvrtc.h` declares them.
    Functions {
        version = "nvrtcVersion": fn(*mut c_int, *mut c_int) -> c_int;
        error_string = "nvrtcGetErrorString": fn(c_int) -> *const c_char;
        create = "nvrtcCreateProgram": fn(*mut *mut c_void, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int;
        destroy = "nvrtcDestroyProgram": fn(*mut *mut c_void) -> c_int;
        compile = "nvrtcCompileProgram": fn(*mut c_void, c_int, *const *const c_char) -> c_int;
        log_size = "nvrtcGetProgramLogSize": fn(*mut c_void, *mut usize) -> c_int;
        log = "nvrtcGetProgramLog": fn(*mut c_void, *mut c_char) -> c_int;
        code_size = "nvrtcGetCUBINSize": fn(*mut c_void, *mut usize) -> c_int;
        code = "nvrtcGetCUBIN": fn(*mut c_void, *mut c_char) -> c_int;
    }
}

/// The compiler.
pub struct Nvrtc {
    functions: Functions,
    version: (i32, i32),
}

impl Nvrtc {
    /// Finds its functions.
    ///
    /// # Errors
    /// A library is missing, or too old.
    pub fn open(libraries: &Libraries) -> Result<Nvrtc, DeviceError> {
        libraries.need(LibraryName::NvrtcBuiltins)?;
        let functions = Functions::of(libraries.need(LibraryName::Nvrtc)?)?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: it writes two ints.
        let status = unsafe { (functions.version)(&raw mut major, &raw mut minor) };
        check(&functions, "nvrtcVersion", status)?;
        Ok(Nvrtc { functions, version: (major, minor) })
    }

    /// Its version, for example 13 and 0.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Compiles `source` to machine code for an architecture such as `sm_90`.
    ///
    /// # Errors
    /// The source is wrong, or the compiler does not know the architecture.
    pub fn compile(&self, source: &str, architecture: &str) -> Result<Vec<u8>, DeviceError> {
        let failed =
            |log: String| DeviceError::Compile { architecture: architecture.to_owned(), log };
        let text = |text: &str| CString::new(text).map_err(|error| failed(error.to_string()));
        let (source, name) = (text(source)?, text("kernels.cu")?);
        let options = [text(&format!("--gpu-architecture={architecture}"))?, text(STANDARD)?];
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program = Program { functions: self.functions, raw: ptr::null_mut() };
        // SAFETY: both texts end with 0 and are copied; there are no headers.
        let status = unsafe {
            (self.functions.create)(
                &raw mut program.raw,
                source.as_ptr(),
                name.as_ptr(),
                0,
                ptr::null(),
                ptr::null(),
            )
        };
        check(&self.functions, "nvrtcCreateProgram", status)?;
        // SAFETY: the program is NVRTC's; each option ends with 0.
        let status = unsafe {
            (self.functions.compile)(program.raw, options.len() as c_int, options.as_ptr())
        };
        if let Err(error) = check(&self.functions, "nvrtcCompileProgram", status) {
            let log = program.bytes(self.functions.log_size, self.functions.log)?;
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
            return Err(failed(if log.is_empty() { error.to_string() } else { log }));
        }
        program.bytes(self.functions.code_size, self.functions.code)
    }
}

fn check(functions: &Functions, call: &'static str, status: c_int) -> Result<(), DeviceError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: it returns a text that lives as long as the library, for any number.
    let text = unsafe { (functions.error_string)(status) };
    let reason = if text.is_null() {
        format!("status {status}")
    } else {
        // SAFETY: as above; it ends with 0.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    Err(DeviceError::Call { call, reason })
}

type Size = unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int;
type Bytes = unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_int;

/// One source that is compiled.
struct Program {
    functions: Functions,
    raw: *mut c_void,
}

impl Program {
    /// What one function tells the size of, and another one writes.
    fn bytes(&self, size: Size, write: Bytes) -> Result<Vec<u8>, DeviceError> {
        let mut count = 0;
        // SAFETY: the program is NVRTC's; it writes one number.
        let status = unsafe { size(self.raw, &raw mut count) };
        check(&self.functions, "nvrtcGet...Size", status)?;
        let mut bytes = vec![0u8; count];
        // SAFETY: it writes as many bytes as it said.
        let status = unsafe { write(self.raw, bytes.as_mut_ptr().cast()) };
        check(&self.functions, "nvrtcGet...", status)?;
        Ok(bytes)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: nothing uses it any more. An error has no remedy here.
            unsafe { (self.functions.destroy)(&raw mut self.raw) };
        }
    }
}

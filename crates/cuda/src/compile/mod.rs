//! Kernels' source to machine code of a device.
//!
//! ```text
//! nvrtc: NVIDIA's compiler as a library
//! cache: what was compiled before, in files
//! ```

mod cache;
mod nvrtc;

pub use cache::Cache;
pub(crate) use cache::key;
pub use nvrtc::Nvrtc;

use crate::error::DeviceError;

/// The machine code of `source` for an architecture such as `sm_90`: that of an earlier compilation, where `cache` has
/// it.
///
/// # Errors
/// It does not compile.
pub fn compile(
    nvrtc: &Nvrtc,
    cache: &Cache,
    source: &str,
    architecture: &str,
) -> Result<Vec<u8>, DeviceError> {
    let (major, minor) = nvrtc.version();
    let key = key(&[source, architecture, &format!("{major}.{minor}"), nvrtc::STANDARD]);
    let name = format!("kernels-{architecture}-{key}.cubin");
    if let Some(code) = cache.read(&name) {
        return Ok(code);
    }
    let code = nvrtc.compile(source, architecture)?;
    cache.write(&name, &code);
    Ok(code)
}

//! The machine that this process runs on, by the files in which Linux tells of it.

pub mod control_group;
pub mod memory;
pub mod processor;

use std::fs;
use std::path::Path;

/// A file of the system, whatever bytes are in it.
fn read(path: &Path) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The name of the machine.
pub fn host_name() -> String {
    let name = read(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    match name.trim() {
        "" => "this machine".to_owned(),
        name => name.to_owned(),
    }
}

//! The machine that this process runs on, by the files in which Linux tells of it.

pub mod allotment;
pub mod card;
pub mod control_group;
pub mod gpu;
pub mod processor;

use std::fs;
use std::path::Path;

/// A file of the system. Names of groups and mounts in it may be any bytes.
pub(crate) fn read(path: &Path) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What tells this machine from others: Linux draws a number at each start.
pub fn boot_id() -> String {
    read(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default().trim().to_owned()
}

/// The name of the machine.
pub fn host_name() -> String {
    let name = read(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    match name.trim() {
        "" => "this machine".to_owned(),
        name => name.to_owned(),
    }
}

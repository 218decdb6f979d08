//! The memory of the machine.

use std::path::Path;

use super::read;

/// Bytes of memory that the machine has, where the system tells.
pub fn total_bytes() -> Option<u64> {
    let meminfo = read(Path::new("/proc/meminfo"))?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

//! How much memory this process may still take, and what limits it: the machine, a control group, or
//! a limit of the process itself.
//!
//! All of it is read from files, so that the tests make machines of their own out of folders. What the
//! files mean: <https://docs.kernel.org/filesystems/proc.html>,
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html> and
//! <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>.

use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::thread::available_parallelism;

use crate::machine::allotment::Allotment;
use crate::machine::read;

/// What glibc takes of the address space for the small pieces of a thread (`HEAP_MAX_SIZE` in its
/// malloc/arena.c). What a thread gives back of them stays with it.
const ARENA: u64 = 64 << 20;

/// Arenas that a run has beside one for each core. Measured with `smoke` on 2 cores, whose needs are
/// 422 MB: it ended for want of memory with 740 MB left under a limit on address space or 600 MB under
/// one on private memory, and ran with 950 MB and 700 MB; 5 arenas make that 757 MB.
const OTHER_ARENAS: u64 = 3;

/// Memory that can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeMemory {
    /// Bytes.
    pub bytes: u64,
    /// Why there are no more.
    pub limit: Limit,
}

/// What limits the memory of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// What the machine has without swapping.
    Machine,
    /// What the machine promises, where it promises no more than it has
    /// (`vm.overcommit_memory = 2`).
    Promises,
    /// A control group, by the file that holds its limit.
    Group(PathBuf),
    /// The address space of the process (`ulimit -v`).
    AddressSpace,
    /// The private memory of the process (`ulimit -d`).
    Data,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Limit::Machine => f.write_str("on this machine"),
            Limit::Promises => {
                f.write_str("of what this machine promises (vm.overcommit_memory = 2)")
            }
            Limit::Group(file) => write!(f, "in its control group (limited by {})", file.display()),
            Limit::AddressSpace => f.write_str("under the limit on address space (ulimit -v)"),
            Limit::Data => f.write_str("under the limit on private memory (ulimit -d)"),
        }
    }
}

/// Bytes of memory that the machine has, where the system tells.
pub fn total_memory() -> Option<u64> {
    kilobytes(&read(Path::new("/proc/meminfo"))?, "MemTotal:")
}

/// The memory that this process can still have, its part of what is free where others of its run take as much.
/// `None` where the system does not say.
pub fn free_memory() -> Option<FreeMemory> {
    let cores = available_parallelism().map_or(1, |cores| cores.get() as u64);
    let free = least(Path::new("/"), (cores + OTHER_ARENAS) * ARENA)?;
    let Allotment { processes, .. } = Allotment::of_process();
    Some(FreeMemory { bytes: free.bytes / processes.max(1) as u64, ..free })
}

/// The most memory that this process has held, where the system tells (Linux).
pub fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// The least that any limit leaves, on the machine whose files lie below `root`. Of the process's own
/// limits, `reserved` bytes are not to be had.
fn least(root: &Path, reserved: u64) -> Option<FreeMemory> {
    let mut all = of_machine(root);
    all.extend(of_groups(root));
    all.extend(of_process(root, reserved));
    all.into_iter().min_by_key(|free| free.bytes)
}

fn of_machine(root: &Path) -> Vec<FreeMemory> {
    let Some(meminfo) = read(&root.join("proc/meminfo")) else { return Vec::new() };
    let machine = kilobytes(&meminfo, "MemAvailable:")
        .map(|bytes| FreeMemory { bytes, limit: Limit::Machine });
    let is_strict = number(&root.join("proc/sys/vm/overcommit_memory")) == Some(2);
    let promised = kilobytes(&meminfo, "CommitLimit:").zip(kilobytes(&meminfo, "Committed_AS:"));
    let promises = promised
        .filter(|_| is_strict)
        .map(|(most, now)| FreeMemory { bytes: most.saturating_sub(now), limit: Limit::Promises });
    machine.into_iter().chain(promises).collect()
}

/// The limits that a process has for itself.
fn of_process(root: &Path, reserved: u64) -> Vec<FreeMemory> {
    let files = (read(&root.join("proc/self/limits")), read(&root.join("proc/self/status")));
    let (Some(limits), Some(status)) = files else { return Vec::new() };
    let left = |name: &str, used: &str, limit: Limit| -> Option<FreeMemory> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        // Where there is none it says `unlimited`, which is no number.
        let most: u64 = line.split_whitespace().next()?.parse().ok()?;
        let now = kilobytes(&status, used)?;
        Some(FreeMemory { bytes: most.saturating_sub(now).saturating_sub(reserved), limit })
    };
    let space = left("Max address space ", "VmSize:", Limit::AddressSpace);
    let data = left("Max data size ", "VmData:", Limit::Data);
    space.into_iter().chain(data).collect()
}

/// The two kinds of control groups; a machine may have both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GroupVersion {
    V1,
    V2,
}

/// Where control groups are mounted.
struct Mount {
    version: GroupVersion,
    /// The group that is seen at `point`.
    group: PathBuf,
    point: PathBuf,
}

/// What the groups of this process leave: its own and all above it, as far as they are to be seen.
fn of_groups(root: &Path) -> Vec<FreeMemory> {
    let files = (read(&root.join("proc/self/cgroup")), read(&root.join("proc/self/mountinfo")));
    let (Some(groups), Some(mounts)) = files else { return Vec::new() };
    let mut free = Vec::new();
    for mount in mounts.lines().filter_map(mount_of) {
        let own = groups.lines().find_map(|line| group_of(line, mount.version));
        let Some(below) = own.and_then(|own| path_below(&mount.group, Path::new(own))) else {
            continue;
        };
        let mut folder = Some(below.as_path());
        while let Some(path) = folder {
            let path_seen = mount.point.join(path);
            free.extend(of_group(root, &path_seen, mount.version));
            folder = path.parent();
        }
    }
    free
}

/// A line of `/proc/self/mountinfo`, if it mounts groups that can limit memory
/// (<https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html>).
fn mount_of(line: &str) -> Option<Mount> {
    let (mount, system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (group, point) = (unescaped(mount.next()?), unescaped(mount.next()?));
    let mut system = system.split(' ');
    let (kind, options) = (system.next()?, system.nth(1)?);
    let version = match kind {
        "cgroup2" => GroupVersion::V2,
        "cgroup" if options.split(',').any(|option| option == "memory") => GroupVersion::V1,
        _ => return None,
    };
    Some(Mount { version, group: group.into(), point: point.into() })
}

/// A path of mountinfo, in which space, tab, line feed and backslash are octal numbers.
fn unescaped(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The group in a line of `/proc/self/cgroup` such as `4:cpu,memory:/user` (version 1) or `0::/user`
/// (<https://man7.org/linux/man-pages/man7/cgroups.7.html>).
fn group_of(line: &str, version: GroupVersion) -> Option<&str> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
    let is_it = match version {
        GroupVersion::V1 => controllers.split(',').any(|name| name == "memory"),
        GroupVersion::V2 => number == "0" && controllers.is_empty(),
    };
    is_it.then_some(group)
}

/// The way from the group that a mount shows down to the group `own`, both as this process sees them.
fn path_below(shown: &Path, own: &Path) -> Option<PathBuf> {
    let climbs = |path: &Path| path.components().any(|part| part == Component::ParentDir);
    match (climbs(shown), climbs(own)) {
        (false, false) => own.strip_prefix(shown).map(Path::to_owned).ok(),
        // The mount shows a group above all that this process can name: `/..`. Its limit counts.
        (true, false) => Some(PathBuf::new()),
        // The process is outside its own name space, and cannot say where.
        (_, true) => None,
    }
}

/// What one group leaves, by each of its limits.
fn of_group(root: &Path, folder: &Path, version: GroupVersion) -> Vec<FreeMemory> {
    let file = |name: &str| root.join(folder.strip_prefix("/").unwrap_or(folder)).join(name);
    let stat = read(&file("memory.stat")).unwrap_or_default();
    let bytes = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse::<u64>().ok())
    };
    // More than `high` does not end a process, but the system then holds it up until it gives memory
    // back, and a training run has none to give.
    let (limits, now, given_back): (&[&str], &str, &[&str]) = match version {
        GroupVersion::V1 => (
            &["memory.limit_in_bytes"],
            "memory.usage_in_bytes",
            &["total_inactive_file", "total_active_file"],
        ),
        GroupVersion::V2 => (
            &["memory.max", "memory.high"],
            "memory.current",
            &["inactive_file", "active_file", "slab_reclaimable"],
        ),
    };
    let Some(now) = number(&file(now)) else { return Vec::new() };
    // Pages of files that were read count as used, and the system drops them for whoever needs room.
    let given_back: u64 = given_back.iter().filter_map(|&name| bytes(name)).sum();
    let used = now.saturating_sub(given_back);
    let by_limit = limits.iter().filter_map(|&name| {
        // A group of version 2 without a limit says `max`, which is no number.
        let most = number(&file(name))?;
        // Groups above may be out of sight, as in a container.
        let most = most.min(bytes("hierarchical_memory_limit").unwrap_or(u64::MAX));
        let limit = Limit::Group(folder.join(name));
        Some(FreeMemory { bytes: most.saturating_sub(used), limit })
    });
    by_limit.collect()
}

fn number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// The bytes of a line such as `MemAvailable:   2048 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests;

//! What control groups let this process have, at the places where systems mount them.
//!
//! What the files mean: <https://docs.kernel.org/admin-guide/cgroup-v2.html>,
//! <https://docs.kernel.org/scheduler/sched-bwc.html> and
//! <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>.

use std::path::Path;

use super::read;

/// Version 1 says "no limit" with the largest multiple of a page; anything in that region is none.
const NO_LIMIT: u64 = 1 << 60;

/// The least that any group of the process allows; nothing where none limits it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupLimits {
    /// Cores' worth of time.
    pub cores: Option<f64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
}

impl GroupLimits {
    /// Those of this process.
    pub fn of_process() -> GroupLimits {
        GroupLimits::below(Path::new("/"))
    }

    /// Those on the machine whose files lie below `root`.
    fn below(root: &Path) -> GroupLimits {
        let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
        let mut all = Vec::new();
        for line in groups.lines() {
            // `0::/user` (version 2), `4:memory:/user` (version 1).
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
            let mount = root.join("sys/fs/cgroup").join(controllers);
            // A container may be shown its own group at the top.
            for group in Path::new(group.trim_start_matches('/')).ancestors() {
                all.push(of_group(&mount.join(group)));
            }
        }
        let cores = all.iter().filter_map(|limits| limits.cores);
        GroupLimits {
            cores: cores.min_by(f64::total_cmp),
            memory_bytes: all.iter().filter_map(|limits| limits.memory_bytes).min(),
        }
    }
}

/// The limits in the folder of a group, of either version.
fn of_group(folder: &Path) -> GroupLimits {
    let text = |name: &str| read(&folder.join(name));
    let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
    // `max 100000` or `150000 100000`: time in each period, and the period.
    let of_v2 = text("cpu.max").and_then(|text| {
        let (quota, period) = text.trim().split_once(' ')?;
        Some((quota.parse().ok()?, period.parse().ok()?))
    });
    // A quota of -1, which is none, is no number here.
    let of_v1 = || number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us"));
    let time = of_v2.or_else(of_v1).filter(|&(_, period)| period > 0);
    let memory = number("memory.max").or_else(|| number("memory.limit_in_bytes"));
    GroupLimits {
        cores: time.map(|(quota, period)| quota as f64 / period as f64),
        memory_bytes: memory.filter(|&bytes| bytes < NO_LIMIT),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn limits(files: &[(&str, &str)]) -> GroupLimits {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        GroupLimits::below(root.path())
    }

    #[test]
    fn the_least_limit_counts() {
        assert_eq!(limits(&[]), GroupLimits::default());
        let v2 = limits(&[
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/outer/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "4096\n"),
        ]);
        assert_eq!(v2, GroupLimits { cores: Some(1.5), memory_bytes: Some(4096) });
        let v1 = limits(&[
            ("proc/self/cgroup", "3:cpu,cpuacct:/a\n2:memory:/a\n1:name=systemd:/\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "8192\n"),
        ]);
        assert_eq!(v1, GroupLimits { cores: Some(0.5), memory_bytes: Some(8192) });
    }

    #[test]
    fn a_container_sees_its_group_at_the_top() {
        let own =
            limits(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "200000 100000\n")]);
        assert_eq!(own.cores, Some(2.0));
    }
}

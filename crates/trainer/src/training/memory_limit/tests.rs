use super::*;

const GB: u64 = 1 << 30;

/// Of the limits of the process.
const RESERVED: u64 = GB / 4;

/// A machine with 64 GiB free, made of files.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(files: &[(&str, &str)]) -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        machine.write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   67108864 kB\n");
        files.iter().for_each(|(path, text)| machine.write(path, text));
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[track_caller]
    fn assert(&self, bytes: u64, limit: &Limit) {
        let free = FreeMemory { bytes, limit: limit.clone() };
        assert_eq!(least(self.0.path(), RESERVED), Some(free));
    }
}

fn group(file: &str) -> Limit {
    Limit::Group(PathBuf::from(file))
}

/// Mounts of version 2, of version 1, and of both as systemd makes them; other lines as they come.
const V2: &str = "22 28 0:21 / /proc rw,nosuid shared:13 - proc proc rw
30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
";
const V1: &str =
    "33 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct
34 32 0:30 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory
";
const HYBRID: &str = "33 32 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 32 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

#[test]
fn without_any_limit_it_is_the_machines() {
    Machine::new(&[]).assert(64 * GB, &Limit::Machine);
    let unlimited = [
        ("proc/self/mountinfo", V2),
        ("proc/self/cgroup", "0::/user.slice\n"),
        ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
        ("sys/fs/cgroup/user.slice/memory.high", "max\n"),
        ("sys/fs/cgroup/user.slice/memory.current", "1000\n"),
        ("proc/self/limits", "Max address space         unlimited            unlimited   bytes\n"),
        ("proc/self/status", "VmSize:\t 10 kB\n"),
    ];
    Machine::new(&unlimited).assert(64 * GB, &Limit::Machine);
    let unlimited = [
        ("proc/self/mountinfo", V1),
        ("proc/self/cgroup", "4:memory:/job\n3:cpu,cpuacct:/other\n"),
        ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1000\n"),
    ];
    Machine::new(&unlimited).assert(64 * GB, &Limit::Machine);
    // A machine that promises no more than it has.
    let meminfo = "MemAvailable: 67108864 kB\nCommitLimit: 1024 kB\nCommitted_AS: 1000 kB\n";
    let machine = Machine::new(&[("proc/meminfo", meminfo)]);
    machine.assert(64 * GB, &Limit::Machine);
    machine.write("proc/sys/vm/overcommit_memory", "2\n");
    machine.assert(24 << 10, &Limit::Promises);
}

#[test]
fn groups_of_version_2_count_with_all_above_them() {
    let machine = Machine::new(&[
        ("proc/self/mountinfo", V2),
        ("proc/self/cgroup", "0::/slurm/job 7/task\n"),
        // The root has no limit and no such files.
        ("sys/fs/cgroup/slurm/memory.max", "max\n"),
        ("sys/fs/cgroup/slurm/memory.current", "9000000000\n"),
        ("sys/fs/cgroup/slurm/job 7/memory.max", "4294967296\n"),
        ("sys/fs/cgroup/slurm/job 7/memory.current", "1073741824\n"),
        ("sys/fs/cgroup/slurm/job 7/task/memory.max", "8589934592\n"),
        ("sys/fs/cgroup/slurm/job 7/task/memory.current", "1024\n"),
    ]);
    let job = "/sys/fs/cgroup/slurm/job 7";
    machine.assert(3 * GB, &group(&format!("{job}/memory.max")));
    // What was read from files is dropped when room is needed.
    let stat =
        "anon 5\ninactive_file 536870912\nactive_file 268435456\nslab_reclaimable 268435456\n";
    machine.write("sys/fs/cgroup/slurm/job 7/memory.stat", stat);
    machine.assert(4 * GB, &group(&format!("{job}/memory.max")));
    // The group's own limit, and the one at which it is held up.
    machine.write("sys/fs/cgroup/slurm/job 7/task/memory.max", "2147484672\n");
    machine.assert(2 * GB, &group(&format!("{job}/task/memory.max")));
    machine.write("sys/fs/cgroup/slurm/job 7/task/memory.high", "1073742848\n");
    machine.assert(GB, &group(&format!("{job}/task/memory.high")));
    // More in use than is allowed: the limit was lowered.
    machine.write("sys/fs/cgroup/slurm/job 7/task/memory.max", "1000\n");
    machine.assert(0, &group(&format!("{job}/task/memory.max")));
}

#[test]
fn groups_of_version_1_count_with_all_above_them() {
    for mounts in [V1, HYBRID] {
        let machine = Machine::new(&[
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", "9:name=systemd:/\n4:memory:/slurm/job\n3:cpu:/\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "9000000000\n"),
            ("sys/fs/cgroup/memory/slurm/memory.limit_in_bytes", "4294967296\n"),
            ("sys/fs/cgroup/memory/slurm/memory.usage_in_bytes", "3221225472\n"),
            // Only the totals count the groups below.
            (
                "sys/fs/cgroup/memory/slurm/memory.stat",
                "inactive_file 0\ntotal_inactive_file 1073741824\ntotal_active_file 1073741824\n",
            ),
            ("sys/fs/cgroup/memory/slurm/job/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/slurm/job/memory.usage_in_bytes", "1024\n"),
        ]);
        machine.assert(3 * GB, &group("/sys/fs/cgroup/memory/slurm/memory.limit_in_bytes"));
    }
}

#[test]
fn containers_see_their_own_part() {
    let docker = "34 32 0:30 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let v1 = |cgroup: &'static str, mounts: &'static str| {
        Machine::new(&[
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", cgroup),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n"),
        ])
    };
    let limit = group("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    // Without a name space of groups, in the group of the container and in one below it.
    v1("4:memory:/docker/c0ffee\n", docker).assert(GB, &limit);
    v1("4:memory:/docker/c0ffee/inner\n", docker).assert(GB, &limit);
    // With one.
    v1("4:memory:/\n", V1).assert(GB, &limit);
    // The group is gone from sight, what is above it is not.
    v1("4:memory:/docker/c0ffee\n", V1).assert(GB, &limit);
    // A mount from outside the name space, of a group above it.
    let above = "34 32 0:30 /.. /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    v1("4:memory:/\n", above).assert(GB, &limit);
    // Somebody else's group, and a process that cannot say where it is.
    let other = "34 32 0:30 /docker/f00d /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    v1("4:memory:/docker/c0ffee\n", other).assert(64 * GB, &Limit::Machine);
    v1("4:memory:/../c0ffee\n", V1).assert(64 * GB, &Limit::Machine);

    // A limit of a group that the container cannot see.
    let machine = v1("4:memory:/\n", V1);
    let stat = "total_inactive_file 0\nhierarchical_memory_limit 1610612736\n";
    machine.write("sys/fs/cgroup/memory/memory.stat", stat);
    machine.assert(GB / 2, &limit);

    let v2 = [
        ("proc/self/mountinfo", V2),
        ("proc/self/cgroup", "0::/\n"),
        ("sys/fs/cgroup/memory.max", "2147483648\n"),
        ("sys/fs/cgroup/memory.current", "1073741824\n"),
    ];
    Machine::new(&v2).assert(GB, &group("/sys/fs/cgroup/memory.max"));
}

#[test]
fn the_process_has_limits_of_its_own() {
    let machine = Machine::new(&[
        (
            "proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max data size             4294967296           unlimited            bytes     \n\
             Max address space         3221225472           3221225472           bytes     \n",
        ),
        ("proc/self/status", "Name:\tx\nVmPeak:\t 9 kB\nVmSize:\t 1048576 kB\nVmData:\t 1024 kB\n"),
    ]);
    machine.assert(2 * GB - RESERVED, &Limit::AddressSpace);
    machine.write("proc/self/status", "VmSize:\t 0 kB\nVmData:\t 2097152 kB\n");
    machine.assert(2 * GB - RESERVED, &Limit::Data);
}

#[test]
fn odd_files_are_no_limits() {
    let odd = ["", "\n", "max", "-1", "18446744073709551616", "1e9", "\u{0}", "0::", ":::", " - "];
    for text in odd {
        let machine = Machine::new(&[
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/limits", &format!("Max address space {text}\n")),
            ("proc/self/status", &format!("VmSize: {text}\n")),
            ("sys/fs/cgroup/memory.max", text),
            ("sys/fs/cgroup/memory.current", "1000\n"),
        ]);
        machine.assert(64 * GB, &Limit::Machine);
        machine.write("sys/fs/cgroup/memory.max", "100000\n");
        machine.write("sys/fs/cgroup/memory.current", text);
        machine.assert(64 * GB, &Limit::Machine);
        for file in ["proc/self/mountinfo", "proc/self/cgroup"] {
            machine.write(file, text);
            machine.assert(64 * GB, &Limit::Machine);
        }
    }
    assert_eq!(least(Path::new("/not/there"), 0), None);
    for broken in ["", "MemAvailable: lots", "MemAvailable: 18446744073709551615 kB"] {
        assert_eq!(kilobytes(broken, "MemAvailable:"), None, "{broken}");
    }
    let mount = mount_of("34 32 0:30 /a\\040b /sys\\134x rw - cgroup2 cgroup2 rw").unwrap();
    assert_eq!((mount.group, mount.point), ("/a b".into(), "/sys\\x".into()));
}

//! Ranks on two hosts, which are network namespaces of one machine: each has an address and a name of its own, and
//! nothing but a virtual cable between them. A script stands for ssh. It needs Linux, root, `ip` and `unshare`;
//! without them, or without an MPI library (see `common`), the tests say that they skip.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)] // a test, and the program of a rank

mod common;

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::common::{
    BEGUN, Installed, LIBRARY, PATIENCE, RANK_ARGUMENTS, ROLE, bytes_of_sums, run_as_rank,
    set_variables,
};

/// The end of the cable that each host has.
const CARD: &str = "net0";

/// The hosts' addresses. Nothing else can reach them, so that every pair of hosts may have the same.
const ADDRESSES: [&str; 2] = ["10.213.7.1", "10.213.7.2"];

/// Names the host and becomes the program: `sh -c BECOME NAME PROGRAM ARGUMENTS`.
const BECOME: &str = r#"echo "$0" >/proc/sys/kernel/hostname && exec "$@""#;

/// A job that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn the_program_of_a_rank() {
    run_as_rank();
}

/// Two hosts, until this is dropped.
struct Hosts {
    names: [String; 2],
    /// For the script and for what jobs say.
    dir: PathBuf,
}

impl Hosts {
    /// The hosts of a test; none if the system does not give them.
    fn of(test: &str) -> Option<Hosts> {
        let names = ["a", "b"].map(|host| format!("bninception-{test}-{}-{host}", process::id()));
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&names[0]);
        let hosts = Hosts { names, dir };
        match hosts.set_up() {
            Ok(()) => Some(hosts),
            Err(why) => {
                eprintln!("skipped: no two hosts: {why}");
                None
            }
        }
    }

    fn set_up(&self) -> Result<(), String> {
        let [a, b] = &self.names;
        let run = |arguments: &str| said_by(Command::new("ip").args(arguments.split(' ')));
        run(&format!("netns add {a}"))?;
        run(&format!("netns add {b}"))?;
        run(&format!("-n {a} link add {CARD} type veth peer name {CARD} netns {b}"))?;
        for (host, address) in self.names.iter().zip(ADDRESSES) {
            run(&format!("-n {host} address add {address}/24 dev {CARD}"))?;
            run(&format!("-n {host} link set lo up"))?;
            run(&format!("-n {host} link set {CARD} up"))?;
        }
        for host in &self.names {
            self.wait_until_up(host)?;
        }
        fs::create_dir_all(&self.dir).unwrap();
        fs::write(self.agent(), self.agent_script()).unwrap();
        fs::set_permissions(self.agent(), fs::Permissions::from_mode(0o755)).unwrap();
        Ok(())
    }

    /// Waits until the cable carries something: the system says so a moment after it is told to.
    fn wait_until_up(&self, host: &str) -> Result<(), String> {
        let start = Instant::now();
        let file = format!("/sys/class/net/{CARD}/operstate");
        while said_by(self.command(host, "cat").arg(&file))?.trim() != "up" {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(format!("{CARD} of {host} does not come up"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A program on a host.
    fn command(&self, host: &str, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", host, "unshare", "--uts", "sh", "-c", BECOME, host]);
        command.arg(program.as_ref());
        command
    }

    fn agent(&self) -> PathBuf {
        self.dir.join("agent")
    }

    /// What stands for ssh: `agent [OPTIONS] ADDRESS WORDS OF A COMMAND`. As there, the command has no variables of
    /// the caller.
    fn agent_script(&self) -> String {
        let ([a, b], [to_a, to_b]) = (&self.names, ADDRESSES);
        format!(
            r#"#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
case "$1" in
{to_a}) host={a} ;;
{to_b}) host={b} ;;
*) echo "no host $1" >&2; exit 255 ;;
esac
shift
exec ip netns exec "$host" unshare --uts env -i PATH="$PATH" HOME=/ sh -c '{BECOME}' "$host" sh -c "$*"
"#
        )
    }

    /// What a job says.
    fn said(&self) -> PathBuf {
        self.dir.join("said")
    }

    /// Cuts the cable for three seconds, once the ranks have begun.
    fn cut_for_a_while(&self, ranks: usize, has_ended: &AtomicBool) {
        let has_begun = || {
            let said = fs::read_to_string(self.said()).unwrap_or_default();
            said.matches(BEGUN).count() == ranks
        };
        while !has_begun() {
            if has_ended.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        for state in ["down", "up"] {
            let host = &self.names[0];
            let mut command = Command::new("ip");
            said_by(command.args(["-n", host, "link", "set", CARD, state])).unwrap();
            thread::sleep(Duration::from_secs(3));
        }
    }

    /// Runs this executable's rank program with so many ranks on each host. The launcher is on the first.
    fn run(&self, mpi: &Installed, ranks: [usize; 2], role: &str) -> (ExitStatus, String) {
        let mut command = self.command(&self.names[0], mpi.0.join("bin/mpiexec"));
        let [a, b] = [0, 1].map(|host| format!("{}:{}", ADDRESSES[host], ranks[host]));
        let hosts = format!("{a},{b}");
        match mpi.is_open_mpi() {
            true => {
                command.args(["--host", &hosts, "--prtemca", "plm_ssh_agent"]).arg(self.agent());
                command.args(["--prtemca", "oob_tcp_if_include", CARD]);
                // Ranks of one host could share memory: then less would travel than two real hosts need.
                command.args(["--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", CARD]);
                // Unlike MPICH's, this launcher hands on no variables that are not its own.
                command.args(["-x", ROLE, "-x", LIBRARY, "-x", PATIENCE]);
                // Both hosts have the cores of one machine: bound, their ranks would meet on the first.
                command.args(["--bind-to", "none"]);
            }
            false => {
                command.args(["-hosts", &hosts, "-iface", CARD]);
                command.args(["-launcher", "ssh", "-launcher-exec"]).arg(self.agent());
                // The hosts have the memory of one machine, which UCX and libfabric would find.
                command.envs([("UCX_TLS", "tcp,self"), ("UCX_NET_DEVICES", CARD)]);
                command.envs([("FI_PROVIDER", "tcp"), ("FI_TCP_IFACE", CARD)]);
            }
        }
        command.args(["-n", &(ranks[0] + ranks[1]).to_string()]);
        command.arg(env::current_exe().unwrap()).args(RANK_ARGUMENTS);
        set_variables(&mut command, role, &mpi.library());
        let file = File::create(self.said()).unwrap();
        command.stdin(process::Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut job = command.spawn().unwrap();
        let start = Instant::now();
        let status = loop {
            match job.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed() > DEADLINE => {
                    job.kill().unwrap();
                    break job.wait().unwrap();
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let text = String::from_utf8_lossy(&fs::read(self.said()).unwrap()).into_owned();
        // The next job begins without the words of this one.
        fs::remove_file(self.said()).unwrap();
        (status, text)
    }

    /// Bytes that have come in to each host by the cable.
    fn received(&self) -> [u64; 2] {
        let file = format!("/sys/class/net/{CARD}/statistics/rx_bytes");
        [0, 1].map(|host| {
            let text = said_by(self.command(&self.names[host], "cat").arg(&file));
            text.unwrap().trim().parse().unwrap()
        })
    }

    /// Waits until no process is left on either host.
    fn wait_until_empty(&self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let pids = self
                .names
                .each_ref()
                .map(|host| said_by(Command::new("ip").args(["netns", "pids", host])).unwrap());
            match pids.concat().trim() {
                "" => return Ok(()),
                left if start.elapsed() > Duration::from_secs(10) => return Err(left.to_owned()),
                _ => thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in &self.names {
            let pids = said_by(Command::new("ip").args(["netns", "pids", host]));
            for pid in pids.unwrap_or_default().split_whitespace() {
                let _ = Command::new("kill").args(["-9", pid]).status();
            }
            let _ = said_by(Command::new("ip").args(["netns", "delete", host]));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What a program prints.
fn said_by(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

#[test]
fn ranks_on_two_hosts_add_up_over_the_network() {
    let all = Installed::all();
    let Some(hosts) = Hosts::of("sums").filter(|_| !all.is_empty()) else { return };
    for mpi in &all {
        for ranks in [[1, 1], [2, 1], [2, 2]] {
            let before = hosts.received();
            let (status, text) = hosts.run(mpi, ranks, "");
            let after = hosts.received();
            let case = format!("{ranks:?} ranks of {}", mpi.0.display());
            assert!(status.success(), "{case}: {text}");
            let size = ranks[0] + ranks[1];
            for rank in 0..size {
                assert!(text.contains(&format!("rank {rank} of {size} is content")), "{text}");
            }
            for host in [0, 1] {
                // For each sum a host has to learn as many values at least as the sum has.
                let received = after[host] - before[host];
                eprintln!("{case}: host {host} received {received} bytes");
                assert!(received >= bytes_of_sums(), "{case}: host {host}: {received} bytes");
            }
        }
    }
}

#[test]
fn a_rank_that_fails_on_another_host_ends_the_job_on_both() {
    let all = Installed::all();
    let Some(hosts) = Hosts::of("ends").filter(|_| !all.is_empty()) else { return };
    for mpi in &all {
        for role in ["abort", "panic", "die"] {
            let start = Instant::now();
            let (status, text) = hosts.run(mpi, [1, 1], role);
            let case = format!("{role} in {}", mpi.0.display());
            assert!(!status.success(), "{case}: {text}");
            assert!(start.elapsed() < Duration::from_secs(15), "{case}: {text}");
            hosts.wait_until_empty().unwrap_or_else(|left| panic!("{case} left {left}: {text}"));
        }
    }
}

#[test]
fn a_rank_on_another_host_is_waited_for_aloud() {
    let all = Installed::all();
    let Some(hosts) = Hosts::of("late").filter(|_| !all.is_empty()) else { return };
    for mpi in &all {
        let (status, text) = hosts.run(mpi, [1, 1], "late");
        assert!(status.success(), "{}: {text}", mpi.0.display());
        let said = "rank 0 has waited 1 s in a barrier of update 7, for rank 1";
        assert!(text.contains(said), "{}: {text}", mpi.0.display());
    }
}

#[test]
fn a_network_that_comes_back_is_waited_for() {
    let all = Installed::all();
    let Some(hosts) = Hosts::of("cut").filter(|_| !all.is_empty()) else { return };
    for mpi in &all {
        let has_ended = AtomicBool::new(false);
        let (status, text) = thread::scope(|scope| {
            scope.spawn(|| hosts.cut_for_a_while(2, &has_ended));
            let outcome = hosts.run(mpi, [1, 1], "long");
            has_ended.store(true, Ordering::Relaxed);
            outcome
        });
        assert!(status.success(), "{}: {text}", mpi.0.display());
        for rank in [0, 1] {
            for said in [
                format!("rank {rank} has waited 1 s in"),
                format!("rank {rank} goes on"),
                format!("rank {rank} of 2 has come to its end"),
            ] {
                assert!(text.contains(&said), "{}: {said}: {text}", mpi.0.display());
            }
        }
    }
}

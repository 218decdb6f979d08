//! The processor, and how much of it this process may use.

use std::path::Path;
use std::thread::available_parallelism;

use super::read;

/// Features that kernels look for, as `/proc/cpuinfo` writes them.
const FEATURES: [&str; 9] = [
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
];

/// What the system tells of the processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its name, if the system tells.
    pub model: Option<String>,
    /// Those of its features that the kernels look for.
    pub features: Vec<&'static str>,
    /// Cores of the machine that are there.
    pub cores: usize,
    /// Those on which this process may run, as the system lists them, such as `0-3,8`.
    pub allowed: String,
    /// How many those are.
    pub allowed_cores: usize,
    /// Those that it can keep busy, control groups considered.
    pub usable_cores: usize,
}

impl Processor {
    /// That of this machine.
    pub fn of_machine() -> Processor {
        let info = read(Path::new("/proc/cpuinfo")).unwrap_or_default();
        let status = read(Path::new("/proc/self/status")).unwrap_or_default();
        let usable_cores = available_parallelism().map_or(1, |cores| cores.get());
        of_texts(&info, &status, usable_cores)
    }
}

fn of_texts(info: &str, status: &str, usable_cores: usize) -> Processor {
    let field = |name: &str| {
        info.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim())
        })
    };
    let flags: Vec<&str> = field("flags").unwrap_or_default().split_whitespace().collect();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let allowed = allowed.unwrap_or_default().trim();
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    Processor {
        model: field("model name").map(str::to_owned),
        features: FEATURES.into_iter().filter(|feature| flags.contains(feature)).collect(),
        cores: cores.max(usable_cores),
        allowed: allowed.to_owned(),
        allowed_cores: count(allowed).unwrap_or(usable_cores),
        usable_cores,
    }
}

/// How many a list such as `0-3,8` names.
fn count(list: &str) -> Option<usize> {
    list.trim().split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + (last + 1).checked_sub(first)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_read_from_its_files() {
        let info = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 fma avx512f\n\n\
                    processor\t: 1\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 fma avx512f\n";
        let found = of_texts(info, "Cpus_allowed:\t1\nCpus_allowed_list:\t0\n", 1);
        let expected = Processor {
            model: Some("Some CPU".to_owned()),
            features: vec!["avx2", "fma", "avx512f"],
            cores: 2,
            allowed: "0".to_owned(),
            allowed_cores: 1,
            usable_cores: 1,
        };
        assert_eq!(found, expected);
        let unknown = of_texts("", "", 3);
        assert_eq!((unknown.model, unknown.cores, unknown.allowed_cores), (None, 3, 3));
    }

    #[test]
    fn lists_of_cores_are_counted() {
        for (list, n) in [("0", Some(1)), ("0-3,8\n", Some(5)), ("", None), ("3-1", None)] {
            assert_eq!(count(list), n, "{list:?}");
        }
    }
}

//! Where a network is computed, as settings name it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a network is computed: `auto`, `cpu`, `cuda`, `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// On a GPU if there is one that can be used, else on the processor.
    #[default]
    Auto,
    /// On the processor.
    Cpu,
    /// On a GPU by its number; without one, on the first, or where several processes of a run share a machine, on
    /// one for each in turn.
    Cuda(Option<usize>),
    /// On the processor as if it were a GPU, by the same kernels compiled as C. For tests.
    Host,
}

/// What [`DeviceChoice`] is read from; `host` is for tests and not told.
const EXPECTED: &str = "expected \"auto\", \"cpu\", \"cuda\", or \"cuda:N\" for the GPU number N";

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(DeviceChoice::Auto),
            ("cpu", _) => Ok(DeviceChoice::Cpu),
            ("cuda", _) => Ok(DeviceChoice::Cuda(None)),
            ("host", _) => Ok(DeviceChoice::Host),
            (_, Some(Ok(number))) => Ok(DeviceChoice::Cuda(Some(number))),
            _ => Err(format!("unknown device `{text}`, {EXPECTED}")),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<DeviceChoice, String> {
        text.parse()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(None) => f.write_str("cuda"),
            DeviceChoice::Cuda(Some(number)) => write!(f, "cuda:{number}"),
            DeviceChoice::Host => f.write_str("host"),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> String {
        choice.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};

    #[test]
    fn names_of_devices_are_read_and_written() {
        use DeviceChoice::{Auto, Cpu, Cuda, Host};
        for (text, choice) in [
            ("auto", Auto),
            ("cpu", Cpu),
            ("cuda", Cuda(None)),
            ("cuda:0", Cuda(Some(0))),
            ("cuda:13", Cuda(Some(13))),
            ("host", Host),
        ] {
            assert_eq!((text.parse(), choice.to_string()), (Ok(choice), text.to_owned()));
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:one", "CPU", "cuda0"] {
            assert!(text.parse::<DeviceChoice>().unwrap_err().contains("\"cuda:N\""), "{text}");
        }
    }

    #[test]
    fn a_device_is_a_setting() {
        let of = |set: &str| {
            let sets = [set.to_owned()];
            resolve(&Sources { sets: &sets, ..Sources::default() })
        };
        let found = of("engine.device=cuda:1").unwrap().config.engine.device;
        assert_eq!(found, DeviceChoice::Cuda(Some(1)));
        let error = of("engine.device=gpu").unwrap_err().to_string();
        assert!(error.contains("engine.device") && error.contains("or \"cuda:N\""), "{error}");
    }
}

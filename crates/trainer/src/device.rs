//! The device that settings name.

use std::fmt;
use std::sync::Once;

use bninception_engine::cuda::{Device, DeviceError, Precision};
use bninception_engine::model::Network;
use bninception_engine::{EngineError, Executor, Gpu, GpuOptions};

use crate::config::{Config, DeviceChoice, Dtype, EngineKind};
use crate::machine::allotment::Allotment;
use crate::machine::gpu;

/// The name of the processor as a device.
pub const CPU: &str = "cpu";

/// A device that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    /// Which of the machine: `cuda:0`, or `host`.
    pub place: String,
    /// What it is, as its maker names it.
    pub model: String,
}

/// `cuda:0 NVIDIA H200`, or `host`
impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.model == self.place {
            true => f.write_str(&self.place),
            false => write!(f, "{} {}", self.place, self.model),
        }
    }
}

/// A device.
pub struct Opened {
    /// What it is called.
    pub name: DeviceName,
    /// It.
    pub device: Box<dyn Device>,
}

/// An executor on a device.
pub struct OnDevice {
    /// The executor.
    pub executor: Box<dyn Executor>,
    /// Its device.
    pub name: DeviceName,
}

/// The engine of `config` on a device; `None` if it is to run on the processor, which is told where a GPU was looked
/// for in vain.
///
/// # Errors
/// The device is not there or fails, or the engine for it does not offer what is asked.
pub fn executor(
    config: &Config,
    network: &Network,
    threads: usize,
) -> Result<Option<OnDevice>, EngineError> {
    executor_with(config, network, threads, options(config))
}

/// The same with options of choice.
///
/// # Errors
/// As [`executor`].
pub fn executor_with(
    config: &Config,
    network: &Network,
    threads: usize,
    options: GpuOptions,
) -> Result<Option<OnDevice>, EngineError> {
    let Some(Opened { name, device }) = open(config, threads)? else { return Ok(None) };
    let executor = Box::new(Gpu::new(network.clone(), device, options)?);
    Ok(Some(OnDevice { executor, name }))
}

/// The device of `config`; `None` for the processor.
///
/// # Errors
/// As [`executor`].
pub fn open(config: &Config, threads: usize) -> Result<Option<Opened>, EngineError> {
    let choice = config.engine.device;
    match (config.engine.kind, choice) {
        (_, DeviceChoice::Cpu) | (EngineKind::Reference, DeviceChoice::Auto) => return Ok(None),
        (EngineKind::Reference, _) => {
            let (what, engine) = (format!("device {choice}"), EngineKind::Reference.name());
            let hint = "use --device cpu, or --engine fast";
            return Err(EngineError::Unsupported { what, engine, hint });
        }
        (EngineKind::Fast, _) => {}
    }
    let (place, device) = match choice {
        DeviceChoice::Host => ("host".to_owned(), gpu::host(threads)),
        DeviceChoice::Cuda(Some(number)) => (cuda(number), gpu::open(number).map_err(with_hint)?),
        _ => match gpu::open_in_turn(Allotment::of_process().place) {
            Ok((number, device)) => (cuda(number), device),
            Err(error) if choice == DeviceChoice::Auto => {
                say_why_not(&error);
                return Ok(None);
            }
            Err(error) => return Err(with_hint(error).into()),
        },
    };
    let model = device.properties().name.clone();
    Ok(Some(Opened { name: DeviceName { place, model }, device }))
}

/// Says of a device that was asked for and is not there what to do without it.
fn with_hint(error: DeviceError) -> DeviceError {
    match error {
        DeviceError::Unavailable(reason) => {
            let hint = "; to compute on the processor, use --device cpu";
            DeviceError::Unavailable(format!("{reason}{hint}"))
        }
        error => error,
    }
}

fn cuda(number: usize) -> String {
    DeviceChoice::Cuda(Some(number)).to_string()
}

/// The choices of the GPU engine that `config` makes.
pub fn options(config: &Config) -> GpuOptions {
    GpuOptions {
        precision: match config.train.dtype {
            Dtype::F32 => Precision::F32,
            Dtype::Tf32 => Precision::Tf32,
            Dtype::Bf16 => Precision::Bf16,
        },
        deterministic: config.engine.deterministic,
        ..GpuOptions::default()
    }
}

/// Says once why no GPU is used. A driver without the rest is a mishap, and so is a card without a driver; a machine
/// without either has nothing to say.
fn say_why_not(error: &DeviceError) {
    static SAID: Once = Once::new();
    SAID.call_once(|| match gpu::has_driver() || gpu::has_card() {
        true => tracing::warn!("no GPU: {error}; `bninception doctor` tells more"),
        false => tracing::debug!("no GPU: {error}"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};
    use crate::setup;

    fn config(sets: &[&str]) -> Config {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        resolve(&Sources { sets: &sets, ..Sources::default() }).unwrap().config
    }

    #[test]
    fn settings_are_options_of_the_engine() {
        for (dtype, precision) in
            [("f32", Precision::F32), ("tf32", Precision::Tf32), ("bf16", Precision::Bf16)]
        {
            let set = format!("train.dtype={dtype}");
            let found = options(&config(&[&set, "engine.deterministic=false"]));
            assert_eq!(
                found,
                GpuOptions { precision, deterministic: false, ..GpuOptions::default() }
            );
        }
    }

    #[test]
    fn the_processor_is_no_device() {
        for (sets, refused) in [
            (vec!["engine.device=cpu"], None),
            (vec!["engine.kind=reference"], None),
            (vec!["engine.kind=reference", "engine.device=cuda"], Some("device cuda is not")),
        ] {
            let config = config(&sets);
            let network = setup::network(&config, 10).unwrap();
            match (executor(&config, &network, 1), refused) {
                (Ok(found), None) => assert!(found.is_none(), "{sets:?}"),
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{sets:?}: {}", found.is_ok()),
            }
        }
    }
}

//! Whether a run fits the memory of its device, before it begins.

use bninception_engine::cuda::DeviceError;
use bninception_engine::{DeviceMemory, EngineError, Executor};

use crate::error::Error;
use crate::terminal::text::{bytes, counted};

/// What an executor tells of batches of so many images.
type Told = Result<Option<DeviceMemory>, EngineError>;

/// Memory of the device of `executor` for batches of `batch` images; `None` if it has none.
///
/// # Errors
/// It does not fit: the error names the largest batch of `fewest` images or more that does. Or a device that fails.
pub fn check(
    executor: &mut dyn Executor,
    batch: usize,
    fewest: usize,
) -> Result<Option<DeviceMemory>, Error> {
    check_by(|batch| executor.device_memory(batch), batch, fewest)
}

/// Whether the memory of the device, if there is one, has room for batches of `batch` images.
///
/// # Errors
/// Device that fails.
pub fn fits(executor: &mut dyn Executor, batch: usize) -> Result<bool, Error> {
    fits_by(executor.device_memory(batch))
}

fn check_by(
    mut memory_of: impl FnMut(usize) -> Told,
    batch: usize,
    fewest: usize,
) -> Result<Option<DeviceMemory>, Error> {
    let Some(memory) = memory_of(batch)? else { return Ok(None) };
    if memory.needed <= memory.free {
        return Ok(Some(memory));
    }
    let advice = match largest(fewest, batch, |batch| fits_by(memory_of(batch)))? {
        Some(batch) => format!("--batch-size {batch} is the largest that fits"),
        None => {
            "no batch fits: lower --image-size, free some of it, or use --device cpu".to_owned()
        }
    };
    let DeviceMemory { device, needed, free, total, .. } = &memory;
    let text = |n: &usize| bytes(*n as u64);
    Err(Error::Usage(format!(
        "training on batches of {} takes about {} of the memory of {device}, of which {} of {} are free; {advice}",
        counted(batch as u64, "image"),
        text(needed),
        text(free),
        text(total)
    )))
}

fn fits_by(told: Told) -> Result<bool, Error> {
    match told {
        Ok(memory) => Ok(memory.is_none_or(|memory| memory.needed <= memory.free)),
        Err(EngineError::Device(DeviceError::OutOfMemory { .. })) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The largest of `fewest..too_many` that fits, where less always fits if more does.
fn largest(
    fewest: usize,
    too_many: usize,
    mut fits: impl FnMut(usize) -> Result<bool, Error>,
) -> Result<Option<usize>, Error> {
    let (mut found, mut low, mut high) = (None, fewest, too_many);
    while low < high {
        let middle = low + (high - low) / 2;
        match fits(middle)? {
            true => (found, low) = (Some(middle), middle + 1),
            false => high = middle,
        }
    }
    Ok(found)
}

/// `device memory about 12.00 GB of 78.00 GB free (NVIDIA H100, 80.00 GB)`
pub fn to_text(memory: &DeviceMemory) -> String {
    let DeviceMemory { device, needed, free, total, .. } = memory;
    let text = |n: &usize| bytes(*n as u64);
    format!(
        "device memory about {} of {} free ({device}, {})",
        text(needed),
        text(free),
        text(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of 1 GB, of which a batch takes 100 MB and 10 MB for each image.
    fn device(free_mb: usize) -> impl FnMut(usize) -> Told {
        move |batch| {
            Ok(Some(DeviceMemory {
                device: "Some GPU".to_owned(),
                needed: 1_000_000 * (100 + 10 * batch),
                taken: 0,
                free: 1_000_000 * free_mb,
                total: 1_000_000_000,
            }))
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_largest_that_does() {
        for (free_mb, batch, expected) in [
            (900, 80, ""),
            (900, 81, "--batch-size 80 is the largest that fits"),
            (900, 4096, "--batch-size 80 is the largest that fits"),
            (129, 64, "--batch-size 2 is the largest"),
            (119, 64, "no batch fits: lower --image-size"),
            (119, 2, "no batch fits"),
        ] {
            let outcome = check_by(device(free_mb), batch, 2);
            let said = outcome.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{said}");
        }
        let said = check_by(device(500), 50, 2).unwrap_err().to_string();
        let part =
            "takes about 600 MB of the memory of Some GPU, of which 500 MB of 1.00 GB are free";
        assert!(said.contains(part), "{said}");
        let memory = check_by(device(900), 80, 2).unwrap().unwrap();
        assert!(
            to_text(&memory).starts_with("device memory about 900 MB of 900 MB free (Some GPU")
        );
        // On the processor there is nothing to check.
        assert_eq!(check_by(|_| Ok(None), 4096, 2).unwrap(), None);
    }

    #[test]
    fn a_device_that_runs_out_of_memory_is_asked_for_less() {
        let told = |batch: usize| match batch {
            ..=30 => device(1000)(batch),
            _ => Err(EngineError::Device(DeviceError::OutOfMemory {
                device: "Some GPU".to_owned(),
                wanted: batch,
                free: 30,
                total: 30,
            })),
        };
        assert!(fits_by(told(30)).unwrap() && !fits_by(told(31)).unwrap());
        assert_eq!(largest(2, 64, |batch| fits_by(told(batch))).unwrap(), Some(30));
        let failed = || Err(EngineError::NotLoaded);
        assert!(fits_by(failed()).is_err() && check_by(|_| failed(), 8, 2).is_err());
    }
}

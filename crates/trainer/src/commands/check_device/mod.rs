//! `check-device`: what a device computes, beside what the processor does. A line of JSON for each comparison.

mod comparison;
mod networks;
mod operations;
mod record;

use crate::cli::CheckDeviceArgs;
use crate::commands::print;
use crate::error::Error;
use crate::terminal::signals;
use crate::terminal::text::counted;

use self::comparison::Comparison;

pub(super) fn check_device(args: &CheckDeviceArgs) -> Result<(), Error> {
    signals::listen()?;
    let config = args.config.resolve(None, None)?.config;
    let mut failed = 0;
    let mut tell = |comparison: Comparison| {
        failed += u64::from(!comparison.holds());
        print::json(&comparison.to_json())
    };
    match args.what.as_str() {
        "kernels" => operations::kernels(&config, &mut tell)?,
        "convolutions" => operations::convolutions(&config, &mut tell)?,
        _ => networks::compare(&config, args.out.as_deref(), &mut tell)?,
    }
    match failed {
        0 => Ok(()),
        n => Err(Error::Unusable(format!(
            "the device computes something else than the processor: {} above",
            counted(n, "comparison")
        ))),
    }
}

//! `data demo`.

use bninception_data::demo::DemoOutcome;
use bninception_data::{DemoOptions, write_demo};

use crate::cli::DataDemoArgs;
use crate::commands::print;
use crate::error::Error;
use crate::images::data_dirs::check_apart_from_any;
use crate::terminal::text::{counted, quoted};

pub(super) fn demo(args: &DataDemoArgs) -> Result<(), Error> {
    let DataDemoArgs { dir, train_per_class, val_per_class, size, seed } = args;
    check_apart_from_any(dir, "bninception data demo")?;
    let options = DemoOptions {
        train_per_class: *train_per_class,
        val_per_class: *val_per_class,
        size: *size,
        seed: *seed,
    };
    let what = match write_demo(dir, &options)? {
        DemoOutcome::Written => "drew",
        DemoOutcome::Reused => "found, complete already,",
    };
    print::text(&format!(
        "{what} 10 classes of {} and {} in {}\ntrain on them with: bninception train --preset demo \
         --data-dir {}",
        counted(*train_per_class as u64, "training picture"),
        counted(*val_per_class as u64, "validation picture"),
        dir.display(),
        quoted(dir)
    ))
}

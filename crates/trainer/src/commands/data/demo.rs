//! `data demo`.

use bninception_data::demo::DemoOutcome;
use bninception_data::{DemoOptions, write_demo};

use crate::cli::DataDemoArgs;
use crate::commands;
use crate::error::Error;
use crate::text::counted;

pub(super) fn demo(args: &DataDemoArgs) -> Result<(), Error> {
    let DataDemoArgs { dir, train_per_class, val_per_class, size, seed } = args;
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
    commands::print(&format!(
        "{what} 10 classes of {train_per_class} training and {} in {}\ntrain on them with: bninception train --preset demo --data-dir {}",
        counted(*val_per_class as u64, "validation picture"),
        dir.display(),
        dir.display()
    ))
}

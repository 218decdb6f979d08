//! `data split`.

use bninception_data::Lister;
use serde_json::json;

use crate::cli::DataSplitArgs;
use crate::commands::print;
use crate::error::Error;
use crate::images::data_dirs::check_apart;
use crate::images::scan;
use crate::terminal::signals;
use crate::terminal::text::{counted, quoted};

pub(super) fn split(args: &DataSplitArgs) -> Result<(), Error> {
    if !(args.val_fraction > 0.0 && args.val_fraction < 1.0) {
        let found = args.val_fraction;
        return Err(Error::Usage(format!("--val-fraction {found}: expected above 0, below 1")));
    }
    signals::listen()?;
    let stop = || signals::received().is_some();
    let lister = Lister::new(0).with_stop(&stop);
    let (dir, out) = (&args.dir, &args.out);
    check_apart(dir, out, "--out")?;
    let made = bninception_data::split(&lister, dir, out, args.val_fraction, args.seed);
    let made = scan::stopped_by_signal(made)?;
    scan::warn(&made.notes);
    if args.json {
        return print::json(&json!({
            "classes": made.classes,
            "train": made.train,
            "val": made.val,
            "symbolic_links": made.symbolic,
            "notes": made.notes,
        }));
    }
    let links = match made.symbolic {
        0 => "hard links, no image was copied".to_owned(),
        n => format!(
            "{}, the others hard links; no image was copied",
            counted(n as u64, "symbolic link")
        ),
    };
    print::text(&format!(
        "{}: {} and {} of {} ({links})\ntrain on it with: bninception train --data-dir {}",
        out.display(),
        counted(made.train as u64, "training image"),
        counted(made.val as u64, "validation image"),
        counted(made.classes as u64, "class"),
        quoted(out)
    ))
}

//! `data index`.

use std::time::Instant;

use bninception_data::{Lister, ScanOptions, scan_with};
use serde_json::json;

use crate::cli::DataIndexArgs;
use crate::commands::print;
use crate::error::Error;
use crate::images::scan;
use crate::setup;
use crate::terminal::output::with_path;
use crate::terminal::signals;
use crate::terminal::text::counted;
use crate::training::memory_limit::peak_rss_bytes;

pub(super) fn index(args: &DataIndexArgs) -> Result<(), Error> {
    signals::listen()?;
    let Some(cache_dir) = Lister::default_cache_dir() else {
        return Err(Error::Usage(
            "there is no cache folder: set BNINCEPTION_CACHE, XDG_CACHE_HOME or HOME".to_owned(),
        ));
    };
    let dir = &args.dir;
    let stop = || signals::received().is_some();
    let workers = setup::threads(args.workers);
    let mut lister = Lister::new(workers).with_cache(Some(cache_dir)).with_stop(&stop);
    let start = Instant::now();
    if !args.rebuild {
        lister.load(dir);
    }
    let splits = scan::stopped_by_signal(scan_with(&lister, dir, &ScanOptions::default()))?;
    let seconds = start.elapsed().as_secs_f64();
    let counts = lister.counts();
    let file = lister.save(dir, true)?;
    scan::warn(&splits.notes);
    if lister.has_disbelieved() {
        tracing::warn!(
            "folders of {} are not remembered and are listed again each time: their file system is a \
             network file system, FUSE, or none of which it is known that it shows every change",
            dir.display()
        );
    }
    let images = splits.train.len() + splits.val.len();
    if args.json {
        let result = json!({
            "images": images,
            "classes": splits.classes.len(),
            "folders_listed": counts.listed,
            "folders_reused": counts.reused,
            "seconds": seconds,
            "notes": splits.notes,
            "cache": null,
            "peak_rss_bytes": peak_rss_bytes(),
        });
        return print::json(&match file {
            Some(file) => with_path("cache", &file, result),
            None => result,
        });
    }
    print::text(&format!(
        "{} of {} in {seconds:.2} s: {} listed, {} unchanged since the last time\nkept in {}",
        counted(images as u64, "image"),
        counted(splits.classes.len() as u64, "class"),
        counted(counts.listed as u64, "folder"),
        counts.reused,
        file.map_or("no file".to_owned(), |file| file.display().to_string()),
    ))
}

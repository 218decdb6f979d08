//! `data index`.

use std::time::Instant;

use bninception_data::{Lister, ScanOptions, scan_with};
use serde_json::json;

use crate::cli::DataIndexArgs;
use crate::error::Error;
use crate::text::counted;
use crate::{commands, setup, signals};

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
    let splits = setup::stopped_by_signal(scan_with(&lister, dir, &ScanOptions::default()))?;
    let seconds = start.elapsed().as_secs_f64();
    let counts = lister.counts();
    let file = lister.save(dir, true)?;
    for note in &splits.notes {
        tracing::warn!("{note}");
    }
    let images = splits.train.len() + splits.val.len();
    let file = file.map(|file| file.display().to_string());
    if args.json {
        return commands::print_json(&json!({
            "images": images,
            "classes": splits.classes.len(),
            "folders_listed": counts.listed,
            "folders_reused": counts.reused,
            "seconds": seconds,
            "cache": file,
            "peak_rss_bytes": commands::peak_rss_bytes(),
        }));
    }
    commands::print(&format!(
        "{} of {} in {seconds:.2} s: {} listed, {} unchanged since the last time\nkept in {}",
        counted(images as u64, "image"),
        counted(splits.classes.len() as u64, "class"),
        counted(counts.listed as u64, "folder"),
        counts.reused,
        file.unwrap_or_else(|| "no file".to_owned()),
    ))
}

//! `data pack`.

use std::time::Instant;

use bninception_data::{DecodeOptions, Lister, PackOptions};
use serde_json::json;

use crate::cli::DataPackArgs;
use crate::commands::print;
use crate::error::Error;
use crate::images::data_dirs::check_apart;
use crate::images::scan;
use crate::terminal::progress::SharedProgress;
use crate::terminal::signals;
use crate::terminal::text::{counted, quoted};

pub(super) fn pack(args: &DataPackArgs) -> Result<(), Error> {
    signals::listen()?;
    let stop = || signals::received().is_some();
    let lister = Lister::new(args.workers).with_stop(&stop);
    let progress = SharedProgress::new("packing");
    let begin = |images: usize, notes: &[String]| {
        scan::warn(notes);
        progress.start(images);
    };
    let advance = |done| progress.advance(done);
    let (dir, out) = (&args.dir, &args.out);
    check_apart(dir, out, &format!("bninception data pack {}", quoted(dir)))?;
    let options = PackOptions {
        short_side: args.short_side,
        decode: DecodeOptions { exif: !args.ignore_exif, ..DecodeOptions::default() },
    };
    let start = Instant::now();
    let packed = bninception_data::pack(&lister, dir, out, &options, begin, &advance);
    drop(progress);
    if stop() {
        tracing::info!("what is packed stays; the same command goes on with the rest");
    }
    let packed = scan::stopped_by_signal(packed)?;
    let seconds = start.elapsed().as_secs_f64();
    for failure in &packed.failed {
        tracing::warn!("packed without pixels: {}: {}", failure.path.display(), failure.error);
    }
    if args.json {
        return print::json(&json!({
            "images": packed.images,
            "failed": print::failures_to_json(&packed.failed),
            "shards_made": packed.made,
            "shards_kept": packed.kept,
            "bytes": packed.bytes,
            "seconds": seconds,
            "notes": packed.notes,
        }));
    }
    let unreadable = match packed.failed.len() {
        0 => String::new(),
        n => format!(
            "{n} of them cannot be read: evaluation counts each as wrong, and training refuses to \
             begin unless data.check_headers=false\n"
        ),
    };
    print::text(&format!(
        "{}: {} in {:.1} MB, {} made and {} kept in {seconds:.1} s\n{unreadable}\
         train on it with: bninception train --data-dir {}",
        out.display(),
        counted(packed.images as u64, "image"),
        packed.bytes as f64 / 1e6,
        counted(packed.made as u64, "shard"),
        packed.kept,
        quoted(out)
    ))
}

//! `bench data`.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bninception_data::Share;
use bninception_data::augment::View;
use bninception_data::decode::DecodeBuffers;
use bninception_data::random::ViewKey;
use bninception_data::{FileSource, LoadOptions, Loader, Source};
use serde_json::json;

use crate::cli::BenchDataArgs;
use crate::commands::print;
use crate::config::Config;
use crate::error::Error;
use crate::images::data_dirs::DataDirs;
use crate::images::scan;
use crate::setup;
use crate::terminal::signals;
use crate::terminal::text::counted;

/// Milliseconds for an image in one thread, by stage.
struct Stages {
    read: f64,
    decode: f64,
    augment: f64,
}

impl Stages {
    /// The stage that takes longest, and its share.
    fn bottleneck(&self) -> (&'static str, f64) {
        let stages = [("read", self.read), ("decode", self.decode), ("augment", self.augment)];
        let total: f64 = stages.iter().map(|(_, time)| time).sum();
        let longest = stages.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        longest.map_or(("read", 1.0), |(name, time)| (name, time / total))
    }
}

pub(super) fn bench(args: &BenchDataArgs) -> Result<(), Error> {
    signals::listen()?;
    let config = args.config.resolve(None, None)?.config;
    let dirs = DataDirs::of_config(&config, Path::new(&config.checkpoint.dir))?;
    let splits = scan::scan(&config, &dirs)?;
    let source = Arc::new(FileSource::new(splits.train, setup::decode_options(&config))?);
    let n = source.len();
    let images = if args.images == 0 { n } else { args.images };

    // Everything once, so that the files are in the page cache and the processor is awake.
    whole(&config, &source, images.min(n), setup::threads(config.data.workers))?;
    let stages = stages(&config, &source, images.min(2000))?;
    let most = setup::threads(config.data.workers);
    let mut rates = Vec::new();
    for workers in counts(most) {
        signals::check()?;
        rates.push((workers, whole(&config, &source, images, workers)?));
    }
    let rate = rates.last().map_or(0.0, |(_, rate)| *rate);
    let (bottleneck, share) = stages.bottleneck();
    if args.json {
        let by_workers: Vec<_> = rates
            .iter()
            .map(|(workers, rate)| json!({ "workers": workers, "images_per_second": rate }))
            .collect();
        return print::json(&json!({
            "images": images,
            "images_per_second": rate,
            "workers": most,
            "by_workers": by_workers,
            "milliseconds": {
                "read": stages.read, "decode": stages.decode, "augment": stages.augment,
            },
            "bottleneck": bottleneck,
        }));
    }
    print::text(&format!(
        "one thread, milliseconds an image: read {:.3}, decode {:.3}, crop to batch {:.3}",
        stages.read, stages.decode, stages.augment
    ))?;
    for (workers, rate) in &rates {
        print::text(&format!("{}: {rate:.0} img/s", counted(*workers as u64, "worker")))?;
    }
    let size = config.data.image_size;
    let colour = json!(config.augment.colour); // as in TOML, with its quotes
    print::text(&format!(
        "{} at {size} px, augment.colour = {colour}; the bottleneck is: {bottleneck} ({:.0} % of the \
         work)",
        counted(images as u64, "image"),
        100.0 * share
    ))
}

/// 1, 2, 4, ... and `most`.
fn counts(most: usize) -> Vec<usize> {
    let mut counts: Vec<usize> =
        std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < most).collect();
    counts.push(most);
    counts
}

/// Images per second of the loader over `images` images, several epochs where there are fewer.
fn whole(
    config: &Config,
    source: &Arc<FileSource>,
    images: usize,
    workers: usize,
) -> Result<f64, Error> {
    let batch_size = config.train.batch_size;
    let steps = images.div_ceil(batch_size).max(1) as u64;
    let options = LoadOptions { workers, ..setup::load_options(config, batch_size) };
    let plan = setup::train_plan(config, Share::default(), 0..steps);
    let source: Arc<dyn Source> = source.clone();
    let start = Instant::now();
    let mut loader = Loader::train(source, &setup::preprocessing(config), &options, &plan)?;
    let mut made = 0;
    while let Some(batch) = loader.next() {
        signals::check()?;
        let batch = batch?;
        if let Some(failure) = batch.failed.first() {
            return Err(Error::Unusable(format!("{}; mend or remove it", failure.error)));
        }
        made += batch.labels.len();
        loader.recycle(batch);
    }
    Ok(made as f64 / start.elapsed().as_secs_f64())
}

fn stages(config: &Config, source: &Arc<FileSource>, images: usize) -> Result<Stages, Error> {
    let n = source.len();
    let mut buffers = DecodeBuffers::default();
    let start = Instant::now();
    for index in 0..images {
        black_box(source.read(index % n, &mut buffers)?);
    }
    let read = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for index in 0..images {
        signals::check()?;
        // As for a training crop, of which not all may be decoded.
        let key = ViewKey { seed: config.train.seed, epoch: 0, index: index as u64 };
        let mut want = |width, height| {
            let size = config.data.image_size;
            View::draw(width, height, &config.augment, size, &key).wanted()
        };
        let image = source.load(index % n, &mut want, &mut buffers)?;
        buffers.recycle(black_box(image));
    }
    let decode = start.elapsed().as_secs_f64();
    let all = images as f64 / whole(config, source, images, 0)?;
    let each = |seconds: f64| 1e3 * seconds.max(0.0) / images as f64;
    Ok(Stages { read: each(read), decode: each(decode - read), augment: each(all - decode) })
}

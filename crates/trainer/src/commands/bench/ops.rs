//! `bench ops`.

use bninception_engine::bench::{self, Measured};
use serde_json::json;

use super::conv_sizes::ConvSizes;
use super::device_ops;
use crate::cli::BenchOpsArgs;
use crate::commands::print;
use crate::config::{DeviceChoice, EngineKind};
use crate::device;
use crate::error::Error;
use crate::setup;
use crate::terminal::color::Accent;
use crate::terminal::progress::ProgressBar;
use crate::terminal::signals;
use crate::terminal::text::counted;

pub(super) fn bench(args: &BenchOpsArgs) -> Result<(), Error> {
    signals::listen()?;
    let config = args.config.resolve(None, None)?.config;
    if config.engine.kind != EngineKind::Fast {
        let message = "bench ops times the kernels of the fast engine; leave out --engine";
        return Err(Error::Usage(message.to_owned()));
    }
    if config.engine.device != DeviceChoice::Cpu
        && let Some(opened) = device::open(&config, setup::threads(config.train.threads))?
    {
        return device_ops::bench(args, &config, opened);
    }
    let network = setup::network(&config, setup::classes_without_data(&config))?;
    let options = setup::fast_options(&config);
    let batch_size = config.train.batch_size;
    let list = bench::convolutions(&network, batch_size);
    let mut progress = ProgressBar::start("timing", list.len() as u64);
    let mut peak = bench::peak(&options);
    let mut rows = Vec::new();
    for operation in &list {
        signals::check()?;
        rows.extend(bench::measure(operation, &options, args.warmup, args.repeats)?);
        progress.advance(1, std::time::Duration::ZERO);
    }
    // A machine that is shared, or that slows down as it warms up, shows in the better of two.
    peak = peak.max(bench::peak(&options));
    drop(progress);

    let (dtype, size) = (config.train.dtype.name(), config.data.image_size);
    if args.json {
        let ops: Vec<_> = rows.iter().map(|row| to_json(row, peak)).collect();
        return print::json(&json!({
            "ops": ops,
            "peak_gflops": peak,
            "dtype": dtype,
            "threads": options.threads,
            "batch_size": batch_size,
            "image_size": size,
        }));
    }
    print::text(&table(&rows, peak))?;
    print::text(&format!(
        "{dtype}, {}, {}, batch {batch_size}, {size} px; medians of {}; every answer checked\n\
         GFLOP/s count the multiply-adds of the definition, of which Winograd needs fewer; the peak in \
         {dtype} is {peak:.0}",
        counted(options.threads as u64, "thread"),
        options.isa.name(),
        args.repeats,
    ))
}

fn to_json(row: &Measured, peak: f64) -> serde_json::Value {
    json!({
        "name": row.operation.name,
        "direction": row.direction.name(),
        "shape": ConvSizes::of(&row.operation).to_json(),
        "algorithm": row.algorithm.name(),
        "seconds_median": row.median(),
        "gflops": row.gflops(),
        "share_of_peak": row.gflops() / peak,
    })
}

fn table(rows: &[Measured], peak: f64) -> String {
    let header = format!(
        "{:<30} {:<20} {:<15} {:<8} {:>8} {:>8} {:>5}",
        "layer", "shape", "direction", "by", "ms", "GFLOP/s", "peak"
    );
    let mut lines = vec![Accent::Strong.paint(&header)];
    for row in rows {
        let shape = ConvSizes::of(&row.operation).to_text();
        lines.push(format!(
            "{:<30} {shape:<20} {:<15} {:<8} {:>8.2} {:>8.1} {:>4.0}%",
            row.operation.name,
            row.direction.name(),
            row.algorithm.name(),
            1e3 * row.median(),
            row.gflops(),
            100.0 * row.gflops() / peak
        ));
    }
    let total: f64 = rows.iter().map(Measured::median).sum();
    lines.push(format!("{:<75} {:>8.2}", "each shape once", 1e3 * total));
    lines.join("\n")
}

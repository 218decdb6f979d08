//! `bench ops` on a device.

use std::time::Duration;

use bninception_engine::cuda::Convolution;
use bninception_engine::gpu::check;
use serde_json::{Value, json};

use super::conv_sizes::ConvSizes;
use super::device_profile::Limits;
use crate::cli::BenchOpsArgs;
use crate::commands::print;
use crate::config::Config;
use crate::device::{self, Opened};
use crate::error::Error;
use crate::setup;
use crate::terminal::color::Accent;
use crate::terminal::progress::ProgressBar;
use crate::terminal::signals;

/// A convolution, and the median of its runs.
struct Row {
    convolution: Convolution,
    seconds: f64,
    /// The least that its card allows, where that is known.
    floor: Option<f64>,
}

impl Row {
    fn gflops(&self) -> f64 {
        self.convolution.cost().operations as f64 / self.seconds / 1e9
    }

    /// The share of the floor in the time.
    fn share(&self) -> Option<f64> {
        self.floor.map(|floor| floor / self.seconds)
    }
}

/// Times each convolution of the network in each direction.
pub(super) fn bench(args: &BenchOpsArgs, config: &Config, opened: Opened) -> Result<(), Error> {
    let Opened { name, mut device } = opened;
    let network = setup::network(config, setup::classes_without_data(config))?;
    let (precision, batch_size) = (device::options(config).precision, config.train.batch_size);
    let list = check::convolutions(&network, precision, batch_size)?;
    let limits = Limits::of_device(Some(&name), config.train.dtype);
    let mut progress = ProgressBar::start("timing", list.len() as u64);
    let mut rows = Vec::new();
    for convolution in list {
        signals::check()?;
        let mut seconds = check::time_convolution(device.as_mut(), &convolution, args.repeats)?;
        seconds.sort_by(f64::total_cmp);
        let floor =
            limits.as_ref().map(|limits| limits.floor_of("convolution", convolution.cost()));
        rows.push(Row { convolution, seconds: seconds[seconds.len() / 2], floor });
        progress.advance(1, Duration::ZERO);
    }
    drop(progress);
    let (dtype, size) = (config.train.dtype.name(), config.data.image_size);
    if args.json {
        return print::json(&json!({
            "ops": rows.iter().map(to_json).collect::<Vec<_>>(),
            "device": name.to_string(),
            "dtype": dtype,
            "batch_size": batch_size,
            "image_size": size,
        }));
    }
    print::text(&table(&rows))?;
    print::text(&format!(
        "{dtype} on {name}, batch {batch_size}, {size} px; medians of {}; GFLOP/s count two for a multiply-add; \
         floor: the least time by the card's data sheet as a share of the time",
        args.repeats,
    ))
}

fn to_json(row: &Row) -> Value {
    let c = &row.convolution;
    json!({
        "direction": c.direction.name(),
        "accumulate": c.accumulate,
        "shape": ConvSizes::of_device(c).to_json(),
        "seconds_median": row.seconds,
        "gflops": row.gflops(),
        "share_of_floor": row.share(),
    })
}

fn table(rows: &[Row]) -> String {
    let header =
        format!("{:<22} {:<24} {:>9} {:>10} {:>6}", "shape", "direction", "ms", "GFLOP/s", "floor");
    let mut lines = vec![Accent::Strong.paint(&header)];
    for row in rows {
        let c = &row.convolution;
        let shape = ConvSizes::of_device(c).to_text();
        let adds = if c.accumulate { ", added" } else { "" };
        let direction = format!("{}{adds}", c.direction.name());
        let share = row.share().map_or("-".to_owned(), |share| format!("{:.0}%", 100.0 * share));
        let (ms, gflops) = (1e3 * row.seconds, row.gflops());
        lines.push(format!("{shape:<22} {direction:<24} {ms:>9.3} {gflops:>10.1} {share:>6}"));
    }
    let total: f64 = rows.iter().map(|row| row.seconds).sum();
    lines.push(format!("{:<47} {:>9.3}", "each shape once", 1e3 * total));
    lines.join("\n")
}

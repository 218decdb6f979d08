//! The profile of `bench model`: a row for each layer, a column for each kind of work.

use bninception_engine::{Phase, Profile};
use serde_json::json;

/// Columns: the phases that have a gradient or a product of their own show GFLOP/s too.
const PRODUCTS: [Phase; 3] = [Phase::Forward, Phase::InputGradient, Phase::WeightGradient];

/// Milliseconds a step by layer and phase; GFLOP/s of the products by the definition; and megabytes
/// of f32 that the layer reads and writes forwards, each value once.
pub(super) fn text(profile: &Profile, batch: usize) -> String {
    let ms = |seconds: f64| 1e3 * seconds / profile.runs.max(1) as f64;
    let total: f64 = profile.rows.iter().flat_map(|row| row.seconds).sum();
    let mut lines = vec![format!(
        "{:<58} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>6}  GFLOP/s",
        "milliseconds a step", "MB", "pack", "forward", "point.", "p. back", "input", "weight", "%"
    )];
    let mut sums = [0.0; Phase::ALL.len()];
    for row in &profile.rows {
        let seconds: f64 = row.seconds.iter().sum();
        let flop = 2.0 * (row.macs * batch) as f64 * profile.runs as f64;
        let rates = PRODUCTS.map(|phase| {
            let seconds = row.seconds[phase as usize];
            if row.macs == 0 || seconds == 0.0 {
                return "-".to_owned();
            }
            format!("{:.0}", flop / seconds / 1e9)
        });
        lines.push(format!(
            "{:<58} {:>6.1} {} {:>5.1}%  {}",
            row.name,
            4e-6 * (row.values * batch) as f64,
            columns(row.seconds.map(ms)),
            100.0 * seconds / total,
            rates.join(" ")
        ));
        for (sum, seconds) in sums.iter_mut().zip(row.seconds) {
            *sum += seconds;
        }
    }
    lines.push(format!("{:<65} {}", "all", columns(sums.map(ms))));
    lines.join("\n")
}

fn columns(values: [f64; Phase::ALL.len()]) -> String {
    values.map(|value| format!("{value:>7.1}")).join(" ")
}

/// The same as objects.
pub(super) fn as_json(profile: &Profile, batch: usize) -> serde_json::Value {
    let rows = profile.rows.iter().map(|row| {
        let phases = Phase::ALL.map(|phase| {
            let seconds = row.seconds[phase as usize] / profile.runs.max(1) as f64;
            (phase.name().replace(' ', "_"), json!(seconds))
        });
        json!({
            "name": row.name,
            "macs": row.macs * batch,
            "bytes": 4 * row.values * batch,
            "seconds": serde_json::Map::from_iter(phases),
        })
    });
    json!(rows.collect::<Vec<_>>())
}

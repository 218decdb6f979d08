//! The profile of `bench model`: a row for each layer, a column for each kind of work.

use bninception_engine::{Phase, Profile, Row};
use serde_json::json;

use crate::terminal::color::Accent;

/// The phases whose speed is shown: products of filters.
const PRODUCTS: [Phase; 3] = [Phase::Forward, Phase::InputGradient, Phase::WeightGradient];

/// Milliseconds a step by layer and phase, the layer's share of all layers, GFLOP/s of the products by
/// their definition, and megabytes of f32 that the layer reads and writes forwards, each value once.
/// `profile` is that of `steps` steps on batches of `batch` images.
pub(super) fn to_text(profile: &Profile, batch: usize, steps: usize) -> String {
    let total: f64 = profile.rows.iter().flat_map(|row| row.seconds).sum();
    let name = profile.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let steps = steps as f64;
    let line = |layer: &str, megabytes: f64, seconds: [f64; Phase::ALL.len()]| {
        let columns = seconds.map(|seconds| format!("{:>8.1}", 1e3 * seconds / steps)).join("");
        let share = 100.0 * seconds.iter().sum::<f64>() / total;
        format!("{layer:<name$} {megabytes:>7.1}{columns} {share:>6.1}%")
    };
    let mut lines = vec![
        format!("{:<name$} {:>7}{:-^48} {:>7}  {:-^17}", "", "", " ms a step ", "", " GFLOP/s "),
        format!(
            "{:<name$} {:>7}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8} {:>7}  {:>5} {:>5} {:>5}",
            "layer",
            "MB",
            "pack",
            "forward",
            "pointw.",
            "back",
            "input",
            "filters",
            "share",
            "forw.",
            "input",
            "filt."
        ),
    ];
    let mut sums = [0.0; Phase::ALL.len()];
    for row in &profile.rows {
        let megabytes = 1e-6 * (row.bytes * batch) as f64;
        let rates = PRODUCTS.map(|phase| rate(row, phase, batch as f64 * steps)).join(" ");
        lines.push(format!("{}  {rates}", line(&row.name, megabytes, row.seconds)));
        for (sum, seconds) in sums.iter_mut().zip(row.seconds) {
            *sum += seconds;
        }
    }
    let bytes: usize = profile.rows.iter().map(|row| row.bytes).sum();
    lines.push(line("all layers", 1e-6 * (bytes * batch) as f64, sums));
    lines[..2].iter_mut().for_each(|header| *header = Accent::Strong.paint(header));
    lines.join("\n")
}

/// GFLOP/s of a phase over so many images, two for each multiply-accumulate.
fn rate(row: &Row, phase: Phase, images: f64) -> String {
    let seconds = row.seconds[phase as usize];
    if row.macs == 0 || seconds == 0.0 {
        return format!("{:>5}", "-");
    }
    format!("{:>5.0}", 2e-9 * row.macs as f64 * images / seconds)
}

/// The same as objects: seconds a step by phase, multiply-accumulates and bytes of a batch.
pub(super) fn to_json(profile: &Profile, batch: usize, steps: usize) -> serde_json::Value {
    let rows = profile.rows.iter().map(|row| {
        let phases = Phase::ALL.map(|phase| {
            let seconds = row.seconds[phase as usize] / steps as f64;
            (phase.name().replace(' ', "_"), json!(seconds))
        });
        json!({
            "name": row.name,
            "macs": row.macs * batch,
            "bytes": row.bytes * batch,
            "seconds": serde_json::Map::from_iter(phases),
        })
    });
    json!(rows.collect::<Vec<_>>())
}

//! How long a step would take on a card, by what it starts: a model for a device to confirm or to refute.

use bninception_engine::Traced;
use serde_json::{Value, json};

use super::device_profile::{Group, Limits, groups, is_product};
use crate::terminal::color::Accent;

/// The part of the data sheet's bandwidth that our kernels are assumed to reach. Copies reach about 0.9 on these
/// cards; reads of several maps with one write, less. An assumption.
const BANDWIDTH_REACHED: f64 = 0.75;

/// The part of the data sheet's rate that convolutions are assumed to reach where their operations limit them. Large
/// products of matrices reach 0.6 to 0.7 before the card lowers its clock; convolutions of 64 to 320 channels do not
/// fill its tiles. An assumption.
const RATE_REACHED: f64 = 0.4;

/// Seconds between two kernels of a graph, in which the one drains and the other fills the card's processors. An
/// assumption.
const BETWEEN_STARTS: f64 = 2.5e-6;

/// A step on a card.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prediction {
    /// Starts of kernels, convolutions and copies.
    pub(super) starts: usize,
    pub(super) bytes: f64,
    pub(super) operations: f64,
    /// The least seconds, by the data sheet.
    pub(super) floor: f64,
    /// The seconds that are expected, by the assumptions above.
    pub(super) seconds: f64,
}

/// Seconds that a start is expected to take.
fn expected(started: &Traced, limits: &Limits) -> f64 {
    let bytes = started.cost.bytes as f64 / (BANDWIDTH_REACHED * limits.bandwidth);
    let reached = if is_product(&started.kernel) { RATE_REACHED } else { BANDWIDTH_REACHED };
    let rate = reached * limits.rate(&started.kernel);
    BETWEEN_STARTS + bytes.max(started.cost.operations as f64 / rate)
}

impl Prediction {
    /// That of a step that starts `traced`.
    pub(super) fn of(traced: &[Traced], limits: &Limits) -> Prediction {
        Prediction {
            starts: traced.len(),
            bytes: traced.iter().map(|started| started.cost.bytes as f64).sum(),
            operations: traced.iter().map(|started| started.cost.operations as f64).sum(),
            floor: traced.iter().map(|started| limits.floor(started)).sum(),
            seconds: traced.iter().map(|started| expected(started, limits)).sum(),
        }
    }

    /// The table of kernels, and what comes of it.
    pub(super) fn to_text(&self, traced: &[Traced], limits: &Limits, batch: usize) -> String {
        let rows = rows(traced, limits);
        let width = rows.iter().map(|(group, _)| group.name.len()).max().unwrap_or(0).max(6);
        let header = format!(
            "{:<width$} {:>7} {:>9} {:>9} {:>9} {:>9}",
            "kernel", "starts", "MB", "GFLOP", "floor ms", "ms"
        );
        let mut lines = vec![Accent::Strong.paint(&header)];
        for (group, seconds) in &rows {
            lines.push(line(&group.name, width, group, *seconds));
        }
        let sum = Group {
            starts: self.starts as f64,
            bytes: self.bytes,
            operations: self.operations,
            floor: Some(self.floor),
            ..Group::default()
        };
        lines.push(line("all", width, &sum, self.seconds));
        lines.push(format!(
            "predicted: {:.2} ms a step, {:.0} img/s; at the least {:.2} ms ({:.0} img/s). Assumed: {BANDWIDTH_REACHED} \
             of the bandwidth, {RATE_REACHED} of the rate of convolutions, {} us from one start to the next; copies of \
             images run beside",
            1e3 * self.seconds,
            batch as f64 / self.seconds,
            1e3 * self.floor,
            batch as f64 / self.floor,
            1e6 * BETWEEN_STARTS
        ));
        lines.join("\n")
    }

    /// The same as an object.
    pub(super) fn to_json(&self, traced: &[Traced], limits: &Limits, batch: usize) -> Value {
        let rows = rows(traced, limits);
        let rows = rows.iter().map(|(group, seconds)| {
            json!({
                "name": group.name,
                "starts": group.starts,
                "bytes": group.bytes,
                "operations": group.operations,
                "floor_seconds": group.floor,
                "predicted_seconds": seconds,
            })
        });
        json!({
            "starts": self.starts,
            "bytes": self.bytes,
            "operations": self.operations,
            "floor_seconds": self.floor,
            "predicted_step_seconds": self.seconds,
            "predicted_images_per_second": batch as f64 / self.seconds,
            "assumed": {
                "bandwidth_reached": BANDWIDTH_REACHED,
                "rate_reached": RATE_REACHED,
                "seconds_between_starts": BETWEEN_STARTS,
            },
            "by_kernel": rows.collect::<Vec<_>>(),
        })
    }
}

/// Each kernel with the seconds that all its starts are expected to take.
fn rows(traced: &[Traced], limits: &Limits) -> Vec<(Group, f64)> {
    let groups = groups(traced, 1, Some(limits), |started| started.kernel.clone());
    let seconds = |group: &Group| {
        let own = traced.iter().filter(|started| started.kernel == group.name);
        own.map(|started| expected(started, limits)).sum()
    };
    groups.into_iter().map(|group| (group.clone(), seconds(&group))).collect()
}

fn line(name: &str, width: usize, group: &Group, seconds: f64) -> String {
    format!(
        "{name:<width$} {:>7.0} {:>9.1} {:>9.1} {:>9.3} {:>9.3}",
        group.starts,
        1e-6 * group.bytes,
        1e-9 * group.operations,
        1e3 * group.floor.unwrap_or(0.0),
        1e3 * seconds
    )
}

#[cfg(test)]
mod tests {
    use super::super::device_profile::tests::started;
    use super::*;
    use crate::config::Dtype;
    use crate::machine::card::Card;

    #[test]
    fn a_step_takes_what_its_starts_take() {
        let limits = Limits::of(Card::by_key("h100").unwrap(), Dtype::Bf16);
        let traced = [
            // 1 ms by its operations, 2 ms by its bytes, and nothing but its start.
            started("conv1", "convolution forward", [0, 989_000_000_000], 0),
            started("conv1", "bn_apply", [6_700_000_000, 0], 0),
            started("conv1", "bn_apply", [0, 0], 0),
        ];
        let found = Prediction::of(&traced, &limits);
        assert_eq!(found.starts, 3);
        assert!((found.floor - 3e-3).abs() < 1e-9, "{found:?}");
        let expected = 1e-3 / RATE_REACHED + 2e-3 / BANDWIDTH_REACHED + 3.0 * BETWEEN_STARTS;
        assert!((found.seconds - expected).abs() < 1e-9, "{found:?}");
        let text = found.to_text(&traced, &limits, 256);
        assert_eq!(text.lines().count(), 1 + 2 + 1 + 1, "{text}");
        let images = format!("{:.0} img/s; at the least 3.00 ms", 256.0 / expected);
        assert!(text.contains(&images), "{text}");
        let json = found.to_json(&traced, &limits, 256);
        assert_eq!(json["by_kernel"][1]["starts"], 2.0);
    }
}

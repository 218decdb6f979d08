//! What a device started in some steps: by kernel and by stage, beside the least time that it can take.

use std::time::Duration;

use bninception_engine::Traced;
use bninception_engine::cuda::launch::Cost;
use serde_json::{Value, json};

use crate::config::Dtype;
use crate::device::DeviceName;
use crate::machine::card::Card;
use crate::terminal::color::Accent;

/// The limits of a card in a number format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes a second.
    pub(super) bandwidth: f64,
    /// Operations a second of products.
    products: f64,
    /// Operations a second of all else.
    others: f64,
}

impl Limits {
    pub(super) fn of(card: &Card, dtype: Dtype) -> Limits {
        let products = match dtype {
            Dtype::Bf16 => card.bf16,
            Dtype::Tf32 => card.tf32,
            Dtype::F32 => card.f32,
        };
        Limits { bandwidth: card.bandwidth, products, others: card.f32 }
    }

    /// Those of a device, if it is a known card.
    pub(super) fn of_device(device: Option<&DeviceName>, dtype: Dtype) -> Option<Limits> {
        let card = Card::by_driver_name(&device?.model)?;
        Some(Limits::of(card, dtype))
    }

    /// Operations a second of a kernel at the most: convolutions may use tensor cores.
    pub(super) fn rate(&self, kernel: &str) -> f64 {
        if is_product(kernel) { self.products } else { self.others }
    }

    /// The least seconds of a start: those of its bytes, or of its operations.
    pub(super) fn floor(&self, started: &Traced) -> f64 {
        self.floor_of(&started.kernel, started.cost)
    }

    /// The same of a kernel that costs so much.
    pub(super) fn floor_of(&self, kernel: &str, cost: Cost) -> f64 {
        let bytes = cost.bytes as f64 / self.bandwidth;
        bytes.max(cost.operations as f64 / self.rate(kernel))
    }
}

/// Whether a kernel is a convolution, which cuDNN computes.
pub(super) fn is_product(kernel: &str) -> bool {
    kernel.starts_with("convolution")
}

/// All starts of one kernel, or of one stage, in a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub(super) name: String,
    /// How often something is started.
    pub(super) starts: f64,
    pub(super) bytes: f64,
    pub(super) operations: f64,
    /// Seconds, if they were measured.
    pub(super) seconds: f64,
    /// The least seconds, of a known card.
    pub(super) floor: Option<f64>,
}

/// What `steps` equal steps started, in groups of the same name in the order of their first start, as of one step.
pub(super) fn groups(
    traced: &[Traced],
    steps: usize,
    limits: Option<&Limits>,
    name: impl Fn(&Traced) -> String,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let part = 1.0 / steps as f64;
    for started in traced {
        let name = name(started);
        let index = groups.iter().position(|group| group.name == name).unwrap_or_else(|| {
            let floor = limits.map(|_| 0.0);
            groups.push(Group { name, floor, ..Group::default() });
            groups.len() - 1
        });
        let group = &mut groups[index];
        group.starts += part;
        group.bytes += part * started.cost.bytes as f64;
        group.operations += part * started.cost.operations as f64;
        group.seconds += part * started.time.unwrap_or(Duration::ZERO).as_secs_f64();
        if let (Some(floor), Some(limits)) = (&mut group.floor, limits) {
            *floor += part * limits.floor(started);
        }
    }
    groups
}

/// Both tables: milliseconds, bytes and operations of a step, and the part of the time that the card needs at least.
pub(super) fn to_text(traced: &[Traced], steps: usize, limits: Option<&Limits>) -> String {
    let by_kernel = groups(traced, steps, limits, |started| started.kernel.clone());
    let by_stage = groups(traced, steps, limits, |started| started.stage.clone());
    [table("kernel", &by_kernel), table("stage", &by_stage)].join("\n\n")
}

fn table(heading: &str, groups: &[Group]) -> String {
    let mut sum = Group { name: "all".to_owned(), ..Group::default() };
    for group in groups {
        sum.starts += group.starts;
        sum.bytes += group.bytes;
        sum.operations += group.operations;
        sum.seconds += group.seconds;
        sum.floor = group.floor.map(|floor| floor + sum.floor.unwrap_or(0.0)).or(sum.floor);
    }
    let width = groups.iter().map(|group| group.name.len()).max().unwrap_or(0).max(heading.len());
    let share = |part: f64, whole: f64| match whole > 0.0 {
        true => format!("{:>6.1}%", 100.0 * part / whole),
        false => format!("{:>7}", "-"),
    };
    let line = |group: &Group| {
        let (ms, floor) = (1e3 * group.seconds, group.floor.map(|floor| 1e3 * floor));
        format!(
            "{:<width$} {:>7.0} {ms:>9.3} {} {:>9.1} {:>9.1} {:>9} {}",
            group.name,
            group.starts,
            share(group.seconds, sum.seconds),
            1e-6 * group.bytes,
            1e-9 * group.operations,
            floor.map_or("-".to_owned(), |floor| format!("{floor:.3}")),
            floor.map_or(format!("{:>7}", "-"), |floor| share(floor, ms)),
        )
    };
    let head = format!(
        "{heading:<width$} {:>7} {:>9} {:>7} {:>9} {:>9} {:>9} {:>7}",
        "starts", "ms", "share", "MB", "GFLOP", "floor ms", "floor"
    );
    [Accent::Strong.paint(&head)]
        .into_iter()
        .chain(groups.iter().map(line))
        .chain([line(&sum)])
        .collect::<Vec<_>>()
        .join("\n")
}

/// The same as an object.
pub(super) fn to_json(traced: &[Traced], steps: usize, limits: Option<&Limits>) -> Value {
    let list = |groups: Vec<Group>| {
        let rows = groups.into_iter().map(|group| {
            json!({
                "name": group.name,
                "starts": group.starts,
                "seconds": group.seconds,
                "bytes": group.bytes,
                "operations": group.operations,
                "floor_seconds": group.floor,
            })
        });
        rows.collect::<Vec<_>>()
    };
    json!({
        "by_kernel": list(groups(traced, steps, limits, |started| started.kernel.clone())),
        "by_stage": list(groups(traced, steps, limits, |started| started.stage.clone())),
        "by_stage_and_kernel": list(groups(traced, steps, limits, |started| {
            format!("{}: {}", started.stage, started.kernel)
        })),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use bninception_engine::cuda::launch::Cost;

    use super::*;

    pub(in super::super) fn started(
        stage: &str,
        kernel: &str,
        cost: [usize; 2],
        ms: u64,
    ) -> Traced {
        let [bytes, operations] = cost;
        Traced {
            stage: stage.to_owned(),
            kernel: kernel.to_owned(),
            cost: Cost { bytes, operations },
            time: (ms > 0).then(|| Duration::from_millis(ms)),
        }
    }

    #[test]
    fn starts_are_added_by_name_and_step() {
        let card = Card::by_key("h100").unwrap();
        let limits = Limits::of(card, Dtype::Bf16);
        // Each of two steps: a convolution of 1 ms at the least by its operations, a pass of 2 ms by its bytes.
        let step = [
            started("conv1", "convolution forward", [3_350_000, 989_000_000_000], 4),
            started("conv1", "bn_apply", [6_700_000_000, 1], 4),
            started("pool1", "bn_apply", [0, 67_000_000_000], 2),
        ];
        let traced = [step.clone(), step].concat();
        let found = groups(&traced, 2, Some(&limits), |started| started.kernel.clone());
        let expected = [("convolution forward", 1.0, 4e-3, 1e-3), ("bn_apply", 2.0, 6e-3, 3e-3)];
        for (group, (name, starts, seconds, floor)) in found.iter().zip(expected) {
            assert_eq!((group.name.as_str(), group.starts), (name, starts));
            let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
            assert!(close(group.seconds, seconds), "{group:?}");
            assert!(close(group.floor.unwrap(), floor), "{group:?}");
        }
        let by_stage = groups(&traced, 2, None, |started| started.stage.clone());
        assert_eq!((by_stage[0].starts, by_stage[1].starts), (2.0, 1.0));
        assert_eq!(by_stage[0].floor, None);
        let text = to_text(&traced, 2, Some(&limits));
        let last = text.lines().last().unwrap();
        let columns: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(columns, ["all", "3", "10.000", "100.0%", "6703.3", "1056.0", "4.000", "40.0%"]);
        assert!(to_text(&traced, 2, None).lines().last().unwrap().ends_with('-'));
        let json = to_json(&traced, 2, Some(&limits));
        assert_eq!(json["by_kernel"][1]["name"], "bn_apply");
        assert_eq!(json["by_stage"][1]["bytes"], 0.0);
        assert_eq!(json["by_stage_and_kernel"][1]["name"], "conv1: bn_apply");
    }

    #[test]
    fn only_convolutions_use_tensor_cores() {
        let card = Card::by_key("a100").unwrap();
        for (dtype, products) in
            [(Dtype::Bf16, 312e12), (Dtype::Tf32, 156e12), (Dtype::F32, 19.5e12)]
        {
            let limits = Limits::of(card, dtype);
            assert_eq!(limits.rate("convolution filter gradient"), products);
            assert_eq!(limits.rate("sgd"), 19.5e12);
        }
    }
}

//! The table of `kernels/README.md`: what each kernel moves and computes, and the least time that takes.
//!
//! Nothing is computed here: kernels are captured, and their costs are noted.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;

use bninception_cuda::device::Noting;
use bninception_cuda::launch::Cost;
use bninception_cuda::ops::batch_norm::{self, Activation, Affine, Running, Statistics};
use bninception_cuda::ops::head::{self, Linear, Loss, REPORT_BYTES, Targets};
use bninception_cuda::ops::lrn::{self, Lrn};
use bninception_cuda::ops::pool::{self, Windows};
use bninception_cuda::ops::update::{self, GATE_BYTES, Norm, PIECE, Sgd};
use bninception_cuda::ops::{image, layout};
use bninception_cuda::sources::KERNELS;
use bninception_cuda::{Device, Format, Host, Map, Region};
use common::host;

const BATCH: usize = 256;
const CLASSES: usize = 1000;
const FEATURES: usize = 1024;

/// About as many as the network has parameters.
const PARAMETERS: usize = 11_000_000;

/// About as many as the network has running statistics.
const STATISTICS: usize = 20_000;

/// Bytes a second of an H100 SXM (<https://www.nvidia.com/en-us/data-center/h100/>) and of an H200
/// (<https://www.nvidia.com/en-us/data-center/h200/>).
const BANDWIDTHS: [f64; 2] = [3.35e12, 4.8e12];

/// Rows of the table by their kernel.
#[derive(Default)]
struct Table(BTreeMap<String, (String, usize, Cost)>);

impl Table {
    /// Adds the kernels that `run` starts and that have no row; `values` are those of the shape.
    fn add(&mut self, device: &mut Host, shape: &str, values: usize, run: impl FnOnce(&mut Host)) {
        device.note(Noting::Starts);
        device.begin_capture().unwrap();
        run(device);
        let graph = device.end_capture().unwrap();
        device.free_graph(graph);
        for note in device.notes() {
            self.0.entry(note.kernel).or_insert((shape.to_owned(), values, note.cost));
        }
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "| kernel | shape | bytes per value | operations per value | MB | µs at 3.35 TB/s | µs at 4.8 TB/s |\n\
             |---|---|---:|---:|---:|---:|---:|\n",
        );
        for (kernel, (shape, values, cost)) in &self.0 {
            let each = |number: usize| number as f64 / *values as f64;
            let [h100, h200] = BANDWIDTHS.map(|bandwidth| cost.bytes as f64 / bandwidth * 1e6);
            writeln!(
                text,
                "| `{kernel}` | {shape} | {:.2} | {:.2} | {:.2} | {h100:.1} | {h200:.1} |",
                each(cost.bytes),
                each(cost.operations),
                cost.bytes as f64 / 1e6,
            )
            .unwrap();
        }
        text
    }
}

fn map(device: &mut Host, [height, width, channels]: [usize; 3]) -> Map {
    let region = device.allocate(BATCH * height * width * channels * 2).unwrap();
    let format = Format::Bf16;
    Map { region, format, batch: BATCH, height, width, stride: channels, first: 0, channels }
}

fn bytes(device: &mut Host, bytes: usize) -> Region {
    device.allocate(bytes).unwrap()
}

fn affine(device: &mut Host, channels: usize) -> Affine {
    Affine { gamma: bytes(device, 4 * channels), beta: bytes(device, 4 * channels) }
}

fn statistics(device: &mut Host, channels: usize) -> Statistics {
    Statistics { mean: bytes(device, 4 * channels), variance: bytes(device, 4 * channels) }
}

fn images(table: &mut Table, device: &mut Host) {
    let to = map(device, [224, 224, image::CHANNELS]);
    let levels = bytes(device, 3 * to.pixels());
    let values = bytes(device, 12 * to.pixels());
    let lookup = bytes(device, 4 * 3 * 256);
    table.add(device, "224x224x8", to.len(), |device| {
        image::levels(device, levels, lookup, &to).unwrap();
        image::values(device, values, &to).unwrap();
    });
}

fn norms(table: &mut Table, device: &mut Host) {
    let channels = 64;
    let [x, y] = [(); 2].map(|()| map(device, [112, 112, channels]));
    let (weights, gradient) = (affine(device, channels), affine(device, channels));
    let from = statistics(device, channels);
    let running = Running { from, to: from, momentum: bytes(device, 4), bias: None };
    let moments = bytes(device, 16 * channels);
    let scratch = bytes(device, batch_norm::scratch_bytes(&x));
    let g = Activation::Relu;
    table.add(device, "112x112x64", x.len(), |device| {
        batch_norm::batch_moments(device, &x, weights, 1e-3, &running, moments, scratch).unwrap();
        batch_norm::normalise(device, g, moments, &x, &y).unwrap();
        batch_norm::gradient_sums(device, g, moments, &y, &x, gradient, scratch).unwrap();
        batch_norm::input_gradient(device, g, moments, &y, &x, gradient).unwrap();
        batch_norm::activation_gradient(device, g, moments, &y, &x).unwrap();
    });
    table.add(device, "64 channels", channels, |device| {
        batch_norm::running_moments(device, weights, from, None, 1e-3, moments).unwrap();
        batch_norm::bias_moments(device, channels, None, moments).unwrap();
    });
}

fn pools(table: &mut Table, device: &mut Host) {
    let [x, y] = [112, 56].map(|side| map(device, [side, side, 64]));
    let winners = bytes(device, y.len());
    let windows = Windows { kernel: [3, 3], stride: 2, pad: [0, 0] };
    table.add(device, "112x112x64 to 56x56", x.len(), |device| {
        pool::max(device, windows, &x, &y, Some(winners)).unwrap();
        pool::max_backward(device, windows, &y, winners, &x, false).unwrap();
    });
    let [x, y] = [(); 2].map(|()| map(device, [28, 28, 192]));
    let windows = Windows { kernel: [3, 3], stride: 1, pad: [1, 1] };
    table.add(device, "28x28x192", x.len(), |device| {
        pool::average(device, windows, &x, &y).unwrap();
        pool::average_backward(device, windows, &y, &x, true).unwrap();
    });
    let x = map(device, [7, 7, FEATURES]);
    let features = bytes(device, 4 * BATCH * FEATURES);
    table.add(device, "7x7x1024", x.len(), |device| {
        pool::global_average(device, &x, features).unwrap();
        pool::global_average_backward(device, features, &x, false).unwrap();
    });
}

fn other_maps(table: &mut Table, device: &mut Host) {
    let [x, y, dx] = [(); 3].map(|()| map(device, [56, 56, 64]));
    let kind = Lrn { size: 5, alpha: 1e-4, beta: 0.75 };
    table.add(device, "56x56x64", x.len(), |device| {
        lrn::forward(device, kind, &x, &y).unwrap();
        lrn::backward(device, kind, &x, &y, &dx, false).unwrap();
    });
    let x = map(device, [7, 7, FEATURES]);
    let planes = bytes(device, 4 * x.len());
    table.add(device, "7x7x1024", x.len(), |device| {
        layout::to_planes(device, &x, planes).unwrap();
    });
    let (x, y) = (map(device, [4, 4, 128]), map(device, [1, 1, 2048]));
    table.add(device, "4x4x128", x.len(), |device| {
        layout::flatten(device, &x, &y).unwrap();
        layout::flatten_backward(device, &y, &x, false).unwrap();
    });
}

fn heads(table: &mut Table, device: &mut Host) {
    let linear = Linear { batch: BATCH, features: FEATURES, classes: CLASSES };
    let [x, mask] = [(); 2].map(|()| bytes(device, 4 * BATCH * FEATURES));
    let [w, dw] = [(); 2].map(|()| bytes(device, 4 * CLASSES * FEATURES));
    let [b, db] = [(); 2].map(|()| bytes(device, 4 * CLASSES));
    let [y, dy] = [(); 2].map(|()| bytes(device, 4 * BATCH * CLASSES));
    table.add(device, "1024 features", BATCH * FEATURES, |device| {
        head::dropout(device, x, mask).unwrap();
    });
    let targets = Targets {
        labels: bytes(device, 4 * BATCH),
        class_weights: bytes(device, 8 * CLASSES),
        shares: bytes(device, 16),
    };
    let (report, gate) = (bytes(device, REPORT_BYTES), bytes(device, GATE_BYTES));
    let scratch = bytes(device, head::loss_scratch_bytes(BATCH));
    table.add(device, "1024 features to 1000 classes", BATCH * CLASSES, |device| {
        linear.forward(device, x, w, b, y).unwrap();
        linear.weight_gradients(device, x, dy, dw, db).unwrap();
    });
    table.add(device, "1000 classes", BATCH * CLASSES, |device| {
        let loss = Loss { linear, targets, weight: 1.0 };
        loss.run(device, y, dy, report, gate, scratch).unwrap();
    });
}

fn updates(table: &mut Table, device: &mut Host) {
    let count = PARAMETERS;
    let [a, b, c] = [(); 3].map(|()| bytes(device, 4 * count));
    let rounded = bytes(device, 2 * count);
    let [number, limit, scale] = [8, 8, 4].map(|size| bytes(device, size));
    let gate = bytes(device, GATE_BYTES);
    let scratch = bytes(device, update::norm_scratch_bytes(a));
    let sgd = Sgd {
        pieces: bytes(device, 16 * count.div_ceil(PIECE)),
        rates: bytes(device, 8),
        constants: bytes(device, 8),
        nesterov: false,
        gradients: a,
        velocity: b,
        weights: c,
        rounded: Some(rounded),
        gate,
    };
    table.add(device, "11 million parameters", count, |device| {
        update::sgd(device, &sgd).unwrap();
        update::average(device, a, limit, b, gate).unwrap();
        update::add(device, a, b).unwrap();
        update::divide(device, a, 2.0).unwrap();
        update::norm(device, a, &Norm { limit, norm: number, scale, gate }, scratch).unwrap();
        layout::to_bf16(device, a, rounded).unwrap();
        layout::from_bf16(device, rounded, a, true).unwrap();
    });
    let [from, to] = [(); 2].map(|()| bytes(device, 4 * STATISTICS));
    table.add(device, "20 thousand statistics", STATISTICS, |device| {
        update::move_statistics(device, from, to, gate).unwrap();
    });
    table.add(device, "a gate", 1, |device| update::settle(device, gate).unwrap());
}

#[test]
fn the_readme_tells_what_kernels_cost() {
    let (mut table, mut device) = (Table::default(), host(1));
    for add in [images, norms, pools, other_maps, heads, updates] {
        add(&mut table, &mut device);
    }
    assert_eq!(table.0.keys().collect::<Vec<_>>(), KERNELS.iter().collect::<Vec<_>>());
    let text = table.text();
    let readme = include_str!("../kernels/README.md");
    assert!(readme.contains(&text), "the table of kernels/README.md has to be\n\n{text}");
}

//! Fully connected layers, dropout and the loss against their definitions in f64.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use bninception_cuda::ops::head::{self, Linear, Loss, REPORT_BYTES, Report, Targets};
use bninception_cuda::ops::update::GATE_BYTES;
use bninception_cuda::{Device, Format, Host, Region};
use common::*;

const LAYERS: [Linear; 7] = [
    Linear { batch: 64, features: 1024, classes: 1000 },
    Linear { batch: 65, features: 33, classes: 31 },
    Linear { batch: 1, features: 1024, classes: 10 },
    Linear { batch: 3, features: 7, classes: 5 },
    Linear { batch: 3, features: 1, classes: 1 },
    Linear { batch: 200, features: 64, classes: 2 },
    Linear { batch: 2, features: 129, classes: 100 },
];

/// Sums over `steps` of products, `[rows][columns]`, and how far sums of f32 may be off.
fn products(sizes: [usize; 3], product: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
    let [rows, columns, steps] = sizes;
    let of = |index: usize| {
        let (row, column) = (index / columns, index % columns);
        (0..steps).map(|step| product(row, column, step)).sum()
    };
    (0..rows * columns).map(of).collect()
}

#[test]
fn layers_and_their_gradients() {
    for layer in LAYERS {
        let Linear { batch, features, classes } = layer;
        let mut random = Random::new(features as u64);
        let [x, w, b, dy] = [batch * features, classes * features, classes, batch * classes]
            .map(|count| random.floats(count));
        let found = repeated(|device| {
            let [x, w, b, dy] = [&x, &w, &b, &dy].map(|values| put_f32(device, values));
            let new = |device: &mut Host, count: usize| put_f32(device, &vec![f32::NAN; count]);
            let [y, dx, dw, db] = [batch * classes, batch * features, classes * features, classes]
                .map(|count| new(device, count));
            layer.forward(device, x, w, b, y).unwrap();
            layer.weight_gradients(device, x, dy, dw, db).unwrap();
            layer.input_gradient(device, dy, w, dx).unwrap();
            [y, dw, db, dx].map(|region| get_f32(device, region)).concat()
        });
        let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
        let mut y = products([batch, classes, features], |n, k, f| {
            product(x[n * features + f], w[k * features + f])
        });
        y.iter_mut().enumerate().for_each(|(index, y)| *y += f64::from(b[index % classes]));
        let dw = products([classes, features, batch], |k, f, n| {
            product(dy[n * classes + k], x[n * features + f])
        });
        let db = products([1, classes, batch], |_, k, n| f64::from(dy[n * classes + k]));
        let dx = products([batch, features, classes], |n, f, k| {
            product(dy[n * classes + k], w[k * features + f])
        });
        // Sums of up to a thousand products of about 1.
        expect_near(&found, &[y, dw, db, dx].concat(), Format::F32, 4e-5);
    }
}

#[test]
fn dropout_multiplies() {
    for count in [1, 1000, 4096, 200_000] {
        let mut random = Random::new(9);
        let (values, mask) = (random.floats(count), random.floats(count));
        let found = repeated(|device| {
            let (values, mask) = (put_f32(device, &values), put_f32(device, &mask));
            head::dropout(device, values, mask).unwrap();
            get_f32(device, values)
        });
        let expected: Vec<f32> = values.iter().zip(&mask).map(|(a, b)| a * b).collect();
        assert_eq!(found, expected);
    }
}

/// A batch with what its images should be taken for.
struct Batch {
    linear: Linear,
    logits: Vec<f32>,
    labels: Vec<u32>,
    class_weights: Vec<f64>,
    smoothing: f64,
    own_share: f64,
    weight: f64,
}

/// What a run of the loss leaves.
struct Told {
    dlogits: Vec<f32>,
    report: Report,
    gate: Vec<u32>,
}

impl Batch {
    fn new(batch: usize, classes: usize) -> Batch {
        let mut random = Random::new((batch * classes) as u64);
        Batch {
            linear: Linear { batch, features: 0, classes },
            logits: random.floats(batch * classes).iter().map(|logit| 3.0 * logit).collect(),
            labels: (0..batch).map(|_| (random.bits() % classes as u64) as u32).collect(),
            class_weights: vec![1.0; classes],
            smoothing: 0.0,
            own_share: 1.0,
            weight: 1.0,
        }
    }

    fn run(&self, device: &mut Host) -> Told {
        let Linear { batch, classes, .. } = self.linear;
        let logits = put_f32(device, &self.logits);
        let targets = Targets {
            labels: put(device, &u32s(&self.labels)),
            class_weights: put(device, &f64s(&self.class_weights)),
            shares: put(device, &f64s(&[self.smoothing, self.own_share])),
        };
        let [dlogits, report, gate, scratch]: [Region; 4] =
            [4 * batch * classes, REPORT_BYTES, GATE_BYTES, head::loss_scratch_bytes(batch)]
                .map(|bytes| device.allocate(bytes).unwrap());
        let loss = Loss { linear: self.linear, targets, weight: self.weight };
        loss.run(device, logits, dlogits, report, gate, scratch).unwrap();
        let report = get(device, report);
        Told {
            dlogits: get_f32(device, dlogits),
            report: Report::of_bytes(report.as_slice().try_into().unwrap()),
            gate: get_u32(device, gate),
        }
    }

    /// `value` of an image's labels by their shares and weights.
    fn over_labels(&self, image: usize, value: impl Fn(usize) -> f64) -> f64 {
        let of = |image: usize| {
            let label = self.labels[image] as usize;
            self.class_weights[label] * value(label)
        };
        let partner = self.labels.len() - 1 - image;
        self.own_share * of(image) + (1.0 - self.own_share) * of(partner)
    }

    /// Loss and gradient by the definition: targets, and the logarithm of softmax.
    fn expected(&self) -> (f64, Vec<f64>) {
        let Linear { batch, classes, .. } = self.linear;
        let mut loss = 0.0;
        let mut gradient = Vec::new();
        for (image, logits) in self.logits.chunks_exact(classes).enumerate() {
            let logits: Vec<f64> = logits.iter().map(|&logit| logit.into()).collect();
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|logit| (logit - max).exp()).sum();
            let log: Vec<f64> = logits.iter().map(|logit| logit - max - sum.ln()).collect();
            let target = |class: usize, label: usize| {
                let own = if class == label { 1.0 - self.smoothing } else { 0.0 };
                own + self.smoothing / classes as f64
            };
            loss += self.over_labels(image, |label| {
                (0..classes).map(|class| -target(class, label) * log[class]).sum()
            });
            gradient.extend((0..classes).map(|class| {
                let of = |label| log[class].exp() - target(class, label);
                self.over_labels(image, of) * self.weight / batch as f64
            }));
        }
        (loss, gradient)
    }

    /// Ranks of the labels, by sorting.
    fn ranks(&self) -> Vec<usize> {
        let classes = self.linear.classes;
        let rank = |(logits, &label): (&[f32], &u32)| {
            let mut order: Vec<usize> = (0..classes).collect();
            order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap().then(a.cmp(&b)));
            order.iter().position(|&class| class == label as usize).unwrap()
        };
        self.logits.chunks_exact(classes).zip(&self.labels).map(rank).collect()
    }

    fn check(&self) {
        let (loss, gradient) = self.expected();
        let ranks = self.ranks();
        let right = |k: usize| ranks.iter().filter(|&&rank| rank < k).count() as u64;
        let found = repeated(|device| {
            let told = self.run(device);
            let Report { loss_sum, top1, top5, not_finite } = told.report;
            assert!((loss_sum - loss).abs() <= 1e-10 * loss.abs(), "{loss_sum}, expected {loss}");
            assert_eq!((top1, top5, not_finite), (right(1), right(5), 0));
            assert_eq!(told.gate, [0, 0]);
            told.dlogits
        });
        expect_near(&found, &gradient, Format::F32, 1e-12);
    }
}

#[test]
fn losses_and_their_gradients() {
    for (batch, classes) in [(64, 1000), (1, 10), (3, 10), (5, 3), (300, 7), (2, 257)] {
        let plain = Batch::new(batch, classes);
        plain.check();
        let mut random = Random::new(5);
        let class_weights: Vec<f64> = (0..classes).map(|_| 1.5 + random.even()).collect();
        Batch { smoothing: 0.1, weight: 0.3, ..Batch::new(batch, classes) }.check();
        let all = Batch { smoothing: 0.1, own_share: 0.7, weight: 0.3, class_weights, ..plain };
        all.check();
    }
}

#[test]
fn equal_logits_are_ranked_by_their_class() {
    for label in 0..7 {
        let batch = Batch {
            logits: vec![0.0, 0.0, -0.0, 0.0, 0.0, 0.0, 1.0],
            labels: vec![label],
            ..Batch::new(1, 7)
        };
        batch.check();
        let report = batch.run(&mut host(1)).report;
        assert_eq!(
            (report.top1, report.top5),
            (u64::from(label == 6), u64::from(label < 4 || label == 6))
        );
    }
}

#[test]
fn far_logits_do_not_overflow() {
    let logits = vec![10_000.0, 0.0, -10_000.0, 1.0];
    Batch { logits, labels: vec![1, 1], ..Batch::new(2, 2) }.check();
}

#[test]
fn an_image_with_a_logit_that_is_not_finite_is_never_right() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // The label has the greatest of the other logits; top-5 would be certain.
        let logits = vec![9.0, bad, 0.0, 9.0, 0.0, 0.0];
        let batch = Batch { logits, labels: vec![0, 0], ..Batch::new(2, 3) };
        let told = batch.run(&mut host(1));
        let Report { top1, top5, not_finite, .. } = told.report;
        assert_eq!((top1, top5, not_finite), (1, 1, 1), "{bad}");
        // Without smoothing too: 0 times the mean of the logits is no number, as on the CPU.
        assert!(!told.report.loss_sum.is_finite(), "{bad}");
        assert_eq!(told.gate, [0, 1], "{bad}");
        assert!(told.dlogits[3..].iter().all(|value| value.is_finite()), "{bad}");
    }
}

#[test]
fn a_label_that_is_no_class_gives_no_loss_and_reads_nothing() {
    let batch = Batch { labels: vec![1, u32::MAX, 2], ..Batch::new(3, 5) };
    let told = batch.run(&mut host(1));
    assert!(told.report.loss_sum.is_nan());
    assert_eq!(told.gate, [0, 1]);
}

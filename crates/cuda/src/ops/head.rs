//! Fully connected layers of logits, dropout, and the loss.

use super::arguments::{PIECE, THREADS, apart, count, double, flag, floats, holds};
use super::update::GATE_BYTES;
use crate::device::Device;
use crate::error::DeviceError;
use crate::launch::{Cost, Launch};
use crate::memory::Region;

/// Rows and columns of the products of a block: `ROWS` and `COLUMNS` of `kernels/head.cu`.
const TILE: [usize; 2] = [64, 32];

/// Columns of a block that adds up columns: `ADDED` of `kernels/head.cu`.
const ADDED: usize = 32;

/// Sizes of a fully connected layer: features `[n][f]`, its matrix `[k][f]`, its bias `[k]`, logits `[n][k]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Images.
    pub batch: usize,
    /// Inputs.
    pub features: usize,
    /// Outputs.
    pub classes: usize,
}

impl Linear {
    /// `logits = features * matrix^T + bias`.
    pub fn forward(
        &self,
        device: &mut dyn Device,
        features: Region,
        matrix: Region,
        bias: Region,
        logits: Region,
    ) -> Result<(), DeviceError> {
        self.check(features, matrix, logits);
        holds(bias, self.classes, 4, "bias");
        let Linear { batch, features: inputs, classes } = *self;
        let product = Product {
            sizes: [batch, classes, inputs],
            left: (features, inputs, 1),
            right: (matrix, 1, inputs),
        };
        product.run(device, Some(bias), logits)
    }

    /// The gradients of matrix and bias, from those of the logits.
    pub fn weight_gradients(
        &self,
        device: &mut dyn Device,
        features: Region,
        dlogits: Region,
        dmatrix: Region,
        dbias: Region,
    ) -> Result<(), DeviceError> {
        self.check(features, dmatrix, dlogits);
        holds(dbias, self.classes, 4, "gradient of the bias");
        apart(&[dbias], &[features, dlogits, dmatrix]);
        let Linear { batch, features: inputs, classes } = *self;
        let product = Product {
            sizes: [classes, inputs, batch],
            left: (dlogits, 1, classes),
            right: (features, inputs, 1),
        };
        product.run(device, None, dmatrix)?;
        // SAFETY: the kernel reads the gradient of all logits and writes a number of each class.
        unsafe {
            device.launch(&Launch {
                kernel: "column_sums",
                blocks: classes.div_ceil(ADDED),
                threads: THREADS,
                regions: &[dlogits, dbias],
                scalars: &[count(batch), count(classes)],
                cost: Cost { bytes: 4 * (batch + 1) * classes, operations: batch * classes },
            })
        }
    }

    /// The gradient of the features.
    pub fn input_gradient(
        &self,
        device: &mut dyn Device,
        dlogits: Region,
        matrix: Region,
        dfeatures: Region,
    ) -> Result<(), DeviceError> {
        self.check(dfeatures, matrix, dlogits);
        let Linear { batch, features: inputs, classes } = *self;
        let product = Product {
            sizes: [batch, inputs, classes],
            left: (dlogits, classes, 1),
            right: (matrix, inputs, 1),
        };
        product.run(device, None, dfeatures)
    }
}

impl Linear {
    /// Panics unless regions hold the features, the matrix and the logits.
    fn check(&self, features: Region, matrix: Region, logits: Region) {
        let Linear { batch, features: inputs, classes } = *self;
        holds(features, batch * inputs, 4, "features");
        holds(matrix, classes * inputs, 4, "matrix");
        holds(logits, batch * classes, 4, "logits");
    }
}

/// A product of two matrices, which hold what `sizes` say.
struct Product {
    /// Rows and columns of the result, and the products of each.
    sizes: [usize; 3],
    /// The left factor, and the distances between its rows and between its columns.
    left: (Region, usize, usize),
    /// The right factor, likewise, but columns first: the distance between the factors of one sum is the first.
    right: (Region, usize, usize),
}

impl Product {
    /// Writes it to `to`, row by row, with a bias for each column.
    fn run(
        &self,
        device: &mut dyn Device,
        bias: Option<Region>,
        to: Region,
    ) -> Result<(), DeviceError> {
        let [rows, columns, steps] = self.sizes;
        let (left, left_row, left_step) = self.left;
        let (right, right_step, right_column) = self.right;
        let bias_or_any = bias.unwrap_or(right);
        apart(&[to], &[left, right, bias_or_any]);
        let values = rows * steps + columns * steps + rows * columns;
        // SAFETY: the caller has checked that the factors, the bias and the result hold what the sizes say; the kernel
        // leaves out what is outside.
        unsafe {
            device.launch(&Launch {
                kernel: "multiply",
                blocks: rows.div_ceil(TILE[0]) * columns.div_ceil(TILE[1]),
                threads: THREADS,
                regions: &[left, right, bias_or_any, to],
                scalars: &[
                    count(rows),
                    count(columns),
                    count(steps),
                    count(left_row),
                    count(left_step),
                    count(right_step),
                    count(right_column),
                    flag(bias.is_some()),
                ],
                cost: Cost { bytes: 4 * values, operations: 2 * rows * columns * steps },
            })
        }
    }
}

/// Multiplies `values` by `mask`, value by value: dropout, and its gradient.
pub fn dropout(device: &mut dyn Device, values: Region, mask: Region) -> Result<(), DeviceError> {
    let length = floats(values, "values");
    assert_eq!(floats(mask, "mask"), length, "values of the mask");
    apart(&[values], &[mask]);
    // SAFETY: the kernel reads both vectors and writes the first.
    unsafe {
        device.launch(&Launch {
            kernel: "dropout",
            blocks: length.div_ceil(PIECE),
            threads: THREADS,
            regions: &[values, mask],
            scalars: &[count(length)],
            cost: Cost { bytes: 12 * length, operations: length },
        })
    }
}

/// What images should be taken for. The target of an image is `1 - smoothing` at its label plus
/// `smoothing / classes` everywhere; where images were mixed in pairs, the first with the last and so on inwards,
/// `own_share` of an image's own label's and the rest of its partner's.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// Class of each image, u32: `[n]`.
    pub labels: Region,
    /// Factor on the loss of each class's images, f64: `[k]`.
    pub class_weights: Region,
    /// `smoothing` and `own_share` (1 where nothing is mixed), f64: `[2]`.
    pub shares: Region,
}

/// Bytes of a batch's [`Report`] in device memory.
pub const REPORT_BYTES: usize = 32;

/// What a batch's loss tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Sum of the images' losses, in f64.
    pub loss_sum: f64,
    /// Images whose label came first.
    pub top1: u64,
    /// Images whose label was among the first five.
    pub top5: u64,
    /// Images with a logit that is not finite.
    pub not_finite: u64,
}

impl Report {
    /// From its bytes.
    pub fn of_bytes(bytes: &[u8; REPORT_BYTES]) -> Report {
        let number = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[index * 8..][..8]);
            u64::from_le_bytes(word)
        };
        let (loss_sum, top1) = (f64::from_bits(number(0)), number(1));
        Report { loss_sum, top1, top5: number(2), not_finite: number(3) }
    }
}

/// The loss: its gradient for logits, `[n][k]`, is that of `weight` times the mean over the images. Fills `report`
/// ([`Report`]). A class beats another by a greater logit, or by an equal one and a lower index. A loss that is not
/// finite sets the gate's second word ([`crate::ops::update`]). `scratch` is of [`loss_scratch_bytes`].
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Images and classes.
    pub linear: Linear,
    /// What they should be taken for.
    pub targets: Targets,
    /// Factor on the gradient.
    pub weight: f64,
}

/// Bytes of scratch of [`Loss::run`].
pub fn loss_scratch_bytes(batch: usize) -> usize {
    batch * 16
}

impl Loss {
    /// Computes it.
    pub fn run(
        &self,
        device: &mut dyn Device,
        logits: Region,
        dlogits: Region,
        report: Region,
        gate: Region,
        scratch: Region,
    ) -> Result<(), DeviceError> {
        let Linear { batch, classes, .. } = self.linear;
        let Targets { labels, class_weights, shares } = self.targets;
        holds(logits, batch * classes, 4, "logits");
        holds(dlogits, batch * classes, 4, "gradient of the logits");
        holds(labels, batch, 4, "labels");
        holds(class_weights, classes, 8, "weights of classes");
        holds(shares, 2, 8, "shares");
        holds(report, REPORT_BYTES / 8, 8, "report");
        holds(gate, GATE_BYTES / 4, 4, "gate");
        holds(scratch, loss_scratch_bytes(batch) / 8, 8, "scratch");
        let read = [logits, labels, class_weights, shares];
        apart(&[dlogits, report, gate, scratch], &read);
        let [weight_low, weight_high] = double(self.weight);
        // SAFETY: the kernel reads all that is checked above, of the classes' weights only those of classes that there
        // are, and writes the gradient of each logit and what each image's loss tells.
        unsafe {
            device.launch(&Launch {
                kernel: "softmax_loss",
                blocks: batch,
                threads: THREADS,
                regions: &[logits, labels, class_weights, shares, dlogits, scratch],
                scalars: &[count(batch), count(classes), weight_low, weight_high],
                cost: Cost { bytes: 8 * batch * classes, operations: 16 * batch * classes },
            })?;
        }
        // SAFETY: the kernel reads what each image's loss tells, and writes the report and the gate.
        unsafe {
            device.launch(&Launch {
                kernel: "loss_report",
                blocks: 1,
                threads: THREADS,
                regions: &[scratch, report, gate],
                scalars: &[count(batch)],
                cost: Cost { bytes: loss_scratch_bytes(batch) + REPORT_BYTES, operations: batch },
            })
        }
    }
}

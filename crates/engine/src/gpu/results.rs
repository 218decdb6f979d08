//! What a step tells: reports of its losses, the gradient's norm, the gate.

use std::ops::Range;

use bninception_cuda::ops::head::{REPORT_BYTES, Report};
use bninception_cuda::ops::update::GATE_BYTES;
use bninception_cuda::{Device, Event, Region};

use crate::error::EngineError;
use crate::metrics::Metrics;

/// Their places in device memory, in one region that is copied to the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Results {
    pub region: Region,
    heads: usize,
}

/// What a step told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Loss as [`crate::BatchResult::loss`] has it.
    pub loss: f64,
    /// The images, counted by the logits.
    pub metrics: Metrics,
    /// Norm of the gradient, if an update was made.
    pub norm: f64,
    /// Whether the gate is closed.
    pub is_closed: bool,
}

/// An update that was started.
pub(super) struct Started {
    pub images: usize,
    pub tells_norm: bool,
    /// Where its results arrive.
    pub told: usize,
    /// When the device began and ended it.
    pub span: [Event; 2],
}

impl Results {
    /// For `heads` heads.
    pub(super) fn new(device: &mut dyn Device, heads: usize) -> Result<Results, EngineError> {
        let region = device.allocate(Results::len(heads))?;
        Ok(Results { region, heads })
    }

    fn len(heads: usize) -> usize {
        heads * REPORT_BYTES + size_of::<f64>() + GATE_BYTES
    }

    /// Bytes.
    pub(super) fn bytes(&self) -> usize {
        Results::len(self.heads)
    }

    /// The report of a head.
    pub(super) fn report(&self, head: usize) -> Region {
        self.region.slice(head * REPORT_BYTES..(head + 1) * REPORT_BYTES)
    }

    fn norm_place(&self) -> Range<usize> {
        let start = self.heads * REPORT_BYTES;
        start..start + size_of::<f64>()
    }

    /// The norm.
    pub(super) fn norm(&self) -> Region {
        self.region.slice(self.norm_place())
    }

    /// The gate.
    pub(super) fn gate(&self) -> Region {
        self.region.slice(self.norm_place().end..self.bytes())
    }

    /// What the bytes of a step of `images` images say.
    pub(super) fn read(&self, bytes: &[u8], images: usize) -> Told {
        let word = |start: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[start..start + 8]);
            u64::from_le_bytes(word)
        };
        let reports = (0..self.heads).map(|head| {
            let mut report = [0; REPORT_BYTES];
            report.copy_from_slice(&bytes[head * REPORT_BYTES..][..REPORT_BYTES]);
            Report::of_bytes(&report)
        });
        let mut loss = 0.0;
        let mut metrics = Metrics::default();
        for report in reports {
            // The last head is that of the logits; an auxiliary one counts only where it is not finite.
            let own = report.loss_sum / images as f64;
            loss = if f64::is_finite(loss) { own } else { loss };
            let Report { loss_sum, top1, top5, not_finite } = report;
            metrics = Metrics::of_counts(images as u64, [top1, top5, not_finite], loss_sum);
        }
        let norm = f64::from_bits(word(self.norm_place().start));
        let is_closed = word(self.norm_place().end) & u64::from(u32::MAX) != 0;
        Told { loss, metrics, norm, is_closed }
    }
}

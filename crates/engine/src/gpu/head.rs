//! A head of the network on a device: global average pool, dropout, fully connected layer, loss, and all their
//! gradients.

use std::ops::Range;

use bninception_cuda::Region;
use bninception_cuda::ops::head::{self, Linear, Loss, Targets};
use bninception_cuda::ops::pool;

use super::plan::{Pass, Planner, UNIT};
use crate::error::EngineError;
use crate::lowering::memory::Buffer;
use crate::lowering::stage::{HeadStage, Place};

/// The head with its memory; rows are images. Ranges are places in the vectors of the device.
pub(super) struct Head {
    linear: Linear,
    input: Place,
    loss_weight: f64,
    weight: Range<usize>,
    bias: Range<usize>,
    features: Buffer,
    /// Gradient of logits and features, and scratch of the loss; the features' only if the input gets a gradient.
    gradients: Option<(Buffer, Option<Buffer>, Buffer)>,
}

/// What a head of training reads besides maps and weights, and where its results go.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadRegions {
    /// Labels and shares.
    pub targets: Targets,
    /// Factors of dropout, `[n][features]`, where the head has it.
    pub mask: Option<Region>,
    /// Logits, `[n][classes]`.
    pub logits: Region,
    /// What the loss tells.
    pub report: Region,
    /// The gate of the update.
    pub gate: Region,
}

impl Head {
    /// Plans the head.
    pub(super) fn new(stage: &HeadStage, planner: &mut Planner<'_>) -> Head {
        let (batch, moment) = (planner.batch, planner.schedule.head_moment());
        planner.schedule.touch_value(&stage.input, moment);
        let linear = Linear { batch, features: stage.features(), classes: stage.classes };
        let bytes = batch * linear.features * UNIT;
        let features = planner.buffer(bytes, moment, moment);
        let gradients = planner.trains.then(|| {
            let logits = planner.buffer(batch * linear.classes * UNIT, moment, moment);
            let gets_gradient = planner.schedule.accumulate(&stage.input, moment).is_some();
            let features = gets_gradient.then(|| planner.buffer(bytes, moment, moment));
            let scratch = planner.buffer(head::loss_scratch_bytes(batch), moment, moment);
            (logits, features, scratch)
        });
        Head {
            linear,
            input: stage.input,
            loss_weight: stage.loss_weight,
            weight: planner.layout.of(&stage.weight),
            bias: planner.layout.of(&stage.bias),
            features,
            gradients,
        }
    }

    /// Computes the mean of each channel, `[n][features]`, and gives its place.
    pub(super) fn pool(&self, pass: &mut Pass<'_>) -> Result<Region, EngineError> {
        let (x, features) = (pass.value(&self.input), pass.region(self.features));
        pool::global_average(pass.device, &x, features)?;
        Ok(features)
    }

    /// Computes the logits of the features.
    pub(super) fn logits(&self, pass: &mut Pass<'_>, logits: Region) -> Result<(), EngineError> {
        let features = pass.region(self.features);
        let weights = pass.vectors.trainable;
        let matrix = weights.elements(self.weight.clone(), UNIT);
        let bias = weights.elements(self.bias.clone(), UNIT);
        self.linear.forward(pass.device, features, matrix, bias, logits)?;
        Ok(())
    }

    /// The map that it reads.
    pub(super) fn input(&self) -> &Place {
        &self.input
    }

    /// Computes logits, loss, and the gradients of weights and input.
    pub(super) fn train(&self, pass: &mut Pass<'_>, to: &HeadRegions) -> Result<(), EngineError> {
        let Some((dlogits, dfeatures, scratch)) = self.gradients else { return Ok(()) };
        let features = self.pool(pass)?;
        if let Some(mask) = to.mask {
            head::dropout(pass.device, features, mask)?;
        }
        self.logits(pass, to.logits)?;
        let (dlogits, scratch) = (pass.region(dlogits), pass.region(scratch));
        let loss = Loss { linear: self.linear, targets: to.targets, weight: self.loss_weight };
        loss.run(pass.device, to.logits, dlogits, to.report, to.gate, scratch)?;

        let of = |vector: Region, range: &Range<usize>| vector.elements(range.clone(), UNIT);
        let gradients = pass.vectors.gradients;
        let (dmatrix, dbias) = (of(gradients, &self.weight), of(gradients, &self.bias));
        self.linear.weight_gradients(pass.device, features, dlogits, dmatrix, dbias)?;
        if let Some(dfeatures) = dfeatures {
            let (dfeatures, dx) = (pass.region(dfeatures), pass.gradient(&self.input));
            let matrix = of(pass.vectors.trainable, &self.weight);
            self.linear.input_gradient(pass.device, dlogits, matrix, dfeatures)?;
            if let Some(mask) = to.mask {
                head::dropout(pass.device, dfeatures, mask)?;
            }
            pool::global_average_backward(pass.device, dfeatures, &dx, false)?;
        }
        Ok(())
    }
}

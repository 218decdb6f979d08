//! A head of the network in training, main or auxiliary: global average pool, dropout, fully
//! connected layer, loss, and all their gradients.

use std::ops::Range;

use bninception_kernels::element::Element;
use bninception_kernels::linear::Linear;
use bninception_kernels::loss::softmax_cross_entropy;
use bninception_kernels::pool::{global_average, global_average_backward};
use bninception_kernels::run::Run;
use bninception_model::Weights;
use bninception_model::dropout::dropout_mask;

use super::plan::{Context, Planner};
use crate::executor::TrainBatch;
use crate::lowering::memory::disjoint;
use crate::lowering::stage::HeadStage;
use crate::profile::Phase;

/// The head with its memory; rows are images.
pub(super) struct Head {
    layers: HeadStage,
    features: Vec<f32>,
    features_gradient: Vec<f32>,
    mask: Vec<f32>,
    logits_gradient: Vec<f32>,
    losses: Vec<f64>,
    /// Whether what is averaged gets a gradient.
    has_input_gradient: bool,
}

impl Head {
    /// Plans the head.
    pub(super) fn new(layers: &HeadStage, planner: &mut Planner<'_>) -> Head {
        let (batch, moment) = (planner.batch, planner.schedule.head_moment());
        planner.schedule.touch_value(&layers.input, moment);
        let has_input_gradient = planner.schedule.accumulate(&layers.input, moment).is_some();
        let features = batch * layers.features();
        Head {
            features: vec![0.0; features],
            features_gradient: vec![0.0; features],
            mask: vec![0.0; if layers.dropout.is_some() { features } else { 0 }],
            logits_gradient: vec![0.0; batch * layers.classes],
            losses: vec![0.0; batch],
            has_input_gradient,
            layers: layers.clone(),
        }
    }

    /// Places of its trainable tensors, the last first.
    pub(super) fn tensors(&self) -> [Range<usize>; 2] {
        [self.layers.bias.clone(), self.layers.weight.clone()]
    }

    /// Fills `logits`, the gradients of the head's weights and that of its input, if it gets one; returns the
    /// mean loss, without its weight.
    pub(super) fn run<E: Element>(
        &mut self,
        row: usize,
        cx: &mut Context<'_>,
        batch: &TrainBatch<'_>,
        weights: &Weights,
        gradients: &mut [f32],
        logits: &mut [f32],
    ) -> f64 {
        let (team, isa, images) = (cx.team, cx.settings.isa, cx.batch);
        let HeadStage { input, dropout, weight, bias, classes, loss_weight, .. } = &self.layers;
        let run = Run { team, isa, dtype: cx.settings.dtype };
        let linear = Linear { features: self.layers.features(), classes: *classes };
        let [x] = cx.get([cx.slots.value(input)]);
        global_average(run, input.of(E::of_region(x), images), &mut self.features);
        if let Some((layer, probability)) = *dropout {
            dropout_mask(batch.seed, batch.number, layer, probability, &mut self.mask);
            multiply(&mut self.features, &self.mask);
        }
        let (w, b) = (&weights.trainable[weight.clone()], &weights.trainable[bias.clone()]);
        linear.forward(team, isa, &self.features, w, b, logits);
        let dlogits = &mut self.logits_gradient;
        softmax_cross_entropy(team, &batch.targets(*classes), logits, dlogits, &mut self.losses);
        if *loss_weight != 1.0 {
            let factor = *loss_weight as f32;
            dlogits.iter_mut().for_each(|d| *d *= factor);
        }
        cx.clock.lap(row, Phase::Forward);

        let [dw, db] = disjoint(gradients, [weight.clone(), bias.clone()]);
        linear.backward_weights(team, isa, &self.features, dlogits, dw, db);
        cx.clock.lap(row, Phase::WeightGradient);

        if self.has_input_gradient {
            let dx = &mut self.features_gradient;
            linear.backward_input(team, isa, dlogits, w, dx);
            if dropout.is_some() {
                multiply(dx, &self.mask);
            }
            let [dmap] = cx.get([cx.slots.gradient(input)]);
            global_average_backward(team, dx, input.of_mut(E::of_region_mut(dmap), images));
            cx.clock.lap(row, Phase::InputGradient);
        }
        self.losses.iter().sum::<f64>() / images as f64
    }
}

/// Multiplies value by value.
fn multiply(values: &mut [f32], factors: &[f32]) {
    for (value, factor) in values.iter_mut().zip(factors) {
        *value *= factor;
    }
}

//! A stage of the network on a device, with its memory.

use bninception_cuda::ops::lrn::Lrn;
use bninception_cuda::ops::pool::Windows;
use bninception_cuda::ops::{layout, lrn, pool};
use bninception_kernels::map::Map;
use bninception_model::layer::{Pool, PoolKind};

use super::convolution::{Convolution, Moments};
use super::plan::{Pass, Planner};
use crate::error::EngineError;
use crate::lowering::memory::Buffer;
use crate::lowering::stage::{Place, Stage};

/// A stage with its memory.
pub(super) struct Work {
    input: Option<Place>,
    output: Option<Place>,
    /// Whether the gradient of the input is added to what is there; `None` if the input gets none.
    accumulate: Option<bool>,
    kind: Kind,
}

enum Kind {
    Convolution(Box<Convolution>),
    Max { windows: Windows, winners: Option<Buffer> },
    Average(Windows),
    Flatten,
    Lrn(Lrn),
}

impl Work {
    /// Plans stage `row`. Where it trains, stages come in backward order, because that order decides who writes a
    /// gradient and who adds to it.
    pub(super) fn new(
        row: usize,
        stage: &Stage,
        planner: &mut Planner<'_>,
    ) -> Result<Work, EngineError> {
        let (input, output, kind) = match stage {
            Stage::Conv(stage) => {
                let kind = Kind::Convolution(Box::new(Convolution::new(row, stage, planner)?));
                return Ok(Work { input: None, output: None, accumulate: None, kind });
            }
            Stage::MaxPool { pool, input, output, .. } => {
                let windows = pool_windows(pool.stride, &input.map);
                let winners = planner.trains.then(|| {
                    let map = &output.map;
                    let bytes = planner.batch * map.channels * map.height * map.width;
                    let back = planner.schedule.backward_moment(row);
                    planner.buffer(bytes, row, back)
                });
                (*input, *output, Kind::Max { windows, winners })
            }
            Stage::AveragePool { input, output, .. } => {
                (*input, *output, Kind::Average(pool_windows(1, &input.map)))
            }
            Stage::WindowAverage { pool, input, output, .. } => {
                let kernel = [input.map.height, input.map.width].map(|n| n.min(pool.kernel));
                let windows = Windows { kernel, stride: pool.stride, pad: [0, 0] };
                (*input, *output, Kind::Average(windows))
            }
            Stage::Flatten { input, output, .. } => (*input, *output, Kind::Flatten),
            Stage::Lrn { lrn, input, output, .. } => {
                let lrn = Lrn { size: lrn.size, alpha: lrn.alpha, beta: lrn.beta };
                if planner.trains {
                    planner.schedule.touch_value(input, planner.schedule.backward_moment(row));
                }
                (*input, *output, Kind::Lrn(lrn))
            }
        };
        let accumulate = if planner.trains {
            planner.schedule.linear(&input, &output, row)
        } else {
            planner.schedule.touch_value(&input, row);
            planner.schedule.touch_value(&output, row);
            None
        };
        Ok(Work { input: Some(input), output: Some(output), accumulate, kind })
    }

    /// The convolutions, if it has some.
    pub(super) fn convolution(&self) -> Option<&Convolution> {
        match &self.kind {
            Kind::Convolution(convolution) => Some(convolution),
            _ => None,
        }
    }

    /// Computes its output.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, from: Moments) -> Result<(), EngineError> {
        if let Kind::Convolution(convolution) = &self.kind {
            return convolution.forward(pass, from);
        }
        let (Some(input), Some(output)) = (&self.input, &self.output) else { return Ok(()) };
        let (x, y) = (pass.value(input), pass.value(output));
        match &self.kind {
            Kind::Convolution(_) => {}
            Kind::Max { windows, winners } => {
                let winners = winners.map(|winners| pass.region(winners));
                pool::max(pass.device, *windows, &x, &y, winners)?;
            }
            Kind::Average(windows) => pool::average(pass.device, *windows, &x, &y)?,
            Kind::Flatten => layout::flatten(pass.device, &x, &y)?,
            Kind::Lrn(constants) => lrn::forward(pass.device, *constants, &x, &y)?,
        }
        Ok(())
    }

    /// Computes the gradients of its weights and of its input.
    pub(super) fn backward(&self, pass: &mut Pass<'_>) -> Result<(), EngineError> {
        if let Kind::Convolution(convolution) = &self.kind {
            return convolution.backward(pass);
        }
        // What frozen layers made gets no gradient.
        let (Some(input), Some(output), Some(accumulate)) =
            (&self.input, &self.output, self.accumulate)
        else {
            return Ok(());
        };
        let (dy, dx) = (pass.gradient(output), pass.gradient(input));
        match &self.kind {
            Kind::Convolution(_) => {}
            Kind::Max { windows, winners } => {
                let Some(winners) = winners.map(|winners| pass.region(winners)) else {
                    return Ok(());
                };
                pool::max_backward(pass.device, *windows, &dy, winners, &dx, accumulate)?;
            }
            Kind::Average(windows) => {
                pool::average_backward(pass.device, *windows, &dy, &dx, accumulate)?;
            }
            Kind::Flatten => layout::flatten_backward(pass.device, &dy, &dx, accumulate)?,
            Kind::Lrn(constants) => {
                let x = pass.value(input);
                lrn::backward(pass.device, *constants, &x, &dy, &dx, accumulate)?;
            }
        }
        Ok(())
    }
}

/// The windows of a 3x3 pool over `map`: the one rule of all pools.
fn pool_windows(stride: usize, map: &Map) -> Windows {
    // The kind does not change where windows lie.
    let pool = Pool { kind: PoolKind::Max, stride };
    let pad = [map.height, map.width].map(|n| pool.pad_before(n));
    Windows { kernel: [Pool::KERNEL; 2], stride, pad }
}

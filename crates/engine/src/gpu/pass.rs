//! The plan of a pass through the network for one batch size: its stages and heads, and places for their buffers.

use bninception_cuda::{Device, Map, Region};

use super::convolution::Moments;
use super::head::{Head, HeadRegions};
use super::layout::Layout;
use super::plan::{Pass, Planner, Settings, UNIT, Vectors};
use super::stage::Work;
use crate::error::EngineError;
use crate::lowering::lower::Lowered;
use crate::lowering::memory::Buffer;
use crate::lowering::schedule::Slots;

/// A planned pass.
pub(super) struct Plan {
    batch: usize,
    settings: Settings,
    slots: Slots,
    workspace: Buffer,
    /// Channels of each map.
    widths: Vec<usize>,
    works: Vec<Work>,
    /// Auxiliary heads, then that of the logits.
    heads: Vec<Head>,
    /// The map that frozen layers made or make.
    frozen: Option<Buffer>,
    /// Channels of all stages that have moments.
    moments: usize,
}

/// What a pass runs on besides its plan.
pub(super) struct Machine<'a> {
    pub device: &'a mut dyn Device,
    pub arena: Region,
    pub moments: Region,
    pub vectors: Vectors,
    /// Label of the first stage ([`Device::label`]).
    pub first_label: usize,
}

impl Plan {
    /// Plans a pass over `batch` images; with `trains`, a backward pass too.
    pub(super) fn new(
        device: &mut dyn Device,
        settings: Settings,
        layout: &Layout,
        lowered: &Lowered,
        batch: usize,
        trains: bool,
    ) -> Result<Plan, EngineError> {
        let mut planner = Planner::new(device, settings, layout, lowered, batch, trains);
        let heads: Vec<Head> =
            lowered.heads.iter().map(|head| Head::new(head, &mut planner)).collect();
        let rows = lowered.stages.iter().enumerate();
        let works: Result<Vec<Work>, EngineError> = if trains {
            // In backward order, because that order decides who writes a gradient and who adds to it.
            rows.rev().map(|(row, stage)| Work::new(row, stage, &mut planner)).collect()
        } else {
            rows.map(|(row, stage)| Work::new(row, stage, &mut planner)).collect()
        };
        let mut works = works?;
        if trains {
            works.reverse();
        }
        if let (false, Some(frozen)) = (trains, &lowered.frozen) {
            let end = planner.schedule.head_moment();
            planner.schedule.touch_value(frozen, end);
        }
        let (workspace, moments) = (planner.workspace, planner.moments);
        let slots = planner.schedule.place();
        let frozen = lowered.frozen.map(|place| slots.value(&place));
        let widths = lowered.maps.iter().map(|map| map.channels).collect();
        Ok(Plan { batch, settings, slots, workspace, widths, works, heads, frozen, moments })
    }

    /// Images of a batch.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// Bytes of the arena.
    pub(super) fn arena_bytes(&self) -> usize {
        self.slots.places.total * UNIT
    }

    /// Channels that have moments.
    pub(super) fn moments(&self) -> usize {
        self.moments
    }

    /// The heads, that of the logits last.
    pub(super) fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// What its stages share while it runs.
    pub(super) fn on<'a>(&'a self, machine: Machine<'a>) -> Running<'a> {
        let Machine { device, arena, moments, vectors, first_label } = machine;
        let pass = Pass {
            device,
            settings: self.settings,
            batch: self.batch,
            slots: &self.slots,
            widths: &self.widths,
            arena,
            moments,
            workspace: self.workspace,
            vectors,
        };
        Running { plan: self, pass, first_label }
    }
}

/// A plan on a device.
pub(super) struct Running<'a> {
    plan: &'a Plan,
    pub pass: Pass<'a>,
    first_label: usize,
}

impl Running<'_> {
    /// Where the images go, `[n][h][w][8]`: what the first convolution reads.
    pub(super) fn image(&self) -> Map {
        let mut convolutions = self.plan.works.iter().filter_map(Work::convolution);
        let image = convolutions.find_map(|convolution| convolution.image(&self.pass));
        image.unwrap_or_else(|| unreachable!("the first convolution reads the image"))
    }

    /// The map that frozen layers made or make.
    pub(super) fn frozen(&self) -> Option<Region> {
        self.plan.frozen.map(|buffer| self.pass.region(buffer))
    }

    /// Runs all stages forward; `show` is called behind each.
    pub(super) fn forward(
        &mut self,
        from: Moments,
        show: &mut Show<'_>,
    ) -> Result<(), EngineError> {
        for (row, work) in self.plan.works.iter().enumerate() {
            self.pass.device.label(self.first_label + row);
            work.forward(&mut self.pass, from)?;
            show(&mut self.pass, work)?;
        }
        Ok(())
    }

    /// Runs the heads of training, each with its regions, and all stages backward.
    pub(super) fn backward(&mut self, heads: &[HeadRegions]) -> Result<(), EngineError> {
        let n = self.plan.works.len();
        for (index, (head, regions)) in self.plan.heads.iter().zip(heads).enumerate() {
            self.pass.device.label(self.first_label + n + index);
            head.train(&mut self.pass, regions)?;
        }
        for (row, work) in self.plan.works.iter().enumerate().rev() {
            self.pass.device.label(self.first_label + row);
            work.backward(&mut self.pass)?;
        }
        Ok(())
    }

    /// Computes the logits of evaluation, and gives the place of the features.
    pub(super) fn logits(&mut self, logits: Region) -> Result<Option<Region>, EngineError> {
        let Some(head) = self.plan.heads.last() else { return Ok(None) };
        self.pass.device.label(self.first_label + self.plan.works.len());
        let features = head.pool(&mut self.pass)?;
        head.logits(&mut self.pass, logits)?;
        Ok(Some(features))
    }

    /// Fills the moments of all stages from running statistics.
    pub(super) fn running_moments(&mut self) -> Result<(), EngineError> {
        let mut convolutions = self.plan.works.iter().filter_map(Work::convolution);
        convolutions.try_for_each(|convolution| convolution.running_moments(&mut self.pass))
    }
}

/// Called behind a stage, while its buffers are intact.
pub(super) type Show<'a> = dyn FnMut(&mut Pass<'_>, &Work) -> Result<(), EngineError> + 'a;

/// Shows nothing.
pub(super) fn unseen(_: &mut Pass<'_>, _: &Work) -> Result<(), EngineError> {
    Ok(())
}

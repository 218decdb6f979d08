//! Training, evaluation or the frozen layers: their stages, plans, memory, and what was captured of them.

use bninception_cuda::ops::batch_norm::MOMENTS;
use bninception_cuda::{Device, Graph, Region};

use super::layout::Layout;
use super::pass::{Machine, Plan, Running};
use super::plan::{Settings, UNIT, Vectors};
use crate::error::EngineError;
use crate::lowering::lower::Lowered;

/// Batch sizes whose plans are kept: that of most batches, and that of an epoch's last one.
const KEPT_PLANS: usize = 2;

/// What was captured of a plan, and what it depends on besides the batch size.
pub(super) struct Captured<Key> {
    key: Key,
    /// `None` where it has run once and was not captured yet.
    graph: Option<Graph>,
}

/// One side of the engine.
pub(super) struct Side<Key> {
    pub lowered: Lowered,
    trains: bool,
    first_label: usize,
    /// The plans made last, newest last, each with what was captured of it.
    plans: Vec<(Plan, Vec<Captured<Key>>)>,
    arena: Option<Region>,
    moments: Option<Region>,
    /// Whether the moments are those of the running statistics.
    pub has_moments: bool,
}

impl<Key: PartialEq> Side<Key> {
    /// Of `lowered`, whose stages have labels from `first_label` on.
    pub(super) fn new(lowered: Lowered, trains: bool, first_label: usize) -> Side<Key> {
        let (plans, arena, moments, has_moments) = (Vec::new(), None, None, false);
        Side { lowered, trains, first_label, plans, arena, moments, has_moments }
    }

    /// Plans a batch without taking memory.
    pub(super) fn plan(
        &self,
        device: &mut dyn Device,
        settings: Settings,
        layout: &Layout,
        batch: usize,
    ) -> Result<Plan, EngineError> {
        Plan::new(device, settings, layout, &self.lowered, batch, self.trains)
    }

    /// Makes the plan for `batch` images, and room for it, if there is none.
    pub(super) fn prepare(
        &mut self,
        device: &mut dyn Device,
        settings: Settings,
        layout: &Layout,
        batch: usize,
    ) -> Result<(), EngineError> {
        let known = self.plans.iter().position(|(plan, _)| plan.batch() == batch);
        if let Some(known) = known {
            // The one used last is the last to go.
            let plan = self.plans.remove(known);
            self.plans.push(plan);
            return Ok(());
        }
        let plan = self.plan(device, settings, layout, batch)?;
        if self.plans.len() == KEPT_PLANS {
            let (_, captured) = self.plans.remove(0);
            free_graphs(device, captured);
        }
        if self.arena.is_none_or(|arena| arena.bytes() < plan.arena_bytes()) {
            // What was captured holds addresses in the old arena, which goes first: both could exceed the memory.
            self.forget_captured(device);
            if let Some(arena) = self.arena.take() {
                device.synchronise()?;
                device.free(arena);
            }
            match device.allocate(plan.arena_bytes()) {
                Ok(arena) => self.arena = Some(arena),
                Err(error) => {
                    // Without an arena no plan can run.
                    self.plans.clear();
                    return Err(error.into());
                }
            }
        }
        if self.moments.is_none() {
            self.moments = Some(device.allocate(plan.moments().max(1) * MOMENTS * UNIT)?);
            self.has_moments = false;
        }
        self.plans.push((plan, Vec::new()));
        Ok(())
    }

    /// Gives back all that was captured, because what it reads has moved.
    pub(super) fn forget_captured(&mut self, device: &mut dyn Device) {
        for (_, captured) in &mut self.plans {
            free_graphs(device, std::mem::take(captured));
        }
    }

    /// The plan for `batch` images, which [`Side::prepare`] has made.
    pub(super) fn planned(&self, batch: usize) -> &Plan {
        let found = self.plans.iter().find(|(plan, _)| plan.batch() == batch);
        &found.unwrap_or_else(|| unreachable!("the plan was made before")).0
    }

    /// That plan on the device.
    pub(super) fn on<'a>(
        &'a self,
        device: &'a mut dyn Device,
        vectors: Vectors,
        batch: usize,
    ) -> Running<'a> {
        let none = Region::none();
        let (arena, moments) = (self.arena.unwrap_or(none), self.moments.unwrap_or(none));
        let first_label = self.first_label;
        self.planned(batch).on(Machine { device, arena, moments, vectors, first_label })
    }

    /// What was captured of the plan for `batch` images under `key`: `None` if it has never run, nothing inside if
    /// it has run without a capture.
    pub(super) fn captured(&self, batch: usize, key: &Key) -> Option<Option<&Graph>> {
        let (_, captured) = self.plans.iter().find(|(plan, _)| plan.batch() == batch)?;
        captured.iter().find(|captured| captured.key == *key).map(|known| known.graph.as_ref())
    }

    /// Keeps what was captured of it, or that it has run.
    pub(super) fn keep_captured(&mut self, batch: usize, key: Key, graph: Option<Graph>) {
        if let Some((_, captured)) = self.plans.iter_mut().find(|(plan, _)| plan.batch() == batch) {
            captured.retain(|known| known.key != key);
            captured.push(Captured { key, graph });
        }
    }
}

fn free_graphs<Key>(device: &mut dyn Device, captured: Vec<Captured<Key>>) {
    let graphs = captured.into_iter().filter_map(|captured| captured.graph);
    graphs.for_each(|graph| device.free_graph(graph));
}

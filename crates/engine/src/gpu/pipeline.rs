//! Updates whose results come later: the device computes while the caller goes on.

use bninception_cuda::{Event, Stream};

use super::inputs::SLOTS;
use super::network::{Captures, Gpu};
use super::pass::unseen;
use super::results::Started;
use crate::error::EngineError;
use crate::executor::{Fate, Finished, Pipeline, StepResult, TrainBatch, Update, UpdateResult};

/// Updates that may be under way: one that runs, and one whose inputs are copied.
const UNDER_WAY: usize = SLOTS;

impl Gpu {
    /// The result of the oldest update, when it is done.
    fn finish_oldest(&mut self) -> Result<Option<Finished>, EngineError> {
        let Some(&Started { images, tells_norm, told, span }) = self.started.front() else {
            return Ok(None);
        };
        let bytes = self.device.pinned(self.ring[told])?;
        let told = self.results.read(bytes, images);
        self.started.pop_front();
        self.note_idle(span)?;
        let is_refused = !(told.loss.is_finite() && told.norm.is_finite());
        let fate = match (self.has_failed, told.is_closed) {
            (true, _) => Fate::Skipped,
            (false, false) => Fate::Done,
            (false, true) if is_refused => Fate::Refused,
            (false, true) => Fate::Broken,
        };
        self.has_failed |= fate != Fate::Done;
        Ok(Some(Finished {
            step: StepResult { micro_batches: 1, loss: told.loss, metrics: told.metrics },
            update: UpdateResult {
                is_finite: fate == Fate::Done,
                gradient_norm: tells_norm.then_some(told.norm),
            },
            fate,
        }))
    }

    /// Adds the time between the last update and one that took `span`.
    fn note_idle(&mut self, span: [Event; 2]) -> Result<(), EngineError> {
        let [begin, end] = span;
        if let Some(last) = self.last_end.replace(end) {
            self.idle_seconds += self.device.elapsed(last, begin)?.as_secs_f64();
            self.device.free_event(last);
        }
        self.device.free_event(begin);
        Ok(())
    }

    /// Waits for all updates under way, and forgets what they tell.
    pub(super) fn forget_started(&mut self) -> Result<(), EngineError> {
        if !self.started.is_empty() {
            self.device.synchronise()?;
        }
        for Started { span, .. } in self.started.drain(..) {
            span.into_iter().for_each(|event| self.device.free_event(event));
        }
        // The time until the next update is not that of an update.
        if let Some(last) = self.last_end.take() {
            self.device.free_event(last);
        }
        self.waiting.clear();
        self.has_failed = false;
        Ok(())
    }
}

impl Pipeline for Gpu {
    fn start(&mut self, batch: &TrainBatch<'_>, update: &Update<'_>) -> Result<(), EngineError> {
        self.check(batch)?;
        if self.started.len() >= UNDER_WAY
            && let Some(finished) = self.finish_oldest()?
        {
            self.waiting.push_back(finished);
        }
        if self.started.is_empty() && !self.has_failed {
            self.open_gate()?;
        }
        self.state_changes();
        self.begin_update();
        while self.ring.len() <= UNDER_WAY {
            self.ring.push(self.device.allocate_pinned(self.results.bytes())?);
        }
        let brought = self.bring(batch)?;
        self.bring_update(update)?;
        // Images that the device had to wait for count as a time without work.
        let begin = self.device.record(Stream::Compute)?;
        let (images, nesterov) = (brought.images, update.sgd.nesterov);
        let key = Captures::Update { nesterov, has_average: self.state.average().is_some() };
        self.started_as(images, key, |gpu| {
            gpu.start_gradients(&brought, &mut unseen)?;
            gpu.start_update(1, nesterov)
        })?;
        let told = self.next_told;
        self.next_told = (told + 1) % self.ring.len();
        self.device.download(self.results.region, self.ring[told], Stream::Compute)?;
        let tells_norm = update.tell_norm || update.clip_norm > 0.0;
        let span = [begin, self.device.record(Stream::Compute)?];
        self.started.push_back(Started { images, tells_norm, told, span });
        self.last_batch = images;
        self.largest_batch = self.largest_batch.max(images);
        Ok(())
    }

    fn finished(&mut self, wait: bool) -> Result<Vec<Finished>, EngineError> {
        let mut finished: Vec<Finished> = self.waiting.drain(..).collect();
        while let Some(Started { told, .. }) = self.started.front() {
            let told = self.ring[*told];
            if !wait && !self.device.is_ready(told)? {
                break;
            }
            finished.extend(self.finish_oldest()?);
        }
        Ok(finished)
    }

    fn idle_seconds(&mut self) -> f64 {
        std::mem::take(&mut self.idle_seconds)
    }
}

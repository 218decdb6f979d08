//! `train --dry-run`: what a run would be, what it takes, and how long.

use std::path::Path;
use std::sync::Arc;

use bninception_data::{FileSource, Source};
use serde_json::{Value, json};

use super::plan::RunPlan;
use super::run;
use crate::commands::print;
use crate::device::CPU;
use crate::error::Error;
use crate::setup;
use crate::terminal::loss::loss_text;
use crate::terminal::output::with_path;
use crate::terminal::text::{counted, duration};
use crate::training::pace::{FirstStep, Pace, measure};
use crate::training::resources::Room;

/// A run that was looked at and not begun.
pub(super) struct DryRun<'a> {
    plan: &'a RunPlan,
    room: &'a Room,
    first: FirstStep,
    pace: Pace,
    steps_per_epoch: u64,
    total_steps: u64,
}

impl<'a> DryRun<'a> {
    /// Makes a few updates of a state that is thrown away. Writes nothing.
    pub(super) fn measure(plan: &'a mut RunPlan, room: &'a Room) -> Result<DryRun<'a>, Error> {
        let decode = setup::decode_options(&plan.config);
        let train: Arc<dyn Source> = Arc::new(FileSource::new(plan.splits.train.clone(), decode)?);
        let val: Arc<dyn Source> = Arc::new(FileSource::new(plan.splits.val.clone(), decode)?);
        let (steps_per_epoch, total_steps) = setup::steps(&plan.config, train.len());
        run::warn_of_splits(&plan.config, &plan.splits);
        let weights = run::class_weights(&plan.config, &plan.splits)?;
        let state = plan.first_state(false);
        let (first, pace) =
            measure(&plan.config, plan.placed.executor.as_mut(), state, train, val, weights)?;
        Ok(DryRun { plan, room, first, pace, steps_per_epoch, total_steps })
    }

    pub(super) fn print(&self, as_json: bool) -> Result<(), Error> {
        match as_json {
            true => print::json(&self.to_json()),
            false => print::text(&self.to_text()),
        }
    }

    fn to_text(&self) -> String {
        let DryRun { plan, first, pace, .. } = self;
        let loading = match pace.waits_for_loading() {
            true => format!(
                "; the network waits for images, {} a batch, so try more --workers or `data pack`",
                short(pace.loading_seconds)
            ),
            false => String::new(),
        };
        format!(
            "data {}: {}, {} and {}\n\
             recipe {}\n\
             {}\n\
             plan: {} of {}, {} an epoch\n\
             first step: loss {} in {:.2} s (it includes setting up)\n\
             time: about {} an epoch, {} in all ({} a step, {} an evaluation, from {}){loading}\n\
             {}\n\
             dry run: nothing was written",
            plan.data_name(),
            counted(plan.splits.classes.len() as u64, "class"),
            counted(plan.splits.train.len() as u64, "training image"),
            counted(plan.splits.val.len() as u64, "validation image"),
            plan.recipe,
            plan.placed.executor.describe(),
            counted(self.total_steps, "step"),
            run::per_update(&plan.config),
            self.steps_per_epoch,
            loss_text(first.loss, plan.splits.classes.len()),
            first.seconds,
            short(pace.epoch_seconds(self.steps_per_epoch)),
            short(pace.run_seconds(self.total_steps, self.steps_per_epoch)),
            short(pace.step_seconds()),
            short(pace.evaluation_seconds),
            counted(pace.n_timed as u64, "timed batch"),
            self.room,
        )
    }

    fn to_json(&self) -> Value {
        let DryRun { plan, first, pace, room, .. } = self;
        let about = json!({
            "dry_run": true,
            "recipe": plan.recipe,
            "classes": plan.splits.classes,
            "training_images": plan.splits.train.len(),
            "validation_images": plan.splits.val.len(),
            "engine": plan.placed.executor.describe(),
            "batch_size": plan.config.train.batch_size,
            "accumulate": plan.config.train.accumulate,
            "steps": self.total_steps,
            "steps_per_epoch": self.steps_per_epoch,
            "first_step": {
                "images": first.images,
                "loss": Some(first.loss).filter(|loss| loss.is_finite()),
                "seconds": first.seconds,
            },
            "step_seconds": pace.step_seconds(),
            "loading_seconds": pace.accumulate as f64 * pace.loading_seconds,
            "evaluation_seconds": pace.evaluation_seconds,
            "epoch_seconds": pace.epoch_seconds(self.steps_per_epoch),
            "run_seconds": pace.run_seconds(self.total_steps, self.steps_per_epoch),
            "timed_batches": pace.n_timed,
            "memory_bytes": room.needs.memory,
            "memory_free_bytes": room.free.memory.as_ref().map(|free| free.bytes),
            "device": plan.placed.device.as_ref().map_or(CPU.to_owned(), |name| name.to_string()),
            "device_memory_bytes": room.device.as_ref().map(|memory| memory.needed),
            "device_memory_free_bytes": room.device.as_ref().map(|memory| memory.free),
            "device_memory_total_bytes": room.device.as_ref().map(|memory| memory.total),
            "disk_bytes": room.needs.disk,
            "disk_free_bytes": room.free.disk,
            "checkpoint_bytes": room.needs.checkpoint,
        });
        match plan.config.data.dir.is_empty() {
            // The embedded pictures have no folder yet.
            true => with_path("data_dir", Path::new(""), about),
            false => with_path("data_dir", &plan.dirs.dir, about),
        }
    }
}

/// Seconds, with a digit behind the point where they are few.
fn short(seconds: f64) -> String {
    match seconds {
        ..0.1 => format!("{:.0} ms", 1000.0 * seconds),
        ..10.0 => format!("{seconds:.1} s"),
        _ => duration(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn few_seconds_have_a_digit_more() {
        for (seconds, text) in
            [(0.0123, "12 ms"), (0.25, "0.2 s"), (9.94, "9.9 s"), (61.0, "1m01s")]
        {
            assert_eq!(short(seconds), text);
        }
    }
}

//! Convolutions on a device: which engine computes each.
//!
//! cuDNN tells which engines it takes for fast. The first few are timed once, and the choice is kept in a file, so
//! that a run that is resumed computes with the same. Where the same operands must give the same bits each
//! time, nothing is timed: the first engine is taken, which depends on nothing but the device and cuDNN's version.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::compile::Cache;
use crate::convolution::{Convolution, ConvolutionPlan};
use crate::cudnn::{Handle, Plan, Plans, is_widened};
use crate::device::Properties;
use crate::error::DeviceError;

/// Engines that are timed.
const CANDIDATES: usize = 8;

/// Bytes of scratch above which an engine is taken only where there is no other. The filters' gradient of the first
/// convolution takes 1.25 GB in TF32 with 256 images (cuDNN 9.28 for the description of an H100, without the card).
const MOST_SCRATCH: usize = 2 << 30;

/// Bytes to a multiple of which what we add to an engine's scratch begins.
const ALIGNMENT: usize = 256;

/// The convolutions of a device.
pub(super) struct Convolutions {
    /// The chosen ones, by their numbers.
    plans: Vec<(ConvolutionPlan, Plan)>,
    numbers: HashMap<Convolution, usize>,
    choices: Choices,
    /// The last to go: plans are made with it.
    handle: Handle,
}

impl Convolutions {
    pub(super) fn new(handle: Handle, version: usize, device: &Properties, cache: Cache) -> Self {
        let choices = Choices::read(cache, device, version);
        Convolutions { handle, plans: Vec::new(), numbers: HashMap::new(), choices }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// One that was chosen before.
    pub(super) fn known(&self, convolution: &Convolution) -> Option<ConvolutionPlan> {
        self.numbers.get(convolution).map(|number| self.plans[*number].0)
    }

    /// The engine of a plan.
    ///
    /// # Panics
    /// The plan is another device's.
    pub(super) fn engine(&self, plan: &ConvolutionPlan) -> &Plan {
        match self.plans.get(plan.id) {
            Some((known, engine)) if known == plan => engine,
            _ => panic!("{plan:?} is none of this device"),
        }
    }

    /// The engines that come into question, and the number of the one that was chosen in an earlier run.
    pub(super) fn candidates(
        &self,
        convolution: &Convolution,
        device: &Properties,
    ) -> Result<(Vec<Plan>, Option<usize>), DeviceError> {
        let Plans { mut plans, refused } = self.handle.plans(convolution, CANDIDATES)?;
        let least = plans.iter().map(|plan| plan.workspace).min().unwrap_or(0);
        plans.retain(|plan| plan.workspace <= MOST_SCRATCH.max(least));
        if plans.is_empty() {
            return Err(DeviceError::NoPlan {
                device: device.name.clone(),
                convolution: convolution.to_string(),
                reason: refused.join("; "),
            });
        }
        let first = convolution.deterministic || plans.len() == 1;
        let chosen = if first { Some(0) } else { self.choices.of(convolution, &plans) };
        Ok((plans, chosen))
    }

    /// Takes an engine for a convolution, and keeps the choice if there was one.
    pub(super) fn take(
        &mut self,
        convolution: &Convolution,
        mut plans: Vec<Plan>,
        (number, time): (usize, Option<Duration>),
    ) -> ConvolutionPlan {
        let plan = plans.swap_remove(number);
        let id = self.plans.len();
        let workspace = scratch(convolution, plan.workspace).1;
        tracing::debug!(
            "{convolution}: {} ({} of {}), {workspace} bytes of scratch, {time:?}",
            plan.engine,
            number + 1,
            plans.len() + 1
        );
        if time.is_some() {
            self.choices.keep(convolution, number, &plan);
        }
        let chosen = ConvolutionPlan { id, convolution: *convolution, workspace };
        self.plans.push((chosen, plan));
        self.numbers.insert(*convolution, id);
        chosen
    }
}

/// Where in the scratch the filters' gradient in bf16 begins, if cuDNN writes that, and how many bytes it takes with it.
pub(super) fn scratch(convolution: &Convolution, engine: usize) -> (usize, usize) {
    let begin = engine.next_multiple_of(ALIGNMENT);
    if is_widened(convolution) {
        (begin, begin + convolution.filter_len() * 2)
    } else {
        (begin, engine)
    }
}

/// What was chosen by time, kept in a file.
struct Choices {
    cache: Cache,
    name: String,
    /// The engine's place among the candidates, its number and its scratch, by the convolution.
    chosen: BTreeMap<String, (usize, i64, usize)>,
}

impl Choices {
    fn read(cache: Cache, device: &Properties, version: usize) -> Choices {
        let about = format!("{} {}", device.architecture, device.multiprocessors);
        let key = crate::compile::key(&[&device.name, &about, &version.to_string()]);
        let name = format!("engines-{key}.txt");
        let text = cache.read(&name).unwrap_or_default();
        let chosen = String::from_utf8_lossy(&text).lines().filter_map(parse).collect();
        Choices { cache, name, chosen }
    }

    /// The place of the chosen one, if it is still there.
    fn of(&self, convolution: &Convolution, plans: &[Plan]) -> Option<usize> {
        let (place, engine, workspace) = *self.chosen.get(&format!("{convolution:?}"))?;
        let plan = plans.get(place)?;
        (plan.engine.index == engine && plan.workspace == workspace).then_some(place)
    }

    fn keep(&mut self, convolution: &Convolution, place: usize, plan: &Plan) {
        let choice = (place, plan.engine.index, plan.workspace);
        self.chosen.insert(format!("{convolution:?}"), choice);
        let lines = self.chosen.iter().map(|(convolution, (place, engine, workspace))| {
            format!("{place} {engine} {workspace} {convolution}\n")
        });
        self.cache.write(&self.name, lines.collect::<String>().as_bytes());
    }
}

/// A line of the file.
fn parse(line: &str) -> Option<(String, (usize, i64, usize))> {
    let mut parts = line.splitn(4, ' ');
    let place = parts.next()?.parse().ok()?;
    let engine = parts.next()?.parse().ok()?;
    let workspace = parts.next()?.parse().ok()?;
    Some((parts.next()?.to_owned(), (place, engine, workspace)))
}

//! Execution plans: the engines that fit a convolution, ready to run.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use super::api::{Functions, Kind, MODE_A, MODE_FALLBACK, Type, attribute};
use super::descriptor::Descriptor;
use super::engine::{Engine, Note};
use super::operation::{IDS, graph};
use crate::convolution::Convolution;
use crate::error::DeviceError;

/// Engines asked for of one list; cuDNN 9.28 has at most 40 in mode A.
const MOST_ENGINES: usize = 64;

/// For what plans are made: a device by cuDNN's handle, or one that is described.
pub(super) enum Target {
    Handle(*mut c_void),
    Description(Arc<Descriptor>),
}

/// An engine that is ready to run.
pub(crate) struct Plan {
    /// The engine.
    pub(crate) engine: Engine,
    /// Bytes of scratch.
    pub(crate) workspace: usize,
    descriptor: Arc<Descriptor>,
}

/// The plans of a convolution, and why other engines have none.
pub(crate) struct Plans {
    /// At most as many as were asked for, in the order in which cuDNN thinks that they are fast.
    pub(crate) plans: Vec<Plan>,
    /// The engines that were refused, each with the reason.
    pub(crate) refused: Vec<String>,
}

/// The first `most` plans. Engines that are compiled for the plan come into question only where nothing else does.
pub(super) fn plans(
    functions: &Arc<Functions>,
    target: &Target,
    convolution: &Convolution,
    most: usize,
) -> Result<Plans, DeviceError> {
    let handle = match target {
        Target::Handle(handle) => *handle,
        Target::Description(_) => ptr::null_mut(),
    };
    let graph = graph(functions, handle, convolution)?;
    let mut found = Plans { plans: Vec::new(), refused: Vec::new() };
    let mut compiled = Vec::new();
    for mode in [MODE_A, MODE_FALLBACK] {
        if mode == MODE_FALLBACK && !found.plans.is_empty() {
            break;
        }
        for config in configs(functions, target, &graph, mode, &mut found.refused)? {
            let engine = engine(&config)?;
            if let Some(reason) = engine.objection(convolution) {
                found.refused.push(format!("{engine}: {reason}"));
            } else if engine.is_compiled() {
                compiled.push((engine, config));
            } else if found.plans.len() < most {
                found.add(functions, target, engine, config)?;
            }
        }
    }
    if found.plans.is_empty() {
        for (engine, config) in compiled.into_iter().take(most) {
            found.add(functions, target, engine, config)?;
        }
    }
    Ok(found)
}

impl Plans {
    fn add(
        &mut self,
        functions: &Arc<Functions>,
        target: &Target,
        engine: Engine,
        config: Descriptor,
    ) -> Result<(), DeviceError> {
        let plan = Descriptor::new(functions, Kind::Plan)?;
        let plan = match target {
            Target::Handle(handle) => {
                plan.pointers(attribute::PLAN_HANDLE, Type::Handle, &[*handle])?
            }
            Target::Description(device) => plan.named(attribute::PLAN_DEVICE, device)?,
        };
        let finished =
            plan.named(attribute::PLAN_CONFIG, &Arc::new(config)).and_then(Descriptor::finish);
        match finished {
            Ok(descriptor) => {
                let workspace = descriptor.integer(attribute::PLAN_WORKSPACE)?;
                let workspace = usize::try_from(workspace).unwrap_or(0);
                self.plans.push(Plan { engine, workspace, descriptor });
            }
            Err(error) => self.refused.push(format!("{engine}: {error}")),
        }
        Ok(())
    }
}

/// The engines of a list with their settings. That a list cannot be had is no error: the other may be.
fn configs(
    functions: &Arc<Functions>,
    target: &Target,
    graph: &Arc<Descriptor>,
    mode: c_int,
    refused: &mut Vec<String>,
) -> Result<Vec<Descriptor>, DeviceError> {
    let mut heuristics = Descriptor::new(functions, Kind::Heuristics)?
        .named(attribute::HEURISTICS_GRAPH, graph)?
        .choice(attribute::HEURISTICS_MODE, Type::HeuristicsMode, mode)?;
    if let Target::Description(device) = target {
        heuristics = heuristics.named(attribute::HEURISTICS_DEVICE, device)?;
    }
    let listed = heuristics.finish().and_then(|heuristics| {
        heuristics.descriptors(attribute::HEURISTICS_RESULTS, Kind::EngineConfig, MOST_ENGINES)
    });
    match listed {
        // What is listed names the graph.
        Ok(configs) => Ok(configs.into_iter().map(|config| config.keeping(graph)).collect()),
        Err(error) => {
            refused.push(error.to_string());
            Ok(Vec::new())
        }
    }
}

/// What cuDNN says of a configuration's engine.
fn engine(config: &Descriptor) -> Result<Engine, DeviceError> {
    let engines = config.descriptors(attribute::CONFIG_ENGINE, Kind::Engine, 1)?;
    let Some(engine) = engines.first() else {
        return Err(DeviceError::Call {
            call: "cudnnBackendGetAttribute",
            reason: "a configuration has no engine".to_owned(),
        });
    };
    let numerical = engine.choices(attribute::ENGINE_NUMERICAL_NOTES, Type::NumericalNote)?;
    let behaviour = engine.choices(attribute::ENGINE_BEHAVIOUR_NOTES, Type::BehaviourNote)?;
    let notes = numerical
        .into_iter()
        .map(Note::numerical)
        .chain(behaviour.into_iter().map(Note::behaviour))
        .collect();
    Ok(Engine { index: engine.integer(attribute::ENGINE_INDEX)?, notes })
}

impl Plan {
    /// Starts it on the stream of `handle`.
    ///
    /// # Safety
    /// The handle is that of the plan's device. Input, filters, output and workspace are addresses of its memory,
    /// aligned to [`super::ALIGNMENT`], with as many bytes as the convolution and the plan need.
    pub(super) unsafe fn run(
        &self,
        functions: &Arc<Functions>,
        handle: *mut c_void,
        operands: [u64; 3],
        workspace: u64,
    ) -> Result<(), DeviceError> {
        let address = |address: u64| address as usize as *mut c_void;
        let pack = Descriptor::new(functions, Kind::VariantPack)?
            .integers(attribute::PACK_IDS, &IDS)?
            .pointers(attribute::PACK_POINTERS, Type::Pointer, &operands.map(address))?
            .pointers(attribute::PACK_WORKSPACE, Type::Pointer, &[address(workspace)])?
            .finish()?;
        // SAFETY: all three are cuDNN's; what the pack names is the caller's.
        let status = unsafe { (functions.execute)(handle, self.descriptor.raw(), pack.raw()) };
        functions.check("cudnnBackendExecute", status)
    }
}

//! What was captured, to be started as one: <https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-graphs>.

use std::collections::{BTreeMap, BTreeSet};

use cudarc::driver::result::{graph, stream};
use cudarc::driver::sys::{CUgraphExec, CUgraphInstantiate_flags, CUstream, CUstreamCaptureMode};

use super::buffers::Buffers;
use super::driver::Checked;
use crate::device::Graph;
use crate::error::DeviceError;
use crate::memory::{Region, next_number};

struct Captured {
    graph: CUgraphExec,
    /// The buffers that it names by their addresses.
    buffers: BTreeSet<u64>,
}

/// What is captured now.
#[derive(Default)]
struct Capture {
    buffers: BTreeSet<u64>,
    /// What was started that cannot be captured.
    refused: Option<&'static str>,
}

/// The graphs of a device.
#[derive(Default)]
pub(super) struct Graphs {
    held: BTreeMap<u64, Captured>,
    capture: Option<Capture>,
}

// SAFETY: the driver lets any thread use graphs, one at a time.
unsafe impl Send for Graphs {}

impl Graphs {
    pub(super) fn is_capturing(&self) -> bool {
        self.capture.is_some()
    }

    /// Fails inside a capture, which cannot end well from now on.
    pub(super) fn outside_capture(&mut self, call: &'static str) -> Result<(), DeviceError> {
        let Some(capture) = &mut self.capture else { return Ok(()) };
        capture.refused.get_or_insert(call);
        Err(DeviceError::Call { call, reason: "it cannot be captured".to_owned() })
    }

    /// Tells what a start uses.
    pub(super) fn uses(&mut self, regions: impl IntoIterator<Item = Region>) {
        if let Some(capture) = &mut self.capture {
            capture.buffers.extend(regions.into_iter().map(|region| region.buffer));
        }
    }

    /// # Safety
    /// The stream is of the current context.
    pub(super) unsafe fn begin(&mut self, stream: CUstream) -> Result<(), DeviceError> {
        self.outside_capture("begin_capture")?;
        // Relaxed: cuDNN may load a kernel at its first use, and a device may move to another thread.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is the caller's.
        unsafe { stream::begin_capture(stream, mode) }.of("cuStreamBeginCapture")?;
        self.capture = Some(Capture::default());
        Ok(())
    }

    /// # Safety
    /// As [`Graphs::begin`], and it is the same stream.
    pub(super) unsafe fn end(&mut self, stream: CUstream) -> Result<Graph, DeviceError> {
        let failed =
            |reason: &str| DeviceError::Call { call: "end_capture", reason: reason.to_owned() };
        let Some(Capture { buffers, refused }) = self.capture.take() else {
            return Err(failed("nothing is captured"));
        };
        // SAFETY: the stream is the caller's.
        let made = unsafe { stream::end_capture(stream) }.of("cuStreamEndCapture")?;
        if made.is_null() {
            return Err(failed("something was started that cannot be captured"));
        }
        if let Some(call) = refused {
            // SAFETY: the graph is new.
            unsafe { graph::destroy(made) }.of("cuGraphDestroy")?;
            return Err(failed(&format!("{call} cannot be captured")));
        }
        let flags = CUgraphInstantiate_flags(0);
        // SAFETY: the graph is new; what is made of it does not need it any more.
        let instance = unsafe {
            let instance = graph::instantiate(made, flags).of("cuGraphInstantiate");
            graph::destroy(made).of("cuGraphDestroy").and(instance)?
        };
        let id = next_number();
        self.held.insert(id, Captured { graph: instance, buffers });
        Ok(Graph(id))
    }

    /// # Safety
    /// As [`Graphs::begin`].
    ///
    /// # Panics
    /// It is another device's.
    pub(super) unsafe fn start(
        &self,
        graph: &Graph,
        buffers: &Buffers,
        stream: CUstream,
    ) -> Result<(), DeviceError> {
        let Some(captured) = self.held.get(&graph.0) else {
            panic!("{graph:?} is none of this device");
        };
        let gone = captured.buffers.iter().find(|buffer| !buffers.has(**buffer));
        if gone.is_some() {
            let reason = "memory that it works on was given back".to_owned();
            return Err(DeviceError::Call { call: "replay", reason });
        }
        // SAFETY: the graph is held; the buffers are there.
        unsafe { graph::launch(captured.graph, stream) }.of("cuGraphLaunch")
    }

    pub(super) fn free(&mut self, graph: Graph) -> Result<(), DeviceError> {
        let Some(captured) = self.held.remove(&graph.0) else {
            panic!("{graph:?} is none of this device");
        };
        // SAFETY: held until now. The driver lets what runs of it end.
        unsafe { graph::exec_destroy(captured.graph) }.of("cuGraphExecDestroy")
    }

    pub(super) fn free_all(&mut self) {
        for (_, captured) in std::mem::take(&mut self.held) {
            // SAFETY: as above. An error has no remedy here.
            let _ = unsafe { graph::exec_destroy(captured.graph) };
        }
    }
}

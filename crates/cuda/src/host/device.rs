//! The trait on the host. Everything is done when a call returns.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::HostConvolution;
use super::memory::Memory;
use super::work::{KernelStart, Work};
use crate::convolution::{Convolution, ConvolutionPlan, Direction, Operands};
use crate::device::{Device, Event, Graph, Noting, Properties, Stream, Timing};
use crate::error::DeviceError;
use crate::launch::{Cost, Launch};
use crate::memory::{Pinned, Region, next_number};

/// More memory than any host has: what does not fit is found when it is taken.
const UNLIMITED: usize = 1 << 50;

/// The host in the place of a device.
pub struct Host {
    properties: Properties,
    memory: Memory,
    threads: usize,
    convolution: Box<dyn HostConvolution>,
    plans: Vec<Convolution>,
    capture: Option<Capture>,
    graphs: BTreeMap<u64, Vec<Work>>,
    events: BTreeMap<u64, Instant>,
    label: usize,
    noting: Noting,
    notes: Vec<Timing>,
}

/// What was started since a capture began.
#[derive(Default)]
struct Capture {
    works: Vec<Work>,
    /// What was started that cannot be captured.
    refused: Option<&'static str>,
}

impl Host {
    /// A host whose kernels run on as many `threads`, which never changes a bit, and whose convolutions are computed
    /// by `convolution`.
    pub fn new(convolution: Box<dyn HostConvolution>, threads: usize) -> Host {
        let properties = Properties {
            name: "host".to_owned(),
            memory: UNLIMITED,
            architecture: "c".to_owned(),
            multiprocessors: threads.max(1),
            bandwidth: None,
        };
        Host {
            properties,
            memory: Memory::default(),
            threads: threads.max(1),
            convolution,
            plans: Vec::new(),
            capture: None,
            graphs: BTreeMap::new(),
            events: BTreeMap::new(),
            label: 0,
            noting: Noting::Nothing,
            notes: Vec::new(),
        }
    }

    /// The same with memory of so many bytes.
    pub fn with_memory(mut self, bytes: usize) -> Host {
        self.properties.memory = bytes;
        self
    }

    /// When an event was recorded.
    fn moment(&self, event: Event) -> Instant {
        match self.events.get(&event.0) {
            Some(moment) => *moment,
            None => panic!("event {} is of another device, or was given back", event.0),
        }
    }

    /// Fails inside a capture, which cannot end well from now on.
    fn outside_capture(&mut self, call: &'static str) -> Result<(), DeviceError> {
        let Some(capture) = &mut self.capture else { return Ok(()) };
        capture.refused.get_or_insert(call);
        Err(DeviceError::Call { call, reason: "it cannot be captured".to_owned() })
    }

    fn out_of_memory(&self, wanted: usize) -> DeviceError {
        let Properties { name, memory, .. } = &self.properties;
        let free = memory.saturating_sub(self.memory.used());
        DeviceError::OutOfMemory { device: name.clone(), wanted, free, total: *memory }
    }

    /// Does it, or captures it, and notes it by `name` and `cost`.
    ///
    /// # Safety
    /// As [`Work::run`].
    unsafe fn start(&mut self, name: impl FnOnce() -> String, cost: Cost, work: Work) {
        let begin = Instant::now();
        let captured = self.capture.is_some();
        match &mut self.capture {
            Some(capture) => capture.works.push(work),
            // SAFETY: the caller vouches for it.
            None => unsafe { work.run(&self.memory, self.threads, &mut *self.convolution) },
        }
        if self.noting != Noting::Nothing {
            let timed = self.noting == Noting::Times && !captured;
            let time = timed.then(|| begin.elapsed());
            self.notes.push(Timing { label: self.label, kernel: name(), cost, time });
        }
    }

    /// Does or captures a copy that is not noted.
    fn transfer(&mut self, work: Work) {
        for region in work.regions() {
            self.memory.address(&region); // panics if it leads nowhere
        }
        match &mut self.capture {
            Some(capture) => capture.works.push(work),
            // SAFETY: copies and clearing check their regions before they come here.
            None => unsafe { work.run(&self.memory, self.threads, &mut *self.convolution) },
        }
    }
}

impl Device for Host {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_memory(&self) -> Result<usize, DeviceError> {
        Ok(self.properties.memory.saturating_sub(self.memory.used()))
    }

    fn taken_memory(&self) -> usize {
        self.memory.used()
    }

    fn allocate(&mut self, bytes: usize) -> Result<Region, DeviceError> {
        self.outside_capture("allocate")?;
        if bytes > self.free_memory()? {
            return Err(self.out_of_memory(bytes));
        }
        self.memory.allocate(bytes).ok_or_else(|| self.out_of_memory(bytes))
    }

    fn free(&mut self, region: Region) {
        assert!(self.capture.is_none(), "memory is given back while something is captured");
        self.memory.free(region);
    }

    fn allocate_pinned(&mut self, bytes: usize) -> Result<Pinned, DeviceError> {
        self.outside_capture("allocate_pinned")?;
        self.memory.allocate_pinned(bytes).ok_or_else(|| self.out_of_memory(bytes))
    }

    fn free_pinned(&mut self, pinned: Pinned) {
        self.memory.free_pinned(pinned);
    }

    fn pinned(&mut self, pinned: Pinned) -> Result<&[u8], DeviceError> {
        Ok(self.memory.pinned(pinned).as_slice())
    }

    fn pinned_mut(&mut self, pinned: Pinned) -> Result<&mut [u8], DeviceError> {
        Ok(self.memory.pinned_mut(pinned).as_mut_slice())
    }

    fn is_ready(&mut self, pinned: Pinned) -> Result<bool, DeviceError> {
        self.memory.pinned(pinned); // panics if it leads nowhere
        Ok(true)
    }

    fn upload(&mut self, from: Pinned, to: Region, _: Stream) -> Result<(), DeviceError> {
        self.outside_capture("upload")?;
        assert!(to.bytes <= from.bytes, "{} bytes to {}", from.bytes, to.bytes);
        let (target, source) = (self.memory.address(&to), self.memory.pinned(from).as_slice());
        // SAFETY: the region lies inside its buffer, which is another than that of the memory it is copied from.
        unsafe { source.as_ptr().copy_to_nonoverlapping(target, to.bytes) };
        Ok(())
    }

    fn download(&mut self, from: Region, to: Pinned, _: Stream) -> Result<(), DeviceError> {
        self.outside_capture("download")?;
        assert!(from.bytes <= to.bytes, "{} bytes to {}", from.bytes, to.bytes);
        let (source, target) = (self.memory.address(&from), self.memory.pinned_mut(to).address());
        // SAFETY: as in `upload`.
        unsafe { source.copy_to_nonoverlapping(target, from.bytes) };
        Ok(())
    }

    fn copy(&mut self, from: Region, to: Region) -> Result<(), DeviceError> {
        assert_eq!(from.bytes, to.bytes, "bytes of a copy");
        assert!(!from.meets(&to), "a copy of {from:?} to {to:?}");
        self.transfer(Work::Copy(from, to));
        Ok(())
    }

    fn clear(&mut self, region: Region) -> Result<(), DeviceError> {
        self.transfer(Work::Clear(region));
        Ok(())
    }

    fn record(&mut self, _: Stream) -> Result<Event, DeviceError> {
        self.outside_capture("record")?;
        let event = Event(next_number());
        self.events.insert(event.0, Instant::now());
        Ok(event)
    }

    fn wait(&mut self, _: Stream, event: Event) -> Result<(), DeviceError> {
        self.moment(event);
        self.outside_capture("wait")
    }

    fn elapsed(&mut self, from: Event, to: Event) -> Result<Duration, DeviceError> {
        Ok(self.moment(to).saturating_duration_since(self.moment(from)))
    }

    fn free_event(&mut self, event: Event) {
        self.moment(event);
        self.events.remove(&event.0);
    }

    fn synchronise(&mut self) -> Result<(), DeviceError> {
        self.outside_capture("synchronise")
    }

    unsafe fn launch(&mut self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        let start = KernelStart::new(launch);
        for region in launch.regions {
            self.memory.address(region); // panics if it leads nowhere
        }
        // SAFETY: the caller vouches for the arguments.
        unsafe { self.start(|| launch.kernel.to_owned(), launch.cost, Work::Kernel(start)) };
        Ok(())
    }

    fn plan(&mut self, convolution: &Convolution) -> Result<ConvolutionPlan, DeviceError> {
        self.outside_capture("plan")?;
        let known = self.plans.iter().position(|plan| plan == convolution);
        let id = known.unwrap_or_else(|| {
            self.plans.push(*convolution);
            self.plans.len() - 1
        });
        Ok(ConvolutionPlan { id, convolution: *convolution, workspace: 0 })
    }

    fn convolve(&mut self, plan: &ConvolutionPlan, operands: &Operands) -> Result<(), DeviceError> {
        let sizes = plan.convolution;
        assert_eq!(self.plans.get(plan.id), Some(&sizes), "a plan of another device");
        let Operands { input, filters, output, workspace: _ } = operands;
        for ((region, bytes), what) in [input, filters, output]
            .into_iter()
            .zip(sizes.operand_bytes())
            .zip(["input", "filters", "output"])
        {
            assert!(
                region.bytes >= bytes,
                "convolution {sizes}: {} bytes of {bytes} of the {what}",
                region.bytes
            );
            self.memory.address(region); // panics if it leads nowhere
        }
        let (written, read) = match sizes.direction {
            Direction::Forward => (output, [input, filters]),
            Direction::InputGradient => (input, [filters, output]),
            Direction::FilterGradient => (filters, [input, output]),
        };
        assert!(read.iter().all(|region| !region.meets(written)), "convolution {sizes} in place");
        let name = || format!("convolution {}", sizes.direction.name());
        // SAFETY: lengths and what meets were checked.
        unsafe { self.start(name, sizes.cost(), Work::Convolution(sizes, *operands)) };
        Ok(())
    }

    fn begin_capture(&mut self) -> Result<(), DeviceError> {
        self.outside_capture("begin_capture")?;
        self.capture = Some(Capture::default());
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Graph, DeviceError> {
        let call = "end_capture";
        let Some(capture) = self.capture.take() else {
            return Err(DeviceError::Call { call, reason: "nothing is captured".to_owned() });
        };
        if let Some(refused) = capture.refused {
            return Err(DeviceError::Call {
                call,
                reason: format!("{refused} cannot be captured"),
            });
        }
        let id = next_number();
        self.graphs.insert(id, capture.works);
        Ok(Graph(id))
    }

    fn replay(&mut self, graph: &Graph) -> Result<(), DeviceError> {
        self.outside_capture("replay")?;
        let works = self.graphs.get(&graph.0);
        let works = works.unwrap_or_else(|| panic!("graph {} is of another device", graph.0));
        let gone = |work: &Work| work.regions().iter().any(|region| !self.memory.holds(region));
        if works.iter().any(gone) {
            let reason = "memory that it works on was given back".to_owned();
            return Err(DeviceError::Call { call: "replay", reason });
        }
        for work in works {
            // SAFETY: it was checked, or vouched for, when it was captured, and its memory is there.
            unsafe { work.run(&self.memory, self.threads, &mut *self.convolution) };
        }
        Ok(())
    }

    fn free_graph(&mut self, graph: Graph) {
        let works = self.graphs.remove(&graph.0);
        assert!(works.is_some(), "graph {} is of another device", graph.0);
    }

    fn label(&mut self, label: usize) {
        self.label = label;
    }

    fn note(&mut self, noting: Noting) {
        self.noting = noting;
    }

    fn notes(&mut self) -> Vec<Timing> {
        std::mem::take(&mut self.notes)
    }
}

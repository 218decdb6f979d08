//! The trait of all devices.

use std::time::Duration;

use crate::convolution::{Convolution, ConvolutionPlan, Operands};
use crate::error::DeviceError;
use crate::launch::{Cost, Launch};
use crate::memory::{Pinned, Region};

/// What a device is.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties {
    /// Its name, as its maker gives it.
    pub name: String,
    /// Its memory in bytes.
    pub memory: usize,
    /// What its kernels are compiled for, for example `sm_90`.
    pub architecture: String,
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Bytes a second between its memory and its processors, as its data sheet or its driver tells; `None` where
    /// unknown.
    pub bandwidth: Option<f64>,
}

/// An order in which a device works: what is started on one stream runs in this order, and beside the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Kernels, convolutions, and copies that belong to them.
    Compute,
    /// Copies that run beside.
    Copy,
}

/// A moment of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(pub(crate) u64);

/// What was captured, to be started as one.
#[derive(Debug, PartialEq, Eq)]
pub struct Graph(pub(crate) u64);

/// What one start of a kernel, or a convolution, took.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// What the caller was at ([`Device::label`]).
    pub label: usize,
    /// The kernel, or `convolution` with its direction.
    pub kernel: String,
    /// What it moves and computes.
    pub cost: Cost,
    /// How long it took; `None` if only the list of starts was asked for.
    pub time: Option<Duration>,
}

/// What is noted of starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noting {
    /// Nothing.
    Nothing,
    /// Each start with its cost.
    Starts,
    /// Each start with its cost and its time, for which the device waits after each.
    Times,
}

/// A device with its memory. Calls start work and return; what is started on [`Stream::Compute`] runs in order.
/// Errors of work that was started may come with a later call. All memory that it hands out holds zeros at first.
///
/// # Panics
/// Handles of another device or of memory that was given back, and regions of unequal or wrong length.
pub trait Device: Send {
    /// What it is.
    fn properties(&self) -> &Properties;

    /// Bytes of its memory that are free now.
    ///
    /// # Errors
    /// A failed call.
    fn free_memory(&self) -> Result<usize, DeviceError>;

    /// Bytes of its memory that its buffers take.
    fn taken_memory(&self) -> usize;

    /// Takes a buffer of its memory, aligned to 256 bytes at least. Not part of a capture.
    ///
    /// # Errors
    /// It does not fit.
    fn allocate(&mut self, bytes: usize) -> Result<Region, DeviceError>;

    /// Gives back the whole buffer in which `region` lies, when all work that was started is done. Not part of a
    /// capture.
    fn free(&mut self, region: Region);

    /// Takes memory of the host that it reads and writes by itself, aligned to 64 bytes at least. Not part of a
    /// capture.
    ///
    /// # Errors
    /// It does not fit.
    fn allocate_pinned(&mut self, bytes: usize) -> Result<Pinned, DeviceError>;

    /// Gives it back.
    fn free_pinned(&mut self, pinned: Pinned);

    /// Reads memory of the host, when the last copy from or to it is done.
    ///
    /// # Errors
    /// Work that failed.
    fn pinned(&mut self, pinned: Pinned) -> Result<&[u8], DeviceError>;

    /// As [`Device::pinned`], to write.
    ///
    /// # Errors
    /// As there.
    fn pinned_mut(&mut self, pinned: Pinned) -> Result<&mut [u8], DeviceError>;

    /// Whether the last copy from or to memory of the host is done.
    ///
    /// # Errors
    /// Work that failed.
    fn is_ready(&mut self, pinned: Pinned) -> Result<bool, DeviceError>;

    /// Copies the first bytes of `from` to `to`, as many as that has. Not part of a capture.
    ///
    /// # Errors
    /// A failed call.
    fn upload(&mut self, from: Pinned, to: Region, stream: Stream) -> Result<(), DeviceError>;

    /// Copies `from` to the first bytes of `to`. Not part of a capture.
    ///
    /// # Errors
    /// A failed call.
    fn download(&mut self, from: Region, to: Pinned, stream: Stream) -> Result<(), DeviceError>;

    /// Copies within its memory, on [`Stream::Compute`].
    ///
    /// # Errors
    /// A failed call.
    fn copy(&mut self, from: Region, to: Region) -> Result<(), DeviceError>;

    /// Fills with bytes of zero, on [`Stream::Compute`].
    ///
    /// # Errors
    /// A failed call.
    fn clear(&mut self, region: Region) -> Result<(), DeviceError>;

    /// The moment at which all that was started on `stream` so far is done. Not part of a capture.
    ///
    /// # Errors
    /// A failed call.
    fn record(&mut self, stream: Stream) -> Result<Event, DeviceError>;

    /// Lets what is started on `stream` from now on wait for `event`. Not part of a capture.
    ///
    /// # Errors
    /// A failed call.
    fn wait(&mut self, stream: Stream, event: Event) -> Result<(), DeviceError>;

    /// The time between two moments of [`Stream::Compute`], when both are over.
    ///
    /// # Errors
    /// Work that failed.
    fn elapsed(&mut self, from: Event, to: Event) -> Result<Duration, DeviceError>;

    /// Gives an event back. What waits for it goes on waiting.
    fn free_event(&mut self, event: Event);

    /// Waits until all work is done. Not part of a capture.
    ///
    /// # Errors
    /// Work that failed.
    fn synchronise(&mut self) -> Result<(), DeviceError>;

    /// Starts a kernel. Callers use the functions in [`crate::ops`], which check its arguments.
    ///
    /// # Safety
    /// The arguments are those that the kernel declares, and it stays inside the regions for them.
    ///
    /// # Errors
    /// A failed call.
    unsafe fn launch(&mut self, launch: &Launch<'_>) -> Result<(), DeviceError>;

    /// Chooses an algorithm; one that was asked for before is the same. Not part of a capture.
    ///
    /// # Errors
    /// There is none.
    fn plan(&mut self, convolution: &Convolution) -> Result<ConvolutionPlan, DeviceError>;

    /// Starts a convolution.
    ///
    /// # Errors
    /// A failed call.
    fn convolve(&mut self, plan: &ConvolutionPlan, operands: &Operands) -> Result<(), DeviceError>;

    /// From now on, what is started on [`Stream::Compute`] is captured and does not run.
    ///
    /// # Errors
    /// A failed call.
    fn begin_capture(&mut self) -> Result<(), DeviceError>;

    /// Ends a capture.
    ///
    /// # Errors
    /// A failed call, or something was started that cannot be captured.
    fn end_capture(&mut self) -> Result<Graph, DeviceError>;

    /// Starts all that was captured, on [`Stream::Compute`].
    ///
    /// # Errors
    /// A failed call.
    fn replay(&mut self, graph: &Graph) -> Result<(), DeviceError>;

    /// Gives a graph back.
    fn free_graph(&mut self, graph: Graph);

    /// Says what the caller is at, for the notes that follow.
    fn label(&mut self, label: usize);

    /// Chooses what is noted of the starts that follow; what is replayed is not noted.
    fn note(&mut self, noting: Noting);

    /// The notes since the last call.
    fn notes(&mut self) -> Vec<Timing>;
}

//! A device's context and its two streams.

use std::ffi::c_void;

use cudarc::driver::result::{self, primary_ctx, stream};
use cudarc::driver::sys::{
    CUcontext, CUdevice, CUevent, CUevent_flags, CUevent_wait_flags, CUstream,
};

use super::driver::Checked;
use crate::device::Stream;
use crate::error::DeviceError;

/// The context that all users of a device in a process share, with our streams.
pub(super) struct Context {
    device: CUdevice,
    context: CUcontext,
    streams: [CUstream; 2],
}

// SAFETY: the driver lets any thread use them, which makes the context its current one before ([`Context::enter`]).
unsafe impl Send for Context {}

impl Context {
    pub(super) fn open(device: CUdevice) -> Result<Context, DeviceError> {
        // SAFETY: the device is one of the driver's.
        let context = unsafe { primary_ctx::retain(device) }.of("cuDevicePrimaryCtxRetain")?;
        let mut opened = Context { device, context, streams: [std::ptr::null_mut(); 2] };
        opened.enter()?;
        for place in &mut opened.streams {
            // Non-blocking: nothing that runs on the default stream, which is others', holds them up.
            *place = stream::create(stream::StreamKind::NonBlocking).of("cuStreamCreate")?;
        }
        Ok(opened)
    }

    /// Makes it the thread's current one. Every method of a device begins with this, as it may have moved to
    /// another thread.
    pub(super) fn enter(&self) -> Result<(), DeviceError> {
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(self.context) }.of("cuCtxSetCurrent")
    }

    pub(super) fn stream(&self, stream: Stream) -> CUstream {
        match stream {
            Stream::Compute => self.streams[0],
            Stream::Copy => self.streams[1],
        }
    }

    /// The stream as cuDNN takes it.
    pub(super) fn compute(&self) -> *mut c_void {
        self.streams[0].cast()
    }

    pub(super) fn wait_for(&self, stream: Stream) -> Result<(), DeviceError> {
        // SAFETY: the stream is ours.
        unsafe { stream::synchronize(self.stream(stream)) }.of("cuStreamSynchronize")
    }

    pub(super) fn wait_for_all(&self) -> Result<(), DeviceError> {
        self.wait_for(Stream::Compute)?;
        self.wait_for(Stream::Copy)
    }

    /// A new event; `timed` ones tell times, others are cheaper.
    pub(super) fn event(&self, timed: bool) -> Result<CUevent, DeviceError> {
        let flags = if timed {
            CUevent_flags::CU_EVENT_DEFAULT
        } else {
            CUevent_flags::CU_EVENT_DISABLE_TIMING
        };
        result::event::create(flags).of("cuEventCreate")
    }

    /// # Safety
    /// The event is one of this context.
    pub(super) unsafe fn record(&self, event: CUevent, stream: Stream) -> Result<(), DeviceError> {
        // SAFETY: the event is the caller's, the stream ours.
        unsafe { result::event::record(event, self.stream(stream)) }.of("cuEventRecord")
    }

    /// # Safety
    /// The event is one of this context.
    pub(super) unsafe fn let_wait(
        &self,
        stream: Stream,
        event: CUevent,
    ) -> Result<(), DeviceError> {
        let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: the event is the caller's, the stream ours.
        unsafe { stream::wait_event(self.stream(stream), event, flags) }.of("cuStreamWaitEvent")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Errors have no remedy here: the context may be broken by a kernel.
        let _ = self.enter();
        for stream in self.streams {
            if !stream.is_null() {
                // SAFETY: nothing uses it any more.
                let _ = unsafe { stream::destroy(stream) };
            }
        }
        // SAFETY: retained by `open`.
        let _ = unsafe { primary_ctx::release(self.device) };
    }
}

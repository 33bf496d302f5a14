//! Work that is recorded once and then done again and again by one call (CUDA graphs).

use super::{Gpu, failed};
use crate::{Error, Result};
use cudarc::driver::{CudaStream, DriverError, result, sys};
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    /// What this thread records: the launches of which GPUs, on which streams.
    static RECORDERS: RefCell<Vec<(*const Gpu, sys::CUstream)>> = const { RefCell::new(Vec::new()) };
}

/// The stream on which this thread records the launches of `gpu`, if it does.
pub(super) fn recorder(gpu: &Gpu) -> Option<sys::CUstream> {
    // Buffers may be dropped when the thread ends, and this is gone: it records nothing then.
    RECORDERS
        .try_with(|all| all.borrow().iter().find(|(of, _)| std::ptr::eq(*of, gpu)).map(|&(_, stream)| stream))
        .unwrap_or_default()
}

/// A recording that is being made: this thread's launches on a GPU go into it until it ends, or is dropped.
pub(super) struct Capture<'a> {
    gpu: &'a Gpu,
    stream: Arc<CudaStream>,
    ended: bool,
}

impl<'a> Capture<'a> {
    pub(super) fn begin(gpu: &'a Gpu) -> Result<Self> {
        use sys::CUstreamCaptureMode_enum as Mode;
        if recorder(gpu).is_some() {
            return Err(Error::Gpu { what: "a recording", reason: "it is within another".into() });
        }
        let stream = gpu.context.new_stream().map_err(|e| failed("a recording", e))?;
        gpu.bind()?;
        // SAFETY: the stream is ours and nobody else's.
        unsafe {
            result::stream::begin_capture(stream.cu_stream(), Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        }
        .map_err(|e| failed("a recording", e))?;
        RECORDERS.with_borrow_mut(|all| all.push((gpu, stream.cu_stream())));
        Ok(Self { gpu, stream, ended: false })
    }

    /// Ends it and returns what was recorded.
    pub(super) fn end(mut self) -> Result<Graph> {
        self.stop().map_err(|e| failed("a recording", e))
    }

    fn stop(&mut self) -> std::result::Result<Graph, DriverError> {
        self.ended = true;
        RECORDERS.with_borrow_mut(|all| all.retain(|(of, _)| !std::ptr::eq(*of, self.gpu)));
        // What was recorded may have made another GPU the thread's.
        self.gpu.context.bind_to_thread()?;
        // SAFETY: `begin` began the capture, on this thread.
        unsafe { result::stream::end_capture(self.stream.cu_stream()) }.map(Graph)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // The work failed or panicked, which says more than whatever the driver makes of its half.
            let _ = self.stop();
        }
    }
}

/// What was recorded.
pub(super) struct Graph(pub(super) sys::CUgraph);

impl Drop for Graph {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: ours, and needed no more: what was made of it is a copy.
            let _ = unsafe { result::graph::destroy(self.0) };
        }
    }
}

/// Work of a GPU that one call repeats.
pub struct Recording {
    pub(super) gpu: Arc<Gpu>,
    pub(super) executable: sys::CUgraphExec,
}

// SAFETY: a handle of the driver, which may be used from any thread, by one at a time: launching needs `&mut`.
unsafe impl Send for Recording {}

impl Recording {
    /// Does the work once more.
    pub fn replay(&mut self) -> Result<()> {
        self.gpu.bind()?;
        // SAFETY: the recording is ours and whole; its buffers are there by the word of who recorded it.
        unsafe { result::graph::launch(self.executable, self.gpu.stream()) }
            .map_err(|e| failed("a recording", e))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: ours; the driver waits for what still runs.
            let _ = unsafe { result::graph::exec_destroy(self.executable) };
        }
    }
}

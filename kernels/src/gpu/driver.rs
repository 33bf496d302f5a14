//! The driver, through cudarc: devices, memory in the order of one stream, launches.

mod launch;
mod memory;
mod record;

pub(super) use launch::{Element, Launch, TensorMap};
pub use memory::{Buffer, Mirror};
pub use record::Recording;

use crate::{Error, Result};
use bytemuck::Pod;
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, result, sys};
use cudarc::nvrtc::Ptx;
use record::Capture;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The kernels for compute capability 9.0, for 8.x, and for all that the driver must compile them for itself.
static SM_90A: &[u8] = include_bytes!("../../cuda/built/sm_90a.cubin");
static SM_80: &[u8] = include_bytes!("../../cuda/built/sm_80.cubin");
static COMPUTE_80: &[u8] = include_bytes!("../../cuda/built/compute_80.ptx");

/// An opened GPU with its kernels.
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    module: Arc<cudarc::driver::CudaModule>,
    functions: Mutex<HashMap<&'static str, CudaFunction>>,
    name: String,
    multiprocessors: u32,
    shared_bytes: i32,
    hopper: bool,
    /// Where its memory comes from.
    pool: sys::CUmemoryPool,
}

// SAFETY: the pool is a handle of the driver, which may be used from any thread; all else is so already.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cuda:{} ({})", self.context.ordinal(), self.name)
    }
}

impl Gpu {
    /// Returns how many GPUs there are, or why none can be used.
    pub fn count() -> std::result::Result<usize, String> {
        // SAFETY: only asks the loader whether the driver's library can be opened; it runs nothing from it. Every other
        // call of cudarc panics where the library is absent, so this probe comes first.
        if !unsafe { sys::is_culib_present() } {
            return Err("no NVIDIA driver was found on this machine".into());
        }
        result::init().map_err(|e| format!("the NVIDIA driver does not start: {}", told(e)))?;
        match CudaContext::device_count() {
            Ok(0) => Err("the NVIDIA driver found no GPU".into()),
            Ok(count) => Ok(count as usize),
            Err(error) => Err(format!("the NVIDIA driver failed: {}", told(error))),
        }
    }

    /// Opens GPU number `ordinal` (counted from 0) and loads the kernels for it; the error says why it cannot be used.
    pub fn open(ordinal: usize) -> std::result::Result<Arc<Self>, String> {
        let count = Self::count()?;
        if ordinal >= count {
            return Err(format!("there is no GPU {ordinal}, only {count} (counted from 0)"));
        }
        Self::load(ordinal).map_err(|e| format!("the NVIDIA driver failed: {}", told(e)))?
    }

    fn load(ordinal: usize) -> std::result::Result<std::result::Result<Arc<Self>, String>, DriverError> {
        use sys::CUdevice_attribute_enum as Attribute;
        let context = CudaContext::new(ordinal)?;
        // SAFETY: all work is on one stream, in order: nothing is left for events to keep apart.
        unsafe { context.disable_event_tracking() };
        let name = context.name()?;
        let capability = context.compute_capability()?;
        let kernels = match capability {
            (9, 0) => SM_90A,
            (8, _) => SM_80,
            (9.., _) => COMPUTE_80,
            (major, minor) => {
                let found =
                    format!("{name} is of compute capability {major}.{minor}, 8.0 or later is needed");
                return Ok(Err(found));
            }
        };
        let mut pool = std::ptr::null_mut();
        let keep = u64::MAX;
        // SAFETY: the device is open, and the attribute is a number of 64 bits: how much memory the pool keeps when
        // something is waited for. By default it is none, and each search would be given its lists anew.
        unsafe {
            sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result()?;
            let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            sys::cuMemPoolSetAttribute(pool, attribute, (&raw const keep).cast_mut().cast()).result()?;
        }
        let module = context.load_module(Ptx::from_binary(kernels.to_vec()))?;
        Ok(Ok(Arc::new(Self {
            stream: context.new_stream()?,
            functions: Mutex::default(),
            multiprocessors: context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
            shared_bytes: context
                .attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            hopper: capability == (9, 0),
            name,
            module,
            context,
            pool,
        })))
    }

    /// The device's name, as its driver tells it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's number.
    pub fn ordinal(&self) -> usize {
        self.context.ordinal()
    }

    /// How many multiprocessors it has.
    pub(super) fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Bytes of shared memory that a block can have.
    pub(super) fn shared_bytes(&self) -> usize {
        self.shared_bytes as usize
    }

    /// Whether it has Hopper's tensor cores and copies of tiles (compute capability 9.0).
    pub(super) fn is_hopper(&self) -> bool {
        self.hopper
    }

    /// Bytes of its memory that are free now, and all.
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.bind()?;
        let (free, total) = result::mem_get_info().map_err(|e| failed("its memory", e))?;
        // What buffers gave back stays with the pool, for those to come.
        let pool = |attribute| {
            let mut bytes = 0u64;
            // SAFETY: the pool is the device's own; these attributes are numbers of 64 bits.
            unsafe { sys::cuMemPoolGetAttribute(self.pool, attribute, (&raw mut bytes).cast()) }
                .result()
                .map(|()| bytes)
                .map_err(|e| failed("its memory", e))
        };
        use sys::CUmemPool_attribute_enum as Attribute;
        let reserved = pool(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        let used = pool(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
        Ok((free as u64 + reserved.saturating_sub(used), total as u64))
    }

    /// Waits until everything asked for so far is done.
    pub fn synchronize(&self) -> Result<()> {
        self.stream_of_copies()?;
        self.stream.synchronize().map_err(|e| failed("a kernel", e))
    }

    /// Makes room for `len` values, which hold anything until they are written.
    pub fn allocate<T: Pod>(self: &Arc<Self>, len: usize) -> Result<Buffer<T>> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(Error::DeviceMemory { bytes: u64::MAX })?;
        let mut address = 0;
        if bytes > 0 {
            self.bind()?;
            // SAFETY: the stream is ours; nothing is read before it is written, on the same stream.
            address = unsafe { result::malloc_async(self.stream_of_copies()?, bytes) }.map_err(|e| {
                if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                    Error::DeviceMemory { bytes: bytes as u64 }
                } else {
                    failed("an allocation", e)
                }
            })?;
        }
        Ok(Buffer::from_raw(self, address, len))
    }

    /// Makes room for `len` zeros.
    pub fn zeros<T: Pod>(self: &Arc<Self>, len: usize) -> Result<Buffer<T>> {
        let buffer = self.allocate(len)?;
        buffer.fill_bytes(0)?;
        Ok(buffer)
    }

    /// Copies `values` into new memory of the device.
    pub fn upload<T: Pod>(self: &Arc<Self>, values: &[T]) -> Result<Buffer<T>> {
        let mut buffer = self.allocate(values.len())?;
        buffer.write(values)?;
        Ok(buffer)
    }

    /// Makes room for `len` values there (zeros) and here (to be written first).
    pub fn mirror<T: Pod>(self: &Arc<Self>, len: usize) -> Result<Mirror<T>> {
        use sys::CUevent_flags_enum as Flags;
        let buffer = self.zeros(len.max(1))?;
        // SAFETY: freed by the mirror; it is written before it is read.
        let host = unsafe { result::malloc_host(len.max(1) * size_of::<T>(), 0) }
            .map_err(|e| failed("pinned memory", e))?;
        let copied =
            result::event::create(Flags::CU_EVENT_BLOCKING_SYNC).map_err(|e| failed("an event", e))?;
        Ok(Mirror::from_raw(buffer, host.cast(), copied))
    }

    /// Records what `work` launches on this GPU, without doing it, to be done again and again by one call.
    ///
    /// What is launched meanwhile by other threads, or on other GPUs, is done, not recorded. Allocations, and copies
    /// from and to the host, fail in a recording.
    ///
    /// # Safety
    /// At each replay the buffers that `work` names must be alive, and nobody else's to read or write.
    pub unsafe fn record(self: &Arc<Self>, work: impl FnOnce() -> Result<()>) -> Result<Recording> {
        let capture = Capture::begin(self)?;
        work()?;
        let graph = capture.end()?;
        // SAFETY: the graph was just made, and is whole.
        let executable = unsafe { result::graph::instantiate(graph.0, sys::CUgraphInstantiate_flags(0)) }
            .map_err(|e| failed("a recording", e))?;
        Ok(Recording { gpu: Arc::clone(self), executable })
    }

    /// Prepares a launch of `kernel`; a mistake in its name or parameters is a bug of ours.
    pub(super) fn launch(&self, kernel: &'static str) -> Launch<'_> {
        Launch::new(self, kernel)
    }

    fn function(&self, kernel: &'static str) -> Result<CudaFunction> {
        use sys::CUfunction_attribute_enum as Attribute;
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(kernel) {
            return Ok(function.clone());
        }
        let function = self.module.load_function(kernel).map_err(|e| failed(kernel, e))?;
        let dynamic = self.shared_bytes - function.shared_size_bytes().map_err(|e| failed(kernel, e))?;
        function
            .set_attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, dynamic)
            .map_err(|e| failed(kernel, e))?;
        functions.insert(kernel, function.clone());
        Ok(function)
    }

    /// The stream that this thread's launches go to.
    fn stream(&self) -> sys::CUstream {
        record::recorder(self).unwrap_or(self.stream.cu_stream())
    }

    /// The stream that this thread's copies and allocations go to; fails while it records.
    fn stream_of_copies(&self) -> Result<sys::CUstream> {
        match record::recorder(self) {
            Some(_) => Err(Error::Gpu { what: "a recording", reason: "it holds launches only".into() }),
            None => Ok(self.stream.cu_stream()),
        }
    }

    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|e| failed("its context", e))
    }
}

/// An error of the driver as ours.
fn failed(what: &'static str, error: DriverError) -> Error {
    Error::Gpu { what, reason: told(error) }
}

/// What the driver says of an error.
fn told(error: DriverError) -> String {
    let text = |found: std::result::Result<&std::ffi::CStr, DriverError>| {
        found.map_or_else(|_| format!("{:?}", error.0), |text| text.to_string_lossy().into_owned())
    };
    format!("{} ({})", text(error.error_string()), text(error.error_name()))
}

//! Memory of a GPU: values there, and values that the host and the GPU pass to each other.

use super::{Gpu, failed};
use crate::Result;
use crate::gpu::Address;
use bytemuck::Pod;
use cudarc::driver::{result, sys};
use std::marker::PhantomData;
use std::sync::Arc;

/// Values in the memory of a GPU, given back when dropped.
#[derive(Debug)]
pub struct Buffer<T> {
    gpu: Arc<Gpu>,
    address: u64,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// Takes over `len` values at `address`; 0 where there are none.
    pub(super) fn from_raw(gpu: &Arc<Gpu>, address: u64, len: usize) -> Self {
        Self { gpu: Arc::clone(gpu), address, len, values: PhantomData }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The GPU that they are on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Where it lies, as a kernel's parameter.
    pub(in crate::gpu) fn address(&self) -> Address {
        Address(self.address)
    }

    /// Replaces the first values; there must be room for them.
    pub fn write(&mut self, values: &[T]) -> Result<()> {
        assert!(values.len() <= self.len, "{} values for a buffer of {}", values.len(), self.len);
        if values.is_empty() {
            return Ok(());
        }
        self.gpu.bind()?;
        // SAFETY: there is room, and the source outlives the copy, which is waited for below.
        unsafe { result::memcpy_htod_async(self.address, values, self.gpu.stream_of_copies()?) }
            .map_err(|e| failed("a copy to it", e))?;
        // Drivers have read memory that is not pinned when the call returns, but do not promise it.
        self.gpu.synchronize()
    }

    /// Sets every byte.
    pub fn fill_bytes(&self, byte: u8) -> Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        self.gpu.bind()?;
        let bytes = self.len * size_of::<T>();
        // SAFETY: all of it is ours.
        unsafe { result::memset_d8_async(self.address, byte, bytes, self.gpu.stream()) }
            .map_err(|e| failed("a memset", e))
    }

    /// Waits for the work asked for so far and copies the first `len` values back.
    pub fn download(&self, len: usize) -> Result<Vec<T>> {
        assert!(len <= self.len, "{len} values of a buffer of {}", self.len);
        let mut values = vec![T::zeroed(); len];
        self.download_into(&mut values)?;
        Ok(values)
    }

    /// Waits for the work asked for so far and copies the first values back.
    pub fn download_into(&self, values: &mut [T]) -> Result<()> {
        self.download_from(0, values)
    }

    /// Waits for the work asked for so far and copies the values from `first` on back.
    pub fn download_from(&self, first: usize, values: &mut [T]) -> Result<()> {
        let all = self.len;
        assert!(first <= all && values.len() <= all - first, "{} values from {first} of {all}", values.len());
        if !values.is_empty() {
            self.gpu.bind()?;
            let from = self.address + (first * size_of::<T>()) as u64;
            // SAFETY: the target outlives the copy, which is waited for below.
            unsafe { result::memcpy_dtoh_async(values, from, self.gpu.stream_of_copies()?) }
                .map_err(|e| failed("a kernel, or a copy from it,", e))?;
        }
        self.gpu.synchronize()
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.address != 0 && self.gpu.bind().is_ok() {
            // SAFETY: allocated by `allocate`; work that still uses it was asked for before, on the same stream, which
            // no recording takes the place of. A failure here is that of earlier work and shows at the next download.
            let _ = unsafe { result::free_async(self.address, self.gpu.stream.cu_stream()) };
        }
    }
}

/// Values in the memory of a GPU with a place in the host's that the GPU itself reads and writes (pinned memory), so that
/// copies do not wait for other work, nor other work for them.
#[derive(Debug)]
pub struct Mirror<T> {
    buffer: Buffer<T>,
    host: *mut T,
    /// Values that the host's place has room for: a caller may have put another buffer here.
    len: usize,
    /// The last copy.
    copied: sys::CUevent,
}

// SAFETY: the pointer and the event are this value's alone.
unsafe impl<T: Send> Send for Mirror<T> {}

impl<T: Pod> Mirror<T> {
    /// Takes over a buffer, pinned memory of its size and an event.
    pub(super) fn from_raw(buffer: Buffer<T>, host: *mut T, copied: sys::CUevent) -> Self {
        let len = buffer.len;
        Self { buffer, host, len, copied }
    }

    /// The values on the GPU.
    pub fn there(&self) -> &Buffer<T> {
        &self.buffer
    }

    /// The values on the GPU, to be written by a kernel.
    pub fn there_mut(&mut self) -> &mut Buffer<T> {
        &mut self.buffer
    }

    /// Replaces the first values on the GPU, in the order of its work; there must be room for them.
    pub fn write(&mut self, values: &[T]) -> Result<()> {
        let room = self.buffer.len.min(self.len);
        assert!(values.len() <= room, "{} values for a buffer of {room}", values.len());
        let gpu = Arc::clone(&self.buffer.gpu);
        let stream = gpu.stream_of_copies()?;
        gpu.bind()?;
        // SAFETY: the event is ours; once it is over, no copy uses the host's place.
        unsafe { result::event::synchronize(self.copied) }.map_err(|e| failed("a copy to it", e))?;
        // SAFETY: pinned memory of at least that many values.
        let host = unsafe { std::slice::from_raw_parts_mut(self.host, values.len()) };
        host.copy_from_slice(values);
        // SAFETY: there is room, and the host's place stays as it is until the event below is over.
        unsafe {
            result::memcpy_htod_async(self.buffer.address, host, stream)
                .and_then(|()| result::event::record(self.copied, stream))
        }
        .map_err(|e| failed("a copy to it", e))
    }

    /// Waits for the work asked for so far and returns the first `len` values of the GPU.
    pub fn read(&mut self, len: usize) -> Result<&[T]> {
        let room = self.buffer.len.min(self.len);
        assert!(len <= room, "{len} values of a buffer of {room}");
        let gpu = &self.buffer.gpu;
        let stream = gpu.stream_of_copies()?;
        gpu.bind()?;
        // SAFETY: pinned memory of at least that many values, which is not read before the event is over.
        let host = unsafe { std::slice::from_raw_parts_mut(self.host, len) };
        // SAFETY: as above; the event is ours.
        unsafe {
            result::memcpy_dtoh_async(host, self.buffer.address, stream)
                .and_then(|()| result::event::record(self.copied, stream))
                .and_then(|()| result::event::synchronize(self.copied))
        }
        .map_err(|e| failed("a kernel, or a copy from it,", e))?;
        Ok(host)
    }
}

impl<T> Drop for Mirror<T> {
    fn drop(&mut self) {
        if self.buffer.gpu.bind().is_ok() {
            // SAFETY: both are ours; copies that use them are over once the event is.
            unsafe {
                let _ = result::event::synchronize(self.copied);
                let _ = result::event::destroy(self.copied);
                let _ = result::free_host(self.host.cast());
            }
        }
    }
}

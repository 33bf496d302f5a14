//! Launches of kernels, and what they take besides numbers.

use super::{Buffer, Gpu, failed};
use crate::Result;
use crate::gpu::{Half, Parameter, int};
use bytemuck::Pod;
use cudarc::driver::{result, sys};
use std::ffi::c_void;

/// A launch being prepared.
pub(in crate::gpu) struct Launch<'a> {
    gpu: &'a Gpu,
    kernel: &'static str,
    grid: (u32, u32, u32),
    block: u32,
    shared: usize,
    /// Copies of the parameters, each aligned as the strictest of C's types.
    parameters: Vec<Vec<u128>>,
}

impl<'a> Launch<'a> {
    pub(super) fn new(gpu: &'a Gpu, kernel: &'static str) -> Self {
        Self { gpu, kernel, grid: (1, 1, 1), block: 1, shared: 0, parameters: Vec::new() }
    }
}

impl Launch<'_> {
    /// Blocks in each of two dimensions.
    pub(in crate::gpu) fn grid(mut self, x: usize, y: usize) -> Self {
        self.grid = (int(x) as u32, int(y) as u32, 1);
        self
    }

    /// Threads of a block.
    pub(in crate::gpu) fn block(mut self, threads: u32) -> Self {
        self.block = threads;
        self
    }

    /// Bytes of dynamic shared memory.
    pub(in crate::gpu) fn shared(mut self, bytes: usize) -> Self {
        self.shared = bytes;
        self
    }

    /// The next parameter.
    pub(in crate::gpu) fn arg<T: Parameter>(mut self, value: T) -> Self {
        let bytes = bytemuck::bytes_of(&value);
        let mut copy = vec![0u128; bytes.len().div_ceil(16)];
        bytemuck::cast_slice_mut::<u128, u8>(&mut copy)[..bytes.len()].copy_from_slice(bytes);
        self.parameters.push(copy);
        self
    }

    /// Starts it.
    ///
    /// # Safety
    /// The kernel must take these parameters and stay within the memory that they name.
    pub(in crate::gpu) unsafe fn start(mut self) -> Result<()> {
        if self.grid.0 == 0 || self.grid.1 == 0 {
            return Ok(());
        }
        let function = self.gpu.function(self.kernel)?;
        self.gpu.bind()?;
        let mut pointers: Vec<*mut c_void> =
            self.parameters.iter_mut().map(|p| p.as_mut_ptr().cast::<c_void>()).collect();
        // SAFETY: the driver copies the parameters before it returns; the rest is the caller's word.
        unsafe {
            result::launch_kernel(
                function.cu_function(),
                self.grid,
                (self.block, 1, 1),
                self.shared as u32,
                self.gpu.stream(),
                &mut pointers,
            )
        }
        .map_err(|e| failed(self.kernel, e))
    }
}

/// A matrix in device memory as Hopper's unit for copying tiles knows it.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(in crate::gpu) struct TensorMap([u64; 16]);

/// What a tensor map's elements are.
#[derive(Debug, Clone, Copy)]
pub(in crate::gpu) enum Element {
    Half(Half),
    Byte,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Self::Half(_) => 2,
            Self::Byte => 1,
        }
    }
}

impl TensorMap {
    /// Maps `rows` × `columns` elements, without gaps, in tiles of `tile_rows` rows of 128 bytes, swizzled.
    pub(in crate::gpu) fn new<T: Pod>(
        buffer: &Buffer<T>,
        element: Element,
        rows: usize,
        columns: usize,
        tile_rows: u32,
    ) -> Result<Self> {
        use sys::CUtensorMapDataType_enum as Type;
        let bytes = element.bytes();
        assert!(
            rows * columns * bytes <= buffer.len() * size_of::<T>() && (columns * bytes).is_multiple_of(16)
        );
        let kind = match element {
            Element::Half(Half::Float16) => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            Element::Half(Half::BFloat16) => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            Element::Byte => Type::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        };
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the address and the sizes are those of the buffer; all arrays live through the call.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                kind,
                2,
                buffer.address().0 as *mut c_void,
                [columns as u64, rows as u64].as_ptr(),
                [(columns * bytes) as u64].as_ptr(),
                [(128 / bytes) as u32, tile_rows].as_ptr(),
                [1, 1].as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(|e| failed("a tensor map", e))?;
        Ok(Self(map.opaque))
    }
}

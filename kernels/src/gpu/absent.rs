//! Stands in for the driver where the feature `cuda` is off: there is no GPU, so nothing here is ever called.

use super::{Address, Half, Parameter};
use crate::Result;
use bytemuck::Pod;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;

/// A GPU that this build cannot open.
#[derive(Debug)]
pub struct Gpu(Infallible);

impl Gpu {
    /// Says that this build has no CUDA support.
    pub fn count() -> std::result::Result<usize, String> {
        Err("this build has no CUDA support".into())
    }

    /// Says that this build has no CUDA support.
    pub fn open(_: usize) -> std::result::Result<Arc<Self>, String> {
        Err("this build has no CUDA support".into())
    }

    /// Never called.
    pub fn name(&self) -> &str {
        match self.0 {}
    }

    /// Never called.
    pub fn ordinal(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn multiprocessors(&self) -> u32 {
        match self.0 {}
    }

    pub(super) fn shared_bytes(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn is_hopper(&self) -> bool {
        match self.0 {}
    }

    /// Never called.
    pub fn memory(&self) -> Result<(u64, u64)> {
        match self.0 {}
    }

    /// Never called.
    pub fn synchronize(&self) -> Result<()> {
        match self.0 {}
    }

    /// Never called.
    pub fn allocate<T: Pod>(self: &Arc<Self>, _: usize) -> Result<Buffer<T>> {
        match self.0 {}
    }

    /// Never called.
    pub fn zeros<T: Pod>(self: &Arc<Self>, _: usize) -> Result<Buffer<T>> {
        match self.0 {}
    }

    /// Never called.
    pub fn upload<T: Pod>(self: &Arc<Self>, _: &[T]) -> Result<Buffer<T>> {
        match self.0 {}
    }

    /// Never called.
    pub fn mirror<T: Pod>(self: &Arc<Self>, _: usize) -> Result<Mirror<T>> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Safety
    /// It is never called.
    pub unsafe fn record(self: &Arc<Self>, _: impl FnOnce() -> Result<()>) -> Result<Recording> {
        match self.0 {}
    }

    pub(super) fn launch(&self, _: &'static str) -> Launch<'_> {
        match self.0 {}
    }
}

/// Values in the memory of a GPU that this build cannot open.
#[derive(Debug)]
pub struct Buffer<T>(Arc<Gpu>, PhantomData<T>);

impl<T: Pod> Buffer<T> {
    /// Never called.
    pub fn len(&self) -> usize {
        match self.0.0 {}
    }

    /// Never called.
    pub fn is_empty(&self) -> bool {
        match self.0.0 {}
    }

    /// Never called.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.0
    }

    pub(super) fn address(&self) -> Address {
        match self.0.0 {}
    }

    /// Never called.
    pub fn write(&mut self, _: &[T]) -> Result<()> {
        match self.0.0 {}
    }

    /// Never called.
    pub fn fill_bytes(&self, _: u8) -> Result<()> {
        match self.0.0 {}
    }

    /// Never called.
    pub fn download(&self, _: usize) -> Result<Vec<T>> {
        match self.0.0 {}
    }

    /// Never called.
    pub fn download_into(&self, _: &mut [T]) -> Result<()> {
        match self.0.0 {}
    }

    /// Never called.
    pub fn download_from(&self, _: usize, _: &mut [T]) -> Result<()> {
        match self.0.0 {}
    }
}

/// Values in the memory of a GPU that this build cannot open.
#[derive(Debug)]
pub struct Mirror<T>(Buffer<T>);

impl<T: Pod> Mirror<T> {
    /// Never called.
    pub fn there(&self) -> &Buffer<T> {
        &self.0
    }

    /// Never called.
    pub fn there_mut(&mut self) -> &mut Buffer<T> {
        &mut self.0
    }

    /// Never called.
    pub fn write(&mut self, _: &[T]) -> Result<()> {
        match self.0.0.0 {}
    }

    /// Never called.
    pub fn read(&mut self, _: usize) -> Result<&[T]> {
        match self.0.0.0 {}
    }
}

/// Work of a GPU that this build cannot open.
pub struct Recording(Infallible);

impl Recording {
    /// Never called.
    pub fn replay(&mut self) -> Result<()> {
        match self.0 {}
    }
}

pub(super) struct Launch<'a>(&'a Gpu);

impl Launch<'_> {
    pub(super) fn grid(self, _: usize, _: usize) -> Self {
        self
    }

    pub(super) fn block(self, _: u32) -> Self {
        self
    }

    pub(super) fn shared(self, _: usize) -> Self {
        self
    }

    pub(super) fn arg<T: Parameter>(self, _: T) -> Self {
        self
    }

    /// # Safety
    /// It is never called.
    pub(super) unsafe fn start(self) -> Result<()> {
        match self.0.0 {}
    }
}

#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct TensorMap([u64; 16]);

#[derive(Debug, Clone, Copy)]
pub(super) enum Element {
    Half(#[allow(dead_code)] Half),
    Byte,
}

impl TensorMap {
    pub(super) fn new<T: Pod>(buffer: &Buffer<T>, _: Element, _: usize, _: usize, _: u32) -> Result<Self> {
        match buffer.0.0 {}
    }
}

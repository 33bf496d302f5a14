//! Weights: tensors of a `model.safetensors`, widened to f32, each checked against the shape it must have.

use crate::{Error, Result};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};

/// A safetensors file in memory.
pub(super) struct Weights {
    path: PathBuf,
    bytes: Vec<u8>,
    /// What stands before every name in this file: some exports say `bert.encoder...`.
    prefix: String,
}

impl Weights {
    /// Reads the file `name` of `folder`.
    pub(super) fn open(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let pickled = folder.join("pytorch_model.bin").exists();
                let hint = if pickled {
                    "; pytorch_model.bin is not read (a pickle can run code): convert it to safetensors"
                } else {
                    ""
                };
                return Err(Error::model(folder, format!("has no {name}{hint}")));
            }
            Err(e) => return Err(Error::io(path, e)),
        };
        let weights = Self { path, bytes, prefix: String::new() };
        weights.parse()?;
        Ok(weights)
    }

    /// Uses `prefix` for every name if some tensor's name starts with it.
    pub(super) fn with_prefix(mut self, prefix: &str) -> Result<Self> {
        if self.parse()?.names().iter().any(|n| n.starts_with(prefix)) {
            self.prefix = prefix.into();
        }
        Ok(self)
    }

    /// Returns the tensor `name` as f32; its shape must be `shape`.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensors = self.parse()?;
        let full = format!("{}{name}", self.prefix);
        let Ok(tensor) = tensors.tensor(&full) else {
            return Err(Error::model(&self.path, format!("has no tensor \"{full}\"")));
        };
        if tensor.shape() != shape {
            return Err(Error::model(
                &self.path,
                format!(
                    "tensor \"{full}\" has shape {:?}, expected {shape:?} by config.json",
                    tensor.shape()
                ),
            ));
        }
        let data = tensor.data();
        let values: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => {
                data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::BF16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => {
                return Err(Error::model(
                    &self.path,
                    format!("tensor \"{full}\" is {other:?}, expected F32, F16 or BF16"),
                ));
            }
        };
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(at) => Err(Error::model(
                &self.path,
                format!("tensor \"{full}\" holds {} at {at}: not a finite number", values[at]),
            )),
        }
    }

    fn parse(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes)
            .map_err(|e| Error::model(&self.path, format!("cannot be read as safetensors: {e}")))
    }
}

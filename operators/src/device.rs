//! Stages that GPUs do where they can, and the processor where they cannot.

use crate::{Error, Result};
use kernels::Device;

/// Does the `work` of `stage` on `device`; on the processor where `beyond` says what of it is beyond a GPU's kernels,
/// or where a GPU has no memory for it, which is told. `work` may thus be done twice: all that it leaves, it returns.
///
/// # Errors
/// Those of `work`.
pub(crate) fn on_device<T>(
    stage: &'static str,
    device: &Device,
    beyond: Option<String>,
    mut work: impl FnMut(&Device) -> Result<T>,
) -> Result<T> {
    if let Device::Cpu(_) = device {
        return work(device);
    }
    if let Some(beyond) = beyond {
        tracing::info!("{stage}: {beyond}, so the processor does it");
        return work(&Device::cpu());
    }
    match work(device) {
        Err(Error::Kernel(kernels::Error::DeviceMemory { bytes })) => {
            tracing::warn!("{stage}: the GPU has no {bytes} bytes of memory left, so the processor does it");
            work(&Device::cpu())
        }
        done => done,
    }
}

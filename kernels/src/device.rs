//! The device that kernels run on, opened once and passed down.

use crate::{Error, Isa, Result};

/// Where a job's kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// This machine's processor, with its best instruction set.
    Cpu(Isa),
}

impl Device {
    /// Opens the device a user names: `auto` or `cpu`.
    ///
    /// `cuda` and `cuda:N` are refused with the reason; `auto` never is.
    pub fn open(name: &str) -> Result<Self> {
        match name {
            "auto" | "cpu" => Ok(Self::Cpu(Isa::detect())),
            cuda if cuda == "cuda" || cuda.starts_with("cuda:") => {
                Err(Error::Device { name: name.into(), reason: gpu_reason() })
            }
            _ => Err(Error::Device {
                name: name.into(),
                reason: "unknown, expected \"auto\" or \"cpu\"".into(),
            }),
        }
    }
}

/// Says why no GPU can be used by this build on this machine.
#[cfg(not(feature = "cuda"))]
fn gpu_reason() -> String {
    "this build has no CUDA support; use \"cpu\", or build with --features cuda".into()
}

/// Says why no GPU can be used by this build on this machine.
#[cfg(feature = "cuda")]
fn gpu_reason() -> String {
    // SAFETY: only asks the loader whether the driver's library can be opened; it runs nothing from it. Every other
    // call of cudarc panics where the library is absent, so this probe comes first.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return "no NVIDIA driver was found on this machine; use \"cpu\"".into();
    }
    let count = cudarc::driver::CudaContext::device_count();
    match count {
        Ok(n) if n > 0 => {
            format!("{n} NVIDIA GPU(s) found, but this version has no CUDA kernels; use \"cpu\"")
        }
        Ok(_) => "the NVIDIA driver found no GPU; use \"cpu\"".into(),
        Err(error) => format!("the NVIDIA driver failed ({error:?}); use \"cpu\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_always_opens() {
        assert!(Device::open("auto").is_ok());
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_an_error_with_a_way_out() {
        let error = Device::open("cuda:0").unwrap_err().to_string();
        assert!(error.contains("cuda:0") && error.contains("\"cpu\""), "{error}");
    }
}

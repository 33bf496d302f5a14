//! The device that kernels run on, opened once and passed down.

use crate::gpu::Gpu;
use crate::{Error, Isa, Result};
use std::sync::Arc;

/// Where a job's kernels run.
#[derive(Debug, Clone)]
pub enum Device {
    /// This machine's processor, with its best instruction set.
    Cpu(Isa),
    /// GPUs, at least one. What has no kernel for them runs on the processor.
    Cuda(Vec<Arc<Gpu>>),
}

impl Device {
    /// Opens the device a user names: `cpu`; `cuda` for all GPUs that can be used, `cuda:N` for one, `cuda:N,M` for
    /// some; `auto` for all GPUs that can be used, or the processor if there is none.
    ///
    /// # Errors
    /// `Device`, with the reason and a way out, for GPUs that cannot be used; never for `auto` and `cpu`.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_telling(name, |_| ())
    }

    /// The same; `left_out` hears why `auto` and `cuda` leave a GPU out, or why `auto` finds none.
    pub fn open_telling(name: &str, mut left_out: impl FnMut(String)) -> Result<Self> {
        let refused = |reason| Error::Device { name: name.into(), reason };
        match name {
            "auto" => Ok(Self::all_gpus(&mut left_out).unwrap_or_else(|_| Self::cpu())),
            "cpu" => Ok(Self::cpu()),
            "cuda" => {
                Self::all_gpus(&mut left_out).map_err(|reason| refused(format!("{reason}; use \"cpu\"")))
            }
            _ => {
                let numbers = name.strip_prefix("cuda:").and_then(|list| {
                    list.split(',').map(|n| n.trim().parse().ok()).collect::<Option<Vec<usize>>>()
                });
                let Some(numbers) = numbers else {
                    return Err(refused("unknown, expected auto, cpu, cuda, or cuda:N".into()));
                };
                if let Some((_, twice)) = numbers.iter().enumerate().find(|(i, n)| numbers[..*i].contains(n))
                {
                    return Err(refused(format!("GPU {twice} is named twice, expected each once")));
                }
                let gpus: std::result::Result<_, String> = numbers.into_iter().map(Gpu::open).collect();
                gpus.map(Self::Cuda).map_err(|reason| refused(format!("{reason}; use \"cpu\"")))
            }
        }
    }

    /// The processor.
    pub fn cpu() -> Self {
        Self::Cpu(Isa::detect())
    }

    /// All GPUs that can be used, or why the first cannot; `left_out` hears of each that cannot.
    fn all_gpus(left_out: &mut dyn FnMut(String)) -> std::result::Result<Self, String> {
        let count = Gpu::count().inspect_err(|reason| left_out(reason.clone()))?;
        let (mut gpus, mut first_reason) = (Vec::new(), None);
        for ordinal in 0..count {
            match Gpu::open(ordinal) {
                Ok(gpu) => gpus.push(gpu),
                Err(reason) => {
                    left_out(format!("cuda:{ordinal} is not used: {reason}"));
                    first_reason.get_or_insert(reason);
                }
            }
        }
        match first_reason {
            Some(reason) if gpus.is_empty() => Err(reason),
            _ => Ok(Self::Cuda(gpus)),
        }
    }

    /// The instruction set of what runs on the processor, whatever else there is.
    pub fn isa(&self) -> Isa {
        match self {
            Self::Cpu(isa) => *isa,
            Self::Cuda(_) => Isa::detect(),
        }
    }

    /// The first GPU, for kernels that run on one.
    pub fn gpu(&self) -> Option<&Arc<Gpu>> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(gpus) => gpus.first(),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu(isa) => write!(f, "cpu ({})", isa.name()),
            Self::Cuda(gpus) => {
                let names: Vec<String> =
                    gpus.iter().map(|gpu| format!("cuda:{} ({})", gpu.ordinal(), gpu.name())).collect();
                f.write_str(&names.join(", "))
            }
        }
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
        let error = Device::open("cuda:99").unwrap_err().to_string();
        assert!(error.contains("cuda:99") && error.contains("\"cpu\""), "{error}");
        let error = Device::open("cuda:1,0,1").unwrap_err().to_string();
        assert!(error.contains("GPU 1 is named twice"), "{error}");
        for name in ["gpu", "cuda:", "cuda:x", "cuda:0,y"] {
            assert!(Device::open(name).unwrap_err().to_string().contains("expected auto"), "{name}");
        }
    }
}

//! Which GPUs a name opens.

use super::*;
use kernels::Device;

#[test]
fn a_gpu_that_cannot_be_used_is_told_and_the_others_are_used() {
    let Some(emulator) = emulator::load() else { return };
    let _alone = memory().write().unwrap_or_else(PoisonError::into_inner);
    for old in 0..2 {
        (emulator.set_old)(old);
        for name in ["cuda", "auto"] {
            let mut told = Vec::new();
            let device = Device::open_telling(name, |gpu| told.push(gpu));
            let Ok(Device::Cuda(gpus)) = device else { panic!("{name}: {device:?}") };
            assert!(gpus.len() == 1 && gpus[0].ordinal() == 1 - old as usize, "{gpus:?}");
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(&format!("cuda:{old} is not used: ")), "{told:?}");
            assert!(told[0].contains("compute capability 7.0"), "{told:?}");
        }
        let error = Device::open(&format!("cuda:{old}")).unwrap_err().to_string();
        assert!(error.contains("compute capability 7.0"), "{error}");
    }
    (emulator.set_old)(-1);
    let mut told = Vec::new();
    assert!(
        matches!(Device::open_telling("cuda", |gpu| told.push(gpu)), Ok(Device::Cuda(two)) if two.len() == 2)
    );
    assert_eq!(told, Vec::<String>::new());
}

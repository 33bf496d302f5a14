//! Work that is recorded and replayed.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A buffer of 64 zeros, and what is in it.
fn zeros(gpu: &Arc<Gpu>) -> kernels::gpu::Buffer<u8> {
    gpu.zeros(64).unwrap()
}

fn first(buffer: &kernels::gpu::Buffer<u8>) -> u8 {
    buffer.download(1).unwrap()[0]
}

#[test]
fn what_is_launched_on_another_gpu_is_done_not_recorded() {
    let _alone = memory().write().unwrap_or_else(PoisonError::into_inner);
    emulator::load();
    if Gpu::count().unwrap() < 2 {
        return;
    }
    let (one, other) = (Gpu::open(0).unwrap(), Gpu::open(1).unwrap());
    let (here, there) = (zeros(&one), zeros(&other));
    let work = || {
        here.fill_bytes(1)?;
        there.fill_bytes(2)?;
        // A recording on each of them at the same time.
        // SAFETY: the buffer lives as long as the recording.
        let mut inner = unsafe { other.record(|| there.fill_bytes(3).and_then(|()| here.fill_bytes(4))) }?;
        assert_eq!(first(&there), 2, "not recorded by either");
        inner.replay()?;
        assert_eq!(first(&there), 3);
        Ok(())
    };
    // SAFETY: the buffers live as long as the recording.
    let mut recording = unsafe { one.record(work) }.unwrap();
    assert_eq!((first(&here), first(&there)), (0, 3));
    there.fill_bytes(9).unwrap();
    recording.replay().unwrap();
    assert_eq!((first(&here), first(&there)), (4, 9));
}

#[test]
fn work_that_fails_or_panics_leaves_no_recording_behind() {
    let _alone = memory().write().unwrap_or_else(PoisonError::into_inner);
    let emulator = emulator::load();
    for ordinal in 0..Gpu::count().unwrap() {
        let gpu = Gpu::open(ordinal).unwrap();
        let buffer = zeros(&gpu);
        let failing = || buffer.fill_bytes(1).and_then(|()| gpu.synchronize());
        // SAFETY: nothing is replayed.
        let error = unsafe { gpu.record(failing) }.err().unwrap().to_string();
        assert!(error.contains("launches only"), "{error}");
        let panicking = || {
            buffer.fill_bytes(2)?;
            panic!("as it is to")
        };
        // SAFETY: nothing is replayed.
        assert!(catch_unwind(AssertUnwindSafe(|| unsafe { gpu.record(panicking) })).is_err());
        if let Some(emulator) = emulator {
            assert_eq!((emulator.graphs)(), 0, "{gpu:?}");
        }
        assert_eq!(first(&buffer), 0);
        // What comes now is done, and can be recorded.
        buffer.fill_bytes(3).unwrap();
        assert_eq!(first(&buffer), 3);
        // SAFETY: the buffer lives as long as the recording.
        let mut recording = unsafe { gpu.record(|| buffer.fill_bytes(4)) }.unwrap();
        assert_eq!(first(&buffer), 3);
        recording.replay().unwrap();
        assert_eq!(first(&buffer), 4);
        drop(recording);
        if let Some(emulator) = emulator {
            assert_eq!((emulator.graphs)(), 0, "{gpu:?}");
        }
    }
}

#[test]
fn a_recording_holds_launches_only() {
    let _alone = memory().write().unwrap_or_else(PoisonError::into_inner);
    emulator::load();
    for ordinal in 0..Gpu::count().unwrap() {
        let gpu = Gpu::open(ordinal).unwrap();
        let refused = |work: &mut dyn FnMut() -> kernels::Result<()>| {
            // SAFETY: nothing is replayed.
            let error = unsafe { gpu.record(work) }.err().unwrap().to_string();
            assert!(error.contains("launches only") || error.contains("within another"), "{error}");
        };
        let (mut buffer, mut mirror) = (zeros(&gpu), gpu.mirror::<u8>(4).unwrap());
        refused(&mut || gpu.allocate::<u8>(1).map(drop));
        refused(&mut || buffer.write(&[1]));
        refused(&mut || buffer.download(1).map(drop));
        refused(&mut || mirror.write(&[1]));
        refused(&mut || mirror.read(1).map(drop));
        // SAFETY: nothing is replayed.
        refused(&mut || unsafe { gpu.record(|| Ok(())) }.map(drop));
        assert_eq!(first(&buffer), 0);
    }
}

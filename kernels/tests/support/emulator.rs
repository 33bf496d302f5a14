//! Puts the emulated driver (`kernels/emulator`) where cudarc looks for the real one.

#![allow(dead_code)] // each test binary has its copy, and needs some of it

use std::ffi::{CStr, CString, c_int, c_void};
use std::process::Command;
use std::sync::OnceLock;

/// How many orders of threads the emulator has, as `emulator/runtime.h` counts them.
pub const SCHEDULES: c_int = 6;

/// The emulator's own functions.
pub struct Emulator {
    /// Sets the order of threads for what this thread launches from now on.
    pub set_schedule: extern "C" fn(c_int),
    /// Sets the bytes of each device's memory, for all threads.
    pub set_memory: extern "C" fn(usize),
    /// The most bytes that a device held at once since the last call.
    pub peak_memory: extern "C" fn(c_int) -> usize,
    /// Makes a device older than all kernels; none by -1.
    pub set_old: extern "C" fn(c_int),
    /// How many graphs there are: recorded, being recorded, and ready to be launched.
    pub graphs: extern "C" fn() -> c_int,
}

/// Builds and loads the emulator; nothing where tests are to run on a real GPU (`THEMA_TEST_GPU=real`).
///
/// `THEMA_TEST_KERNELS` names another folder of kernels to build it from, for checks that tests can fail.
pub fn load() -> Option<&'static Emulator> {
    static LOADED: OnceLock<Option<Emulator>> = OnceLock::new();
    LOADED.get_or_init(|| (std::env::var("THEMA_TEST_GPU").as_deref() != Ok("real")).then(build)).as_ref()
}

fn build() -> Emulator {
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/emulator/build.sh"));
    if let Ok(kernels) = std::env::var("THEMA_TEST_KERNELS") {
        script.arg(kernels);
    }
    let built = script.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let folder = String::from_utf8(built.stdout).unwrap();
    let library = CString::new(format!("{}/libcuda.so", folder.trim())).unwrap();
    // SAFETY: a library of ours; loaded first, it is the one that cudarc finds by its name.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        // SAFETY: after a failure dlerror returns a string.
        panic!("{}", unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy());
    }
    let symbol = |name: &CStr| {
        // SAFETY: the handle is open, the name a C string.
        let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?}");
        symbol
    };
    let (schedule, memory) = (symbol(c"emulatorSetSchedule"), symbol(c"emulatorSetMemory"));
    let (old, graphs) = (symbol(c"emulatorSetOld"), symbol(c"emulatorGraphs"));
    let peak = symbol(c"emulatorPeakMemory");
    // SAFETY: functions of these types in emulator/driver.cpp.
    unsafe {
        Emulator {
            set_schedule: std::mem::transmute::<*mut c_void, extern "C" fn(c_int)>(schedule),
            set_memory: std::mem::transmute::<*mut c_void, extern "C" fn(usize)>(memory),
            peak_memory: std::mem::transmute::<*mut c_void, extern "C" fn(c_int) -> usize>(peak),
            set_old: std::mem::transmute::<*mut c_void, extern "C" fn(c_int)>(old),
            graphs: std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(graphs),
        }
    }
}

//! What the NVIDIA driver says of its GPUs: CUDA's driver interface, of which the library is opened when it is there.

use std::ffi::{CStr, c_char, c_int, c_uint};

use libloading::Library;

#[cfg(windows)]
const LIBRARY: &str = "nvcuda.dll";
#[cfg(not(windows))]
const LIBRARY: &str = "libcuda.so.1";

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];

/// A GPU, in the driver's order, which honours `CUDA_VISIBLE_DEVICES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// As `nvidia-smi` names it: `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its compute capability, which says what it can do: (8, 0) and later multiply bfloat16.
    pub capability: (u32, u32),
}

/// An installed driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA that it supports: (13, 0).
    pub cuda: (u32, u32),
    pub gpus: Vec<Gpu>,
}

/// Asks the driver.
///
/// # Errors
/// Why there is none that works, as a fragment that follows "because".
pub fn ask() -> Result<Driver, String> {
    // SAFETY: loading runs the library's initializers, which are those of the system's GPU driver.
    let library =
        unsafe { Library::new(LIBRARY) }.map_err(|_| format!("there is no NVIDIA driver (`{LIBRARY}` is not found)"))?;
    // The driver does not bear being unloaded while its threads run.
    let library: &'static Library = Box::leak(Box::new(library));
    let calls = Calls::of(library).ok_or_else(|| format!("`{LIBRARY}` is no CUDA driver"))?;
    calls.gpus()
}

/// The functions of `cuda.h` that are asked.
struct Calls {
    init: unsafe extern "C" fn(c_uint) -> c_int,
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    count: unsafe extern "C" fn(*mut c_int) -> c_int,
    device: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int,
}

impl Calls {
    fn of(library: &'static Library) -> Option<Self> {
        // SAFETY: the signatures are those that `cuda.h` declares for these names.
        unsafe {
            Some(Calls {
                init: *library.get(b"cuInit\0").ok()?,
                version: *library.get(b"cuDriverGetVersion\0").ok()?,
                count: *library.get(b"cuDeviceGetCount\0").ok()?,
                device: *library.get(b"cuDeviceGet\0").ok()?,
                name: *library.get(b"cuDeviceGetName\0").ok()?,
                attribute: *library.get(b"cuDeviceGetAttribute\0").ok()?,
            })
        }
    }

    fn gpus(&self) -> Result<Driver, String> {
        // SAFETY: `cuInit` takes no flags and may be called at any time.
        match unsafe { (self.init)(0) } {
            0 => {}
            // CUDA_ERROR_NO_DEVICE
            100 => return Ok(Driver { cuda: self.cuda()?, gpus: Vec::new() }),
            code => return Err(failed("cuInit", code)),
        }
        let cuda = self.cuda()?;
        let mut count = 0;
        // SAFETY: writes one integer; the driver is initialised.
        done("cuDeviceGetCount", unsafe { (self.count)(&raw mut count) })?;
        let gpus = (0..count).map(|number| self.gpu(number)).collect::<Result<_, _>>()?;
        Ok(Driver { cuda, gpus })
    }

    fn cuda(&self) -> Result<(u32, u32), String> {
        let mut version = 0;
        // SAFETY: writes one integer.
        done("cuDriverGetVersion", unsafe { (self.version)(&raw mut version) })?;
        let version = version.unsigned_abs();
        Ok((version / 1000, version % 1000 / 10))
    }

    fn gpu(&self, number: c_int) -> Result<Gpu, String> {
        let mut device = 0;
        // SAFETY: writes one integer; `number` is below the count.
        done("cuDeviceGet", unsafe { (self.device)(&raw mut device, number) })?;
        let mut name: [c_char; 256] = [0; 256];
        // SAFETY: writes at most the length given, of which the last byte stays 0.
        done("cuDeviceGetName", unsafe { (self.name)(name.as_mut_ptr(), 255, device) })?;
        // SAFETY: the last byte is 0.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let mut capability = [0; 2];
        for (found, attribute) in capability.iter_mut().zip(CAPABILITY) {
            // SAFETY: writes one integer.
            done("cuDeviceGetAttribute", unsafe { (self.attribute)(&raw mut *found, attribute, device) })?;
        }
        let [major, minor] = capability.map(c_int::unsigned_abs);
        Ok(Gpu { name, capability: (major, minor) })
    }
}

fn done(call: &str, code: c_int) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(failed(call, code)) }
}

fn failed(call: &str, code: c_int) -> String {
    format!("the NVIDIA driver fails (`{call}` returns CUDA error {code})")
}

//! Whether CUDA can be had on this machine: a driver that is recent enough, a GPU, and the libraries of CUDA and cuDNN.

mod driver;
mod libraries;

use std::path::PathBuf;
use std::sync::OnceLock;

pub use driver::{Driver, Gpu};

/// The CUDA that the CUDA builds of ONNX Runtime are made for.
const CUDA: u32 = 13;
/// The oldest driver that supports it.
const OLDEST_DRIVER: u32 = 580;

/// What CUDA needs besides ONNX Runtime's own build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cuda {
    /// At least one.
    pub gpus: Vec<Gpu>,
    /// To be loaded in this order before the CUDA provider.
    pub libraries: Vec<PathBuf>,
}

/// Why there is no CUDA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCuda {
    /// A fragment that follows "because".
    pub why: String,
    /// Whether there is a GPU all the same, which a user may expect to be used.
    pub gpu: bool,
}

/// Looks, once a process.
pub fn find() -> Result<&'static Cuda, &'static NoCuda> {
    static FOUND: OnceLock<Result<Cuda, NoCuda>> = OnceLock::new();
    FOUND.get_or_init(|| judge(driver::ask(), libraries::find)).as_ref()
}

/// What is to be had with this driver and these libraries.
fn judge(driver: Result<Driver, String>, libraries: impl FnOnce() -> Result<Vec<PathBuf>, String>) -> Result<Cuda, NoCuda> {
    let driver = driver.map_err(|why| NoCuda { why, gpu: false })?;
    if driver.gpus.is_empty() {
        let why = match std::env::var("CUDA_VISIBLE_DEVICES") {
            Ok(visible) => format!("the NVIDIA driver shows no GPU, `CUDA_VISIBLE_DEVICES` being `{visible}`"),
            Err(_) => "the NVIDIA driver shows no GPU".to_owned(),
        };
        return Err(NoCuda { why, gpu: false });
    }
    let (major, minor) = driver.cuda;
    if major < CUDA {
        let why = format!(
            "the NVIDIA driver supports CUDA {major}.{minor}, but ONNX Runtime wants CUDA {CUDA}; install driver {OLDEST_DRIVER} or later"
        );
        return Err(NoCuda { why, gpu: true });
    }
    let libraries = libraries().map_err(|why| NoCuda { why, gpu: true })?;
    Ok(Cuda { gpus: driver.gpus, libraries })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(cuda: (u32, u32), gpus: usize) -> Result<Driver, String> {
        Ok(Driver { cuda, gpus: vec![Gpu { name: "NVIDIA H100 80GB HBM3".into(), capability: (9, 0) }; gpus] })
    }

    #[test]
    fn a_reason_is_given_for_the_first_thing_that_is_missing() {
        let why = |driver, libraries: Result<Vec<PathBuf>, String>| judge(driver, || libraries).unwrap_err();
        let none = why(Err("there is no NVIDIA driver".into()), Ok(Vec::new()));
        assert_eq!((none.why.as_str(), none.gpu), ("there is no NVIDIA driver", false));
        assert!(why(driver((13, 0), 0), Ok(Vec::new())).why.starts_with("the NVIDIA driver shows no GPU"));
        let old = why(driver((12, 4), 1), Ok(Vec::new()));
        insta::assert_snapshot!(old.why, @"the NVIDIA driver supports CUDA 12.4, but ONNX Runtime wants CUDA 13; install driver 580 or later");
        assert!(old.gpu);
        let lacking = why(driver((13, 1), 1), Err("`libcudnn.so.9` is not found".into()));
        assert_eq!((lacking.why.as_str(), lacking.gpu), ("`libcudnn.so.9` is not found", true));
        assert_eq!(judge(driver((13, 1), 2), || Ok(Vec::new())).unwrap().gpus.len(), 2);
    }
}

//! Which device models run on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, anyhow, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{cuda, library};

/// What a user asks for: `auto`, `cpu`, `cuda`, `cuda:1`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^(auto|cpu|cuda(:[0-9]+)?)$"))]
pub enum Choice {
    /// The first GPU where CUDA can be had, else the processor.
    #[default]
    Auto,
    Cpu,
    /// The GPU of this number, in the driver's order.
    Cuda(u32),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str("auto"),
            Choice::Cpu => f.write_str("cpu"),
            Choice::Cuda(0) => f.write_str("cuda"),
            Choice::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Choice::Auto),
            "cpu" => Ok(Choice::Cpu),
            "cuda" => Ok(Choice::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
                number
                    .map(Choice::Cuda)
                    .ok_or_else(|| format!("`{text}` is no device; there are `auto`, `cpu`, `cuda` and `cuda:1`"))
            }
        }
    }
}

impl TryFrom<String> for Choice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Choice> for String {
    fn from(choice: Choice) -> Self {
        choice.to_string()
    }
}

/// A device that can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    Cpu,
    Cuda {
        /// In the driver's order.
        number: u32,
        /// `NVIDIA H100 80GB HBM3`
        name: String,
        /// Compute capability.
        capability: (u32, u32),
    },
}

impl fmt::Display for Device {
    /// What goes into stage keys: not the number, as the same kind of GPU computes the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("CPU"),
            Device::Cuda { name, .. } => write!(f, "CUDA on {name}"),
        }
    }
}

impl Device {
    /// The device that `choice` means on this machine. Nothing is loaded or fetched for it.
    ///
    /// # Errors
    /// CUDA is asked for and cannot be had: the message says why. The processor never takes its place.
    pub fn choose(choice: Choice, downloads: &Path) -> Result<Self> {
        match choice {
            Choice::Cpu => Ok(Device::Cpu),
            Choice::Auto => Ok(gpu(0, downloads).unwrap_or(Device::Cpu)),
            Choice::Cuda(number) => match gpu(number, downloads) {
                Ok(device) => Ok(device),
                Err(none) => bail!("`device: {choice}` cannot be had: {}; `device: cpu` computes on the processor", none.why),
            },
        }
    }
}

/// A GPU by its number.
fn gpu(number: u32, downloads: &Path) -> Result<Device, cuda::NoCuda> {
    let found = cuda::find().map_err(Clone::clone)?;
    let lacking = |why: String| cuda::NoCuda { why, gpu: true };
    let library = library::known(downloads).map_err(|error| lacking(format!("{error:#}")))?;
    if !library.cuda {
        let path = library.path.display();
        return Err(lacking(format!(
            "ONNX Runtime at `{path}` is a build without CUDA: take that of the package `onnxruntime-gpu`"
        )));
    }
    match found.gpus.get(number as usize) {
        Some(gpu) => Ok(Device::Cuda { number, name: gpu.name.clone(), capability: gpu.capability }),
        None => Err(lacking(format!("there is no GPU {number}, but {} counted from 0", found.gpus.len()))),
    }
}

/// Why `device: auto` leaves a GPU of this machine unused; `None` when it does not, or there is none.
pub fn idle_gpu(downloads: &Path) -> Option<String> {
    gpu(0, downloads).err().filter(|none| none.gpu).map(|none| none.why)
}

/// Where models run: the device, and the folder that ONNX Runtime is kept in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    pub device: Device,
    pub downloads: PathBuf,
}

impl Runtime {
    /// With the device that `choice` means here.
    ///
    /// # Errors
    /// As [`Device::choose`].
    pub fn choose(choice: Choice, downloads: &Path) -> Result<Self> {
        Ok(Runtime { device: Device::choose(choice, downloads)?, downloads: downloads.to_owned() })
    }

    /// What computes here, for stage keys: ONNX Runtime's version and the device.
    ///
    /// # Errors
    /// As [`library::known`].
    pub fn identity(&self) -> Result<String> {
        Ok(format!("{}, {}", library::known(&self.downloads)?.identity, self.device))
    }
}

impl From<&Path> for Runtime {
    /// On the processor.
    fn from(downloads: &Path) -> Self {
        Runtime { device: Device::Cpu, downloads: downloads.to_owned() }
    }
}

impl From<&PathBuf> for Runtime {
    /// On the processor.
    fn from(downloads: &PathBuf) -> Self {
        downloads.as_path().into()
    }
}

impl From<&Runtime> for Runtime {
    fn from(runtime: &Runtime) -> Self {
        runtime.clone()
    }
}

/// Loads the libraries that CUDA needs, once a process.
///
/// # Errors
/// One of them cannot be loaded.
pub(super) fn load_cuda() -> Result<()> {
    static LOADED: std::sync::Mutex<bool> = std::sync::Mutex::new(false);
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !*loaded {
        let found = cuda::find().map_err(|none| anyhow!("{}", none.why))?;
        for path in &found.libraries {
            ort::util::preload_dylib(path)
                .map_err(|error| anyhow!("the CUDA library `{}` cannot be loaded: {error}", path.display()))?;
        }
        *loaded = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_written() {
        for text in ["auto", "cpu", "cuda", "cuda:1"] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda:0".parse::<Choice>().unwrap(), Choice::Cuda(0));
        for text in ["gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", ""] {
            assert!(text.parse::<Choice>().is_err(), "{text}");
        }
        insta::assert_snapshot!("gpu".parse::<Choice>().unwrap_err(), @"`gpu` is no device; there are `auto`, `cpu`, `cuda` and `cuda:1`");
    }

    #[test]
    fn cuda_that_is_not_there_is_an_error_and_auto_is_not() {
        let downloads = super::super::testing::downloads();
        if cuda::find().is_ok() {
            eprintln!("skipped: this machine has CUDA");
            return;
        }
        let message = Device::choose(Choice::Cuda(0), &downloads).unwrap_err().to_string();
        assert!(message.starts_with("`device: cuda` cannot be had: "), "{message}");
        assert!(message.ends_with("; `device: cpu` computes on the processor"), "{message}");
        assert_eq!(Device::choose(Choice::Auto, &downloads).unwrap(), Device::Cpu);
    }
}

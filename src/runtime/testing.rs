//! What tests share.

use std::path::PathBuf;

use super::device::{Choice, Device, Runtime};

/// The user's own downloads: tests fetch what they need as the program does, once.
pub fn downloads() -> PathBuf {
    super::cache::folder()
}

/// Where tests of what runs on devices run: on the processor, and on the GPU where there is one; where there is none they say why.
pub fn devices() -> Vec<Runtime> {
    let processor = Runtime::from(&downloads());
    match gpu() {
        Some(gpu) => vec![processor, gpu],
        None => vec![processor],
    }
}

/// The GPU; `None`, said on the standard error, where there is none.
pub fn gpu() -> Option<Runtime> {
    match Device::choose(Choice::Cuda(0), &downloads()) {
        Ok(device) => Some(Runtime { device, downloads: downloads() }),
        Err(why) => {
            eprintln!("skipped on a GPU: {why}");
            None
        }
    }
}

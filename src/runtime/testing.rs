//! What tests share.

use std::path::PathBuf;

/// The user's own downloads: tests fetch what they need as the program does, once.
pub fn downloads() -> PathBuf {
    super::cache::folder()
}

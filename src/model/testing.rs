//! What tests share.

use std::path::PathBuf;

use super::catalogue;
use super::source::{Fetching, fetch};
use crate::cancel::Cancel;
use crate::runtime::testing::downloads;

/// A directory with all-MiniLM-L6-v2, fetched as the program does, once.
pub fn minilm() -> PathBuf {
    let sources = catalogue::find("all-MiniLM-L6-v2").unwrap();
    fetch(&sources, &Fetching { downloads: &downloads(), cancel: &Cancel::default(), log: &|_| () }).unwrap()
}

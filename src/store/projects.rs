//! Which folders of runs need what is in the store.

use std::fs;
use std::path::{Path, PathBuf};

use super::leftovers::entries;
use super::write::write_atomically;
use super::{Digest, Store, StoreError};

impl Store {
    /// Notes that the runs in `folder` use this store, so that the collector asks them. Several projects may share a store.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note_runs(&self, folder: &Path) -> Result<(), StoreError> {
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let Some(text) = folder.to_str() else { return Ok(()) };
        let path = self.root.join("projects").join(Digest::of(text.as_bytes()).short());
        if path.exists() {
            return Ok(());
        }
        let note = || {
            fs::create_dir_all(self.root.join("projects"))?;
            write_atomically(&path, text.as_bytes())
        };
        note().map_err(|e| self.io(&path, e))
    }

    /// The folders of runs that use this store, as far as they were noted.
    pub fn noted_runs(&self) -> Vec<PathBuf> {
        let texts = entries(&self.root.join("projects")).into_iter().filter_map(|path| fs::read_to_string(path).ok());
        texts.map(PathBuf::from).collect()
    }

    /// What went into the stages of every pipeline the last time: the keys of their results.
    pub fn last_keys(&self) -> impl Iterator<Item = Digest> {
        self.lasts().into_iter().flat_map(|(_, last)| last.0.into_values().map(|fingerprint| fingerprint.key()))
    }
}

//! What went into each stage of a pipeline the last time, to say what changed since.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use super::{Fingerprint, Store, StoreError, write_json};

/// Stage → its fingerprint the last time it was run or found cached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Last(pub BTreeMap<String, Fingerprint>);

impl Store {
    /// What is known of the last run of the pipeline called `pipeline`; nothing when it never ran here.
    pub fn last(&self, pipeline: &str) -> Last {
        let path = self.root.join("last").join(format!("{pipeline}.json"));
        fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Keeps what is known of the pipeline called `pipeline`.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep_last(&self, pipeline: &str, last: &Last) -> Result<(), StoreError> {
        let path = self.root.join("last").join(format!("{pipeline}.json"));
        write_json(&path, last).map_err(|e| self.io(&path, e))
    }
}

//! What a stage yielded, by its key.

use std::collections::BTreeMap;
use std::fs;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Artifact, Digest, Fingerprint, Store, StoreError, write_json};
use crate::stage::Outcome;

/// What a stage yielded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageResult {
    /// What went into it.
    pub fingerprint: Fingerprint,
    /// Output port → artifact.
    pub outputs: BTreeMap<String, Artifact>,
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
    /// The largest memory of the process while it ran, in bytes, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    pub finished: Timestamp,
    /// The run that computed it.
    pub run: String,
}

impl Store {
    /// The result under `key`, if it is there with everything it yielded.
    pub fn result(&self, key: &Digest) -> Option<StageResult> {
        let bytes = fs::read(self.place("results", key)).ok()?;
        // A result that cannot be read is as good as none: the stage runs again and replaces it.
        let result: StageResult = serde_json::from_slice(&bytes).ok()?;
        let whole = result.fingerprint.key() == *key && result.outputs.values().all(|a| self.has(a));
        whole.then_some(result)
    }

    /// Keeps a result. Everything it yielded must be in the store.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep(&self, result: &StageResult) -> Result<(), StoreError> {
        let path = self.place("results", &result.fingerprint.key());
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).and_then(|()| write_json(&path, result)).map_err(|e| self.io(&path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_counts_only_while_its_outputs_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let scratch = store.scratch().unwrap();
        let file = scratch.path().join("chunks.jsonl");
        fs::write(&file, "{}\n").unwrap();
        let artifact = store.put(&file).unwrap();
        let fingerprint = Fingerprint {
            kind: "chunk".into(),
            version: 1,
            parameters: json!({}),
            inputs: BTreeMap::new(),
            externals: Vec::new(),
        };
        let key = fingerprint.key();
        let result = StageResult {
            fingerprint,
            outputs: [("chunks".into(), artifact.clone())].into(),
            outcome: Outcome::default(),
            seconds: 1.5,
            peak_memory: None,
            finished: Timestamp::UNIX_EPOCH,
            run: "run".into(),
        };
        assert_eq!(store.result(&key), None);
        store.keep(&result).unwrap();
        assert_eq!(store.result(&key), Some(result));
        fs::write(store.place("results", &Digest::of(b"other")), "").ok();
        assert_eq!(store.result(&Digest::of(b"other")), None);
        fs::remove_file(store.place("objects", &artifact.digest)).unwrap();
        assert_eq!(store.result(&key), None);
    }
}

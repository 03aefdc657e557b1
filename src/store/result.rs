//! What a stage yielded, by its key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::check::Condition;
use super::write::{make_folder, side_by_side, sync_folders};
use super::{Artifact, Digest, Fingerprint, Store, StoreError};
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

/// A result's time of modification is that of its last use, to within this.
const USE_NOTED: Duration = Duration::from_hours(1);

impl Store {
    /// The result under `key`, if it is there with everything it yielded. When it is not because objects are damaged,
    /// [`Store::damage`] names them.
    pub fn result(&self, key: &Digest) -> Option<StageResult> {
        self.using(key);
        let mut file = File::open(self.place("results", key)).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        // A result that cannot be read is as good as none: the stage runs again and replaces it.
        let result = StageResult::read(&bytes, key)?;
        let conditions: Vec<_> = result.outputs.values().flat_map(|artifact| self.conditions(artifact)).collect();
        let damaged =
            conditions.iter().filter(|(_, condition)| *condition == Condition::Damaged).map(|(digest, _)| digest.clone());
        let damaged: Vec<Digest> = damaged.collect();
        if !damaged.is_empty() {
            self.shared.damage.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), damaged);
        }
        if !conditions.iter().all(|(_, condition)| *condition == Condition::Whole) {
            return None;
        }
        // What was not used for long goes first when the store is made smaller. A store that cannot be written needs no such note.
        let now = SystemTime::now();
        if file.metadata().and_then(|m| m.modified()).is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age > USE_NOTED))
        {
            let _ = file.set_modified(now);
        }
        Some(result)
    }

    /// Keeps a result. Everything it yielded must be in the store.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep(&self, result: &StageResult) -> Result<(), StoreError> {
        self.keep_after(result, BTreeSet::new())
    }

    /// Moves what a stage wrote (output port → path) into the store and keeps the result that `make` makes of it. Fewer flushes, one after the other,
    /// than [`Store::put`] and [`Store::keep`].
    ///
    /// # Errors
    /// A file is missing, or the store cannot be written.
    pub fn commit(
        &self,
        written: &BTreeMap<String, PathBuf>,
        make: impl FnOnce(BTreeMap<String, Artifact>) -> StageResult,
    ) -> Result<StageResult, StoreError> {
        let put = |(port, path): &(&String, &PathBuf)| {
            let mut touched = BTreeSet::new();
            Ok::<_, StoreError>(((*port).clone(), self.put_unflushed(path, &mut touched)?, touched))
        };
        let written: Vec<(&String, &PathBuf)> = written.iter().collect();
        let (mut outputs, mut touched) = (BTreeMap::new(), BTreeSet::new());
        for put in side_by_side(&written, put) {
            let (port, artifact, folders) = put?;
            outputs.insert(port, artifact);
            touched.extend(folders);
        }
        let result = make(outputs);
        self.keep_after(&result, touched)?;
        Ok(result)
    }

    /// Keeps a result when the folders of the objects that it names have been flushed.
    fn keep_after(&self, result: &StageResult, mut touched: BTreeSet<PathBuf>) -> Result<(), StoreError> {
        let key = result.fingerprint.key();
        let path = self.place("results", &key);
        self.using(&key);
        let scratch = self.scratch()?;
        let mut keep = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(&self.root);
            touched.extend(make_folder(folder)?);
            let draft = scratch.path().join("result");
            let write = || -> io::Result<()> {
                let mut file = File::create_new(&draft)?;
                let mut text = serde_json::to_vec_pretty(result)?;
                text.push(b'\n');
                file.write_all(&text)?;
                file.sync_data()
            };
            thread::scope(|scope| {
                scope.spawn(|| sync_folders(&touched));
                write()
            })?;
            fs::rename(&draft, &path)?;
            sync_folders(&[folder.to_owned()].into());
            Ok(())
        };
        keep().map_err(|e| self.io(&path, e))?;
        self.shared.damage.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        Ok(())
    }
}

impl StageResult {
    /// Reads what is kept under `key`; nothing when it is not whole.
    pub(super) fn read(bytes: &[u8], key: &Digest) -> Option<Self> {
        let result: StageResult = serde_json::from_slice(bytes).ok()?;
        (result.fingerprint.key() == *key).then_some(result)
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

//! Fetching a result with everything it yielded, and checking all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{Bucket, Client, missing};
use super::trouble::Trouble;
use super::{MOST_WRONG, Remote};
use crate::cancel::Cancel;
use crate::store::artifact::listed;
use crate::store::{Artifact, Digest, Shape, StageResult, Store};

/// Bytes of a result.
const LARGEST_RESULT: u64 = 16 << 20;
/// Bytes of a folder's list of files.
const LARGEST_LISTING: u64 = 64 << 20;
/// Objects that are on their way at once.
const PARALLEL: usize = 8;

impl Remote {
    /// Brings the result under `key`, which has the outputs `ports`, into the store, if the remote has it. `warn` is told what is
    /// wrong there, and at most once that the remote is left alone.
    pub fn fetch(
        &self,
        store: &Store,
        key: &Digest,
        ports: &[&str],
        cancel: &Cancel,
        warn: &dyn Fn(&str),
    ) -> Option<StageResult> {
        if self.state().reads_off {
            return None;
        }
        match self.try_fetch(store, key, ports, cancel) {
            Ok(result) => return Some(result),
            Err(Trouble::Missing | Trouble::Cancelled) => {}
            Err(Trouble::Wrong(what)) => warn(&self.wrong(key, &what)),
            // The store says the same when it is computed.
            Err(Trouble::Local(_)) => {}
            Err(trouble) => {
                if let Some(words) = self.give_up(&trouble, false) {
                    warn(&words);
                }
            }
        }
        None
    }

    fn wrong(&self, key: &Digest, what: &str) -> String {
        let mut state = self.state();
        state.wrong.insert(key.clone());
        state.reads_off |= state.wrong.len() >= MOST_WRONG;
        let more = if state.reads_off { ", and as it is not the first one, nothing more is fetched in this run" } else { "" };
        format!(
            "the result {} of the remote `{}` is not used: {what}; it is computed instead{more}",
            key.short(),
            self.location()
        )
    }

    fn try_fetch(&self, store: &Store, key: &Digest, ports: &[&str], cancel: &Cancel) -> Result<StageResult, Trouble> {
        let client = self.client()?;
        let bucket = &client.bucket;
        let bytes = client.wait(0, cancel, bucket.read(&bucket.result(key), LARGEST_RESULT))?;
        let result = check(&bytes, key, ports).map_err(|what| Trouble::Wrong(what.to_owned()))?;
        let mut objects = BTreeMap::new();
        for artifact in result.outputs.values() {
            match artifact.shape {
                Shape::File => _ = objects.insert(artifact.digest.clone(), artifact.size),
                Shape::Folder => objects.extend(listing(store, client, artifact, cancel)?),
            }
        }
        objects.retain(|digest, size| !store.has(&file(digest, *size)));
        download(store, client, objects, cancel)?;
        store.keep(&result)?;
        Ok(result)
    }
}

fn file(digest: &Digest, size: u64) -> Artifact {
    Artifact { digest: digest.clone(), shape: Shape::File, size }
}

/// A result that is what was asked for, or what is wrong with it.
fn check(bytes: &[u8], key: &Digest, ports: &[&str]) -> Result<StageResult, &'static str> {
    let result: StageResult = serde_json::from_slice(bytes).map_err(|_| "it cannot be read")?;
    if result.fingerprint.key() != *key {
        return Err("what went into it gives another key");
    }
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    if !result.outputs.keys().map(String::as_str).eq(ports) {
        return Err("it has other outputs than the stage");
    }
    let outcome = serde_json::to_value(&result.outcome).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !is_harmless(&outcome) || !result.run.chars().all(plain) || !result.seconds.is_finite() || result.seconds < 0.0 {
        return Err("its words are none that a run writes");
    }
    Ok(result)
}

/// Whether no text steers a terminal.
fn is_harmless(value: &Value) -> bool {
    let text = |text: &str| !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    match value {
        Value::String(value) => text(value),
        Value::Array(values) => values.iter().all(is_harmless),
        Value::Object(map) => map.iter().all(|(name, value)| text(name) && is_harmless(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Brings the list of a folder's files into the store; digest and size of each file.
fn listing(store: &Store, client: &Client, artifact: &Artifact, cancel: &Cancel) -> Result<Vec<(Digest, u64)>, Trouble> {
    let bucket = &client.bucket;
    let digest = &artifact.digest;
    let bytes = client.wait(0, cancel, bucket.read(&bucket.object(digest), LARGEST_LISTING)).map_err(|e| missing(e, digest))?;
    if Digest::of(&bytes) != *digest {
        return Err(Trouble::Wrong(format!("object {} has other bytes than its digest says", digest.short())));
    }
    let files = listed(artifact, &bytes);
    let files = files.ok_or_else(|| Trouble::Wrong(format!("object {} is no list of a folder's files", digest.short())))?;
    let scratch = store.scratch()?;
    let path = scratch.path().join("listing");
    std::fs::write(&path, &bytes).map_err(|e| store.io(&path, e))?;
    store.put(&path)?;
    Ok(files)
}

/// Brings objects into the store, several at once.
fn download(store: &Store, client: &Client, objects: BTreeMap<Digest, u64>, cancel: &Cancel) -> Result<(), Trouble> {
    if objects.is_empty() {
        return Ok(());
    }
    let scratch = store.scratch()?;
    let bytes = objects.values().fold(0u64, |sum, size| sum.saturating_add(*size));
    client.wait(bytes, cancel, all(&client.bucket, &objects, scratch.path()))?;
    for (digest, size) in &objects {
        let put = store.put(&scratch.path().join(digest.as_str()))?;
        if put != file(digest, *size) {
            return Err(Trouble::Wrong(format!("object {} changed while it was fetched", digest.short())));
        }
    }
    Ok(())
}

async fn all(bucket: &Bucket, objects: &BTreeMap<Digest, u64>, folder: &std::path::Path) -> Result<(), Trouble> {
    let turns = Arc::new(Semaphore::new(PARALLEL));
    let mut tasks = JoinSet::new();
    for (digest, size) in objects {
        let (turns, bucket, digest, size) = (turns.clone(), bucket.clone(), digest.clone(), *size);
        let target = folder.join(digest.as_str());
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            bucket.download(&digest, size, &target).await
        });
    }
    // The first failure drops the others, which ends them.
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| Trouble::Failed(e.to_string()))??;
    }
    Ok(())
}

//! How long stages took.

use std::fs;

use serde::Deserialize;

use super::{Digest, Store};

/// A larger result is not read for its time, in bytes.
const LARGEST: u64 = 1 << 20;

/// A result, as far as its time goes.
#[derive(Deserialize)]
struct Timed {
    fingerprint: OfKind,
    seconds: f64,
}

#[derive(Deserialize)]
struct OfKind {
    kind: String,
}

impl Store {
    /// How long computing the result under `key` took, in seconds, as long as the store remembers.
    pub fn seconds(&self, key: &Digest) -> Option<f64> {
        let timed: Timed = serde_json::from_slice(&fs::read(self.place("results", key)).ok()?).ok()?;
        Some(timed.seconds).filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
    }

    /// Kind of stage and seconds of results in the store: of `most` at most, the same ones every time.
    pub fn timings(&self, most: usize) -> Vec<(String, f64)> {
        let files = walkdir::WalkDir::new(self.root.join("results")).sort_by_file_name().into_iter().flatten();
        let files = files.filter(|entry| entry.file_type().is_file() && entry.metadata().is_ok_and(|m| m.len() <= LARGEST));
        let timed = files.take(most).filter_map(|entry| {
            let timed: Timed = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
            Some((timed.fingerprint.kind, timed.seconds))
        });
        timed.filter(|(_, seconds)| seconds.is_finite() && *seconds >= 0.0).collect()
    }
}

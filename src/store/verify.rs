//! Reading the whole store, and putting aside what is damaged.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::check::Condition;
use super::leftovers::{Leftovers, entries};
use super::{Digest, Last, Shape, StageResult, Store, StoreError};

/// What reading the whole store found.
#[derive(Debug, Default, Serialize)]
pub struct Verified {
    pub objects: usize,
    /// Of the objects.
    pub bytes: u64,
    pub results: usize,
    /// Objects that hold other bytes than their names say.
    pub damaged: Vec<Aside>,
    /// Results that cannot be used any more.
    pub broken: Vec<Broken>,
    pub leftovers: Leftovers,
}

/// A damaged file.
#[derive(Debug, Serialize)]
pub struct Aside {
    /// What it should be: the digest of an object.
    pub object: Digest,
    /// Where it is now.
    pub quarantine: PathBuf,
}

/// A result that cannot be used any more.
#[derive(Debug, Serialize)]
pub struct Broken {
    pub key: Digest,
    pub problem: String,
    /// The kind of stage, where the result can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The run that computed it, where the result can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Pipeline → stages that had this result the last time, and will run again.
    pub stages: BTreeMap<String, Vec<String>>,
    /// Where it is now.
    pub quarantine: PathBuf,
}

impl Verified {
    /// Whether everything is as it should be.
    pub fn is_fine(&self) -> bool {
        self.damaged.is_empty() && self.broken.is_empty()
    }
}

impl Store {
    /// Reads every object and every result, moves what is damaged into the quarantine, and removes what killed processes left behind.
    /// `progress` gets the bytes read so far and in all, from several threads.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn verify(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verified, StoreError> {
        let objects = self.named("objects");
        let bytes = objects.iter().map(|(_, _, size)| size).sum();
        let done = AtomicU64::new(0);
        progress(0, bytes);
        let look = |(digest, _, size): &(Digest, PathBuf, u64)| -> Result<Option<Aside>, StoreError> {
            // One that went meanwhile is missing to whoever needs it, not damaged.
            let damaged = self.read_through(digest) == Condition::Damaged;
            progress(done.fetch_add(*size, Ordering::Relaxed) + size, bytes);
            let aside = if damaged { self.quarantine(digest)? } else { None };
            Ok(aside.map(|quarantine| Aside { object: digest.clone(), quarantine }))
        };
        let damaged: Vec<Aside> = objects.par_iter().map(look).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let results = self.named("results");
        let users = self.users();
        let read = |(key, path, _): &(Digest, PathBuf, u64)| self.verify_result(key, path, &users);
        let broken: Vec<Broken> = results.par_iter().map(read).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let leftovers = self.clear_leftovers();
        Ok(Verified { objects: objects.len(), bytes, results: results.len(), damaged, broken, leftovers })
    }

    fn verify_result(&self, key: &Digest, path: &std::path::Path, users: &Users) -> Result<Option<Broken>, StoreError> {
        let Ok(bytes) = fs::read(path) else { return Ok(None) };
        let result = StageResult::read(&bytes, key);
        let problem = match &result {
            None => "it cannot be read".to_owned(),
            Some(result) => {
                let conditions = result.outputs.iter().flat_map(|(port, artifact)| {
                    self.conditions(artifact).into_iter().map(move |(digest, condition)| (port, digest, condition))
                });
                match conditions.into_iter().find(|(_, _, condition)| *condition != Condition::Whole) {
                    None => return Ok(None),
                    Some((port, digest, _)) => format!("object {} of its output `{port}` is missing or damaged", digest.short()),
                }
            }
        };
        let quarantine = self.put_aside(path, &format!("result-{key}"))?;
        let (kind, run) = result.map(|result| (result.fingerprint.kind, result.run)).unzip();
        let stages = users.get(key).cloned().unwrap_or_default();
        Ok(Some(Broken { key: key.clone(), problem, kind, run, stages, quarantine }))
    }

    /// Which stages had which result the last time.
    fn users(&self) -> Users {
        let mut users = Users::new();
        for (pipeline, last) in self.lasts() {
            for (stage, fingerprint) in last.0 {
                users.entry(fingerprint.key()).or_default().entry(pipeline.clone()).or_default().push(stage);
            }
        }
        users
    }

    /// What is known of the last run of each pipeline.
    pub(super) fn lasts(&self) -> Vec<(String, Last)> {
        let files = entries(&self.root.join("last"));
        let names = files.iter().filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".json"));
        names.map(|pipeline| (pipeline.to_owned(), self.last(pipeline))).collect()
    }

    /// The files of `objects` or `results`: what they are named, where they are, and their size in bytes.
    pub(super) fn named(&self, folder: &str) -> Vec<(Digest, PathBuf, u64)> {
        let heads = entries(&self.root.join(folder));
        let of = |head: &PathBuf| -> Vec<(Digest, PathBuf, u64)> {
            let read = |path: PathBuf| {
                let name = format!("{}{}", head.file_name()?.to_str()?, path.file_name()?.to_str()?);
                let metadata = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
                Some((Digest::try_from(name).ok()?, path, metadata.len()))
            };
            entries(head).into_iter().filter_map(read).collect()
        };
        heads.par_iter().flat_map_iter(of).collect()
    }

    /// The objects of each artifact that is there, with the list of a folder's files.
    pub(super) fn objects_of(&self, artifact: &super::Artifact) -> Vec<Digest> {
        let files = match artifact.shape {
            Shape::File => Vec::new(),
            Shape::Folder => self.listing(&artifact.digest).map(|listing| listing.files).unwrap_or_default(),
        };
        files.into_iter().map(|file| file.digest).chain([artifact.digest.clone()]).collect()
    }
}

/// Key → pipeline → stages.
type Users = HashMap<Digest, BTreeMap<String, Vec<String>>>;

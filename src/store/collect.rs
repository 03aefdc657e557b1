//! Removing what is no longer needed.
//!
//! Protocol. A process that uses the store says so first and looks afterwards: it adds the name of a result or an object to
//! `sessions/ID.uses`, then looks whether there is a file `collecting`, and waits until it is gone; only then does it look whether the
//! result or object is there. The collector works the other way round: it makes `collecting` first, and reads afterwards what runs need,
//! what sessions use, and what is there. So whatever one decides, the other sees: either the process waits, or the collector finds what
//! it uses and leaves it. A session that ended before is in the record of its run, which is written before the session ends.
//! That holds for processes of one machine; a collector refuses to work beside a session of another machine, whose writes it may see late.
//!
//! Results go before the objects that they name. A collector that is killed leaves objects that nobody names, which the next one takes,
//! and its mark, which counts for nothing once it is dead. A collector whose heart stood still stops before others take it for dead.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rayon::prelude::*;
use serde::Serialize;

use super::lease::{Lease, create, holder};
use super::leftovers::{Leftovers, entries, size};
use super::owner::Owner;
use super::session::{Line, STALE, Session, Watch};
use super::write::sync_folders;
use super::{Artifact, Digest, StageResult, Store, StoreError};
use crate::cancel::Cancel;

/// Between two looks whether a collector has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Results and artifacts that something needs.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    pub results: HashSet<Digest>,
    pub artifacts: Vec<Artifact>,
}

/// What is to be kept.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// Stays whatever else is asked.
    pub always: Needs,
    /// Is needed, and goes only to reach [`Keep::max_size`].
    pub needed: Needs,
    /// Whether results that nobody needs go.
    pub only_needed: bool,
    /// Results that were used within this time stay.
    pub used_within: Option<Duration>,
    /// In bytes, of all objects: the results that were not used for longest go until the others take no more.
    pub max_size: Option<u64>,
}

/// What goes.
#[derive(Debug, Default, Serialize)]
pub struct Garbage {
    /// Those that were not used for longest first.
    pub results: Vec<OldResult>,
    /// Objects that no result names then.
    pub objects: usize,
    /// Of the objects.
    pub bytes: u64,
    /// What the disk gets back: of the objects that no run's directory links, the quarantine, and what was left behind.
    pub freed: u64,
    /// Files in the quarantine.
    pub quarantine: usize,
    pub leftovers: Leftovers,
    /// Stages that were interrupted and will not be gone on with.
    pub checkpoints: usize,
    /// What stays.
    pub kept: Kept,
    #[serde(skip)]
    files: Vec<PathBuf>,
    /// Folders of checkpoints.
    #[serde(skip)]
    unfinished: Vec<PathBuf>,
}

/// What stays.
#[derive(Debug, Default, Serialize)]
pub struct Kept {
    pub results: usize,
    pub objects: usize,
    /// Of the objects.
    pub bytes: u64,
}

/// A result that goes.
#[derive(Debug, Clone, Serialize)]
pub struct OldResult {
    pub key: Digest,
    /// The kind of stage; empty when the result cannot be read.
    pub kind: String,
    /// The run that computed it.
    pub run: String,
    pub last_used: Timestamp,
    /// Of its outputs, which other results may share.
    pub bytes: u64,
}

/// Why nothing can be collected now.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "a process on `{0}` uses the store, and what it decides may be seen here too late; wait for its end, or run `retune gc` there"
    )]
    Elsewhere(String),
    #[error("another `retune gc` is at work; wait for its end")]
    Busy,
    #[error("this process stood still for too long, and others may have gone on; what was removed is removed, run it again")]
    StoodStill,
}

/// The collector at work: other processes wait before they decide what to use. They go on when it is dropped.
pub struct Collecting<'s> {
    store: &'s Store,
    session: Arc<Session>,
    mark: PathBuf,
    _lease: Lease,
}

/// A result, as far as the collector goes.
struct Entry {
    key: Digest,
    path: PathBuf,
    used: SystemTime,
    /// `None` when it cannot be read.
    result: Option<StageResult>,
    objects: Vec<Digest>,
}

impl Store {
    /// Makes other processes wait before they decide what to use; what they use already stays.
    ///
    /// # Errors
    /// Another collector is at work, a process of another machine uses the store, or the store cannot be written.
    pub fn collecting(&self) -> Result<Collecting<'_>, CollectError> {
        let session = self.session()?;
        let cancel = Cancel::default();
        let lease = self.lease_named("gc", &cancel, &|| cancel.set())?.ok_or(CollectError::Busy)?;
        let mark = self.root.join("collecting");
        // Only the holder of the lease touches the mark: one that is there is of a collector that was killed.
        let make = || {
            match fs::remove_file(&mark) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            create(&session, &mark)
        };
        let here = Owner::here();
        for id in self.watch_sessions().live {
            let owner = self.owner(&id).filter(|owner| owner.boot.is_empty() || owner.boot != here.boot);
            if let Some(owner) = owner {
                return Err(CollectError::Elsewhere(owner.host));
            }
        }
        make().map_err(|e| self.io(&mark, e))?;
        Ok(Collecting { store: self, session, mark, _lease: lease })
    }

    /// Waits while a collector is at work.
    pub(super) fn let_collector_pass(&self, own: &str) {
        let mark = self.root.join("collecting");
        let mut watch = Watch::default();
        while fs::symlink_metadata(&mark).is_ok() {
            let id = holder(&mark);
            // Empty while it is being written, or when it went meanwhile.
            let over = if id.is_empty() { watch.still(id.clone()) >= STALE } else { watch.look(&self.root, &id).is_over() };
            if over || id == own {
                return;
            }
            thread::sleep(PAUSE);
        }
    }

    fn owner(&self, id: &str) -> Option<Owner> {
        let text = fs::read_to_string(self.root.join("sessions").join(id)).ok()?;
        serde_json::from_str::<Line>(text.lines().next()?).ok().map(|line| line.owner)
    }

    /// What would go.
    pub fn garbage(&self, keep: &Keep) -> Garbage {
        let uses = self.uses();
        let mut entries = self.results();
        let mut stays: Vec<Entry> = Vec::new();
        let mut gone: Vec<Entry> = Vec::new();
        // Those that were not used for longest first.
        entries.sort_by(|a, b| (a.used, &a.key).cmp(&(b.used, &b.key)));
        let firm = |entry: &Entry| {
            keep.always.results.contains(&entry.key) || uses.as_ref().is_none_or(|uses| uses.contains(&entry.key))
        };
        let recent = |entry: &Entry| keep.used_within.is_some_and(|time| entry.used.elapsed().map_or(true, |age| age < time));
        for entry in entries {
            let needed = keep.needed.results.contains(&entry.key) || recent(&entry) || !keep.only_needed;
            let stay = firm(&entry) || (needed && entry.result.is_some());
            if stay { stays.push(entry) } else { gone.push(entry) }
        }
        let sizes: HashMap<Digest, (PathBuf, u64)> =
            self.named("objects").into_iter().map(|(digest, path, size)| (digest, (path, size))).collect();
        let of = |needs: &Needs| needs.artifacts.iter().flat_map(|artifact| self.objects_of(artifact)).collect::<Vec<_>>();
        let mut users: HashMap<Digest, usize> = HashMap::new();
        let firm_objects = of(&keep.always).into_iter().chain(uses.iter().flatten().cloned());
        for digest in firm_objects.chain(stays.iter().flat_map(|entry| entry.objects.iter().cloned())) {
            *users.entry(digest).or_default() += 1;
        }
        let size_of = |digest: &Digest| sizes.get(digest).map_or(0, |(_, size)| *size);
        if let Some(most) = keep.max_size {
            let mut total: u64 = users.keys().map(size_of).sum();
            let (mut left, mut out) = (Vec::new(), Vec::new());
            for entry in stays {
                if total <= most || firm(&entry) {
                    left.push(entry);
                    continue;
                }
                for digest in &entry.objects {
                    let count = users.entry(digest.clone()).or_default();
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        users.remove(digest);
                        total -= size_of(digest);
                    }
                }
                out.push(entry);
            }
            stays = left;
            gone.extend(out);
        } else {
            of(&keep.needed).into_iter().for_each(|digest| *users.entry(digest).or_default() += 1);
        }
        // A process that says it may use everything also keeps everything.
        let dead: Vec<&(PathBuf, u64)> = if uses.is_some() {
            sizes.iter().filter(|(digest, _)| !users.contains_key(*digest)).map(|(_, file)| file).collect()
        } else {
            Vec::new()
        };
        let mut garbage = self.summary(&stays, &gone, &dead, &sizes);
        let unfinished = self.old_checkpoints(keep.used_within);
        garbage.checkpoints = unfinished.len();
        garbage.freed += unfinished.iter().map(|(_, size)| size).sum::<u64>();
        garbage.unfinished = unfinished.into_iter().map(|(folder, _)| folder).collect();
        garbage
    }

    fn summary(
        &self,
        stays: &[Entry],
        gone: &[Entry],
        dead: &[&(PathBuf, u64)],
        sizes: &HashMap<Digest, (PathBuf, u64)>,
    ) -> Garbage {
        let quarantine = entries(&self.root.join("quarantine"));
        let leftovers = self.leftovers();
        let bytes = dead.iter().map(|(_, size)| size).sum();
        let alone: u64 = dead.iter().filter(|(path, _)| links(path) <= 1).map(|(_, size)| size).sum();
        let aside: u64 = quarantine.iter().map(|path| size(path)).sum();
        let size_of = |digest: &Digest| sizes.get(digest).map_or(0, |(_, size)| *size);
        let mut results: Vec<OldResult> = gone.iter().map(|entry| entry.told(size_of)).collect();
        results.sort_by_key(|result| (result.last_used, result.key.clone()));
        let all: u64 = sizes.values().map(|(_, size)| size).sum();
        Garbage {
            results,
            objects: dead.len(),
            bytes,
            freed: alone + aside + leftovers.bytes,
            quarantine: quarantine.len(),
            leftovers,
            kept: Kept { results: stays.len(), objects: sizes.len() - dead.len(), bytes: all - bytes },
            files: gone.iter().map(|entry| entry.path.clone()).chain(dead.iter().map(|(path, _)| path.clone())).collect(),
            ..Garbage::default()
        }
    }

    /// What the sessions that are there use; `None` when one of them may use everything.
    fn uses(&self) -> Option<HashSet<Digest>> {
        let mut uses = HashSet::new();
        for path in entries(&self.root.join("sessions")) {
            match path.extension().and_then(|e| e.to_str()) {
                Some("all") => return None,
                // A line that is being written is no digest, and whoever writes it looks at the mark afterwards.
                Some("uses") => {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    uses.extend(text.lines().filter_map(|line| Digest::try_from(line.to_owned()).ok()));
                }
                _ => {}
            }
        }
        Some(uses)
    }

    fn results(&self) -> Vec<Entry> {
        let read = |(key, path, _): (Digest, PathBuf, u64)| {
            let used = fs::metadata(&path).and_then(|m| m.modified()).ok()?;
            let result = StageResult::read(&fs::read(&path).ok()?, &key);
            let outputs = result.iter().flat_map(|result| result.outputs.values());
            let objects: BTreeSet<Digest> = outputs.flat_map(|artifact| self.objects_of(artifact)).collect();
            Some(Entry { key, path, used, result, objects: objects.into_iter().collect() })
        };
        self.named("results").into_par_iter().filter_map(read).collect()
    }
}

impl Entry {
    fn told(&self, size_of: impl Fn(&Digest) -> u64) -> OldResult {
        let (kind, run) = self.result.as_ref().map(|r| (r.fingerprint.kind.clone(), r.run.clone())).unwrap_or_default();
        let last_used = Timestamp::try_from(self.used).unwrap_or_default();
        let bytes = self.objects.iter().map(size_of).sum();
        OldResult { key: self.key.clone(), kind, run, last_used, bytes }
    }
}

impl Collecting<'_> {
    /// Removes what does not stay. `keep` must have been made since the collector began.
    ///
    /// # Errors
    /// A file cannot be removed, or this process stood still for so long that others may no longer wait.
    pub fn remove(&self, keep: &Keep) -> Result<Garbage, CollectError> {
        let garbage = self.store.garbage(keep);
        let objects = self.store.root.join("objects");
        let (objects, results): (Vec<&PathBuf>, Vec<&PathBuf>) =
            garbage.files.iter().partition(|path| path.starts_with(&objects));
        self.remove_all(&results)?;
        // An object must not be gone after a power loss while a result that names it came back.
        sync_folders(&results.iter().filter_map(|path| path.parent().map(ToOwned::to_owned)).collect());
        self.remove_all(&objects)?;
        self.remove_all(&entries(&self.store.root.join("quarantine")).iter().collect::<Vec<_>>())?;
        for folder in &garbage.unfinished {
            match fs::remove_dir_all(folder) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(self.store.io(folder, e).into()),
                _ => {}
            }
        }
        self.store.clear_leftovers();
        Ok(garbage)
    }

    fn remove_all(&self, files: &[&PathBuf]) -> Result<(), CollectError> {
        for path in files {
            if self.session.since_beat() > STALE / 2 {
                return Err(CollectError::StoodStill);
            }
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(self.store.io(path, e).into()),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.mark);
    }
}

/// How many names a file has.
fn links(path: &std::path::Path) -> u64 {
    #[cfg(unix)]
    return fs::symlink_metadata(path).map_or(1, |m| std::os::unix::fs::MetadataExt::nlink(&m));
    #[cfg(not(unix))]
    1
}

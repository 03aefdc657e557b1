//! Pushing results in the background, and remembering those that could not be pushed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::trouble::Trouble;
use super::{MOST_WRONG, Remote};
use crate::cancel::Cancel;
use crate::store::artifact::listed;
use crate::store::{Digest, Shape, StageResult, Store};

/// How long the end of a run waits for what is not pushed yet; longer by the time that [`SLOWEST`] takes for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it waits for what earlier runs left, while nothing of it gets through: a run without a network stays short.
const LEFT_PATIENCE: Duration = Duration::from_secs(3);
/// In bytes a second.
const SLOWEST: u64 = 1_000_000;
/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(50);
/// After so long, people are told what is waited for.
const SILENCE: Duration = Duration::from_millis(500);

/// What is to be pushed.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Digest>,
    /// All that ever waited.
    known: BTreeSet<Digest>,
    /// The bytes of all that waits.
    bytes: u64,
    /// The worker has one at hand.
    busy: bool,
    has_worker: bool,
    /// Something of this run is among it.
    is_fresh: bool,
    pushed: usize,
    failed: usize,
    /// What people should know at the end.
    notes: Vec<String>,
}

/// How pushing ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Results that the remote has now.
    pub pushed: usize,
    /// Results that a later run pushes.
    pub left: usize,
    pub warnings: Vec<String>,
}

impl Remote {
    /// Pushes in the background what earlier runs could not push to this remote.
    pub fn resume(&self, store: &Store) {
        if !self.location().push {
            return;
        }
        let here = self.location().mark();
        for entry in fs::read_dir(store.root.join("unpushed")).into_iter().flatten().flatten() {
            let key = entry.file_name().into_string().ok().and_then(|name| Digest::try_from(name).ok());
            let Some(key) = key.filter(|_| fs::read_to_string(entry.path()).is_ok_and(|to| to == here)) else { continue };
            match store.result(&key) {
                Some(result) => self.enqueue(store, key, &result),
                // What is no longer in the store need not be pushed.
                None => _ = fs::remove_file(entry.path()),
            }
        }
    }

    /// Pushes a result of the store in the background.
    pub fn push(&self, store: &Store, result: &StageResult) {
        if !self.location().push {
            return;
        }
        let key = result.fingerprint.key();
        let path = store.root.join("unpushed").join(key.as_str());
        // Where this cannot be written, the result is still pushed, but not by a later run.
        let _ = fs::create_dir_all(store.root.join("unpushed")).and_then(|()| fs::write(path, self.location().mark()));
        self.state().queue.is_fresh = true;
        self.enqueue(store, key, result);
    }

    fn enqueue(&self, store: &Store, key: Digest, result: &StageResult) {
        let mut state = self.state();
        let queue = &mut state.queue;
        if !queue.known.insert(key.clone()) {
            return;
        }
        queue.waiting.push_back(key);
        let bytes = result.outputs.values().fold(0u64, |sum, artifact| sum.saturating_add(artifact.size));
        queue.bytes = queue.bytes.saturating_add(bytes);
        if !std::mem::replace(&mut queue.has_worker, true) {
            let (remote, store) = (self.clone(), store.clone());
            // Without a thread nothing is pushed, which the end of the run tells.
            let _ = thread::Builder::new().name("push".into()).spawn(move || remote.work(&store));
        }
        self.0.changed.notify_all();
    }

    fn work(&self, store: &Store) {
        loop {
            let key = {
                let mut state = self.state();
                state.queue.busy = false;
                self.0.changed.notify_all();
                loop {
                    if state.writes_off {
                        return;
                    }
                    if let Some(key) = state.queue.waiting.pop_front() {
                        state.queue.busy = true;
                        break key;
                    }
                    state = self.0.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            };
            self.push_one(store, &key);
        }
    }

    fn push_one(&self, store: &Store, key: &Digest) {
        let ended = self.try_push(store, key);
        let words = match &ended {
            Ok(()) | Err(Trouble::Wrong(_) | Trouble::Local(_)) => None,
            Err(trouble) => self.give_up(trouble, matches!(trouble, Trouble::Denied | Trouble::Missing)),
        };
        let mut state = self.state();
        state.queue.notes.extend(words);
        match ended {
            Ok(()) => state.queue.pushed += 1,
            Err(Trouble::Wrong(what)) => {
                let note = format!("a result was not pushed: {what}; run `retune verify`");
                state.queue.notes.push(note);
            }
            Err(_) => {
                state.queue.failed += 1;
                return;
            }
        }
        drop(state);
        let _ = fs::remove_file(store.root.join("unpushed").join(key.as_str()));
    }

    /// Objects first, so that a result that is there is whole.
    fn try_push(&self, store: &Store, key: &Digest) -> Result<(), Trouble> {
        let Some(result) = store.result(key) else { return Ok(()) };
        let client = self.client()?;
        let (bucket, never) = (&client.bucket, Cancel::default());
        let replace = {
            let state = self.state();
            // Where several are wrong, the others are not looked at.
            state.wrong.contains(key) || state.wrong.len() >= MOST_WRONG
        };
        let name = bucket.result(key);
        if !replace && client.wait(0, &never, bucket.size(&name))?.is_some() {
            return Ok(());
        }
        for (digest, size) in objects(store, &result)? {
            if replace || client.wait(0, &never, bucket.size(&bucket.object(&digest)))? != Some(size) {
                let file = store.place("objects", &digest);
                client.wait(size, &never, bucket.upload(&digest, size, &file))?;
            }
        }
        let json = serde_json::to_vec(&result).map_err(|e| Trouble::Failed(e.to_string()))?;
        client.wait(json.len() as u64, &never, bucket.write(&name, json))
    }

    /// Waits for what is not pushed yet: a minute, and a second more for each megabyte, but not after `cancel` is set, and only shortly for
    /// what earlier runs left. `waiting` is called once, with how many results and bytes there are, if it takes long.
    pub fn finish(&self, cancel: &Cancel, waiting: &dyn Fn(usize, u64)) -> Pushed {
        let (start, mut told) = (Instant::now(), false);
        let mut state = self.state();
        let longest = PATIENCE + Duration::from_secs(state.queue.bytes / SLOWEST);
        loop {
            let hopeless = !state.queue.is_fresh && state.queue.pushed == 0;
            let patience = if hopeless { LEFT_PATIENCE } else { longest };
            let left = state.queue.waiting.len() + usize::from(state.queue.busy);
            if left == 0 || state.writes_off && !state.queue.busy || cancel.is_set() || start.elapsed() > patience {
                break;
            }
            if !told && start.elapsed() > SILENCE {
                told = true;
                waiting(left, state.queue.bytes);
            }
            let changed = self.0.changed.wait_timeout(state, LOOK);
            state = changed.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        state.writes_off = true;
        self.0.changed.notify_all();
        let told = state.told;
        let queue = &mut state.queue;
        let left = queue.waiting.len() + usize::from(queue.busy) + queue.failed;
        let mut warnings = std::mem::take(&mut queue.notes);
        if left > 0 && !told {
            let (are, noun) = if left == 1 { ("is", "result") } else { ("are", "results") };
            warnings.push(format!(
                "{left} {noun} {are} not pushed to `{}` yet; the next run with this remote goes on",
                self.location()
            ));
        }
        Pushed { pushed: queue.pushed, left, warnings }
    }
}

/// Digest and size of everything that a result yielded.
fn objects(store: &Store, result: &StageResult) -> Result<BTreeMap<Digest, u64>, Trouble> {
    let mut objects = BTreeMap::new();
    for artifact in result.outputs.values() {
        if artifact.shape == Shape::File {
            objects.insert(artifact.digest.clone(), artifact.size);
            continue;
        }
        let damaged = || Trouble::Wrong(format!("object {} is missing or damaged", artifact.digest.short()));
        let bytes = fs::read(store.place("objects", &artifact.digest)).map_err(|_| damaged())?;
        objects.extend(listed(artifact, &bytes).ok_or_else(damaged)?);
        objects.insert(artifact.digest.clone(), bytes.len() as u64);
    }
    Ok(objects)
}

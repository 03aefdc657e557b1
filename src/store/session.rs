//! A process that uses the store: its heart-beat, its scratch folder, and what it may have decided to use.
//!
//! `sessions/ID` says which process it is and holds a number that grows every [`BEAT`]. Everything that a process leaves in the store
//! for others to respect (leases, scratch folders, the mark of the collector) names its session. Others judge whether it lives by
//! their own clock alone: a session whose number has stood still for [`STALE`] while they watched counts as dead, and so does at once
//! one whose process is gone from this machine.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::owner::Owner;
use super::{Digest, Store, StoreError};

/// Between two heart-beats.
pub(super) const BEAT: Duration = Duration::from_secs(2);

/// A heart that has stood still for so long counts as dead.
pub(super) const STALE: Duration = Duration::from_secs(10);

/// This process in the store. Its files go when the value is dropped.
#[derive(Debug)]
pub(super) struct Session {
    pub id: String,
    folder: PathBuf,
    pub scratch: PathBuf,
    uses: Mutex<Uses>,
    /// Keys whose leases threads of this process hold.
    pub held: Mutex<HashSet<String>>,
    heart: Arc<Heart>,
    beating: Option<JoinHandle<()>>,
}

/// What others must not delete.
#[derive(Debug)]
struct Uses {
    file: File,
    declared: HashSet<Digest>,
}

#[derive(Debug)]
struct Heart {
    path: PathBuf,
    /// The line that says who it is.
    line: String,
    /// When it last beat; `None` once it is to stop.
    last: Mutex<Option<Instant>>,
    stop: Condvar,
}

/// What the file of a session begins with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub session: String,
    pub owner: Owner,
}

impl Session {
    /// Enters this process into the store.
    pub fn begin(root: &Path) -> io::Result<Self> {
        let id = new_id();
        let folder = root.join("sessions");
        let scratch = root.join("scratch").join(&id);
        fs::create_dir_all(&folder)?;
        let line = serde_json::to_string(&Line { session: id.clone(), owner: Owner::here() })?;
        let heart =
            Arc::new(Heart { path: folder.join(&id), line, last: Mutex::new(Some(Instant::now())), stop: Condvar::new() });
        let open = || -> io::Result<File> {
            // First of all: what names no session that is there counts as left behind.
            heart.create()?;
            fs::create_dir_all(&scratch)?;
            File::options().append(true).create_new(true).open(folder.join(format!("{id}.uses")))
        };
        let file = open().inspect_err(|_| {
            let _ = fs::remove_dir(&scratch);
            remove(&folder, &id);
        })?;
        let beating = thread::Builder::new().name("heart-beat".into()).spawn({
            let heart = heart.clone();
            move || heart.keep_beating()
        })?;
        let uses = Mutex::new(Uses { file, declared: HashSet::new() });
        Ok(Session { id, folder, scratch, uses, held: Mutex::default(), heart, beating: Some(beating) })
    }

    /// The file that says who this is.
    pub fn file(&self) -> &Path {
        &self.heart.path
    }

    /// Says that this process may use the result or object of this name. Must come before looking whether it is there.
    pub fn declare(&self, digest: &Digest) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.declared.insert(digest.clone()) && uses.file.write_all(format!("{digest}\n").as_bytes()).is_err() {
            // The disk is full: an empty file of this name, which takes no room, says that this process may use everything.
            let _ = File::create(self.folder.join(format!("{}.all", self.id)));
        }
    }

    /// Since when others may have seen this heart standing still.
    pub fn since_beat(&self) -> Duration {
        let last = self.heart.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(Duration::MAX, |last| last.elapsed())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        *self.heart.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.heart.stop.notify_all();
        let _ = self.beating.take().map(JoinHandle::join);
        let _ = fs::remove_dir_all(&self.scratch);
        remove(&self.folder, &self.id);
    }
}

/// Removes the files of a session; the one that says that it is there goes last.
pub(super) fn remove(sessions: &Path, id: &str) {
    for ending in [".uses", ".all", ""] {
        let _ = fs::remove_file(sessions.join(format!("{id}{ending}")));
    }
}

impl Heart {
    fn create(&self) -> io::Result<()> {
        let mut file = File::create_new(&self.path)?;
        file.write_all(format!("{}\n{:020}\n", self.line, 0).as_bytes())
    }

    fn keep_beating(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for count in 1_u64.. {
            let (guard, timeout) = self.stop.wait_timeout(last, BEAT).unwrap_or_else(PoisonError::into_inner);
            last = guard;
            if last.is_none() {
                return;
            }
            if timeout.timed_out() && self.beat(count).is_ok() {
                *last = Some(Instant::now());
            }
        }
    }

    /// Opened and closed every time: file systems that machines share show a file's content to others when it is closed.
    fn beat(&self, count: u64) -> io::Result<()> {
        let opened = File::options().write(true).open(&self.path);
        if opened.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            // Another machine took this process for dead, for example because it was asleep, and forgot what it uses.
            self.create()?;
            File::create(self.path.with_extension("all"))?;
            return Ok(());
        }
        let mut file = opened?;
        file.seek(SeekFrom::Start(self.line.len() as u64 + 1))?;
        file.write_all(format!("{count:020}\n").as_bytes())
    }
}

/// A name that no other session has.
fn new_id() -> String {
    let chance = || std::hash::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", chance() ^ u64::from(std::process::id()), chance())
}

/// How a session looks from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Its process lives on this machine; its heart has stood still for so long while it was watched.
    Here(Duration),
    /// Its process is on another machine; its heart has stood still for so long while it was watched.
    Away(Duration),
    /// It ended, or its process is gone from this machine.
    Gone,
}

impl Life {
    /// Whether it counts as dead.
    pub fn is_over(self) -> bool {
        match self {
            Life::Here(time) | Life::Away(time) => time >= STALE,
            Life::Gone => true,
        }
    }
}

/// Watching a session.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Option<(String, Instant)>,
}

impl Watch {
    /// Looks at the session `id`.
    pub fn look(&mut self, root: &Path, id: &str) -> Life {
        let text = match fs::read_to_string(root.join("sessions").join(id)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Life::Gone,
            Err(_) => String::new(),
        };
        let line = text.lines().next().and_then(|line| serde_json::from_str::<Line>(line).ok());
        match line.and_then(|line| line.owner.lives()) {
            Some(false) => Life::Gone,
            Some(true) => Life::Here(self.still(text)),
            None => Life::Away(self.still(text)),
        }
    }

    /// For how long this text has been the same.
    pub fn still(&mut self, text: String) -> Duration {
        let now = Instant::now();
        match &self.seen {
            Some((seen, since)) if *seen == text => now.duration_since(*since),
            _ => {
                self.seen = Some((text, now));
                Duration::ZERO
            }
        }
    }
}

impl Store {
    /// Enters this process into the store, so that others know that it lives and the collector leaves what it uses.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn begin(&self) -> Result<(), StoreError> {
        self.session().map(|_| ())
    }

    /// The session of this process, which begins when it is first needed.
    pub(super) fn session(&self) -> Result<Arc<Session>, StoreError> {
        let mut session = self.shared.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*session {
            return Ok(session.clone());
        }
        let begun = Arc::new(Session::begin(&self.root).map_err(|e| self.io(&self.root.join("sessions"), e))?);
        *session = Some(begun.clone());
        drop(session);
        self.clear_gone();
        Ok(begun)
    }

    /// Says that this process, if it has a session, may use the result or object of this name, and waits while a collector is at work:
    /// what is found afterwards stays.
    pub(super) fn using(&self, digest: &Digest) {
        if let Some(session) = self.active() {
            session.declare(digest);
            self.let_collector_pass(&session.id);
        }
    }
}

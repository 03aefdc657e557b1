//! One process at a time computes a key.
//!
//! Who computes the key `KEY` holds the lease `leases/KEY.N`, a hard link to the file of its session, or a copy of it where the file
//! system has no hard links; either appears at once and for one process only, on file systems that machines share too. A lease ends
//! when its file is removed. When the session of the holder of `KEY.N` is over, who creates `KEY.(N+1)` takes over: of several that
//! wait, one. The holder is the one with the highest N; who created one looks again, and withdraws if it is not.
//!
//! A holder that was wrongly taken for dead does no harm: what is stored is named by what it is, so a stage is at worst computed twice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::session::{Line, STALE, Session, Watch};
use super::{Digest, Store, StoreError};
use crate::cancel::Cancel;

/// A waiter looks again after the first time at first, and then less and less often up to the second.
const WAITS: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(200));

/// Held while a key is being computed.
#[derive(Debug)]
pub struct Lease {
    session: Arc<Session>,
    name: String,
    path: PathBuf,
}

/// A lease of a key: its number, and the session of its holder, which is empty when it cannot be read, as while it is being written.
type Numbered = (u64, String);

impl Store {
    /// Takes the lease of `key`. While another process has it, waits until `cancel` is set; `waiting` is called once then. `None` when
    /// `cancel` was set first.
    ///
    /// # Errors
    /// The lease cannot be written.
    pub fn lease(&self, key: &Digest, cancel: &Cancel, waiting: &dyn Fn()) -> Result<Option<Lease>, StoreError> {
        self.lease_named(key.as_str(), cancel, waiting)
    }

    /// As [`Store::lease`]; `name` is no key and has no dot.
    pub(super) fn lease_named(&self, name: &str, cancel: &Cancel, waiting: &dyn Fn()) -> Result<Option<Lease>, StoreError> {
        let session = self.session()?;
        let folder = self.root.join("leases");
        let fail = |e| self.io(&folder, e);
        let (mut told, mut watch, mut pause) = (false, Watch::default(), WAITS.0);
        loop {
            // Threads of this process are told apart here; their leases look the same.
            if session.held.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
                let lease = self.try_lease(&session, &folder, name, &mut watch);
                match lease {
                    Ok(Some(path)) => return Ok(Some(Lease { session, name: name.to_owned(), path })),
                    other => {
                        session.held.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                        other.map_err(fail)?;
                    }
                }
            }
            if cancel.is_set() {
                return Ok(None);
            }
            if !told {
                waiting();
                told = true;
            }
            sleep(pause, cancel);
            pause = (pause * 2).min(WAITS.1);
        }
    }

    /// Takes the lease if it is free or its holder is dead.
    fn try_lease(&self, session: &Session, folder: &Path, name: &str, watch: &mut Watch) -> io::Result<Option<PathBuf>> {
        let place = |number: u64| folder.join(format!("{name}.{number}"));
        let before = numbered(folder, name)?;
        let number = match before.last() {
            None => 0,
            // No thread of this process holds it: it was made by a call to a shared file system whose answer got lost.
            Some((number, holder)) if *holder == session.id => return Ok(Some(place(*number))),
            Some((number, holder)) if self.is_over(*number, holder, watch) => number.saturating_add(1),
            Some(_) => return Ok(None),
        };
        match create(session, &place(number)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            created => created?,
        }
        // Others may have come and gone since it was looked: what is there besides must be what was known to be over.
        let besides = numbered(folder, name)?.into_iter().filter(|(other, _)| *other != number);
        if !besides.clone().all(|other| before.contains(&other)) {
            let _ = fs::remove_file(place(number));
            return Ok(None);
        }
        besides.for_each(|(other, _)| drop(fs::remove_file(place(other))));
        Ok(Some(place(number)))
    }

    fn is_over(&self, number: u64, holder: &str, watch: &mut Watch) -> bool {
        if holder.is_empty() { watch.still(number.to_string()) >= STALE } else { watch.look(&self.root, holder).is_over() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Another may have taken this process for dead, and others may have had the lease of this number since.
        if holder(&self.path) == self.session.id {
            let _ = fs::remove_file(&self.path);
        }
        self.session.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Makes the lease file, with what it says in it; fails when it is there.
pub(super) fn create(session: &Session, path: &Path) -> io::Result<()> {
    match fs::hard_link(session.file(), path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        Err(_) => {
            let text = fs::read(session.file())?;
            File::create_new(path)?.write_all(&text)
        }
    }
}

/// The leases of a key in the order of their numbers.
fn numbered(folder: &Path, name: &str) -> io::Result<Vec<Numbered>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name();
        let number = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
        if let Some(number) = number {
            found.push((number, holder(&entry.path())));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The session that a lease names; empty when it cannot be read.
pub(super) fn holder(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().next().and_then(|line| serde_json::from_str::<Line>(line).ok());
    line.map(|line| line.session).unwrap_or_default()
}

/// Sleeps, but not on when `cancel` is set.
fn sleep(time: Duration, cancel: &Cancel) {
    let until = Instant::now() + time;
    while Instant::now() < until && !cancel.is_set() {
        thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    fn stores() -> (tempfile::TempDir, Store, Store) {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path()).unwrap();
        let (a, b) = (open(), open());
        (folder, a, b)
    }

    fn take(store: &Store, key: &Digest) -> Option<Lease> {
        let cancel = Cancel::default();
        store.lease(key, &cancel, &|| cancel.set()).unwrap()
    }

    #[test]
    fn the_second_waits_for_the_first() {
        let (_folder, a, b) = stores();
        let key = Digest::of(b"key");
        // Another store in the same process has a session of its own, as another process has; a clone has the same.
        for second in [&b, &a.clone()] {
            let first = take(&a, &key);
            assert!(first.is_some());
            let (done, told) = (AtomicBool::new(false), AtomicBool::new(false));
            std::thread::scope(|scope| {
                let second = scope.spawn(|| {
                    let lease = second.lease(&key, &Cancel::default(), &|| told.store(true, Ordering::SeqCst)).unwrap();
                    assert!(done.load(Ordering::SeqCst));
                    lease.is_some()
                });
                while !told.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                done.store(true, Ordering::SeqCst);
                drop(first);
                assert!(second.join().unwrap());
            });
        }
        assert_eq!(fs::read_dir(a.root().join("leases")).unwrap().count(), 0, "a lease leaves nothing");
    }

    #[test]
    fn one_takes_over_from_the_dead() {
        let (folder, a, b) = stores();
        let key = Digest::of(b"key");
        let held = take(&a, &key);
        assert!(take(&b, &key).is_none());
        // As after a kill: the lease is there, and the session is not.
        let left = folder.path().join("leases").join(format!("{key}.0"));
        let text = fs::read_to_string(&left).unwrap();
        drop((held, a));
        for round in 0..20 {
            fs::write(&left, &text).unwrap();
            let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let store = Store::open(folder.path()).unwrap();
                        let lease = store.lease(&key, &Cancel::default(), &|| ()).unwrap();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(2));
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lease);
                    });
                }
            });
            assert_eq!(most.into_inner(), 1, "round {round}: two had the lease at once");
        }
        assert_eq!(fs::read_dir(folder.path().join("leases")).unwrap().count(), 0);
    }

    #[test]
    fn taking_and_releasing_is_cheap() {
        let (_folder, a, _) = stores();
        let started = Instant::now();
        for number in 0..100_u8 {
            assert!(take(&a, &Digest::of(&[number])).is_some());
        }
        assert!(started.elapsed() < Duration::from_millis(250), "{:?}", started.elapsed());
    }
}

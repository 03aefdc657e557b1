//! What processes that were killed left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::Store;
use super::lease::holder;
use super::session::{self, Life, STALE, Watch};

/// Between two looks at the sessions of other machines.
const LOOK: Duration = Duration::from_millis(500);

const HOUR: Duration = Duration::from_hours(1);

/// What processes that were killed left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Leftovers {
    /// Sessions of processes that are gone, with what they left.
    pub sessions: usize,
    /// Leases that nobody holds.
    pub leases: usize,
    /// Scratch folders and temporary files that nobody uses.
    pub scratch: usize,
    /// Of the scratch folders and temporary files.
    pub bytes: u64,
}

impl Leftovers {
    pub fn is_empty(&self) -> bool {
        *self == Leftovers::default()
    }
}

/// The sessions that are there besides the own one.
pub(super) struct Sessions {
    pub live: Vec<String>,
    dead: Vec<String>,
}

impl Store {
    /// Removes what processes of this machine that are gone left behind. Cheap when there is nothing.
    pub(super) fn clear_gone(&self) {
        let gone = |id: &String| Watch::default().look(&self.root, id) == Life::Gone;
        let dead: Vec<String> = self.session_ids().into_iter().filter(gone).collect();
        if !dead.is_empty() {
            self.clear(&dead);
        }
    }

    /// Watches all sessions until it is clear which of them live: at once for those of this machine, for those of others as long as
    /// their hearts stand still, which is [`STALE`] at most.
    pub(super) fn watch_sessions(&self) -> Sessions {
        let own = self.active().map(|session| session.id.clone());
        let mut watches: BTreeMap<String, Watch> = self.session_ids().into_iter().map(|id| (id, Watch::default())).collect();
        watches.retain(|id, _| Some(id) != own.as_ref());
        let (mut live, mut dead, mut first) = (Vec::new(), Vec::new(), true);
        while !watches.is_empty() {
            let mut looks: Vec<(String, Life)> = Vec::new();
            for (id, watch) in &mut watches {
                looks.push((id.clone(), watch.look(&self.root, id)));
            }
            for (id, life) in looks {
                match life {
                    Life::Gone => dead.push(id.clone()),
                    Life::Away(time) if time >= STALE => dead.push(id.clone()),
                    Life::Here(_) => live.push(id.clone()),
                    // It beat while it was watched.
                    Life::Away(Duration::ZERO) if !first => live.push(id.clone()),
                    Life::Away(_) => continue,
                }
                watches.remove(&id);
            }
            if !watches.is_empty() {
                thread::sleep(LOOK);
            }
            first = false;
        }
        Sessions { live, dead }
    }

    /// What was left behind, as far as it is clear at once.
    pub fn leftovers(&self) -> Leftovers {
        let (files, count) = self.left(&self.watch_sessions());
        let bytes = files.iter().map(|path| size(path)).sum();
        Leftovers { bytes, ..count }
    }

    /// Removes what was left behind. Waits up to ten seconds for a sign of life of sessions of other machines.
    pub fn clear_leftovers(&self) -> Leftovers {
        let sessions = self.watch_sessions();
        let (files, count) = self.left(&sessions);
        let bytes = files.iter().map(|path| size(path)).sum();
        files.iter().for_each(|path| remove(path));
        sessions.dead.iter().for_each(|id| session::remove(&self.root.join("sessions"), id));
        Leftovers { bytes, ..count }
    }

    /// The files and folders that were left, besides those of the sessions themselves.
    fn left(&self, sessions: &Sessions) -> (Vec<PathBuf>, Leftovers) {
        // A session that began meanwhile is there before anything that names it.
        let lives = |id: &str| self.root.join("sessions").join(id).exists() && !sessions.dead.iter().any(|dead| dead == id);
        let leases: Vec<PathBuf> = entries(&self.root.join("leases")).into_iter().filter(|path| !lives(&holder(path))).collect();
        let mut scratch = entries(&self.root.join("scratch"));
        scratch.retain(|path| !lives(&name(path)));
        if sessions.live.is_empty() {
            // These are there for a moment, while a file of few kilobytes is written.
            let old = |path: &PathBuf| {
                fs::metadata(path).and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|age| age > HOUR))
            };
            for folder in [self.root.clone(), self.root.join("last"), self.root.join("projects")] {
                scratch.extend(entries(&folder).into_iter().filter(|path| name(path).starts_with(".write-") && old(path)));
            }
        }
        let count = Leftovers { sessions: sessions.dead.len(), leases: leases.len(), scratch: scratch.len(), bytes: 0 };
        (leases.into_iter().chain(scratch).collect(), count)
    }

    /// Removes what these sessions left.
    fn clear(&self, dead: &[String]) {
        let dead: BTreeSet<&str> = dead.iter().map(String::as_str).collect();
        let leases = entries(&self.root.join("leases"));
        leases.iter().filter(|path| dead.contains(holder(path).as_str())).for_each(|path| remove(path));
        for id in dead {
            remove(&self.root.join("scratch").join(id));
            session::remove(&self.root.join("sessions"), id);
        }
    }

    /// All sessions that are there.
    fn session_ids(&self) -> Vec<String> {
        let names = entries(&self.root.join("sessions")).into_iter().map(|path| name(&path));
        names.filter(|name| !name.contains('.')).collect()
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What lies in a folder, in order.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

/// In bytes, of all files in it.
pub(super) fn size(path: &Path) -> u64 {
    let files = walkdir::WalkDir::new(path).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    files.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

//! How far long stages are, so that an interruption costs little.
//!
//! `checkpoints/KEY/` belongs to the stage that computes the key: the holder of the key's lease alone writes there, in files of its own
//! choice. The folder outlives its process; it goes when the stage has succeeded, when the stage is told to begin anew, and when the
//! collector finds that nobody has touched it for long.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::leftovers::{entries, size};
use super::{Digest, Store};

/// What was interrupted so long ago will not be gone on with.
const OLD: Duration = Duration::from_hours(24 * 14);

impl Store {
    /// Where the stage of this key keeps how far it is. The folder is there when something is in it. Call it with the key's lease held.
    pub fn checkpoints(&self, key: &Digest) -> PathBuf {
        self.using(key);
        self.root.join("checkpoints").join(key.as_str())
    }

    /// Forgets how far the stage of this key is. Call it with the key's lease held.
    pub fn remove_checkpoints(&self, key: &Digest) {
        // What stays is harmless: the collector takes it.
        let _ = fs::remove_dir_all(self.root.join("checkpoints").join(key.as_str()));
    }

    /// Folders and bytes that nobody will need: the stage has a result, or nobody has written there for `age`, and nobody computes it now.
    pub(super) fn old_checkpoints(&self, age: Option<Duration>) -> Vec<(PathBuf, u64)> {
        let folders = entries(&self.root.join("checkpoints"));
        if folders.is_empty() {
            return Vec::new();
        }
        let leased: HashSet<String> = entries(&self.root.join("leases")).iter().filter_map(|path| key_of(path)).collect();
        let goes = |folder: &PathBuf| {
            let Some(key) = folder.file_name().and_then(|name| Digest::try_from(name.to_str()?.to_owned()).ok()) else {
                return false;
            };
            let done = self.place("results", &key).exists();
            !leased.contains(key.as_str()) && (done || untouched(folder) >= age.unwrap_or(OLD))
        };
        folders.into_iter().filter(goes).map(|folder| (folder.clone(), size(&folder))).collect()
    }
}

/// The key that a lease `KEY.N` is of.
fn key_of(lease: &Path) -> Option<String> {
    Some(lease.file_name()?.to_str()?.rsplit_once('.')?.0.to_owned())
}

/// For how long nobody has written there.
fn untouched(folder: &Path) -> Duration {
    let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let last = entries(folder).iter().filter_map(|path| time(path)).chain(time(folder)).max();
    last.and_then(|last| SystemTime::now().duration_since(last).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::store::Keep;

    #[test]
    fn what_is_computed_or_young_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let keys = [b"young", b"leasd", b"older"].map(|text| Digest::of(text));
        let old = SystemTime::now() - OLD - Duration::from_mins(1);
        for (number, key) in keys.iter().enumerate() {
            let of_key = store.checkpoints(key);
            fs::create_dir_all(&of_key).unwrap();
            fs::write(of_key.join("1"), "state").unwrap();
            if number > 0 {
                fs::File::open(of_key.join("1")).unwrap().set_modified(old).unwrap();
                fs::File::open(&of_key).unwrap().set_modified(old).unwrap();
            }
        }
        let lease = store.lease(&keys[1], &Cancel::default(), &|| ()).unwrap();
        let garbage = |age| store.garbage(&Keep { used_within: age, ..Keep::default() });
        let (none, some) = (garbage(None), garbage(Some(Duration::ZERO)));
        assert_eq!((none.checkpoints, none.freed), (1, 5));
        assert_eq!((some.checkpoints, some.freed), (2, 10), "younger than what is asked for");
        store.collecting().unwrap().remove(&Keep::default()).unwrap();
        let left = || keys.iter().map(|key| store.checkpoints(key).exists()).collect::<Vec<_>>();
        assert_eq!(left(), [true, true, false]);
        drop(lease);
        store.collecting().unwrap().remove(&Keep::default()).unwrap();
        assert_eq!(left(), [true, false, false]);
        store.remove_checkpoints(&keys[0]);
        assert_eq!(left(), [false, false, false]);
    }
}

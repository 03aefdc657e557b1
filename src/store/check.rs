//! Noticing damaged objects, and putting them aside.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use super::artifact::digest_file;
use super::seal::{is_sealed, seal};
use super::{Artifact, Digest, Shape, Store, StoreError};

/// How an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Whole,
    Missing,
    /// It holds other bytes than its name says.
    Damaged,
}

impl Store {
    /// Looks at an object; it is read only when somebody has written to it since it was stored.
    pub(super) fn look_at(&self, digest: &Digest, size: u64) -> Condition {
        match fs::metadata(self.place("objects", digest)) {
            Ok(found) if found.len() == size && is_sealed(&found, digest) => Condition::Whole,
            Ok(_) => self.read_through(digest),
            Err(_) => Condition::Missing,
        }
    }

    /// Reads an object.
    pub(super) fn read_through(&self, digest: &Digest) -> Condition {
        let path = self.place("objects", digest);
        match digest_file(&path) {
            Ok((found, _)) if found == *digest => {
                // Where it cannot be marked it is read again the next time.
                let _ = File::open(&path)
                    .and_then(|file| if is_sealed(&file.metadata()?, digest) { Ok(()) } else { seal(&file, digest) });
                Condition::Whole
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Condition::Missing,
            _ => Condition::Damaged,
        }
    }

    /// The objects of an artifact that hold other bytes than their names say or are missing. Every object is read, but once a process.
    pub fn unsound(&self, artifact: &Artifact) -> Vec<Digest> {
        let sealed = |digest: &Digest| fs::metadata(self.place("objects", digest)).is_ok_and(|found| is_sealed(&found, digest));
        let known = |digest: &Digest| self.verified().contains(digest) && sealed(digest);
        let sound = |digest: &Digest| {
            let sound = known(digest) || self.read_through(digest) == Condition::Whole;
            if sound {
                self.verified().insert(digest.clone());
            }
            sound
        };
        if !sound(&artifact.digest) {
            return vec![artifact.digest.clone()];
        }
        match artifact.shape {
            Shape::File => Vec::new(),
            Shape::Folder => match self.listing(&artifact.digest) {
                Ok(listing) => listing.files.into_iter().map(|file| file.digest).filter(|digest| !sound(digest)).collect(),
                Err(_) => vec![artifact.digest.clone()],
            },
        }
    }

    /// Objects whose content this process knows to be right.
    pub(super) fn verified(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.shared.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The damaged objects for which [`Store::result`] did not give the result under `key`.
    pub fn damage(&self, key: &Digest) -> Vec<Digest> {
        self.shared.damage.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default()
    }

    /// Moves an object out of the way if it is damaged; returns where it is then. So the stage that makes it runs again.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn quarantine(&self, digest: &Digest) -> Result<Option<PathBuf>, StoreError> {
        self.verified().remove(digest);
        if self.read_through(digest) != Condition::Damaged {
            return Ok(None);
        }
        self.put_aside(&self.place("objects", digest), digest.as_str()).map(Some)
    }

    /// Moves a file into the quarantine, under a name that is free.
    pub(super) fn put_aside(&self, path: &Path, name: &str) -> Result<PathBuf, StoreError> {
        let folder = self.root.join("quarantine");
        let fail = |e| self.io(path, e);
        fs::create_dir_all(&folder).map_err(fail)?;
        let names = std::iter::once(name.to_owned()).chain((1..).map(|number| format!("{name}-{number}")));
        let target = names.map(|name| folder.join(name)).find(|target| !target.exists()).unwrap_or(folder);
        fs::rename(path, &target).map_err(fail)?;
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_was_written_to_is_found_and_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let put = || {
            let scratch = store.scratch().unwrap();
            let file = scratch.path().join("file");
            fs::write(&file, "content").unwrap();
            store.put(&file).unwrap()
        };
        let artifact = put();
        let object = store.place("objects", &artifact.digest);
        let look = || store.look_at(&artifact.digest, artifact.size);
        assert_eq!(look(), Condition::Whole);
        assert_eq!(store.quarantine(&artifact.digest).unwrap(), None);
        // Somebody opens the link in a run's directory and writes: the size stays, the time does not.
        let link = folder.path().join("link");
        store.link(&artifact, &link).unwrap();
        fs::remove_file(&link).unwrap();
        fs::hard_link(&object, &link).unwrap();
        #[allow(clippy::permissions_set_readonly_false, reason = "as people do")]
        {
            let mut permissions = fs::metadata(&link).unwrap().permissions();
            permissions.set_readonly(false);
            fs::set_permissions(&link, permissions).unwrap();
        }
        fs::write(&link, "CONTENT").unwrap();
        assert_eq!(look(), Condition::Damaged);
        let aside = store.quarantine(&artifact.digest).unwrap().unwrap();
        assert_eq!((look(), fs::read_to_string(&aside).unwrap()), (Condition::Missing, "CONTENT".into()));
        assert_eq!(store.unsound(&artifact), std::slice::from_ref(&artifact.digest));
        assert_eq!(put(), artifact);
        assert_eq!((look(), store.unsound(&artifact)), (Condition::Whole, vec![]));
        // A new time with the same bytes, as a backup leaves it, is no damage.
        let touch = || File::open(&object).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
        touch();
        assert_eq!(look(), Condition::Whole);
        assert!(is_sealed(&fs::metadata(&object).unwrap(), &artifact.digest));
    }
}

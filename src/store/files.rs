//! Digests of source files, which are not read again while size, time and inode are the same.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::artifact::digest_file;
use super::{Digest, Store, StoreError, write_json};

/// A file changed this shortly before it is looked at could change again within the clock's resolution without a new time.
const SETTLED: Duration = Duration::from_secs(2);

/// What the system says about a file that changes when its content does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    /// Nanoseconds since 1970.
    modified: u128,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Option<Self> {
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Stamp { size: metadata.len(), modified, inode })
    }

    fn settled(metadata: &Metadata) -> bool {
        let age = metadata.modified().ok().and_then(|t| SystemTime::now().duration_since(t).ok());
        age.is_some_and(|age| age > SETTLED)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    digest: Digest,
}

/// The digests of source files.
#[derive(Debug)]
pub struct FileDigests {
    path: PathBuf,
    known: Mutex<BTreeMap<String, Known>>,
    /// Whether anything was learnt that the file does not have.
    learnt: AtomicBool,
}

impl Store {
    /// The digests that are known from earlier runs.
    pub fn file_digests(&self) -> FileDigests {
        let path = self.root.join("files.json");
        let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        FileDigests { path, known: Mutex::new(known), learnt: AtomicBool::new(false) }
    }

    /// Keeps the digests for later runs.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep_file_digests(&self, digests: &FileDigests) -> Result<(), StoreError> {
        if !digests.learnt.load(Ordering::SeqCst) {
            return Ok(());
        }
        let known = digests.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match write_json(&digests.path, &*known) {
            // Nothing is lost but time.
            Err(e) if matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => Ok(()),
            written => written.map_err(|e| self.io(&digests.path, e)),
        }
    }
}

impl FileDigests {
    /// The BLAKE3 digest of a file's content.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn digest(&self, path: &Path) -> Result<String> {
        let fail = || format!("`{}` cannot be read", path.display());
        let metadata = fs::metadata(path).with_context(fail)?;
        let name = std::path::absolute(path).with_context(fail)?.to_string_lossy().into_owned();
        let stamp = Stamp::of(&metadata).filter(|_| Stamp::settled(&metadata));
        let lock = || self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let (Some(stamp), Some(known)) = (&stamp, lock().get(&name))
            && known.stamp == *stamp
        {
            return Ok(known.digest.to_string());
        }
        let (digest, _) = digest_file(path).with_context(fail)?;
        if let Some(stamp) = stamp {
            lock().insert(name, Known { stamp, digest: digest.clone() });
            self.learnt.store(true, Ordering::SeqCst);
        }
        Ok(digest.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_settled_file_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let path = folder.path().join("a.md");
        fs::write(&path, "one").unwrap();
        let old = SystemTime::now() - Duration::from_secs(60);
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        let digests = store.file_digests();
        let first = digests.digest(&path).unwrap();
        store.keep_file_digests(&digests).unwrap();
        // Other bytes under the same stamp are not seen, which shows that the file is not read again.
        fs::write(&path, "two").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        assert_eq!(store.file_digests().digest(&path).unwrap(), first);
        // A new time is.
        fs::write(&path, "two").unwrap();
        assert_ne!(store.file_digests().digest(&path).unwrap(), first);
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let digests = Store::open(folder.path()).unwrap().file_digests();
        let message = digests.digest(Path::new("nowhere/a.md")).unwrap_err().to_string();
        assert_eq!(message, "`nowhere/a.md` cannot be read");
    }
}

//! Digests of source files, which are not read again while size, time and inode are the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::artifact::digest_file;
use super::{Digest, Store, StoreError, replace};

/// A file changed this shortly before it is looked at could change again within the clock's resolution without a new time.
const SETTLED: Duration = Duration::from_secs(2);

/// What the system says about a file that changes when its content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    stamp: Stamp,
    digest: Digest,
}

impl Known {
    /// `SIZE MODIFIED INODE DIGEST PATH`. A line is read and written much faster than JSON, and there may be very many files.
    fn read(line: &str) -> Option<(String, Self)> {
        let mut fields = line.splitn(5, ' ');
        let mut field = || fields.next();
        let stamp = Stamp { size: field()?.parse().ok()?, modified: field()?.parse().ok()?, inode: field()?.parse().ok()? };
        let digest = Digest::try_from(field()?.to_owned()).ok()?;
        Some((field()?.to_owned(), Known { stamp, digest }))
    }

    fn write(&self, path: &str, text: &mut String) {
        let Stamp { size, modified, inode } = self.stamp;
        // Writing into a text cannot fail.
        let _ = writeln!(text, "{size} {modified} {inode} {} {path}", self.digest);
    }
}

/// The digests of source files.
#[derive(Debug)]
pub struct FileDigests {
    path: PathBuf,
    /// By path; read when the first one is asked for.
    known: OnceLock<Mutex<BTreeMap<String, Known>>>,
    /// Whether anything was learnt that the file does not have.
    learnt: AtomicBool,
}

impl Store {
    /// The digests that are known from earlier runs.
    pub fn file_digests(&self) -> FileDigests {
        FileDigests { path: self.root.join("files"), known: OnceLock::new(), learnt: AtomicBool::new(false) }
    }

    /// Keeps the digests for later runs.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep_file_digests(&self, digests: &FileDigests) -> Result<(), StoreError> {
        if !digests.learnt.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut text = String::new();
        digests.known().iter().for_each(|(path, known)| known.write(path, &mut text));
        // Should a power loss damage it, files are read again.
        match replace(&digests.path, text.as_bytes()) {
            // Nothing is lost but time.
            Err(e) if matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => Ok(()),
            written => written.map_err(|e| self.io(&digests.path, e)),
        }
    }
}

impl FileDigests {
    /// The BLAKE3 digest of a file's content. May be called from many threads; a large file is read by all of them.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn digest(&self, path: &Path) -> Result<String> {
        let fail = || format!("`{}` cannot be read", path.display());
        let metadata = fs::metadata(path).with_context(fail)?;
        let absolute = std::path::absolute(path).with_context(fail)?;
        // A path that does not fit on a line is not kept.
        let name = absolute.to_str().filter(|name| !name.contains(['\n', '\r']));
        let stamp = Stamp::of(&metadata).filter(|_| Stamp::settled(&metadata));
        let Some((name, stamp)) = name.zip(stamp) else {
            return Ok(digest_file(path).with_context(fail)?.0.to_string());
        };
        if let Some(known) = self.known().get(name)
            && known.stamp == stamp
        {
            return Ok(known.digest.to_string());
        }
        let (digest, _) = digest_file(path).with_context(fail)?;
        self.known().insert(name.to_owned(), Known { stamp, digest: digest.clone() });
        self.learnt.store(true, Ordering::SeqCst);
        Ok(digest.to_string())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        let known = self.known.get_or_init(|| {
            // A file that is not there or damaged knows nothing.
            let text = fs::read_to_string(&self.path).unwrap_or_default();
            Mutex::new(text.lines().filter_map(Known::read).collect())
        });
        known.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn what_is_known_is_read_back_and_damage_is_not_believed() {
        let stamp = Stamp { size: 3, modified: 1_764_000_000_123_456_789, inode: 42 };
        let known = Known { stamp, digest: Digest::of(b"one") };
        let mut text = String::new();
        known.write("/a b/ä.md", &mut text);
        assert_eq!(Known::read(text.trim_end()), Some(("/a b/ä.md".into(), known)));
        for damaged in [&text[1..20], "", "1 2 3 4 /a", "\0\0\0"] {
            assert_eq!(Known::read(damaged), None, "{damaged:?}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let digests = Store::open(folder.path()).unwrap().file_digests();
        let message = digests.digest(Path::new("nowhere/a.md")).unwrap_err().to_string();
        assert_eq!(message, "`nowhere/a.md` cannot be read");
    }
}

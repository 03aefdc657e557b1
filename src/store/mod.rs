//! The content-addressed store: every artifact once, under the digest of its bytes, and for every stage key what it yielded.
//!
//! ```text
//! .retune/
//!   format               the version of this layout
//!   objects/ab/cdef…     immutable, read-only files, named by the BLAKE3 digest of their bytes
//!   results/ab/cdef…     stage key → outputs and outcome; its time of modification is that of its last use, to within an hour
//!   last/PIPELINE.json   what went into each stage the last time, to say what changed
//!   unpushed/            one file a result that a remote does not have yet
//!   files                digests of source files by size, time and inode
//!   sessions/            one file a process that uses the store, with its heart-beat, and one with what it may use
//!   leases/              one file a key that is being computed
//!   scratch/SESSION/     where running stages write
//!   checkpoints/KEY/     how far a stage that was interrupted is
//!   projects/            where the runs are that need results of this store
//!   quarantine/          damaged objects and results
//!   collecting           there while `retune gc` removes things
//! ```
//!
//! Contract. An object or a result is written under another name, flushed to the disk and renamed, so one that is there is whole,
//! whenever the process was killed. Objects, and the folders in which they appeared, are flushed before the result that names them.
//! Nothing that is there is ever changed, but for its time. Processes may share a store, on one machine or over a shared file system: who
//! computes a key holds its lease (`lease`), which ends with its process (`session`); what nobody needs goes in a way that harms nobody
//! (`collect`).

mod artifact;
mod check;
mod checkpoints;
mod collect;
mod compare;
mod files;
mod key;
mod last;
mod lease;
mod leftovers;
mod owner;
mod projects;
mod remote;
mod result;
mod seal;
mod session;
mod timings;
mod verify;
mod write;

pub use artifact::{Artifact, Shape};
pub use collect::{CollectError, Collecting, Garbage, Keep, Kept, Needs, OldResult};
pub use compare::Difference;
pub use files::FileDigests;
pub use key::{Digest, Fingerprint};
pub use last::Last;
pub use lease::Lease;
pub use leftovers::Leftovers;
pub use remote::{Location, LocationError, Pushed, REMOTE_FORMS, Remote};
pub use result::StageResult;
pub use verify::{Aside, Broken, Verified};
pub use write::{json_text, replace, write_atomically, write_json};

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use self::session::Session;

/// The version of the layout. A store of a later version is refused, one of version 1 is brought up to date when it is opened.
///
/// 1. objects, results, last, locks of the operating system
/// 2. sessions and leases, which programs of version 1 would not respect
const FORMAT: &str = "2";

/// The folders that every store has.
const FOLDERS: [&str; 6] = ["objects", "results", "last", "leases", "sessions", "scratch"];

/// A store in a folder. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    shared: Arc<Shared>,
}

/// What a store knows while the process runs.
#[derive(Debug)]
struct Shared {
    session: Mutex<Option<Arc<Session>>>,
    /// Objects whose content was read or written by this process.
    verified: Mutex<HashSet<Digest>>,
    /// Key → objects for whose damage its result was not given.
    damage: Mutex<HashMap<Digest, Vec<Digest>>>,
    /// Whether files can share their blocks, as far as is known.
    shares_blocks: AtomicBool,
}

/// What goes wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store at `{}` cannot be used: `{}`: {cause}; {}", root.display(), path.display(), mend(.cause))]
    Io { root: PathBuf, path: PathBuf, cause: std::io::Error },
    #[error("the store at `{}` has format {found}, and this program reads format {FORMAT}; name another folder with `--store`", root.display())]
    Format { root: PathBuf, found: String },
    #[error("the stage wrote no `{0}`")]
    NoOutput(String),
    #[error("output `{0}` holds something that is neither a file nor a folder")]
    NotAFile(String),
    #[error("object {digest} of the store at `{}` is missing or damaged; run the stage that makes it again with `--force`", root.display())]
    Missing { root: PathBuf, digest: String },
}

impl Store {
    /// Opens the store at `root`, creating it when it is missing.
    ///
    /// # Errors
    /// The folder cannot be written, or is a store of another format.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let shared = Shared {
            session: Mutex::default(),
            verified: Mutex::default(),
            damage: Mutex::default(),
            shares_blocks: AtomicBool::new(true),
        };
        let store = Store { root: root.to_owned(), shared: Arc::new(shared) };
        let path = root.join("format");
        match fs::read_to_string(&path) {
            Ok(found) if found.trim() == FORMAT => {}
            Ok(found) if found.trim() == "1" => {
                store.lay_out(&path)?;
                let _ = fs::remove_dir_all(root.join("locks"));
            }
            Ok(found) => return Err(StoreError::Format { root: root.to_owned(), found: found.trim().to_owned() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => store.lay_out(&path)?,
            Err(e) => return Err(store.io(&path, e)),
        }
        Ok(store)
    }

    /// Makes the folders, and then the file that says that they are there.
    fn lay_out(&self, format: &Path) -> Result<(), StoreError> {
        for folder in FOLDERS {
            let path = self.root.join(folder);
            fs::create_dir_all(&path).map_err(|e| self.io(&path, e))?;
        }
        write_atomically(format, format!("{FORMAT}\n").as_bytes()).map_err(|e| self.io(format, e))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// An empty folder for a running stage, on the disk of the objects; removed when the value is dropped.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn scratch(&self) -> Result<tempfile::TempDir, StoreError> {
        let session = self.session()?;
        tempfile::Builder::new().prefix("stage-").tempdir_in(&session.scratch).map_err(|e| self.io(&session.scratch, e))
    }

    /// The session of this process, if it has begun.
    fn active(&self) -> Option<Arc<Session>> {
        self.shared.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn io(&self, path: &Path, cause: std::io::Error) -> StoreError {
        StoreError::Io { root: self.root.clone(), path: path.to_owned(), cause }
    }

    /// `folder/ab/cdef…` for a digest `abcdef…`.
    fn place(&self, folder: &str, digest: &Digest) -> PathBuf {
        let (head, tail) = digest.as_str().split_at(2);
        self.root.join(folder).join(head).join(tail)
    }
}

/// What to do about a store that cannot be used.
fn mend(cause: &io::Error) -> &'static str {
    use io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match cause.kind() {
        StorageFull | QuotaExceeded => {
            "free space on its disk (`retune gc` says what can go), or name another folder with `--store`"
        }
        FileTooLarge => "raise the limit on the size of files (`ulimit -f`), or name a folder on another disk with `--store`",
        ReadOnlyFilesystem | PermissionDenied => {
            "only what is cached can be taken from a store that cannot be written; make it writable, or name another folder with `--store`"
        }
        _ => "free the disk or its permissions, or name another folder with `--store`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path()).unwrap();
        Store::open(folder.path()).unwrap();
        fs::write(folder.path().join("format"), "7\n").unwrap();
        let message = Store::open(folder.path()).unwrap_err().to_string();
        assert!(
            message.ends_with("has format 7, and this program reads format 2; name another folder with `--store`"),
            "{message}"
        );
    }

    #[test]
    fn a_store_of_the_first_format_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["objects", "results", "last", "locks", "scratch"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("format"), "1\n").unwrap();
        let (object, digest) = (folder.path().join("objects/e4"), Digest::of(b"content"));
        assert!(!object.join(digest.as_str()).exists());
        let place = Store::open(folder.path()).unwrap().place("objects", &digest);
        fs::create_dir(place.parent().unwrap()).unwrap();
        fs::write(&place, "content").unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("format")).unwrap(), "2\n");
        assert!(!folder.path().join("locks").exists());
        assert!(store.has(&Artifact { digest, shape: Shape::File, size: 7 }), "objects without a seal are read once");
        store.begin().unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let message = Store::open(&file.join("store")).unwrap_err().to_string();
        assert!(message.contains("cannot be used") && message.contains("`--store`"), "{message}");
    }
}

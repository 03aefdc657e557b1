//! The content-addressed store: every artifact once, under the digest of its bytes, and for every stage key what it yielded.
//!
//! ```text
//! .retune/
//!   format               the version of this layout
//!   objects/ab/cdef…     immutable, read-only files, named by the BLAKE3 digest of their bytes
//!   results/ab/cdef….json   stage key → outputs and outcome
//!   last/PIPELINE.json   what went into each stage the last time, to say what changed
//!   files                digests of source files by size, time and inode
//!   locks/               one file a key that is being computed
//!   scratch/             where running stages write
//! ```
//!
//! Contract. An object or a result is written under another name, flushed to the disk and renamed, so one that is there is whole,
//! whenever the process was killed. Nothing that is there is ever changed. Two processes may share a store: who computes a key
//! holds its lock, which the operating system releases when the process ends, however it ends.

mod artifact;
mod compare;
mod files;
mod key;
mod last;
mod lock;
mod result;
mod timings;
mod write;

pub use artifact::{Artifact, Shape};
pub use compare::Difference;
pub use files::FileDigests;
pub use key::{Digest, Fingerprint};
pub use last::Last;
pub use lock::Lock;
pub use result::StageResult;
pub use write::{json_text, replace, write_atomically, write_json};

use std::fs;
use std::path::{Path, PathBuf};

/// The version of the layout. A store of another version is refused.
const FORMAT: &str = "1";

/// A store in a folder.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What goes wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store at `{}` cannot be used: `{}`: {cause}; free the disk or its permissions, or name another folder with `--store`", root.display(), path.display())]
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
        let store = Store { root: root.to_owned() };
        for folder in ["objects", "results", "last", "locks", "scratch"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|e| store.io(&path, e))?;
        }
        let path = root.join("format");
        match fs::read_to_string(&path) {
            Ok(found) if found.trim() == FORMAT => Ok(store),
            Ok(found) => Err(StoreError::Format { root: root.to_owned(), found: found.trim().to_owned() }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                write_atomically(&path, format!("{FORMAT}\n").as_bytes()).map_err(|e| store.io(&path, e))?;
                Ok(store)
            }
            Err(e) => Err(store.io(&path, e)),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// An empty folder for a running stage, on the disk of the objects; removed when the value is dropped.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn scratch(&self) -> Result<tempfile::TempDir, StoreError> {
        let folder = self.root.join("scratch");
        tempfile::Builder::new().prefix("stage-").tempdir_in(&folder).map_err(|e| self.io(&folder, e))
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
            message.ends_with("has format 7, and this program reads format 1; name another folder with `--store`"),
            "{message}"
        );
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

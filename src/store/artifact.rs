//! Artifacts in the store: files and folders by the digest of their content.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::write::sync_folder;
use super::{Digest, Store, StoreError};

/// A stage's output, by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// Of a file: of its bytes. Of a folder: of its list of files, which is an object itself.
    pub digest: Digest,
    pub shape: Shape,
    /// In bytes; of a folder, of all its files.
    pub size: u64,
}

/// Whether an artifact is a file or a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    File,
    Folder,
}

/// A folder's list of files, in the order of their paths.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listing {
    pub files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Below the folder, with `/` separators.
    pub path: String,
    pub digest: Digest,
    size: u64,
}

impl Entry {
    /// The path below `folder`; a listing that was tampered with must not write elsewhere.
    fn below(&self, folder: &Path) -> Option<PathBuf> {
        let inside = Path::new(&self.path).components().all(|c| matches!(c, Component::Normal(_)));
        inside.then(|| folder.join(&self.path))
    }
}

impl Store {
    /// Moves the file or folder `path`, on the disk of the store, into the store.
    ///
    /// # Errors
    /// There is nothing at `path`, or the store cannot be written.
    pub fn put(&self, path: &Path) -> Result<Artifact, StoreError> {
        let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = fs::symlink_metadata(path).map_err(|_| StoreError::NoOutput(name()))?.file_type();
        if kind.is_file() {
            let (digest, size) = self.put_file(path)?;
            return Ok(Artifact { digest, shape: Shape::File, size });
        }
        if !kind.is_dir() {
            return Err(StoreError::NotAFile(name()));
        }
        let mut files = Vec::new();
        for entry in walkdir::WalkDir::new(path).sort_by_file_name() {
            let entry = entry.map_err(|e| self.io(path, e.into()))?;
            if entry.file_type().is_dir() {
                continue;
            }
            if !entry.file_type().is_file() {
                return Err(StoreError::NotAFile(name()));
            }
            let below = entry.path().strip_prefix(path).unwrap_or(entry.path());
            let parts: Option<Vec<&str>> = below.components().map(|c| c.as_os_str().to_str()).collect();
            let below = parts.ok_or_else(|| StoreError::NotAFile(name()))?.join("/");
            let (digest, size) = self.put_file(entry.path())?;
            files.push(Entry { path: below, digest, size });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let size = files.iter().map(|f| f.size).sum();
        let listing = serde_json::to_vec(&Listing { files }).unwrap_or_default();
        let scratch = self.scratch()?;
        let file = scratch.path().join("listing");
        fs::write(&file, listing).map_err(|e| self.io(&file, e))?;
        let (digest, _) = self.put_file(&file)?;
        Ok(Artifact { digest, shape: Shape::Folder, size })
    }

    fn put_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        let (digest, size) = digest_file(path).map_err(|e| self.io(path, e))?;
        let target = self.place("objects", &digest);
        // What is there already is read again, so that computing a damaged object anew mends it.
        if digest_file(&target).is_ok_and(|(found, _)| found == digest) {
            return Ok((digest, size));
        }
        let folder = target.parent().unwrap_or(&self.root);
        let put = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            File::open(path)?.sync_all()?;
            let mut permissions = fs::metadata(path)?.permissions();
            permissions.set_readonly(true);
            fs::set_permissions(path, permissions)?;
            fs::rename(path, &target)
        };
        put().map_err(|e| self.io(&target, e))?;
        sync_folder(folder);
        Ok((digest, size))
    }

    /// Whether every file of the artifact is there with its size.
    pub fn has(&self, artifact: &Artifact) -> bool {
        let there = |digest: &Digest, size: u64| fs::metadata(self.place("objects", digest)).is_ok_and(|m| m.len() == size);
        match artifact.shape {
            Shape::File => there(&artifact.digest, artifact.size),
            Shape::Folder => self.listing(&artifact.digest).is_ok_and(|l| l.files.iter().all(|f| there(&f.digest, f.size))),
        }
    }

    /// Makes the artifact appear at `target`: as links to the read-only objects where the file system can, else as copies.
    ///
    /// # Errors
    /// An object is missing, or `target` cannot be written.
    pub fn link(&self, artifact: &Artifact, target: &Path) -> Result<(), StoreError> {
        if artifact.shape == Shape::File {
            return self.link_file(&artifact.digest, target);
        }
        fs::create_dir_all(target).map_err(|e| self.io(target, e))?;
        for entry in self.listing(&artifact.digest)?.files {
            let to = entry.below(target).ok_or_else(|| self.missing(&artifact.digest))?;
            self.link_file(&entry.digest, &to)?;
        }
        Ok(())
    }

    fn link_file(&self, digest: &Digest, target: &Path) -> Result<(), StoreError> {
        let object = self.place("objects", digest);
        if !object.exists() {
            return Err(self.missing(digest));
        }
        let put = || -> std::io::Result<()> {
            fs::create_dir_all(target.parent().unwrap_or(target))?;
            if fs::hard_link(&object, target).is_err() {
                fs::copy(&object, target)?;
            }
            Ok(())
        };
        put().map_err(|e| self.io(target, e))
    }

    fn listing(&self, digest: &Digest) -> Result<Listing, StoreError> {
        let bytes = fs::read(self.place("objects", digest)).map_err(|_| self.missing(digest))?;
        serde_json::from_slice(&bytes).map_err(|_| self.missing(digest))
    }

    fn missing(&self, digest: &Digest) -> StoreError {
        StoreError::Missing { root: self.root.clone(), digest: digest.short().to_owned() }
    }
}

/// Digest and size of a file.
pub(super) fn digest_file(path: &Path) -> std::io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(path)?;
    Ok((hasher.finalize().into(), hasher.count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn a_folder_comes_back_as_it_was_put() {
        let (folder, store) = store();
        let scratch = store.scratch().unwrap();
        let make = |name: &str| {
            let source = scratch.path().join(name);
            fs::create_dir_all(source.join("1_Pooling")).unwrap();
            fs::write(source.join("config.json"), "{}").unwrap();
            fs::write(source.join("1_Pooling/config.json"), "[]").unwrap();
            store.put(&source).unwrap()
        };
        let artifact = make("a");
        assert_eq!(artifact, make("b"), "the same content is the same artifact");
        assert_eq!((artifact.shape, artifact.size), (Shape::Folder, 4));
        assert!(store.has(&artifact));
        let target = folder.path().join("run/model");
        store.link(&artifact, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("1_Pooling/config.json")).unwrap(), "[]");
        assert!(fs::metadata(target.join("config.json")).unwrap().permissions().readonly());
    }

    #[test]
    fn a_missing_or_cut_object_is_noticed() {
        let (folder, store) = store();
        let scratch = store.scratch().unwrap();
        let source = scratch.path().join("file");
        fs::write(&source, "content").unwrap();
        let artifact = store.put(&source).unwrap();
        assert!(store.has(&artifact));
        let object = store.place("objects", &artifact.digest);
        fs::remove_file(&object).unwrap();
        assert!(!store.has(&artifact));
        assert!(store.link(&artifact, &folder.path().join("x")).unwrap_err().to_string().contains("missing or damaged"));
        fs::write(&object, "cont").unwrap();
        assert!(!store.has(&artifact));
        fs::write(&object, "damaged").unwrap();
        fs::write(&source, "content").unwrap();
        assert_eq!(store.put(&source).unwrap(), artifact);
        assert_eq!(fs::read_to_string(&object).unwrap(), "content", "computing it again mends it");
    }

    #[test]
    fn a_stage_that_wrote_nothing_is_told() {
        let (_folder, store) = store();
        let message = store.put(&store.scratch().unwrap().path().join("chunks.jsonl")).unwrap_err().to_string();
        assert_eq!(message, "the stage wrote no `chunks.jsonl`");
    }
}

//! Artifacts in the store: files and folders by the digest of their content.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Condition;
use super::seal::seal;
use super::write::{make_folder, side_by_side, sync_folders};
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
    pub size: u64,
}

impl Entry {
    /// The path below `folder`; a listing that was tampered with must not write elsewhere.
    fn below(&self, folder: &Path) -> Option<PathBuf> {
        let inside = Path::new(&self.path).components().all(|c| matches!(c, Component::Normal(_)));
        inside.then(|| folder.join(&self.path))
    }
}

/// The files of the folder `artifact` by its list, which comes from elsewhere: digest and size of each. Nothing when the list is none
/// that [`Store::put`] makes: its paths are in order, stay inside of the folder and do not lie inside of each other.
pub(super) fn listed(artifact: &Artifact, listing: &[u8]) -> Option<Vec<(Digest, u64)>> {
    let listing: Listing = serde_json::from_slice(listing).ok()?;
    let plain =
        |part: &str| !matches!(part, "" | "." | "..") && !part.contains(|c: char| matches!(c, '\\' | ':') || c.is_control());
    let mut files = BTreeSet::new();
    for entry in &listing.files {
        if !entry.path.split('/').all(plain) || !files.insert(entry.path.as_str()) {
            return None;
        }
    }
    let inside = |path: &str| path.match_indices('/').any(|(at, _)| path.get(..at).is_some_and(|folder| files.contains(folder)));
    let size = listing.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.size))?;
    let fine = size == artifact.size && !files.iter().any(|path| inside(path));
    fine.then(|| listing.files.iter().map(|file| (file.digest.clone(), file.size)).collect())
}

/// A file on its way into the store.
struct Incoming {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

impl Store {
    /// Moves the file or folder `path`, on the disk of the store, into the store.
    ///
    /// # Errors
    /// There is nothing at `path`, or the store cannot be written.
    pub fn put(&self, path: &Path) -> Result<Artifact, StoreError> {
        let mut touched = BTreeSet::new();
        let artifact = self.put_unflushed(path, &mut touched)?;
        sync_folders(&touched);
        Ok(artifact)
    }

    /// As [`Store::put`], but the folders in which objects appeared are only added to `touched`: they must be flushed before anything
    /// names the objects.
    pub(super) fn put_unflushed(&self, path: &Path, touched: &mut BTreeSet<PathBuf>) -> Result<Artifact, StoreError> {
        let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = fs::symlink_metadata(path).map_err(|_| StoreError::NoOutput(name()))?.file_type();
        if kind.is_file() {
            let incoming = self.incoming(path)?;
            let artifact = Artifact { digest: incoming.digest.clone(), shape: Shape::File, size: incoming.size };
            self.take(&[incoming], touched)?;
            return Ok(artifact);
        }
        if !kind.is_dir() {
            return Err(StoreError::NotAFile(name()));
        }
        let mut paths = Vec::new();
        for entry in walkdir::WalkDir::new(path).sort_by_file_name() {
            let entry = entry.map_err(|e| self.io(path, e.into()))?;
            if entry.file_type().is_dir() {
                continue;
            }
            if !entry.file_type().is_file() {
                return Err(StoreError::NotAFile(name()));
            }
            paths.push(entry.into_path());
        }
        let mut incoming: Vec<Incoming> = paths.par_iter().map(|path| self.incoming(path)).collect::<Result<_, _>>()?;
        let entry = |file: &Incoming| {
            let below = file.path.strip_prefix(path).unwrap_or(&file.path);
            let parts: Option<Vec<&str>> = below.components().map(|c| c.as_os_str().to_str()).collect();
            let path = parts.ok_or_else(|| StoreError::NotAFile(name()))?.join("/");
            Ok(Entry { path, digest: file.digest.clone(), size: file.size })
        };
        let mut files: Vec<Entry> = incoming.iter().map(entry).collect::<Result<_, StoreError>>()?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let size = files.iter().map(|f| f.size).sum();
        let listing = serde_json::to_vec(&Listing { files }).unwrap_or_default();
        let scratch = self.scratch()?;
        let file = scratch.path().join("listing");
        fs::write(&file, listing).map_err(|e| self.io(&file, e))?;
        let listing = self.incoming(&file)?;
        let digest = listing.digest.clone();
        incoming.push(listing);
        self.take(&incoming, touched)?;
        Ok(Artifact { digest, shape: Shape::Folder, size })
    }

    fn incoming(&self, path: &Path) -> Result<Incoming, StoreError> {
        let (digest, size) = digest_file(path).map_err(|e| self.io(path, e))?;
        Ok(Incoming { path: path.to_owned(), digest, size })
    }

    /// Moves files into the store.
    fn take(&self, files: &[Incoming], touched: &mut BTreeSet<PathBuf>) -> Result<(), StoreError> {
        for folders in side_by_side(files, |file| self.take_file(file)) {
            touched.extend(folders?);
        }
        self.verified().extend(files.iter().map(|file| file.digest.clone()));
        Ok(())
    }

    /// Moves a file into the store; returns the folders to be flushed.
    fn take_file(&self, file: &Incoming) -> Result<BTreeSet<PathBuf>, StoreError> {
        let Incoming { path, digest, .. } = file;
        let target = self.place("objects", digest);
        self.using(digest);
        // What is there already is read again, so that computing a damaged object anew mends it.
        match self.read_through(digest) {
            Condition::Whole => return Ok(BTreeSet::new()),
            Condition::Damaged => _ = self.put_aside(&target, digest.as_str())?,
            Condition::Missing => {}
        }
        let put = || -> io::Result<BTreeSet<PathBuf>> {
            let folder = target.parent().unwrap_or(&self.root);
            let mut touched = make_folder(folder)?;
            touched.insert(folder.to_owned());
            let opened = File::open(path)?;
            let mut permissions = opened.metadata()?.permissions();
            permissions.set_readonly(true);
            opened.set_permissions(permissions)?;
            // Where it cannot be marked it is read more often.
            let _ = seal(&opened, digest);
            opened.sync_all()?;
            fs::rename(path, &target)?;
            Ok(touched)
        };
        put().map_err(|e| self.io(&target, e))
    }

    /// Whether every file of the artifact is there, and none was written to since it was stored. This process may then use it.
    pub fn has(&self, artifact: &Artifact) -> bool {
        self.using(&artifact.digest);
        self.conditions(artifact).iter().all(|(_, condition)| *condition == Condition::Whole)
    }

    /// Each object of the artifact, and how it is.
    pub(super) fn conditions(&self, artifact: &Artifact) -> Vec<(Digest, Condition)> {
        let look = |digest: &Digest, size: u64| (digest.clone(), self.look_at(digest, size));
        match artifact.shape {
            Shape::File => vec![look(&artifact.digest, artifact.size)],
            Shape::Folder => {
                // The size of the list is not known; it is read in any case.
                let path = self.place("objects", &artifact.digest);
                let Ok(size) = fs::metadata(path).map(|m| m.len()) else {
                    return vec![(artifact.digest.clone(), Condition::Missing)];
                };
                let list = look(&artifact.digest, size);
                match self.listing(&artifact.digest) {
                    Ok(listing) if list.1 == Condition::Whole => {
                        listing.files.iter().map(|file| look(&file.digest, file.size)).chain([list]).collect()
                    }
                    _ => vec![list],
                }
            }
        }
    }

    /// Makes the artifact appear at `target`, in the place of what is there: as a copy that shares its blocks where the file system can
    /// (btrfs, xfs, APFS), else as links to the read-only objects, else as copies.
    ///
    /// # Errors
    /// An object is missing, or `target` cannot be written.
    pub fn link(&self, artifact: &Artifact, target: &Path) -> Result<(), StoreError> {
        if artifact.shape == Shape::File {
            return self.link_file(&artifact.digest, target);
        }
        if target.exists() {
            fs::remove_dir_all(target).map_err(|e| self.io(target, e))?;
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
        fs::create_dir_all(target.parent().unwrap_or(target)).map_err(|e| self.io(target, e))?;
        let mut done = self.appear(&object, target);
        if done.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists) {
            done = fs::remove_file(target).and_then(|()| self.appear(&object, target));
        }
        done.map_err(|e| self.io(target, e))
    }

    /// Fails with `AlreadyExists` when there is something at `target`.
    fn appear(&self, object: &Path, target: &Path) -> io::Result<()> {
        // A file system that cannot do it for one file cannot for the next; asking costs as much as linking.
        if self.shared.shares_blocks.load(Ordering::Relaxed) {
            match reflink_copy::reflink(object, target) {
                Ok(()) => return fs::set_permissions(target, fs::metadata(object)?.permissions()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(e),
                Err(_) => self.shared.shares_blocks.store(false, Ordering::Relaxed),
            }
        }
        match fs::hard_link(object, target) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
            // Another disk, too many links, or a file system without them.
            Err(_) => fs::copy(object, target).map(|_| ()),
        }
    }

    pub(super) fn listing(&self, digest: &Digest) -> Result<Listing, StoreError> {
        let bytes = fs::read(self.place("objects", digest)).map_err(|_| self.missing(digest))?;
        serde_json::from_slice(&bytes).map_err(|_| self.missing(digest))
    }

    pub(super) fn missing(&self, digest: &Digest) -> StoreError {
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
        let link = folder.path().join("link");
        store.link(&artifact, &link).unwrap();
        store.link(&artifact, &link).unwrap();
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
    fn a_list_from_elsewhere_stays_inside_of_its_folder() {
        let digest = Digest::of(b"x");
        let listed = |paths: &[&str]| {
            let entry = |path: &&str| Entry { path: (*path).to_owned(), digest: digest.clone(), size: 1 };
            let listing = serde_json::to_vec(&Listing { files: paths.iter().map(entry).collect() }).unwrap();
            let artifact = Artifact { digest: Digest::of(&listing), shape: Shape::Folder, size: paths.len() as u64 };
            listed(&artifact, &listing)
        };
        assert_eq!(listed(&["1_Pooling/config.json", "config.json"]), Some(vec![(digest.clone(), 1), (digest.clone(), 1)]));
        let bad = [&["../x"][..], &["/etc/x"], &["a//b"], &["a/./b"], &["a\\b"], &["C:x"], &[""], &["a", "a"], &["a", "a/b"]];
        assert!(bad.iter().all(|paths| listed(paths).is_none()));
    }

    #[test]
    fn a_stage_that_wrote_nothing_is_told() {
        let (_folder, store) = store();
        let message = store.put(&store.scratch().unwrap().path().join("chunks.jsonl")).unwrap_err().to_string();
        assert_eq!(message, "the stage wrote no `chunks.jsonl`");
    }
}

//! Writing files as a whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use serde::Serialize;

/// Writes `bytes` to `path` so that at every instant, whatever happens, the file has its old content or the new one.
///
/// # Errors
/// The folder cannot be written; the old content is still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, true)
}

/// As [`write_atomically`], but without waiting for the disk: whoever reads the file, however this process ends, sees the old content
/// or the new one; after a power loss soon afterwards the file may be empty.
///
/// # Errors
/// The folder cannot be written; the old content is still there.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, false)
}

fn put(path: &Path, bytes: &[u8], durably: bool) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".write-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    if durably {
        file.as_file().sync_data()?;
    }
    // Files of the standard library are readable to all within the user's mask; temporary ones are private.
    #[cfg(unix)]
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path)?;
    if durably {
        sync_folders(&[folder.to_owned()].into());
    }
    Ok(())
}

/// Writes `value` as indented JSON, as [`write_atomically`] does.
///
/// # Errors
/// The folder cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write_atomically(path, &json_text(value)?)
}

/// `value` as indented JSON with a line's end.
///
/// # Errors
/// It is of a type that JSON does not have.
pub fn json_text(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Makes a folder and what it lies in; returns the folders in which one appeared.
pub(super) fn make_folder(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    match fs::create_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(BTreeSet::new()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut touched = folder.parent().map_or(Ok(BTreeSet::new()), make_folder)?;
            touched.extend(make_folder(folder)?);
            Ok(touched)
        }
        made => made.map(|()| folder.parent().map(Path::to_owned).into_iter().collect()),
    }
}

/// Asks for what appeared in these folders to survive a power loss. Not every file system can promise it, and the content is whole
/// anyway.
pub(super) fn sync_folders(folders: &BTreeSet<PathBuf>) {
    let folders: Vec<&PathBuf> = folders.iter().collect();
    side_by_side(&folders, |folder| drop(File::open(folder).and_then(|folder| folder.sync_all())));
}

/// Does what waits for the disk, several at once: flushing many files takes hardly longer than flushing one. In threads of its own, as
/// the pool of those that compute has one a processor.
pub(super) fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    const MOST: usize = 16;
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    thread::scope(|scope| {
        let chunks = items.chunks(items.len().div_ceil(MOST));
        let threads: Vec<_> = chunks.map(|chunk| scope.spawn(|| chunk.iter().map(&work).collect::<Vec<R>>())).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.flatten().collect()
    })
}

//! Writing files as a whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

/// Writes `bytes` to `path` so that at every instant, whatever happens, the file has its old content or the new one.
///
/// # Errors
/// The folder cannot be written; the old content is still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".write-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_data()?;
    // Files of the standard library are readable to all within the user's mask; temporary ones are private.
    #[cfg(unix)]
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path)?;
    sync_folders(&[folder.to_owned()].into());
    Ok(())
}

/// Writes `value` as indented JSON, as [`write_atomically`] does.
///
/// # Errors
/// The folder cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    write_atomically(path, &text)
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
    folders.par_iter().for_each(|folder| {
        if let Ok(folder) = File::open(folder) {
            let _ = folder.sync_all();
        }
    });
}

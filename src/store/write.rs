//! Writing files as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

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
        sync_folder(folder);
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

/// Asks for a rename in `folder` to survive a power loss. Not every file system can promise it, and the content is whole anyway.
pub(super) fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

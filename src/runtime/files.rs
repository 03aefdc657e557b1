//! Files that are fetched once and shared by all processes of a user: checked by digest, put in place as a whole.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

/// Bounds of an archive: more is refused rather than unpacked.
const MAX_ENTRIES: usize = 10_000;
const MAX_BYTES: u64 = 32 << 30;

/// The sha256 of a file, as lower-case hexadecimal digits.
///
/// # Errors
/// The file cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("`{}` cannot be read", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("`{}` cannot be read", path.display()))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// Makes `target` (a file or a folder) with `make`, unless it is there. `make` writes to another name beside it, which is renamed
/// when it is complete; a second process waits for the first.
///
/// # Errors
/// The folder cannot be written, or `make` fails.
pub fn once(target: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    let folder = target.parent().context("a path without a folder")?;
    let fail = || format!("`{}` cannot be written; set RETUNE_CACHE to a folder that can", folder.display());
    fs::create_dir_all(folder).with_context(fail)?;
    let lock = File::create(target.with_added_extension("lock")).with_context(fail)?;
    lock.lock().with_context(fail)?;
    if target.exists() {
        return Ok(());
    }
    let scratch = tempfile::Builder::new().prefix(".part-").tempdir_in(folder).with_context(fail)?;
    let part = scratch.path().join("whole");
    make(&part)?;
    if let Ok(file) = File::open(&part) {
        // Folders of models are many files; a torn one is found by its digest, so only single files are flushed here.
        let _ = file.sync_all();
    }
    fs::rename(&part, target).with_context(fail)
}

/// Writes the member `name` of a zip archive to `target`.
///
/// # Errors
/// The archive is damaged or has no such member, or `target` cannot be written.
pub fn unzip_member(archive: &Path, name: &str, target: &Path) -> Result<()> {
    let mut zip = open(archive)?;
    let mut member = zip.by_name(name).with_context(|| format!("`{}` has no member `{name}`", archive.display()))?;
    let mut file = File::create(target).with_context(|| format!("`{}` cannot be written", target.display()))?;
    copy(&mut member, &mut file, MAX_BYTES).with_context(|| format!("`{name}` of `{}` cannot be unpacked", archive.display()))?;
    Ok(())
}

/// Unpacks the members of a zip archive that lie under `prefix` (empty for all) into the folder `target`.
///
/// # Errors
/// The archive is damaged, too large, or holds a path that leaves the folder or a link.
pub fn unzip(archive: &Path, prefix: &str, target: &Path) -> Result<()> {
    let mut zip = open(archive)?;
    ensure!(zip.len() <= MAX_ENTRIES, "`{}` has {} members; more than {MAX_ENTRIES} are refused", archive.display(), zip.len());
    let mut left = MAX_BYTES;
    for i in 0..zip.len() {
        let mut member = zip.by_index(i).with_context(|| format!("`{}` is damaged", archive.display()))?;
        let name = member.name().with_context(|| format!("`{}` is damaged", archive.display()))?.into_owned();
        let refuse = |why: &str| format!("`{}` is refused: its member `{name}` {why}", archive.display());
        let Some(path) = inside(&name) else { bail!(refuse("leaves the folder it is unpacked to")) };
        ensure!(!member.is_symlink(), refuse("is a link"));
        let Ok(path) = path.strip_prefix(prefix) else { continue };
        if member.is_dir() || path.as_os_str().is_empty() {
            continue;
        }
        let to = target.join(path);
        fs::create_dir_all(to.parent().unwrap_or(target)).with_context(|| format!("`{}` cannot be written", target.display()))?;
        let mut file = File::create(&to).with_context(|| format!("`{}` cannot be written", to.display()))?;
        left -= copy(&mut member, &mut file, left).with_context(|| refuse("cannot be unpacked"))?;
    }
    Ok(())
}

fn open(archive: &Path) -> Result<ZipArchive<File>> {
    let file = File::open(archive).with_context(|| format!("`{}` cannot be read", archive.display()))?;
    ZipArchive::new(file).with_context(|| format!("`{}` is no intact zip archive", archive.display()))
}

/// The path of a member, `None` when it leaves the folder.
fn inside(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let fine = !name.contains(['\\', '\0']) && path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    fine.then(|| path.components().filter(|c| matches!(c, Component::Normal(_))).collect())
}

/// Copies at most `limit` bytes; more is an error, whatever size the archive declares.
fn copy(from: &mut impl Read, to: &mut impl Write, limit: u64) -> io::Result<u64> {
    let copied = io::copy(&mut from.take(limit.saturating_add(1)), to)?;
    if copied > limit { Err(io::Error::other(format!("more than {limit} bytes"))) } else { Ok(copied) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use zip::write::SimpleFileOptions;

    /// A zip archive with the given members.
    pub fn archive(path: &Path, members: &[(&str, &[u8])]) {
        let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, data) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(data).unwrap();
        }
        zip.finish().unwrap();
    }

    #[test]
    fn unpacks_what_lies_under_a_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let zip = folder.path().join("a.zip");
        archive(&zip, &[("model/config.json", b"{}"), ("model/1_Pooling/config.json", b"[]"), ("other.txt", b"no")]);
        let to = folder.path().join("to");
        unzip(&zip, "model", &to).unwrap();
        assert_eq!(fs::read(to.join("1_Pooling/config.json")).unwrap(), b"[]");
        assert!(to.join("config.json").exists() && !to.join("other.txt").exists());
    }

    #[test]
    fn a_path_that_escapes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil"] {
            let zip = folder.path().join("a.zip");
            archive(&zip, &[(name, b"x")]);
            let message = unzip(&zip, "", &folder.path().join("to")).unwrap_err().to_string();
            assert!(message.contains("leaves the folder"), "{name}: {message}");
        }
    }

    #[test]
    fn a_damaged_archive_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let zip = folder.path().join("a.zip");
        fs::write(&zip, b"PK not really").unwrap();
        assert!(unzip(&zip, "", folder.path()).unwrap_err().to_string().contains("no intact zip archive"));
    }

    #[test]
    fn what_fails_leaves_nothing_and_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        assert!(
            once(&target, |part| {
                fs::write(part, b"half")?;
                bail!("cut off")
            })
            .is_err()
        );
        assert!(!target.exists());
        once(&target, |part| Ok(fs::write(part, b"whole")?)).unwrap();
        once(&target, |_| bail!("must not run")).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
    }
}

//! Noticing at a glance that an object was changed.
//!
//! When an object is stored, the fraction of the second of its time of modification is set to a figure that is computed from the
//! object's digest and the whole second. Whoever writes to the file later sets another time, and the figure does not fit any more: the
//! content is then read again. So looking at an object costs one look at its entry, there is no list to keep, hard links do not
//! matter (they change another time), and dates stay true to the second.

use std::fs::{File, Metadata};
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use super::Digest;

/// The resolution of the figure in nanoseconds; file systems keep time to 100 ns at least, or only whole seconds, where every object
/// is read again.
const STEP: u32 = 1000;

/// Marks `file` as having the content that `digest` names.
pub(super) fn seal(file: &File, digest: &Digest) -> io::Result<()> {
    let seconds = file.metadata()?.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    file.set_modified(UNIX_EPOCH + Duration::new(seconds, fraction(digest, seconds)))
}

/// Whether nobody has written to the file since it was marked.
pub(super) fn is_sealed(metadata: &Metadata, digest: &Digest) -> bool {
    let Some(time) = metadata.modified().ok() else { return false };
    let since = time.duration_since(UNIX_EPOCH);
    since.is_ok_and(|since| since.subsec_nanos() == fraction(digest, since.as_secs()))
}

/// In nanoseconds, below a second.
fn fraction(digest: &Digest, seconds: u64) -> u32 {
    let hash = blake3::hash(format!("{digest} {seconds}").as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_le_bytes([a, b, c, d]) % (1_000_000_000 / STEP) * STEP
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_write_breaks_the_seal_and_a_link_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("object");
        std::fs::write(&path, "content").unwrap();
        let digest = Digest::of(b"content");
        let sealed = || is_sealed(&std::fs::metadata(&path).unwrap(), &digest);
        assert!(!sealed());
        seal(&File::open(&path).unwrap(), &digest).unwrap();
        assert!(sealed());
        assert!(!is_sealed(&std::fs::metadata(&path).unwrap(), &Digest::of(b"other")));
        std::fs::hard_link(&path, folder.path().join("link")).unwrap();
        assert!(sealed());
        File::options().append(true).open(folder.path().join("link")).unwrap().write_all(b"!").unwrap();
        assert!(!sealed());
    }
}

//! How much of an artifact is not what it was.

use std::collections::HashMap;
use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Digest, Store};

/// Larger files are not compared, in bytes: what changed is told to people, who should not wait for it.
const LARGEST: u64 = 16 << 20;

/// The rows of a JSON Lines file, or the files of a folder, that are not what they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Whether it counts files of a folder.
    pub files: bool,
    /// There before and now, with other content.
    pub changed: usize,
    pub added: usize,
    pub removed: usize,
    /// How many there are now.
    pub of: usize,
}

/// What tells two rows apart.
#[derive(Deserialize)]
struct Row {
    #[serde(alias = "_id")]
    id: Option<Value>,
}

/// The digest of a row's name and how many rows before it have the same name → the digest of the row.
type Rows = HashMap<(blake3::Hash, usize), blake3::Hash>;

impl Store {
    /// Compares two artifacts: folders by their files, JSON Lines by their rows, which are named by their `id` or `_id` or else by
    /// all that they hold. `None` when one is not there, is of another format, or is large.
    pub fn difference(&self, old: &Digest, new: &Digest) -> Option<Difference> {
        let (old, new) = (self.small(old)?, self.small(new)?);
        if let (Some(old), Some(new)) = (files(&old), files(&new)) {
            return Some(Difference { files: true, ..difference(&old, &new) });
        }
        Some(difference(&rows(&old)?, &rows(&new)?))
    }

    fn small(&self, digest: &Digest) -> Option<Vec<u8>> {
        let path = self.place("objects", digest);
        let size = fs::metadata(&path).ok()?.len();
        if size <= LARGEST { fs::read(path).ok() } else { None }
    }
}

fn difference<K: Eq + std::hash::Hash, V: PartialEq>(old: &HashMap<K, V>, new: &HashMap<K, V>) -> Difference {
    let kept = new.iter().filter_map(|(name, now)| Some((old.get(name)?, now)));
    let (mut changed, mut same) = (0, 0);
    kept.for_each(|(before, now)| if before == now { same += 1 } else { changed += 1 });
    let kept = changed + same;
    Difference { files: false, changed, added: new.len() - kept, removed: old.len() - kept, of: new.len() }
}

fn files(listing: &[u8]) -> Option<HashMap<String, Digest>> {
    let listing: super::artifact::Listing = serde_json::from_slice(listing).ok()?;
    Some(listing.files.into_iter().map(|file| (file.path, file.digest)).collect())
}

fn rows(text: &[u8]) -> Option<Rows> {
    let (mut rows, mut seen) = (Rows::new(), HashMap::<blake3::Hash, usize>::new());
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let row: Row = serde_json::from_slice(line).ok()?;
        let whole = blake3::hash(line);
        let name = row.id.map_or(whole, |id| blake3::hash(id.to_string().as_bytes()));
        let before = seen.entry(name).or_default();
        rows.insert((name, *before), whole);
        *before += 1;
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_files_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let scratch = store.scratch().unwrap();
        let put = |text: &str| {
            let path = scratch.path().join("file");
            fs::write(&path, text).unwrap();
            store.put(&path).unwrap().digest
        };
        let tell =
            |old: &Digest, new: &Digest| store.difference(old, new).map(|d| (d.files, [d.changed, d.added, d.removed, d.of]));
        let old = put("{\"_id\":\"a\",\"t\":1}\n{\"_id\":\"b\"}\n{\"_id\":\"c\"}\n");
        let new = put("{\"_id\":\"d\"}\n{\"_id\":\"a\",\"t\":2}\n{\"_id\":\"b\"}\n");
        assert_eq!(tell(&old, &new), Some((false, [1, 1, 1, 3])));
        // Rows without an id are named by what they hold; the same row twice is two rows.
        let (once, twice) = (put("{\"x\":1}\n{\"x\":2}\n"), put("{\"x\":2}\n{\"x\":1}\n{\"x\":1}\n"));
        assert_eq!(tell(&once, &twice), Some((false, [0, 1, 0, 3])));
        assert_eq!(tell(&once, &put("no JSON\n")), None);
        assert_eq!(tell(&once, &Digest::of(b"nowhere")), None);
        let tree = |files: &[(&str, &str)]| {
            let path = tempfile::tempdir_in(scratch.path()).unwrap().keep();
            files.iter().for_each(|(name, text)| fs::write(path.join(name), text).unwrap());
            store.put(&path).unwrap().digest
        };
        let (before, after) = (tree(&[("a", "1"), ("b", "1")]), tree(&[("a", "2"), ("b", "1"), ("c", "1")]));
        assert_eq!(tell(&before, &after), Some((true, [1, 1, 0, 3])));
    }
}

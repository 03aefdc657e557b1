//! How much of an input changed, in words.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::Engine;
use crate::pipeline::Node;
use crate::store::{Difference, Digest};

/// So many pairs of artifacts are compared; of more, only that they differ is told.
const MOST_COMPARED: usize = 32;

/// Pairs of artifacts that were compared.
#[derive(Default)]
pub(super) struct Compared(Mutex<HashMap<(Digest, Digest), Option<Difference>>>);

/// How much of an input is not what it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rows {
    #[serde(flatten)]
    pub difference: Difference,
    /// Plural noun: `chunks`, `files`.
    pub unit: &'static str,
}

impl Engine<'_> {
    /// How much of what comes in at `port` changed, if that can be told.
    pub(super) fn rows(&self, node: &Node, port: &str, old: Option<&Digest>, new: Option<&Digest>) -> Option<Rows> {
        let pair = (old?.clone(), new?.clone());
        let mut compared = self.compared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let difference = match compared.get(&pair) {
            Some(difference) => *difference,
            None if compared.len() >= MOST_COMPARED => None,
            None => {
                let difference = self.store.difference(&pair.0, &pair.1);
                compared.insert(pair, difference);
                difference
            }
        }?;
        let edge = node.inputs.iter().find(|edge| edge.port == port)?;
        let output = self.pipeline.stages[edge.from].outputs.iter().find(|output| output.name == edge.output);
        let kind = output.map_or("", |output| output.kind.name());
        let unit = match kind {
            _ if difference.files => "files",
            kind if kind.ends_with('s') => kind,
            _ => "rows",
        };
        Some(Rows { difference, unit })
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { changed, added, removed, of, .. } = self.difference;
        let counts = [(changed, "changed"), (added, "new"), (removed, "gone")];
        let parts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        match parts.as_slice() {
            [] => write!(f, "the order of {of} {}", self.unit),
            [_] if changed > 0 => write!(f, "{changed} of {of} {}", self.unit),
            parts => write!(f, "{} of {of} {}", parts.join(", "), self.unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_in_words() {
        let words = |changed, added, removed| {
            let difference = Difference { files: false, changed, added, removed, of: 41 };
            Rows { difference, unit: "chunks" }.to_string()
        };
        insta::assert_snapshot!([words(3, 0, 0), words(0, 2, 0), words(3, 2, 1), words(0, 0, 0)].join("\n"), @"
        3 of 41 chunks
        2 new of 41 chunks
        3 changed, 2 new, 1 gone of 41 chunks
        the order of 41 chunks
        ");
    }
}

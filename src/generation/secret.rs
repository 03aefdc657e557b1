//! Keys that nobody may see.

/// Keys shorter than this are the placeholders that local servers want (`none`, `EMPTY`), and may be words of an answer.
const SHORTEST: usize = 8;

/// A key. It has no `Debug` and no `Display`, so that no message can hold it by accident.
#[derive(Clone)]
pub struct Secret {
    key: String,
    /// The key as it stands in JSON whose writer escapes `/`.
    escaped: String,
}

impl Secret {
    pub fn new(key: &str) -> Self {
        Secret { key: key.trim().to_owned(), escaped: key.trim().replace('/', "\\/") }
    }

    /// The key itself, for the header of a request and nothing else.
    pub fn reveal(&self) -> &str {
        &self.key
    }

    /// Whether the key stands in `text`.
    pub fn is_in(&self, text: &str) -> bool {
        self.key.len() >= SHORTEST && (text.contains(&self.key) || text.contains(&self.escaped))
    }

    /// `text` with `***` where the key stood. Servers put keys into their error messages, and may put anything into an answer.
    pub fn scrub(&self, text: &str) -> String {
        if self.is_in(text) { text.replace(&self.key, "***").replace(&self.escaped, "***") } else { text.to_owned() }
    }
}

//! What a stage's key is made of.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::stage::External;

/// The version of the way a key is made. Raised when [`Fingerprint`] changes; every stage then runs again.
///
/// 1. kind, version, parameters, inputs, externals
const KEY_FORMAT: u32 = 1;

/// A BLAKE3 digest, 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[0-9a-f]{64}$"), with = "String")]
pub struct Digest(String);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Digest(blake3::hash(bytes).to_hex().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first digits, enough for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Digest(hash.to_hex().to_string())
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fine = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if fine { Ok(Digest(text)) } else { Err(format!("`{text}` is no BLAKE3 digest")) }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that decides what a stage yields. Two stages with the same fingerprint yield the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fingerprint {
    /// The kind of stage: what `uses` names.
    pub kind: String,
    /// The version of that kind's code.
    pub version: u32,
    /// The parameters with every default filled in, but for those that do not change the result.
    pub parameters: Value,
    /// Input port → digest of the artifact.
    pub inputs: BTreeMap<String, Digest>,
    /// What else changes the result: source files, the version of ONNX Runtime, a language model's name.
    pub externals: Vec<External>,
}

impl Fingerprint {
    /// The stage's key: the digest of the fingerprint in one canonical form.
    pub fn key(&self) -> Digest {
        let mut text = format!("retune stage key {KEY_FORMAT}\n");
        self.write(&mut text);
        Digest::of(text.as_bytes())
    }

    /// As [`canonical`] writes it, without a tree of a hundred thousand files in between.
    fn write(&self, text: &mut String) {
        text.push_str("{\"externals\":[");
        for External { name, value } in &self.externals {
            text.push_str("{\"name\":");
            quoted(name, text);
            text.push_str(",\"value\":");
            quoted(value, text);
            text.push_str(",},");
        }
        text.push_str("],\"inputs\":{");
        for (port, digest) in &self.inputs {
            quoted(port, text);
            text.push(':');
            quoted(digest.as_str(), text);
            text.push(',');
        }
        text.push_str("},\"kind\":");
        quoted(&self.kind, text);
        text.push_str(",\"parameters\":");
        canonical(&self.parameters, text);
        let _ = write!(text, ",\"version\":{},}}", self.version);
    }
}

/// JSON without white space and with the keys of objects sorted, whatever order the map keeps.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (key, value) in entries {
                quoted(key, text);
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for value in values {
                canonical(value, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::String(string) => quoted(string, text),
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

/// A text as JSON has it.
fn quoted(string: &str, text: &mut String) {
    // It cannot fail: every text can be written.
    text.push_str(&serde_json::to_string(string).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fingerprint() -> Fingerprint {
        Fingerprint {
            kind: "chunk".into(),
            version: 1,
            parameters: json!({ "chunk_size": 512, "chunk_overlap": 50 }),
            inputs: [("documents".into(), Digest::of(b"x"))].into(),
            externals: vec![],
        }
    }

    /// The key decides whether everybody's caches hold: it may only change together with `KEY_FORMAT`.
    #[test]
    fn the_key_is_stable() {
        insta::assert_snapshot!(fingerprint().key(), @"ee3475f94b49967db768e03d7bc036df82ba77149dbd0c90b682c840b22a84b3");
    }

    #[test]
    fn a_fingerprint_is_written_as_its_json() {
        let mut fingerprint = fingerprint();
        fingerprint.parameters = json!({ "b": [1, 2.5, null, "ä\"\n"], "a": { "d": true, "c": {} } });
        let external = |name: &str| External { name: name.into(), value: "\u{1}".into() };
        fingerprint.externals = vec![external("file `b\\`"), external("file `a`")];
        let (mut written, mut expected) = (String::new(), String::new());
        fingerprint.write(&mut written);
        canonical(&serde_json::to_value(&fingerprint).unwrap(), &mut expected);
        assert_eq!(written, expected);
    }

    #[test]
    fn everything_in_the_fingerprint_changes_the_key() {
        let external = External { name: "ONNX Runtime".into(), value: "1.32.0".into() };
        let changes: [fn(&mut Fingerprint, External); 5] = [
            |f, _| f.kind = "load".into(),
            |f, _| f.version = 2,
            |f, _| f.parameters = json!({ "chunk_size": 512, "chunk_overlap": 51 }),
            |f, _| f.inputs = [("documents".into(), Digest::of(b"y"))].into(),
            |f, e| f.externals.push(e),
        ];
        for change in changes {
            let mut other = fingerprint();
            change(&mut other, external.clone());
            assert_ne!(other.key(), fingerprint().key(), "{other:?}");
        }
    }

    #[test]
    fn a_digest_that_is_none_is_refused() {
        assert!(serde_json::from_str::<Digest>(r#""../../etc/passwd""#).is_err());
        assert!(serde_json::from_str::<Digest>(&format!("{:?}", "a".repeat(64))).is_ok());
    }
}

//! Prompts: what is put before a text because of what it is, `query: ` before a query for example.

use std::path::Path;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::{ModelError, read_json};

/// The names under which sentence-transformers looks for the prompt of documents, in this order.
const DOCUMENT: [&str; 3] = ["document", "passage", "corpus"];

/// The prompts of a model, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompts {
    named: IndexMap<String, String>,
    /// The name of the one for texts of which nobody says what they are.
    default: Option<String>,
}

/// Prompts that take the place of the model's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OtherPrompts {
    /// Put before every query: `"query: "`. The space at the end belongs to it.
    pub query: Option<String>,
    /// Put before every document: `"passage: "`.
    pub document: Option<String>,
    /// Another name of `document`.
    pub passage: Option<String>,
}

impl OtherPrompts {
    /// Checks that documents have one prompt, not two.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match (&self.document, &self.passage) {
            (Some(_), Some(_)) => Err(("prompts.passage", "`passage` is another name of `document`; give one of them".into())),
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    prompts: Option<IndexMap<String, Option<String>>>,
    #[serde(default)]
    default_prompt_name: Option<String>,
}

impl Prompts {
    /// Reads `config_sentence_transformers.json`; there are no prompts where it is missing.
    ///
    /// # Errors
    /// It is not what it should be, or its default is none of its prompts.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        if !path.exists() {
            return Ok(Prompts::default());
        }
        let file: File = read_json(path)?;
        let named: IndexMap<String, String> =
            file.prompts.unwrap_or_default().into_iter().map(|(name, text)| (name, text.unwrap_or_default())).collect();
        match file.default_prompt_name.filter(|name| !name.is_empty()) {
            Some(name) if !named.contains_key(&name) => {
                let message = format!("`default_prompt_name` is `{name}`, which is none of `prompts`");
                Err(ModelError::invalid(path, message))
            }
            default => Ok(Prompts { named, default }),
        }
    }

    /// The prompt of this name. `query` and `document` are always there, empty where the model has none.
    ///
    /// # Errors
    /// There is none; the message lists those that there are.
    pub fn get(&self, name: &str) -> Result<&str, String> {
        match name {
            "query" => Ok(self.query()),
            "document" => Ok(self.document()),
            _ => self.named.get(name).map(String::as_str).ok_or_else(|| {
                let mut known: Vec<&str> = self.named.keys().map(String::as_str).collect();
                for always in ["query", "document"] {
                    if !known.contains(&always) {
                        known.push(always);
                    }
                }
                format!("the model has no prompt `{name}`; it has `{}`", known.join("`, `"))
            }),
        }
    }

    /// Of queries.
    pub fn query(&self) -> &str {
        self.named.get("query").map_or("", String::as_str)
    }

    /// Of documents: that of `document`, `passage` or `corpus`, the first that is not empty.
    pub fn document(&self) -> &str {
        let texts = DOCUMENT.iter().filter_map(|name| self.named.get(*name));
        texts.map(String::as_str).find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// Of texts of which nobody says what they are.
    pub fn plain(&self) -> &str {
        self.default.as_ref().and_then(|name| self.named.get(name)).map_or("", String::as_str)
    }

    /// With `other` in the place of those that it names.
    #[must_use]
    pub fn replaced(mut self, other: &OtherPrompts) -> Self {
        if let Some(query) = &other.query {
            self.named.insert("query".into(), query.clone());
        }
        if let Some(document) = other.document.as_ref().or(other.passage.as_ref()) {
            for name in DOCUMENT {
                if name == "document" || self.named.contains_key(name) {
                    self.named.insert(name.into(), document.clone());
                }
            }
        }
        self
    }

    /// All by name, with `query` and `document` said even where the model has them under another name or not at all: what
    /// sentence-transformers puts before queries and documents is then what is put here.
    pub fn complete(&self) -> IndexMap<String, String> {
        let mut named = self.named.clone();
        named.insert("query".into(), self.query().to_owned());
        named.insert("document".into(), self.document().to_owned());
        named
    }

    /// The name of the one that [`Prompts::plain`] gives.
    pub fn default_name(&self) -> Option<&str> {
        self.default.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Prompts, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        std::fs::write(&path, text).unwrap();
        Prompts::read(&path).map_err(|e| e.to_string().replace(&path.display().to_string(), "c.json"))
    }

    fn three(prompts: &Prompts) -> [&str; 3] {
        [prompts.query(), prompts.document(), prompts.plain()]
    }

    #[test]
    fn documents_go_by_several_names() {
        let of = |text| read(text).unwrap();
        assert_eq!(three(&of("{}")), ["", "", ""]);
        assert_eq!(three(&of(r#"{"prompts": null}"#)), ["", "", ""]);
        let e5 = of(r#"{"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "passage"}"#);
        assert_eq!(three(&e5), ["query: ", "passage: ", "passage: "]);
        let both = of(r#"{"prompts": {"corpus": "c: ", "document": "", "passage": "p: "}}"#);
        assert_eq!(three(&both), ["", "p: ", ""]);
        assert_eq!(e5.complete().get("document").unwrap(), "passage: ");
        assert_eq!(both.complete().get("query").unwrap(), "");
    }

    #[test]
    fn others_take_their_place() {
        let e5 = read(r#"{"prompts": {"query": "query: ", "passage": "passage: ", "sts": "s: "}}"#).unwrap();
        let other = OtherPrompts { passage: Some("d: ".into()), ..OtherPrompts::default() };
        let replaced = e5.clone().replaced(&other);
        assert_eq!(three(&replaced), ["query: ", "d: ", ""]);
        assert_eq!(three(&e5.replaced(&OtherPrompts { query: Some(String::new()), ..other })), ["", "d: ", ""]);
        assert_eq!((replaced.get("sts"), replaced.get("document")), (Ok("s: "), Ok("d: ")));
        insta::assert_snapshot!(replaced.get("quary").unwrap_err(), @"the model has no prompt `quary`; it has `query`, `passage`, `sts`, `document`");
    }

    #[test]
    fn a_default_that_is_not_there_is_refused() {
        insta::assert_snapshot!(read(r#"{"prompts": {}, "default_prompt_name": "query"}"#).unwrap_err(), @"`c.json` is not what it should be: `default_prompt_name` is `query`, which is none of `prompts`");
        assert!(read(r#"{"prompts": {"query": 3}}"#).unwrap_err().contains("invalid type"));
    }
}

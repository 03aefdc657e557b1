//! Records: what the rows of a CSV file and the objects of a JSON file have in common.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::Record;

/// Which fields of a record are its text and its title. The first field that is there counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    pub text: Vec<String>,
    pub title: Vec<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Fields::new(None, None)
    }
}

impl Fields {
    /// The named fields, or those that usually hold text and title.
    pub fn new(text: Option<&str>, title: Option<&str>) -> Self {
        let names = |name: Option<&str>, usual: &[&str]| {
            name.map_or_else(|| usual.iter().map(|name| (*name).to_owned()).collect(), |name| vec![name.to_owned()])
        };
        Fields { text: names(text, &["text", "content", "body"]), title: names(title, &["title", "name"]) }
    }

    /// The record that `fields` hold. `plural` is what the format calls its fields.
    ///
    /// # Errors
    /// There is no text field, or it holds no text.
    pub fn record(&self, mut fields: Map<String, Value>, number: Option<usize>, plural: &str) -> Result<Record> {
        let Some(name) = self.text.iter().find(|name| fields.contains_key(*name)) else {
            let wanted = self.text.join("`, `");
            let found: Vec<String> = fields.keys().map(|name| format!("`{name}`")).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            bail!("there is no field `{wanted}`; the {plural} are {found}; name the one that holds the text with `text_field`");
        };
        let text = match fields.remove(name) {
            Some(Value::String(text)) => text,
            Some(Value::Null) | None => String::new(),
            Some(_) => bail!("field `{name}`: the text must be a string; name another field with `text_field`"),
        };
        let title = self.title.iter().find(|name| matches!(fields.get(*name), Some(Value::String(_))));
        let title = title.and_then(|name| fields.remove(name)).and_then(|title| title.as_str().map(str::to_owned));
        let metadata = fields.into_iter().filter(|(_, value)| !value.is_null() && value != "").collect();
        Ok(Record { number, title, text, metadata })
    }
}

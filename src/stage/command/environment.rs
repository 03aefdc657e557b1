//! What a program sees of the environment.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::places::PREFIX;
use super::template::Text;
use crate::generation::secret::Secret;
use crate::stage::ParameterError;

/// What every program sees, as far as it is set: where programs and the user's files are, and what Windows cannot do without.
const ALWAYS: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "TMP",
    "TEMP",
    "SystemRoot",
    "SystemDrive",
    "ComSpec",
    "PATHEXT",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
];

/// Variables by name: with the value that is set, or without one where that of retune's own environment is let through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Environment(BTreeMap<String, Option<String>>);

impl Environment {
    pub fn check(&self) -> Result<(), ParameterError> {
        for (name, value) in &self.0 {
            let is_name = !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !is_name {
                let message = format!("`{name}` cannot be the name of an environment variable; use letters, digits and `_`");
                return Err(ParameterError::new("env", message));
            }
            if name.starts_with(PREFIX) {
                let message = format!("`{name}`: variables that start with `{PREFIX}` are set by retune; choose another name");
                return Err(ParameterError::new("env", message));
            }
            if value.as_ref().is_some_and(|value| value.contains('\0')) {
                return Err(ParameterError::new("env", format!("the value of `{name}` cannot hold the character NUL")));
            }
        }
        Ok(())
    }

    /// Shows a program its variables, and no others.
    pub fn apply(&self, command: &mut std::process::Command) {
        command.env_clear();
        let let_through = |name: &&'static str| Some((*name, std::env::var_os(name)?));
        command.envs(ALWAYS.iter().filter_map(let_through));
        for (name, value) in &self.0 {
            match (value, std::env::var_os(name)) {
                (Some(value), _) => command.env(name, value),
                (None, Some(value)) => command.env(name, value),
                (None, None) => command.env_remove(name),
            };
        }
    }

    /// The values that are let through by name: what a program says of them is not written down.
    pub fn secrets(&self) -> Vec<Secret> {
        let names = self.0.iter().filter(|(name, value)| value.is_none() && !ALWAYS.contains(&name.as_str()));
        let values = names.filter_map(|(name, _)| std::env::var(name).ok());
        // The log has one line at a time, and a key may have several.
        values.flat_map(|value| value.lines().map(Secret::new).collect::<Vec<_>>()).collect()
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EnvironmentVisitor)
    }
}

/// An item of the list: a name, or names with values.
struct Item(BTreeMap<String, Option<String>>);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct EnvironmentVisitor;

struct ItemVisitor;

fn variables<'de, A: MapAccess<'de>>(mut map: A) -> Result<BTreeMap<String, Option<String>>, A::Error> {
    let mut variables = BTreeMap::new();
    while let Some((name, value)) = map.next_entry::<String, Option<Text>>()? {
        variables.insert(name, value.map(|Text(value)| value));
    }
    Ok(variables)
}

impl<'de> Visitor<'de> for EnvironmentVisitor {
    type Value = Environment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of variables, or a mapping")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Environment, A::Error> {
        let mut all = BTreeMap::new();
        while let Some(Item(variables)) = items.next_element()? {
            for (name, value) in variables {
                if all.contains_key(&name) {
                    return Err(A::Error::custom(format!("`{name}` stands twice; remove one of them")));
                }
                all.insert(name, value);
            }
        }
        Ok(Environment(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Environment, A::Error> {
        variables(map).map(Environment)
    }
}

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`NAME`, or `NAME: VALUE`")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Item, E> {
        Ok(Item(BTreeMap::from([(name.to_owned(), None)])))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
        variables(map).map(Item)
    }
}

impl JsonSchema for Environment {
    fn schema_name() -> Cow<'static, str> {
        "Environment".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let name = "^[A-Za-z_][A-Za-z0-9_]*$";
        let mapping = json_schema!({
            "type": "object",
            "propertyNames": { "pattern": name },
            "additionalProperties": { "type": ["string", "number", "boolean", "null"] }
        });
        let word = json_schema!({ "type": "string", "pattern": name });
        json_schema!({ "anyOf": [mapping, { "type": "array", "items": { "anyOf": [word, mapping] } }] })
    }
}

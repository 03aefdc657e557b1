//! Short names for values, which become parts of the names of stages, folders and files.

use std::collections::HashSet;

use serde_json::Value;

/// Characters of a label.
const LONGEST: usize = 40;
/// Bytes of the labels of a combination.
const LONGEST_LIST: usize = 120;
/// Hexadecimal digits that stand for the rest of them.
const DIGEST: usize = 16;
/// Hexadecimal digits of a digest that tell values apart whose labels would be the same.
const DIGITS: &[usize] = &[8, 16, 64];

/// The label of a value that is none of `taken`: as it is written; a mapping by its `name`; else, a mapping or a list, by its `position`.
/// What cannot be a part of a file's name gives way to `-`, and digits of a digest follow.
pub(super) fn of(written: Option<&str>, value: &Value, position: usize, taken: &HashSet<String>) -> String {
    let text = written.map_or_else(|| natural(value, position), str::to_owned);
    let plain: String = text.chars().map(|c| if is_plain(c) { c } else { '-' }).take(LONGEST).collect();
    if plain == text && !plain.is_empty() && !taken.contains(&plain) {
        return plain;
    }
    let digest = blake3::hash(format!("{text}\n{value}").as_bytes()).to_hex();
    let plain = plain.trim_matches('-');
    let labelled = DIGITS.iter().map(|digits| {
        let digits = digest.get(..*digits).unwrap_or_default();
        if plain.is_empty() { digits.to_owned() } else { format!("{plain}-{digits}") }
    });
    let mut last = String::new();
    for label in labelled {
        last = label;
        if !taken.contains(&last) {
            break;
        }
    }
    last
}

/// A list of labels, shortened if it is long; what is left out gives way to digits of a digest.
pub(super) fn bounded(label: String) -> String {
    if label.len() <= LONGEST_LIST {
        return label;
    }
    let end = (0..=LONGEST_LIST - DIGEST - 1).rev().find(|at| label.is_char_boundary(*at)).unwrap_or_default();
    let digest = blake3::hash(label.as_bytes()).to_hex();
    format!("{}-{}", label.get(..end).unwrap_or_default(), digest.get(..DIGEST).unwrap_or_default())
}

fn natural(value: &Value, position: usize) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) => position.to_string(),
        Value::Object(map) => match map.get("name") {
            Some(name @ (Value::String(_) | Value::Bool(_) | Value::Number(_))) => natural(name, position),
            _ => position.to_string(),
        },
    }
}

/// Whether a character may stand in a label: a letter or digit of any script, or one that no file system and no YAML minds.
pub(super) fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+')
}

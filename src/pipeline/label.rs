//! Short names for values, which become parts of the names of stages, folders and files.

use serde_json::Value;

/// Characters of a label.
const LONGEST: usize = 40;
/// Bytes of the labels of a combination.
const LONGEST_LIST: usize = 120;
/// Hexadecimal digits that stand for the rest of them.
const DIGEST: usize = 16;
/// Hexadecimal digits of a digest that tell values apart whose labels would be the same.
const DIGITS: &[usize] = &[8, 16, 64];

/// The label of a value that is not taken: as it is written; a mapping by its `name`; else, a mapping or a list, by its `position`.
/// What cannot be a part of a file's name gives way to `-`, and digits of a digest follow.
pub(super) fn of(written: Option<&str>, value: &Value, position: usize, is_taken: impl Fn(&str) -> bool) -> String {
    let text = written.map_or_else(|| natural(value, position), str::to_owned);
    let plain: String = text.chars().map(|c| if is_plain(c) { c } else { '-' }).take(LONGEST).collect();
    if plain == text && !plain.is_empty() && !is_taken(&plain) {
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
        if !is_taken(&last) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn labels_are_readable_where_they_can_be() {
        let label = |written: Option<&str>, value: Value| of(written, &value, 7, |label| label == "3");
        assert_eq!(label(Some("3e-5"), json!(3e-5)), "3e-5");
        assert_eq!(label(None, json!(3e-5)), "0.00003");
        assert_eq!(label(None, json!(null)), "null");
        assert_eq!(label(None, json!([1])), "7");
        assert_eq!(label(None, json!({ "name": "x", "y": 1 })), "x");
        assert_eq!(label(None, json!({ "name": [1] })), "7");
        insta::assert_snapshot!(label(Some("3"), json!(3)), @"3-032afbff");
        insta::assert_snapshot!(label(Some("org/name"), json!("org/name")), @"org-name-0198bcd4");
        insta::assert_snapshot!(label(Some("/"), json!("/")), @"400c42b4");
    }

    proptest! {
        #[test]
        fn a_label_can_be_a_part_of_the_name_of_a_file(text in any::<String>()) {
            let first = of(Some(&text), &json!(text), 1, |_| false);
            let second = of(Some(&text), &json!(text), 1, |label| label == first);
            prop_assert!(first != second);
            for label in [first, second] {
                prop_assert!(!label.is_empty() && label.chars().all(is_plain) && label.chars().count() <= LONGEST + 17, "{}", label);
            }
        }

        #[test]
        fn long_lists_are_cut_and_stay_different(a in "[a-zé=,]{100,300}", b in "[a-zé=,]{100,300}") {
            prop_assert!(bounded(a.clone()).len() <= LONGEST_LIST);
            prop_assert_eq!(bounded(a.clone()) == bounded(b.clone()), a == b);
        }
    }
}

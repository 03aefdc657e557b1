//! Markdown: the text as it is, without its front matter.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use super::{Record, Source};

/// One document. Front matter, a YAML mapping between two lines `---` at the start, becomes its metadata; the title is
/// `title` there, else the first heading.
pub fn read(source: &Source) -> Result<Vec<Record>> {
    let text = source.text()?;
    let (mut metadata, body) = front_matter(&text).unwrap_or_default();
    let body = if metadata.is_empty() { text.as_str() } else { body };
    let title = match metadata.get("title") {
        Some(Value::String(_)) => metadata.remove("title").and_then(|title| title.as_str().map(str::to_owned)),
        _ => None,
    };
    let title = title.or_else(|| heading(body));
    Ok(vec![Record { title, text: body.to_owned(), metadata, ..Record::default() }])
}

/// The front matter and what follows it. What is no YAML mapping is text: a page may start with a rule.
fn front_matter(text: &str) -> Option<(BTreeMap<String, Value>, &str)> {
    let block = text.strip_prefix("---\n")?;
    let mut length = 0;
    for line in block.split_inclusive('\n') {
        if matches!(line.trim_end(), "---" | "...") {
            let metadata = serde_yaml::from_str(&block[..length]).ok()?;
            return Some((metadata, block[length + line.len()..].trim_start_matches('\n')));
        }
        length += line.len();
    }
    None
}

/// The text of the first heading (`# …`, or underlined), outside code.
fn heading(text: &str) -> Option<String> {
    let mut fence: Option<&str> = None;
    let mut before = "";
    for line in text.lines() {
        let trimmed = line.trim();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        if fence.is_some() {
            if mark == fence {
                fence = None;
            }
            continue;
        }
        if mark.is_some() {
            fence = mark;
            before = "";
            continue;
        }
        let underlined = ['=', '-'].iter().any(|&c| trimmed.len() > 1 && trimmed.chars().all(|x| x == c));
        if underlined && !before.is_empty() {
            return Some(before.to_owned());
        }
        let indented = line.starts_with("    ") || line.starts_with('\t');
        let title = trimmed.trim_start_matches('#');
        let level = trimmed.len() - title.len();
        if !indented && (1..=6).contains(&level) && title.starts_with([' ', '\t']) {
            return Some(title.trim().trim_end_matches('#').trim_end().to_owned()).filter(|title| !title.is_empty());
        }
        before = if indented { "" } else { trimmed };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::read::Fields;

    fn one(text: &str) -> Record {
        let records = read(&Source { bytes: text.as_bytes(), fields: &Fields::default() }).unwrap();
        records.into_iter().next().unwrap()
    }

    #[test]
    fn front_matter_becomes_metadata() {
        let record = one("---\r\ntitle: A Guide\r\ntags: [a, b]\r\ndate: 2026-01-02\r\n---\r\n\r\n# Head\r\n\r\nBody\r\n");
        assert_eq!((record.title.as_deref(), record.text.as_str()), (Some("A Guide"), "# Head\n\nBody\n"));
        assert_eq!(serde_json::to_string(&record.metadata).unwrap(), r#"{"date":"2026-01-02","tags":["a","b"]}"#);
        for text in ["---\nNote: one: two\n---\nBody", "---\nprose\n---\n", "---\nnever: closed\n", "---\n---\n"] {
            assert_eq!(one(text).text, text);
        }
    }

    #[test]
    fn the_title_is_the_first_heading() {
        let title = |text| one(text).title.unwrap_or_default();
        assert_eq!(title("intro\n\n```sh\n# not this\n```\n## The *title* ##\n# later"), "The *title*");
        assert_eq!(title("Underlined\n==========\n"), "Underlined");
        assert_eq!(title("\n---\n#hashtag\n    # code\n"), "");
        assert_eq!(title("---\nlang: de\n---\n# Kopf"), "Kopf");
    }
}

//! Reading source files as documents: one file here for each format, and the table of formats.

mod csv;
mod folder;
mod html;
mod json;
mod markdown;
mod pdf;
mod record;

pub use folder::{Found, Listing, Problem, Selection};
pub use record::Fields;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::artifact::Document;

/// A file format: its suffixes in lower case, and its reader.
struct Format {
    suffixes: &'static [&'static str],
    read: fn(&Source) -> Result<Vec<Record>>,
}

const FORMATS: &[Format] = &[
    Format { suffixes: &["md", "markdown"], read: markdown::read },
    Format { suffixes: &["txt"], read: plain },
    Format { suffixes: &["html", "htm"], read: html::read },
    Format { suffixes: &["pdf"], read: pdf::read },
    Format { suffixes: &["json"], read: json::read },
    Format { suffixes: &["jsonl"], read: json::read_lines },
    Format { suffixes: &["csv"], read: csv::read },
];

/// What a reader gets.
pub struct Source<'a> {
    pub bytes: &'a [u8],
    pub fields: &'a Fields,
}

impl Source<'_> {
    /// The file as text, without a byte order mark and with `\n` at the ends of lines.
    ///
    /// # Errors
    /// The file is not UTF-8; the message names the line.
    fn text(&self) -> Result<String> {
        match std::str::from_utf8(self.bytes) {
            Ok(text) => Ok(unix_lines(text.trim_start_matches('\u{feff}'))),
            Err(error) => {
                let before = self.bytes.get(..error.valid_up_to()).unwrap_or_default();
                let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
                bail!("line {line} is not UTF-8; save the file as UTF-8")
            }
        }
    }
}

/// One text of a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// The place of the record in the file, from 1; nothing where a file is one document.
    number: Option<usize>,
    title: Option<String>,
    text: String,
    metadata: BTreeMap<String, Value>,
}

/// Suffixes that can be read, for messages.
pub fn suffixes() -> String {
    let all: Vec<String> = FORMATS.iter().flat_map(|f| f.suffixes).map(|suffix| format!("`.{suffix}`")).collect();
    all.join(", ")
}

fn format(name: &str) -> Option<&'static Format> {
    let (_, suffix) = name.rsplit('/').next()?.rsplit_once('.')?;
    let suffix = suffix.to_lowercase();
    FORMATS.iter().find(|format| format.suffixes.contains(&suffix.as_str()))
}

/// The documents in the file that is called `name` below the loaded folder, those without text included.
///
/// # Errors
/// The suffix has no reader, or the file is malformed. The message says where in the file, but does not name it.
pub fn documents(name: &str, bytes: &[u8], fields: &Fields) -> Result<Vec<Document>> {
    let Some(format) = format(name) else { bail!("files of this kind cannot be read; those that can are {}", suffixes()) };
    let records = (format.read)(&Source { bytes, fields })?;
    Ok(records.into_iter().map(|record| document(name, record)).collect())
}

fn document(name: &str, record: Record) -> Document {
    let title =
        record.title.map(|title| title.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|title| !title.is_empty());
    Document {
        id: record.number.map_or_else(|| name.to_owned(), |number| format!("{name}#{number}")),
        path: name.to_owned(),
        title: title.unwrap_or_else(|| stem(name).to_owned()),
        text: unix_lines(&record.text),
        metadata: record.metadata,
    }
}

fn stem(name: &str) -> &str {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

fn unix_lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

fn plain(source: &Source) -> Result<Vec<Record>> {
    Ok(vec![Record { text: source.text()?, ..Record::default() }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_cleaned_of_marks_of_its_system() {
        let documents = documents("a/Notes.v2.TXT", "\u{feff}one\r\ntwo".as_bytes(), &Fields::default()).unwrap();
        let [document] = documents.as_slice() else { panic!("one document") };
        assert_eq!((document.id.as_str(), document.title.as_str()), ("a/Notes.v2.TXT", "Notes.v2"));
        assert_eq!(document.text, "one\ntwo");
    }

    #[test]
    fn what_cannot_be_read_is_explained() {
        let error = |name, bytes: &[u8]| documents(name, bytes, &Fields::default()).unwrap_err().to_string();
        insta::assert_snapshot!(error("a.txt", b"one\ntw\xff"), @"line 2 is not UTF-8; save the file as UTF-8");
        insta::assert_snapshot!(error("a.docx", b""), @"files of this kind cannot be read; those that can are `.md`, `.markdown`, `.txt`, `.html`, `.htm`, `.pdf`, `.json`, `.jsonl`, `.csv`");
        insta::assert_snapshot!(error("README", b""), @"files of this kind cannot be read; those that can are `.md`, `.markdown`, `.txt`, `.html`, `.htm`, `.pdf`, `.json`, `.jsonl`, `.csv`");
    }
}

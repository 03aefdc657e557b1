//! Tables: rows of named fields from CSV, tab-separated and JSON Lines files.

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};

/// The suffixes of files that hold a table.
pub const SUFFIXES: &[&str] = &["jsonl", "csv", "tsv"];

/// The fields of one row.
pub type Fields = Map<String, Value>;

/// Whether the file `name` has a suffix of a table.
pub fn is_table(name: &str) -> bool {
    suffix(name).is_some()
}

fn suffix(name: &str) -> Option<&'static str> {
    let (_, suffix) = name.rsplit_once('.')?;
    SUFFIXES.iter().find(|known| suffix.eq_ignore_ascii_case(known)).copied()
}

/// The rows of the file `name`, each with its line. CSV and tab-separated files have a header line; all of their values are texts.
///
/// # Errors
/// The suffix is of no table, or the file is malformed; the message says the line, but does not name the file.
pub fn rows(name: &str, bytes: &[u8]) -> Result<Vec<(usize, Fields)>> {
    let Some(suffix) = suffix(name) else { bail!("a file of rows ends in `.{}`", SUFFIXES.join("`, `.")) };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes.iter().take(error.valid_up_to()).filter(|&&byte| byte == b'\n').count() + 1;
        anyhow!("line {line} is not UTF-8; save the file as UTF-8")
    })?;
    // The reader of separated values counts lines by `\n`.
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let text = text.as_str();
    match suffix {
        "jsonl" => objects(text),
        "tsv" => separated(text, b'\t'),
        _ => separated(text, b','),
    }
}

fn objects(text: &str) -> Result<Vec<(usize, Fields)>> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let object = |(number, line): (usize, &str)| {
        let fields: Fields = serde_json::from_str(line)
            // The parser's line number counts within the line.
            .map_err(|e| anyhow!("line {number}: {}", e.to_string().replace(" at line 1 column ", " at column ")))?;
        Ok((number, fields))
    };
    lines.map(object).collect()
}

fn separated(text: &str, separator: u8) -> Result<Vec<(usize, Fields)>> {
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).quoting(separator == b',').from_reader(text.as_bytes());
    let columns: Vec<String> = reader.headers().context("line 1")?.iter().map(|name| name.trim().to_owned()).collect();
    if let Some(twice) = columns.iter().enumerate().find_map(|(i, name)| columns.iter().take(i).find(|n| *n == name)) {
        bail!("line 1: the column `{twice}` stands twice; columns must differ");
    }
    let mut rows = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|error| match error.kind() {
            csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
                let line = pos.as_ref().map_or(0, csv::Position::line);
                anyhow!("line {line}: the row has {len} fields, the header {expected_len}")
            }
            _ => anyhow!("{error}"),
        })?;
        let line = row.position().map_or(0, csv::Position::line);
        let line = usize::try_from(line).unwrap_or(usize::MAX);
        rows.push((line, columns.iter().cloned().zip(row.iter().map(Value::from)).collect()));
    }
    ensure!(!columns.iter().all(String::is_empty), "there is no header line; name the columns in the first line");
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_gives_the_same_rows() {
        let show = |name: &str, text: &str| {
            let rows = rows(name, text.as_bytes()).unwrap();
            rows.iter().map(|(line, fields)| format!("{line} {}", Value::from(fields.clone()))).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(show("a.csv", "\u{feff}q,a\r\nx,\"y, z\nw\"\r\nu,\"a \"\"b\"\"\"\r\n"), @r#"
        2 {"a":"y, z\nw","q":"x"}
        4 {"a":"a \"b\"","q":"u"}
        "#);
        insta::assert_snapshot!(show("A.TSV", "q\ta\nx\t\"y\"\n"), @r#"2 {"a":"\"y\"","q":"x"}"#);
        insta::assert_snapshot!(show("a.jsonl", "{\"q\": \"x\", \"n\": [1]}\n\n{\"q\": 3}\n"), @r#"
        1 {"n":[1],"q":"x"}
        3 {"q":3}
        "#);
    }

    #[test]
    fn what_is_malformed_is_named_with_its_line() {
        let error = |name: &str, bytes: &[u8]| format!("{:#}", rows(name, bytes).unwrap_err());
        insta::assert_snapshot!(error("a.xlsx", b""), @"a file of rows ends in `.jsonl`, `.csv`, `.tsv`");
        insta::assert_snapshot!(error("a.csv", b"q,a\nx\n"), @"line 2: the row has 1 fields, the header 2");
        insta::assert_snapshot!(error("a.csv", b"q,q\nx,y\n"), @"line 1: the column `q` stands twice; columns must differ");
        insta::assert_snapshot!(error("a.csv", b"q\nx\xff\n"), @"line 2 is not UTF-8; save the file as UTF-8");
        insta::assert_snapshot!(error("a.csv", b""), @"there is no header line; name the columns in the first line");
        insta::assert_snapshot!(error("a.jsonl", b"{}\n[1]\n"), @"line 2: invalid type: sequence, expected a map at column 0");
    }
}

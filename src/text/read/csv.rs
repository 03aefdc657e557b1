//! CSV: a row a document, under a header.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};

use super::{Record, Source};

/// One document a row.
pub fn read(source: &Source) -> Result<Vec<Record>> {
    let text = source.text()?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let columns: Vec<String> = reader.headers().map_err(|e| explained(&e))?.iter().map(str::to_owned).collect();
    if let Some(twice) = columns.iter().enumerate().find_map(|(i, name)| columns.iter().take(i).find(|n| *n == name)) {
        bail!("line 1: the column `{twice}` stands twice; columns must differ");
    }
    let mut records = Vec::new();
    for (i, row) in reader.records().enumerate() {
        let row = row.map_err(|e| explained(&e))?;
        let line = row.position().map_or(0, csv::Position::line);
        let fields: Map<String, Value> = columns.iter().cloned().zip(row.iter().map(Value::from)).collect();
        let record = source.fields.record(fields, Some(i + 1), "columns");
        records.push(record.with_context(|| format!("line {line}"))?);
    }
    Ok(records)
}

fn explained(error: &csv::Error) -> anyhow::Error {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => anyhow!(
            "line {}: the row has {len} fields, the header {expected_len}; put fields that contain a comma in double quotes",
            pos.as_ref().map_or(0, csv::Position::line)
        ),
        _ => anyhow!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::text::read::{Fields, documents};

    #[test]
    fn rows_become_documents() {
        let text = "\u{feff}id,Headline,content\r\n7,One,\"a, b\nc\"\r\n8,,d\r\n";
        let documents = documents("x/a.csv", text.as_bytes(), &Fields::new(None, Some("Headline"))).unwrap();
        let rows: Vec<_> = documents.iter().map(|d| (d.id.as_str(), d.title.as_str(), d.text.as_str())).collect();
        assert_eq!(rows, [("x/a.csv#1", "One", "a, b\nc"), ("x/a.csv#2", "a", "d")]);
        assert_eq!(documents[1].metadata["id"], "8");
    }

    #[test]
    fn broken_files_are_errors_that_say_where() {
        let error = |text: &str| format!("{:#}", documents("a.csv", text.as_bytes(), &Fields::default()).unwrap_err());
        insta::assert_snapshot!(error("id,question\n1,x\n"), @"line 2: there is no field `text`, `content`, `body`; the columns are `id`, `question`; name the one that holds the text with `text_field`");
        insta::assert_snapshot!(error("id,text\n1,x\n2,y,z\n"), @"line 3: the row has 3 fields, the header 2; put fields that contain a comma in double quotes");
        insta::assert_snapshot!(error("text,text\n1,x\n"), @"line 1: the column `text` stands twice; columns must differ");
    }
}

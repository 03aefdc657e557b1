//! JSON: an object, an array of objects, or an object a line.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};

use super::{Record, Source};

/// One document for an object, one a record for an array.
pub fn read(source: &Source) -> Result<Vec<Record>> {
    let text = source.text()?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    match serde_json::from_str(&text)? {
        Value::Object(fields) => Ok(vec![source.fields.record(fields, None, "fields")?]),
        Value::Array(records) => {
            let record = |number, value| match value {
                Value::Object(fields) => source.fields.record(fields, Some(number), "fields"),
                _ => bail!("expected an object with a text, found {}", kind(&value)),
            };
            (1..).zip(records).map(|(i, value)| record(i, value).with_context(|| format!("record {i}"))).collect()
        }
        other => bail!("expected an object or an array of objects, found {}", kind(&other)),
    }
}

/// One document a line.
pub fn read_lines(source: &Source) -> Result<Vec<Record>> {
    let text = source.text()?;
    let mut records = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = Some(records.len() + 1);
        let fields = serde_json::from_str::<Map<String, Value>>(line)
            // The parser's line number counts within the line.
            .map_err(|e| anyhow!("{}", e.to_string().replace(" at line 1 column ", " at column ")));
        let record = fields.and_then(|fields| source.fields.record(fields, number, "fields"));
        records.push(record.with_context(|| format!("line {}", i + 1))?);
    }
    Ok(records)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use crate::text::read::{Fields, documents};

    fn error(name: &str, text: &str) -> String {
        format!("{:#}", documents(name, text.as_bytes(), &Fields::default()).unwrap_err())
    }

    #[test]
    fn objects_arrays_and_lines() {
        let ids = |name: &str, text: &str| -> Vec<String> {
            let documents = documents(name, text.as_bytes(), &Fields::default()).unwrap();
            documents.into_iter().map(|d| format!("{} {} {} {}", d.id, d.title, d.text, serde_json::json!(d.metadata))).collect()
        };
        assert_eq!(ids("a.json", r#"{"body": "x", "name": "T", "n": 1, "no": null}"#), [r#"a.json T x {"n":1}"#]);
        assert_eq!(
            ids("a.json", r#"[{"text": "x"}, {"text": "y", "title": 3}]"#),
            [r#"a.json#1 a x {}"#, r#"a.json#2 a y {"title":3}"#]
        );
        assert_eq!(ids("a.jsonl", "{\"text\": \"x\\r\\ny\"}\n\n{\"text\": null}\n"), ["a.jsonl#1 a x\ny {}", "a.jsonl#2 a  {}"]);
    }

    #[test]
    fn broken_files_are_errors_that_say_where() {
        insta::assert_snapshot!(error("a.json", "{\n \"text\": \"x\",\n}"), @"trailing comma at line 3 column 1");
        insta::assert_snapshot!(error("a.json", "[{\"text\": \"x\"}, \"y\"]"), @"record 2: expected an object with a text, found a string");
        insta::assert_snapshot!(error("a.json", "3"), @"expected an object or an array of objects, found a number");
        insta::assert_snapshot!(error("a.jsonl", "{\"text\": \"x\"}\n{\"text\": }"), @"line 2: expected value at column 10");
        insta::assert_snapshot!(error("a.jsonl", "{\"txt\": \"x\", \"id\": 1}"), @"line 1: there is no field `text`, `content`, `body`; the fields are `id`, `txt`; name the one that holds the text with `text_field`");
        insta::assert_snapshot!(error("a.jsonl", "{\"text\": [1]}"), @"line 1: field `text`: the text must be a string; name another field with `text_field`");
    }
}

//! Which fields of a row are what of an example.

use anyhow::{Context, Result, anyhow, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifact::Example;
use crate::text::table::Fields;

/// Which fields of a row are what of an example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The field with the anchor: a query, or the first text of a pair.
    pub anchor: String,
    /// The field with the positive: a text that belongs to the anchor, or the second text of a pair with a label.
    pub positive: String,
    /// The fields with negatives, each a text or a list of texts. Left out, those of `negative` and `negatives` that the row has.
    pub negatives: Option<Vec<String>>,
    /// The field with the label, a number. Left out, it is `label` or `score`, if the row has one.
    pub label: Option<String>,
    /// The fields with scores, each a number or a list of numbers, for the positive first and then the negatives. Left out, it is `scores`, if
    /// the row has it.
    pub scores: Option<Vec<String>>,
}

impl Default for Columns {
    fn default() -> Self {
        Columns { anchor: "anchor".into(), positive: "positive".into(), negatives: None, label: None, scores: None }
    }
}

impl Columns {
    /// The example that `row` holds.
    ///
    /// # Errors
    /// A field is missing, or holds something else; the message names it.
    pub fn example(&self, row: &Fields) -> Result<Example> {
        let one = |name: &str| -> Result<String> {
            let [text] = <[String; 1]>::try_from(texts(row, name)?)
                .map_err(|_| anyhow!("field `{name}` is a list, and must be one text"))?;
            Ok(text)
        };
        let mut negatives = Vec::new();
        for name in chosen(row, self.negatives.as_deref(), &["negative", "negatives"]) {
            negatives.extend(texts(row, name)?);
        }
        let label = self.label.as_ref().map(std::slice::from_ref);
        let (label, scores) = (chosen(row, label, &["label", "score"]), chosen(row, self.scores.as_deref(), &["scores"]));
        let mut labels = Vec::new();
        for name in label.iter().chain(&scores) {
            labels.extend(numbers(row, name)?);
        }
        if let ([label, ..], [scores, ..]) = (label.as_slice(), scores.as_slice()) {
            bail!("the row has a label (`{label}`) and scores (`{scores}`); say with `columns` which of them to take");
        }
        if label.len() > 1 {
            bail!("the row has two labels, `label` and `score`; say with `columns: {{ label: … }}` which of them to take");
        }
        Ok(Example { anchor: one(&self.anchor)?, positive: one(&self.positive)?, negatives, labels, ..Example::default() })
    }
}

/// The fields that are `named`, or the `usual` ones that the row has.
fn chosen<'n>(row: &Fields, named: Option<&'n [String]>, usual: &[&'n str]) -> Vec<&'n str> {
    match named {
        Some(names) => names.iter().map(String::as_str).collect(),
        None => {
            usual.iter().copied().filter(|name| row.get(*name).is_some_and(|value| !value.is_null() && value != "")).collect()
        }
    }
}

fn field<'r>(row: &'r Fields, name: &str) -> Result<&'r Value> {
    row.get(name).with_context(|| {
        let found: Vec<String> = row.keys().map(|name| format!("`{name}`")).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        format!("there is no field `{name}`; the fields are {found}; say with `columns` which of them it is")
    })
}

/// The text, or the list of texts, in a field.
fn texts(row: &Fields, name: &str) -> Result<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        Value::String(_) | Value::Null => Err(anyhow!("field `{name}` holds an empty text; fill it in, or remove the row")),
        _ => Err(anyhow!("field `{name}` must hold a text or a list of texts")),
    };
    match field(row, name)? {
        Value::Array(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// The number, or the list of numbers, in a field; true is 1 and false 0.
fn numbers(row: &Fields, name: &str) -> Result<Vec<f64>> {
    let one = |value: &Value| {
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::Bool(is) => Some(f64::from(*is)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number: &f64| number.is_finite());
        number.with_context(|| format!("field `{name}` must hold a number, not {value}"))
    };
    match field(row, name)? {
        Value::Array(values) => {
            ensure!(!values.is_empty(), "field `{name}` is an empty list");
            values.iter().map(one).collect()
        }
        value => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(columns: Value, row: Value) -> Result<Example> {
        let columns: Columns = serde_json::from_value(columns).unwrap();
        columns.example(row.as_object().unwrap())
    }

    #[test]
    fn fields_are_found_by_their_usual_or_given_names() {
        let show = |columns, row| serde_json::to_string(&read(columns, row).unwrap()).unwrap();
        insta::assert_snapshot!(show(json!({}), json!({ "anchor": "a", "positive": "p", "label": "0.5", "negative": "", "id": 7 })), @r#"{"anchor":"a","positive":"p","label":0.5}"#);
        insta::assert_snapshot!(show(json!({}), json!({ "anchor": "a", "positive": "p", "negatives": ["n", "m"], "scores": [3, 2, 1] })), @r#"{"anchor":"a","positive":"p","negatives":["n","m"],"scores":[3.0,2.0,1.0]}"#);
        let columns =
            json!({ "anchor": "question", "positive": "answer", "negatives": ["wrong", "worse"], "scores": ["s1", "s2", "s3"] });
        insta::assert_snapshot!(show(columns, json!({ "question": "q", "answer": "a", "worse": "x", "wrong": "w", "s1": "1", "s2": "0.5", "s3": "-1" })), @r#"{"anchor":"q","positive":"a","negatives":["w","x"],"scores":[1.0,0.5,-1.0]}"#);
        insta::assert_snapshot!(show(json!({ "label": "same" }), json!({ "anchor": "a", "positive": "p", "same": true })), @r#"{"anchor":"a","positive":"p","label":1.0}"#);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error = |columns, row| format!("{:#}", read(columns, row).unwrap_err());
        insta::assert_snapshot!(error(json!({}), json!({ "question": "q", "answer": "a" })), @"there is no field `anchor`; the fields are `answer`, `question`; say with `columns` which of them it is");
        insta::assert_snapshot!(error(json!({}), json!({ "anchor": " ", "positive": "a" })), @"field `anchor` holds an empty text; fill it in, or remove the row");
        insta::assert_snapshot!(error(json!({}), json!({ "anchor": 3, "positive": "a" })), @"field `anchor` must hold a text or a list of texts");
        insta::assert_snapshot!(error(json!({}), json!({ "anchor": ["a", "b"], "positive": "a" })), @"field `anchor` is a list, and must be one text");
        insta::assert_snapshot!(error(json!({}), json!({ "anchor": "a", "positive": "p", "label": "high" })), @r#"field `label` must hold a number, not "high""#);
        insta::assert_snapshot!(error(json!({}), json!({ "anchor": "a", "positive": "p", "label": "NaN" })), @r#"field `label` must hold a number, not "NaN""#);
        insta::assert_snapshot!(error(json!({}), json!({ "anchor": "a", "positive": "p", "label": 1, "scores": [1] })), @"the row has a label (`label`) and scores (`scores`); say with `columns` which of them to take");
        insta::assert_snapshot!(error(json!({}), json!({ "anchor": "a", "positive": "p", "label": 1, "score": 1 })), @"the row has two labels, `label` and `score`; say with `columns: { label: … }` which of them to take");
    }
}

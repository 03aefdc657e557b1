//! Examples: what the stages `mine` and `examples` yield and `train` learns from.

use serde::{Deserialize, Serialize};

/// One row to learn from: an anchor, a text to compare it with, any number of texts that do not belong to it, and the labels that some
/// losses want. As JSON it is one of
///
/// - `{"anchor": …, "positive": …}`: a pair,
/// - `{"anchor": …, "positive": …, "negative": …}`: a triplet,
/// - `{"anchor": …, "positive": …, "negatives": […, …]}`: a tuple,
///
/// each with `"label"` (or `"score"`), a number, or `"scores"`, a list of numbers, where the loss wants them. Further fields are not read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Row", into = "Row")]
pub struct Example {
    pub anchor: String,
    /// What belongs to the anchor; of a row with a label, what it is compared with.
    pub positive: String,
    pub negatives: Vec<String>,
    /// What the row is worth: nothing, one number (0 or 1, a similarity, a margin), or one for each text but the anchor.
    pub labels: Vec<f64>,
    pub origin: Origin,
}

/// Where the texts came from; kept for people, not read by training.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    pub query: String,
    pub positive: String,
    pub negatives: Vec<String>,
}

impl Example {
    /// The texts in the order of their columns: anchor, positive, negatives.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.anchor, &self.positive].into_iter().chain(&self.negatives).map(String::as_str)
    }

    /// The texts with the names of their columns.
    pub fn columns(&self) -> Vec<(String, String)> {
        let names = ["anchor".to_owned(), "positive".to_owned()].into_iter();
        let negatives = (1..=self.negatives.len())
            .map(|i| if self.negatives.len() == 1 { "negative".into() } else { format!("negative {i}") });
        names.chain(negatives).zip(self.texts().map(str::to_owned)).collect()
    }
}

/// The row as it is written.
#[derive(Serialize, Deserialize)]
struct Row {
    anchor: String,
    positive: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    negative: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    negatives: Vec<String>,
    #[serde(default, alias = "score", skip_serializing_if = "Option::is_none")]
    label: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scores: Vec<f64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    query_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    positive_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    negative_id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    negative_ids: Vec<String>,
}

impl TryFrom<Row> for Example {
    type Error = &'static str;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        if row.negative.is_some() && !row.negatives.is_empty() {
            return Err("`negative` and `negatives` exclude each other; put every negative into `negatives`");
        }
        if row.label.is_some() && !row.scores.is_empty() {
            return Err("`label` and `scores` exclude each other; keep the one that the loss wants");
        }
        let ids = if row.negative_id.is_empty() { row.negative_ids } else { vec![row.negative_id] };
        Ok(Example {
            anchor: row.anchor,
            positive: row.positive,
            negatives: row.negative.map_or(row.negatives, |negative| vec![negative]),
            labels: row.label.map_or(row.scores, |label| vec![label]),
            origin: Origin { query: row.query_id, positive: row.positive_id, negatives: ids },
        })
    }
}

impl From<Example> for Row {
    fn from(example: Example) -> Self {
        let (negative, negatives) = one_or_more(example.negatives);
        let (label, scores) = one_or_more(example.labels);
        let (negative_id, negative_ids) = one_or_more(example.origin.negatives);
        Row {
            anchor: example.anchor,
            positive: example.positive,
            negative,
            negatives,
            label,
            scores,
            query_id: example.origin.query,
            positive_id: example.origin.positive,
            negative_id: negative_id.unwrap_or_default(),
            negative_ids,
        }
    }
}

/// A list of one as its element.
fn one_or_more<T>(mut list: Vec<T>) -> (Option<T>, Vec<T>) {
    if list.len() == 1 { (list.pop(), list) } else { (None, list) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::jsonl;

    #[test]
    fn rows_of_every_form_are_read_and_written_alike() {
        for row in [
            r#"{"anchor":"a","positive":"p"}"#,
            r#"{"anchor":"a","positive":"p","negative":"n","query_id":"q","positive_id":"x","negative_id":"y"}"#,
            r#"{"anchor":"a","positive":"p","negatives":["n","m"],"negative_ids":["y","z"]}"#,
            r#"{"anchor":"a","positive":"p","label":0.5}"#,
            r#"{"anchor":"a","positive":"p","negative":"n","scores":[9.5,1.0]}"#,
        ] {
            let example: Example = jsonl::parse(row).unwrap();
            assert_eq!(serde_json::to_string(&example).unwrap(), row);
        }
        let read = |row: &str| jsonl::parse::<Example>(row).unwrap();
        let example = read(r#"{"anchor":"a","positive":"p","negatives":["n"],"score":1,"note":"x"}"#);
        assert_eq!(example.texts().collect::<Vec<_>>(), ["a", "p", "n"]);
        assert_eq!(example.labels, [1.0]);
    }

    #[test]
    fn rows_that_say_a_thing_twice_are_refused() {
        let error = |row: &str| format!("{:#}", jsonl::parse::<Example>(row).unwrap_err());
        insta::assert_snapshot!(error(r#"{"anchor":"a","positive":"p","negative":"n","negatives":["m"]}"#), @"`negative` and `negatives` exclude each other; put every negative into `negatives`");
        insta::assert_snapshot!(error(r#"{"anchor":"a","positive":"p","label":1,"scores":[1]}"#), @"`label` and `scores` exclude each other; keep the one that the loss wants");
        insta::assert_snapshot!(error(r#"{"anchor":"a","positive":3}"#), @"field `positive`: invalid type: integer `3`, expected a string at line 1 column 26");
        insta::assert_snapshot!(error(r#"{"anchor":"a"}"#), @"missing field `positive` at line 1 column 14");
    }
}

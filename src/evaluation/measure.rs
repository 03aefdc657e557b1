//! What is measured, by its usual name: `ndcg@10`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A quantity and its cut-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Measure {
    pub quantity: Quantity,
    /// How many of the best hits count.
    pub k: usize,
}

/// What is computed from the hits of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quantity {
    /// 1 when a relevant passage is among the hits (trec_eval's `success`).
    Accuracy,
    /// Relevant hits / k.
    Precision,
    /// Relevant hits / relevant passages.
    Recall,
    /// 1 / rank of the first relevant hit, 0 when there is none.
    Mrr,
    /// Discounted cumulative gain / the best that is possible.
    Ndcg,
    /// Mean of the precisions at the relevant hits.
    Map,
}

/// Whose definitions hold where they differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// trec_eval 9: equal scores (as 32-bit floats) by passage id, descending; graded gains; average precision divided by the
    /// number of relevant passages; a query without relevant passages counts as 0.
    #[default]
    Trec,
    /// `InformationRetrievalEvaluator` of sentence-transformers 6: equal scores by passage id, ascending; binary gains; average
    /// precision divided by at most k; a query without relevant passages is left out.
    SentenceTransformers,
}

impl Convention {
    pub fn name(self) -> &'static str {
        match self {
            Convention::Trec => "trec",
            Convention::SentenceTransformers => "sentence-transformers",
        }
    }
}

const QUANTITIES: [(&str, Quantity); 6] = [
    ("accuracy", Quantity::Accuracy),
    ("precision", Quantity::Precision),
    ("recall", Quantity::Recall),
    ("mrr", Quantity::Mrr),
    ("ndcg", Quantity::Ndcg),
    ("map", Quantity::Map),
];

impl Measure {
    pub fn new(quantity: Quantity, k: usize) -> Self {
        Measure { quantity, k }
    }
}

impl Default for Measure {
    fn default() -> Self {
        Measure::new(Quantity::Ndcg, 10)
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = QUANTITIES.iter().find(|(_, q)| *q == self.quantity).map_or("", |(name, _)| name);
        write!(f, "{name}@{}", self.k)
    }
}

impl FromStr for Measure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || QUANTITIES.map(|(name, _)| format!("`{name}`")).join(", ");
        let (name, k) = text.split_once('@').ok_or_else(|| format!("`{text}` is no measure; write one as `ndcg@10`"))?;
        let quantity = QUANTITIES.iter().find(|(n, _)| *n == name).map(|(_, q)| *q);
        let near = || QUANTITIES.iter().map(|(n, _)| n).find(|n| strsim::osa_distance(n, &name.to_lowercase()) <= 1);
        let known = || near().map_or_else(|| format!("known are {}", names()), |near| format!("did you mean `{near}`?"));
        let quantity = quantity.ok_or_else(|| format!("`{name}` is no known measure; {}", known()))?;
        match k.parse() {
            Ok(k) if k > 0 => Ok(Measure { quantity, k }),
            _ => Err(format!("the cut-off `{k}` of `{text}` is no whole number above 0")),
        }
    }
}

impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Measure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Measure {
    fn schema_name() -> Cow<'static, str> {
        "Measure".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A measure and its cut-off, for example `ndcg@10`.",
            "pattern": "^(accuracy|precision|recall|mrr|ndcg|map)@[1-9][0-9]*$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in ["accuracy@1", "precision@3", "recall@5", "mrr@10", "ndcg@10", "map@100"] {
            assert_eq!(name.parse::<Measure>().unwrap().to_string(), name);
        }
        insta::assert_snapshot!("ndgc@10".parse::<Measure>().unwrap_err(), @"`ndgc` is no known measure; did you mean `ndcg`?");
        insta::assert_snapshot!("hits@10".parse::<Measure>().unwrap_err(), @"`hits` is no known measure; known are `accuracy`, `precision`, `recall`, `mrr`, `ndcg`, `map`");
        insta::assert_snapshot!("ndcg".parse::<Measure>().unwrap_err(), @"`ndcg` is no measure; write one as `ndcg@10`");
        insta::assert_snapshot!("ndcg@0".parse::<Measure>().unwrap_err(), @"the cut-off `0` of `ndcg@0` is no whole number above 0");
    }
}

//! Which chunks answer which queries, from rules that people write: keywords, documents, and phrases in documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::artifact::{Chunk, jsonl};
use crate::text::keyword::{Haystack, Keyword, Match};
use crate::text::phrase::{Whole, holding};

/// A query and what answers it: a line of the file of queries.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRule {
    #[serde(rename = "_id")]
    pub id: String,
    pub text: String,
    /// A chunk that contains any of these answers the query.
    #[serde(default)]
    pub keywords: Vec<String>,
    /// Documents, or places in documents, that answer the query.
    #[serde(default)]
    pub documents: Vec<Answer>,
    /// `FILE:LINE`, for messages.
    #[serde(skip)]
    pub place: String,
}

/// A document, or a place in one, that answers a query. In JSON an object, or the document's id alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The document's id, or the path of a file, which stands for all of its records.
    pub document: String,
    /// A phrase of the document, when not all of the document answers the query.
    pub contains: Option<String>,
    /// How relevant it is; 0 and less say that it is not.
    pub grade: i32,
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            document: String,
            contains: Option<String>,
            #[serde(default = "one")]
            grade: i32,
        }
        fn one() -> i32 {
            1
        }
        struct AnswerVisitor;
        impl<'de> Visitor<'de> for AnswerVisitor {
            type Value = Answer;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a document's id or an object with `document`, `contains` and `grade`")
            }
            fn visit_str<E>(self, id: &str) -> Result<Answer, E> {
                Ok(Answer { document: id.to_owned(), contains: None, grade: 1 })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Answer, A::Error> {
                let Object { document, contains, grade } = Object::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Answer { document, contains, grade })
            }
        }
        deserializer.deserialize_any(AnswerVisitor)
    }
}

/// Reads a file of queries; messages call it `name`.
///
/// # Errors
/// The file cannot be read, holds no query, or a line is malformed; the message is `FILE:LINE: cause`.
pub fn read(path: &Path, name: &str) -> Result<Vec<QueryRule>> {
    let mut seen = BTreeSet::new();
    let mut rules = Vec::new();
    for (line, mut rule) in jsonl::numbered::<QueryRule>(path, name)? {
        rule.place = format!("{name}:{line}");
        checked(&rule, &mut seen).with_context(|| rule.place.clone())?;
        rules.push(rule);
    }
    ensure!(!rules.is_empty(), "`{name}` holds no query; write one a line: {{\"_id\": …, \"text\": …, \"keywords\": […]}}");
    Ok(rules)
}

fn checked(rule: &QueryRule, seen: &mut BTreeSet<String>) -> Result<()> {
    ensure!(!rule.id.trim().is_empty(), "field `_id` is empty; give the query a name");
    ensure!(!rule.id.contains(char::is_control), "the id {:?} has a tab or a line break in it; remove it", rule.id);
    ensure!(seen.insert(rule.id.clone()), "the id `{}` stands twice; give each query its own", rule.id);
    ensure!(!rule.text.trim().is_empty(), "field `text` of query `{}` is empty; write the query there", rule.id);
    ensure!(
        !rule.keywords.is_empty() || !rule.documents.is_empty(),
        "nothing says what answers query `{}`; give it `keywords` or `documents`",
        rule.id
    );
    ensure!(rule.keywords.iter().all(|k| !k.trim().is_empty()), "a keyword of query `{}` is empty; remove it", rule.id);
    let phrases = || rule.documents.iter().filter_map(|answer| answer.contains.as_deref());
    ensure!(phrases().all(|p| !p.trim().is_empty()), "`contains` of query `{}` is empty; remove it", rule.id);
    Ok(())
}

/// Chunks, prepared for being judged.
pub struct Judge<'a> {
    chunks: &'a [Chunk],
    texts: Vec<Haystack>,
    how: Match,
    /// Document id → its chunks; and path of a file of records → the documents in it.
    documents: BTreeMap<&'a str, Vec<&'a Chunk>>,
    files: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Judge<'a> {
    pub fn new(chunks: &'a [Chunk], how: Match) -> Self {
        let mut documents: BTreeMap<&str, Vec<&Chunk>> = BTreeMap::new();
        let mut files: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for chunk in chunks {
            documents.entry(&chunk.document).or_default().push(chunk);
            match chunk.document.rsplit_once('#') {
                Some((file, number)) if number.parse::<usize>().is_ok() => {
                    files.entry(file).or_default().insert(&chunk.document);
                }
                _ => {}
            }
        }
        let texts = chunks.iter().map(|chunk| Haystack::new(&chunk.text)).collect();
        Judge { chunks, texts, how, documents, files }
    }

    /// Chunk id → grade, for the chunks that `rule` judges. What it says of documents overrides what it says by keywords; of
    /// several grades for a chunk the highest counts.
    ///
    /// # Errors
    /// There is no such document, or no such phrase in it; the message is `FILE:LINE: cause`.
    pub fn grades(&self, rule: &QueryRule) -> Result<BTreeMap<String, i32>> {
        let keywords: Vec<Keyword> = rule.keywords.iter().map(|keyword| Keyword::new(keyword, self.how)).collect();
        let matching = self.chunks.iter().zip(&self.texts).filter(|(_, text)| keywords.iter().any(|k| k.is_in(text)));
        let mut grades: BTreeMap<String, i32> = matching.map(|(chunk, _)| (chunk.id.clone(), 1)).collect();
        let mut by_document: BTreeMap<String, i32> = BTreeMap::new();
        for answer in &rule.documents {
            for chunk in self.answering(answer).with_context(|| rule.place.clone())? {
                let grade = by_document.entry(chunk.id.clone()).or_insert(answer.grade);
                *grade = answer.grade.max(*grade);
            }
        }
        grades.extend(by_document);
        Ok(grades)
    }

    fn answering(&self, answer: &Answer) -> Result<Vec<&'a Chunk>> {
        let ids: Vec<&str> =
            match (self.documents.get_key_value(answer.document.as_str()), self.files.get(answer.document.as_str())) {
                (Some((id, _)), _) => vec![*id],
                (None, Some(records)) => records.iter().copied().collect(),
                (None, None) => bail!("there is no document `{}`{}", answer.document, self.nearest(&answer.document)),
            };
        let documents = ids.iter().filter_map(|id| self.documents.get(id));
        let Some(phrase) = &answer.contains else { return Ok(documents.flatten().copied().collect()) };
        let mut found = Vec::new();
        for chunks in documents {
            let places = Whole::new(chunks.iter().copied()).find(phrase);
            found.extend(holding(chunks, &places));
        }
        ensure!(
            !found.is_empty(),
            "document `{}` does not contain `{phrase}`; copy the phrase from the document, case and punctuation included",
            answer.document
        );
        Ok(found)
    }

    /// What might have been meant.
    fn nearest(&self, wanted: &str) -> String {
        let known = self.documents.keys().chain(self.files.keys());
        let scored = known.map(|id| (strsim::jaro_winkler(wanted, id), *id));
        match scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1))) {
            Some((score, id)) if score > 0.7 => format!("; did you mean `{id}`?"),
            Some((_, id)) => format!("; ids are paths below the loaded folder, such as `{id}`"),
            None => "; there are no documents at all".to_owned(),
        }
    }
}

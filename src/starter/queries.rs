//! Queries in three files: to train with, to choose the best checkpoint by, and to measure with.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::json;

use super::corpus::Corpus;
use super::sections::{Section, first_sentences, headings};
use crate::artifact::Document;
use crate::retrieval::judge::{Answer, Judge, QueryRule, read};
use crate::text::keyword::Match;

/// More queries are not made: training takes longer, and is no better for it.
const MOST: usize = 500;
/// With fewer, headings are not enough.
const FEW: usize = 12;
/// Chunks that may hold a passage; a phrase of more is no place.
const MOST_CHUNKS: usize = 2;
/// The splits in turn: six of ten train, two each choose and measure. The first three have one each.
const TURN: [Split; 10] = [
    Split::Train,
    Split::Dev,
    Split::Test,
    Split::Train,
    Split::Train,
    Split::Train,
    Split::Dev,
    Split::Train,
    Split::Test,
    Split::Train,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Split {
    Train,
    Dev,
    Test,
}

/// Lines of JSON, by split.
pub struct Queries(BTreeMap<Split, Vec<String>>);

impl Queries {
    /// Of a file of judged queries, dealt out in turn.
    ///
    /// # Errors
    /// A query is malformed or nothing answers it, or there are fewer than three.
    pub fn given(file: &Path, corpus: &Corpus) -> Result<Self> {
        let shown = file.display().to_string();
        let rules = read(file, &shown)?;
        if rules.len() < 3 {
            bail!(
                "`{shown}` holds {} queries; at least three are needed: one to train with, one to choose by, one to measure with",
                rules.len()
            );
        }
        let judge = Judge::new(&corpus.chunks, Match::default());
        let mut queries: BTreeMap<Split, Vec<String>> = BTreeMap::new();
        for (rule, split) in rules.iter().zip(TURN.iter().cycle()) {
            if !judge.grades(rule)?.values().any(|&grade| grade > 0) {
                bail!("{}: no chunk answers query `{}`; correct what it says of its answers, or remove it", rule.place, rule.id);
            }
            queries.entry(*split).or_default().push(line(rule));
        }
        Ok(Queries(queries))
    }

    /// Made from the documents: headings ask for what stands below them; where there are few, the first sentence of a paragraph asks for
    /// the second. No query stands in two files, and no chunk answers queries of two.
    ///
    /// # Errors
    /// There is too little text.
    pub fn made(corpus: &Corpus) -> Result<Self> {
        let judge = Judge::new(&corpus.chunks, Match::default());
        let mut found: Vec<(&Document, Section)> = Vec::new();
        for document in &corpus.documents {
            let mut sections = headings(document);
            if sections.is_empty() {
                sections = first_sentences(document);
            }
            found.extend(sections.into_iter().map(|section| (document, section)));
        }
        if found.len() < FEW {
            let more = corpus.documents.iter().flat_map(|d| first_sentences(d).into_iter().map(move |section| (d, section)));
            found.extend(more);
        }
        let queries = Queries(dealt(found, &judge));
        if queries.counts().contains(&0) {
            let places: usize = queries.counts().iter().sum();
            bail!(
                "there is too little text to make queries from: {places} passages that a heading or a sentence asks for, and at least three are \
                 needed; add documents, or give judged queries with `--queries FILE`"
            );
        }
        Ok(queries)
    }

    /// How many there are to train with, to choose by, and to measure with.
    pub fn counts(&self) -> [usize; 3] {
        [Split::Train, Split::Dev, Split::Test].map(|split| self.0.get(&split).map_or(0, Vec::len))
    }

    /// Name, purpose and lines of each file.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let splits = [
            (Split::Train, "train", "queries to train with"),
            (Split::Dev, "dev", "queries to choose the best checkpoint by"),
            (Split::Test, "test", "queries to measure with"),
        ];
        splits.into_iter().map(|(split, name, what)| {
            let lines = self.0.get(&split).map(Vec::as_slice).unwrap_or_default();
            (name, what, lines.iter().map(|line| format!("{line}\n")).collect())
        })
    }
}

/// Queries that ask for one place each, dealt out so that no chunk answers queries of two splits.
fn dealt(found: Vec<(&Document, Section)>, judge: &Judge) -> BTreeMap<Split, Vec<String>> {
    // A title that stands over several sections says too little alone.
    let mut times: HashMap<String, usize> = HashMap::new();
    for (_, section) in &found {
        *times.entry(section.title.to_lowercase()).or_default() += 1;
    }
    let (mut queries, mut owners, mut asked) = (BTreeMap::new(), HashMap::new(), BTreeSet::new());
    let (mut turn, mut number) = (TURN.iter().cycle(), 0);
    for (document, section) in spread(found, MOST) {
        let alone = times.get(&section.title.to_lowercase()) == Some(&1) && section.title.contains(' ');
        let is_title = section.title.eq_ignore_ascii_case(&document.title);
        let text = if alone || is_title { section.title } else { format!("{}: {}", document.title, section.title) };
        let answer = Answer { document: document.id.clone(), contains: Some(section.phrase), grade: 1 };
        let rule = QueryRule { id: String::new(), text, keywords: Vec::new(), documents: vec![answer], place: String::new() };
        let Ok(grades) = judge.grades(&rule) else { continue };
        if grades.is_empty() || grades.len() > MOST_CHUNKS || !asked.insert(rule.text.to_lowercase()) {
            continue;
        }
        let owned: BTreeSet<Split> = grades.keys().filter_map(|chunk| owners.get(chunk).copied()).collect();
        let split = match owned.into_iter().collect::<Vec<_>>().as_slice() {
            [] => turn.next().copied().unwrap_or(Split::Train),
            [one] => *one,
            _ => continue,
        };
        owners.extend(grades.into_keys().map(|chunk| (chunk, split)));
        number += 1;
        queries.entry(split).or_insert_with(Vec::new).push(line(&QueryRule { id: format!("start-{number:03}"), ..rule }));
    }
    queries
}

/// At most `most` of them, evenly from beginning to end.
fn spread<T>(all: Vec<T>, most: usize) -> impl Iterator<Item = T> {
    let count = all.len();
    let takes = move |i: usize| count <= most || i * most / count != (i + 1) * most / count;
    all.into_iter().enumerate().filter(move |(i, _)| takes(*i)).map(|(_, item)| item)
}

fn line(rule: &QueryRule) -> String {
    let mut query = json!({ "_id": rule.id, "text": rule.text });
    if let Some(query) = query.as_object_mut() {
        if !rule.keywords.is_empty() {
            query.insert("keywords".into(), json!(rule.keywords));
        }
        let answer = |answer: &Answer| match &answer.contains {
            None if answer.grade == 1 => json!(answer.document),
            None => json!({ "document": answer.document, "grade": answer.grade }),
            Some(phrase) if answer.grade == 1 => json!({ "document": answer.document, "contains": phrase }),
            Some(phrase) => json!({ "document": answer.document, "contains": phrase, "grade": answer.grade }),
        };
        if !rule.documents.is_empty() {
            query.insert("documents".into(), rule.documents.iter().map(answer).collect());
        }
    }
    query.to_string()
}

/// What stands beside the queries.
pub fn readme(made_up: bool) -> String {
    let start = "These queries are a start and nothing more: `retune init` made them from the documents, headings (or first sentences) as queries for what \
                 stands below them. They share words with their answers, as the questions of people do not, so figures measured with them are far too good. \
                 Replace them with real ones: from logs, from colleagues, or written by someone who has a question in mind and not the passage.\n\n";
    let given = "These are the queries that `retune init` was given, dealt out in turn.\n\n";
    let rest = "`train.jsonl` is what the model learns from, `dev.jsonl` what the best checkpoint is chosen by, `test.jsonl` what is measured. No query \
                should stand in two of them, and no passage should answer queries of two. About 100 in `test.jsonl` tell a difference of a few points from chance.\n\n\
                One JSON object a line:\n\n```json\n\
                {\"_id\": \"q1\", \"text\": \"container exits at once\", \"documents\": [{\"document\": \"docker/entrypoints.md\", \"contains\": \"the main process ends\"}]}\n\
                {\"_id\": \"q2\", \"text\": \"how does BERT differ from word2vec\", \"keywords\": [\"bert\"]}\n```\n\n\
                `document` is the path below the folder of documents. The chunk that holds the phrase `contains` answers the query; copy the phrase from the \
                document as it stands. Without `contains`, the whole document answers it. `keywords`: every chunk with one of these words answers it.\n";
    format!("# Queries\n\n{}{rest}", if made_up { start } else { given })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_of_many_are_spread_evenly() {
        assert_eq!(spread((0..10).collect(), 20).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        let some: Vec<usize> = spread((0..1000).collect(), 7).collect();
        assert_eq!(some.len(), 7);
        assert!(some.windows(2).all(|pair| (140..146).contains(&(pair[1] - pair[0]))), "{some:?}");
    }
}

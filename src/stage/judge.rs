//! The stage `judge`: says which chunks answer which queries.

use anyhow::{Context as _, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::externals::file;
use super::{Context, External, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::judgements::Qrels;
use crate::artifact::{Chunk, Judgements, Kind, Query, jsonl};
use crate::retrieval::judge::{self, QueryRule, read};
use crate::text::first_few;
use crate::text::keyword::Match;

pub const KIND: StageKind = StageKind {
    name: "judge",
    version: 1,
    summary: "says which chunks answer which queries",
    inputs: &[Port {
        name: "chunks",
        kind: Kind::Chunks,
        required: false,
        many: false,
        doc: "the corpus; left out when a BEIR folder brings its own",
    }],
    outputs: &[OutputPort {
        name: "judgements",
        kind: Kind::Judgements,
        file: "judgements",
        doc: "corpus, queries and judgements as a BEIR folder",
    }],
    declared: None,
    unkeyed: &[],
    schema: schema::<Judge>,
    configure: configure::<Judge>,
};

/// Says which chunks answer which queries: by rules in a file of queries, or as a BEIR folder says.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Judge {
    /// A JSON Lines file of queries and what answers them, judged over the input `chunks`:
    /// `{"_id": "q1", "text": "What is BERT?", "keywords": ["bert"]}` makes every chunk relevant that contains a keyword, in
    /// any case. `"documents": ["guides/bert.md"]` makes all chunks of a document relevant (a document's id is its path below
    /// the loaded folder; for a file of records the path, or `path#N` for one of them), and
    /// `"documents": [{"document": "guides/bert.md", "contains": "masked language", "grade": 2}]` the chunks with that phrase,
    /// with that grade. A grade of 0 takes back what a keyword said. A relative path starts at the folder of the file that says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<String>,
    /// When a chunk contains a keyword.
    #[serde(rename = "match")]
    pub how: Match,
    /// What to do with a query that no chunk answers.
    pub without_judgements: WithoutJudgements,
    /// A BEIR folder (`corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv`), instead of `queries` and the input `chunks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beir: Option<String>,
    /// Which judgements of the BEIR folder to take.
    pub split: String,
}

/// What to do with a query that no chunk answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WithoutJudgements {
    /// Stop.
    #[default]
    Fail,
    /// Leave the query out and warn.
    Skip,
}

impl Default for Judge {
    fn default() -> Self {
        Judge {
            queries: None,
            how: Match::default(),
            without_judgements: WithoutJudgements::default(),
            beir: None,
            split: "test".into(),
        }
    }
}

impl Stage for Judge {
    fn check(&self) -> Result<(), ParameterError> {
        if self.split.is_empty() || self.split.contains(['/', '\\']) {
            return Err(ParameterError::new("split", "the split is the name of a file in `qrels`, without `.tsv`"));
        }
        match (&self.queries, &self.beir) {
            (Some(_), Some(_)) => Err(ParameterError::new("beir", "`queries` and `beir` exclude each other; remove one")),
            (None, None) => Err(ParameterError::new("queries", "name a file of queries with `queries`, or a folder with `beir`")),
            _ => Ok(()),
        }
    }

    fn paths(&self) -> Vec<(String, String)> {
        let path = |(field, path): (&str, &Option<String>)| Some((field.to_owned(), path.clone()?));
        [("queries", &self.queries), ("beir", &self.beir)].into_iter().filter_map(path).collect()
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        let mut paths: Vec<String> = self.queries.iter().cloned().collect();
        for folder in self.beir.iter().map(|folder| folder.trim_end_matches('/')) {
            let files = ["corpus.jsonl".to_owned(), "queries.jsonl".to_owned(), format!("qrels/{}.tsv", self.split)];
            paths.extend(files.iter().map(|file| format!("{folder}/{file}")));
        }
        paths.iter().map(|path| file(surroundings, path)).collect()
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let (judgements, warnings) = match (&self.queries, &self.beir, context.optional_input("chunks")) {
            (Some(name), _, Some(chunks)) => self.by_rules(context, name, &jsonl::read::<Chunk>(chunks)?)?,
            (Some(_), _, None) => bail!("`queries` are judged over chunks: connect the input `chunks`"),
            (None, Some(_), Some(_)) => bail!("`beir` brings its own corpus: remove the input `chunks`"),
            (None, Some(folder), None) => (Judgements::read(&context.path(folder)?, &self.split)?, Vec::new()),
            (None, None, _) => bail!("name a file of queries with `queries`, or a folder with `beir`"),
        };
        if judgements.queries.is_empty() {
            match warnings.as_slice() {
                [] => bail!("`qrels/{}.tsv` judges no query", self.split),
                warnings => bail!("no query is judged; {}", warnings.join("; ")),
            }
        }
        judgements.write(context.output("judgements")?)?;
        let relevant = judgements.qrels.values().flat_map(|grades| grades.values()).filter(|&&grade| grade > 0).count();
        let queries = judgements.queries.len();
        let summary = format!(
            "{queries} queries over {} passages, {:.1} relevant a query",
            judgements.corpus.len(),
            relevant as f64 / queries as f64
        );
        Ok(Outcome { summary, warnings, ..Outcome::default() })
    }
}

impl Judge {
    /// The judgements, and warnings.
    fn by_rules(&self, context: &Context, name: &str, chunks: &[Chunk]) -> Result<(Judgements, Vec<String>)> {
        let rules = read(&context.path(name)?, name)?;
        let judge = judge::Judge::new(chunks, self.how);
        let (mut queries, mut qrels, mut left_out) = (Vec::new(), Qrels::new(), Vec::new());
        for (done, rule) in (1..).zip(&rules) {
            context.cancel.check()?;
            let grades = judge.grades(rule)?;
            if grades.values().any(|&grade| grade > 0) {
                queries.push(Query { id: rule.id.clone(), text: rule.text.clone() });
                qrels.insert(rule.id.clone(), grades);
            } else if self.without_judgements == WithoutJudgements::Skip {
                left_out.push(format!("`{}`", rule.id));
            } else {
                return Err(unanswered(rule)).with_context(|| rule.place.clone());
            }
            context.progress(done, rules.len() as u64, "queries", "judging");
        }
        let mut warnings = Vec::new();
        if !left_out.is_empty() {
            let names = first_few(&left_out);
            warnings.push(format!("queries left out because no chunk answers them: {} ({names})", left_out.len()));
        }
        Ok((Judgements { corpus: chunks.iter().map(Into::into).collect(), queries, qrels }, warnings))
    }
}

fn unanswered(rule: &QueryRule) -> anyhow::Error {
    let why = match rule.keywords.as_slice() {
        [] => "all of its documents have a grade of 0 or less".to_owned(),
        keywords => format!("none contains `{}`", keywords.join("` or `")),
    };
    anyhow::anyhow!(
        "no chunk answers query `{}` ({}): {why}; correct the rule, or set `without_judgements: skip`",
        rule.id,
        rule.text
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stage::testing::{Bench, chunk, refused};

    fn bench() -> Bench {
        let bench = Bench::new();
        bench.write_rows(
            "chunks.jsonl",
            &[
                chunk("guides/bert.md", "BERT", 0, 0, "Bert reads both ways."),
                chunk("guides/bert.md", "BERT", 1, 23, "It masks\nwords."),
                chunk("the \"api\".md", "API", 0, 0, "A rapid service"),
                chunk("faq.csv#1", "faq", 0, 0, "What is an API?"),
                chunk("faq.csv#2", "faq", 0, 0, "Who masks words?"),
            ],
        );
        bench
    }

    const CHUNKS: &[(&str, &str)] = &[("chunks", "chunks.jsonl")];

    /// Query → judged chunks with their grades.
    fn judged(bench: &Bench) -> Vec<String> {
        let judgements = Judgements::read(&bench.path().join("judgements"), "test").unwrap();
        assert_eq!(judgements.corpus.len(), 5);
        let line = |q: &Query| {
            let grades = judgements.qrels[&q.id].iter().map(|(id, grade)| format!("{id}={grade}"));
            format!("{}: {}", q.id, grades.collect::<Vec<_>>().join(" "))
        };
        judgements.queries.iter().map(line).collect()
    }

    #[test]
    fn rules_say_which_chunks_answer() {
        let bench = bench();
        bench.write(
            "q.jsonl",
            r#"{"_id":"key","text":"?","keywords":["API"]}
               {"_id":"doc","text":"?","documents":["guides/bert.md"]}
               {"_id":"file","text":"?","documents":["faq.csv"]}
               {"_id":"record","text":"?","documents":["faq.csv#2"]}
               {"_id":"phrase","text":"?","documents":[{"document":"guides/bert.md","contains":"masks words","grade":2}]}
               {"_id":"across","text":"?","documents":[{"document":"guides/bert.md","contains":"ways. It"}]}
               {"_id":"in file","text":"?","documents":[{"document":"faq.csv","contains":"masks words"}]}
               {"_id":"both","text":"?","keywords":["api"],"documents":[{"document":"the \"api\".md","grade":0}]}"#,
        );
        let outcome = bench.run_here(&KIND, json!({ "queries": "q.jsonl" }), CHUNKS).unwrap();
        insta::assert_snapshot!(judged(&bench).join("\n"), @r#"
        key: faq.csv#1:0=1 the "api".md:0=1
        doc: guides/bert.md:0=1 guides/bert.md:1=1
        file: faq.csv#1:0=1 faq.csv#2:0=1
        record: faq.csv#2:0=1
        phrase: guides/bert.md:1=2
        across: guides/bert.md:0=1 guides/bert.md:1=1
        in file: faq.csv#2:0=1
        both: faq.csv#1:0=1 the "api".md:0=0
        "#);
        insta::assert_snapshot!(outcome.summary, @"8 queries over 5 passages, 1.5 relevant a query");
        bench.write("q.jsonl", r#"{"_id":"word","text":"?","keywords":["API"]}"#);
        bench.run_here(&KIND, json!({ "queries": "q.jsonl", "match": "word" }), CHUNKS).unwrap();
        assert_eq!(judged(&bench), ["word: faq.csv#1:0=1"]);
        let externals = bench.externals(&KIND, json!({ "queries": "q.jsonl" })).unwrap();
        assert_eq!(externals[0].name, "file `q.jsonl`");
    }

    #[test]
    fn bad_queries_are_refused() {
        let error = |rows: &str| {
            let bench = bench();
            bench.write("q.jsonl", rows);
            format!("{:#}", bench.run_here(&KIND, json!({ "queries": "q.jsonl" }), CHUNKS).unwrap_err())
        };
        let good = r#"{"_id":"a","text":"?","keywords":["bert"]}"#;
        insta::assert_snapshot!(error(&format!("{good}\n{good}")), @"q.jsonl:2: the id `a` stands twice; give each query its own");
        insta::assert_snapshot!(error(&good.replace("\"a\"", "\"a\\tb\"")), @r#"q.jsonl:1: the id "a\tb" has a tab or a line break in it; remove it"#);
        insta::assert_snapshot!(error(&good.replace('?', " ")), @"q.jsonl:1: field `text` of query `a` is empty; write the query there");
        insta::assert_snapshot!(error(&good.replace("keywords", "keyword")), @"q.jsonl:1: field `keyword`: unknown field `keyword`, expected one of `_id`, `text`, `keywords`, `documents` at column 31");
        insta::assert_snapshot!(error(&good.replace("bert", "")), @"q.jsonl:1: a keyword of query `a` is empty; remove it");
        insta::assert_snapshot!(error(r#"{"_id":"a","text":"?"}"#), @"q.jsonl:1: nothing says what answers query `a`; give it `keywords` or `documents`");
        insta::assert_snapshot!(error(""), @r#"`q.jsonl` holds no query; write one a line: {"_id": …, "text": …, "keywords": […]}"#);
        insta::assert_snapshot!(error(&good.replace("bert", "spark")), @"q.jsonl:1: no chunk answers query `a` (?): none contains `spark`; correct the rule, or set `without_judgements: skip`");
        insta::assert_snapshot!(error(r#"{"_id":"a","text":"?","documents":["guide/bert.md"]}"#), @"q.jsonl:1: there is no document `guide/bert.md`; did you mean `guides/bert.md`?");
        insta::assert_snapshot!(error(r#"{"_id":"a","text":"?","documents":["zzz"]}"#), @"q.jsonl:1: there is no document `zzz`; ids are paths below the loaded folder, such as `faq.csv`");
        insta::assert_snapshot!(error(r#"{"_id":"a","text":"?","documents":[{"document":"the \"api\".md","contains":"slow"}]}"#), @r#"q.jsonl:1: document `the "api".md` does not contain `slow`; copy the phrase from the document, case and punctuation included"#);
        insta::assert_snapshot!(error(r#"{"_id":"a","text":"?","documents":[{"document":"the \"api\".md","phrase":"slow"}]}"#), @"q.jsonl:1: field `documents[0].phrase`: unknown field `phrase`, expected one of `document`, `contains`, `grade` at column 72");
        insta::assert_snapshot!(error(r#"{"_id":"a","text":"?","documents":[{"document":"the \"api\".md","grade":0}]}"#), @"q.jsonl:1: no chunk answers query `a` (?): all of its documents have a grade of 0 or less; correct the rule, or set `without_judgements: skip`");
        let bench = bench();
        std::fs::write(bench.path().join("q.jsonl"), b"\n\xff\n").unwrap();
        insta::assert_snapshot!(bench.run_here(&KIND, json!({ "queries": "q.jsonl" }), CHUNKS).unwrap_err(), @"q.jsonl:2: the line is not UTF-8; save the file as UTF-8");
    }

    #[test]
    fn queries_without_answers_can_be_left_out() {
        let bench = bench();
        bench.write(
            "q.jsonl",
            "{\"_id\":\"a\",\"text\":\"?\",\"keywords\":[\"bert\"]}\n{\"_id\":\"b\",\"text\":\"?\",\"keywords\":[\"spark\"]}",
        );
        let parameters = json!({ "queries": "q.jsonl", "without_judgements": "skip" });
        let outcome = bench.run_here(&KIND, parameters.clone(), CHUNKS).unwrap();
        assert_eq!(judged(&bench), ["a: guides/bert.md:0=1"]);
        insta::assert_snapshot!(outcome.warnings.join("\n"), @"queries left out because no chunk answers them: 1 (`b`)");
        bench.write("q.jsonl", "{\"_id\":\"b\",\"text\":\"?\",\"keywords\":[\"spark\"]}");
        insta::assert_snapshot!(bench.run_here(&KIND, parameters, CHUNKS).unwrap_err(), @"no query is judged; queries left out because no chunk answers them: 1 (`b`)");
    }

    #[test]
    fn a_beir_folder_is_taken_as_it_is() {
        let bench = bench();
        bench.write("q.jsonl", r#"{"_id":"a","text":"?","keywords":["bert"]}"#);
        bench.run_here(&KIND, json!({ "queries": "q.jsonl" }), CHUNKS).unwrap();
        std::fs::rename(bench.path().join("judgements"), bench.path().join("beir")).unwrap();
        bench.run_here(&KIND, json!({ "beir": "beir" }), &[]).unwrap();
        assert_eq!(judged(&bench), ["a: guides/bert.md:0=1"]);
        let names: Vec<String> =
            bench.externals(&KIND, json!({ "beir": "beir/" })).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["file `beir/corpus.jsonl`", "file `beir/queries.jsonl`", "file `beir/qrels/test.tsv`"]);
        insta::assert_snapshot!(bench.run_here(&KIND, json!({ "beir": "beir" }), CHUNKS).unwrap_err(), @"`beir` brings its own corpus: remove the input `chunks`");
        insta::assert_snapshot!(bench.run_here(&KIND, json!({ "queries": "q.jsonl" }), &[]).unwrap_err(), @"`queries` are judged over chunks: connect the input `chunks`");
        insta::assert_snapshot!(bench.externals(&KIND, json!({ "beir": "beir", "split": "dev" })).unwrap_err(), @"`beir/qrels/dev.tsv` cannot be read");
    }

    #[test]
    fn bad_parameters_are_refused() {
        insta::assert_snapshot!(refused(&KIND, json!({})), @"queries: name a file of queries with `queries`, or a folder with `beir`");
        insta::assert_snapshot!(refused(&KIND, json!({ "queries": "q", "beir": "b" })), @"beir: `queries` and `beir` exclude each other; remove one");
        insta::assert_snapshot!(refused(&KIND, json!({ "beir": "b", "split": "../x" })), @"split: the split is the name of a file in `qrels`, without `.tsv`");
    }
}

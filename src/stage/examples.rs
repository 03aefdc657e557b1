//! The stage `examples`: reads rows to learn from.

mod columns;

use anyhow::{Context as _, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::externals::file;
use super::{Context, External, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::{Example, Judgements, Kind, jsonl};
use crate::retrieval::mine::pairs;
use crate::text::table::{self, SUFFIXES, is_table};
use columns::Columns;

pub const KIND: StageKind = StageKind {
    name: "examples",
    version: 1,
    summary: "reads pairs, triplets or tuples to train on",
    inputs: &[Port {
        name: "judgements",
        kind: Kind::Judgements,
        required: false,
        many: false,
        doc: "queries and judgements: each relevant passage makes a pair with its query",
    }],
    outputs: &[OutputPort {
        name: "triplets",
        kind: Kind::Triplets,
        file: "examples.jsonl",
        doc: "anchor, positive, and where there are any negatives and labels",
    }],
    declared: None,
    unkeyed: &[],
    schema: schema::<Examples>,
    configure: configure::<Examples>,
};

/// Reads rows to train on from a file of your own, or makes pairs of judged queries and their relevant passages. A row is a pair of texts, a triplet,
/// or a tuple with several negatives, with a label or scores where the loss wants them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Examples {
    /// A file of rows: JSON Lines (`.jsonl`), CSV (`.csv`) or tab-separated (`.tsv`), the latter two with a header line; or a folder of such files, which are
    /// read in the order of their names. Left out, pairs are made from the input `judgements`. A relative path starts at the folder
    /// of the file that says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Which fields of a row are what: `{ anchor: question, positive: answer }`.
    pub columns: Columns,
    /// As many rows at most, the first ones; 0 for all.
    pub limit: usize,
}

impl Stage for Examples {
    fn check(&self) -> Result<(), ParameterError> {
        match &self.path {
            Some(path) if path.trim().is_empty() => Err(ParameterError::new("path", "the path is empty; name a file of rows")),
            None if self.columns != Columns::default() => {
                Err(ParameterError::new("columns", "`columns` is for rows of a file: name one with `path`, or remove `columns`"))
            }
            _ => Ok(()),
        }
    }

    fn check_inputs(&self, inputs: &[&str]) -> Result<(), ParameterError> {
        match (&self.path, inputs.contains(&"judgements")) {
            (None, false) => Err(ParameterError::new(
                "path",
                "there is nothing to read: name a file of rows with `path`, or connect the input `judgements`",
            )),
            (Some(_), true) => {
                Err(ParameterError::new("path", "`path` and the input `judgements` exclude each other; make two stages of them"))
            }
            _ => Ok(()),
        }
    }

    fn paths(&self) -> Vec<(String, String)> {
        self.path.iter().map(|path| ("path".to_owned(), path.clone())).collect()
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        let Some(path) = &self.path else { return Ok(Vec::new()) };
        files(path, &surroundings.path(path)?)?.iter().map(|name| file(surroundings, name)).collect()
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let (mut examples, warnings, from) = match &self.path {
            Some(path) => {
                let files = files(path, &context.path(path)?)?;
                let mut examples = Vec::new();
                for name in &files {
                    context.cancel.check()?;
                    examples.extend(self.read(name, context)?);
                }
                (examples, Vec::new(), format!("{} files", files.len()))
            }
            None => {
                let judgements = Judgements::read(context.input("judgements")?, "test")?;
                let mined = pairs(&judgements);
                (mined.examples, mined.warnings, format!("{} queries", judgements.queries.len()))
            }
        };
        if examples.is_empty() {
            bail!("there is no example: {from} hold none");
        }
        if self.limit > 0 {
            examples.truncate(self.limit);
        }
        jsonl::write(context.output("triplets")?, &examples).context("the examples cannot be written")?;
        Ok(Outcome { summary: format!("{} examples from {from}", examples.len()), warnings, ..Outcome::default() })
    }
}

impl Examples {
    fn read(&self, name: &str, context: &Context) -> Result<Vec<Example>> {
        let bytes = std::fs::read(context.path(name)?).with_context(|| format!("`{name}` cannot be read"))?;
        let rows = table::rows(name, &bytes).with_context(|| format!("`{name}`"))?;
        let example = |(line, fields)| self.columns.example(&fields).with_context(|| format!("`{name}`, line {line}"));
        rows.into_iter().map(example).collect()
    }
}

/// The files of rows at `path`, which is written as `name`: it, or those in it, in the order of their names.
fn files(name: &str, path: &std::path::Path) -> Result<Vec<String>> {
    let fail = || format!("`{name}` cannot be read; correct `path`");
    if !std::fs::metadata(path).with_context(fail)?.is_dir() {
        return Ok(vec![name.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(fail)? {
        let entry = entry.with_context(fail)?.file_name();
        files.extend(entry.to_str().filter(|entry| is_table(entry) && !entry.starts_with('.')).map(str::to_owned));
    }
    files.sort_unstable();
    if files.is_empty() {
        bail!("`{name}` holds no file of rows; those end in `.{}`", SUFFIXES.join("`, `."));
    }
    Ok(files.into_iter().map(|file| format!("{}/{file}", name.trim_end_matches('/'))).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::artifact::{Passage, Query};
    use crate::stage::testing::{Bench, refused};

    #[test]
    fn rows_of_files_become_examples() {
        let bench = Bench::new();
        std::fs::create_dir(bench.path().join("rows")).unwrap();
        bench.write("rows/b.csv", "question,answer,note\nq1,a1,x\nq2,a2,y\n");
        bench.write("rows/a.jsonl", "{\"question\": \"q0\", \"answer\": \"a0\"}\n");
        bench.write("rows/c.md", "nothing");
        let columns = json!({ "anchor": "question", "positive": "answer" });
        let outcome = bench.run_here(&KIND, json!({ "path": "rows/", "columns": columns }), &[]).unwrap();
        let examples: Vec<Example> = bench.rows("examples.jsonl");
        let texts: Vec<Vec<&str>> = examples.iter().map(|e| e.texts().collect()).collect();
        assert_eq!(texts, [["q0", "a0"], ["q1", "a1"], ["q2", "a2"]]);
        assert_eq!(outcome.summary, "3 examples from 2 files");
        let externals = bench.externals(&KIND, json!({ "path": "rows/", "columns": columns })).unwrap();
        assert_eq!(externals.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["file `rows/a.jsonl`", "file `rows/b.csv`"]);
        bench.run_here(&KIND, json!({ "path": "rows", "columns": columns, "limit": 2 }), &[]).unwrap();
        assert_eq!(bench.rows::<Example>("examples.jsonl").len(), 2);
    }

    #[test]
    fn judgements_become_pairs() {
        let bench = Bench::new();
        let judgements = Judgements {
            corpus: vec![Passage { id: "p".into(), title: "T".into(), text: "text".into() }],
            queries: vec![Query { id: "q".into(), text: "query".into() }],
            qrels: [("q".into(), [("p".into(), 1)].into())].into(),
        };
        judgements.write(&bench.path().join("judged")).unwrap();
        let outcome = bench.run_here(&KIND, json!({}), &[("judgements", "judged")]).unwrap();
        assert_eq!(bench.rows::<Example>("examples.jsonl")[0].texts().collect::<Vec<_>>(), ["query", "T text"]);
        assert_eq!(outcome.summary, "1 examples from 1 queries");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let bench = Bench::new();
        bench.write("a.csv", "anchor,positive\nx,y\n\"z\n\",\n");
        bench.write("b.csv", "anchor,positive\n");
        let error = |path: &str| format!("{:#}", bench.run_here(&KIND, json!({ "path": path }), &[]).unwrap_err());
        insta::assert_snapshot!(error("a.csv"), @"`a.csv`, line 3: field `positive` holds an empty text; fill it in, or remove the row");
        insta::assert_snapshot!(error("b.csv"), @"there is no example: 1 files hold none");
        insta::assert_snapshot!(error("c.csv"), @"`c.csv` cannot be read; correct `path`: No such file or directory (os error 2)");
        insta::assert_snapshot!(refused(&KIND, json!({ "columns": { "label": "x" } })), @"columns: `columns` is for rows of a file: name one with `path`, or remove `columns`");
        insta::assert_snapshot!(refused(&KIND, json!({ "path": "" })), @"path: the path is empty; name a file of rows");
        let connected = |parameters, inputs: &[&str]| {
            let examples: Examples = serde_json::from_value(parameters).unwrap();
            examples.check_inputs(inputs).unwrap_err().to_string()
        };
        insta::assert_snapshot!(connected(json!({}), &[]), @"there is nothing to read: name a file of rows with `path`, or connect the input `judgements`");
        insta::assert_snapshot!(connected(json!({ "path": "x.csv" }), &["judgements"]), @"`path` and the input `judgements` exclude each other; make two stages of them");
    }
}

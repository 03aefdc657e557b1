//! The stage `load`: reads a folder of documents.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Allowed, Context, External, Outcome, OutputPort, ParameterError, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::{Document, Kind, jsonl};
use crate::text::first_few;
use crate::text::read::{Fields, Found, Listing, Selection, documents};

pub const KIND: StageKind = StageKind {
    name: "load",
    version: 1,
    summary: "reads a folder of documents",
    inputs: &[],
    outputs: &[OutputPort {
        name: "documents",
        kind: Kind::Documents,
        file: "documents.jsonl",
        doc: "the documents, in path order",
    }],
    declared: None,
    unkeyed: &[],
    schema: schema::<Load>,
    configure: configure::<Load>,
};

/// Reads the documents in a folder and the folders below it: Markdown, plain text, HTML, PDF, JSON, JSON Lines and CSV. A JSON
/// array, a JSON Lines file and a CSV file hold one document a record; every other file is one document.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// A folder, or a single file. A relative path starts at the folder of the file that says it.
    pub path: String,
    /// Globs of the files to read, matched with their path below the folder: `*.md` (in every folder), `guides/**`,
    /// `*/intro.{md,html}`. Left out, every file is read whose suffix is known (`.md`, `.markdown`, `.txt`, `.html`, `.htm`,
    /// `.pdf`, `.json`, `.jsonl`, `.csv`).
    #[serde(default)]
    pub include: Vec<String>,
    /// Globs of files to leave out, even if `include` names them.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Whether to read files and folders whose name starts with a dot.
    #[serde(default)]
    pub hidden: bool,
    /// What to do with a file that cannot be read (not UTF-8, broken JSON, no permission).
    #[serde(default)]
    pub on_error: OnError,
    /// The JSON field or CSV column that holds the text. Left out, it is `text`, `content` or `body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_field: Option<String>,
    /// The JSON field or CSV column that holds the title. Left out, it is `title` or `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title_field: Option<String>,
}

/// What to do with a file that cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Stop.
    #[default]
    Fail,
    /// Leave the file out and warn.
    Skip,
}

impl Stage for Load {
    fn check(&self) -> Result<(), ParameterError> {
        if self.path.trim().is_empty() {
            return Err(ParameterError::new("path", "the path is empty; name a folder or a file"));
        }
        self.selection().map(drop).map_err(|(field, message)| ParameterError::new(field, message))
    }

    fn paths(&self) -> Vec<(String, String)> {
        vec![("path".to_owned(), self.path.clone())]
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        let listing = self.list(&surroundings.path(&self.path)?, surroundings.allowed)?;
        let digests: Vec<_> = listing.files.par_iter().map(|file| (surroundings.digest_file)(&file.path)).collect();
        let mut externals = Vec::new();
        for (file, digest) in listing.files.iter().zip(digests) {
            let value = match digest {
                Err(_) if self.on_error == OnError::Skip => "unreadable".to_owned(),
                digest => digest.with_context(|| format!("`{}` cannot be read", self.shown(&file.name)))?,
            };
            externals.push(External { name: format!("file `{}`", self.shown(&file.name)), value });
        }
        let unreadable = listing.problems.iter().map(|problem| &problem.name);
        let unreadable =
            unreadable.map(|name| External { name: format!("file `{}`", self.shown(name)), value: "unreadable".into() });
        externals.extend(unreadable);
        Ok(externals)
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let listing = self.list(&context.path(&self.path)?, context.allowed)?;
        let fields = Fields::new(self.text_field.as_deref(), self.title_field.as_deref());
        let done = AtomicU64::new(0);
        let read = |file: &Found| {
            context.cancel.check()?;
            let bytes = std::fs::read(&file.path)?;
            let documents = documents(&file.name, &bytes, &fields);
            context.progress(done.fetch_add(1, Ordering::Relaxed) + 1, listing.files.len() as u64, "files", "reading");
            documents
        };
        let results: Vec<Result<Vec<Document>>> = listing.files.par_iter().map(read).collect();
        context.cancel.check()?;
        let mut all = Loaded::default();
        all.failed.extend(listing.problems.iter().map(|problem| format!("`{}` ({})", self.shown(&problem.name), problem.cause)));
        all.unknown.extend(listing.unknown.iter().map(|name| format!("`{}`", self.shown(name))));
        for (file, result) in listing.files.iter().zip(results) {
            match result {
                Ok(documents) => all.add(documents, || self.shown(&file.name)),
                Err(error) if self.on_error == OnError::Skip => {
                    all.failed.push(format!("`{}` ({error:#})", self.shown(&file.name)))
                }
                Err(error) => return Err(error.context(format!("`{}` cannot be read", self.shown(&file.name)))),
            }
        }
        if all.documents.is_empty() {
            bail!("the corpus is empty: no file in `{}` holds any text; {}", self.path, all.warnings().join("; "));
        }
        jsonl::write(context.output("documents")?, &all.documents)?;
        let summary = format!("{} documents from {} files", all.documents.len(), listing.files.len());
        Ok(Outcome { summary, warnings: all.warnings(), ..Outcome::default() })
    }
}

impl Load {
    fn selection(&self) -> Result<Selection, (String, String)> {
        Selection::new(&self.include, &self.exclude, self.hidden)
    }

    /// The files to read, at least one.
    fn list(&self, root: &std::path::Path, allowed: &Allowed) -> Result<Listing> {
        let selection = self.selection().map_err(|(field, message)| anyhow::anyhow!("`{field}`: {message}"))?;
        let listing = selection
            .list(root, &|link| allowed.check(link).map_err(|outside| outside.to_string()))
            .with_context(|| format!("there are no documents at `{}`; correct `path`", self.path))?;
        if let Some(problem) = listing.problems.first().filter(|_| self.on_error == OnError::Fail) {
            bail!("`{}` cannot be read: {}; mend it, or set `on_error: skip`", self.shown(&problem.name), problem.cause);
        }
        listing.not_empty(&self.path, &self.include, &self.exclude)?;
        Ok(listing)
    }

    /// A file's path as the pipeline's author would write it.
    fn shown(&self, name: &str) -> String {
        let root = self.path.trim_end_matches('/');
        match root.rsplit('/').next() {
            Some(last) if last == name => root.to_owned(),
            _ => format!("{root}/{name}"),
        }
    }
}

/// What was read.
#[derive(Default)]
struct Loaded {
    documents: Vec<Document>,
    /// Files that cannot be read, and why.
    failed: Vec<String>,
    /// Files and records without text.
    blank: Vec<String>,
    /// Files that `include` names but that have no reader.
    unknown: Vec<String>,
}

impl Loaded {
    fn add(&mut self, documents: Vec<Document>, file: impl Fn() -> String) {
        if documents.is_empty() {
            self.blank.push(format!("`{}`", file()));
        }
        for document in documents {
            if document.text.trim().is_empty() {
                let record = document.id.get(document.path.len()..).unwrap_or_default();
                self.blank.push(format!("`{}{record}`", file()));
            } else {
                self.documents.push(document);
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        [
            ("they cannot be read", &self.failed),
            ("they hold no text", &self.blank),
            ("`include` matches them, but they are of no kind that can be read", &self.unknown),
        ]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(why, names)| format!("left out because {why}: {} ({})", names.len(), first_few(names)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::stage::testing::{Bench, refused};

    /// A folder with documents of every kind of trouble but broken ones.
    fn corpus(folder: &Path) {
        for (name, text) in [
            ("b.md", "# Bee\n\nBuzz"),
            ("b/c.txt", "see"),
            ("a.csv", "text,title\nx,X\n,Y\n"),
            ("b/.hidden.md", "secret"),
            ("b/empty.txt", " \n"),
            ("b/image.png", "\u{0}"),
        ] {
            let path = folder.join("docs").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn a_folder_becomes_documents_in_path_order() {
        let bench = Bench::new();
        corpus(bench.path());
        let outcome = bench.run_here(&KIND, json!({ "path": "docs" }), &[]).unwrap();
        let documents: Vec<Document> = bench.rows("documents.jsonl");
        let ids: Vec<_> = documents.iter().map(|d| (d.id.as_str(), d.title.as_str())).collect();
        assert_eq!(ids, [("a.csv#1", "X"), ("b.md", "Bee"), ("b/c.txt", "c")]);
        assert_eq!(outcome.summary, "3 documents from 4 files");
        insta::assert_snapshot!(outcome.warnings.join("\n"), @"left out because they hold no text: 2 (`docs/a.csv#2`, `docs/b/empty.txt`)");

        let parameters = json!({ "path": "docs", "hidden": true, "include": ["b/**"], "exclude": ["c.txt"] });
        let outcome = bench.run_here(&KIND, parameters, &[]).unwrap();
        assert_eq!(bench.rows::<Document>("documents.jsonl")[0].id, "b/.hidden.md");
        insta::assert_snapshot!(outcome.warnings.join("\n"), @"
        left out because they hold no text: 1 (`docs/b/empty.txt`)
        left out because `include` matches them, but they are of no kind that can be read: 1 (`docs/b/image.png`)
        ");

        bench.run_here(&KIND, json!({ "path": "docs/b.md" }), &[]).unwrap();
        assert_eq!(bench.rows::<Document>("documents.jsonl")[0].id, "b.md");
    }

    #[test]
    fn every_file_is_an_external() {
        let bench = Bench::new();
        corpus(bench.path());
        let names = |parameters| -> Vec<String> {
            bench.externals(&KIND, parameters).unwrap().into_iter().map(|e| format!("{} {}", e.name, e.value)).collect()
        };
        assert_eq!(
            names(json!({ "path": "./docs/", "exclude": ["*.csv", "empty*"] })),
            ["file `./docs/b.md` 11 bytes", "file `./docs/b/c.txt` 3 bytes"]
        );
        assert_eq!(names(json!({ "path": "docs/b.md" })), ["file `docs/b.md` 11 bytes"]);
    }

    #[test]
    fn what_cannot_be_read_stops_the_stage_or_is_left_out() {
        let bench = Bench::new();
        corpus(bench.path());
        fs::write(bench.path().join("docs/x.json"), "{\n\"text\":").unwrap();
        fs::write(bench.path().join("docs/y.txt"), b"\xff").unwrap();
        insta::assert_snapshot!(format!("{:#}", bench.run_here(&KIND, json!({ "path": "docs" }), &[]).unwrap_err()), @"`docs/x.json` cannot be read: EOF while parsing a value at line 2 column 7");
        let outcome = bench.run_here(&KIND, json!({ "path": "docs", "on_error": "skip" }), &[]).unwrap();
        assert_eq!(bench.rows::<Document>("documents.jsonl").len(), 3);
        insta::assert_snapshot!(outcome.warnings[0], @"left out because they cannot be read: 2 (`docs/x.json` (EOF while parsing a value at line 2 column 7), `docs/y.txt` (line 1 is not UTF-8; save the file as UTF-8))");
    }

    #[cfg(unix)]
    #[test]
    fn links_in_a_circle_end_and_dangling_ones_are_named() {
        let bench = Bench::new();
        corpus(bench.path());
        std::os::unix::fs::symlink(bench.path().join("docs"), bench.path().join("docs/b/up")).unwrap();
        bench.run_here(&KIND, json!({ "path": "docs" }), &[]).unwrap();
        assert_eq!(bench.rows::<Document>("documents.jsonl").len(), 3);
        std::os::unix::fs::symlink("nowhere", bench.path().join("docs/gone.md")).unwrap();
        insta::assert_snapshot!(bench.externals(&KIND, json!({ "path": "docs" })).unwrap_err(), @"`docs/gone.md` cannot be read: No such file or directory (os error 2); mend it, or set `on_error: skip`");
        assert!(bench.run_here(&KIND, json!({ "path": "docs", "on_error": "skip" }), &[]).is_ok());
    }

    #[test]
    fn an_empty_corpus_is_refused_before_anything_runs() {
        let bench = Bench::new();
        corpus(bench.path());
        let error = |parameters| format!("{:#}", bench.externals(&KIND, parameters).unwrap_err());
        insta::assert_snapshot!(error(json!({ "path": "docs", "include": ["*.rst"], "exclude": ["old/**", "x"] })), @"the corpus is empty: `docs`, include `*.rst`, exclude `old/**`, `x` selects none of the 5 files there; files that can be read end in `.md`, `.markdown`, `.txt`, `.html`, `.htm`, `.pdf`, `.json`, `.jsonl`, `.csv`");
        insta::assert_snapshot!(error(json!({ "path": "dcos" })).replace(&bench.path().display().to_string(), "BASE"), @"there are no documents at `dcos`; correct `path`: `BASE/dcos` cannot be read: No such file or directory (os error 2)");
        fs::write(bench.path().join("docs/only.txt"), "").unwrap();
        let blank = bench.run_here(&KIND, json!({ "path": "docs", "include": ["only.txt"] }), &[]).unwrap_err();
        insta::assert_snapshot!(blank, @"the corpus is empty: no file in `docs` holds any text; left out because they hold no text: 1 (`docs/only.txt`)");
    }

    #[test]
    fn bad_parameters_are_refused() {
        insta::assert_snapshot!(refused(&KIND, json!({ "path": "docs", "include": ["*.md", "a[.md"] })), @"include[1]: `a[.md` is not a glob: unclosed character class; missing ']'");
        insta::assert_snapshot!(refused(&KIND, json!({ "path": " " })), @"path: the path is empty; name a folder or a file");
        insta::assert_snapshot!(refused(&KIND, json!({ "path": "docs", "on_error": "ignore" })), @"on_error: unknown variant `ignore`, expected `fail` or `skip`");
    }
}

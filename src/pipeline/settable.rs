//! What `--set` can change in a pipeline, by the short names that people use for it.

use serde_json::Value;

use super::definition::Definition;
use super::document::Document;
use super::library::Library;
use super::path::{self, Step};
use super::words::{list, nearest};
use crate::stage::{StageKind, registry};

/// The parameters of a pipeline and of its stages.
pub struct Settable {
    params: Vec<String>,
    stages: Vec<Stage>,
}

struct Stage {
    id: String,
    uses: String,
    parameters: Parameters,
}

enum Parameters {
    Kind(&'static StageKind),
    Definition(Vec<String>),
}

impl Parameters {
    fn names(&self) -> Vec<String> {
        match self {
            Parameters::Kind(kind) => {
                let schema = Value::from((kind.schema)());
                let properties = schema.get("properties").and_then(Value::as_object);
                properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
            }
            Parameters::Definition(names) => names.clone(),
        }
    }
}

impl Settable {
    pub(super) fn of(document: &Document, library: &Library, definitions: &[Option<Definition>]) -> Self {
        let stage = |stage: &super::document::Stage| {
            let (uses, span) = stage.uses?;
            let definition = || definitions.get(library.find(uses, span)?)?.as_ref();
            let parameters = match registry::find(uses) {
                Some(kind) => Parameters::Kind(kind),
                None => Parameters::Definition(definition()?.param_names().map(str::to_owned).collect()),
            };
            Some(Stage { id: stage.id.clone(), uses: uses.to_owned(), parameters })
        };
        let params = document.params.iter().map(|entry| entry.key.clone()).collect();
        Settable { params, stages: document.stages.iter().filter_map(stage).collect() }
    }

    /// The path for `--set` that `short` means: itself when it starts with `stages.` or `params.`; `STAGE.PATH`; a name of `params`; a kind
    /// that one stage alone uses in place of that stage; a parameter that one stage alone has.
    ///
    /// # Errors
    /// It means nothing, or several things; the message says what may be meant.
    pub fn path(&self, short: &str) -> Result<String, String> {
        let steps = path::parse(short)?;
        let (Some(Step::Key(first)), rest) = (steps.first(), steps.get(1..).unwrap_or_default()) else {
            return Err("the path is empty".to_owned());
        };
        if first == "stages" || first == "params" {
            return Ok(short.to_owned());
        }
        if let Some(stage) = self.stages.iter().find(|stage| stage.id == *first) {
            return stage.path(rest);
        }
        if self.params.contains(first) {
            return Ok(format!("params.{short}"));
        }
        let by_kind: Vec<&Stage> = self.stages.iter().filter(|stage| stage.uses == *first).collect();
        let having: Vec<&Stage> = self.stages.iter().filter(|stage| stage.parameters.names().contains(first)).collect();
        match (by_kind.as_slice(), having.as_slice()) {
            ([stage], []) => stage.path(rest),
            ([], [stage]) => Ok(format!("stages.{}.with.{short}", stage.id)),
            ([], []) => Err(self.unknown(first, !rest.is_empty())),
            (by_kind, having) => {
                let kinds = by_kind.iter().map(|stage| path::join(&[&[Step::Key(stage.id.clone())], rest].concat()));
                let names: Vec<String> = kinds.chain(having.iter().map(|stage| format!("{}.{short}", stage.id))).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                Err(format!("`{short}` may mean {}; write the one that is meant", list(&names)))
            }
        }
    }

    fn unknown(&self, first: &str, is_stage: bool) -> String {
        let stages = self.stages.iter().map(|stage| stage.id.clone());
        let mut words: Vec<String> = stages.chain(self.params.iter().cloned()).collect();
        if !is_stage {
            words.extend(self.stages.iter().flat_map(|stage| stage.parameters.names()));
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let help = match nearest(first, &words) {
            Some(word) => format!("did you mean `{word}`?"),
            None => "name `STAGE.PARAMETER`, or a name of `params`".to_owned(),
        };
        format!("the pipeline has no stage or parameter `{first}`; {help}")
    }
}

impl Stage {
    fn path(&self, rest: &[Step]) -> Result<String, String> {
        let names = self.parameters.names();
        let words: Vec<&str> = names.iter().map(String::as_str).collect();
        match rest.first() {
            Some(Step::Key(name)) if words.contains(&name.as_str()) => {
                Ok(format!("stages.{}.with.{}", self.id, path::join(rest)))
            }
            Some(Step::Key(name)) => {
                let help = super::words::did_you_mean(name, "parameters", &words);
                Err(format!("stage `{}` has no parameter `{name}`; {help}", self.id))
            }
            _ => {
                let example = words.first().map(|name| format!(", for example `{}.{name}`", self.id)).unwrap_or_default();
                Err(format!("`{}` is a stage; name one of its parameters{example}", self.id))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;

    const PIPELINE: &str = "params: { base: all-MiniLM-L6-v2, epochs: 1 }
stages:
  docs: { uses: load, with: { path: docs } }
  chunks: { uses: chunk, inputs: { documents: docs } }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: q.jsonl } }
  triplets: { uses: mine, inputs: { judgements: judged } }
  base: { uses: model, with: { source: '${params.base}' } }
  tuned: { uses: train, inputs: { model: base, triplets: triplets } }
  before: { uses: evaluate, inputs: { model: base, judgements: judged } }
  after: { uses: evaluate, inputs: { model: tuned, judgements: judged } }
";

    #[test]
    fn short_names_and_what_they_mean() {
        let pipeline =
            parse(PIPELINE, Path::new("a.yaml"), &[], &crate::stage::Allowed::anywhere()).map_err(|e| e.to_string()).unwrap();
        let meant = |short: &str| pipeline.settable.path(short).unwrap_or_else(|message| message);
        let short = [
            "tuned.lr",
            "train.lr",
            "lr",
            "loss.margin",
            "epochs",
            "params.base",
            "stages.x.with.y",
            "chunk_size", // right
            "seed",
            "evaluate.depth",
            "tuned.lrr",
            "tuned",
            "tunde.lr",
            "chunksize",
            "zzz",
            "a..b",
        ];
        let lines: Vec<String> = short.iter().map(|short| format!("{short}: {}", meant(short))).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        tuned.lr: stages.tuned.with.lr
        train.lr: `train.lr` may mean `tuned.lr` and `tuned.train.lr`; write the one that is meant
        lr: stages.tuned.with.lr
        loss.margin: stages.tuned.with.loss.margin
        epochs: params.epochs
        params.base: params.base
        stages.x.with.y: stages.x.with.y
        chunk_size: stages.chunks.with.chunk_size
        seed: `seed` may mean `triplets.seed` and `tuned.seed`; write the one that is meant
        evaluate.depth: `evaluate.depth` may mean `before.depth` and `after.depth`; write the one that is meant
        tuned.lrr: stage `tuned` has no parameter `lrr`; did you mean `lr`?
        tuned: `tuned` is a stage; name one of its parameters, for example `tuned.accumulation`
        tunde.lr: the pipeline has no stage or parameter `tunde`; did you mean `tuned`?
        chunksize: the pipeline has no stage or parameter `chunksize`; did you mean `chunk_size`?
        zzz: the pipeline has no stage or parameter `zzz`; name `STAGE.PARAMETER`, or a name of `params`
        a..b: the path `a..b` has an empty part
        ");
    }
}

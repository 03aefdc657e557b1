//! The stage `generate`: answers queries from the passages that each model retrieves.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::externals::{computation, embedder};
use super::{Context, External, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::{Answer, Kind, Retrieved, RetrievedPassage, Side, jsonl};
use crate::generation::chat::{Chat, Patience, Question};
use crate::generation::endpoint::{Endpoint, address, environment};
use crate::generation::extract::{Sentence, answers};
use crate::generation::prompt;
use crate::report::markdown::{inline, quote};
use crate::runtime::device::Choice;
use crate::runtime::precision::Precision;
use crate::runtime::retry::Backoff;

pub const KIND: StageKind = StageKind {
    name: "generate",
    version: 3,
    summary: "answers queries from the passages that each model retrieves",
    inputs: &[
        Port {
            name: "retrieved",
            kind: Kind::Retrieved,
            required: true,
            many: false,
            doc: "the queries and the passages that each model retrieved",
        },
        Port {
            name: "baseline",
            kind: Kind::Model,
            required: false,
            many: false,
            doc: "the baseline; the provider `extractive` chooses sentences with it",
        },
        Port {
            name: "tuned",
            kind: Kind::Model,
            required: false,
            many: false,
            doc: "the fine-tuned model; the provider `extractive` chooses sentences with it",
        },
    ],
    outputs: &[
        OutputPort { name: "answers", kind: Kind::Answers, file: "answers.jsonl", doc: "one answer for each query and model" },
        OutputPort { name: "readable", kind: Kind::File, file: "answers.md", doc: "the same as Markdown, to read" },
    ],
    declared: None,
    unkeyed: &["device", "api_key_env", "timeout_seconds", "max_retries", "concurrency"],
    schema: schema::<Generate>,
    configure: configure::<Generate>,
};

/// Answers each query from the passages that each model retrieved for it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Generate {
    /// Who answers.
    pub provider: Provider,
    /// `openai`: the model to ask, as the server names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `openai`: the server's address up to before `/chat/completions`; any server that speaks OpenAI's protocol will do.
    pub base_url: String,
    /// `openai`: the environment variable that holds the key.
    pub api_key_env: String,
    /// Passages of each query that the answer is drawn from, the best first.
    pub top_k: usize,
    /// `extractive`: sentences an answer.
    pub sentences: usize,
    /// Language models: how freely words are drawn, from 0 to 2. `null` leaves it to the server; some models accept nothing else.
    pub temperature: Option<f64>,
    /// Language models: tokens an answer may have. Absent, the server decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Language models: the system message. Empty, none is sent.
    pub system_prompt: String,
    /// Language models: what is asked. `{context}` stands for the passages, `{query}` for the query.
    pub prompt: String,
    /// Language models: seconds to wait for one answer.
    pub timeout_seconds: f64,
    /// Language models: further tries when the server is busy, fails, or cannot be reached; the waits between them double from 1 s
    /// on, unless the server says how long (`Retry-After`).
    pub max_retries: u32,
    /// Language models: questions asked at once.
    pub concurrency: usize,
    /// `extractive`: how exactly matrix products are computed when texts are encoded: with `fp32`, rankings are those of sentence-transformers to the last
    /// digit printed; `bf16` is several times as fast on processors with fast instructions for it (AMX, AVX-512 BF16 of AMD), and `auto` takes it there.
    pub precision: Precision,
    /// `extractive`: where the models run: `auto` (the first GPU where CUDA can be had, else the processor), `cpu`, `cuda`, `cuda:1`.
    pub device: Choice,
}

/// Who answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// The retrieved sentences nearest to the query, quoted. Needs no server, but the inputs `baseline` and `tuned`.
    #[default]
    Extractive,
    /// A server that speaks OpenAI's protocol for chat completions.
    Openai,
    /// A deployment on Azure OpenAI, named by the environment variables `AZURE_OPENAI_API_KEY`, `AZURE_OPENAI_ENDPOINT`,
    /// `AZURE_OPENAI_DEPLOYMENT_NAME` and, if wanted, `AZURE_OPENAI_API_VERSION` (2024-02-15-preview).
    AzureOpenai,
}

impl Provider {
    fn name(self) -> &'static str {
        match self {
            Provider::Extractive => "extractive",
            Provider::Openai => "openai",
            Provider::AzureOpenai => "azure_openai",
        }
    }
}

impl Default for Generate {
    fn default() -> Self {
        Generate {
            provider: Provider::default(),
            model: None,
            base_url: "https://api.openai.com/v1".into(),
            api_key_env: "OPENAI_API_KEY".into(),
            top_k: 3,
            sentences: 3,
            temperature: Some(0.1),
            max_tokens: None,
            system_prompt: prompt::SYSTEM.into(),
            prompt: prompt::QUESTION.into(),
            timeout_seconds: 60.0,
            max_retries: 5,
            concurrency: 4,
            precision: Precision::Fp32,
            device: Choice::default(),
        }
    }
}

impl Stage for Generate {
    fn check(&self) -> Result<(), ParameterError> {
        let wrong = |field: &str, message: &str| Err(ParameterError::new(field, message));
        match (self.provider, self.model.as_deref().map(str::trim)) {
            (Provider::Openai, None | Some("")) => {
                return wrong(
                    "model",
                    "`provider: openai` needs a model; name one that the server offers, for example `gpt-4o-mini`",
                );
            }
            (Provider::AzureOpenai, Some(_)) => {
                return wrong(
                    "model",
                    "on Azure the deployment decides the model; set AZURE_OPENAI_DEPLOYMENT_NAME and take `model` out",
                );
            }
            (Provider::Extractive, Some(_)) => {
                return wrong(
                    "model",
                    "`provider: extractive` asks no language model; take `model` out, or choose `provider: openai`",
                );
            }
            _ => {}
        }
        if let Err(message) = address(&self.base_url) {
            return wrong("base_url", &format!("the address {message}"));
        }
        if self.api_key_env.is_empty() || !self.api_key_env.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return wrong("api_key_env", "this is the name of an environment variable, not the key: letters, digits and `_`");
        }
        for (field, value) in [("top_k", self.top_k), ("sentences", self.sentences), ("concurrency", self.concurrency)] {
            if value == 0 {
                return wrong(field, "it must be at least 1");
            }
        }
        if self.concurrency > 256 {
            return wrong("concurrency", "it must be at most 256");
        }
        if self.temperature.is_some_and(|t| !(0.0..=2.0).contains(&t)) {
            return wrong("temperature", "it must be from 0 to 2");
        }
        if self.max_tokens == Some(0) {
            return wrong("max_tokens", "it must be at least 1");
        }
        if !(self.timeout_seconds > 0.0 && self.timeout_seconds <= 86400.0) {
            return wrong("timeout_seconds", "it must be more than 0 and at most 86400");
        }
        match prompt::PLACES.iter().find(|place| !self.prompt.contains(*place)) {
            Some(place) => {
                wrong("prompt", &format!("`{place}` is missing from it; the model would not see what that stands for"))
            }
            None => Ok(()),
        }
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        match self.endpoint()? {
            Some(endpoint) => Ok(vec![External { name: "language model".into(), value: endpoint.identity().to_owned() }]),
            None => computation(surroundings, self.precision, self.device),
        }
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let path = context.input("retrieved")?;
        let rows: Vec<Retrieved> = jsonl::read(path)?;
        ensure!(!rows.is_empty(), "{}: there is no query, so nothing to answer", path.display());
        let mut outcome = Outcome::default();
        let (answers, who) = match self.endpoint()? {
            Some(endpoint) => {
                let who = endpoint.identity().to_owned();
                (self.ask(endpoint, &rows, context, &mut outcome.warnings)?, who)
            }
            None => (self.extract(&rows, context)?, "quoting the nearest sentences".to_owned()),
        };
        jsonl::write(context.output("answers")?, &answers)?;
        let path = context.output("readable")?;
        std::fs::write(path, markdown(&answers, &who)?).with_context(|| format!("failed to write {}", path.display()))?;
        outcome.summary = format!("{} answers, {who}", answers.len());
        Ok(outcome)
    }
}

impl Generate {
    /// Where the language model is, if one is asked.
    fn endpoint(&self) -> Result<Option<Endpoint>> {
        Ok(match self.provider {
            Provider::Extractive => None,
            Provider::Openai => {
                let model = self.model.as_deref().unwrap_or_default().trim();
                Some(Endpoint::openai(&self.base_url, model, &self.api_key_env, &environment)?)
            }
            Provider::AzureOpenai => Some(Endpoint::azure(&environment)?),
        })
    }

    fn passages<'a>(&self, row: &'a Retrieved) -> &'a [RetrievedPassage] {
        row.hits.get(..self.top_k).unwrap_or(&row.hits)
    }

    fn answer(&self, row: &Retrieved, answer: String, sources: impl Iterator<Item = String>) -> Answer {
        let mut ids: Vec<String> = Vec::new();
        for source in sources {
            if !ids.contains(&source) {
                ids.push(source);
            }
        }
        Answer {
            query_id: row.query_id.clone(),
            query: row.query.clone(),
            model: row.model,
            provider: self.provider.name().to_owned(),
            answer,
            sources: ids,
        }
    }

    /// Asks a language model, several questions at once; the answers are in the order of the rows.
    fn ask(&self, endpoint: Endpoint, rows: &[Retrieved], context: &Context, warnings: &mut Vec<String>) -> Result<Vec<Answer>> {
        let backoff = Backoff {
            tries: self.max_retries.saturating_add(1),
            first: Duration::from_secs(1),
            longest: Duration::from_secs(120),
        };
        let chat = Chat::new(endpoint, Patience { timeout: Duration::from_secs_f64(self.timeout_seconds), backoff })?;
        let pool = ThreadPoolBuilder::new().num_threads(self.concurrency).build().context("no threads for the requests")?;
        let done = AtomicU64::new(0);
        let one = |row: &Retrieved| -> Result<(Answer, bool)> {
            let passages = self.passages(row);
            let text = prompt::fill(&self.prompt, &prompt::context(passages), &row.query);
            let question = Question::new(&self.system_prompt, text, self.temperature, self.max_tokens);
            let name = format!("query `{}` ({})", row.query_id, row.model.name());
            let log = |line: &str| context.reporter.log(&format!("{name}: {line}"));
            let reply = chat.ask(&question, &name, context.cancel, &log).with_context(|| name.clone())?;
            let finished = done.fetch_add(1, Ordering::SeqCst) + 1;
            context.progress(finished, rows.len() as u64, "answers", "");
            Ok((self.answer(row, reply.text, passages.iter().map(|p| p.passage.clone())), reply.cut))
        };
        let replies = pool.install(|| rows.par_iter().map(one).collect::<Result<Vec<_>>>())?;
        let cut = replies.iter().filter(|(_, cut)| *cut).count();
        if cut > 0 {
            warnings.push(format!("{cut} of {} answers were cut at the limit of tokens; raise `max_tokens`", replies.len()));
        }
        Ok(replies.into_iter().map(|(answer, _)| answer).collect())
    }

    /// Quotes the nearest sentences, each model judging what it retrieved itself.
    fn extract(&self, rows: &[Retrieved], context: &Context) -> Result<Vec<Answer>> {
        let mut chosen: Vec<Option<Vec<Sentence>>> = vec![None; rows.len()];
        for side in Side::BOTH {
            let indices: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].model == side).collect();
            if indices.is_empty() {
                continue;
            }
            let Some(model) = context.optional_input(side.port()) else {
                bail!(
                    "the provider `extractive` chooses sentences with the model that retrieved them: connect the input `{}` to the {} \
                     model, or choose `provider: openai`",
                    side.port(),
                    side.name()
                );
            };
            let embedder = embedder(context, model, self.precision, self.device)?;
            let questions: Vec<_> = indices.iter().map(|&i| (rows[i].query.as_str(), self.passages(&rows[i]))).collect();
            let progress = |n: usize, of: usize| {
                context.progress(n as u64, of as u64, "texts", format!("encoding with the {} model", side.name()))
            };
            let found = answers(&embedder, &questions, self.sentences, context.cancel, &progress)?;
            for (i, sentences) in indices.into_iter().zip(found) {
                chosen[i] = Some(sentences);
            }
        }
        let answer = |(row, sentences): (&Retrieved, Option<Vec<Sentence>>)| {
            let sentences = sentences.unwrap_or_default();
            let quotes: Vec<String> = sentences.iter().map(|s| format!("“{}” [{}]", s.text, s.passage)).collect();
            self.answer(row, quotes.join("\n\n"), sentences.into_iter().map(|s| s.passage))
        };
        Ok(rows.iter().zip(chosen).map(answer).collect())
    }
}

/// The answers under their queries.
fn markdown(answers: &[Answer], who: &str) -> Result<String> {
    let mut text = format!("# Answers\n\nAnswered by {}.\n", inline(who));
    let mut query: Option<&str> = None;
    for answer in answers {
        if query != Some(answer.query_id.as_str()) {
            write!(text, "\n## {}\n", inline(&answer.query))?;
            query = Some(&answer.query_id);
        }
        let sources = answer.sources.iter().map(|id| inline(id)).collect::<Vec<_>>().join(", ");
        let said = if answer.answer.is_empty() { "> (nothing)\n".to_owned() } else { quote(&answer.answer) };
        write!(text, "\n**{}**\n\n{said}\nSources: {sources}\n", answer.model.name())?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::testing::{KEY, Server, completion, http};
    use crate::model::testing::minilm;
    use crate::stage::testing::Bench;
    use serde_json::json;

    fn row(id: &str, query: &str, model: Side, texts: &[(&str, &str)]) -> Retrieved {
        let hit = |(passage, text): &(&str, &str)| RetrievedPassage {
            passage: (*passage).into(),
            title: String::new(),
            text: (*text).into(),
            score: 0.5,
        };
        Retrieved { query_id: id.into(), query: query.into(), model, hits: texts.iter().map(hit).collect() }
    }

    fn refused(parameters: serde_json::Value) -> String {
        let error = configure::<Generate>(parameters).err().unwrap();
        format!("{}: {}", error.field, error.message)
    }

    #[test]
    fn bad_parameters_are_refused() {
        let messages = [
            refused(json!({ "provider": "openai" })),
            refused(json!({ "provider": "azure_openai", "model": "m" })),
            refused(json!({ "base_url": "https://user:pass@host/v1" })),
            refused(json!({ "api_key_env": "sk-123" })),
            refused(json!({ "prompt": "Answer {query}" })),
            refused(json!({ "temperature": 3.0 })),
            refused(json!({ "timeout_seconds": 0.0 })),
            refused(json!({ "top_k": 0 })),
        ];
        insta::assert_snapshot!(messages.join("\n"), @r"
        model: `provider: openai` needs a model; name one that the server offers, for example `gpt-4o-mini`
        model: on Azure the deployment decides the model; set AZURE_OPENAI_DEPLOYMENT_NAME and take `model` out
        base_url: the address holds a user name or a password, which would be recorded; give the key in an environment variable
        api_key_env: this is the name of an environment variable, not the key: letters, digits and `_`
        prompt: `{context}` is missing from it; the model would not see what that stands for
        temperature: it must be from 0 to 2
        timeout_seconds: it must be more than 0 and at most 86400
        top_k: it must be at least 1
        ");
        assert!(configure::<Generate>(json!({ "temperature": null })).is_ok());
    }

    #[test]
    fn a_language_model_answers_in_the_order_of_the_rows() {
        let server = Server::start(|number, request| match number {
            // The first question is answered last.
            0 => http(503, "", ""),
            _ => completion(request.split("Question: ").nth(1).unwrap().split("\\n").next().unwrap()),
        });
        let rows: Vec<Retrieved> = (0..8)
            .map(|n| row(&format!("q{n}"), &format!("why {n}?"), Side::Baseline, &[("a", "A."), ("b", "B."), ("c", "C.")]))
            .collect();
        let stage = Generate { top_k: 2, ..Generate::default() };
        let bench = Bench::new();
        let answers = stage.ask(server.endpoint(), &rows, &bench.context(&KIND, &[]), &mut Vec::new()).unwrap();
        for (row, answer) in rows.iter().zip(&answers) {
            assert_eq!(
                (&answer.query_id, &answer.answer, &answer.sources[..]),
                (&row.query_id, &row.query, &["a".into(), "b".into()][..])
            );
        }
        assert!(bench.logged().contains("answered with status 503; try 2 of 6"), "{}", bench.logged());
        assert!(server.requests().iter().all(|r| r.contains("source: b") && !r.contains("source: c")));
    }

    #[test]
    fn a_failing_server_fails_the_stage_without_the_key() {
        let server = Server::start(|_, request| http(403, "", request));
        let rows = [row("q0", "why?", Side::FineTuned, &[("a", "A.")])];
        let bench = Bench::new();
        let error = Generate::default().ask(server.endpoint(), &rows, &bench.context(&KIND, &[]), &mut Vec::new()).unwrap_err();
        let message = format!("{error:#}");
        assert!(message.starts_with("query `q0` (fine-tuned): `http://127.0.0.1:"), "{message}");
        assert!(message.contains("status 403") && !message.contains(KEY), "{message}");
    }

    #[test]
    fn sentences_are_quoted_with_their_passages() {
        let bench = Bench::new();
        let rows = [row(
            "q",
            "How do I speed up a slow query?",
            Side::Baseline,
            &[
                ("db.md:0", "Postgres was first released in 1996. An index makes a slow query fast. The mascot is an elephant."),
                ("db.md:1", "Its name is Slonik. Use EXPLAIN to see why a query is slow."),
                ("net.md:0", "A slow query can be sped up by a cache."),
            ],
        )];
        let path = bench.folder.path().join("in.jsonl");
        jsonl::write(&path, &rows).unwrap();
        let inputs = [("retrieved", path), ("baseline", minilm())];
        let parameters = json!({ "sentences": 2, "top_k": 2 });
        let outcome = bench.run(&KIND, parameters.clone(), &inputs).unwrap();
        assert_eq!(outcome.summary, "1 answers, quoting the nearest sentences");
        insta::assert_snapshot!(bench.read("answers.jsonl"), @r#"{"query_id":"q","query":"How do I speed up a slow query?","model":"baseline","provider":"extractive","answer":"“An index makes a slow query fast.” [db.md:0]\n\n“Use EXPLAIN to see why a query is slow.” [db.md:1]","sources":["db.md:0","db.md:1"]}"#);
        insta::assert_snapshot!(bench.read("answers.md"), @r"
        # Answers

        Answered by quoting the nearest sentences.

        ## How do I speed up a slow query?

        **baseline**

        > “An index makes a slow query fast.” [db.md:0]
        >
        > “Use EXPLAIN to see why a query is slow.” [db.md:1]

        Sources: db.md:0, db.md:1
        ");
        let message = bench.run(&KIND, parameters, &inputs[..1]).unwrap_err().to_string();
        insta::assert_snapshot!(message, @"the provider `extractive` chooses sentences with the model that retrieved them: connect the input `baseline` to the baseline model, or choose `provider: openai`");
    }
}

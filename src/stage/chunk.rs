//! The stage `chunk`: splits documents into chunks of whole sentences.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, anyhow, bail};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, configure, schema};
use crate::artifact::{self, Document, Kind, jsonl};
use crate::cancel::Cancel;
use crate::model::tokenizer::TokenCounter;
use crate::text::quiet::quietly;
use crate::text::split::{Count, Splitter};

pub const KIND: StageKind = StageKind {
    name: "chunk",
    version: 1,
    summary: "splits documents into chunks of whole sentences",
    inputs: &[
        Port { name: "documents", kind: Kind::Documents, required: true, many: false, doc: "what to split" },
        Port {
            name: "model",
            kind: Kind::Model,
            required: false,
            many: false,
            doc: "whose tokens to count, with `tokenizer: model`",
        },
    ],
    outputs: &[OutputPort { name: "chunks", kind: Kind::Chunks, file: "chunks.jsonl", doc: "the chunks, in document order" }],
    declared: None,
    unkeyed: &[],
    schema: schema::<Chunk>,
    configure: configure::<Chunk>,
};

/// Splits documents at the ends of paragraphs and sentences into chunks of a limited number of tokens; a text without them is
/// split between clauses, words, and at last characters. The chunks are those of LlamaIndex's `SentenceSplitter`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Chunk {
    /// The most tokens in a chunk.
    pub chunk_size: usize,
    /// The most tokens that a chunk repeats from the end of the chunk before it, in whole sentences.
    pub chunk_overlap: usize,
    /// What counts tokens.
    pub tokenizer: Tokenizer,
    /// What stands between words.
    pub separator: String,
    /// What stands between paragraphs.
    pub paragraph_separator: String,
}

/// What counts tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Tokenizer {
    /// OpenAI's encoding of that name, which LlamaIndex counts with.
    #[serde(rename = "cl100k_base")]
    Cl100kBase,
    /// The tokenizer of the input `model`, without the special tokens around a text.
    #[serde(rename = "model")]
    Model,
}

impl Default for Chunk {
    fn default() -> Self {
        Chunk {
            chunk_size: 512,
            chunk_overlap: 50,
            tokenizer: Tokenizer::Cl100kBase,
            separator: " ".into(),
            paragraph_separator: "\n\n\n".into(),
        }
    }
}

impl Stage for Chunk {
    fn check(&self) -> Result<(), ParameterError> {
        let refuse = |field: &str, message: String| Err(ParameterError::new(field, message));
        if self.chunk_size == 0 {
            return refuse("chunk_size", "a chunk must have room for at least 1 token".into());
        }
        if self.chunk_overlap > self.chunk_size {
            let message = format!("the overlap {} must not be larger than `chunk_size` {}", self.chunk_overlap, self.chunk_size);
            return refuse("chunk_overlap", message);
        }
        for (field, value) in [("separator", &self.separator), ("paragraph_separator", &self.paragraph_separator)] {
            if value.is_empty() {
                return refuse(field, format!("`{field}` must not be empty"));
            }
        }
        Ok(())
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let counter = self.counter(context)?;
        let documents: Vec<Document> = jsonl::read(context.input("documents")?)?;
        let done = AtomicU64::new(0);
        let split = |document: &Document| {
            let chunks = self.split(document, &*counter, context.cancel)?;
            context.progress(done.fetch_add(1, Ordering::Relaxed) + 1, documents.len() as u64, "documents", "splitting");
            Ok(chunks)
        };
        let results: Vec<Result<Vec<artifact::Chunk>>> = documents.par_iter().map(split).collect();
        context.cancel.check()?;
        let chunks: Vec<artifact::Chunk> = results.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        if chunks.is_empty() {
            bail!("no document holds any text, so there is nothing to split");
        }
        jsonl::write(context.output("chunks")?, &chunks)?;
        Ok(Outcome { summary: format!("{} documents, {} chunks", documents.len(), chunks.len()), ..Outcome::default() })
    }
}

impl Chunk {
    fn counter(&self, context: &Context) -> Result<Box<Count<'static>>> {
        match (self.tokenizer, context.optional_input("model")) {
            (Tokenizer::Cl100kBase, None) => Ok(Box::new(cl100k_base)),
            (Tokenizer::Model, Some(model)) => {
                let counter = TokenCounter::open(model)?;
                Ok(Box::new(move |text| counter.count(text)))
            }
            (Tokenizer::Model, None) => {
                bail!(
                    "`tokenizer: model` counts the tokens of a model: connect the input `model`, or set `tokenizer: cl100k_base`"
                )
            }
            (Tokenizer::Cl100kBase, Some(_)) => {
                bail!("the input `model` is connected but not used: set `tokenizer: model`, or remove the input")
            }
        }
    }

    fn split(&self, document: &Document, counter: &Count, cancel: &Cancel) -> Result<Vec<artifact::Chunk>> {
        // Counting is nearly all of the work, so this is where a long document notices that it should stop.
        let count = |text: &str| cancel.check().map_err(anyhow::Error::from).and_then(|()| counter(text));
        let splitter = Splitter {
            chunk_size: self.chunk_size,
            chunk_overlap: self.chunk_overlap,
            separator: &self.separator,
            paragraph_separator: &self.paragraph_separator,
            count: &count,
        };
        let ranges = splitter.split(&document.text).with_context(|| format!("document `{}` cannot be split", document.id))?;
        let chunk = |(number, range): (usize, std::ops::Range<usize>)| artifact::Chunk {
            id: format!("{}:{number}", document.id),
            document: document.id.clone(),
            title: document.title.clone(),
            start: range.start,
            end: range.end,
            text: document.text.get(range).unwrap_or_default().to_owned(),
        };
        Ok(ranges.into_iter().enumerate().map(chunk).collect())
    }
}

/// Counts as tiktoken does with `allowed_special="all"`. Its regular expressions give up, by a panic, on runs of about a
/// million blanks.
fn cl100k_base(text: &str) -> Result<usize> {
    let bpe = tiktoken_rs::cl100k_base_singleton();
    quietly(|| bpe.encode_with_special_tokens(text).len()).map_err(|_| {
        anyhow!("`cl100k_base` cannot count a text of {} bytes that is mostly white space; remove the white space", text.len())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cancel::Cancelled;
    use crate::model::testing::minilm;
    use crate::stage::testing::{Bench, refused};

    fn document(id: &str, text: &str) -> Document {
        Document { id: id.into(), path: id.into(), title: "T".into(), text: text.into(), metadata: Default::default() }
    }

    fn bench(texts: &[&str]) -> Bench {
        let bench = Bench::new();
        let documents: Vec<Document> = texts.iter().enumerate().map(|(i, text)| document(&format!("d{i}"), text)).collect();
        bench.write_rows("documents.jsonl", &documents);
        bench
    }

    const INPUT: &[(&str, &str)] = &[("documents", "documents.jsonl")];

    #[test]
    fn tokens_are_counted_as_tiktoken_does() {
        // From tiktoken: `len(get_encoding("cl100k_base").encode(text, allowed_special="all"))`.
        for (text, tokens) in [("", 0), ("hello world", 2), ("<|endoftext|>", 1), ("埋め込みベクトル🚀", 14)] {
            assert_eq!(cl100k_base(text).unwrap(), tokens, "{text}");
        }
        let error = cl100k_base(&(" ".repeat(3_000_000) + "x")).unwrap_err();
        insta::assert_snapshot!(error, @"`cl100k_base` cannot count a text of 3000001 bytes that is mostly white space; remove the white space");
    }

    #[test]
    fn chunks_are_slices_of_their_documents() {
        let texts = ["One sentence here. And another one, a bit longer! Größe?", " \n ", "Short."];
        let bench = bench(&texts);
        let outcome = bench.run_here(&KIND, json!({ "chunk_size": 6, "chunk_overlap": 0 }), INPUT).unwrap();
        let chunks: Vec<artifact::Chunk> = bench.rows("chunks.jsonl");
        let shown: Vec<_> = chunks.iter().map(|c| (c.id.as_str(), c.document.as_str(), c.text.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("d0:0", "d0", "One sentence here."),
                ("d0:1", "d0", "And another one,"),
                ("d0:2", "d0", "a bit longer!"),
                ("d0:3", "d0", "Größe?"),
                ("d2:0", "d2", "Short.")
            ]
        );
        assert!(chunks[..4].iter().all(|c| texts[0][c.start..c.end] == c.text && c.title == "T"));
        assert_eq!(outcome.summary, "3 documents, 5 chunks");
    }

    #[test]
    fn the_model_counts_without_special_tokens() {
        let bench = bench(&["embeddings retrieve passages. embeddings retrieve passages."]);
        let model = minilm();
        let inputs = [INPUT[0], ("model", model.to_str().unwrap())];
        // `em ##bed ##ding ##s retrieve passages .` is 7 tokens.
        for (size, chunks) in [(7, 2), (14, 1), (13, 2)] {
            bench.run_here(&KIND, json!({ "tokenizer": "model", "chunk_size": size, "chunk_overlap": 0 }), &inputs).unwrap();
            assert_eq!(bench.rows::<artifact::Chunk>("chunks.jsonl").len(), chunks, "{size}");
        }
        insta::assert_snapshot!(bench.run_here(&KIND, json!({}), &inputs).unwrap_err(), @"the input `model` is connected but not used: set `tokenizer: model`, or remove the input");
        insta::assert_snapshot!(bench.run_here(&KIND, json!({ "tokenizer": "model" }), INPUT).unwrap_err(), @"`tokenizer: model` counts the tokens of a model: connect the input `model`, or set `tokenizer: cl100k_base`");
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        let error = |texts: &[&str]| {
            let parameters = json!({ "chunk_size": 2, "chunk_overlap": 0 });
            format!("{:#}", bench(texts).run_here(&KIND, parameters, INPUT).unwrap_err())
        };
        insta::assert_snapshot!(error(&["fine", "not 🫠"]), @"document `d1` cannot be split: the character `🫠` alone has 3 tokens, more than `chunk_size` 2; raise `chunk_size`");
        insta::assert_snapshot!(error(&[" "]), @"no document holds any text, so there is nothing to split");
        let bench = bench(&["text"]);
        bench.cancel.set();
        assert!(bench.run_here(&KIND, json!({}), INPUT).unwrap_err().is::<Cancelled>());
    }

    #[test]
    fn bad_parameters_are_refused() {
        insta::assert_snapshot!(refused(&KIND, json!({ "chunk_size": 0 })), @"chunk_size: a chunk must have room for at least 1 token");
        insta::assert_snapshot!(refused(&KIND, json!({ "chunk_size": 40 })), @"chunk_overlap: the overlap 50 must not be larger than `chunk_size` 40");
        insta::assert_snapshot!(refused(&KIND, json!({ "paragraph_separator": "" })), @"paragraph_separator: `paragraph_separator` must not be empty");
        insta::assert_snapshot!(refused(&KIND, json!({ "tokenizer": "gpt2" })), @"tokenizer: unknown variant `gpt2`, expected `cl100k_base` or `model`");
    }
}

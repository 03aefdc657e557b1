//! `retune encode`: texts to embeddings, with any model directory that retune can open.

use std::io::{self, BufRead, BufWriter, Write};
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::{Failure, Global};
use crate::cancel::Cancel;
use crate::model::embedder::Embedder;
use crate::runtime::cache;
use crate::runtime::device::{Choice, Runtime};
use crate::runtime::precision::Precision;

/// Reads one text a line from the standard input and prints one embedding a line, as a JSON array of numbers.
#[derive(Args)]
pub(super) struct Encode {
    /// A sentence-transformers directory, for example `runs/…/artifacts/tuned/model`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Put the model's prompt of this name before every text: `query`, `document`, or another that it has. Without it, the model's
    /// default prompt, if it has one
    #[arg(long, value_name = "NAME")]
    prompt: Option<String>,
    /// Put this before every text, whatever prompts the model has: "query: "
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt")]
    prompt_text: Option<String>,
    /// How exactly matrix products are computed: `fp32`, `bf16` (fast on processors with AMX, or AVX-512 BF16 of AMD), `auto` (`bf16` on those), `fp16`
    /// (on GPUs)
    #[arg(long, value_enum, value_name = "PRECISION", default_value_t = Precision::Fp32, hide_possible_values = true)]
    precision: Precision,
    /// Where the model runs: `auto` (the first GPU where CUDA can be had, else the processor), `cpu`, `cuda`, `cuda:1`
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Choice,
}

impl Encode {
    pub fn call(&self, global: &Global) -> Result<(), Failure> {
        let runtime = Runtime::choose(self.device, &cache::folder()).map_err(Failure::Call)?;
        let texts = io::stdin().lock().lines().collect::<io::Result<Vec<String>>>().map_err(|e| Failure::Call(e.into()))?;
        let embedder = Embedder::open(&self.model, self.precision, &runtime).map_err(Failure::Call)?;
        let prompts = embedder.prompts();
        let prompt = match (&self.prompt_text, &self.prompt) {
            (Some(text), _) => text,
            (None, Some(name)) => prompts.get(name).map_err(|message| {
                Failure::Call(anyhow!("{message}; to put a text of your own before every line, use `--prompt-text`"))
            })?,
            (None, None) => prompts.plain(),
        };
        let vectors = embedder.encode_prompted(prompt, &texts, &Cancel::default(), &|_| ()).map_err(Failure::Failed)?;
        let mut out = BufWriter::new(io::stdout().lock());
        for (text, row) in texts.iter().zip(vectors.rows()) {
            let vector = row.to_vec();
            let line = if global.json { json!({ "text": text, "embedding": vector }) } else { json!(vector) };
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        Ok(())
    }
}

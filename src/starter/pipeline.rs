//! The text of a first pipeline.

use serde_json::Value;

use super::corpus::{CHUNK_OVERLAP, CHUNK_SIZE, Corpus};

/// With fewer passages, the first ranks cannot be left out when negatives are drawn.
const SMALL: usize = 60;

const TEMPLATE: &str = r#"# yaml-language-server: $schema=../schemas/pipeline.schema.json
#
# Run it:                    retune run pipelines/{name}.yaml
# What would run, and why:   retune plan pipelines/{name}.yaml
# Try other values:          retune sweep pipelines/{name}.yaml --over tuned.lr=1e-5,3e-5 --over seed=1..3
# A kind of stage:           retune stages train
name: {name}
description: Fine-tunes a sentence encoder on these documents and shows what that does to retrieval.

params:
  base: all-MiniLM-L6-v2   # a known name, a folder, `hf:ORG/NAME@REVISION`, …
  epochs: 2
  seed: 42

stages:
  # The documents, and the pieces of them that are retrieved. The encoder reads at most 256 tokens and cuts the rest off.
  docs: { uses: load, with: {load} }
  chunks: { uses: chunk, inputs: { documents: docs }, with: { chunk_size: {size}, chunk_overlap: {overlap} } }

  # Queries and what answers them: to learn from, to choose the best checkpoint by, and to measure with.
{queries}  train-queries: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries/{name}/train.jsonl } }
  dev-queries: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries/{name}/dev.jsonl } }
  test-queries: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries/{name}/test.jsonl } }

  # The model to start from.
  base: { uses: model, with: { source: "${params.base}" } }

  # For each training query its passage, and passages that the untrained model takes for it and that are not.
  triplets:
    uses: mine
    inputs: { judgements: train-queries, model: base }
    with: { {mine}, seed: "${params.seed}" }

  # A small margin leaves alone what is right already.
  tuned:
    uses: train
    inputs: { model: base, triplets: triplets, eval: dev-queries }
    with:
      loss: { name: triplet, distance: cosine, margin: 0.1 }
      epochs: ${params.epochs}
      batch_size: 8
      lr: 1e-5
      seed: ${params.seed}
      base_model: ${params.base}

  # The same queries with both models: the table at the end of the run.
  baseline: { uses: evaluate, inputs: { model: base, judgements: test-queries } }
  fine-tuned: { uses: evaluate, inputs: { model: tuned, judgements: test-queries } }
  comparison: { uses: compare, inputs: { baseline: baseline, tuned: fine-tuned } }
"#;

const MADE_UP: &str = "  # `retune init` made these from the documents: headings (or first sentences) that ask for what stands below them. They show that
  # everything works, and say little of how real questions fare. Replace them with real ones: queries/{name}/README.md.
";

/// The pipeline called `name` for the documents.
pub fn text(name: &str, corpus: &Corpus, made_up: bool) -> String {
    let mine = if corpus.chunks.len() < SMALL {
        "negatives: 1, negatives_from: hard, range_min: 0, range_max: 10"
    } else {
        "negatives: 2, negatives_from: hard, range_min: 2, range_max: 30"
    };
    TEMPLATE
        .replace("{load}", &flow(&corpus.load))
        .replace("{size}", &CHUNK_SIZE.to_string())
        .replace("{overlap}", &CHUNK_OVERLAP.to_string())
        .replace("{mine}", mine)
        .replace("{queries}", if made_up { MADE_UP } else { "" })
        .replace("{name}", name)
}

/// The parameters of `load` on one line.
fn flow(load: &Value) -> String {
    let text = |value: &Value| match value {
        // A path may hold what looks like a reference.
        Value::String(text) if text.chars().all(|c| c.is_ascii_alphanumeric() || "./_-".contains(c)) => text.clone(),
        Value::String(text) => Value::String(text.replace("${", "$${")).to_string(),
        other => other.to_string(),
    };
    let mut entries: Vec<(&String, &Value)> = load.as_object().into_iter().flatten().collect();
    // What people look for stands first.
    entries.sort_by_key(|(name, _)| *name != "path");
    let entries: Vec<String> = entries.into_iter().map(|(name, value)| format!("{name}: {}", text(value))).collect();
    format!("{{ {} }}", entries.join(", "))
}

//! Models with prompts and modules, from a folder through training to what is exported.

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{Ended, Project};
use retune::model::weights::Weights;
use serde_json::{Value, json};

const PIPELINE: &str = r#"name: models
stages:
  docs: { uses: load, with: { path: ../docs } }
  chunks: { uses: chunk, inputs: { documents: docs }, with: { chunk_size: 24, chunk_overlap: 4 } }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries.jsonl } }
  triplets: { uses: mine, inputs: { judgements: judged }, with: { seed: 7 } }
  base: { uses: model, with: { source: ../model } }
  tuned: { uses: train, inputs: { model: base, triplets: triplets }, with: { epochs: 1, batch_size: 2, lr: 0.01, prompts: { query: "ask : " } } }
  plain: { uses: evaluate, inputs: { model: base, judgements: judged }, with: { prompts: { query: "", document: "" } } }
  own: { uses: evaluate, inputs: { model: base, judgements: judged } }
"#;

const WORDS: &str = "[UNK] [CLS] [SEP] [PAD] query passage ask : bert reads a sentence from both sides at once container shares the kernel \
     of its host and starts in resource is named by address get must not change it how what keeps data removed too many requests";

/// A small encoder with random weights, the mean and the largest of its token vectors, a Dense layer, and prompts.
fn model(project: &Project) {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let vocabulary: serde_json::Map<String, Value> =
        words.iter().zip(0..).map(|(w, i): (&&str, i32)| ((*w).to_owned(), json!(i))).collect();
    let config = json!({ "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12,
        "vocab_size": words.len(), "max_position_embeddings": 64 });
    let special = |id: usize, text: &str| json!({ "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let piece = |id: &str| json!({ "SpecialToken": { "id": id, "type_id": 0 } });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "decoder": null,
        "added_tokens": [special(1, "[CLS]"), special(2, "[SEP]")],
        "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": { "type": "TemplateProcessing", "single": [piece("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, piece("[SEP]")], "pair": [],
            "special_tokens": { "[CLS]": { "id": "[CLS]", "ids": [1], "tokens": ["[CLS]"] }, "[SEP]": { "id": "[SEP]", "ids": [2], "tokens": ["[SEP]"] } } },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" }
    });
    let kind = |kind: &str| format!("sentence_transformers.models.{kind}");
    let modules = json!([
        { "idx": 0, "path": "", "type": kind("Transformer") },
        { "idx": 1, "path": "1_Pooling", "type": kind("Pooling") },
        { "idx": 2, "path": "2_Dense", "type": kind("Dense") },
        { "idx": 3, "path": "3_Normalize", "type": kind("Normalize") },
    ]);
    let prompts = json!({ "prompts": { "query": "query : ", "passage": "passage : " } });
    for (name, value) in [
        ("config.json", &config),
        ("tokenizer.json", &tokenizer),
        ("modules.json", &modules),
        ("config_sentence_transformers.json", &prompts),
        ("1_Pooling/config.json", &json!({ "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true })),
        (
            "2_Dense/config.json",
            &json!({ "in_features": 16, "out_features": 6, "activation_function": "torch.nn.modules.activation.Tanh" }),
        ),
        ("sentence_bert_config.json", &json!({ "max_seq_length": 32 })),
    ] {
        project.write(&format!("model/{name}"), value.to_string());
    }
    let mut weights = Weights::default();
    let mut add = |name: &str, shape: &[usize]| {
        let seed = name.len() as f32;
        let data = (0..shape.iter().product::<usize>()).map(|i| (seed + i as f32 * 1.7).sin() * 0.5);
        // A file written from a model with a head.
        let name = if name.starts_with("2_") { name.to_owned() } else { format!("bert.{name}") };
        weights.insert(&name, shape, data.collect());
    };
    add("embeddings.word_embeddings.weight", &[words.len(), 8]);
    add("embeddings.position_embeddings.weight", &[64, 8]);
    add("embeddings.token_type_embeddings.weight", &[2, 8]);
    for name in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
        add(&format!("encoder.layer.0.{name}.weight"), &[8, 8]);
        add(&format!("encoder.layer.0.{name}.bias"), &[8]);
    }
    for (name, shape) in
        [("encoder.layer.0.intermediate.dense", [12, 8]), ("encoder.layer.0.output.dense", [8, 12]), ("2_Dense.linear", [6, 16])]
    {
        add(&format!("{name}.weight"), &shape);
        add(&format!("{name}.bias"), &shape[..1]);
    }
    for name in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        add(&format!("{name}.LayerNorm.weight"), &[8]);
        add(&format!("{name}.LayerNorm.bias"), &[8]);
    }
    weights.write(&project.path("model/model.safetensors")).unwrap();
}

fn encode(project: &Project, arguments: &[&str], text: &str) -> Ended {
    let mut child = project
        .command(&[&["encode"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may have ended before it reads.
    let _ = writeln!(child.stdin.take().unwrap(), "{text}");
    Ended(child.wait_with_output().unwrap())
}

#[test]
fn prompts_go_before_texts() {
    let project = Project::new(PIPELINE);
    model(&project);
    let vector = |arguments: &[&str], text: &str| encode(&project, arguments, text).succeeded().stdout();
    let query = vector(&["model", "--prompt", "query"], "a sentence");
    assert_eq!(query, vector(&["model", "--prompt-text", "query : "], "a sentence"));
    assert_eq!(query, vector(&["model"], "query : a sentence"));
    let document = vector(&["model", "--prompt", "document"], "a sentence");
    assert_eq!(document, vector(&["model", "--prompt", "passage"], "a sentence"));
    assert_eq!(document, vector(&["model"], "passage : a sentence"));
    assert_ne!(query, document);
    assert_eq!(serde_json::from_str::<Vec<f32>>(&query).unwrap().len(), 6);
    let ended = encode(&project, &["model", "--prompt", "quary"], "x");
    assert_eq!(ended.status(), 2);
    insta::assert_snapshot!(ended.stderr(), @"error: the model has no prompt `quary`; it has `passage`, `query`, `document`; to put a text of your own before every line, use `--prompt-text`");
}

#[test]
fn prompts_and_modules_come_through_training() {
    let project = Project::new(PIPELINE);
    model(&project);
    let record = project.run(&[]);
    let run = project.path("runs").join(record["id"].as_str().unwrap()).join("artifacts");
    let tuned = run.join("tuned/model");
    let json = |path: &str| serde_json::from_slice::<Value>(&std::fs::read(tuned.join(path)).unwrap()).unwrap();
    let prompts = json!({ "query": "ask : ", "passage": "passage : ", "document": "passage : " });
    assert_eq!(json("config_sentence_transformers.json")["prompts"], prompts);
    let types: Vec<String> =
        json("modules.json").as_array().unwrap().iter().map(|m| m["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types, ["", "1_Pooling", "2_Dense", "3_Normalize"]);
    assert_eq!(json("1_Pooling/config.json")["pooling_mode"], json!(["max", "mean"]));
    assert_eq!(json("2_Dense/config.json")["out_features"], 6);
    let read = |folder: &Path| Weights::read(&folder.join("model.safetensors")).unwrap();
    let (before, after) = (read(&project.path("model")), read(&tuned));
    assert_eq!(before.names().collect::<Vec<_>>(), after.names().collect::<Vec<_>>());
    for name in ["2_Dense.linear.weight", "encoder.layer.0.output.dense.weight"] {
        assert_ne!(before.get(name), after.get(name), "{name} was not trained");
    }
    let bytes = std::fs::read(tuned.join("model.safetensors")).unwrap();
    let names = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(names.names().iter().all(|name| name.starts_with("bert.")), "{:?}", names.names());
    let query = encode(&project, &[tuned.to_str().unwrap(), "--prompt", "query"], "a sentence").succeeded().stdout();
    assert_eq!(query, encode(&project, &[tuned.to_str().unwrap()], "ask : a sentence").succeeded().stdout());
    let rankings = ["own", "plain"].map(|stage| std::fs::read_to_string(run.join(stage).join("ranking.trec")).unwrap());
    assert_ne!(rankings[0], rankings[1], "the model's prompts made no difference");
}

#[test]
fn two_prompts_for_documents_are_refused() {
    let project = Project::new(&PIPELINE.replace("{ query: \"\", document: \"\" }", "{ passage: \"p\", document: \"d\" }"));
    model(&project);
    let ended = project.retune(&["plan", "pipelines/p.yaml"]);
    assert_eq!(ended.status(), 2);
    assert!(ended.stderr().contains("`passage` is another name of `document`; give one of them"), "{}", ended.stderr());
}

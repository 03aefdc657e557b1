//! A small BERT with random weights, so that a training takes a moment.

use std::fs;
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retune::model::weights::Weights;
use serde_json::{Map, Value, json};

const HIDDEN: usize = 16;
const INNER: usize = 32;
const LAYERS: usize = 2;
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz0123456789";

/// Writes a sentence-transformers directory into the new folder `folder`: about 8,000 parameters, one token a letter.
pub fn write(folder: &Path) {
    fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    let put = |name: &str, value: &Value| fs::write(folder.join(name), value.to_string()).unwrap();
    let mut vocabulary = Map::new();
    let letters = LETTERS.chars().flat_map(|letter| [letter.to_string(), format!("##{letter}")]);
    for (id, token) in ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned).into_iter().chain(letters).enumerate() {
        vocabulary.insert(token, id.into());
    }
    let config = json!({
        "model_type": "bert", "vocab_size": vocabulary.len(), "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "intermediate_size": INNER, "max_position_embeddings": 64, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    });
    put("config.json", &config);
    let module = |idx: usize, path: &str, kind: &str| json!({ "idx": idx, "name": idx.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}") });
    put(
        "modules.json",
        &json!([module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling"), module(2, "2_Normalize", "Normalize")]),
    );
    put("1_Pooling/config.json", &json!({ "word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": true }));
    put("sentence_bert_config.json", &json!({ "max_seq_length": 48, "do_lower_case": false }));
    put("tokenizer_config.json", &json!({ "model_max_length": 48 }));
    put("tokenizer.json", &tokenizer(&vocabulary));
    weights(vocabulary.len()).write(&folder.join("model.safetensors")).unwrap();
}

fn tokenizer(vocabulary: &Map<String, Value>) -> Value {
    let special = |id: usize, token: &str| json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary },
    })
}

fn weights(vocabulary: usize) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut weights = Weights::default();
    let mut random = |name: &str, shape: &[usize]| {
        let data = (0..shape.iter().product()).map(|_| rng.random_range(-0.3..0.3)).collect();
        weights.insert(name, shape, data);
    };
    random("embeddings.word_embeddings.weight", &[vocabulary, HIDDEN]);
    random("embeddings.position_embeddings.weight", &[64, HIDDEN]);
    random("embeddings.token_type_embeddings.weight", &[2, HIDDEN]);
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..LAYERS {
        let mut linear = |part: &str, from: usize, to: usize| {
            random(&format!("encoder.layer.{layer}.{part}.weight"), &[to, from]);
            random(&format!("encoder.layer.{layer}.{part}.bias"), &[to]);
        };
        for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            linear(part, HIDDEN, HIDDEN);
        }
        linear("intermediate.dense", HIDDEN, INNER);
        linear("output.dense", INNER, HIDDEN);
        norms.extend(["attention.output", "output"].map(|part| format!("encoder.layer.{layer}.{part}.LayerNorm")));
    }
    for norm in norms {
        weights.insert(&format!("{norm}.weight"), &[HIDDEN], vec![1.0; HIDDEN]);
        weights.insert(&format!("{norm}.bias"), &[HIDDEN], vec![0.0; HIDDEN]);
    }
    weights
}

//! The model card: the `README.md` of a model directory, with the YAML front matter that model hubs read.

use std::fmt::Write;

/// What the card tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Card {
    /// The model it was trained from.
    pub base_model: String,
    /// Name and value of each setting.
    pub settings: Vec<(String, String)>,
    /// What it was trained on.
    pub data: String,
    /// A few examples of the data, each a list of column name and text.
    pub examples: Vec<Vec<(String, String)>>,
    /// Evaluations: heading (step), and figures by name.
    pub evaluations: Vec<(String, Vec<(String, f64)>)>,
    /// Which of the evaluations the weights belong to.
    pub best: Option<usize>,
    pub dimensions: usize,
    pub max_seq_length: usize,
    /// `mean`, `cls`, `mean + max`.
    pub pooling: String,
    pub normalize: bool,
}

impl Card {
    /// The card as Markdown.
    pub fn render(&self) -> String {
        let mut card = String::from("---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n");
        // A folder on somebody's disk is no name of a model.
        if !self.base_model.contains('/') || self.base_model.split('/').count() == 2 && !self.base_model.starts_with('.') {
            let _ = writeln!(card, "base_model: {}", yaml(&self.base_model));
        }
        card.push_str("tags:\n- sentence-transformers\n- sentence-similarity\n- feature-extraction\n- retune\n---\n\n# A fine-tuned sentence embedding model\n\n");
        let _ = writeln!(
            card,
            "Fine-tuned from `{}` with retune {}. It maps a text to a vector of {} numbers{}, \
             from the {} of its token vectors; texts are cut after {} tokens.\n",
            self.base_model,
            env!("CARGO_PKG_VERSION"),
            self.dimensions,
            if self.normalize { " of length 1" } else { "" },
            self.pooling,
            self.max_seq_length
        );
        card.push_str("```python\nfrom sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer(\"path/to/this/folder\")\n");
        card.push_str("embeddings = model.encode([\"a question\", \"a passage\"])\n```\n\n`onnx/model.onnx` is the same encoder for ONNX Runtime: \
             token ids in, token vectors (`last_hidden_state`) out.\n\n## Training data\n\n");
        let _ = writeln!(card, "{}\n", self.data);
        if let Some(first) = self.examples.first() {
            let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
            table(&mut card, &names, self.examples.iter().map(|e| e.iter().map(|(_, text)| excerpt(text)).collect()));
        }
        card.push_str("## Settings\n\n");
        table(&mut card, &["setting", "value"], self.settings.iter().map(|(k, v)| vec![format!("`{k}`"), cell(v)]));
        if let Some((_, figures)) = self.evaluations.first() {
            card.push_str("## Evaluations during training\n\n");
            let names: Vec<&str> = std::iter::once("step").chain(figures.iter().map(|(name, _)| name.as_str())).collect();
            let rows = self.evaluations.iter().enumerate().map(|(i, (step, figures))| {
                let step = if Some(i) == self.best { format!("**{step}** (kept)") } else { step.clone() };
                std::iter::once(step).chain(figures.iter().map(|(_, value)| format!("{value:.4}"))).collect()
            });
            table(&mut card, &names, rows);
        }
        card.truncate(card.trim_end().len());
        card.push('\n');
        card
    }
}

fn table(card: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(card, "| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let _ = writeln!(card, "| {} |", row.join(" | "));
    }
    card.push('\n');
}

/// A text that fits a table's cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn excerpt(text: &str) -> String {
    let text = cell(text);
    if text.chars().count() <= 120 { text } else { text.chars().take(119).collect::<String>() + "…" }
}

/// A text as a YAML scalar.
fn yaml(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_was_done() {
        let card = Card {
            base_model: "all-MiniLM-L6-v2".into(),
            settings: vec![("lr".into(), "0.00002".into()), ("loss".into(), "triplet loss | margin 5".into())],
            data: "2 triplets.".into(),
            examples: vec![vec![("anchor".into(), "a | b\nc".into()), ("positive".into(), "x".repeat(200))]],
            evaluations: vec![("50".into(), vec![("ndcg@10".into(), 0.5)]), ("60".into(), vec![("ndcg@10".into(), 0.6)])],
            best: Some(1),
            dimensions: 384,
            max_seq_length: 256,
            pooling: "mean".into(),
            normalize: true,
        };
        let text = card.render();
        assert!(text.starts_with("---\nlibrary_name: sentence-transformers\n"));
        for part in ["base_model: \"all-MiniLM-L6-v2\"", "| a \\| b c |", "| **60** (kept) | 0.6000 |", "| `lr` | 0.00002 |"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}

//! Choosing weights by their names.

use anyhow::{Result, anyhow, bail};
use globset::{GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which weights are trained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// All of them.
    #[default]
    All,
    /// Those of the last so many layers, and what comes after the layers.
    LastLayers(#[schemars(description = "How many layers.")] usize),
    /// All but those that a pattern means.
    Except(#[schemars(description = "Names, or patterns with `*`.")] Vec<String>),
    /// Those that a pattern means.
    Only(#[schemars(description = "Names, or patterns with `*`.")] Vec<String>),
}

/// A pattern of names: `*` stands for any characters. A pattern means the weights of that name and those below it, so `embeddings` means
/// `embeddings.word_embeddings.weight` too.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    name: GlobMatcher,
    below: GlobMatcher,
}

impl Pattern {
    /// # Errors
    /// What is wrong with the pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        let glob = |text: &str| {
            let built = GlobBuilder::new(text).literal_separator(false).backslash_escape(false).build();
            built.map(|glob| glob.compile_matcher()).map_err(|e| format!("`{text}` is no pattern of names: {}", e.kind()))
        };
        if text.trim().is_empty() {
            return Err("a pattern of names is empty; write one as `encoder.layer.5.*`".to_owned());
        }
        Ok(Pattern { text: text.to_owned(), name: glob(text)?, below: glob(&format!("{text}.*"))? })
    }

    pub fn means(&self, name: &str) -> bool {
        self.name.is_match(name) || self.below.is_match(name)
    }

    /// Whether it is the pattern of this very name.
    pub fn is(&self, name: &str) -> bool {
        self.name.is_match(name)
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Reads patterns.
///
/// # Errors
/// The first that is none, with its place in the list.
pub fn patterns(texts: &[String]) -> Result<Vec<Pattern>, (usize, String)> {
    texts.iter().enumerate().map(|(at, text)| Pattern::parse(text).map_err(|message| (at, message))).collect()
}

/// The first of the patterns that means none of the names is an error: it was meant for something.
///
/// # Errors
/// Names the pattern and some of the names that there are.
pub fn check<'p>(patterns: impl IntoIterator<Item = &'p Pattern>, names: &[&str]) -> Result<()> {
    match patterns.into_iter().find(|pattern| !names.iter().any(|name| pattern.means(name))) {
        Some(pattern) => Err(nothing(&pattern.text, names)),
        None => Ok(()),
    }
}

/// The error of a pattern that means nothing.
fn nothing(pattern: &str, names: &[&str]) -> anyhow::Error {
    let parts = pattern.split('.').count();
    let heads = names.iter().map(|name| name.splitn(parts + 1, '.').take(parts).collect::<Vec<_>>().join("."));
    let near = heads.min_by_key(|head| (strsim::osa_distance(head, pattern), head.clone()));
    let near = near.map(|head| format!("; did you mean `{head}`?")).unwrap_or_default();
    anyhow!("`{pattern}` means none of the model's {} weights{near}", names.len())
}

/// The number of the layer that a weight belongs to: the first number among the parts of its name (`encoder.layer.5.output.dense.bias`).
pub fn layer(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

impl Selection {
    /// Whether each of the weights is trained; `names` are in the order in which the encoder uses them.
    ///
    /// # Errors
    /// A pattern is none or means nothing, or nothing would be trained.
    pub fn choose(&self, names: &[&str]) -> Result<Vec<bool>> {
        let chosen: Vec<bool> = match self {
            Selection::All => vec![true; names.len()],
            Selection::LastLayers(count) => last_layers(names, *count)?,
            Selection::Except(texts) | Selection::Only(texts) => {
                let patterns = patterns(texts).map_err(|(_, message)| anyhow!(message))?;
                check(&patterns, names)?;
                let only = matches!(self, Selection::Only(_));
                names.iter().map(|name| patterns.iter().any(|pattern| pattern.means(name)) == only).collect()
            }
        };
        if !chosen.contains(&true) {
            bail!("`train` leaves none of the model's weights to be trained");
        }
        Ok(chosen)
    }
}

fn last_layers(names: &[&str], count: usize) -> Result<Vec<bool>> {
    let layers = names.iter().filter_map(|name| layer(name)).max().map_or(0, |last| last + 1);
    if count > layers {
        bail!("`train` names the last {count} layers, and the model has {layers}");
    }
    let last = names.iter().rposition(|name| layer(name).is_some()).unwrap_or(names.len());
    let chosen = |(at, name): (usize, &&str)| match layer(name) {
        Some(layer) => layer >= layers - count,
        None => at > last,
    };
    Ok(names.iter().enumerate().map(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 7] = [
        "embeddings.word_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.0.output.dense.weight",
        "encoder.layer.1.attention.self.query.weight",
        "encoder.layer.1.output.dense.weight",
        "dense.weight",
    ];

    fn chosen(yaml: &str) -> Result<String> {
        let value: serde_json::Value = serde_yaml::from_str(yaml)?;
        let selection: Selection = serde_json::from_value(value)?;
        Ok(selection.choose(&NAMES)?.iter().map(|&chosen| if chosen { 'x' } else { '.' }).collect())
    }

    #[test]
    fn weights_are_chosen() {
        let cases = [
            ("all", "xxxxxxx"),
            ("last_layers: 1", "....xxx"),
            ("last_layers: 2", "..xxxxx"),
            ("last_layers: 0", "......x"),
            ("except: [embeddings]", "..xxxxx"),
            ("only: [encoder.layer.1]", "....xx."),
            ("only: ['encoder.layer.*.query.weight', dense]", "..x.x.x"),
            ("except: ['*.bias']", "x.xxxxx"),
            ("only: ['*.layer.[01].output']", "...x.x."),
        ];
        for (yaml, expected) in cases {
            assert_eq!(chosen(yaml).unwrap(), expected, "{yaml}");
        }
    }

    #[test]
    fn what_means_nothing_is_told() {
        let message = |yaml: &str| chosen(yaml).unwrap_err().to_string();
        insta::assert_snapshot!(message("only: [encoder.layers.1]"), @"`encoder.layers.1` means none of the model's 7 weights; did you mean `encoder.layer.1`?");
        insta::assert_snapshot!(message("last_layers: 3"), @"`train` names the last 3 layers, and the model has 2");
        insta::assert_snapshot!(message("except: ['*']"), @"`train` leaves none of the model's weights to be trained");
        insta::assert_snapshot!(message("only: ['a[']"), @"`a[` is no pattern of names: unclosed character class; missing ']'");
        insta::assert_snapshot!(message("only: ['']"), @"a pattern of names is empty; write one as `encoder.layer.5.*`");
    }
}

//! Low-rank adapters beside linear layers (Hu et al., "LoRA", 2021): y = x·Wᵀ + b + (alpha / rank)·(x·Aᵀ)·Bᵀ, in which A and B alone are
//! trained. At the end they are merged into W, so the model is of the form it had.

use anyhow::{Result, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::select::Pattern;
use crate::model::builder::Adapter;
use crate::model::weights::Weights;

/// The queries and values of attention, by their names in the families of encoders; in some they are one layer with the keys.
const DEFAULT_TARGETS: [&str; 7] = ["query", "value", "q_lin", "v_lin", "attn.q", "attn.v", "Wqkv"];

/// Low-rank adapters beside linear layers, which alone are trained and are merged into the model at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// The inner dimension of an adapter.
    pub rank: usize,
    /// What comes out of an adapter is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Ends of the names of linear layers that get one: `query`, `output.dense`, `layer.5.*.value`. When empty, the queries and values of
    /// attention.
    pub target_modules: Vec<String>,
}

impl Default for Lora {
    fn default() -> Self {
        Lora { rank: 8, alpha: 8.0, target_modules: Vec::new() }
    }
}

impl Lora {
    /// A bad setting: the field and what to do about it.
    pub fn check(&self) -> Result<(), (String, String)> {
        if self.rank == 0 {
            return Err(("rank".to_owned(), "the rank must be at least 1".to_owned()));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(("alpha".to_owned(), format!("`alpha` must be above 0, for example the rank, not {}", self.alpha)));
        }
        let bad = |(at, text): (usize, &String)| Pattern::parse(text).err().map(|m| (format!("target_modules[{at}]"), m));
        self.target_modules.iter().enumerate().find_map(bad).map_or(Ok(()), Err)
    }

    pub fn targets(&self) -> Result<Targets> {
        let texts: Vec<&str> = match self.target_modules.as_slice() {
            [] => DEFAULT_TARGETS.to_vec(),
            given => given.iter().map(String::as_str).collect(),
        };
        let read =
            |text: &str| -> Result<[Pattern; 2], String> { Ok([Pattern::parse(text)?, Pattern::parse(&format!("*.{text}"))?]) };
        let patterns = texts.into_iter().map(read).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
        let adapter = Adapter { rank: self.rank, scale: (self.alpha / self.rank as f64) as f32 };
        Ok(Targets { patterns, adapter, given: !self.target_modules.is_empty() })
    }
}

/// Which linear layers get an adapter.
pub struct Targets {
    patterns: Vec<[Pattern; 2]>,
    adapter: Adapter,
    given: bool,
}

impl Targets {
    /// The adapter of a linear layer.
    pub fn of(&self, layer: &str) -> Option<Adapter> {
        self.patterns.iter().flatten().any(|pattern| pattern.is(layer)).then_some(self.adapter)
    }

    /// Whether every target is there.
    ///
    /// # Errors
    /// Names one that is not, and the ends of names that there are.
    pub fn check(&self, weights: &[&str]) -> Result<()> {
        let adapted: Vec<&str> = weights.iter().filter_map(|name| name.strip_suffix(".lora_A.weight")).collect();
        let missing = self.patterns.iter().find(|pair| !adapted.iter().any(|layer| pair.iter().any(|p| p.is(layer))));
        let problem = match missing {
            Some([pattern, _]) if self.given => format!("`{}` means none of the model's linear layers", pattern.text()),
            _ if adapted.is_empty() => "which layers give queries and values is not known of this model; name some".to_owned(),
            _ => return Ok(()),
        };
        let mut ends: Vec<&str> = weights
            .iter()
            .filter(|name| super::select::layer(name).is_some())
            .filter_map(|name| name.strip_suffix(".weight")?.rsplit('.').next())
            .filter(|end| !matches!(*end, "lora_A" | "lora_B"))
            .collect();
        ends.sort_unstable();
        ends.dedup();
        bail!("`lora.target_modules`: {problem}; names of layers end with `{}`", ends.join("`, `"))
    }
}

/// What `name` begins with when it is a weight of an adapter: A as peft does, uniformly up to 1/√(number of inputs) (Kaiming's
/// initialisation with a = √5), drawn from `seed` and the name; B with zeros, so that the adapter does nothing at first.
pub fn initial(name: &str, shape: &[usize], seed: u64) -> Option<Vec<f32>> {
    let size: usize = shape.iter().product();
    if name.ends_with(".lora_B.weight") {
        return Some(vec![0.0; size]);
    }
    name.strip_suffix(".lora_A.weight")?;
    let bound = 1.0 / (shape.last().copied().unwrap_or(1).max(1) as f32).sqrt();
    let mut own = blake3::Hasher::new();
    own.update(&seed.to_le_bytes()).update(name.as_bytes());
    let mut rng = ChaCha8Rng::from_seed(own.finalize().into());
    Some((0..size).map(|_| rng.random_range(-bound..bound)).collect())
}

/// Adds to every weight the product of its adapter: W + scale·B·A. `trained` has the adapters' weights by name.
pub fn merge(weights: &mut Weights, trained: &[(&str, &[f32])], scale: f32) {
    let find = |name: &str| trained.iter().find(|(other, _)| *other == name).map(|(_, data)| *data);
    for (name, a) in trained {
        let Some(layer) = name.strip_suffix(".lora_A.weight") else { continue };
        let Some(b) = find(&format!("{layer}.lora_B.weight")) else { continue };
        let name = format!("{layer}.weight");
        let Some(inputs) = weights.get(&name).and_then(|(shape, _)| shape.last().copied()).filter(|n| *n > 0) else { continue };
        let Some(weight) = weights.get_mut(&name) else { continue };
        let rank = a.len() / inputs;
        weight.par_chunks_exact_mut(inputs).zip(b.par_chunks_exact(rank.max(1))).for_each(|(row, factors)| {
            for (i, w) in row.iter_mut().enumerate() {
                let sum: f32 = factors.iter().enumerate().map(|(r, factor)| factor * a[r * inputs + i]).sum();
                *w += scale * sum;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_ends_of_names() {
        let lora =
            |targets: &[&str]| Lora { target_modules: targets.iter().map(|t| (*t).to_owned()).collect(), ..Lora::default() };
        let meant = |targets: &[&str], layer: &str| lora(targets).targets().unwrap().of(layer).is_some();
        assert!(meant(&[], "encoder.layer.0.attention.self.query") && !meant(&[], "encoder.layer.0.attention.self.key"));
        assert!(meant(&["output.dense"], "encoder.layer.0.output.dense") && !meant(&["dense"], "encoder.layer.0.predense"));
        assert!(
            meant(&["layer.[45].*"], "encoder.layer.5.output.dense") && !meant(&["layer.[45].*"], "encoder.layer.3.output.dense")
        );
        let names = ["e.weight", "layer.0.query.weight", "layer.0.query.lora_A.weight", "layer.0.key.weight"];
        lora(&[]).targets().unwrap().check(&names).unwrap();
        let message = |targets: &[&str], names: &[&str]| lora(targets).targets().unwrap().check(names).unwrap_err().to_string();
        insta::assert_snapshot!(message(&["query", "valeu"], &names), @"`lora.target_modules`: `valeu` means none of the model's linear layers; names of layers end with `key`, `query`");
        insta::assert_snapshot!(message(&[], &["layer.0.key.weight"]), @"`lora.target_modules`: which layers give queries and values is not known of this model; name some; names of layers end with `key`");
    }

    #[test]
    fn adapters_are_merged() {
        let mut weights = Weights::default();
        weights.insert("q.weight", &[3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let (a, b) = ([1.0, 2.0, 0.5, -1.0], [1.0, 0.0, 0.0, 1.0, 2.0, -2.0]);
        merge(&mut weights, &[("q.lora_A.weight", &a), ("q.lora_B.weight", &b)], 2.0);
        assert_eq!(weights.get("q.weight").unwrap().1, [3.0, 6.0, 4.0, 2.0, 7.0, 18.0]);
    }

    #[test]
    fn adapters_begin_reproducibly_and_with_nothing() {
        let a = |name: &str, seed| initial(&format!("{name}.lora_A.weight"), &[8, 384], seed).unwrap();
        assert_eq!(a("x", 1), a("x", 1));
        assert!(a("x", 1) != a("x", 2) && a("x", 1) != a("y", 1));
        // Uniform up to 1/√384: mean 0, variance a third of the square of the bound.
        let mean_square = a("x", 1).iter().map(|x| f64::from(x * x)).sum::<f64>() / f64::from(8 * 384);
        assert!((mean_square * 384.0 * 3.0 - 1.0).abs() < 0.05, "{mean_square}");
        assert_eq!(initial("x.lora_B.weight", &[4, 2], 1), Some(vec![0.0; 8]));
        assert_eq!(initial("x.weight", &[4, 2], 1), None);
    }
}

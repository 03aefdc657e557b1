//! Low-rank adapters beside linear layers (Hu et al., "LoRA", 2021): y = x·Wᵀ + b + (alpha / rank)·(x·Aᵀ)·Bᵀ, in which A and B alone are
//! trained. At the end they are merged into W, so the model is of the form it had.

use anyhow::{Result, anyhow};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::select::{Pattern, layer};
use crate::model::builder::Adapters;
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

    /// What comes out of an adapter is multiplied by this.
    pub fn scale(&self) -> f32 {
        (self.alpha / self.rank as f64) as f32
    }

    /// The patterns of the targets: of the whole name of a layer, and of its end.
    fn targets(&self) -> Result<Vec<[Pattern; 2]>> {
        let texts: Vec<&str> = match self.target_modules.as_slice() {
            [] => DEFAULT_TARGETS.to_vec(),
            given => given.iter().map(String::as_str).collect(),
        };
        let read = |text: &str| Ok([Pattern::parse(text)?, Pattern::parse(&format!("*.{text}"))?]);
        texts.into_iter().map(read).collect::<Result<_, String>>().map_err(anyhow::Error::msg)
    }

    /// The adapters of an encoder that has weights of these names.
    ///
    /// # Errors
    /// A target means no layer.
    pub fn adapters(&self, names: &[&str]) -> Result<Adapters> {
        let targets = self.targets()?;
        let layers: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".weight")).collect();
        let means = |pair: &[Pattern; 2], layer: &str| pair.iter().any(|pattern| pattern.is(layer));
        let missing = targets.iter().find(|pair| !layers.iter().any(|layer| means(pair, layer)));
        if let Some([pattern, _]) = missing.filter(|_| !self.target_modules.is_empty()) {
            return Err(self.nothing(&format!("`{}` means none of the model's linear layers", pattern.text()), &layers));
        }
        let adapted = layers.iter().filter(|layer| targets.iter().any(|pair| means(pair, layer)));
        let layers = adapted.map(|layer| (*layer).to_owned()).collect();
        Ok(Adapters { layers, rank: self.rank, scale: self.scale() })
    }

    /// Whether each of the weights is an adapter's; `names` are those of the encoder with its adapters.
    ///
    /// # Errors
    /// There are none: what the targets mean are no linear layers.
    pub fn trained(&self, names: &[&str]) -> Result<Vec<bool>> {
        let trained: Vec<bool> = names.iter().map(|name| is_adapter(name)).collect();
        if trained.contains(&true) {
            return Ok(trained);
        }
        let layers: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".weight")).collect();
        Err(self.nothing("which layers give queries and values is not known of this model", &layers))
    }

    fn nothing(&self, problem: &str, layers: &[&str]) -> anyhow::Error {
        let mut ends: Vec<&str> = layers.iter().filter(|l| layer(l).is_some()).filter_map(|l| l.rsplit('.').next()).collect();
        ends.sort_unstable();
        ends.dedup();
        anyhow!("`lora.target_modules`: {problem}; name some, whose names end with `{}`", ends.join("`, `"))
    }
}

/// Whether a weight is an adapter's.
pub fn is_adapter(name: &str) -> bool {
    name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")
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
        let names = [
            "embeddings.word_embeddings.weight",
            "layer.4.self.query.weight",
            "layer.4.self.key.weight",
            "layer.5.self.value.weight",
            "layer.5.output.dense.weight",
            "layer.5.output.dense.bias",
            "predense.weight",
        ];
        let meant = |targets: &[&str]| {
            let adapters = lora(targets).adapters(&names)?;
            anyhow::Ok(adapters.layers.into_iter().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(meant(&[]).unwrap(), "layer.4.self.query layer.5.self.value");
        assert_eq!(meant(&["dense"]).unwrap(), "layer.5.output.dense");
        assert_eq!(meant(&["layer.[45].self.*"]).unwrap(), "layer.4.self.key layer.4.self.query layer.5.self.value");
        insta::assert_snapshot!(meant(&["query", "valeu"]).unwrap_err(), @"`lora.target_modules`: `valeu` means none of the model's linear layers; name some, whose names end with `dense`, `key`, `query`, `value`");
        insta::assert_snapshot!(lora(&[]).trained(&names).unwrap_err(), @"`lora.target_modules`: which layers give queries and values is not known of this model; name some, whose names end with `dense`, `key`, `query`, `value`");
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

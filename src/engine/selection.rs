//! Which stages a call means, and what that does to the others.

use std::collections::{BTreeMap, BTreeSet};

use super::Reason;
use crate::pipeline::{Pipeline, did_you_mean};

/// What is asked of a run besides the pipeline. Stages are named by their ids; the name of a definition, or of a stage that a matrix
/// multiplies, means all of its stages.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Stages that run even when they are cached or frozen.
    pub force: BTreeSet<String>,
    /// Stages that run so, with everything that comes after them; what is frozen stays so and ends it, unless it is named.
    pub from: BTreeSet<String>,
    /// When not empty: the stages that may run. What they need must be cached, and nothing else is touched.
    pub only: BTreeSet<String>,
    /// When not empty: what is wanted. These stages and what they need are looked at, and nothing else is touched.
    pub until: BTreeSet<String>,
    /// Stages that run side by side; 0 for as many as there are processors.
    pub jobs: usize,
}

/// The options by the stages' indices.
pub(super) struct Selection {
    /// Stages that run in any case, and why.
    pub forced: BTreeMap<usize, Reason>,
    /// The stages of `--only`.
    pub only: BTreeSet<usize>,
    /// By stage: whether the run neither needs nor touches it.
    pub left_out: Vec<bool>,
}

impl Selection {
    /// Finds the stages.
    ///
    /// # Errors
    /// Every name that names none.
    pub fn of(pipeline: &Pipeline, options: &Options) -> Result<Self, Vec<String>> {
        let mut unknown = Vec::new();
        let mut find = |names: &BTreeSet<String>| -> Vec<(usize, String)> {
            let mut found = Vec::new();
            for name in names {
                match named(pipeline, name) {
                    Ok(stages) => found.extend(stages.into_iter().map(|index| (index, name.clone()))),
                    Err(message) => unknown.push(message),
                }
            }
            found
        };
        let [force, from, only, until] = [&options.force, &options.from, &options.only, &options.until].map(&mut find);
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let mut forced = after(pipeline, from);
        forced.extend(force.into_iter().map(|(index, _)| (index, Reason::Forced)));
        let only: BTreeSet<usize> = only.into_iter().map(|(index, _)| index).collect();
        let wanted = only.iter().copied().chain(until.into_iter().map(|(index, _)| index)).collect();
        Ok(Selection { forced, only, left_out: left_out(pipeline, &wanted) })
    }
}

/// The stages that a name names: the one itself, or all those of a definition (`NAME/…`) or of a matrix (`NAME[…]`).
fn named(pipeline: &Pipeline, name: &str) -> Result<Vec<usize>, String> {
    let belongs = |id: &str| id.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']));
    let ids = pipeline.stages.iter().enumerate();
    let found: Vec<usize> = ids.filter(|(_, node)| belongs(&node.id)).map(|(index, _)| index).collect();
    if !found.is_empty() && !name.is_empty() {
        return Ok(found);
    }
    let ids: Vec<&str> = pipeline.stages.iter().map(|node| node.id.as_str()).collect();
    Err(format!("there is no stage `{name}`; {}", did_you_mean(name, "stages", &ids)))
}

/// Stages with everything that comes after them. A frozen stage yields what it did, so nothing after it is new on its account.
fn after(pipeline: &Pipeline, stages: Vec<(usize, String)>) -> BTreeMap<usize, Reason> {
    let mut forced: BTreeMap<usize, Reason> =
        stages.into_iter().map(|(index, name)| (index, Reason::From { stage: name })).collect();
    // Every stage comes after its inputs.
    for (index, node) in pipeline.stages.iter().enumerate() {
        let before = node.inputs.iter().find_map(|edge| forced.get(&edge.from)).cloned();
        if let Some(reason) = before.filter(|_| !node.freeze) {
            forced.entry(index).or_insert(reason);
        }
    }
    forced
}

/// By stage, whether none of the `wanted` needs it. Nothing is left out when none is wanted.
fn left_out(pipeline: &Pipeline, wanted: &BTreeSet<usize>) -> Vec<bool> {
    let stages = &pipeline.stages;
    let mut out: Vec<bool> = (0..stages.len()).map(|index| !wanted.is_empty() && !wanted.contains(&index)).collect();
    // Later stages first: what a stage needs comes before it.
    for index in (0..stages.len()).rev() {
        if !out[index] {
            stages[index].inputs.iter().for_each(|edge| out[edge.from] = false);
        }
    }
    out
}

//! What to run and in what order: which stages are cached, why the others run, running them side by side, and what is told
//! meanwhile.

mod decide;
mod job;
mod memory;
mod observer;
mod plan;
mod reason;
mod reporter;
mod scheduler;

pub use observer::{Event, Observer};
pub use plan::{Planned, Verdict};
pub use reason::Reason;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::pipeline::{Node, Pipeline};
use crate::stage::{External, Surroundings};
use crate::store::{Last, Store};

/// What is asked of a run besides the pipeline.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Stages that run even when they are cached.
    pub force: BTreeSet<String>,
    /// When not empty: the stages that may run. What they need must be cached, and nothing else is touched.
    pub only: BTreeSet<String>,
    /// Stages that run side by side; 0 for as many as there are processors.
    pub jobs: usize,
}

/// A pipeline whose surroundings have been looked at, ready to be planned or run.
pub struct Engine<'a> {
    pipeline: &'a Pipeline,
    store: &'a Store,
    downloads: PathBuf,
    options: Options,
    /// Of each stage, in the order of the pipeline.
    externals: Vec<Vec<External>>,
    last: Last,
}

/// What prevents a pipeline from being run, of each stage concerned.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct PrepareError(pub Vec<String>);

impl<'a> Engine<'a> {
    /// Looks at everything outside the pipeline that changes its results: files, versions, environment.
    ///
    /// # Errors
    /// Something that stages name cannot be read, or `options` name stages that are not there.
    pub fn prepare(pipeline: &'a Pipeline, store: &'a Store, downloads: PathBuf, options: Options) -> Result<Self, PrepareError> {
        let digests = store.file_digests();
        let digest_file = |path: &std::path::Path| digests.digest(path);
        let surroundings =
            Surroundings { base: &pipeline.base, allowed: &pipeline.allowed, downloads: &downloads, digest_file: &digest_file };
        let (mut externals, mut errors) = (Vec::new(), Vec::new());
        let mut options = options;
        for names in [&mut options.force, &mut options.only] {
            match stages(pipeline, names) {
                Ok(found) => *names = found,
                Err(unknown) => errors.extend(unknown),
            }
        }
        for node in &pipeline.stages {
            match node.configured.stage.externals(&surroundings) {
                Ok(found) => externals.push(found),
                Err(e) => errors.push(format!("stage `{}`: {e:#}", node.id)),
            }
        }
        // What was read to find out what changed need not be read again, whatever becomes of this run.
        errors.extend(store.keep_file_digests(&digests).err().map(|e| e.to_string()));
        if !errors.is_empty() {
            return Err(PrepareError(errors));
        }
        let last = store.last(&pipeline.name);
        Ok(Engine { pipeline, store, downloads, options, externals, last })
    }

    /// Whether `options.only` leaves this stage out, neither running it nor needing it.
    fn left_out(&self) -> Vec<bool> {
        let stages = &self.pipeline.stages;
        if self.options.only.is_empty() {
            return vec![false; stages.len()];
        }
        let mut out: Vec<bool> = stages.iter().map(|n| !self.options.only.contains(&n.id)).collect();
        // Later stages first: what a stage needs comes before it.
        for index in (0..stages.len()).rev() {
            if !out[index] {
                stages[index].inputs.iter().for_each(|edge| out[edge.from] = false);
            }
        }
        out
    }

    /// The parameters that count for the key.
    fn keyed(node: &Node) -> serde_json::Value {
        let mut parameters = node.configured.parameters.clone();
        if let Some(map) = parameters.as_object_mut() {
            map.retain(|name, _| !node.kind.unkeyed.contains(&name.as_str()));
        }
        parameters
    }

    /// Port → stage that feeds it.
    fn feeds<'n>(&'n self, node: &'n Node) -> BTreeMap<&'n str, &'n str> {
        node.inputs.iter().map(|edge| (edge.port.as_str(), self.pipeline.stages[edge.from].id.as_str())).collect()
    }
}

/// The stages that `names` name: each itself, or all those of a definition.
fn stages(pipeline: &Pipeline, names: &BTreeSet<String>) -> Result<BTreeSet<String>, Vec<String>> {
    let (mut found, mut unknown) = (BTreeSet::new(), Vec::new());
    for name in names {
        let belongs = |id: &str| id == name || id.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let before = found.len();
        found.extend(pipeline.stages.iter().filter(|n| belongs(&n.id)).map(|n| n.id.clone()));
        if found.len() == before && !found.contains(name) {
            let known = pipeline.stages.iter().map(|n| format!("`{}`", n.id)).collect::<Vec<_>>().join(", ");
            unknown.push(format!("there is no stage `{name}`; the pipeline has {known}"));
        }
    }
    if unknown.is_empty() { Ok(found) } else { Err(unknown) }
}

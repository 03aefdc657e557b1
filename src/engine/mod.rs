//! What to run and in what order: which stages are cached, why the others run, running them side by side, and what is told
//! meanwhile.

mod decide;
mod estimate;
mod job;
mod memory;
mod mend;
mod observer;
mod plan;
mod reason;
mod reporter;
mod rows;
mod scheduler;
mod selection;
mod share;

pub use estimate::Estimate;
pub use observer::{Event, Observer};
pub use plan::{Planned, Verdict};
pub use reason::Reason;
pub use selection::Options;
pub use share::Gathered;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rayon::prelude::*;

use self::rows::Compared;
use self::selection::Selection;
use crate::pipeline::{Node, Pipeline};
use crate::stage::{External, Surroundings};
use crate::store::{Digest, Last, Remote, Store};

/// A pipeline whose surroundings have been looked at, ready to be planned or run.
pub struct Engine<'a> {
    pipeline: &'a Pipeline,
    store: &'a Store,
    downloads: PathBuf,
    selection: Selection,
    /// Stages that run side by side.
    jobs: usize,
    /// Of each stage, in the order of the pipeline.
    externals: Vec<Vec<External>>,
    last: Last,
    /// What shares results with others.
    remote: Option<&'a Remote>,
    compared: Compared,
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
        let mut errors = Vec::new();
        let selection = Selection::of(pipeline, &options).map_err(|unknown| errors.extend(unknown)).ok();
        let found: Vec<_> = pipeline.stages.par_iter().map(|node| node.configured.stage.externals(&surroundings)).collect();
        let mut externals = Vec::new();
        for (node, found) in pipeline.stages.iter().zip(found) {
            match found {
                Ok(found) => externals.push(found),
                Err(e) => errors.push(format!("stage `{}`: {e:#}", node.id)),
            }
        }
        // What was read to find out what changed need not be read again, whatever becomes of this run.
        errors.extend(store.keep_file_digests(&digests).err().map(|e| e.to_string()));
        let (Some(selection), true) = (selection, errors.is_empty()) else { return Err(PrepareError(errors)) };
        let last = store.last(&pipeline.name);
        let jobs = if options.jobs > 0 { options.jobs } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let compared = Compared::default();
        let engine = Engine { pipeline, store, downloads, selection, jobs, externals, last, compared, remote: None };
        engine.check_frozen()?;
        Ok(engine)
    }

    /// A frozen stage without an earlier result cannot yield anything.
    fn check_frozen(&self) -> Result<(), PrepareError> {
        let stages = self.pipeline.stages.iter().enumerate();
        let needed = stages.filter(|(index, node)| {
            node.freeze && !self.selection.left_out[*index] && !self.selection.forced.contains_key(index)
        });
        let missing = needed.filter(|(_, node)| self.frozen(node).is_none()).map(|(_, node)| {
            let id = &node.id;
            format!("stage `{id}` is frozen, but the store has no earlier result of it; run it once with `--force '{id}'`")
        });
        let missing: Vec<String> = missing.collect();
        if missing.is_empty() { Ok(()) } else { Err(PrepareError(missing)) }
    }

    /// The digest of everything that decides what the pipeline yields: its stages with their code, parameters and edges, and what they
    /// read from outside.
    pub fn identity(&self) -> Digest {
        let stages = self.pipeline.stages.iter().zip(&self.externals).map(|(node, externals)| {
            let edges: Vec<_> = node.inputs.iter().map(|edge| (&edge.port, edge.from, &edge.output)).collect();
            serde_json::json!([node.id, node.kind.name, node.kind.version, Self::keyed(node), edges, externals])
        });
        Digest::of(serde_json::Value::Array(stages.collect()).to_string().as_bytes())
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

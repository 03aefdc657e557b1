//! Stages: what a pipeline is made of. A stage is a pure function from input artifacts and parameters to output artifacts.
//! To add one: a file here with a parameter struct (its doc comments become the reference page and the JSON Schema), an
//! implementation of [`Stage`] for it, a [`StageKind`] constant, and one line in [`registry`].

mod allowed;
pub mod context;
pub mod reference;
pub mod registry;

mod chunk;
mod command;
mod compare;
mod evaluate;
mod examples;
mod externals;
mod generate;
mod judge;
mod load;
mod mine;
mod model;
mod project;
mod prompts;
mod retrieve;
#[cfg(test)]
mod testing;
mod train;

pub use allowed::{Allowed, Outside};
pub use command::end_all as end_all_programs;
pub use context::{Context, Progress, Reporter, Surroundings};

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, schema_for};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifact::Kind;

/// One configured stage: a parameter struct. Configured means that every default is filled in.
pub trait Stage: Send + Sync {
    /// Checks what the types cannot say (ranges, fields that exclude each other). Runs before anything else runs.
    ///
    /// # Errors
    /// The first bad parameter.
    fn check(&self) -> Result<(), ParameterError> {
        Ok(())
    }

    /// Checks what depends on which inputs are connected: the names of those that are. Runs before anything else runs.
    ///
    /// # Errors
    /// The first parameter that does not fit the inputs.
    fn check_inputs(&self, _inputs: &[&str]) -> Result<(), ParameterError> {
        Ok(())
    }

    /// The paths among the parameters, each with its field (`path`, `sources[0]`). A relative one starts at the folder of the file that
    /// says it, and none may lead out of the project unless that is allowed; both are seen to before the stage is asked anything else.
    fn paths(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Everything besides parameters and inputs that changes the result: files read from outside the store, the version of
    /// ONNX Runtime, the name of a language model. It becomes part of the stage's key and of the explanation why it runs.
    ///
    /// # Errors
    /// Something named by the parameters cannot be read; the run does not start then.
    fn externals(&self, _surroundings: &Surroundings) -> anyhow::Result<Vec<External>> {
        Ok(Vec::new())
    }

    /// Does the work: reads `context.input(..)`, writes `context.output(..)`. Must return [`Cancelled`](crate::cancel::Cancelled) soon after
    /// `context.cancel` is set, and must be deterministic in parameters, inputs and externals.
    ///
    /// # Errors
    /// Anything that prevents the outputs from being complete. Nothing is cached then.
    fn run(&self, context: &Context) -> anyhow::Result<Outcome>;
}

/// A kind of stage: what `uses:` names.
pub struct StageKind {
    /// The word in `uses:`.
    pub name: &'static str,
    /// Version of the code. Raise it whenever the same key would yield other bytes; everything downstream then runs again.
    pub version: u32,
    /// One line for listings.
    pub summary: &'static str,
    pub inputs: &'static [Port],
    /// An edge that names only the stage means the one output of the kind that the input wants.
    pub outputs: &'static [OutputPort],
    /// Of a kind whose ports the user declares: the outputs that its parameters declare. Its inputs then have any names and carry
    /// any kinds, and `inputs` and `outputs` are empty.
    pub declared: Option<Declared>,
    /// Parameters that do not change the result (threads, batch size of encoding) and so are not part of the key.
    pub unkeyed: &'static [&'static str],
    pub schema: fn() -> Schema,
    pub configure: fn(Value) -> Result<Configured, ParameterError>,
}

/// Reads the outputs that a stage's parameters declare.
pub type Declared = fn(&Value) -> Result<Vec<Output>, ParameterError>;

/// An input port: `inputs: { NAME: stage }`.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    /// It takes any number of artifacts: a list of stages, or the stages of a matrix.
    pub many: bool,
    pub doc: &'static str,
}

/// An output port.
#[derive(Debug, Clone, Copy)]
pub struct OutputPort {
    pub name: &'static str,
    pub kind: Kind,
    /// The file (or folder, for kinds that are folders) name under `artifacts/STAGE/` of a run, e.g. `chunks.jsonl`.
    pub file: &'static str,
    pub doc: &'static str,
}

/// What a stage of a pipeline yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub name: String,
    pub kind: Kind,
    /// The name of the file or folder under `artifacts/STAGE/` of a run.
    pub file: String,
}

impl From<&OutputPort> for Output {
    fn from(port: &OutputPort) -> Self {
        Output { name: port.name.to_owned(), kind: port.kind, file: port.file.to_owned() }
    }
}

impl StageKind {
    /// What a stage of this kind with these parameters yields.
    ///
    /// # Errors
    /// The parameters declare outputs that cannot be.
    pub fn yields(&self, parameters: &Value) -> Result<Vec<Output>, ParameterError> {
        match self.declared {
            Some(declared) => declared(parameters),
            None => Ok(self.outputs.iter().map(Output::from).collect()),
        }
    }
}

/// A stage whose parameters have been read.
pub struct Configured {
    pub stage: Box<dyn Stage>,
    /// The parameters with every default filled in: what is hashed, recorded and compared.
    pub parameters: Value,
}

/// Reads parameters as a `T`; the function that goes into [`StageKind::configure`].
///
/// # Errors
/// An unknown key, a missing or badly typed value, or what [`Stage::check`] refuses.
pub fn configure<T>(parameters: Value) -> Result<Configured, ParameterError>
where
    T: Stage + Serialize + DeserializeOwned + 'static,
{
    let stage: T = serde_path_to_error::deserialize(parameters).map_err(|e| {
        let path = e.path().to_string();
        ParameterError { field: if path == "." { String::new() } else { path }, message: e.into_inner().to_string() }
    })?;
    stage.check()?;
    let parameters = serde_json::to_value(&stage).map_err(|e| ParameterError { field: String::new(), message: e.to_string() })?;
    Ok(Configured { stage: Box::new(stage), parameters })
}

/// The schema of `T`'s parameters; the function that goes into [`StageKind::schema`].
pub fn schema<T: JsonSchema>() -> Schema {
    schema_for!(T)
}

/// A parameter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParameterError {
    /// Path inside `with:`, e.g. `loss.margin` or `sources[0]`; empty when the whole is meant.
    pub field: String,
    /// A lower-case fragment without a final period that says what is wrong and how to mend it.
    pub message: String,
}

impl ParameterError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        ParameterError { field: field.into(), message: message.into() }
    }
}

/// One thing outside parameters and inputs that changes the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct External {
    /// What it is, in words that fit "… changed": `file data/a.md`, `ONNX Runtime`.
    pub name: String,
    /// Digest or version.
    pub value: String,
}

/// What a stage says besides its artifacts. Cached with the result and shown again when the stage is not run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// Named figures, collected into the run's `metrics.json` as `STAGE.NAME`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// A table to show at the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
    /// One line about the result ("31 documents, 107 chunks").
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Warnings, repeated whenever the cached result is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A small table of finished text: a heading column and value columns, right-aligned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Table {
    pub columns: Vec<String>,
    /// Each row: its heading and one cell a column.
    pub rows: Vec<(String, Vec<String>)>,
}

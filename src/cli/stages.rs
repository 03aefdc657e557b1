//! `retune stages`: what kinds of stage there are, and what each takes and yields.

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::{Failure, Global, print};
use crate::stage::registry::{KINDS, find};
use crate::stage::{StageKind, reference};

/// Lists the kinds of stage, or explains one.
#[derive(Args)]
pub(super) struct Stages {
    /// The kind to explain
    #[arg(value_name = "KIND")]
    kind: Option<String>,
    /// Print the reference page of all kinds
    #[arg(long, conflicts_with = "kind")]
    markdown: bool,
}

impl Stages {
    pub fn call(&self, global: &Global) -> Result<(), Failure> {
        if self.markdown {
            return Ok(print::text(&reference::page(KINDS))?);
        }
        if let Some(name) = &self.kind {
            let names = || KINDS.iter().map(|k| format!("`{}`", k.name)).collect::<Vec<_>>().join(", ");
            let kind = find(name);
            let kind = kind.ok_or_else(|| Failure::Call(anyhow!("there is no kind of stage `{name}`; there are {}", names())))?;
            if global.json {
                return Ok(print::json(&described(kind))?);
            }
            return Ok(print::text(&reference::section(kind))?);
        }
        if global.json {
            return Ok(print::json(&KINDS.iter().map(|kind| described(kind)).collect::<Vec<_>>())?);
        }
        let rows: Vec<Vec<String>> = KINDS.iter().map(|k| vec![k.name.to_owned(), k.summary.to_owned()]).collect();
        Ok(print::text(&print::columns(&rows))?)
    }
}

/// A kind of stage for programs: its ports, and the schema of its parameters.
fn described(kind: &StageKind) -> Value {
    let inputs = kind.inputs.iter().map(|p| json!({ "name": p.name, "kind": p.kind, "required": p.required, "doc": p.doc }));
    let outputs = kind.outputs.iter().map(|p| json!({ "name": p.name, "kind": p.kind, "file": p.file, "doc": p.doc }));
    json!({
        "name": kind.name,
        "version": kind.version,
        "summary": kind.summary,
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
        "declared": kind.declared.is_some(),
        "parameters": Value::from((kind.schema)()),
    })
}

//! `retune stages`: what kinds of stage there are, and what each takes and yields.

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::{Failure, Global, print};
use crate::stage::reference;
use crate::stage::registry::{KINDS, find};

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
            return Ok(print::text(&reference::section(kind))?);
        }
        if global.json {
            let kinds: Vec<_> =
                KINDS.iter().map(|k| json!({ "name": k.name, "version": k.version, "summary": k.summary })).collect();
            return Ok(print::json(&kinds)?);
        }
        let rows: Vec<Vec<String>> = KINDS.iter().map(|k| vec![k.name.to_owned(), k.summary.to_owned()]).collect();
        Ok(print::text(&print::columns(&rows))?)
    }
}

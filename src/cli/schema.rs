//! `retune schema`: prints the JSON Schemas.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{Failure, print};
use crate::schemas;

/// Prints a JSON Schema, or writes all of them into a folder.
#[derive(Args)]
pub(super) struct PrintSchema {
    /// Which one
    #[arg(value_name = "NAME", default_value = "pipeline")]
    name: String,
    /// Write all of them into this folder instead
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

impl PrintSchema {
    pub fn call(&self) -> Result<(), Failure> {
        let all = schemas::all();
        if let Some(folder) = &self.write {
            std::fs::create_dir_all(folder).map_err(|e| Failure::Failed(e.into()))?;
            for (file, text) in &all {
                let path = folder.join(file);
                let fail = || format!("`{}` cannot be written", path.display());
                std::fs::write(&path, text).with_context(fail).map_err(Failure::Failed)?;
            }
            return Ok(());
        }
        let wanted = format!("{}.schema.json", self.name);
        match all.iter().find(|(file, _)| *file == wanted) {
            Some((_, text)) => Ok(print::text(text)?),
            None => {
                let names: Vec<&str> = all.iter().filter_map(|(f, _)| f.strip_suffix(".schema.json")).collect();
                Err(Failure::Call(anyhow::anyhow!("there is no schema `{}`; there are `{}`", self.name, names.join("`, `"))))
            }
        }
    }
}

//! What a program says of its result besides its outputs: JSON in the file that `RETUNE_OUTCOME` names.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::artifact::jsonl;
use crate::generation::secret::Secret;
use crate::stage::Outcome;

/// Bytes of the file.
const MOST: u64 = 1 << 20;
/// Figures, and warnings.
const MOST_ENTRIES: usize = 1000;

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Told {
    metrics: BTreeMap<String, f64>,
    summary: String,
    warnings: Vec<String>,
}

/// Reads the file, if there is one.
pub fn read(path: &Path, secrets: &[Secret]) -> Result<Outcome> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Outcome::default()),
        Err(error) => return Err(error).context("the file that `RETUNE_OUTCOME` names cannot be read"),
    };
    let mut text = String::new();
    let size = file.take(MOST + 1).read_to_string(&mut text).context("the file that `RETUNE_OUTCOME` names cannot be read")?;
    if size as u64 > MOST {
        bail!("the file that `RETUNE_OUTCOME` names is larger than 1 MiB; put what is long into an output");
    }
    let told: Told = jsonl::parse(&text).context("the file that `RETUNE_OUTCOME` names is no outcome")?;
    if told.metrics.len() > MOST_ENTRIES || told.warnings.len() > MOST_ENTRIES {
        bail!("the file that `RETUNE_OUTCOME` names has more than {MOST_ENTRIES} metrics or warnings; put them into an output");
    }
    if let Some(name) =
        told.metrics.keys().find(|name| name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        bail!("the file that `RETUNE_OUTCOME` names has a metric `{name}`; a name has no white space");
    }
    let line = |text: String| {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        secrets.iter().fold(text, |text, secret| secret.scrub(&text)).trim().to_owned()
    };
    Ok(Outcome {
        metrics: told.metrics,
        summary: line(told.summary),
        warnings: told.warnings.into_iter().map(line).collect(),
        ..Outcome::default()
    })
}

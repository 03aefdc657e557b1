//! `retune tag`: names runs.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::place::Place;
use super::print::{self, Style, Tone, paint};
use super::{Failure, Global};
use crate::run;

/// Gives a name to a run, or lists the names. A tag means one run, and stands wherever a run is named.
#[derive(Args)]
pub(super) struct Tag {
    /// A name, a tag, a unique beginning of a name, a path, `latest` or `latest~N`; without it, all tags are listed
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// The tags to give to it: letters, digits, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// A tag to take from it; may be repeated
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// Move tags that belong to other runs
    #[arg(long)]
    force: bool,
}

impl Tag {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let runs = Place::here(global)?.runs();
        let Some(run) = &self.run else {
            let tags = run::tags(&runs).map_err(|e| Failure::Call(e.into()))?;
            if global.json {
                print::json(&tags.into_iter().collect::<BTreeMap<_, _>>())?;
            } else if tags.is_empty() {
                eprintln!("no run has a tag; `retune tag RUN NAME` gives one");
            } else {
                let rows = tags.into_iter().map(|(tag, run)| vec![paint(&tag, Tone::Bold, style.stdout), run]);
                print::text(&print::columns(&rows.collect::<Vec<_>>()))?;
            }
            return Ok(());
        };
        let folder = runs.select(run).map_err(|e| Failure::Call(e.into()))?;
        let untagged = if self.remove.is_empty() { Ok(()) } else { run::untag(&runs, &folder, &self.remove) };
        let tagged = untagged
            .and_then(|()| if self.names.is_empty() { Ok(()) } else { run::tag(&runs, &folder, &self.names, self.force) });
        tagged.map_err(|e| Failure::Call(e.into()))?;
        let tags = run::tags_of(&folder).map_err(|e| Failure::Call(e.into()))?;
        let id = folder.file_name().unwrap_or_default().to_string_lossy();
        if global.json {
            print::json(&json!({ "run": id, "tags": tags }))?;
        } else {
            let tags = if tags.is_empty() { "no tags".to_owned() } else { tags.join(", ") };
            print::text(&format!("{id}: {tags}\n"))?;
        }
        Ok(())
    }
}

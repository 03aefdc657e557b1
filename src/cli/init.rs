//! `retune init`: writes a pipeline for a folder of documents.

use std::path::PathBuf;

use clap::Args;

use super::place::below_here;
use super::print::{self, Style, Tone, paint};
use super::{Failure, Global};
use crate::starter::{self, Asked, Made};

/// Writes a commented pipeline for a folder of documents, which runs at once: `pipelines/NAME.yaml`, the schemas with which editors complete it,
/// and, unless judged queries are given, queries to begin with that are made from the documents.
#[derive(Args)]
pub(super) struct Init {
    /// The project's folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// The documents [default: `docs`, `documents`, `doc` or `data` in the project, or the project itself]
    #[arg(long, value_name = "PATH")]
    docs: Option<PathBuf>,
    /// Judged queries that are there already, as the stage `judge` reads them
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
    /// Name of the pipeline [default: that of the folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

impl Init {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let asked = Asked {
            folder: self.folder.clone(),
            documents: self.docs.clone(),
            queries: self.queries.clone(),
            name: self.name.clone(),
            force: self.force,
        };
        let made = starter::make(&asked).map_err(Failure::Call)?;
        if global.json {
            print::json(&made)?;
        } else {
            print::text(&render(&made, style.stdout))?;
        }
        Ok(())
    }
}

fn render(made: &Made, color: bool) -> String {
    let rows: Vec<Vec<String>> = made.files.iter().map(|(path, what)| vec![below_here(path), what.clone()]).collect();
    let mut text =
        if rows.is_empty() { "everything is there already\n".to_owned() } else { format!("wrote\n{}", print::columns(&rows)) };
    let [train, dev, test] = made.queries;
    text += &format!(
        "\n{} documents, {} chunks; {train} queries to train with, {dev} to choose by, {test} to measure with\n",
        made.documents, made.chunks
    );
    for note in &made.notes {
        text += &format!("{} {note}\n", paint("note:", Tone::Warn, color));
    }
    if made.made_up {
        text += &format!(
            "{} the queries are made from headings and first sentences of the documents. They show that everything works, and flatter\n\
             every figure: replace them with real ones, as the README beside them says\n",
            paint("note:", Tone::Warn, color)
        );
    }
    text + &format!("\nnext:\n  retune run {}\n", below_here(&made.pipeline))
}

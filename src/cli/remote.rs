//! `--remote` and `--no-remote`, and the commands `retune push` and `retune fetch`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::json;

use super::place::Place;
use super::print::{self, Style, Tone, bytes, paint};
use super::run::cancel_on_signal;
use super::{Failure, Global};
use crate::cancel::Cancel;
use crate::engine::{Engine, Gathered, Options};
use crate::pipeline::{self, Override, Pipeline};
use crate::runtime::cache;
use crate::store::{Location, Pushed, Remote, Store};

/// The environment variable that names a remote.
const VARIABLE: &str = "RETUNE_REMOTE";

/// With whom results are shared.
#[derive(Args)]
pub(super) struct Sharing {
    /// Share results through this folder or bucket, in place of the pipeline's `remote` and of RETUNE_REMOTE
    #[arg(long, value_name = "URL")]
    remote: Option<String>,
    /// Share nothing, whatever the pipeline and RETUNE_REMOTE say
    #[arg(long, conflicts_with = "remote")]
    no_remote: bool,
}

impl Sharing {
    /// The remote of the call, or else of the environment, or else of the pipeline.
    pub fn remote(&self, pipeline: &Pipeline) -> Result<Option<Remote>, Failure> {
        if self.no_remote {
            return Ok(None);
        }
        let variable = std::env::var_os(VARIABLE).map(|value| {
            let value = value.into_string();
            value.map_err(|_| Failure::Call(anyhow!("the environment variable `{VARIABLE}` is not UTF-8")))
        });
        let parse = |text: &str, from: &str| {
            let location = Location::parse(text, Path::new(".")).with_context(|| format!("`{from}` is no remote"));
            location.map(|l| Some(Remote::new(l))).map_err(Failure::Call)
        };
        match (&self.remote, variable.transpose()?) {
            (Some(text), _) => parse(text, "--remote"),
            // Set to nothing, it switches the pipeline's off.
            (None, Some(text)) if text.trim().is_empty() => Ok(None),
            (None, Some(text)) => parse(&text, VARIABLE),
            (None, None) => Ok(pipeline.remote.clone().map(Remote::new)),
        }
    }
}

/// Waits for what is pushed in the background, and tells what was not.
pub(super) fn finish(remote: &Remote, cancel: &Cancel, style: Style) -> Pushed {
    let waiting = |results: usize, size: u64| {
        let noun = if results == 1 { "result" } else { "results" };
        eprintln!("pushing {results} {noun} ({}) to {}; Ctrl-C leaves them to the next run", bytes(size), remote.location());
    };
    let pushed = remote.finish(cancel, &waiting);
    for warning in &pushed.warnings {
        eprintln!("{} {warning}", paint("warning:", Tone::Warn, style.stderr));
    }
    pushed
}

/// Which pipeline's results.
#[derive(Args)]
pub(super) struct Which {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// Set a value, as for `retune run`; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    sharing: Sharing,
}

/// Pushes the results of a pipeline that are in the store to the remote.
#[derive(Args)]
pub(super) struct Push {
    #[command(flatten)]
    which: Which,
}

/// Fetches the results of a pipeline that are in the remote, without computing any.
#[derive(Args)]
pub(super) struct Fetch {
    #[command(flatten)]
    which: Which,
}

impl Push {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let opened = self.which.open(global)?;
        let (remote, cancel) = (&opened.remote, cancel_on_signal());
        if !remote.location().push {
            let message = "the pipeline's `remote` has `push: false`; name it with `--remote` to push nevertheless";
            return Err(Failure::Call(anyhow!(message)));
        }
        remote.resume(&opened.store);
        let engine = opened.engine(None)?;
        for (_, gathered) in engine.gather(&cancel, &|_, _| ()) {
            if let Gathered::Stored(result) = gathered {
                remote.push(&opened.store, &result);
            }
        }
        let pushed = finish(remote, &cancel, style);
        if global.json {
            print::json(&json!({ "remote": remote.location().to_string(), "there": pushed.pushed, "left": pushed.left }))?;
        } else {
            let left = if pushed.left > 0 { format!(", {} are not", pushed.left) } else { String::new() };
            let are = if pushed.pushed == 1 { "result is" } else { "results are" };
            print::text(&format!("{} {are} in {}{left}\n", pushed.pushed, remote.location()))?;
        }
        if cancel.is_set() {
            return Err(Failure::Interrupted);
        }
        if pushed.left > 0 { Err(Failure::Told) } else { Ok(()) }
    }
}

impl Fetch {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let opened = self.which.open(global)?;
        let (remote, cancel) = (&opened.remote, cancel_on_signal());
        let engine = opened.engine(Some(remote))?;
        let warn = |stage: &str, line: &str| eprintln!("{} {stage}: {line}", paint("warning:", Tone::Warn, style.stderr));
        let gathered = engine.gather(&cancel, &warn);
        let count = |is: fn(&Gathered) -> bool| gathered.iter().filter(|(_, g)| is(g)).count();
        let fetched = count(|g| matches!(g, Gathered::Fetched(_)));
        let stored = count(|g| matches!(g, Gathered::Stored(_)));
        let missing: Vec<&str> = gathered.iter().filter(|(_, g)| *g == Gathered::Nothing).map(|(id, _)| *id).collect();
        if global.json {
            let remote = remote.location().to_string();
            print::json(&json!({ "remote": remote, "fetched": fetched, "stored": stored, "missing": missing }))?;
        } else {
            let mut text = format!("{fetched} fetched, {stored} were here already");
            if !missing.is_empty() {
                text += &format!(", {} must be computed: {}", missing.len(), missing.join(", "));
            }
            print::text(&(text + "\n"))?;
        }
        if cancel.is_set() { Err(Failure::Interrupted) } else { Ok(()) }
    }
}

/// A pipeline with its store and its remote.
struct Opened {
    pipeline: Pipeline,
    store: Store,
    remote: Remote,
}

impl Which {
    fn open(&self, global: &Global) -> Result<Opened, Failure> {
        let overrides = self.set.iter().map(|text| Override::parse(text)).collect::<Result<Vec<_>, _>>();
        let overrides = overrides.map_err(|e| Failure::Pipeline(Box::new(e)))?;
        let place = Place::of_pipeline(global, &self.file)?;
        let pipeline = pipeline::load(&self.file, &overrides, &place.allowed).map_err(|e| Failure::Pipeline(Box::new(e)))?;
        let none = || anyhow!("there is no remote; add `remote: s3://BUCKET/PREFIX` to the pipeline, or give `--remote URL`");
        let remote = self.sharing.remote(&pipeline)?.ok_or_else(|| Failure::Call(none()))?;
        let store = Store::open(&place.store).map_err(|e| Failure::Call(e.into()))?;
        Ok(Opened { pipeline, store, remote })
    }
}

impl Opened {
    fn engine<'a>(&'a self, remote: Option<&'a Remote>) -> Result<Engine<'a>, Failure> {
        let engine = Engine::prepare(&self.pipeline, &self.store, cache::folder(), Options::default());
        Ok(engine.map_err(|e| Failure::Call(e.into()))?.sharing(remote))
    }
}

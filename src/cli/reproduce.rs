//! `retune reproduce`: runs the locked pipeline of a run again, and compares what comes out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use indexmap::IndexMap;
use jiff::Timestamp;
use serde::Serialize;

use super::console::Console;
use super::place::Place;
use super::place::below_here;
use super::print::{self, Style, Tone, paint};
use super::run::{cancel_on_signal, environment};
use super::{Failure, Global};
use crate::engine::{Engine, Options};
use crate::pipeline::{self, Pipeline};
use crate::run::{Change, Compared, Environment, Git, Recorder, RunRecord, RunStatus, StageChanges, StageRecord, StageStatus};
use crate::runtime::cache;
use crate::stage::Allowed;
use crate::store::{Digest, Store};

/// Runs the locked pipeline of a run again, from nothing but the lock and its inputs, and says of each artifact whether the bytes are the
/// same. Nothing is taken from the store. Ends with status 1 when something differs.
#[derive(Args)]
pub(super) struct Reproduce {
    /// A name, a tag, a unique beginning of a name, a path, `latest` or `latest~N`
    #[arg(value_name = "RUN")]
    run: String,
    /// Keep the new run among the others
    #[arg(long)]
    keep: bool,
    /// The folder that the relative paths of the lock start at [default: where the pipeline of the run lies]
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
}

/// Files of a folder that are named in the table.
const MOST_FILES: usize = 3;

/// What came of it.
#[derive(Serialize)]
struct Report {
    run: String,
    base: PathBuf,
    /// The directory of the new run, if it is kept.
    kept: Option<PathBuf>,
    /// What is not as it was.
    environment: Vec<Difference>,
    /// What goes into the stages and is not what went into them.
    stages: Vec<StageChanges>,
    artifacts: Vec<Artifact>,
    same: usize,
    of: usize,
}

/// A fact about the surroundings, then and now.
#[derive(Serialize)]
struct Difference {
    what: &'static str,
    then: String,
    now: String,
}

/// An artifact, then and now.
#[derive(Serialize)]
struct Artifact {
    stage: String,
    output: String,
    then: Digest,
    now: Option<Digest>,
    verdict: Verdict,
    /// Of a folder: the files in it that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<String>,
    /// Why it is not the same, as far as that is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Same,
    Differs,
    NotMade,
}

impl Reproduce {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let place = Place::here(global)?;
        let then = place.runs().compared(&self.run).map_err(|e| Failure::Call(e.into()))?;
        check(&then.record).map_err(Failure::Call)?;
        let base = self.base(&then).map_err(Failure::Call)?;
        let lock = then.folder.join("pipeline.lock.yaml");
        // Its paths start at the folder of the pipeline, not at that of the lock.
        let locked = pipeline::load(&lock, &[], &Allowed::anywhere()).map_err(|e| Failure::Pipeline(Box::new(e)))?;
        let allowed = Place::of_pipeline(global, &base.join("pipeline.yaml"))?.allowed;
        let pipeline = Pipeline { base: base.clone(), allowed, ..locked };
        let scratch = tempfile::Builder::new().prefix("retune-reproduce-").tempdir();
        let scratch =
            scratch.context("no temporary folder can be made; `TMPDIR` names another place").map_err(Failure::Failed)?;
        let store = Store::open(&scratch.path().join("store")).map_err(|e| Failure::Failed(e.into()))?;
        let engine = Engine::prepare(&pipeline, &store, cache::folder(), Options::default());
        let engine = engine.map_err(|error| {
            let (id, base) = (&then.record.id, base.display());
            Failure::Call(anyhow!(
                "{error}\nthe inputs of `{id}` are looked for from `{base}`; `--base DIR` names another folder"
            ))
        })?;
        let environment = environment(Git::of(&base));
        let differences = differences(&then.record.environment, &environment);
        let stages = changed_inputs(&then.record, &engine);
        if !global.json {
            print::text(&surroundings(&then.record.id, &differences, &stages))?;
        }
        let runs = if self.keep { place.runs.clone() } else { scratch.path().join("runs") };
        let record = begin(&then.record, &pipeline, environment).based(&runs, &base);
        let recorder = Recorder::create(&runs, record, &pipeline.resolved()).map_err(|e| Failure::Failed(e.into()))?;
        let console = Console::new(pipeline.stages.iter().map(|n| n.id.as_str()), style);
        let now = engine.run(&recorder, &console, &cancel_on_signal()).map_err(|e| Failure::Failed(e.into()))?;
        if now.status == RunStatus::Interrupted {
            return Err(Failure::Interrupted);
        }
        let now = Compared { record: now, folder: recorder.folder().to_owned() };
        let artifacts = compare(&then, &now);
        let same = artifacts.iter().filter(|a| a.verdict == Verdict::Same).count();
        let report = Report {
            run: then.record.id,
            base,
            kept: self.keep.then(|| recorder.folder().to_owned()),
            environment: differences,
            stages,
            of: artifacts.len(),
            artifacts,
            same,
        };
        if global.json {
            print::json(&report)?;
        } else {
            print::text(&render(&report, style.stdout))?;
        }
        if report.same == report.of { Ok(()) } else { Err(Failure::Told) }
    }

    /// The folder that the relative paths of the lock start at.
    fn base(&self, run: &Compared) -> anyhow::Result<PathBuf> {
        let id = &run.record.id;
        let base = match &self.base {
            Some(base) => base.clone(),
            None => run.record.base(&run.folder).with_context(|| {
                format!("`{id}` does not say where its pipeline lay, as an older retune made it; name the folder of `{}` with `--base DIR`", run.record.file)
            })?,
        };
        match base.is_dir() {
            true => Ok(base),
            false => Err(anyhow!(
                "the pipeline of `{id}` lay in `{}`, which is gone; `--base DIR` names the folder that its relative paths start at now",
                base.display()
            )),
        }
    }
}

/// Whether there is something to reproduce.
fn check(record: &RunRecord) -> anyhow::Result<()> {
    if record.status == RunStatus::Running {
        return Err(anyhow!("`{}` is running; wait for its end", record.id));
    }
    if record.stages.values().all(|stage| stage.outputs.is_empty()) {
        return Err(anyhow!("`{}` yielded nothing that could be compared", record.id));
    }
    Ok(())
}

/// The record of a run that has not begun.
fn begin(then: &RunRecord, pipeline: &Pipeline, environment: Environment) -> RunRecord {
    let stages = pipeline.stages.iter().map(|node| {
        let stage = StageRecord { uses: node.kind.name.to_owned(), ..StageRecord::default() };
        (node.id.clone(), stage)
    });
    RunRecord {
        id: String::new(),
        pipeline: pipeline.name.clone(),
        status: RunStatus::Running,
        started: Timestamp::now(),
        finished: None,
        seconds: None,
        parameters: pipeline.parameters.clone(),
        environment,
        stages: stages.collect::<IndexMap<_, _>>(),
        ..then.clone()
    }
}

fn differences(then: &Environment, now: &Environment) -> Vec<Difference> {
    let git = |git: &Option<Git>| {
        let commit = |git: &Git| git.commit.chars().take(12).collect::<String>() + if git.dirty { ", with changes" } else { "" };
        git.as_ref().map_or_else(|| "none".to_owned(), commit)
    };
    let facts = |e: &Environment| {
        [e.retune.clone(), e.onnx_runtime.clone(), e.host.processor.clone(), e.host.cores.to_string(), git(&e.git)]
    };
    let names = ["retune", "ONNX Runtime", "processor", "cores", "git commit"];
    let pairs = names.into_iter().zip(facts(then).into_iter().zip(facts(now)));
    pairs.filter(|(_, (then, now))| then != now).map(|(what, (then, now))| Difference { what, then, now }).collect()
}

/// What goes into each stage besides the results of others, where it is not what went into it then.
fn changed_inputs(then: &RunRecord, engine: &Engine) -> Vec<StageChanges> {
    let mut stages = Vec::new();
    let mut found = Vec::new();
    for (id, now) in engine.given() {
        found.push(id);
        let changes = match then.stages.get(id) {
            None => vec![Change::Added],
            Some(stage) => stage.fingerprint.clone().map_or_else(Vec::new, |mut then| {
                then.inputs.clear();
                Change::between(&then, &now)
            }),
        };
        // One version for all stages is said once.
        let changes: Vec<Change> =
            changes.into_iter().filter(|c| !matches!(c, Change::External { name, .. } if name == "ONNX Runtime")).collect();
        if !changes.is_empty() {
            stages.push(StageChanges { stage: id.to_owned(), changes });
        }
    }
    let gone = then.stages.keys().filter(|id| !found.contains(&id.as_str()));
    stages.extend(gone.map(|id| StageChanges { stage: id.clone(), changes: vec![Change::Removed] }));
    stages
}

/// What is different before anything runs.
fn surroundings(run: &str, differences: &[Difference], stages: &[StageChanges]) -> String {
    if differences.is_empty() && stages.is_empty() {
        return format!("everything that goes into `{run}` is as it was\n");
    }
    let facts = differences.iter().map(|d| vec![format!("  {}", d.what), format!("{} → {}", d.then, d.now)]);
    let changes =
        stages.iter().flat_map(|stage| stage.changes.iter().map(|change| vec![format!("  {}", stage.stage), change.to_string()]));
    let mut text = format!("not as it was in `{run}`:\n{}", print::columns(&facts.chain(changes).collect::<Vec<_>>()));
    let lock = |change: &Change| {
        matches!(
            change,
            Change::Parameter { from: Some(_), to: Some(_), .. } | Change::Kind { .. } | Change::Added | Change::Removed
        )
    };
    if stages.iter().flat_map(|stage| &stage.changes).any(lock) {
        text += "`pipeline.lock.yaml` is not what the run recorded: somebody changed it\n";
    }
    text
}

fn compare(then: &Compared, now: &Compared) -> Vec<Artifact> {
    let mut artifacts = Vec::new();
    for (id, stage) in &then.record.stages {
        let again = now.record.stages.get(id);
        for (output, artifact) in &stage.outputs {
            let paths = stage.paths.get(output).zip(again.and_then(|again| again.paths.get(output)));
            let digest = again.and_then(|again| again.outputs.get(output)).map(|artifact| artifact.digest.clone());
            let verdict = match &digest {
                None => Verdict::NotMade,
                Some(digest) if *digest == artifact.digest => Verdict::Same,
                Some(_) => Verdict::Differs,
            };
            let why = match verdict {
                Verdict::Same => String::new(),
                Verdict::Differs => why_different(stage, again),
                Verdict::NotMade => why_not_made(again),
            };
            let files = match paths {
                Some((a, b)) if verdict == Verdict::Differs => differing(&then.folder.join(a), &now.folder.join(b)),
                _ => Vec::new(),
            };
            let (stage, output, then) = (id.clone(), output.clone(), artifact.digest.clone());
            artifacts.push(Artifact { stage, output, then, now: digest, verdict, files, why });
        }
    }
    artifacts
}

/// The files below two folders that are not the same in both; none if these are files themselves.
fn differing(then: &Path, now: &Path) -> Vec<String> {
    let below = |folder: &Path| -> BTreeSet<PathBuf> {
        let files = walkdir::WalkDir::new(folder).into_iter().flatten().filter(|e| e.file_type().is_file());
        files.filter_map(|e| e.path().strip_prefix(folder).map(Path::to_owned).ok()).collect()
    };
    if !then.is_dir() || !now.is_dir() {
        return Vec::new();
    }
    let same = |file: &PathBuf| {
        let (a, b) = (fs::read(then.join(file)), fs::read(now.join(file)));
        a.is_ok_and(|a| b.is_ok_and(|b| a == b))
    };
    let (a, b) = (below(then), below(now));
    a.union(&b).filter(|file| !same(file)).map(|file| file.to_string_lossy().replace('\\', "/")).collect()
}

fn why_different(then: &StageRecord, now: Option<&StageRecord>) -> String {
    let prints = then.fingerprint.as_ref().zip(now.and_then(|now| now.fingerprint.as_ref()));
    let changes = prints.map(|(then, now)| Change::between(then, now)).unwrap_or_default();
    match changes.as_slice() {
        [] if asks_language_model(then) => "a language model need not answer the same twice".to_owned(),
        [] => "other bytes from the same inputs".to_owned(),
        changes => changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

fn why_not_made(now: Option<&StageRecord>) -> String {
    match now {
        None => "the lock has no such stage".to_owned(),
        Some(StageRecord { error: Some(error), .. }) => error.lines().next().unwrap_or_default().to_owned(),
        Some(stage) if stage.status == StageStatus::Skipped => "a stage before it failed".to_owned(),
        Some(_) => "the stage yields no such output".to_owned(),
    }
}

/// Whether the stage's result is what a language model said.
fn asks_language_model(stage: &StageRecord) -> bool {
    let provider = stage.fingerprint.as_ref().and_then(|f| f.parameters.get("provider")).and_then(|p| p.as_str());
    stage.uses == "generate" && provider.is_some_and(|provider| provider != "extractive")
}

fn render(report: &Report, color: bool) -> String {
    let mut rows = vec![["stage", "output", "then", "now", ""].map(|h| paint(h, Tone::Bold, color)).to_vec()];
    for artifact in &report.artifacts {
        let (word, tone) = match artifact.verdict {
            Verdict::Same => ("same", Tone::Good),
            Verdict::Differs => ("differs", Tone::Bad),
            Verdict::NotMade => ("not made", Tone::Bad),
        };
        let mut files: Vec<String> = artifact.files.iter().take(MOST_FILES).map(|file| format!("`{file}`")).collect();
        let more = artifact.files.len().saturating_sub(MOST_FILES);
        files.extend((more > 0).then(|| format!("{more} more")));
        let files = if files.is_empty() { String::new() } else { format!(" in {}", files.join(", ")) };
        let why = if artifact.why.is_empty() { files } else { format!("{files}  {}", artifact.why) };
        let now = artifact.now.as_ref().map_or("–", |digest| digest.short()).to_owned();
        let verdict = paint(word, tone, color) + &why;
        rows.push(vec![artifact.stage.clone(), artifact.output.clone(), artifact.then.short().to_owned(), now, verdict]);
    }
    let mut text = format!("\n{}\n", print::columns(&rows));
    text += &format!("{} of {} artifacts have the same bytes\n", report.same, report.of);
    if let Some(folder) = &report.kept {
        text += &format!("{}\n", below_here(folder));
    }
    text
}

//! `retune sweep`: runs a pipeline once for each combination of values.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;

use super::console::Console;
use super::place::Place;
use super::print::{self, Style, Tone, paint, seconds};
use super::remote::{self, Sharing};
use super::run::{Selected, cancel_on_signal};
use super::{Failure, Global};
use crate::artifact::Kind;
use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::pipeline::Pipeline;
use crate::run::{Git, RunRecord, RunStatus, StageStatus};
use crate::runtime::cache;
use crate::store::{Remote, Store};
use crate::sweep::{
    self, Asked, Axis, AxisError, Figure, Group, PointRecord, PointStatus, Random, Summary, Sweep, SweepError, SweepRecord,
};

/// Runs a pipeline once for each combination of values. All runs share the store, so what does not depend on a value is computed once. A sweep
/// that was interrupted goes on when the same command is given again; points that failed are tried again then.
#[derive(Args)]
pub(super) struct RunSweep {
    /// The pipeline file
    #[arg(value_name = "PIPELINE", required_unless_present = "show")]
    file: Option<PathBuf>,
    /// An axis: a parameter (`tuned.lr`, a name of `params`, or a path as `--set` takes it) and its values: `1e-5,3e-5`, `1..5`,
    /// `0..100..20`, `{name: triplet, margin: 1},…`; with `--random` also `uniform(0,1)` and `log(1e-6,1e-3)`; may be repeated
    #[arg(long, value_name = "AXIS=VALUES", required_unless_present = "show")]
    over: Vec<String>,
    /// Draw so many points instead of running every combination
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    random: Option<u32>,
    /// Seed of the draw
    #[arg(long, value_name = "S", default_value_t = 42, requires = "random")]
    seed: u64,
    /// An axis that repeats the same experiment: its points are reported as mean ± standard deviation, as those of every axis that ends
    /// in `seed` are; may be repeated
    #[arg(long, value_name = "AXIS")]
    repeat: Vec<String>,
    /// The metric that says which point is best, for example `tuned.eval.ndcg@10` [default: a figure on dev data, where there is one]
    #[arg(long, value_name = "METRIC")]
    by: Option<String>,
    /// The smallest is best
    #[arg(long)]
    minimize: bool,
    /// The metrics to show [default: the one that decides, and the same measure of other stages]
    #[arg(long, value_name = "METRIC,…", value_delimiter = ',')]
    metrics: Vec<String>,
    /// Name of the sweep [default: by pipeline and axes]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Set a value for all points, for example `stages.tuned.with.epochs=1`; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Stages that run side by side [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    sharing: Sharing,
    /// Print a row a point as CSV, with all metrics
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Show a sweep that was made before, or `latest`, and run nothing
    #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "over", "random", "repeat", "name", "set", "jobs"])]
    show: Option<String>,
}

impl From<SweepError> for Failure {
    fn from(error: SweepError) -> Self {
        Failure::Call(error.into())
    }
}

impl RunSweep {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        if let Some(name) = &self.show {
            return self.print(&sweep::show(&Place::here(global)?.runs, name)?, global, style);
        }
        let Some(file) = &self.file else { return Err(Failure::Call(anyhow!("name the pipeline file"))) };
        let shared = Selected { file: file.clone(), set: self.set.clone(), jobs: self.jobs, ..Selected::default() };
        let place = Place::of_pipeline(global, file)?;
        let pipeline = shared.pipeline(&place)?;
        let record = self.record(&shared, &pipeline)?;
        // A mistake in the last point must not be found after hours.
        let points = record.points.iter().map(|point| {
            let selected = Selected { file: file.clone(), set: record.sets(point), jobs: self.jobs, ..Selected::default() };
            Ok((selected.pipeline(&place)?, selected))
        });
        let points = points.collect::<Result<Vec<_>, Failure>>()?;
        let store = Store::open(&place.store).map_err(|e| Failure::Call(e.into()))?;
        let sweep = sweep::open(&place.runs, record)?;
        let cancel = cancel_on_signal();
        let remote = self.sharing.remote(&pipeline)?;
        if let Some(remote) = &remote {
            remote.resume(&store);
        }
        let mut going = Going {
            command: self,
            sweep,
            store: &store,
            remote: remote.as_ref(),
            runs: &place.runs,
            cancel: &cancel,
            style,
            decides: None,
            ended: 0,
        };
        for (index, (pipeline, selected)) in points.iter().enumerate() {
            going.point(index, pipeline, selected)?;
            if cancel.is_set() {
                break;
            }
        }
        let record = going.sweep.record;
        if let Some(remote) = &remote {
            remote::finish(remote, &cancel, style);
        }
        self.print(&record, global, style)?;
        match record.count(PointStatus::Done) {
            done if done == record.points.len() => Ok(()),
            _ if cancel.is_set() => Err(Failure::Interrupted),
            _ => Err(Failure::Told),
        }
    }

    /// The sweep that is asked for.
    fn record(&self, shared: &Selected, pipeline: &Pipeline) -> Result<SweepRecord, Failure> {
        let mut axes: Vec<Axis> = Vec::new();
        for argument in &self.over {
            let mut axis = Axis::parse(argument, &pipeline.settable).map_err(|error| match error {
                AxisError::Sweep(error) => error.into(),
                AxisError::Values(error) => Failure::Pipeline(error),
            })?;
            if axes.iter().any(|other| other.path == axis.path) {
                return Err(Failure::Call(anyhow!("two axes set `{}`; put all of its values into one `--over`", axis.path)));
            }
            axis.repeats |= self.repeat.iter().any(|name| axis.is(name));
            axes.push(axis);
        }
        if let Some(name) = self.repeat.iter().find(|name| !axes.iter().any(|axis| axis.is(name))) {
            let names: Vec<&str> = axes.iter().map(|axis| axis.name.as_str()).collect();
            return Err(Failure::Call(anyhow!("`--repeat`: there is no axis `{name}`; the axes are `{}`", names.join("`, `"))));
        }
        let random = self.random.map(|draws| Random { draws: draws as usize, seed: self.seed });
        let points = sweep::points(&axes, random.as_ref())?;
        let measuring = pipeline.stages.iter().filter(|node| node.outputs.iter().any(|output| output.kind == Kind::Metrics));
        let measuring = measuring.map(|node| node.id.clone()).collect();
        let what = (pipeline.name.as_str(), shared.file.as_path(), shared.set.as_slice());
        Ok(SweepRecord::new(self.name.as_deref(), what, (axes, random, points), measuring)?)
    }

    fn summary(&self, record: &SweepRecord) -> Result<Summary, SweepError> {
        let asked = Asked { by: self.by.clone(), minimize: self.minimize, metrics: self.metrics.clone() };
        Summary::of(record, &asked)
    }

    fn print(&self, record: &SweepRecord, global: &Global, style: Style) -> Result<(), Failure> {
        let summary = self.summary(record)?;
        if global.json {
            print::json(&summary)?;
        } else if self.csv {
            print::text(&csv(record, &summary).map_err(Failure::Failed)?)?;
        } else {
            print::text(&render(record, &summary, style.stdout))?;
        }
        Ok(())
    }
}

/// A sweep that is going on.
struct Going<'a> {
    command: &'a RunSweep,
    sweep: Sweep,
    store: &'a Store,
    remote: Option<&'a Remote>,
    runs: &'a Path,
    cancel: &'a Cancel,
    style: Style,
    /// The metric that is told of each point.
    decides: Option<String>,
    /// Points that have ended in this call.
    ended: usize,
}

impl Going<'_> {
    /// Runs a point unless it is done.
    fn point(&mut self, index: usize, pipeline: &Pipeline, selected: &Selected) -> Result<(), Failure> {
        let options = selected.options();
        let engine = match Engine::prepare(pipeline, self.store, cache::folder(), options) {
            Ok(engine) => engine.sharing(self.remote),
            Err(error) => return self.end(index, |point| fail(point, error.to_string())),
        };
        let identity = engine.identity();
        let Some(before) = self.sweep.record.points.get(index) else { return Ok(()) };
        if before.status == PointStatus::Done && before.identity.as_ref() == Some(&identity) {
            self.choose()?;
            self.tell(index, "done before", Tone::Dim);
            return Ok(());
        }
        let state = if before.status == PointStatus::Done { "runs again, for what it reads has changed" } else { "runs" };
        self.tell(index, state, Tone::Bold);
        let console = Console::new(pipeline.stages.iter().map(|n| n.id.as_str()), self.style).without_cached();
        let recorder = selected.recorder(pipeline, self.runs, Git::of(&pipeline.base))?;
        let record = engine.run(&recorder, &console, self.cancel).map_err(|e| Failure::Failed(e.into()))?;
        self.end(index, |point| {
            finish(point, &record);
            point.identity = Some(identity);
        })
    }

    fn end(&mut self, index: usize, change: impl FnOnce(&mut PointRecord)) -> Result<(), Failure> {
        self.sweep.ended(index, change)?;
        self.ended += 1;
        self.choose()?;
        let status = self.sweep.record.points.get(index).map(|point| point.status).unwrap_or_default();
        self.tell(index, status.name(), tone(status));
        Ok(())
    }

    /// The metric to tell: chosen anew while few points are done, for which one decides may depend on which differ. So a metric that is
    /// asked for and is not there is found after the first point.
    fn choose(&mut self) -> Result<(), Failure> {
        if self.decides.is_none() || self.ended <= 2 {
            self.decides = self.command.summary(&self.sweep.record)?.by.map(|by| by.metric);
        }
        Ok(())
    }

    /// `[3/6] lr=3e-5 seed=2  done  ndcg@10 0.5640, 12 s, 3 run, 12 cached`.
    fn tell(&self, index: usize, state: &str, tone: Tone) {
        let record = &self.sweep.record;
        let Some(point) = record.points.get(index) else { return };
        let mut facts = Vec::new();
        let figure = self.decides.as_ref().and_then(|metric| Some((metric, point.metrics.get(metric)?)));
        facts.extend(figure.map(|(metric, value)| format!("{metric} {value:.4}")));
        if matches!(point.status, PointStatus::Done | PointStatus::Failed) && state != "runs" {
            facts.extend(point.seconds.map(seconds));
            facts.extend(point.run.as_ref().map(|_| format!("{} run, {} cached", point.ran, point.cached)));
        }
        facts.extend(point.error.clone());
        let place = format!("[{}/{}] {}", index + 1, record.points.len(), sweep::label(&record.axes, &point.values));
        let line = format!("{place}  {}  {}", paint(state, tone, self.style.stderr), facts.join(", "));
        eprintln!("{}", line.trim_end());
    }
}

fn tone(status: PointStatus) -> Tone {
    match status {
        PointStatus::Done => Tone::Good,
        PointStatus::Failed => Tone::Bad,
        PointStatus::Interrupted => Tone::Warn,
        PointStatus::Waiting => Tone::Dim,
    }
}

fn fail(point: &mut PointRecord, error: String) {
    point.status = PointStatus::Failed;
    point.error = Some(error);
}

/// What a run says of its point.
fn finish(point: &mut PointRecord, record: &RunRecord) {
    point.status = match record.status {
        RunStatus::Done => PointStatus::Done,
        RunStatus::Interrupted => PointStatus::Interrupted,
        RunStatus::Failed | RunStatus::Running => PointStatus::Failed,
    };
    point.run = Some(record.id.clone());
    point.seconds = record.seconds;
    point.ran = record.count(StageStatus::Done);
    point.cached =
        [StageStatus::Cached, StageStatus::Fetched, StageStatus::Frozen].map(|status| record.count(status)).iter().sum();
    point.metrics = record.metrics();
    let failed = record.stages.iter().find_map(|(id, stage)| Some(format!("stage `{id}`: {}", stage.error.as_ref()?)));
    point.error = failed;
}

fn render(record: &SweepRecord, summary: &Summary, color: bool) -> String {
    let count = |status| record.count(status);
    let (all, done) = (record.points.len(), count(PointStatus::Done));
    let mut text = format!("\nsweep {} of {}: {all} points, {done} done", paint(&record.name, Tone::Bold, color), record.file);
    for status in [PointStatus::Failed, PointStatus::Interrupted, PointStatus::Waiting] {
        if count(status) > 0 {
            text += &format!(", {} {}", count(status), status.name());
        }
    }
    text += "\n\n";
    text += &table(record, summary, color);
    if let Some(by) = &summary.by {
        let order = if by.minimize { "the smallest" } else { "the largest" };
        text += &format!("\nsorted by {}, {order} first ({})\n", by.metric, by.why);
    }
    if !summary.repeats.is_empty() {
        text += &format!("mean ± standard deviation (n − 1) over {}\n", summary.repeats.join(", "));
    }
    if let [best, others @ ..] = summary.groups.as_slice()
        && best.best
    {
        text += &praise(record, summary, best, others.first());
    }
    if done < all {
        text += "\nwhat is not done runs when the same command is given again\n";
    }
    text
}

/// The best group: what it is, whether that is certain, and how to make it again.
fn praise(record: &SweepRecord, summary: &Summary, best: &Group, next: Option<&Group>) -> String {
    let axes = record.axes.iter().filter(|axis| !axis.repeats);
    let what = match sweep::label(axes, &best.values) {
        what if what.is_empty() => "all points together".to_owned(),
        what => what,
    };
    let mut text = format!("\nbest: {what}\n");
    let figure = |group: &Group| summary.by.as_ref().and_then(|by| group.metrics.get(&by.metric)).copied();
    if let (Some(first), Some(second)) = (figure(best), next.and_then(figure)) {
        let (difference, sd) = ((first.mean - second.mean).abs(), first.sd.unwrap_or(0.0).max(second.sd.unwrap_or(0.0)));
        if difference == 0.0 {
            text += "the next is as good; the first of them counts\n";
        } else if difference < sd {
            text += &format!("but the next is only {difference:.4} away, which is less than a standard deviation ({sd:.4})\n");
        }
    }
    text += &format!("{} {}\n", if best.runs.len() == 1 { "run " } else { "runs" }, best.runs.join(" "));
    let sets: Vec<String> = best.set.iter().map(|set| format!(" --set {}", quoted(set))).collect();
    text + &format!("retune run {}{}\n", quoted(&record.file), sets.concat())
}

fn table(record: &SweepRecord, summary: &Summary, color: bool) -> String {
    let repeats = !summary.repeats.is_empty();
    let mut header = vec![String::new()];
    header.extend(summary.axes.iter().cloned());
    header.extend(summary.metrics.iter().cloned());
    header.extend(repeats.then(|| "n".to_owned()));
    header.push("status".to_owned());
    header.extend((!repeats).then(|| "run".to_owned()));
    let mut rows = vec![header.iter().map(|cell| paint(cell, Tone::Bold, color)).collect()];
    for group in &summary.groups {
        let mut row = vec![if group.best { "*".to_owned() } else { String::new() }];
        row.extend(group.values.iter().map(crate::pipeline::Override::written));
        row.extend(summary.metrics.iter().map(|metric| group.metrics.get(metric).map_or_else(|| "–".to_owned(), figure)));
        let decides = summary.by.as_ref().and_then(|by| group.metrics.get(&by.metric));
        row.extend(repeats.then(|| decides.map_or(group.done, |figure| figure.n).to_string()));
        row.push(status(record, group, color));
        row.extend((!repeats).then(|| group.runs.join(" ")));
        rows.push(row);
    }
    print::columns(&rows)
}

fn figure(figure: &Figure) -> String {
    match figure.sd {
        Some(sd) => format!("{:.4} ± {sd:.4}", figure.mean),
        None => format!("{:.4}", figure.mean),
    }
}

/// How the points of a group stand: the one status, or how many are done and what became of the first other.
fn status(record: &SweepRecord, group: &Group, color: bool) -> String {
    let statuses = group.points.iter().filter_map(|&index| record.points.get(index)).map(|point| point.status);
    match statuses.clone().find(|&status| status != PointStatus::Done) {
        None => paint("done", Tone::Good, color),
        Some(other) if group.points.len() == 1 => paint(other.name(), tone(other), color),
        Some(other) => paint(&format!("{} of {} done, {}", group.done, group.points.len(), other.name()), tone(other), color),
    }
}

fn csv(record: &SweepRecord, summary: &Summary) -> anyhow::Result<String> {
    let mut metrics: Vec<&String> = record.points.iter().flat_map(|point| point.metrics.keys()).collect();
    metrics.sort();
    metrics.dedup();
    let mut csv = csv::Writer::from_writer(Vec::new());
    let axes = record.axes.iter().map(|axis| axis.name.as_str());
    let head = axes.chain(["best", "status", "run", "seconds"]).chain(metrics.iter().map(|m| m.as_str()));
    csv.write_record(head)?;
    let best = summary.groups.iter().find(|group| group.best).map_or(&[][..], |group| group.points.as_slice());
    for (index, point) in record.points.iter().enumerate() {
        let mut cells: Vec<String> = point.values.iter().map(crate::pipeline::Override::written).collect();
        cells.push(best.contains(&index).to_string());
        cells.push(point.status.name().to_owned());
        cells.push(point.run.clone().unwrap_or_default());
        cells.push(point.seconds.map(|seconds| format!("{seconds:.3}")).unwrap_or_default());
        cells.extend(metrics.iter().map(|&m| point.metrics.get(m).map(f64::to_string).unwrap_or_default()));
        csv.write_record(cells)?;
    }
    Ok(String::from_utf8(csv.into_inner()?)?)
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

//! `retune runs`: lists runs.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use clap::Args;
use indexmap::IndexMap;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::place::Place;
use super::print::{self, Style, Tone, paint, seconds};
use super::{Failure, Global};
use crate::run::{self, Condition, Fact, Field, FieldError, Found, RunRecord, Runs, SelectError, Sort, StageStatus, Summary};
use crate::stage::reference::written;

/// Runs in a table when nothing else is said.
const SHOWN: usize = 20;

/// Which runs are meant.
#[derive(Args)]
pub(super) struct Chosen {
    /// Only runs that this fits, for example `params.lr>=3e-5`, `status=done`, `tag=paper`, `metrics.ndcg@10>0.5`; may be repeated, and
    /// then all must fit. Operators are `= != < <= > >= ~`, the last for "contains"
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    pub conditions: Vec<Condition>,
}

/// Lists runs, the latest first.
#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    chosen: Chosen,
    /// Order by this field, with `-` before it the largest first, for example `-metrics.ndcg@10`; may be repeated
    #[arg(long, value_name = "[-]FIELD", allow_hyphen_values = true)]
    sort: Vec<Sort>,
    /// How many; 0 for all [default: 20 in the table, all with `--csv` and `--json`]
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    /// The columns, with commas between: `id`, `pipeline`, `status`, `started`, `seconds`, `tag`, `git`, `params.NAME`, `metrics.NAME`,
    /// `STAGE.NAME`
    #[arg(long, value_name = "FIELDS")]
    columns: Option<Columns>,
    /// Print CSV: the facts of each run, and every parameter and metric that differs between them
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// With `--csv`: every parameter and metric, those that are the same too
    #[arg(long, requires = "csv")]
    all: bool,
}

/// `a,b,c`; commas in brackets belong to the names of stages.
#[derive(Debug, Clone)]
struct Columns(Vec<Field>);

impl FromStr for Columns {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let mut depth = 0usize;
        let parts = text.split(|c: char| {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        });
        parts.map(|part| part.trim().parse()).collect::<Result<_, _>>().map(Columns)
    }
}

/// A run as JSON: its record and its tags.
#[derive(Serialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    pub record: RunRecord,
    pub tags: Vec<String>,
}

impl Chosen {
    /// The runs that are meant, the latest first. Those whose record cannot be read are told and left out.
    pub fn of(&self, runs: &Runs, latest: usize, style: Style) -> Result<Vec<Summary>, Failure> {
        let ids: Vec<&String> = runs.ids().iter().rev().take(latest).collect();
        let read: Vec<Result<Summary, SelectError>> = ids.par_iter().map(|id| runs.summary(id)).collect();
        let read = read.into_iter().filter_map(|summary| summary.map_err(|error| warn(&error, style)).ok()).collect();
        run::choose(read, &self.conditions).map_err(|e| Failure::Call(e.into()))
    }
}

/// One damaged record must not hide the others.
fn warn(error: &SelectError, style: Style) {
    eprintln!("{} {error}", paint("warning:", Tone::Warn, style.stderr));
}

impl List {
    pub fn call(&self, global: &Global, style: Style) -> Result<(), Failure> {
        let runs = Place::here(global)?.runs();
        let limit = match self.limit {
            Some(0) => usize::MAX,
            Some(limit) => limit,
            None if self.csv || global.json => usize::MAX,
            None => SHOWN,
        };
        // The latest runs are known by their names, so the others need not be read.
        let plain = self.chosen.conditions.is_empty() && self.sort.is_empty();
        let fitting = self.chosen.of(&runs, if plain { limit } else { usize::MAX }, style)?;
        let fitting = run::sort(fitting, &self.sort).map_err(|e| Failure::Call(e.into()))?;
        let count = if plain { runs.ids().len() } else { fitting.len() };
        let shown: Vec<Summary> = fitting.into_iter().take(limit).collect();
        if global.json {
            let listed: Vec<_> = shown.into_par_iter().map(|run| runs.read(&run.id).map(|record| (record, run.tags))).collect();
            let listed = listed.into_iter().filter_map(|read| read.map_err(|error| warn(&error, style)).ok());
            return Ok(print::json(&listed.map(|(record, tags)| Listed { record, tags }).collect::<Vec<_>>())?);
        }
        let wrong = |error: FieldError| Failure::Call(error.into());
        if self.csv {
            return Ok(print::text(&self.csv(&shown).map_err(wrong)?)?);
        }
        if runs.ids().is_empty() {
            eprintln!("there are no runs in `{}`; `retune run PIPELINE` makes one", runs.folder().display());
        } else if shown.is_empty() {
            eprintln!("none of the {count_all} runs fits", count_all = runs.ids().len());
        } else {
            print::text(&self.table(&shown, style.stdout).map_err(wrong)?)?;
            if count > shown.len() {
                eprintln!("{} of {count} runs; `-n 0` shows all", shown.len());
            }
        }
        Ok(())
    }

    /// The fields that are named and have no column by themselves.
    fn named(&self) -> Vec<Field> {
        if let Some(columns) = &self.columns {
            return columns.0.clone();
        }
        let mut fields: Vec<Field> = Vec::new();
        let named = self.sort.iter().map(|s| &s.field).chain(self.chosen.conditions.iter().map(|c| &c.field));
        for field in named {
            let usual = matches!(field, Field::Fact(Fact::Id | Fact::Status | Fact::Seconds | Fact::Tag));
            if !usual && !fields.contains(field) {
                fields.push(field.clone());
            }
        }
        fields
    }

    fn table(&self, runs: &[Summary], color: bool) -> Result<String, FieldError> {
        let fields = self.named();
        let tagged = runs.iter().any(|run| !run.tags.is_empty());
        let mut head = Vec::new();
        if self.columns.is_none() {
            head.extend(["run", "status", "took", "stages"].map(str::to_owned));
            head.extend(tagged.then(|| "tags".to_owned()));
        }
        head.extend(fields.iter().map(ToString::to_string));
        if self.columns.is_none() {
            head.push("set".to_owned());
        }
        let mut rows = vec![head.iter().map(|h| paint(h, Tone::Bold, color)).collect()];
        let mut meant: IndexMap<String, BTreeSet<String>> = IndexMap::new();
        for run in runs {
            let mut row = if self.columns.is_none() { usual(run, tagged, color) } else { Vec::new() };
            for field in &fields {
                let found = field.of(run)?;
                row.push(found.as_ref().map_or_else(|| "–".to_owned(), |found| cell(field, found, color)));
                let full = found.map(|found| found.name).filter(|name| *name != field.to_string());
                meant.entry(field.to_string()).or_default().extend(full);
            }
            if self.columns.is_none() {
                row.push(run.overrides.join(" "));
            }
            rows.push(row);
        }
        if let Some(field) = fields.iter().find(|field| absent(field, runs)) {
            return Err(field.absent(runs.iter()));
        }
        let mut text = print::columns(&print::fitted(rows));
        // A short name must not leave open whose figure it is.
        for (field, full) in meant.iter().filter(|(_, full)| !full.is_empty()) {
            let full: Vec<String> = full.iter().map(|name| format!("`{name}`")).collect();
            text += &paint(&format!("`{field}` is {}", full.join(" or ")), Tone::Dim, color);
            text += "\n";
        }
        Ok(text)
    }

    /// A line a run: for people's spreadsheets and for pandas.
    fn csv(&self, runs: &[Summary]) -> Result<String, FieldError> {
        let fields = match &self.columns {
            Some(columns) => columns.0.clone(),
            None => Fact::ALL.map(Field::Fact).to_vec(),
        };
        let values: Vec<IndexMap<String, Value>> =
            if self.columns.is_some() { Vec::new() } else { runs.par_iter().map(all_values).collect() };
        let mut names: Vec<&String> = Vec::new();
        let mut seen: BTreeMap<&String, (usize, &Value, bool)> = BTreeMap::new();
        for (name, value) in values.iter().flatten() {
            let entry = seen.entry(name).or_insert_with(|| {
                names.push(name);
                (0, value, false)
            });
            *entry = (entry.0 + 1, entry.1, entry.2 || entry.1 != value);
        }
        let differs =
            |name: &&&String| seen.get(*name).is_some_and(|(count, _, differs)| self.all || *differs || *count < runs.len());
        // Parameters before metrics, whatever run brought them.
        let (parameters, metrics): (Vec<&String>, Vec<&String>) =
            names.iter().filter(differs).partition(|name| !name.starts_with("metrics."));
        let columns: Vec<&String> = parameters.into_iter().chain(metrics).collect();
        let mut rows =
            vec![fields.iter().map(ToString::to_string).chain(columns.iter().map(|c| (*c).clone())).collect::<Vec<_>>()];
        for (index, run) in runs.iter().enumerate() {
            let mut row = Vec::new();
            for field in &fields {
                row.push(field.of(run)?.map(|found| plain(&found.value)).unwrap_or_default());
            }
            let own = values.get(index);
            row.extend(columns.iter().map(|name| own.and_then(|own| own.get(*name)).map(plain).unwrap_or_default()));
            rows.push(row);
        }
        Ok(print::csv(&rows))
    }
}

/// Whether a field is a mistake: none of the runs has it.
fn absent(field: &Field, runs: &[Summary]) -> bool {
    !matches!(field, Field::Fact(_)) && !runs.iter().any(|run| matches!(field.of(run), Ok(Some(_))))
}

fn usual(run: &Summary, tagged: bool, color: bool) -> Vec<String> {
    let fetched = Some(run.count(StageStatus::Fetched)).filter(|count| *count > 0);
    let fetched = fetched.map(|count| format!(", {count} fetched")).unwrap_or_default();
    let stages = format!("{} run, {} cached{fetched}", run.count(StageStatus::Done), run.count(StageStatus::Cached));
    let took = run.seconds.map(seconds).unwrap_or_default();
    let mut row = vec![run.id.clone(), print::status(run.status, color), took, stages];
    row.extend(tagged.then(|| run.tags.join(", ")));
    row
}

/// A value as people read it.
fn cell(field: &Field, found: &Found, color: bool) -> String {
    match (field, &found.value) {
        (Field::Fact(Fact::Seconds), value) => seconds(value.as_f64().unwrap_or_default()),
        (Field::Fact(Fact::Git), value) => written(value).chars().take(12).collect(),
        // To the second.
        (Field::Fact(Fact::Started), value) => written(value).chars().take(19).collect::<String>().replace('T', " "),
        (Field::Fact(Fact::Status), value) => {
            let status = run::RunStatus::ALL.into_iter().find(|status| Some(status.name()) == value.as_str());
            status.map_or_else(|| written(value), |status| print::status(status, color))
        }
        (_, Value::Array(values)) => values.iter().map(written).collect::<Vec<_>>().join(", "),
        (_, value) if found.name.starts_with("metrics.") => match value.as_f64() {
            Some(figure) if figure.fract() != 0.0 => format!("{figure:.4}"),
            Some(figure) => figure.to_string(),
            None => written(value),
        },
        (_, value) => written(value),
    }
}

/// A value as programs read it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) if values.iter().all(Value::is_string) => values.iter().map(written).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Every parameter and metric of a run by its full name.
fn all_values(run: &Summary) -> IndexMap<String, Value> {
    let own = run.own_parameters().into_iter().map(|(name, value)| (format!("params.{name}"), value));
    let of_stages = run.stage_parameters().map(|(stage, path, value)| (format!("stages.{stage}.with.{path}"), value));
    let metrics = run.metrics().map(|(stage, name, value)| (format!("metrics.{stage}.{name}"), value.into()));
    own.chain(of_stages).chain(metrics).collect()
}

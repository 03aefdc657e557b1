//! What can be asked of a run by name: its own facts, its parameters, its metrics.
//!
//! A parameter or metric may be named in full or by its end. What a short name means is decided run by run, since pipelines differ:
//!
//! - `params.lr` is the pipeline's parameter `lr`; where there is none, that of the one stage which has it.
//! - `metrics.ndcg@10` is the figure of the one stage that has it. Where several stages have it, those that measure count, and among
//!   these the one that measures a model trained in the run: it is what the run is about.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::summary::Summary;
use crate::pipeline::words::did_you_mean;

/// Names in a message.
const MOST_LISTED: usize = 8;

/// Something that a run may have a value of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Fact(Fact),
    /// `params.NAME`
    Parameter(String),
    /// `metrics.NAME`
    Metric(String),
    /// `stages.STAGE.with.PATH`, or `STAGE.PATH` for a stage's parameter or metric.
    OfStage(String),
}

/// What every run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    Id,
    Pipeline,
    Status,
    Started,
    Seconds,
    Tag,
    Git,
}

impl Fact {
    pub const ALL: [Fact; 7] = [Fact::Id, Fact::Pipeline, Fact::Status, Fact::Started, Fact::Seconds, Fact::Tag, Fact::Git];
}

const FACTS: [(&str, Fact); 7] = [
    ("id", Fact::Id),
    ("pipeline", Fact::Pipeline),
    ("status", Fact::Status),
    ("started", Fact::Started),
    ("seconds", Fact::Seconds),
    ("tag", Fact::Tag),
    ("git", Fact::Git),
];

/// A value, and the full name of what it is the value of.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub name: String,
    pub value: Value,
}

/// A field that does not say what is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("`{0}` is no field: {1}")]
    Unknown(String, String),
    #[error("no run has `{0}`: {1}")]
    Absent(String, String),
    #[error(
        "`{field}` may mean {} in run `{run}`; write one of them, or leave such runs out, for example with `--where 'pipeline!={pipeline}'`",
        listed(.candidates)
    )]
    Ambiguous { field: String, run: String, pipeline: String, candidates: Vec<String> },
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(MOST_LISTED).map(|n| format!("`{n}`")).collect();
    let more = names.len().saturating_sub(MOST_LISTED);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(" or ") }
}

impl FromStr for Field {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        if let Some((_, fact)) = FACTS.iter().find(|(name, _)| *name == text) {
            return Ok(Field::Fact(*fact));
        }
        let field = match text.split_once('.') {
            Some(("params", name)) if !name.is_empty() => Field::Parameter(name.to_owned()),
            Some(("metrics", name)) if !name.is_empty() => Field::Metric(name.to_owned()),
            Some((stage, path)) if !stage.is_empty() && !path.is_empty() => Field::OfStage(text.to_owned()),
            _ => {
                let mut words: Vec<&str> = FACTS.iter().map(|(name, _)| *name).collect();
                words.extend(["params.NAME", "metrics.NAME", "STAGE.NAME"]);
                let near = if text == "tags" { "did you mean `tag`?".to_owned() } else { did_you_mean(text, "fields", &words) };
                return Err(FieldError::Unknown(text.to_owned(), near));
            }
        };
        Ok(field)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Fact(fact) => f.write_str(FACTS.iter().find(|(_, other)| other == fact).map_or("", |(name, _)| name)),
            Field::Parameter(name) => write!(f, "params.{name}"),
            Field::Metric(name) => write!(f, "metrics.{name}"),
            Field::OfStage(name) => f.write_str(name),
        }
    }
}

impl Field {
    /// What the run has there; nothing when it has no such thing.
    ///
    /// # Errors
    /// The name fits several things of the run.
    pub fn of(&self, run: &Summary) -> Result<Option<Found>, FieldError> {
        let found = match self {
            Field::Fact(fact) => Ok(fact.of(run).map(|value| Found { name: self.to_string(), value })),
            Field::Parameter(name) => parameter(run, name),
            Field::Metric(name) => metric(run, name),
            Field::OfStage(name) => Ok(of_stage(run, name)),
        };
        found.map_err(|candidates| FieldError::Ambiguous {
            field: self.to_string(),
            run: run.id.clone(),
            pipeline: run.pipeline.clone(),
            candidates,
        })
    }

    /// The error when none of `runs` has it.
    pub fn absent<'a>(&self, runs: impl Iterator<Item = &'a Summary>) -> FieldError {
        let (mut words, mut what) = (BTreeSet::new(), "parameters");
        for run in runs {
            match self {
                Field::Fact(_) => {}
                Field::Parameter(_) => {
                    words.extend(run.own_parameters().into_keys());
                    words.extend(run.stage_parameters().map(|(_, path, _)| last(&path).to_owned()));
                }
                Field::Metric(_) => words.extend(run.metrics().map(|(_, name, _)| name.to_owned())),
                Field::OfStage(name) => match run.stages().find(|stage| below(name, stage).is_some()) {
                    Some(stage) => {
                        words.extend(
                            run.stage_parameters().filter(|(id, ..)| *id == stage).map(|(id, path, _)| format!("{id}.{path}")),
                        );
                        words.extend(run.metrics().filter(|(id, ..)| *id == stage).map(|(id, name, _)| format!("{id}.{name}")));
                    }
                    None => {
                        what = "stages";
                        words.extend(run.stages().map(str::to_owned));
                    }
                },
            }
        }
        if matches!(self, Field::Metric(_)) {
            what = "metrics";
        }
        let wrong = match self {
            Field::Parameter(name) | Field::Metric(name) => name.as_str(),
            Field::OfStage(name) if what == "stages" => name.split('.').next().unwrap_or_default(),
            _ => &self.to_string(),
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        FieldError::Absent(self.to_string(), did_you_mean(wrong, what, &words))
    }
}

impl Fact {
    fn of(self, run: &Summary) -> Option<Value> {
        Some(match self {
            Fact::Id => run.id.clone().into(),
            Fact::Pipeline => run.pipeline.clone().into(),
            Fact::Status => run.status.name().into(),
            Fact::Started => run.started.to_string().into(),
            Fact::Seconds => run.seconds?.into(),
            Fact::Tag => run.tags.clone().into(),
            Fact::Git => run.commit()?.into(),
        })
    }
}

/// The last part of a path: `margin` of `loss.margin`.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// What `name` says below `stage`.
fn below<'a>(name: &'a str, stage: &str) -> Option<&'a str> {
    name.strip_prefix("stages.").unwrap_or(name).strip_prefix(stage)?.strip_prefix('.')
}

/// Whether `full` is `name`, or ends with it after `separator`.
fn ends_with(full: &str, name: &str, separator: char) -> bool {
    full.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with(separator))
}

/// The one that is left, or the names of several.
fn one(mut found: Vec<Found>) -> Result<Option<Found>, Vec<String>> {
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(found.into_iter().map(|found| found.name).collect()),
    }
}

fn parameter(run: &Summary, name: &str) -> Result<Option<Found>, Vec<String>> {
    if let Some(value) = run.own_parameters().remove(name) {
        return Ok(Some(Found { name: format!("params.{name}"), value }));
    }
    let of_stages = run.stage_parameters().filter(|(_, path, _)| ends_with(path, name, '.'));
    let (whole, ends): (Vec<_>, Vec<_>) = of_stages.partition(|(_, path, _)| path == name);
    let candidates = if whole.is_empty() { ends } else { whole };
    one(candidates.into_iter().map(|(stage, path, value)| Found { name: format!("stages.{stage}.with.{path}"), value }).collect())
}

fn metric(run: &Summary, name: &str) -> Result<Option<Found>, Vec<String>> {
    let all: Vec<(String, &str, &str, f64)> = run.metrics().map(|(s, m, value)| (format!("{s}.{m}"), s, m, value)).collect();
    // From the most exact to the least: in full, without the definition around the stage, the metric's own name, its end.
    let closeness = |full: &str, metric: &str| match () {
        () if full == name => Some(0),
        () if ends_with(full, name, '/') => Some(1),
        () if metric == name => Some(2),
        () if ends_with(metric, name, '.') => Some(3),
        () => None,
    };
    let best = all.iter().filter_map(|(full, _, metric, _)| closeness(full, metric)).min();
    let mut found: Vec<_> = all.iter().filter(|(full, _, metric, _)| best.is_some() && closeness(full, metric) == best).collect();
    let (measures, trained) = (|stage: &str| run.measures(stage), |stage: &str| run.uses_trained_model(stage));
    for fits in [&measures as &dyn Fn(&str) -> bool, &trained] {
        if found.len() > 1 && found.iter().any(|(_, stage, ..)| fits(stage)) {
            found.retain(|(_, stage, ..)| fits(stage));
        }
    }
    one(found.into_iter().map(|(full, _, _, value)| Found { name: format!("metrics.{full}"), value: (*value).into() }).collect())
}

fn of_stage(run: &Summary, name: &str) -> Option<Found> {
    // A stage's name may be the beginning of another's.
    run.stages().filter_map(|stage| Some((stage, below(name, stage)?))).find_map(|(stage, rest)| {
        let path = rest.strip_prefix("with.").unwrap_or(rest);
        let parameter = run.stage_parameter(stage, path);
        let parameter = parameter.map(|value| Found { name: format!("stages.{stage}.with.{path}"), value });
        let metric = || run.metrics().find(|(id, metric, _)| *id == stage && *metric == rest);
        parameter.or_else(|| metric().map(|(_, _, value)| Found { name: format!("metrics.{stage}.{rest}"), value: value.into() }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::filter::tests::run;

    fn value(run: &Summary, field: &str) -> Result<String, String> {
        let found = field.parse::<Field>().and_then(|f| f.of(run)).map_err(|e| e.to_string())?;
        Ok(found.map_or_else(|| "–".to_owned(), |f| format!("{} = {}", f.name, f.value)))
    }

    #[test]
    fn facts_parameters_and_metrics_by_full_and_short_names() {
        let run = run("20261125-000001-t-0001");
        let values = [
            "status",
            "tag",
            "params.seed",
            "params.lr",
            "params.margin",
            "params.loss.margin",
            "tuned.lr",
            "stages.tuned.with.loss.margin",
            "metrics.steps",
            "metrics.tuned.eval.ndcg@10",
            "metrics.eval.ndcg@10",
            "fine-tuned.ndcg@10",
            "metrics.nothing",
            "params.nothing",
            "nothing.lr",
        ];
        let lines: Vec<String> = values.iter().map(|field| format!("{field}: {}", value(&run, field).unwrap())).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        status: status = "done"
        tag: tag = []
        params.seed: params.seed = 42
        params.lr: stages.tuned.with.lr = 0.00003
        params.margin: stages.tuned.with.loss.margin = 0.1
        params.loss.margin: stages.tuned.with.loss.margin = 0.1
        tuned.lr: stages.tuned.with.lr = 0.00003
        stages.tuned.with.loss.margin: stages.tuned.with.loss.margin = 0.1
        metrics.steps: metrics.tuned.steps = 180.0
        metrics.tuned.eval.ndcg@10: metrics.tuned.eval.ndcg@10 = 0.48
        metrics.eval.ndcg@10: metrics.tuned.eval.ndcg@10 = 0.48
        fine-tuned.ndcg@10: metrics.fine-tuned.ndcg@10 = 0.55
        metrics.nothing: –
        params.nothing: –
        nothing.lr: –
        "#);
    }

    #[test]
    fn a_metric_that_several_stages_have_is_that_of_the_trained_model() {
        let mut one = run("20261125-000001-t-0001");
        assert_eq!(value(&one, "metrics.ndcg@10").unwrap(), "metrics.fine-tuned.ndcg@10 = 0.55");
        assert_eq!(value(&one, "metrics.baseline.ndcg@10").unwrap(), "metrics.baseline.ndcg@10 = 0.53");
        // Two stages that measure the trained model.
        let again = one.stages.get("fine-tuned").unwrap().clone();
        one.stages.insert("x/fine-tuned".into(), again);
        insta::assert_snapshot!(value(&one, "metrics.ndcg@10").unwrap_err(), @"`metrics.ndcg@10` may mean `metrics.fine-tuned.ndcg@10` or `metrics.x/fine-tuned.ndcg@10` in run `20261125-000001-t-0001`; write one of them, or leave such runs out, for example with `--where 'pipeline!=tech-docs'`");
        assert_eq!(value(&one, "metrics.x/fine-tuned.ndcg@10").unwrap(), "metrics.x/fine-tuned.ndcg@10 = 0.55");
        assert_eq!(value(&one, "metrics.fine-tuned.ndcg@10").unwrap(), "metrics.fine-tuned.ndcg@10 = 0.55");
        insta::assert_snapshot!(value(&one, "params.top_k").unwrap_err(), @"`params.top_k` may mean `stages.answers.with.top_k` or `stages.retrieved.with.top_k` in run `20261125-000001-t-0001`; write one of them, or leave such runs out, for example with `--where 'pipeline!=tech-docs'`");
    }

    #[test]
    fn wrong_names_and_what_may_have_been_meant() {
        let runs = [run("20261125-000001-t-0001")];
        let absent = |field: &str| field.parse::<Field>().unwrap().absent(runs.iter()).to_string();
        insta::assert_snapshot!(["params.marign", "metrics.ndgc@10", "tuned.rl", "tunde.lr"].map(absent).join("\n"), @"
        no run has `params.marign`: did you mean `margin`?
        no run has `metrics.ndgc@10`: did you mean `ndcg@10`?
        no run has `tuned.rl`: did you mean `tuned.lr`?
        no run has `tunde.lr`: did you mean `tuned`?
        ");
        for wrong in ["stauts", "tags", "params.", "x"] {
            assert!(wrong.parse::<Field>().is_err(), "{wrong}");
        }
        insta::assert_snapshot!("stauts".parse::<Field>().unwrap_err(), @"`stauts` is no field: did you mean `status`?");
    }
}

//! What a sweep found: points that repeat an experiment put together, sorted by a figure, the best one first.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::{Axis, PointRecord, PointStatus, SweepError, SweepRecord};
use crate::pipeline::{Override, did_you_mean};

/// Columns of figures that are shown unless some are asked for.
const MOST_COLUMNS: usize = 6;
/// Measures by which to choose where nothing else decides, the preferred ones first.
const MEASURES: &[&str] = &["ndcg", "map", "mrr", "recall", "accuracy", "precision"];

/// How to look at a sweep.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The figure to sort by; without one, [`Summary::of`] chooses.
    pub by: Option<String>,
    /// Whether smaller is better; losses are minimised in any case.
    pub minimize: bool,
    /// The figures to show; without any, [`Summary::of`] chooses.
    pub metrics: Vec<String>,
}

/// A sweep, put together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub sweep: String,
    pub pipeline: String,
    pub file: String,
    /// What the groups are sorted by; absent when there are no figures.
    pub by: Option<Ranked>,
    /// The figures that are shown.
    pub metrics: Vec<String>,
    /// The axes that tell groups apart.
    pub axes: Vec<String>,
    /// The axes that repeat.
    pub repeats: Vec<String>,
    /// The best first.
    pub groups: Vec<Group>,
    /// All points, in the order in which they run.
    pub points: Vec<PointRecord>,
}

/// The figure by which groups are sorted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranked {
    pub metric: String,
    pub minimize: bool,
    /// Where the figure comes from, in words.
    pub why: String,
}

/// Points that differ in nothing but what repeats; a single point where nothing does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// A value for each of [`Summary::axes`].
    pub values: Vec<Value>,
    pub best: bool,
    /// How many of its points are done.
    pub done: usize,
    /// Indices into [`Summary::points`].
    pub points: Vec<usize>,
    /// The runs of its points.
    pub runs: Vec<String>,
    /// What `--set` takes to make it again, without what repeats.
    pub set: Vec<String>,
    /// Over the points that are done.
    pub metrics: BTreeMap<String, Figure>,
}

/// A figure over the points of a group.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    pub mean: f64,
    /// Standard deviation of the sample (divided by n − 1); absent for a single point.
    pub sd: Option<f64>,
    /// How many points have it.
    pub n: usize,
}

impl Figure {
    fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        (n > 0).then_some(Figure { mean, sd, n })
    }
}

/// `lr=3e-5 seed=2`.
pub fn label<'a>(axes: impl IntoIterator<Item = &'a Axis>, values: &[Value]) -> String {
    let parts = axes.into_iter().zip(values).map(|(axis, value)| format!("{}={}", axis.name, Override::written(value)));
    parts.collect::<Vec<_>>().join(" ")
}

impl Summary {
    /// Puts a sweep together. The figure to sort by, when none is asked for, is the first of these that some point has, one that differs
    /// between points if possible:
    /// 1. what a stage measured on the data by which it chose its checkpoint (`STAGE.eval.MEASURE`);
    /// 2. what a stage measured whose name says that its data is for choosing (`dev`, `val`, `valid`, `validation`);
    /// 3. what the last stage that measures has measured.
    ///
    /// In 2 and 3 nDCG comes before average precision, reciprocal rank, recall, accuracy and precision. Groups in which points are missing come
    /// after the others; equal ones stay in their order.
    ///
    /// # Errors
    /// A figure that is asked for is not there.
    pub fn of(record: &SweepRecord, asked: &Asked) -> Result<Self, SweepError> {
        let figures = Figures::of(record);
        let by = match &asked.by {
            Some(name) => {
                let metric = figures.find(name)?;
                Some(figures.ranked(metric, "as asked", asked.minimize))
            }
            None => figures.choose(asked.minimize),
        };
        let mut metrics = Vec::new();
        for name in &asked.metrics {
            metrics.extend(figures.all_called(name)?);
        }
        if metrics.is_empty() {
            metrics = figures.columns(by.as_ref());
        }
        let mut groups = groups(record);
        if let Some(by) = &by {
            sort(&mut groups, by);
        }
        let names = |repeats: bool| record.axes.iter().filter(|a| a.repeats == repeats).map(|a| a.name.clone()).collect();
        Ok(Summary {
            sweep: record.name.clone(),
            pipeline: record.pipeline.clone(),
            file: record.file.clone(),
            by,
            metrics,
            axes: names(false),
            repeats: names(true),
            groups,
            points: record.points.clone(),
        })
    }
}

fn groups(record: &SweepRecord) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let apart = |point: &PointRecord| -> Vec<Value> {
        record.axes.iter().zip(&point.values).filter(|(axis, _)| !axis.repeats).map(|(_, value)| value.clone()).collect()
    };
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (index, point) in record.points.iter().enumerate() {
        let values = apart(point);
        let place = *places.entry(Value::Array(values.clone()).to_string()).or_insert(groups.len());
        if place == groups.len() {
            let own = record.axes.iter().filter(|axis| !axis.repeats).zip(&values);
            let own = own.map(|(axis, value)| format!("{}={}", axis.path, Override::written(value)));
            let set = record.overrides.iter().cloned().chain(own).collect();
            let (points, runs, metrics) = (Vec::new(), Vec::new(), BTreeMap::new());
            groups.push(Group { values, best: false, done: 0, points, runs, set, metrics });
        }
        if let Some(group) = groups.get_mut(place) {
            group.points.push(index);
            group.runs.extend(point.run.clone());
            group.done += usize::from(point.status == PointStatus::Done);
        }
    }
    for group in &mut groups {
        let done: Vec<&PointRecord> = group.points.iter().filter_map(|&i| record.points.get(i)).filter(|p| is_done(p)).collect();
        let names: BTreeSet<&String> = done.iter().flat_map(|point| point.metrics.keys()).collect();
        let figure = |name: &String| {
            let values: Vec<f64> = done.iter().filter_map(|point| point.metrics.get(name).copied()).collect();
            Some((name.clone(), Figure::of(&values)?))
        };
        group.metrics = names.into_iter().filter_map(figure).collect();
    }
    groups
}

fn is_done(point: &PointRecord) -> bool {
    point.status == PointStatus::Done
}

/// The best first, and marked.
fn sort(groups: &mut [Group], by: &Ranked) {
    let figure = |group: &Group| group.metrics.get(&by.metric).map(|figure| figure.mean);
    let rank = |group: &Group| match figure(group) {
        None => 2,
        Some(_) => i32::from(group.done < group.points.len()),
    };
    let worth = |group: &Group| figure(group).map_or(0.0, |mean| if by.minimize { -mean } else { mean });
    groups.sort_by(|a, b| rank(a).cmp(&rank(b)).then(worth(b).total_cmp(&worth(a))));
    if let Some(best) = groups.first_mut().filter(|group| figure(group).is_some()) {
        best.best = true;
    }
}

/// The figures of a sweep.
struct Figures<'a> {
    record: &'a SweepRecord,
    /// Name → its different values, as bits.
    values: BTreeMap<&'a str, BTreeSet<u64>>,
}

impl<'a> Figures<'a> {
    fn of(record: &'a SweepRecord) -> Self {
        let mut values: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (name, value) in record.points.iter().filter(|p| is_done(p)).flat_map(|point| &point.metrics) {
            values.entry(name).or_default().insert(value.to_bits());
        }
        Figures { record, values }
    }

    /// The figures called so: in full, or by all that follows the stage.
    fn called(&self, name: &str) -> Vec<&'a str> {
        if let Some((name, _)) = self.values.get_key_value(name) {
            return vec![name];
        }
        let ends = |full: &&str| full.strip_suffix(name).is_some_and(|stage| stage.ends_with('.'));
        self.values.keys().copied().filter(ends).collect()
    }

    /// As [`called`](Self::called), at least one.
    fn all_called(&self, name: &str) -> Result<Vec<String>, SweepError> {
        let found = self.called(name);
        if found.is_empty() && !self.values.is_empty() {
            let known: Vec<&str> = self.values.keys().copied().collect();
            return Err(SweepError(format!("no point has a metric `{name}`; {}", did_you_mean(name, "metrics", &known))));
        }
        Ok(found.into_iter().map(str::to_owned).collect())
    }

    /// The one figure called so; `name` itself as long as there are none at all.
    fn find(&self, name: &str) -> Result<String, SweepError> {
        let mut found = self.all_called(name)?;
        if found.len() > 1 {
            return Err(SweepError(format!("`{name}` may mean `{}`; name it with its stage", found.join("`, `"))));
        }
        Ok(found.pop().unwrap_or_else(|| name.to_owned()))
    }

    fn ranked(&self, metric: String, why: &str, minimize: bool) -> Ranked {
        let is_loss = measure(&metric).ends_with("loss");
        Ranked { minimize: minimize || is_loss, metric, why: why.to_owned() }
    }

    fn choose(&self, minimize: bool) -> Option<Ranked> {
        let is_measured =
            |name: &&str| name.contains(".eval.") || self.record.measuring.iter().any(|stage| in_stage(name, stage));
        let measured: Vec<&str> = self.values.keys().copied().filter(is_measured).collect();
        let differs = |name: &&&str| self.values.get(**name).is_some_and(|values| values.len() > 1);
        let mut names: Vec<&str> = measured.iter().filter(differs).copied().collect();
        if names.is_empty() {
            names = measured;
        }
        let dev = names.iter().find_map(|name| Some((name, name.split_once(".eval.")?.0)));
        if let Some((name, stage)) = dev {
            let why = format!("measured on the data by which `{stage}` chose its checkpoint");
            return Some(self.ranked((*name).to_owned(), &why, minimize));
        }
        let measuring = |stage: &&String| names.iter().any(|name| in_stage(name, stage));
        let stages: Vec<&String> = self.record.measuring.iter().rev().filter(measuring).collect();
        let (stage, why) = match stages.iter().find(|stage| is_for_choosing(stage)) {
            Some(stage) => (stage, "measured on data for choosing, as its name says"),
            None => (
                stages.first()?,
                "no figure on dev data was found: one that was chosen by the data it is measured on flatters; `--by` names another",
            ),
        };
        let of_stage = || names.iter().filter(|name| in_stage(name, stage));
        let preferred = MEASURES.iter().find_map(|m| of_stage().find(|name| measure(name).split('@').next() == Some(m)));
        let name = preferred.or_else(|| of_stage().next())?;
        Some(self.ranked((*name).to_owned(), why, minimize))
    }

    /// The figure that is sorted by, and the same measure of the stages that measure where it differs; without one, what differs.
    fn columns(&self, by: Option<&Ranked>) -> Vec<String> {
        let differs = |name: &&str| self.values.get(name).is_some_and(|values| values.len() > 1);
        let Some(by) = by else {
            return self.values.keys().copied().filter(differs).take(MOST_COLUMNS).map(str::to_owned).collect();
        };
        let same = self.record.measuring.iter().flat_map(|stage| {
            let of_stage = self.values.keys().copied().filter(move |name| in_stage(name, stage));
            of_stage.filter(|name| measure(name) == measure(&by.metric) && *name != by.metric)
        });
        std::iter::once(by.metric.clone()).chain(same.filter(differs).map(str::to_owned)).take(MOST_COLUMNS).collect()
    }
}

/// `ndcg@10` of `tuned.eval.ndcg@10`.
fn measure(metric: &str) -> &str {
    metric.rsplit('.').next().unwrap_or(metric)
}

fn in_stage(metric: &str, stage: &str) -> bool {
    metric.strip_prefix(stage).is_some_and(|rest| rest.starts_with('.'))
}

fn is_for_choosing(stage: &str) -> bool {
    let words = stage.split(|c: char| !c.is_ascii_alphanumeric());
    words.into_iter().any(|word| ["dev", "val", "valid", "validation"].contains(&word.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::super::Choices;
    use super::*;

    /// Two rates with three seeds each, and their figures.
    fn record(measuring: &[&str], figures: &[&[(&str, f64)]]) -> SweepRecord {
        let axis = |name: &str, values: Value| Axis {
            name: name.into(),
            path: format!("params.{name}"),
            repeats: name == "seed",
            choices: Choices::Values(values.as_array().unwrap().clone()),
        };
        let axes = vec![axis("lr", json!([1e-5, 3e-5])), axis("seed", json!([1, 2, 3]))];
        let points = super::super::points(&axes, None).unwrap();
        let measuring = measuring.iter().map(|s| (*s).to_owned()).collect();
        let overrides = vec!["params.epochs=1".to_owned()];
        let mut record =
            SweepRecord::new(Some("s"), ("p", Path::new("p.yaml"), &overrides), (axes, None, points), measuring).unwrap();
        for (i, (point, figures)) in record.points.iter_mut().zip(figures).enumerate() {
            point.status = PointStatus::Done;
            point.run = Some(format!("run{i}"));
            point.metrics = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        }
        record
    }

    #[test]
    fn seeds_are_put_together_as_mean_and_standard_deviation() {
        let values = [0.50, 0.52, 0.57, 0.60, 0.61, 0.50];
        let figures: Vec<[(&str, f64); 1]> = values.iter().map(|&v| [("test.ndcg@10", v)]).collect();
        let figures: Vec<&[(&str, f64)]> = figures.iter().map(|f| f.as_slice()).collect();
        let summary = Summary::of(&record(&["test"], &figures), &Asked::default()).unwrap();
        let [best, other] = summary.groups.as_slice() else { panic!("{summary:?}") };
        assert_eq!((best.values.as_slice(), best.best, other.best), ([json!(3e-5)].as_slice(), true, false));
        assert_eq!(best.set, ["params.epochs=1", "params.lr=3e-5"]);
        assert_eq!(best.runs, ["run3", "run4", "run5"]);
        // Computed apart: mean 1.71/3, deviations 0.03, 0.04, −0.07; and 1.59/3 with −0.03, −0.01, 0.04.
        let figure = best.metrics["test.ndcg@10"];
        assert!((figure.mean - 0.57).abs() < 1e-12 && (figure.sd.unwrap() - 0.0037f64.sqrt()).abs() < 1e-12 && figure.n == 3);
        let figure = other.metrics["test.ndcg@10"];
        assert!((figure.mean - 0.53).abs() < 1e-12 && (figure.sd.unwrap() - 0.0013f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn the_figure_that_decides() {
        let by = |measuring: &[&str], first: &[(&str, f64)], second: &[(&str, f64)]| {
            let by = Summary::of(&record(measuring, &[first, second]), &Asked::default()).unwrap().by;
            by.map(|by| (by.metric, by.minimize)).unwrap_or_default()
        };
        let dev = [("after.ndcg@10", 0.1), ("tuned.eval.ndcg@10", 0.1), ("tuned.loss", 1.0)];
        let dev_2 = [("after.ndcg@10", 0.2), ("tuned.eval.ndcg@10", 0.2), ("tuned.loss", 2.0)];
        assert_eq!(by(&["after"], &dev, &dev_2), ("tuned.eval.ndcg@10".into(), false));
        let named = [("dev-after.mrr@10", 0.1), ("dev-after.ndcg@10", 0.1), ("test-after.ndcg@10", 0.1)];
        let named_2 = [("dev-after.mrr@10", 0.2), ("dev-after.ndcg@10", 0.2), ("test-after.ndcg@10", 0.2)];
        assert_eq!(by(&["dev-after", "test-after"], &named, &named_2).0, "dev-after.ndcg@10");
        // The baseline is the same at all points, and what `comparison` has is a difference.
        let test = [("before.ndcg@10", 0.1), ("after.ndcg@10", 0.1), ("comparison.ndcg@10", 0.0)];
        let test_2 = [("before.ndcg@10", 0.1), ("after.ndcg@10", 0.2), ("comparison.ndcg@10", 0.1)];
        assert_eq!(by(&["after", "before"], &test, &test_2).0, "after.ndcg@10");
        assert_eq!(by(&[], &[("tuned.steps", 1.0)], &[("tuned.steps", 2.0)]).0, "");
    }

    #[test]
    fn figures_are_found_by_name() {
        let record = record(
            &["after"],
            &[
                &[("after.ndcg@10", 0.1), ("before.ndcg@10", 0.3), ("tuned.loss", 1.0)],
                &[("after.ndcg@10", 0.2), ("tuned.loss", 2.0)],
            ],
        );
        let asked = |by: &str| Summary::of(&record, &Asked { by: Some(by.into()), ..Asked::default() });
        let loss = asked("loss").unwrap().by.unwrap();
        assert_eq!((loss.metric.as_str(), loss.minimize), ("tuned.loss", true));
        insta::assert_snapshot!(asked("ndcg@10").unwrap_err(), @"`ndcg@10` may mean `after.ndcg@10`, `before.ndcg@10`; name it with its stage");
        insta::assert_snapshot!(asked("tuned.los").unwrap_err(), @"no point has a metric `tuned.los`; did you mean `tuned.loss`?");
        let columns = Asked { metrics: vec!["ndcg@10".into()], ..Asked::default() };
        assert_eq!(Summary::of(&record, &columns).unwrap().metrics, ["after.ndcg@10", "before.ndcg@10"]);
    }

    #[test]
    fn a_group_in_which_points_are_missing_is_not_the_best() {
        let (low, high) = ([("test.ndcg@10", 0.4)], [("test.ndcg@10", 0.9)]);
        let summary = Summary::of(&record(&["test"], &[&low, &low, &low, &high]), &Asked::default()).unwrap();
        let means: Vec<(f64, bool, usize)> =
            summary.groups.iter().map(|g| (g.metrics["test.ndcg@10"].mean, g.best, g.done)).collect();
        assert_eq!((means[0].1, means[0].2, means[1]), (true, 3, (0.9, false, 1)));
    }
}

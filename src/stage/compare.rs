//! The stage `compare`: sets the metrics of models side by side.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Table, configure, schema};
use crate::artifact::{Kind, Metrics};
use crate::evaluation::Measure;
use crate::evaluation::significance::{Significance, compare, holm};

pub const KIND: StageKind = StageKind {
    name: "compare",
    version: 2,
    summary: "sets the metrics of models side by side",
    inputs: &[
        Port { name: "baseline", kind: Kind::Metrics, required: true, many: false, doc: "metrics to compare with" },
        Port { name: "tuned", kind: Kind::Metrics, required: false, many: false, doc: "metrics of the fine-tuned model" },
        Port {
            name: "runs",
            kind: Kind::Metrics,
            required: false,
            many: true,
            doc: "metrics of any number of models, for example `evaluated[*]`; one of `tuned` and `runs` must be there",
        },
    ],
    outputs: &[OutputPort {
        name: "comparison",
        kind: Kind::File,
        file: "comparison.json",
        doc: "both values, difference and improvement",
    }],
    declared: None,
    unkeyed: &[],
    schema: schema::<Compare>,
    configure: configure::<Compare>,
};

/// Sets the metrics of two models, or of a baseline and any number of models, on the same queries side by side: the table at the end of a
/// run. With the input `runs`, each of them has a row, `*` marks the best value of each measure, and every difference to the baseline is
/// tested, with Holm's correction over all of them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Compare {
    /// The columns of the table.
    pub measures: Vec<Measure>,
    /// The name of the first row.
    pub baseline_name: String,
    /// The name of the second row.
    pub tuned_name: String,
}

impl Default for Compare {
    fn default() -> Self {
        let measures = ["recall@3", "recall@5", "mrr@10", "ndcg@10"];
        Compare {
            measures: measures.iter().filter_map(|m| m.parse().ok()).collect(),
            baseline_name: "baseline".into(),
            tuned_name: "fine-tuned".into(),
        }
    }
}

/// One measure under both models.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    baseline: f64,
    tuned: f64,
    difference: f64,
    /// Relative to the baseline, in per cent; absent when the baseline is 0 and the tuned value is not.
    improvement_percent: Option<f64>,
    /// Whether the difference is more than chance; Holm's correction is over all measures of the comparison.
    #[serde(flatten)]
    significance: Significance,
}

/// The measures of one model beside those of the baseline.
type Rows<'a> = BTreeMap<&'a str, Row>;

/// `comparison.json` of two models.
#[derive(Serialize)]
struct Comparison<'a> {
    convention: &'a str,
    queries: usize,
    measures: Rows<'a>,
}

/// `comparison.json` of any number of models.
#[derive(Serialize)]
struct Comparisons<'a> {
    convention: &'a str,
    queries: usize,
    /// In the order of the table.
    runs: Vec<Run<'a>>,
}

/// A model among several.
#[derive(Serialize)]
struct Run<'a> {
    name: &'a str,
    measures: Rows<'a>,
}

impl Stage for Compare {
    fn check(&self) -> Result<(), ParameterError> {
        if self.measures.is_empty() {
            return Err(ParameterError::new("measures", "the list is empty; name at least one measure, for example `ndcg@10`"));
        }
        Ok(())
    }

    fn check_inputs(&self, inputs: &[&str]) -> Result<(), ParameterError> {
        if inputs.contains(&"tuned") || inputs.contains(&"runs") {
            return Ok(());
        }
        Err(ParameterError::new("", "there is nothing to compare the baseline with; connect the input `tuned` or `runs`"))
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let baseline = Metrics::read(context.input("baseline")?)?;
        let tuned = context.optional_input("tuned").map(Metrics::read).transpose()?;
        let runs = context.inputs("runs");
        let path = context.output("comparison")?;
        let write =
            |json: String| std::fs::write(path, json + "\n").with_context(|| format!("failed to write {}", path.display()));
        let Some(tuned) = tuned.as_ref().filter(|_| runs.is_empty()) else {
            let mut named = tuned.map(|tuned| (self.tuned_name.as_str(), tuned)).into_iter().collect::<Vec<_>>();
            for (label, path) in runs {
                named.push((label, Metrics::read(path)?));
            }
            named.sort_by(|(a, _), (b, _)| natural(a, b));
            let comparisons = comparisons(&baseline, &named, context)?;
            write(serde_json::to_string_pretty(&comparisons)?)?;
            let (table, summary) = (self.table_of_runs(&comparisons)?, self.summary_of_runs(&comparisons));
            return Ok(Outcome { table: Some(table), summary, ..Outcome::default() });
        };
        comparable(&baseline, tuned)?;
        let mut rows = rows(&baseline, tuned);
        correct(rows.values_mut());
        let table = self.table(&rows)?;
        let comparison = Comparison { convention: &baseline.convention, queries: baseline.queries, measures: rows };
        write(serde_json::to_string_pretty(&comparison)?)?;
        let summary = self.summary(&comparison);
        Ok(Outcome { table: Some(table), summary, ..Outcome::default() })
    }
}

impl Compare {
    /// The measures of the table.
    fn chosen<'r>(&self, rows: &'r Rows) -> Result<Vec<(String, &'r Row)>> {
        let mut chosen = Vec::new();
        for measure in &self.measures {
            let name = measure.to_string();
            match rows.get(name.as_str()) {
                Some(row) => chosen.push((name, row)),
                None => {
                    let known = rows.keys().copied().collect::<Vec<_>>().join("`, `");
                    bail!("`{name}` was not measured; the stages `evaluate` measured `{known}`");
                }
            }
        }
        Ok(chosen)
    }

    /// A row for the baseline and for each run; `*` stands before the best value of a column.
    fn table_of_runs(&self, comparisons: &Comparisons) -> Result<Table> {
        let mut rows = Vec::new();
        for run in &comparisons.runs {
            let chosen = self.chosen(&run.measures)?;
            if rows.is_empty() {
                rows.push((self.baseline_name.clone(), chosen.iter().map(|(_, row)| row.baseline).collect::<Vec<f64>>()));
            }
            rows.push((run.name.to_owned(), chosen.iter().map(|(_, row)| row.tuned).collect()));
        }
        let column = |at: usize| rows.iter().filter_map(move |(_, values)| values.get(at).copied());
        let best: Vec<f64> = (0..self.measures.len()).map(|at| column(at).fold(f64::NEG_INFINITY, f64::max)).collect();
        let cell = |(value, best): (&f64, &f64)| format!("{}{value:.4}", if value == best { "*" } else { "" });
        let line = |(name, values): &(String, Vec<f64>)| (name.clone(), values.iter().zip(&best).map(cell).collect());
        Ok(Table { columns: self.measures.iter().map(Measure::to_string).collect(), rows: rows.iter().map(line).collect() })
    }

    /// Which run is best by the last measure of the table, and whether its difference to the baseline is more than chance.
    fn summary_of_runs(&self, comparisons: &Comparisons) -> String {
        let measure = self.measures.last().map(Measure::to_string).unwrap_or_default();
        let value = |run: &&Run| run.measures.get(measure.as_str()).map_or(f64::NEG_INFINITY, |row| row.tuned);
        // Of equal ones the first.
        let best = comparisons.runs.iter().rev().max_by(|a, b| value(a).total_cmp(&value(b)));
        let Some((run, row)) = best.and_then(|run| Some((run, run.measures.get(measure.as_str())?))) else {
            return String::new();
        };
        let tests: usize = comparisons.runs.iter().map(|run| run.measures.len()).sum();
        format!(
            "{measure}: of {} runs `{}` is best; difference to the baseline {:+.4}, {} (Holm's correction over {tests} tests)",
            comparisons.runs.len(),
            run.name,
            row.difference,
            chance(row.significance.p_holm)
        )
    }

    fn table(&self, rows: &Rows) -> Result<Table> {
        let chosen = self.chosen(rows)?;
        let line =
            |name: &str, cell: &dyn Fn(&Row) -> String| (name.to_owned(), chosen.iter().map(|(_, row)| cell(row)).collect());
        Ok(Table {
            columns: chosen.iter().map(|(name, _)| name.clone()).collect(),
            rows: vec![
                line(&self.baseline_name, &|r| format!("{:.4}", r.baseline)),
                line(&self.tuned_name, &|r| format!("{:.4}", r.tuned)),
                line("improvement", &|r| improvement(r)),
            ],
        })
    }

    /// How many queries the last measure of the table moved, and whether that is more than chance.
    fn summary(&self, comparison: &Comparison) -> String {
        let measure = self.measures.last().map(Measure::to_string).unwrap_or_default();
        comparison.measures.get(measure.as_str()).map_or_else(String::new, |row| {
            let Significance { queries, wins, ties, losses, p, interval, .. } = &row.significance;
            format!(
                "{measure}: {wins} of {queries} queries better, {losses} worse, {ties} the same; difference {:+.4}, 95% interval {:+.4} … {:+.4}, {}",
                row.difference,
                interval[0],
                interval[1],
                chance(*p)
            )
        })
    }
}

/// A p value with four digits, which never says that there is no chance at all.
fn chance(p: f64) -> String {
    if p < 1e-4 { "p < 0.0001".to_owned() } else { format!("p = {p:.4}") }
}

/// The measures of `tuned` beside those of the baseline; p values are not corrected.
fn rows<'a>(baseline: &'a Metrics, tuned: &Metrics) -> Rows<'a> {
    baseline.means.keys().filter_map(|measure| Some((measure.as_str(), row(measure, baseline, tuned)?))).collect()
}

/// Holm's correction over all the rows.
fn correct<'r>(rows: impl Iterator<Item = &'r mut Row>) {
    let rows: Vec<&mut Row> = rows.collect();
    let corrected = holm(&rows.iter().map(|row| row.significance.p).collect::<Vec<_>>());
    rows.into_iter().zip(corrected).for_each(|(row, p)| row.significance.p_holm = p);
}

/// Each of the runs beside the baseline.
fn comparisons<'a>(baseline: &'a Metrics, named: &'a [(&'a str, Metrics)], context: &Context) -> Result<Comparisons<'a>> {
    if let Some([(name, _), _]) = named.windows(2).find(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
        bail!("two runs are called `{name}`; give `tuned_name` another value");
    }
    for (name, metrics) in named {
        comparable(baseline, metrics).with_context(|| format!("`{name}` cannot be compared with the baseline"))?;
    }
    let run = |(name, metrics): &'a (&'a str, Metrics)| -> Result<Run<'a>> {
        context.cancel.check()?;
        Ok(Run { name, measures: rows(baseline, metrics) })
    };
    let mut runs: Vec<Run> = named.par_iter().map(run).collect::<Result<_>>()?;
    correct(runs.iter_mut().flat_map(|run| run.measures.values_mut()));
    Ok(Comparisons { convention: &baseline.convention, queries: baseline.queries, runs })
}

/// Labels part by part, with numbers by their values: `lr=3e-5` before `lr=1e-4`, `k=8` before `k=16`.
fn natural(a: &str, b: &str) -> Ordering {
    let parts = |label: &str| label.split([',', '=', '[', ']']).map(str::to_owned).collect::<Vec<_>>();
    let number = |part: &str| part.parse::<f64>().ok().filter(|number| number.is_finite());
    for (x, y) in parts(a).iter().zip(&parts(b)) {
        let order = match (number(x), number(y)) {
            (Some(x), Some(y)) => x.total_cmp(&y),
            _ => x.cmp(y),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.cmp(b)
}

/// Figures of different definitions or queries say nothing about each other.
fn comparable(baseline: &Metrics, tuned: &Metrics) -> Result<()> {
    if baseline.convention != tuned.convention {
        bail!(
            "the baseline was measured by the convention `{}` and the tuned model by `{}`; give both stages the same `convention`",
            baseline.convention,
            tuned.convention
        );
    }
    let only = |a: &Metrics, b: &Metrics| a.per_query.keys().find(|q| !b.per_query.contains_key(*q)).cloned();
    if let Some(query) = only(baseline, tuned).or_else(|| only(tuned, baseline)) {
        bail!("query `{query}` was measured for one model only; give both stages `evaluate` the same judgements");
    }
    Ok(())
}

fn row(measure: &str, baseline: &Metrics, tuned: &Metrics) -> Option<Row> {
    let (before, after) = (*baseline.means.get(measure)?, *tuned.means.get(measure)?);
    Some(Row {
        baseline: before,
        tuned: after,
        difference: after - before,
        improvement_percent: percent(before, after),
        significance: compare(&baseline.paired(tuned, measure)?)?,
    })
}

/// The relative change in per cent: 0 from 0 to 0, and nothing that a number could say from 0 to more.
fn percent(before: f64, after: f64) -> Option<f64> {
    if before == after {
        Some(0.0)
    } else if before == 0.0 {
        None
    } else {
        Some((after - before) / before * 100.0)
    }
}

/// As the table shows it: `+12.3%`, and `new` when there was nothing before.
fn improvement(row: &Row) -> String {
    row.improvement_percent.map_or_else(|| "new".into(), |p| format!("{p:+.1}%"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::testing::Bench;

    #[test]
    fn no_chance_is_none_at_all() {
        assert_eq!(
            [0.0, 9e-5, 1e-4, 0.046, 1.0].map(chance),
            ["p < 0.0001", "p < 0.0001", "p = 0.0001", "p = 0.0460", "p = 1.0000"]
        );
    }

    fn metrics(values: &[(&str, f64)]) -> Metrics {
        let per_query: BTreeMap<String, BTreeMap<String, f64>> =
            values.iter().map(|(q, v)| ((*q).to_owned(), [("ndcg@10".to_owned(), *v)].into())).collect();
        let mean = values.iter().map(|(_, v)| v).sum::<f64>() / values.len() as f64;
        Metrics {
            convention: "trec".into(),
            queries: values.len(),
            means: [("ndcg@10".to_owned(), mean)].into(),
            per_query,
            ..Metrics::default()
        }
    }

    #[test]
    fn improvement_is_defined_from_zero() {
        assert_eq!(percent(0.0, 0.0), Some(0.0));
        assert_eq!(percent(0.0, 0.5), None);
        assert_eq!(percent(0.5, 0.25), Some(-50.0));
        let new = row("ndcg@10", &metrics(&[("a", 0.0)]), &metrics(&[("a", 0.5)])).unwrap();
        assert_eq!(improvement(&new), "new");
    }

    #[test]
    fn the_table_has_a_row_a_model_and_one_for_the_improvement() {
        let (before, after) = (metrics(&[("a", 0.5), ("b", 0.5), ("c", 0.2)]), metrics(&[("a", 1.0), ("b", 0.25), ("c", 0.2)]));
        let found = row("ndcg@10", &before, &after).unwrap();
        let Significance { wins, losses, ties, p, .. } = found.significance;
        assert_eq!((wins, losses, ties, p), (1, 1, 1, 1.0));
        let compare = Compare { measures: vec![Measure::default()], ..Compare::default() };
        let table = compare.table(&[("ndcg@10", found)].into()).unwrap();
        insta::assert_debug_snapshot!(table.rows, @r#"
        [
            (
                "baseline",
                [
                    "0.4000",
                ],
            ),
            (
                "fine-tuned",
                [
                    "0.4833",
                ],
            ),
            (
                "improvement",
                [
                    "+20.8%",
                ],
            ),
        ]
        "#);
    }

    #[test]
    fn labels_are_in_natural_order() {
        let mut labels = ["k=16", "k=8", "lr=1e-4,k=2", "lr=3e-5,k=10", "lr=3e-5,k=9", "loss=nan", "loss=mnrl", "k=8,x=1"];
        labels.sort_by(|a, b| natural(a, b));
        assert_eq!(labels, ["k=8", "k=8,x=1", "k=16", "loss=mnrl", "loss=nan", "lr=3e-5,k=9", "lr=3e-5,k=10", "lr=1e-4,k=2"]);
    }

    /// Twelve queries, of which `better` gain and the others stay.
    fn gained(better: usize) -> Metrics {
        let names: Vec<String> = (0..12).map(|i| format!("q{i}")).collect();
        metrics(&names.iter().enumerate().map(|(i, q)| (q.as_str(), if i < better { 0.75 } else { 0.5 })).collect::<Vec<_>>())
    }

    #[test]
    fn any_number_of_runs_are_compared_with_correction_over_all() {
        let bench = Bench::new();
        let write = |name: &str, metrics: Metrics| {
            metrics.write(&bench.path().join(name), &["ndcg@10".into()]).unwrap();
            bench.path().join(name)
        };
        let inputs = [
            ("baseline", write("base", gained(0))),
            ("tuned", write("tuned", gained(1))),
            ("runs[k=10]", write("ten", gained(8))),
            ("runs[k=9]", write("nine", gained(6))),
        ];
        let parameters = serde_json::json!({ "measures": ["ndcg@10"] });
        let outcome = bench.run(&KIND, parameters.clone(), &inputs).unwrap();
        let table = outcome.table.unwrap();
        let lines: Vec<String> = table.rows.iter().map(|(name, cells)| format!("{name} {}", cells.join(" "))).collect();
        assert_eq!(lines, ["baseline 0.5000", "fine-tuned 0.5208", "k=9 0.6250", "k=10 *0.6667"]);
        // Of the 2^8 signs of eight equal gains, two are as far from 0: p = 1/128, times the three tests.
        insta::assert_snapshot!(outcome.summary, @"ndcg@10: of 3 runs `k=10` is best; difference to the baseline +0.1667, p = 0.0234 (Holm's correction over 3 tests)");
        let written: serde_json::Value = serde_json::from_str(&bench.read("comparison.json")).unwrap();
        let p = |run: usize, p: &str| written["runs"][run]["measures"]["ndcg@10"][p].as_f64().unwrap();
        assert_eq!((p(2, "p"), p(2, "p_holm"), p(1, "p"), p(1, "p_holm")), (1.0 / 128.0, 3.0 / 128.0, 1.0 / 32.0, 2.0 / 32.0));
        assert_eq!(written["runs"][0]["name"], "fine-tuned");
        let twice = [inputs[0].clone(), inputs[1].clone(), ("runs[fine-tuned]", bench.path().join("ten"))];
        let error = bench.run(&KIND, parameters, &twice).unwrap_err();
        assert_eq!(error.to_string(), "two runs are called `fine-tuned`; give `tuned_name` another value");
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let compare = Compare::default();
        assert!(compare.check_inputs(&["baseline", "runs"]).is_ok() && compare.check_inputs(&["baseline", "tuned"]).is_ok());
        assert!(compare.check_inputs(&["baseline"]).is_err());
        let (a, mut b) = (metrics(&[("a", 0.5)]), metrics(&[("b", 0.5)]));
        insta::assert_snapshot!(comparable(&a, &b).unwrap_err(), @"query `a` was measured for one model only; give both stages `evaluate` the same judgements");
        b.convention = "sentence-transformers".into();
        insta::assert_snapshot!(comparable(&a, &b).unwrap_err(), @"the baseline was measured by the convention `trec` and the tuned model by `sentence-transformers`; give both stages the same `convention`");
        let message = Compare::default().table(&BTreeMap::new()).unwrap_err().to_string();
        assert!(message.starts_with("`recall@3` was not measured"), "{message}");
    }
}

//! The stage `compare`: sets the metrics of two models side by side.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Table, configure, schema};
use crate::artifact::{Kind, Metrics};
use crate::evaluation::Measure;
use crate::evaluation::significance::{Significance, compare, holm};

pub const KIND: StageKind = StageKind {
    name: "compare",
    version: 2,
    summary: "sets the metrics of two models side by side",
    inputs: &[
        Port { name: "baseline", kind: Kind::Metrics, required: true, many: false, doc: "metrics to compare with" },
        Port { name: "tuned", kind: Kind::Metrics, required: true, many: false, doc: "metrics of the fine-tuned model" },
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

/// Sets the metrics of two models on the same queries side by side: the table at the end of a run.
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

#[derive(Serialize)]
struct Comparison<'a> {
    convention: &'a str,
    queries: usize,
    measures: BTreeMap<&'a str, Row>,
}

impl Stage for Compare {
    fn check(&self) -> Result<(), ParameterError> {
        if self.measures.is_empty() {
            return Err(ParameterError::new("measures", "the list is empty; name at least one measure, for example `ndcg@10`"));
        }
        Ok(())
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let baseline = Metrics::read(context.input("baseline")?)?;
        let tuned = Metrics::read(context.input("tuned")?)?;
        comparable(&baseline, &tuned)?;
        let mut rows: BTreeMap<&str, Row> =
            baseline.means.keys().filter_map(|m| Some((m.as_str(), row(m, &baseline, &tuned)?))).collect();
        let corrected = holm(&rows.values().map(|row| row.significance.p).collect::<Vec<_>>());
        rows.values_mut().zip(corrected).for_each(|(row, p)| row.significance.p_holm = p);
        let table = self.table(&rows)?;
        let comparison = Comparison { convention: &baseline.convention, queries: baseline.queries, measures: rows };
        let path = context.output("comparison")?;
        std::fs::write(path, serde_json::to_string_pretty(&comparison)? + "\n")
            .with_context(|| format!("failed to write {}", path.display()))?;
        let summary = self.summary(&comparison);
        Ok(Outcome { table: Some(table), summary, ..Outcome::default() })
    }
}

impl Compare {
    fn table(&self, rows: &BTreeMap<&str, Row>) -> Result<Table> {
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
                "{measure}: {wins} of {queries} queries better, {losses} worse, {ties} the same; difference {:+.4}, 95% interval {:+.4} … {:+.4}, p = {p:.4}",
                row.difference, interval[0], interval[1]
            )
        })
    }
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
    fn what_cannot_be_compared_is_refused() {
        let (a, mut b) = (metrics(&[("a", 0.5)]), metrics(&[("b", 0.5)]));
        insta::assert_snapshot!(comparable(&a, &b).unwrap_err(), @"query `a` was measured for one model only; give both stages `evaluate` the same judgements");
        b.convention = "sentence-transformers".into();
        insta::assert_snapshot!(comparable(&a, &b).unwrap_err(), @"the baseline was measured by the convention `trec` and the tuned model by `sentence-transformers`; give both stages the same `convention`");
        let message = Compare::default().table(&BTreeMap::new()).unwrap_err().to_string();
        assert!(message.starts_with("`recall@3` was not measured"), "{message}");
    }
}

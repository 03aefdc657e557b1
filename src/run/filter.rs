//! Choosing and ordering runs: `--where 'params.lr>=3e-5'`, `--sort -metrics.ndcg@10`.
//!
//! A condition is a field, an operator and a value: `= != < <= > >=`, and `~` for "contains". Numbers are compared as numbers,
//! texts letter by letter. A run that has no such field fits no condition but of tags, of which it then has none.

use std::cmp::Ordering;
use std::str::FromStr;

use rayon::prelude::*;
use serde_json::Value;

use super::field::{Fact, Field, FieldError};
use super::record::RunStatus;
use super::summary::Summary;
use crate::pipeline::words::did_you_mean;
use crate::stage::reference::written;

/// `FIELD OPERATOR VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub field: Field,
    operator: Operator,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
    Contains,
}

/// As they are found in a text: those of two characters first.
const OPERATORS: [(&str, Operator); 8] = [
    ("!=", Operator::Unequal),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("==", Operator::Equal),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::More),
    ("~", Operator::Contains),
];

/// A field to order by.
#[derive(Debug, Clone, PartialEq)]
pub struct Sort {
    pub field: Field,
    /// The largest first.
    descending: bool,
}

/// A condition that cannot be read or answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("`{0}` has no operator; write a field, one of `= != < <= > >= ~` and a value, for example `params.lr>=3e-5`")]
    NoOperator(String),
    #[error("there is no status `{0}`: {1}")]
    Status(String, String),
    #[error("`{field}` is a number in run `{run}`, and `{value}` is none")]
    NoNumber { field: String, run: String, value: String },
    #[error(transparent)]
    Field(#[from] FieldError),
}

impl FromStr for Condition {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let (at, sign, operator) = find_operator(text).ok_or_else(|| FilterError::NoOperator(text.to_owned()))?;
        let (field, value) = (text.get(..at).unwrap_or_default().trim(), text.get(at + sign.len()..).unwrap_or_default().trim());
        let field: Field = field.parse()?;
        let statuses = RunStatus::ALL.map(RunStatus::name);
        if field == Field::Fact(Fact::Status) && operator != Operator::Contains && !statuses.contains(&value) {
            return Err(FilterError::Status(value.to_owned(), did_you_mean(value, "statuses", &statuses)));
        }
        Ok(Condition { field, operator, value: value.to_owned() })
    }
}

/// The first operator outside of brackets, which belong to names like `tuned[lr=3e-5].epochs`: where it is, how it is written, what it is.
fn find_operator(text: &str) -> Option<(usize, &'static str, Operator)> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            _ => {
                let rest = text.get(at..).unwrap_or_default();
                if let Some((sign, operator)) = OPERATORS.iter().find(|(sign, _)| rest.starts_with(sign)) {
                    return Some((at, sign, *operator));
                }
            }
        }
    }
    None
}

impl FromStr for Sort {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let ascending = text.strip_prefix('-');
        Ok(Sort { field: ascending.unwrap_or(text).parse()?, descending: ascending.is_some() })
    }
}

impl Condition {
    /// Whether the run has what is asked for; nothing when it has no such field.
    fn fits(&self, run: &Summary) -> Result<Option<bool>, FilterError> {
        let Some(found) = self.field.of(run)? else { return Ok(None) };
        let fits = match (&self.field, &found.value) {
            (Field::Fact(Fact::Tag), Value::Array(tags)) => self.fits_tags(tags),
            // A part of a time or of a commit's name means all that begin so.
            (Field::Fact(Fact::Started | Fact::Git), Value::String(text)) if self.operator == Operator::Equal => {
                text.starts_with(&self.value)
            }
            (Field::Fact(Fact::Started | Fact::Git), Value::String(text)) if self.operator == Operator::Unequal => {
                !text.starts_with(&self.value)
            }
            (_, value) => self.fits_value(value).ok_or_else(|| FilterError::NoNumber {
                field: self.field.to_string(),
                run: run.id.clone(),
                value: self.value.clone(),
            })?,
        };
        Ok(Some(fits))
    }

    /// `tag=x`: one of the tags is it; `tag!=x`: none is. Nothing after the operator means no tag at all.
    fn fits_tags(&self, tags: &[Value]) -> bool {
        let any = |operator| {
            let one = Condition { operator, ..self.clone() };
            tags.iter().any(|tag| one.fits_value(tag) == Some(true))
        };
        match self.operator {
            Operator::Equal if self.value.is_empty() => tags.is_empty(),
            Operator::Unequal if self.value.is_empty() => !tags.is_empty(),
            Operator::Unequal => !any(Operator::Equal),
            operator => any(operator),
        }
    }

    /// Nothing when a number is to be compared with what is none.
    fn fits_value(&self, value: &Value) -> Option<bool> {
        let text = written(value);
        let order = match (value.as_f64(), self.value.parse::<f64>()) {
            (Some(a), Ok(b)) => a.partial_cmp(&b),
            (Some(_), Err(_)) if matches!(self.operator, Operator::Equal | Operator::Unequal) => Some(Ordering::Less),
            (Some(_), Err(_)) if self.operator != Operator::Contains => return None,
            _ => Some(text.as_str().cmp(&self.value)),
        };
        Some(match self.operator {
            Operator::Equal => order == Some(Ordering::Equal),
            Operator::Unequal => order != Some(Ordering::Equal),
            Operator::Less => order == Some(Ordering::Less),
            Operator::AtMost => order.is_some_and(Ordering::is_le),
            Operator::More => order == Some(Ordering::Greater),
            Operator::AtLeast => order.is_some_and(Ordering::is_ge),
            Operator::Contains => text.contains(&self.value),
        })
    }
}

/// The runs that every condition fits. Conditions on what every run has come first, so that they can leave out runs in which the others
/// would be ambiguous.
///
/// # Errors
/// A condition names what none of the runs has, or is ambiguous in one.
pub fn choose(mut runs: Vec<Summary>, conditions: &[Condition]) -> Result<Vec<Summary>, FilterError> {
    let (facts, others): (Vec<_>, Vec<_>) = conditions.iter().partition(|c| matches!(c.field, Field::Fact(_)));
    for condition in facts.into_iter().chain(others) {
        let fits: Vec<_> = runs.par_iter().map(|run| condition.fits(run)).collect();
        let fits = fits.into_iter().collect::<Result<Vec<Option<bool>>, _>>()?;
        known(&condition.field, runs.iter(), fits.iter().any(Option::is_some))?;
        let mut fits = fits.into_iter();
        runs.retain(|_| fits.next().flatten() == Some(true));
    }
    Ok(runs)
}

/// Orders runs, those without the field last; runs with the same values stay in their order.
///
/// # Errors
/// As [`choose`].
pub fn sort(runs: Vec<Summary>, by: &[Sort]) -> Result<Vec<Summary>, FilterError> {
    let mut rows: Vec<(Vec<Option<Value>>, Summary)> = runs.into_iter().map(|run| (Vec::new(), run)).collect();
    for sort in by {
        let found: Vec<_> = rows.par_iter().map(|(_, run)| sort.field.of(run)).collect();
        for ((values, _), found) in rows.iter_mut().zip(found) {
            values.push(found?.map(|found| found.value));
        }
        let any = rows.iter().any(|(values, _)| values.last().is_some_and(Option::is_some));
        known(&sort.field, rows.iter().map(|(_, run)| run), any)?;
    }
    rows.sort_by(|(a, _), (b, _)| {
        let orders = by.iter().zip(a).zip(b).map(|((sort, a), b)| match (a, b) {
            (Some(a), Some(b)) if sort.descending => order(b, a),
            (Some(a), Some(b)) => order(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        orders.fold(Ordering::Equal, Ordering::then)
    });
    Ok(rows.into_iter().map(|(_, run)| run).collect())
}

/// A field that none of the runs has is a mistake in the field; that of no runs may be right.
fn known<'a>(field: &Field, runs: impl ExactSizeIterator<Item = &'a Summary>, any: bool) -> Result<(), FieldError> {
    if any || runs.len() == 0 || matches!(field, Field::Fact(_)) { Ok(()) } else { Err(field.absent(runs)) }
}

/// Numbers before texts.
fn order(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (x, y) => y.is_some().cmp(&x.is_some()).then_with(|| written(a).cmp(&written(b))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// A run of a pipeline like the example's.
    pub fn run(id: &str) -> Summary {
        let digest = |byte: char| byte.to_string().repeat(64);
        let evaluate = |model: char, figure: f64| {
            json!({ "uses": "evaluate", "status": "done", "outcome": { "metrics": { "ndcg@10": figure } },
                "fingerprint": { "kind": "evaluate", "parameters": {}, "inputs": { "model": digest(model) } } })
        };
        let with_k = |k: u32| json!({ "uses": "retrieve", "status": "cached", "fingerprint": { "parameters": { "top_k": k }, "inputs": {} } });
        let record = json!({
            "id": id, "pipeline": "tech-docs", "status": "done", "started": "2026-11-25T02:35:43Z", "seconds": 12.5,
            "parameters": { "seed": 42, "base": "all-MiniLM-L6-v2" },
            "environment": { "git": { "commit": "2fd108e62f6dc11735c51ed1b08cbd9ac531c52b", "dirty": false } },
            "stages": {
                "base": { "uses": "model", "status": "cached", "outputs": { "model": { "digest": digest('a') } } },
                "tuned": { "uses": "train", "status": "done", "outputs": { "model": { "digest": digest('b') } },
                    "fingerprint": { "parameters": { "lr": 3e-5, "seed": 42, "loss": { "name": "triplet", "margin": 0.1 } }, "inputs": { "model": digest('a') } },
                    "outcome": { "metrics": { "steps": 180.0, "eval.ndcg@10": 0.48 } } },
                "baseline": evaluate('a', 0.53),
                "fine-tuned": evaluate('b', 0.55),
                "comparison": { "uses": "compare", "status": "done", "outcome": { "metrics": { "ndcg@10": 0.02 } } },
                "retrieved": with_k(3),
                "answers": with_k(3),
            }
        });
        serde_json::from_value(record).unwrap()
    }

    fn fits(conditions: &[&str]) -> Result<usize, String> {
        let mut second = run("20261125-000002-t-0002");
        second.tags = vec!["baseline".into(), "paper".into()];
        let runs = vec![run("20261125-000001-t-0001"), second];
        let conditions: Result<Vec<Condition>, _> = conditions.iter().map(|c| c.parse()).collect();
        conditions.and_then(|c| choose(runs, &c)).map(|runs| runs.len()).map_err(|e| e.to_string())
    }

    #[test]
    fn conditions_choose_runs() {
        for (condition, count) in [
            ("params.lr>=3e-5", 2),
            ("params.lr > 0.00003", 0),
            ("tuned.lr<1", 2),
            ("params.base=all-MiniLM-L6-v2", 2),
            ("params.base~MiniLM", 2),
            ("params.base!=other", 2),
            ("params.seed=42.0", 2),
            ("params.seed=all", 0),
            ("metrics.ndcg@10>0.54", 2),
            ("metrics.baseline.ndcg@10>0.54", 0),
            ("status=done", 2),
            ("status~don", 2),
            ("started>=2026-11-25", 2),
            ("started=2026-11-25", 2),
            ("started<2026-11-25", 0),
            ("git=2fd108e", 2),
            ("seconds<=12.5", 2),
            ("tag=paper", 1),
            ("tag!=paper", 1),
            ("tag~bas", 1),
            ("tag=", 1),
            ("tag!=", 1),
            ("id~000002", 1),
        ] {
            assert_eq!(fits(&[condition]), Ok(count), "{condition}");
        }
        assert_eq!(fits(&["status=done", "tag=paper", "params.lr<=3e-5"]), Ok(1));
        assert_eq!(fits(&["status=failed", "params.unknown=1"]), Ok(0), "no run is left to miss it");
    }

    #[test]
    fn brackets_are_part_of_a_name() {
        let condition: Condition = "tuned[lr=3e-5,loss=x].epochs>=3".parse().unwrap();
        assert_eq!(condition.field, Field::OfStage("tuned[lr=3e-5,loss=x].epochs".into()));
        assert_eq!((condition.operator, condition.value.as_str()), (Operator::AtLeast, "3"));
    }

    #[test]
    fn wrong_conditions() {
        let wrong = ["params.lr", "status=finished", "params.seed<many", "params.warmup=1", "metrics.ndcg=1"];
        let messages: Vec<String> = wrong.iter().map(|c| fits(&[c]).unwrap_err()).collect();
        insta::assert_snapshot!(messages.join("\n"), @"
        `params.lr` has no operator; write a field, one of `= != < <= > >= ~` and a value, for example `params.lr>=3e-5`
        there is no status `finished`: the statuses are `running`, `done`, `failed` and `interrupted`
        `params.seed` is a number in run `20261125-000001-t-0001`, and `many` is none
        no run has `params.warmup`: the parameters are `base`, `lr`, `margin`, `name`, `seed` and `top_k`
        no run has `metrics.ndcg`: the metrics are `eval.ndcg@10`, `ndcg@10` and `steps`
        ");
    }

    #[test]
    fn runs_are_ordered_and_those_without_the_field_come_last() {
        let metric = |id: &str, figure: Option<f64>| {
            let mut run = run(id);
            let metrics = &mut run.stages.get_mut("fine-tuned").unwrap().outcome.as_mut().unwrap().metrics;
            match figure {
                Some(figure) => drop(metrics.insert("ndcg@10".into(), figure)),
                None => metrics.clear(),
            }
            if figure.is_none() {
                run.stages.shift_remove("baseline");
                run.stages.shift_remove("comparison");
                run.stages.get_mut("tuned").unwrap().outcome = None;
            }
            run
        };
        let runs = vec![metric("a", Some(0.5)), metric("b", None), metric("c", Some(0.7)), metric("d", Some(0.5))];
        let ids = |by: &str| {
            let sorted = sort(runs.clone(), &[by.parse().unwrap()]).unwrap();
            sorted.into_iter().map(|run| run.id).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ids("metrics.ndcg@10"), "a d c b");
        assert_eq!(ids("-metrics.ndcg@10"), "c a d b");
        assert_eq!(ids("-id"), "d c b a");
    }
}

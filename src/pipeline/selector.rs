//! Which combinations of a stage an input means: `tuned[lr=3e-5,loss=*].metrics`.

use std::collections::HashMap;

use super::combination::{Row, Table};
use super::scalar;
use super::words::did_you_mean;

/// Stands for every value of an axis, or, alone, for every value of every axis that is not named.
const ALL: &str = "*";

/// What is wrong with a selector, and a help.
type Wrong = (String, String);

/// `stage` or `stage.output`; a stage's name may have brackets.
pub(super) fn split(source: &str) -> (&str, Option<&str>) {
    let name = source.rfind(']').map_or(0, |at| at + 1);
    let dot = source.get(name..).and_then(|rest| rest.find('.')).map(|at| name + at);
    dot.map_or((source, None), |dot| (source.get(..dot).unwrap_or(source), source.get(dot + 1..)))
}

/// The name before brackets at the end, and what stands in them.
pub(super) fn brackets(id: &str) -> Option<(&str, &str)> {
    id.strip_suffix(']')?.split_once('[')
}

/// Whether the input gets several stages.
pub(super) fn collects(selector: &str) -> bool {
    parts(selector).any(|part| part == (ALL, None) || part.1 == Some(ALL))
}

/// Whether a source means several stages.
pub(super) fn is_several(source: &str) -> bool {
    brackets(split(source).0).is_some_and(|(_, selector)| collects(selector))
}

/// Whether it can be read.
///
/// # Errors
/// What is wrong with it, and a help.
pub(super) fn check(selector: &str) -> Result<(), Wrong> {
    for (axis, value) in parts(selector) {
        let is_one = match value {
            Some(value) => !axis.is_empty() && axis != ALL && !value.is_empty(),
            None => axis == ALL,
        };
        if !is_one {
            let message = format!("`[{selector}]` does not say which combinations are meant");
            return Err((message, "write `[*]` for all, or `[AXIS=VALUE,AXIS=*]`".into()));
        }
    }
    Ok(())
}

/// Each part as an axis and its value.
fn parts(selector: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let part = |part: &'_ str| -> Option<usize> { part.find('=') };
    selector.split(',').map(move |text| match part(text) {
        Some(at) => (text.get(..at).unwrap_or_default().trim(), text.get(at + 1..).map(str::trim)),
        None => (text.trim(), None),
    })
}

/// What a selector makes of a table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// The numbers of the rows that are meant.
    pub rows: Vec<usize>,
    /// The columns that the stage that takes the input has as well.
    pub inherited: Vec<usize>,
    /// The columns that tell the several stages of one input apart.
    pub collected: Vec<usize>,
}

/// By column, the rows that have a label, in order.
pub(super) type Labels = Vec<HashMap<String, Vec<usize>>>;

/// The labels of a table.
pub(super) fn labels(table: &Table) -> Labels {
    let mut labels: Labels = vec![HashMap::new(); table.axes.len()];
    for (at, row) in table.rows.iter().enumerate() {
        for (choice, labels) in row.iter().zip(&mut labels) {
            if let Some(choice) = choice {
                labels.entry(choice.label.clone()).or_default().push(at);
            }
        }
    }
    labels
}

/// The rows of the `stage` that are meant; all of them, one by one, without a selector.
///
/// # Errors
/// What is wrong with it, and a help.
pub(super) fn select(selector: Option<&str>, table: &Table, labels: &Labels, stage: &str) -> Result<Selection, Wrong> {
    let (mut rows, mut fixed, mut collected, mut collects_rest) = (None, Vec::new(), Vec::new(), false);
    if selector.is_some() && table.axes.is_empty() {
        return Err((format!("stage `{stage}` has no matrix, so there is only one"), format!("write `{stage}`")));
    }
    for (axis, value) in selector.into_iter().flat_map(parts) {
        let Some(value) = value else {
            collects_rest = true;
            continue;
        };
        let Some(column) = table.position(axis) else {
            let axes: Vec<&str> = table.axes.iter().map(|axis| &**axis).collect();
            return Err((format!("stage `{stage}` has no axis `{axis}`"), did_you_mean(axis, "axes", &axes)));
        };
        if value == ALL {
            collected.push(column);
            continue;
        }
        let chosen = chosen(table, labels, column, value)?;
        let kept = |rows: Vec<usize>| rows.into_iter().filter(|row| chosen.binary_search(row).is_ok()).collect();
        rows = Some(rows.map_or_else(|| chosen.clone(), kept));
        fixed.push(column);
    }
    let (rest, inherited): (Vec<usize>, Vec<usize>) = (0..table.axes.len())
        .filter(|column| !fixed.contains(column) && !collected.contains(column))
        .partition(|_| collects_rest);
    collected.extend(rest);
    collected.sort_unstable();
    let rows = rows.unwrap_or_else(|| (0..table.rows.len()).collect());
    if rows.is_empty() {
        let message = format!("stage `{stage}` has no combination `{}`", selector.unwrap_or_default());
        return Err((message, "choose values that come together".into()));
    }
    Ok(Selection { rows, inherited, collected })
}

/// The rows in which a column has a value: by its label, or by what is written.
fn chosen(table: &Table, labels: &Labels, column: usize, value: &str) -> Result<Vec<usize>, Wrong> {
    let known = labels.get(column);
    if let Some(rows) = known.and_then(|labels| labels.get(value)) {
        return Ok(rows.clone());
    }
    let json = scalar::resolve(value).map(|value| value.to_string()).unwrap_or_default();
    let is_it = |row: &Row| row.get(column).and_then(Option::as_ref).is_some_and(|choice| choice.json() == json);
    let rows: Vec<usize> = table.rows.iter().enumerate().filter(|(_, row)| is_it(row)).map(|(at, _)| at).collect();
    if !rows.is_empty() {
        return Ok(rows);
    }
    let mut labels: Vec<&str> = known.into_iter().flat_map(HashMap::keys).map(String::as_str).collect();
    labels.sort_unstable();
    let axis = table.axes.get(column).map_or("", |axis| axis);
    Err((format!("axis `{axis}` has no value `{value}`"), did_you_mean(value, "values", &labels)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_stage_its_combinations_and_an_output() {
        for (source, parts) in [
            ("a", ("a", None)),
            ("a.b", ("a", Some("b"))),
            ("a[x=0.5].b", ("a[x=0.5]", Some("b"))),
            ("a[x=0.5]", ("a[x=0.5]", None)),
            ("a[x=0.5]/c.b", ("a[x=0.5]/c", Some("b"))),
            ("a[", ("a[", None)),
            ("]", ("]", None)),
        ] {
            assert_eq!(split(source), parts, "{source}");
        }
        assert_eq!(brackets("a[x=1,y=*]"), Some(("a", "x=1,y=*")));
        assert_eq!((brackets("a"), brackets("a]")), (None, None));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for selector in ["", "x", "x=", "=1", "*=1", "x=1,", "x=1,,y=2"] {
            assert!(check(selector).is_err(), "{selector}");
        }
        for (selector, several) in [("*", true), ("x=*", true), ("x=1", false), ("x=1,*", true), (" x = 1 , y=2", false)] {
            assert_eq!((check(selector), collects(selector)), (Ok(()), several), "{selector}");
        }
    }
}

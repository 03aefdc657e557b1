//! `matrix:` as a table of combinations: named axes with values, less what `exclude` takes out, plus what `include` adds.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use serde_json::Value;

use super::combination::{Choice, Row, Table};
use super::document::{self, MOST_STAGES, mapping};
use super::interpolate::Interpolator;
use super::label;
use super::problem::{Problem, Problems, Span};
use super::words::did_you_mean;
use super::yaml::{Content, Entry, Yaml};

const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";
/// How an axis is written.
const AXIS: &str = "write `NAME: [VALUE, VALUE]`, or `NAME: { LABEL: VALUE }`";

/// An axis while the matrix is read.
struct Axis<'a> {
    name: &'a str,
    choices: Vec<Rc<Choice>>,
    /// The positions of the values by their labels, and by themselves as JSON.
    labels: HashMap<String, usize>,
    values: HashMap<String, usize>,
    /// It has a list of values, and not only those of `include`.
    is_own: bool,
}

/// A combination by the positions of its values.
type Positions = Vec<Option<usize>>;

/// The combinations of a matrix; nothing when anything is wrong with it.
pub(super) fn read(entry: &Entry, values: &mut Interpolator, problems: &mut Problems) -> Option<Table> {
    let before = problems.len();
    let entries = mapping(&entry.value, "`matrix`", entry.key_span, problems)?;
    if entries.is_empty() {
        problems.push(Problem::at(entry.key_span, "the matrix has no axes").help(AXIS.to_owned()));
    }
    let is_axis = |entry: &&Entry| entry.key != INCLUDE && entry.key != EXCLUDE;
    let axes: Vec<Axis> = entries.iter().filter(is_axis).map(|entry| axis(entry, values, problems)).collect();
    let exclude = items(entry, EXCLUDE, values, problems);
    let include = items(entry, INCLUDE, values, problems);
    let count = axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.choices.len()));
    if count.is_none_or(|count| count > MOST_STAGES) {
        let count = count.map_or("more than can be counted".to_owned(), |count| format!("{count}"));
        let message = format!("the matrix has {count} combinations; a pipeline may have at most {MOST_STAGES} stages");
        problems.push(Problem::at(entry.key_span, message).help("take values away, or split the pipeline".to_owned()));
    }
    if problems.len() > before {
        return None;
    }
    let mut reading = Reading { rows: product(&axes), axes };
    exclude.iter().for_each(|item| reading.exclude(item, problems));
    let base = reading.rows.clone();
    include.iter().for_each(|item| reading.include(item, &base, problems));
    if reading.rows.is_empty() && problems.len() == before {
        let help = "exclude less, or remove the matrix".to_owned();
        problems.push(Problem::at(entry.key_span, "`exclude` leaves no combination").help(help));
    }
    (problems.len() == before).then(|| reading.table())
}

/// Every combination of the axes' values, the last axis varying fastest; none without axes.
fn product(axes: &[Axis]) -> Vec<Positions> {
    let mut rows: Vec<Positions> = if axes.is_empty() { Vec::new() } else { vec![Vec::new()] };
    for axis in axes {
        let longer = |row: Positions| (0..axis.choices.len()).map(move |at| [row.as_slice(), &[Some(at)]].concat());
        rows = rows.into_iter().flat_map(longer).collect();
    }
    rows
}

/// Axes that nothing refers to would make equal stages under several names.
pub(super) fn check_used(entry: &Entry, table: &Table, is_used: impl Fn(&str) -> bool, stage: &str, problems: &mut Problems) {
    for axis in table.axes.iter().filter(|axis| !is_used(axis)) {
        let message = format!("stage `{stage}` does not refer to `${{matrix.{axis}}}`, so its combinations would be equal");
        let help = format!("use `${{matrix.{axis}}}` in `with`, or remove the axis");
        problems.push(Problem::at(place(entry, axis), message).help(help));
    }
}

/// Where an axis is named first.
pub(super) fn place(entry: &Entry, axis: &str) -> Span {
    let added = entry.value.entry(INCLUDE).map(|include| match &include.value.content {
        Content::Sequence(items) => items.as_slice(),
        _ => &[],
    });
    let own = entry.value.entry(axis);
    own.or_else(|| added?.iter().find_map(|item| item.entry(axis))).map_or(entry.key_span, |entry| entry.key_span)
}

/// A value as it is written, if it is, and what it is resolved to.
struct Found {
    written: Option<String>,
    value: Value,
    span: Span,
}

impl Found {
    fn shown(&self) -> String {
        let text = || self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned);
        self.written.clone().unwrap_or_else(text)
    }
}

fn found(yaml: &Yaml, values: &mut Interpolator, problems: &mut Problems) -> Option<Found> {
    let value = values.resolve(yaml, problems)?;
    Some(Found { written: written(yaml), value, span: yaml.span })
}

/// How a scalar is written, if it is no reference.
fn written(yaml: &Yaml) -> Option<String> {
    match &yaml.content {
        Content::Scalar { text, .. } if !text.contains("${") && !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn axis<'a>(entry: &'a Entry, values: &mut Interpolator, problems: &mut Problems) -> Axis<'a> {
    document::id(&entry.key, entry.key_span, "an axis's name", problems);
    let mut axis = Axis { name: &entry.key, choices: Vec::new(), labels: HashMap::new(), values: HashMap::new(), is_own: true };
    let before = problems.len();
    let span = entry.value.span;
    let found: Vec<(Option<String>, Option<Found>)> = match &entry.value.content {
        Content::Sequence(items) => items.iter().map(|item| (None, found(item, values, problems))).collect(),
        Content::Mapping(entries) => entries.iter().map(|e| (Some(e.key.clone()), found(&e.value, values, problems))).collect(),
        Content::Scalar { value: Value::String(text), .. } if text.contains("${") => {
            match values.resolve(&entry.value, problems) {
                Some(Value::Array(items)) => {
                    items.into_iter().map(|value| (None, Some(Found { written: None, value, span }))).collect()
                }
                Some(Value::Object(map)) => {
                    map.into_iter().map(|(key, value)| (Some(key), Some(Found { written: None, value, span }))).collect()
                }
                Some(_) => {
                    problems.push(no_values(entry, "one value"));
                    return axis;
                }
                None => return axis,
            }
        }
        Content::Scalar { .. } => {
            problems.push(no_values(entry, &entry.value.describe()));
            return axis;
        }
    };
    if found.is_empty() && problems.len() == before {
        problems.push(Problem::at(entry.key_span, format!("axis `{}` has no values", entry.key)).help(AXIS.to_owned()));
    }
    let mut seen = HashSet::new();
    for (name, found) in found {
        let Some(Found { written, value, span }) = found else { continue };
        if !seen.insert(value.to_string()) {
            let message = format!("axis `{}` has this value twice", entry.key);
            problems.push(Problem::at(span, message).help("remove one of them".to_owned()));
        }
        axis.add(name.or(written), value);
    }
    axis
}

fn no_values(entry: &Entry, what: &str) -> Problem {
    let message = format!("axis `{}` must be a list of values, or a mapping of labels to values, not {what}", entry.key);
    Problem::at(entry.value.span, message).help(format!("write `{}: [VALUE, VALUE]`", entry.key))
}

impl Axis<'_> {
    /// Adds a value; its position.
    fn add(&mut self, written: Option<String>, value: Value) -> usize {
        let at = self.choices.len();
        let label = label::of(written.as_deref(), &value, at + 1, |label| self.labels.contains_key(label));
        self.labels.insert(label.clone(), at);
        let choice = Choice::new(label, value);
        self.values.entry(choice.json().to_owned()).or_insert(at);
        self.choices.push(choice);
        at
    }

    /// The position of a value, or of the value that has it as its label.
    fn find(&self, found: &Found) -> Option<usize> {
        let name = found.written.as_deref().or(found.value.as_str());
        self.values.get(&found.value.to_string()).or_else(|| self.labels.get(name?)).copied()
    }
}

/// One entry of `include` or `exclude`.
struct Item<'a> {
    fields: Vec<(&'a str, Span, Found)>,
    /// Where its first key stands.
    span: Span,
}

/// The entries of `include` or `exclude`.
fn items<'a>(entry: &'a Entry, key: &str, values: &mut Interpolator, problems: &mut Problems) -> Vec<Item<'a>> {
    let Some(list) = entry.value.entry(key).filter(|list| !list.value.is_null()) else { return Vec::new() };
    let help = || format!("write `{key}: [{{ AXIS: VALUE, AXIS: VALUE }}]`");
    let Content::Sequence(written) = &list.value.content else {
        let message = format!("`{key}` must be a list of combinations, not {}", list.value.describe());
        problems.push(Problem::at(list.key_span, message).help(help()));
        return Vec::new();
    };
    if written.len() > MOST_STAGES {
        let message = format!("`{key}` has {} entries; it may have at most {MOST_STAGES}", written.len());
        problems.push(Problem::at(list.key_span, message).help("take some away".to_owned()));
        return Vec::new();
    }
    let mut items = Vec::new();
    for item in written {
        let fields = match &item.content {
            Content::Mapping(fields) if !fields.is_empty() => fields,
            _ => {
                let message = format!("each entry of `{key}` must be a mapping of axes to values, not {}", describe(item));
                problems.push(Problem::at(item.span, message).help(help()));
                continue;
            }
        };
        let mut read = Vec::new();
        for field in fields {
            document::id(&field.key, field.key_span, "an axis's name", problems);
            if field.key == INCLUDE || field.key == EXCLUDE {
                let message = format!("`{}` cannot be an axis's name", field.key);
                problems.push(Problem::at(field.key_span, message).help("rename it".to_owned()));
            }
            read.extend(found(&field.value, values, problems).map(|found| (field.key.as_str(), field.key_span, found)));
        }
        items.push(Item { fields: read, span: fields.first().map_or(item.span, |field| field.key_span) });
    }
    items
}

fn describe(item: &Yaml) -> String {
    if matches!(item.content, Content::Mapping(_)) { "an empty one".into() } else { item.describe() }
}

/// A matrix that is being read.
struct Reading<'a> {
    axes: Vec<Axis<'a>>,
    rows: Vec<Positions>,
}

impl<'a> Reading<'a> {
    fn position(&self, name: &str) -> Option<usize> {
        self.axes.iter().position(|axis| axis.name == name)
    }

    /// Takes out the combinations that have all the values of an entry.
    fn exclude(&mut self, item: &Item, problems: &mut Problems) {
        let mut wanted = Vec::new();
        for (name, span, found) in &item.fields {
            let Some(at) = self.position(name) else {
                let names: Vec<&str> = self.axes.iter().map(|axis| axis.name).collect();
                let message = format!("`exclude` names the axis `{name}`, which the matrix does not have");
                problems.push(Problem::at(*span, message).help(did_you_mean(name, "axes", &names)));
                return;
            };
            let Some(axis) = self.axes.get(at) else { return };
            let Some(choice) = axis.find(found) else {
                let labels: Vec<&str> = axis.choices.iter().map(|choice| choice.label.as_str()).collect();
                let shown = found.shown();
                let message = format!("`exclude` names the value `{shown}`, which the axis `{name}` does not have");
                problems.push(Problem::at(found.span, message).help(did_you_mean(&shown, "values", &labels)));
                return;
            };
            wanted.push((at, choice));
        }
        let before = self.rows.len();
        self.rows.retain(|row| !has(row, &wanted));
        if self.rows.len() == before {
            let message = "this entry of `exclude` matches no combination that is left";
            problems.push(Problem::at(item.span, message).help("correct it, or remove it".to_owned()));
        }
    }

    /// Adds what is new in an entry to the combinations that have the rest of it; an entry that none has is a combination of its own.
    /// `base` are the combinations before any entry.
    fn include(&mut self, item: &Item<'a>, base: &[Positions], problems: &mut Problems) {
        let (mut wanted, mut added) = (Vec::new(), Vec::new());
        for (name, _, found) in &item.fields {
            let at = self.position(name).unwrap_or_else(|| self.new_axis(name));
            let Some(axis) = self.axes.get_mut(at) else { return };
            let choice = axis.find(found).unwrap_or_else(|| axis.add(found.written.clone(), found.value.clone()));
            if axis.is_own { wanted.push((at, choice)) } else { added.push((at, choice)) }
        }
        let matching: Vec<usize> =
            base.iter().enumerate().filter(|(_, row)| has(row, &wanted)).map(|(number, _)| number).collect();
        let mut is_new = false;
        for number in &matching {
            let Some(row) = self.rows.get_mut(*number) else { continue };
            added.iter().for_each(|(at, choice)| is_new |= set(row, *at, *choice));
        }
        if matching.is_empty() {
            let mut row = Positions::new();
            for (at, choice) in wanted.iter().chain(&added) {
                set(&mut row, *at, *choice);
            }
            is_new = !self.rows.iter().any(|other| trimmed(other) == trimmed(&row));
            self.rows.push(row);
        }
        if !is_new {
            let message = "this entry of `include` adds nothing: its combinations are there already";
            problems.push(Problem::at(item.span, message).help("correct it, or remove it".to_owned()));
        } else if self.rows.len() > MOST_STAGES {
            let message = format!("with this entry the matrix has more than {MOST_STAGES} combinations");
            problems.push(Problem::at(item.span, message).help("take values away, or split the pipeline".to_owned()));
        }
    }

    /// An axis of which only `include` has values.
    fn new_axis(&mut self, name: &'a str) -> usize {
        self.axes.push(Axis { name, choices: Vec::new(), labels: HashMap::new(), values: HashMap::new(), is_own: false });
        self.axes.len() - 1
    }

    fn table(self) -> Table {
        let row = |row: &Positions| -> Row {
            let position = |at: usize| row.get(at).copied().flatten();
            self.axes.iter().enumerate().map(|(at, axis)| axis.choices.get(position(at)?).cloned()).collect()
        };
        let rows = self.rows.iter().map(row).collect();
        Table { axes: self.axes.iter().map(|axis| Rc::from(axis.name)).collect(), rows }
    }
}

/// Whether a combination has all these values.
fn has(row: &Positions, wanted: &[(usize, usize)]) -> bool {
    wanted.iter().all(|(at, choice)| row.get(*at) == Some(&Some(*choice)))
}

/// Gives a combination a value; whether it had another one, or none.
fn set(row: &mut Positions, at: usize, choice: usize) -> bool {
    if row.len() <= at {
        row.resize(at + 1, None);
    }
    row.get_mut(at).is_some_and(|value| value.replace(choice) != Some(choice))
}

/// Without the axes behind the last one that it has.
fn trimmed(row: &Positions) -> &[Option<usize>] {
    row.iter().rposition(Option::is_some).and_then(|last| row.get(..=last)).unwrap_or_default()
}

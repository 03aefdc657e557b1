//! Combinations of values of named axes as tables, and how tables are put together: the natural join of relational algebra (Codd, 1970).

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use serde_json::Value;

/// A value of an axis and its name. Two are the same when both are.
#[derive(Debug)]
pub(super) struct Choice {
    /// Stands in names of nodes.
    pub label: String,
    pub value: Value,
    /// The value as JSON, by which it is compared.
    json: String,
}

impl Choice {
    pub fn new(label: String, value: Value) -> Rc<Self> {
        Rc::new(Choice { label, json: value.to_string(), value })
    }

    pub fn json(&self) -> &str {
        &self.json
    }
}

impl PartialEq for Choice {
    fn eq(&self, other: &Self) -> bool {
        self.label == other.label && self.json == other.json
    }
}

impl Eq for Choice {}

impl Hash for Choice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.label.hash(state);
        self.json.hash(state);
    }
}

/// The value of each axis; nothing where `include` gave the axis to other combinations only.
pub(super) type Row = Vec<Option<Rc<Choice>>>;

/// Combinations of the values of some axes.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub axes: Vec<Rc<str>>,
    pub rows: Vec<Row>,
}

impl Table {
    /// The one combination of no axes.
    pub fn unit() -> Self {
        Table { axes: Vec::new(), rows: vec![Vec::new()] }
    }

    pub fn position(&self, axis: &str) -> Option<usize> {
        self.axes.iter().position(|name| **name == *axis)
    }

    /// The distinct combinations of some of the axes, in the order of their first appearance.
    pub fn project(&self, axes: &[Rc<str>]) -> Table {
        let columns: Vec<usize> = axes.iter().filter_map(|axis| self.position(axis)).collect();
        let mut seen = HashSet::new();
        let rows = self.rows.iter().map(|row| pick(row, &columns)).filter(|row| seen.insert(row.clone())).collect();
        let axes = columns.iter().filter_map(|column| self.axes.get(*column).cloned()).collect();
        Table { axes, rows }
    }

    /// Every pair of combinations that agree on the axes that both tables have; all pairs when they have none in common.
    ///
    /// # Errors
    /// The number of pairs, if that is more than `most`; nothing is made then.
    pub fn join(&self, other: &Table, most: usize) -> Result<Table, usize> {
        let (mut shared, mut added) = ((Vec::new(), Vec::new()), Vec::new());
        for (column, axis) in other.axes.iter().enumerate() {
            match self.position(axis) {
                Some(own) => {
                    shared.0.push(own);
                    shared.1.push(column);
                }
                None => added.push(column),
            }
        }
        let partners = index(&other.rows, &shared.1);
        let of = |row: &Row| partners.get(&pick(row, &shared.0)).map_or(&[][..], Vec::as_slice);
        let count = self.rows.iter().fold(0usize, |count, row| count.saturating_add(of(row).len()));
        if count > most {
            return Err(count);
        }
        let mut rows = Vec::with_capacity(count);
        for row in &self.rows {
            for partner in of(row).iter().filter_map(|at| other.rows.get(*at)) {
                rows.push([row.as_slice(), &pick(partner, &added)].concat());
            }
        }
        let added = added.iter().filter_map(|column| other.axes.get(*column).cloned());
        Ok(Table { axes: self.axes.iter().cloned().chain(added).collect(), rows })
    }

    /// With the axes that `first` has in front, in its order.
    pub fn in_order_of(self, first: &[Rc<str>]) -> Table {
        let front = first.iter().filter_map(|axis| self.position(axis));
        let back = (0..self.axes.len()).filter(|at| self.axes.get(*at).is_some_and(|axis| !first.contains(axis)));
        let columns: Vec<usize> = front.chain(back).collect();
        let axes = columns.iter().filter_map(|column| self.axes.get(*column).cloned()).collect();
        Table { axes, rows: self.rows.iter().map(|row| pick(row, &columns)).collect() }
    }
}

/// Some columns of a row.
pub(super) fn pick(row: &Row, columns: &[usize]) -> Row {
    columns.iter().map(|column| row.get(*column).cloned().flatten()).collect()
}

/// Which rows have the same values in some columns.
pub(super) fn index(rows: &[Row], columns: &[usize]) -> HashMap<Row, Vec<usize>> {
    let mut index: HashMap<Row, Vec<usize>> = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        index.entry(pick(row, columns)).or_default().push(at);
    }
    index
}

/// `lr=3e-5,loss=mnrl`, without the axes that the combination does not have.
pub(super) fn label(axes: &[Rc<str>], row: &[Option<Rc<Choice>>]) -> String {
    let values = axes.iter().zip(row).filter_map(|(axis, choice)| Some(format!("{axis}={}", choice.as_ref()?.label)));
    values.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(axes: &[&str], rows: &[&[u32]]) -> Table {
        let choice = |n: &u32| (*n > 0).then(|| Choice::new(n.to_string(), Value::from(*n)));
        Table {
            axes: axes.iter().map(|axis| Rc::from(*axis)).collect(),
            rows: rows.iter().map(|row| row.iter().map(choice).collect()).collect(),
        }
    }

    fn shown(table: &Table) -> Vec<String> {
        table.rows.iter().map(|row| label(&table.axes, row)).collect()
    }

    #[test]
    fn tables_are_joined_on_the_axes_that_they_share() {
        let (a, b) = (table(&["x", "y"], &[&[1, 1], &[1, 2], &[2, 1]]), table(&["y", "z"], &[&[1, 5], &[1, 6], &[3, 7]]));
        assert_eq!(shown(&a.join(&b, 4).unwrap()), ["x=1,y=1,z=5", "x=1,y=1,z=6", "x=2,y=1,z=5", "x=2,y=1,z=6"]);
        assert_eq!(a.join(&b, 3).unwrap_err(), 4);
        assert_eq!(a.join(&table(&["z"], &[&[1], &[2]]), 6).unwrap().rows.len(), 6, "nothing in common: the product");
        assert_eq!(shown(&a.project(&["x".into()])), ["x=1", "x=2"]);
        assert_eq!(shown(&a.in_order_of(&["y".into(), "w".into()])), ["y=1,x=1", "y=2,x=1", "y=1,x=2"]);
    }

    #[test]
    fn an_axis_that_a_combination_lacks_agrees_with_its_lack() {
        let (a, b) = (table(&["x", "y"], &[&[1, 0], &[2, 1]]), table(&["x", "y"], &[&[1, 0], &[2, 2]]));
        assert_eq!(shown(&a.join(&b, 9).unwrap()), ["x=1"]);
    }

    proptest! {
        /// A join with itself, or with a projection of itself, changes nothing.
        #[test]
        fn joining_what_is_there_already_changes_nothing(rows in prop::collection::hash_set((0u32..4, 0u32..4, 0u32..4), 0..20)) {
            let rows: Vec<[u32; 3]> = rows.into_iter().map(|(x, y, z)| [x, y, z]).collect();
            let whole = table(&["x", "y", "z"], &rows.iter().map(|row| row.as_slice()).collect::<Vec<_>>());
            let part = whole.project(&["z".into(), "x".into()]);
            prop_assert_eq!(shown(&whole.join(&whole, 100).unwrap()), shown(&whole));
            prop_assert_eq!(shown(&whole.join(&part, 100).unwrap()), shown(&whole));
        }
    }
}

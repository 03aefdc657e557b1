//! The gradients that a graph left on the device, added to the sums that the optimizer steps by.

use anyhow::{Context, Result};

use super::segments::{self, Names, Segments};
use super::{Group, ROW, Weight, fixed, named, next, side_by_side};
use crate::onnx::{DataType, Dim, Graph, Value};
use crate::runtime::Runtime;
use crate::runtime::session::Input;
use crate::runtime::trainable::{Buffers, Outputs, Trainable};
use crate::shape;

/// How a graph yields the gradient of a weight.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// In the buffer of this name.
    Dense(String),
    /// In these outputs: entries of a table, and their rows, which it keeps on the device.
    Rows(Vec<(String, String)>),
    /// The loss does not depend on the weight.
    Nowhere,
}

/// A weight whose gradient comes as rows.
struct Table {
    outputs: Vec<(String, String)>,
    names: Names,
}

/// See the [module](self).
pub struct Gather {
    graph: Trainable,
    tables: Vec<Table>,
    groups: usize,
}

impl Gather {
    pub(super) fn open(
        forms: &[Form],
        buffers: &Buffers,
        weights: &[Weight],
        groups: &mut [Group],
        runtime: &Runtime,
    ) -> Result<Self> {
        let g = Graph::new();
        let go_on = g.input("go on", DataType::F32, Vec::new());
        let mut tables = Vec::new();
        let mut free = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let members: Vec<&Weight> = group.members.iter().map(|&member| &weights[member]).collect();
            let mut values = Vec::new();
            for (&member, weight) in group.members.iter().zip(&members) {
                values.push(gradient(&g, forms.get(member).context("a weight has no gradient")?, weight, &mut tables));
            }
            let new = side_by_side(&g, &values, &members, group.size);
            let sum = g.input(&named("sum", number), DataType::F32, fixed(&[group.size]));
            // Chosen, not multiplied: a sum that was given up may hold what is no number.
            let sum = g.select(g.greater(go_on, g.scalar(0.0)), g.add(sum, new), new);
            g.output(&next(&named("sum", number)), sum);
            let rows = g.reshape(sum, shape![group.size / ROW, ROW]);
            g.output(&named("squares", number), g.sum(g.mul(rows, rows), -1));
            free.push(named("squares", number));
        }
        let mut graph = Trainable::unbound(&g.to_model()?, free, runtime)?;
        for (form, weight) in forms.iter().zip(weights) {
            if let Form::Dense(name) = form {
                graph.reads(&of(weight), buffers.tensor(name)?)?;
            }
        }
        for (number, group) in groups.iter_mut().enumerate() {
            graph.reads(&named("sum", number), &group.sum)?;
            graph.writes(&next(&named("sum", number)), &mut group.sum)?;
        }
        Ok(Gather { graph, tables, groups: groups.len() })
    }

    /// Adds the gradients of a run, whose outputs these are, to the sums; the first of a step takes their place. Returns the norm of all sums
    /// together, which is no number when one of them is none.
    ///
    /// # Errors
    /// ONNX Runtime fails.
    pub fn add(&mut self, outputs: &Outputs, is_first: bool) -> Result<f64> {
        let go_on = [if is_first { 0.0 } else { 1.0 }];
        let mut segments = Vec::with_capacity(self.tables.len());
        for (number, table) in self.tables.iter().enumerate() {
            let mut ids = Vec::new();
            for (i, (entries, rows)) in table.outputs.iter().enumerate() {
                ids.extend_from_slice(outputs.integers(entries)?);
                self.graph.reads_output(&rows_of(number, i), outputs, rows)?;
            }
            segments.push(Segments::new(&ids)?);
        }
        let mut inputs = vec![Input::floats("go on", &[], &go_on)];
        inputs.extend(self.tables.iter().zip(&segments).flat_map(|(table, segments)| segments.inputs(&table.names)));
        let found = self.graph.run(&inputs)?;
        let mut squares = 0.0;
        for number in 0..self.groups {
            squares += found.floats(&named("squares", number))?.iter().map(|&x| f64::from(x)).sum::<f64>();
        }
        Ok(squares.sqrt())
    }
}

/// The name of a weight's gradient.
fn of(weight: &Weight) -> String {
    format!("gradient of {}", weight.name)
}

/// The name of some of a table's rows. Tables may read the same output.
fn rows_of(table: usize, number: usize) -> String {
    format!("rows {table} {number}")
}

/// The dense gradient of a weight.
fn gradient(g: &Graph, form: &Form, weight: &Weight, tables: &mut Vec<Table>) -> Value {
    match form {
        Form::Dense(_) => g.input(&of(weight), DataType::F32, fixed(&weight.shape)),
        Form::Nowhere => g.zeros(&weight.shape),
        Form::Rows(outputs) => {
            let (entries, width) = (weight.shape.first().copied().unwrap_or(1), weight.shape.last().copied().unwrap_or(1));
            let names = Names::new(&weight.name);
            let pieces: Vec<Value> = (0..outputs.len())
                .map(|i| {
                    let name = rows_of(tables.len(), i);
                    g.input(&name, DataType::F32, shape![format!("{name} rows").as_str(), width])
                })
                .collect();
            let rows = match pieces.as_slice() {
                [rows] => *rows,
                pieces => g.concat(pieces, 0, Dim::from(format!("rows of {}", weight.name).as_str())),
            };
            let sum = segments::sum(g, rows, entries, &names);
            tables.push(Table { outputs: outputs.clone(), names });
            sum
        }
    }
}
